"""First designs of one problem: different, repeatable, with the wanted mean."""

import numpy as np
import pytest

from fetopo.design.starts import Start, density, starts
from fetopo.microstructure.descriptors import align
from fetopo.microstructure.generate import overlapping_spheres

CELLS = [((32, 24), (2e-6, 1.5e-6)), ((12, 12, 12), (1.0, 1.0, 1.0))]


@pytest.mark.parametrize(("shape", "lengths"), CELLS)
def test_starts_differ_repeat_and_have_the_mean(shape, lengths):
    found = starts(shape, lengths, 0.4, 7, seed=3)
    assert len({start.name for start in found}) == 7
    assert found[0].make() == "inclusions"
    fields = [start.make() for start in found[1:]]
    for field in fields:
        assert field.shape == shape
        assert field.min() > 0
        assert field.max() < 1
        assert field.mean() == pytest.approx(0.4, abs=1e-6)
        # High and low, not a grey that the optimizer has to make something of.
        assert field.std() > 0.2
    # The first ones are the same however many there are, and come out the same again.
    fewer = starts(shape, lengths, 0.4, 4, seed=3)
    assert [start.name for start in fewer] == [start.name for start in found[:4]]
    for start, field in zip(fewer[1:], fields, strict=False):
        np.testing.assert_array_equal(start.make(), field)
    masks = [field > 0.5 for field in fields]
    for i, mask in enumerate(masks):
        assert all(align(mask, other).distance > 0.25 for other in masks[:i])


def test_another_seed_gives_other_starts():
    one, two = (starts((16, 16), (1.0, 1.0), 0.5, 2, seed=seed)[1].make() for seed in (0, 1))
    assert np.abs(one - two).max() > 0.3


def test_lengths_stay_within_filter_and_cell():
    """A medium finer than the filter would be gone after one iteration."""
    names = [start.name for start in starts((40, 40), (1.0, 1.0), 0.5, 21, shortest=0.15)[1:]]
    lengths = {float(name.split("length ")[1].split(",")[0]) for name in names}
    assert lengths == {0.15, 0.167, 0.25}


def test_images_come_first_and_are_imitated():
    image = overlapping_spheres((32, 32), volume_fraction=0.3, radius=4.0, seed=1, voxel_size=1.0)
    values = image.labels.astype(float)
    first = Start("mine", lambda: np.full((32, 32), 0.5))
    found = starts((32, 32), (1.0, 1.0), 0.5, 4, first=first, images={"a.tif": values})
    assert [start.name for start in found[:3]] == ["mine", "image a.tif", "reconstruction of a.tif, seed 1"]
    np.testing.assert_array_equal(found[1].make(), density(values, 0.5))
    # Where the image has the better material there is more of it; the reconstruction lies elsewhere.
    assert found[1].make()[values == 1].mean() > found[1].make()[values == 0].mean() + 0.5
    like = found[2].make()
    assert like.mean() == pytest.approx(0.5, abs=1e-6)
    assert align(found[1].make() > 0.5, like > 0.5).distance > 0.25


def test_bad_input():
    with pytest.raises(ValueError, match="at least one start is needed, found 0"):
        starts((8, 8), (1.0, 1.0), 0.5, 0)
    with pytest.raises(ValueError, match=r"a.tif needs the shape of the cell, \(8, 8\), found \(4, 4\)"):
        starts((8, 8), (1.0, 1.0), 0.5, 3, images={"a.tif": np.zeros((4, 4))})
