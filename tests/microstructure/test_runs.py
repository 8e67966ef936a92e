"""Clusters from runs against labels of every voxel by SciPy, around periodic faces too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from fetopo.microstructure._runs import Runs


@st.composite
def masks(draw):
    """Noise of any density: around the thresholds of percolation clusters meet in every way."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.random(shape) < draw(st.floats(0.1, 0.9))


def labels_of(mask, periodic):
    """Labels of a mask; of those that meet across a periodic face the smaller one stays."""
    labels, _ = ndimage.label(mask)
    while True:
        before = labels.copy()
        for axis in np.flatnonzero(periodic):
            low, high = labels.take(0, axis), labels.take(-1, axis)
            met = (low > 0) & (high > 0)
            for one, other in set(zip(low[met], high[met], strict=True)):
                labels[labels == max(one, other)] = min(one, other)
        if np.array_equal(before, labels):
            return labels


@given(masks(), st.lists(st.booleans(), min_size=3, max_size=3), st.sampled_from([1, 25, 2**16]))
@settings(max_examples=80, deadline=None)
def test_as_labels(mask, wraps, room):
    periodic = tuple(wraps[: mask.ndim])
    runs = Runs(mask, periodic, room)
    labels = labels_of(mask, periodic)
    known = np.unique(labels[labels > 0])
    assert runs.count == known.size
    size, touched = runs.measure()
    first = [np.flatnonzero(labels == label)[0] for label in known]
    for cluster, label in enumerate(known[np.argsort(first)]):
        here = labels == label
        chosen = np.arange(runs.count) == cluster
        assert np.array_equal(runs.select(chosen), here)
        assert size[cluster] == here.sum()
        for axis in range(mask.ndim):
            ends = here.take(0, axis).any() + 2 * here.take(-1, axis).any()
            assert touched[cluster, axis] == ends
        for place in (0, -1):
            assert np.array_equal(runs.plane(place) == cluster, here[place])
    for place in (0, -1):
        assert np.array_equal(runs.plane(place) < 0, ~mask[place])


def test_views_and_odd_booleans():
    """A view that is not contiguous, and booleans whose byte is not 1."""
    mask = np.random.default_rng(1).random((12, 11, 30)) < 0.4
    count = ndimage.label(mask)[1]
    assert Runs(mask.transpose(2, 0, 1)).count == count
    odd = np.where(mask, np.uint8(255), np.uint8(0)).view(bool)
    assert Runs(odd).count == count
    assert Runs(odd).measure()[0].sum() == mask.sum()


@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 5)])
def test_a_slab_without_rows(shape):
    runs = Runs(np.zeros(shape, dtype=bool))
    assert runs.count == 0
    assert np.array_equal(runs.plane(0), np.full(shape[1:], -1))
    assert runs.select(np.zeros(0, dtype=bool)).shape == shape


def test_keeps_twelve_bytes_a_run():
    """The worst case, every other voxel, has half as many runs as voxels."""
    mask = np.indices((30, 30, 30)).sum(axis=0) % 2 == 0
    runs = Runs(mask)
    assert runs.count == mask.sum()
    assert runs._arrays.nbytes + runs._first.nbytes <= 2 * 12 * mask.sum() + 8 * 901
