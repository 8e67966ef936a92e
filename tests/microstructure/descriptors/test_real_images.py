"""Every descriptor on every real image of ../shared/data, and what must hold of each.

Crops, because whole images of 500³ take minutes: in the default run a centred 40³, in the slow one 128³ (all
of what is smaller). `test_descriptors.py` runs those of `fetopo characterize` on whole images.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fetopo.microstructure import descriptors
from fetopo.microstructure.image import Image, read, read_grey

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"

# Name, phase described, and what `read` needs to be told.
IMAGES = {
    "nmc_electrode.tif": (0, {}),
    "electrode_three_phase.tiff": (0, {}),
    "bentheimer_sandstone.npz": (1, {}),
    "berea_200x200x200_uint8.raw": (0, {"shape": (200,) * 3, "dtype": "uint8"}),
    "ketton_carbonate.tif": (0, {}),
    "fiberform_grey.tif": (1, {}),
    "cast_iron_100x100x100_uint8.raw": (87, {"shape": (100,) * 3, "dtype": "uint8"}),
    "taufactor_joss_500.npz": (1, {}),
}


def crop_of(name: str, side: int) -> tuple[Image, int]:
    """Centred cube of an image, at most as large as the image, and the label that is described."""
    if not (DATA / name).is_file():
        pytest.skip(f"real image {name} is not in ../shared/data")
    phase, options = IMAGES[name]
    largest = {"fiberform_grey.tif": 100, "cast_iron_100x100x100_uint8.raw": 100}.get(name, side)
    crop = min(side, largest)
    if name == "fiberform_grey.tif":  # fibre is 90 or more
        grey = read_grey(DATA / name, crop=crop)
        return Image((grey.values >= 90).astype(np.uint8), grey.voxel_size), phase
    return read(DATA / name, crop=crop, **options), phase


def test_no_real_image_is_forgotten():
    if not DATA.is_dir():
        pytest.skip("../shared/data is not there")
    assert {path.name for path in DATA.iterdir()} - {"README.md"} == set(IMAGES)


@pytest.mark.parametrize("side", [40, pytest.param(128, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", IMAGES)
def test_every_descriptor(name, side):
    image, phase = crop_of(name, side)
    mask, sides = image.mask(phase), image.voxel_size
    fraction = float(mask.mean())
    h, volume = sides[0], mask.size * math.prod(sides)

    radial = descriptors.two_point_correlation(mask, sides)
    table = descriptors.two_point_map(mask, sides)
    zero = tuple(int(np.flatnonzero(lag == 0.0)[0]) for lag in table.lags)
    assert radial.value[0] == pytest.approx(fraction, abs=1e-12)
    assert table.value[zero] == pytest.approx(fraction, abs=1e-12)
    np.testing.assert_allclose(table.value, np.flip(table.value), rtol=0, atol=1e-12)

    along = [descriptors.two_point_along(mask, sides, axis) for axis in range(3)]
    paths = [descriptors.lineal_path(mask, sides, axis) for axis in range(3)]
    for axis, (s2, path) in enumerate(zip(along, paths, strict=True)):
        assert s2.value[0] == path.value[0] == pytest.approx(fraction, abs=1e-12)
        assert (path.value <= s2.value + 1e-12).all()
        assert (path.value >= 0).all()
        line = table.along(axis).value
        np.testing.assert_allclose(line, s2.value[: line.size], rtol=0, atol=1e-12)
    mean_path = descriptors.mean_lineal_path(mask, sides)
    half = mean_path.value.size
    np.testing.assert_allclose(mean_path.value, np.mean([p.value[:half] for p in paths], axis=0), atol=1e-12)

    for axis in range(3):
        chords = descriptors.chord_lengths(mask, sides, axis)
        assert chords.count.sum() + chords.cut > 0
        if chords.count.any():  # in 40³ of the cast iron no chord along axis 0 is complete
            assert h <= chords.mean <= side * h
            assert chords.density.sum() * h == pytest.approx(1.0)
        assert chords.count @ np.arange(1, chords.count.size + 1) <= mask.sum()

    cross = descriptors.cross_correlations(image)
    assert cross.labels == tuple(image.phases)
    np.testing.assert_allclose(cross.of(phase, phase).value, radial.value, rtol=0, atol=1e-12)
    np.testing.assert_allclose(cross.value.sum(axis=(0, 1)), 1.0, rtol=0, atol=1e-12)

    cluster = descriptors.two_point_cluster(mask, sides)
    np.testing.assert_allclose(cluster.value + cluster.blocked, radial.value, rtol=0, atol=1e-12)
    assert (cluster.value >= 0).all()
    parts = descriptors.clusters(mask, sides)
    assert parts.size.sum() == pytest.approx(fraction * volume)
    assert all(0 <= share <= 1 for share in parts.percolating_fraction)

    surface = descriptors.specific_surface(mask, sides)
    slope = descriptors.surface_from_correlation(mask, sides)
    assert slope.correlation[0] == pytest.approx(fraction)
    assert slope.value == pytest.approx(surface, rel=0.3)  # more where voxels are rough: the GAN's electrode

    pores = descriptors.pore_sizes(mask, sides)
    thickness = descriptors.local_thickness(mask, sides)
    assert ((thickness > 0) == mask).all()
    assert 0 < pores.mean <= thickness.max()

    lengths = descriptors.anisotropy(mask, sides)
    assert descriptors.volume_fractions(image) == image.phases
    assert sum(image.phases.values()) == pytest.approx(1.0)

    summary = descriptors.characterize(image, phase)
    assert summary["porosity"] == pytest.approx(fraction)
    results = (radial, table, along[0], paths[0], mean_path, cross, cluster, parts, slope, pores, lengths)
    for result in results:
        plain = result.to_dict()
        assert plain == json.loads(json.dumps(plain, allow_nan=False))
