"""The page of `fetopo characterize`, and what the summary says."""

import json

import numpy as np
import pytest

from fetopo.microstructure import generate
from fetopo.microstructure.descriptors import (
    anisotropy,
    chord_lengths,
    clusters,
    pore_sizes,
    summarize,
    surface_from_correlation,
)
from fetopo.microstructure.descriptors.page import lines, save_page
from fetopo.microstructure.image import Image

ELECTRODE = generate.electrode((20, 24, 18), porosity=0.4, particle_radius=4e-6, seed=2)
IMAGES = {
    "3D": (ELECTRODE, 0),
    "several labels": (ELECTRODE, [1, 2]),
    "2D": (generate.gaussian_field((40, 50), volume_fraction=0.3, correlation_length=4e-6, seed=1), 1),
    "one phase": (Image(np.ones((6, 5, 4), int)), 1),
    "thin": (Image(np.arange(30).reshape(2, 15) % 2), 1),
    "one voxel": (Image(np.zeros((1, 1), int)), 0),
    "many labels": (Image(np.arange(64).reshape(4, 4, 4)), 5),
}


@pytest.mark.parametrize(("image", "phase"), IMAGES.values(), ids=IMAGES)
def test_every_image_has_a_page(tmp_path, image, phase):
    pytest.importorskip("matplotlib")
    found = summarize(image, phase)
    save_page(tmp_path / "page.png", image, phase, found, "title")
    assert (tmp_path / "page.png").stat().st_size > 10000
    json.dumps(found.to_dict(), allow_nan=False)
    assert all(len(line) < 120 for line in lines(found))


def test_summary_holds_what_the_descriptors_give():
    mask = ELECTRODE.mask(0)
    sides = ELECTRODE.voxel_size
    told = []
    found = summarize(ELECTRODE, 0, progress=lambda *step: told.append(step)).to_dict()
    assert [step[1] for step in told] == list(range(len(told)))
    assert told[-1][0] == "done"
    chords = [chord_lengths(mask, sides, axis) for axis in range(3)]
    for axis, one in enumerate(chords):
        every = np.repeat(one.length, one.count)
        assert found["mean_chord_length"][axis] == pytest.approx(every.mean())
        assert found["chord_lengths"]["deviation"][axis] == pytest.approx(every.std())
        assert found["chord_lengths"]["median"][axis] == np.sort(every)[(every.size - 1) // 2]
    assert found["specific_surface_from_correlation"] == surface_from_correlation(mask, sides).value
    assert found["anisotropy"] == anisotropy(mask, sides).to_dict()
    assert found["pore_sizes"]["d50"] == pore_sizes(mask, sides).quantile(0.5)
    parts = clusters(mask, sides)
    assert found["clusters"]["count"] == parts.count
    assert found["percolating_fraction"] == list(parts.percolating_fraction)
    assert summarize(ELECTRODE, 0, pores=False).pore_sizes is None
