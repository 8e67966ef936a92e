"""Clusters and the cluster function against brute force and media where they are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fetopo.microstructure import generate
from fetopo.microstructure.descriptors import (
    clusters,
    label_clusters,
    two_point_cluster,
    two_point_correlation,
)
from fetopo.microstructure.image import percolating_fraction

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=7))


def flood(mask, periodic):
    """Clusters by walking from voxel to neighbour."""
    number = np.zeros(mask.shape, int)
    for start in np.argwhere(mask):
        if number[tuple(start)]:
            continue
        count, waiting = number.max() + 1, [tuple(start)]
        while waiting:
            x = waiting.pop()
            if not mask[x] or number[x]:
                continue
            number[x] = count
            for axis in range(mask.ndim):
                for sign in (-1, 1):
                    y = list(x)
                    y[axis] += sign
                    if periodic:
                        y[axis] %= mask.shape[axis]
                    if 0 <= y[axis] < mask.shape[axis]:
                        waiting.append(tuple(y))
    return number


def count_in_clusters(mask, periodic):
    """C2 as a sum over the S2 of the clusters taken one by one."""
    number = flood(mask, periodic)
    parts = [two_point_correlation(number == k, 1.0, periodic).value for k in range(1, number.max() + 1)]
    return np.sum(parts, axis=0) if parts else 0.0


class TestClusterFunction:
    @given(masks, st.booleans(), st.sampled_from([0, 3, 64]))
    @settings(max_examples=60, deadline=None)
    def test_equals_sum_over_clusters(self, mask, periodic, pairwise):
        """Counted by FFT, pair by pair, or both: all pairs of each cluster, and nothing else."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fetopo.microstructure.descriptors.connectivity.PAIRWISE_SIZE", pairwise)
            found = two_point_cluster(mask, 1.0, periodic)
        np.testing.assert_allclose(found.value, count_in_clusters(mask, periodic), atol=1e-13)
        s2 = two_point_correlation(mask, 1.0, periodic)
        np.testing.assert_allclose(found.value + found.blocked, s2.value, atol=1e-14)
        assert (found.value <= s2.value + 1e-14).all()
        assert found.value[0] == pytest.approx(mask.mean(), abs=1e-14)
        np.testing.assert_array_equal(found.r, s2.r)

    @pytest.mark.parametrize("periodic", [False, True])
    def test_larger_image(self, periodic):
        """Clusters of all sizes, those that cross the border among them."""
        mask = np.random.default_rng(3).random((40, 41)) < 0.56
        assert np.bincount(flood(mask, periodic).ravel())[1:].max() > 64
        found = two_point_cluster(mask, 1.0, periodic)
        np.testing.assert_allclose(found.value, count_in_clusters(mask, periodic), atol=1e-13)

    @given(masks, st.data())
    @settings(max_examples=40, deadline=None)
    def test_periodic_translation_invariance(self, mask, data):
        moved = np.roll(mask, [data.draw(st.integers(0, n - 1)) for n in mask.shape], range(mask.ndim))
        first, second = (two_point_cluster(m, 1.0, periodic=True).value for m in (mask, moved))
        np.testing.assert_allclose(first, second, atol=1e-14)
        one, two = (clusters(m, 1.0, periodic=True) for m in (mask, moved))
        assert one.to_dict() == two.to_dict()

    def test_checkerboard(self):
        """Squares that touch at corners are clusters of their own: beyond a diagonal C2 = 0, S2 is not."""
        mask = generate.checkerboard((32, 32), tile=4).mask(0)
        found = two_point_cluster(mask, 1.0, periodic=True)
        assert (found.value[5:] == 0).all()
        assert (found.blocked[5:] > 0.1).all()


class TestClusters:
    @given(masks, st.booleans())
    @settings(max_examples=60, deadline=None)
    def test_sizes_and_labels(self, mask, periodic):
        number = flood(mask, periodic)
        found = clusters(mask, 2.0, periodic)
        expected = np.sort(np.bincount(number.ravel())[1:])[::-1] * 2.0**mask.ndim
        np.testing.assert_array_equal(found.size, expected)
        assert found.fraction == pytest.approx(mask.mean())
        labels, count = label_clusters(mask, periodic)
        assert count == found.count == number.max()
        pairs = np.unique(np.stack([labels.ravel(), number.ravel()]), axis=1)
        assert pairs.shape[1] == np.unique(number).size
        assert ((labels > 0) == mask).all()
        if not periodic:
            for axis in range(mask.ndim):
                assert found.percolating_fraction[axis] == percolating_fraction(mask, axis)

    @given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6)))
    @settings(max_examples=80, deadline=None)
    def test_winding_as_seen_in_many_cells(self, mask):
        """A part percolates along an axis when, tiled without end, it reaches its own copy along it."""
        labels, count = label_clusters(mask, periodic=True)
        found = clusters(mask, 1.0, periodic=True)
        tiles = 15
        big = flood(np.tile(mask, (tiles, tiles)), periodic=False)
        winds = np.zeros((count + 1, 2), bool)
        n, m = mask.shape
        for k in range(1, count + 1):
            x, y = np.argwhere(labels == k)[0]
            middle = tiles // 2
            home = big[middle * n + x, middle * m + y]
            for a in range(tiles):
                for b in range(tiles):
                    if big[a * n + x, b * m + y] == home:
                        winds[k] |= [a != middle, b != middle]
        assert found.percolating_count == tuple(int(c) for c in winds.sum(axis=0))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        for axis in range(2):
            share = sizes[winds[:, axis]].sum() / max(1, mask.sum())
            assert found.percolating_fraction[axis] == pytest.approx(share)

    def test_path_that_does_not_close(self):
        """A step in the middle: both faces are touched, but in the periodic cell nothing goes through."""
        mask = np.zeros((8, 8), bool)
        mask[:5, 1] = mask[4, 1:5] = mask[4:, 4] = True
        assert clusters(mask, 1.0).percolating_fraction == (1.0, 0.0)
        assert clusters(mask, 1.0, periodic=True).percolating_fraction == (0.0, 0.0)
        mask[0, 1:5] = True
        assert clusters(mask, 1.0, periodic=True).percolating_fraction == (1.0, 0.0)

    def test_numbers(self):
        mask = np.zeros((10, 10), bool)
        mask[2:4, 2:5] = mask[7, 7] = True
        found = clusters(mask, 1e-6)
        assert found.count == 2
        assert found.largest_fraction == pytest.approx(6 / 7)
        assert found.mean_size == pytest.approx(37 / 7 * 1e-12)

    def test_phase_without_voxels(self):
        found = clusters(np.zeros((4, 4), bool), 1.0)
        assert found.count == 0
        assert found.largest_fraction == 0.0
        assert found.to_dict()["mean_size"] is None
        assert found.percolating_fraction == (0.0, 0.0)
