"""Clusters that connect faces, those that reach one, those that reach none."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from fetopo.microstructure.connectivity import connectivity, trim
from fetopo.microstructure.image import Image, percolating_fraction, read

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def test_each_kind_of_cluster():
    mask = np.zeros((5, 9), dtype=bool)
    mask[:, 1] = True  # through along axis 0: 5
    mask[:3, 3] = True  # reaches one face: 3
    mask[3:, 5] = True  # reaches the other: 2
    mask[2, 7] = True  # reaches none: 1
    first, second = connectivity(mask)
    assert (first.percolating, first.one_face, first.isolated, first.clusters) == (5, 5, 1, 4)
    assert first.voxels == 11
    assert first.percolating_fraction == 5 / 11
    assert (second.percolating, second.one_face, second.isolated) == (0, 0, 11)
    np.testing.assert_array_equal(first.through, mask & (np.arange(9) == 1))


def test_one_voxel_thick():
    """A cluster in the only layer touches both faces."""
    found = connectivity(np.ones((1, 3), dtype=bool), [0])[0]
    assert found.percolating == 3


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, max_side=7)))
@settings(max_examples=80, deadline=None)
def test_counts_add_up(mask):
    for found in connectivity(mask):
        assert found.voxels == mask.sum()
        assert found.percolating == found.through.sum()
        assert found.clusters == ndimage.label(mask)[1]
        assert found.percolating_fraction == percolating_fraction(mask, found.axis)
        kept, removed = trim(mask, found.axis)
        assert removed == pytest.approx(1 - kept.sum() / mask.sum() if mask.any() else 0.0)


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=6)), st.integers(0, 1))
@settings(max_examples=60, deadline=None)
def test_by_flooding_from_the_faces(mask, axis):
    """Independent: flood from either face, and compare."""
    seeds = np.zeros_like(mask), np.zeros_like(mask)
    np.moveaxis(seeds[0], axis, 0)[0] = True
    np.moveaxis(seeds[1], axis, 0)[-1] = True
    low, high = (ndimage.binary_propagation(seed & mask, mask=mask) for seed in seeds)
    found = connectivity(mask, [axis])[0]
    np.testing.assert_array_equal(found.through, low & high)
    assert found.one_face == (low ^ high).sum()
    assert found.isolated == (mask & ~low & ~high).sum()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((3, 3), int), "mask is int64 of shape"),
        (np.zeros(3, bool), r"\(3,\): expected 2D or 3D"),
        (np.zeros((3, 0), bool), "not empty"),
    ],
)
def test_bad_masks(mask, message):
    with pytest.raises(ValueError, match=message):
        connectivity(mask)


def test_trim_says_how_much(caplog):
    mask = Image(np.array([[1, 0, 1], [1, 0, 0]])).mask(1)
    with caplog.at_level("INFO", logger="fetopo"):
        kept, removed = trim(mask, 0)
    assert removed == pytest.approx(1 / 3)
    assert kept.sum() == 2
    assert "removes 0.333 of the phase: 1 voxels that reach one face, 0 that reach neither" in caplog.text


def test_real_electrode():
    path = DATA / "nmc_electrode.tif"
    if not path.is_file():
        pytest.skip("real image nmc_electrode.tif is not in ../shared/data")
    mask = read(path, crop=100).mask(0)
    for found in connectivity(mask):
        assert found.voxels == mask.sum()
        assert 0.97 < found.percolating_fraction < 1.0
        assert found.isolated > 0
