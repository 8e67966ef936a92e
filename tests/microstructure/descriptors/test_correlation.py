"""Maps, correlations along axes and between phases: against brute force, and what holds for every image."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fetopo.microstructure import generate
from fetopo.microstructure.descriptors import (
    cross_correlations,
    lineal_path,
    mean_lineal_path,
    two_point_along,
    two_point_correlation,
    two_point_map,
)
from fetopo.microstructure.image import Image

shapes = hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=7)
masks = hnp.arrays(bool, shapes)
images = hnp.arrays(np.uint8, shapes, elements=st.integers(0, 2)).filter(lambda a: np.unique(a).size > 1)


def pairs_at(first, second, lag, periodic):
    """Share of the pairs (x, x + lag) of the image with x in the first and x + lag in the second mask."""
    if periodic:
        return np.mean(first & np.roll(second, [-g for g in lag], range(first.ndim)))
    here = tuple(slice(max(0, -g), n - max(0, g)) for n, g in zip(first.shape, lag, strict=True))
    there = tuple(slice(max(0, g), n + min(0, g)) for n, g in zip(first.shape, lag, strict=True))
    return np.mean(first[here] & second[there])


class TestMap:
    @given(masks, st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_equals_brute_force(self, mask, periodic):
        found = two_point_map(mask, 2.0, periodic)
        lags = [np.rint(lag / 2.0).astype(int) for lag in found.lags]
        assert found.value.shape == tuple(lag.size for lag in lags)
        if periodic:
            assert found.value.shape == mask.shape
        for index in np.ndindex(found.value.shape):
            lag = [int(lags[a][i]) for a, i in enumerate(index)]
            assert found.value[index] == pytest.approx(pairs_at(mask, mask, lag, periodic), abs=1e-13)

    @given(masks, st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_zero_lag_symmetry_and_mean(self, mask, periodic):
        found = two_point_map(mask, 1.0, periodic)
        zero = tuple(int(np.flatnonzero(lag == 0.0)[0]) for lag in found.lags)
        assert found.value[zero] == pytest.approx(mask.mean(), abs=1e-14)
        odd = tuple(slice(1, None) if n % 2 == 0 and periodic else slice(None) for n in mask.shape)
        np.testing.assert_allclose(found.value[odd], np.flip(found.value[odd]), atol=1e-14)
        if periodic:  # the mean over all lags counts every pair once
            assert found.value.mean() == pytest.approx(mask.mean() ** 2, abs=1e-13)

    @given(masks, st.booleans(), st.data())
    @settings(max_examples=40, deadline=None)
    def test_along_an_axis(self, mask, periodic, data):
        axis = data.draw(st.integers(0, mask.ndim - 1))
        line = two_point_along(mask, 3.0, axis, periodic)
        cut = two_point_map(mask, 3.0, periodic).along(axis)
        n = cut.value.size
        np.testing.assert_allclose(line.r[:n], cut.r)
        np.testing.assert_allclose(line.value[:n], cut.value, atol=1e-13)
        assert line.value[0] == pytest.approx(mask.mean(), abs=1e-14)
        assert (lineal_path(mask, 3.0, axis, periodic).value <= line.value + 1e-13).all()

    @given(masks, st.data())
    @settings(max_examples=40, deadline=None)
    def test_periodic_translation_invariance(self, mask, data):
        moved = np.roll(mask, [data.draw(st.integers(0, n - 1)) for n in mask.shape], range(mask.ndim))
        first, second = (two_point_map(m, 1.0, periodic=True) for m in (mask, moved))
        np.testing.assert_allclose(first.value, second.value, atol=1e-14)
        paths = [mean_lineal_path(m, 1.0, periodic=True).value for m in (mask, moved)]
        np.testing.assert_allclose(*paths, atol=1e-14)

    @given(st.floats(0.1, 0.9), st.integers(0, 2**32 - 1))
    @settings(max_examples=20, deadline=None)
    def test_uncorrelated_medium(self, fraction, seed):
        """S2 → φ²: every lag within six, their mean within eight standard errors (pairs share voxels)."""
        mask = np.random.default_rng(seed).random((48, 48)) < fraction
        phi, n = mask.mean(), mask.size
        value = two_point_map(mask, 1.0, periodic=True).value.ravel()
        others = np.delete(value, (48 // 2) * 48 + 48 // 2)
        assert np.abs(others - phi**2).max() < 6 * phi * (1 - phi) / n**0.5 + 2 / n
        assert others.mean() == pytest.approx(phi**2, abs=2 / n)

    @pytest.mark.parametrize("shape", [(8, 9), (6, 7, 8)])
    def test_radial_average_of_the_map(self, shape):
        mask = np.random.default_rng(5).random(shape) < 0.4
        full, radial = two_point_map(mask, 1.0), two_point_correlation(mask, 1.0)
        grid = np.meshgrid(*full.lags, indexing="ij")
        pairs = np.prod([n - np.abs(g) for n, g in zip(shape, grid, strict=True)], axis=0)
        r = np.sqrt(sum(g**2 for g in grid))
        for k, value in enumerate(radial.value):
            ring = (r >= k) & (r < k + 1)
            assert value == pytest.approx((full.value * pairs)[ring].sum() / pairs[ring].sum(), abs=1e-12)
            assert radial.r[k] == pytest.approx((r * pairs)[ring].sum() / pairs[ring].sum(), abs=1e-12)


class TestCrossCorrelations:
    @given(images, st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_sums(self, labels, periodic):
        """Σ_j S_ij = φ_i in a periodic cell and at zero lag; Σ_ij S_ij = 1 always."""
        image = Image(labels, 1.0)
        found = cross_correlations(image, periodic)
        fractions = np.array([image.phases[label] for label in found.labels])
        np.testing.assert_allclose(found.value.sum(axis=(0, 1)), 1.0, atol=1e-13)
        np.testing.assert_allclose(found.value[:, :, 0], np.diag(fractions), atol=1e-14)
        np.testing.assert_array_equal(found.value, found.value.transpose(1, 0, 2))
        if periodic:
            expected = np.broadcast_to(fractions[:, None], (fractions.size, found.r.size))
            np.testing.assert_allclose(found.value.sum(axis=1), expected, atol=1e-13)
        for label in found.labels:
            own = two_point_correlation(labels == label, 1.0, periodic)
            np.testing.assert_allclose(found.of(label, label).value, own.value, atol=1e-13)
            np.testing.assert_allclose(found.r, own.r)

    @pytest.mark.parametrize("periodic", [False, True])
    def test_equals_brute_force(self, periodic):
        labels = np.random.default_rng(8).choice([3, 5, 9], size=(7, 9))
        found = cross_correlations(Image(labels, 1.0), periodic)
        k = found.labels.index(3), found.labels.index(9)
        for b in range(found.r.size):
            weights, shares = [], []
            for lag in itertools.product(range(-3, 4), repeat=2):
                if b <= np.hypot(*lag) < b + 1:
                    free = 63 if periodic else (7 - abs(lag[0])) * (9 - abs(lag[1]))
                    weights.append(free)
                    shares.append(free * pairs_at(labels == 3, labels == 9, lag, periodic))
            assert found.value[k][b] == pytest.approx(sum(shares) / sum(weights), abs=1e-12)

    @given(images, st.data())
    @settings(max_examples=30, deadline=None)
    def test_periodic_translation_invariance(self, labels, data):
        moved = np.roll(labels, [data.draw(st.integers(0, n - 1)) for n in labels.shape], range(labels.ndim))
        first, second = (cross_correlations(Image(a, 1.0), periodic=True).value for a in (labels, moved))
        np.testing.assert_allclose(first, second, atol=1e-14)

    def test_one_phase(self):
        with pytest.raises(ValueError, match="phase 4 only: expected two phases"):
            cross_correlations(Image(np.full((4, 4), 4)))

    def test_absent_label(self):
        found = cross_correlations(generate.checkerboard((8, 8), tile=2))
        with pytest.raises(ValueError, match="label 7: expected one of 0, 1"):
            found.of(0, 7)


class TestMeanLinealPath:
    def test_average_over_axes(self):
        mask = generate.electrode((20, 24, 28), porosity=0.4, particle_radius=4e-6, seed=1).mask(0)
        found = mean_lineal_path(mask, 1e-6)
        each = [lineal_path(mask, 1e-6, axis).value[:11] for axis in range(3)]
        np.testing.assert_allclose(found.value, np.mean(each, axis=0), atol=1e-15)
        np.testing.assert_allclose(found.r, 1e-6 * np.arange(11))

    def test_other_sides_are_interpolated(self):
        mask = np.zeros((8, 8), bool)
        mask[:4] = True
        found = mean_lineal_path(mask, (2.0, 1.0), periodic=True)
        np.testing.assert_allclose(found.value, 0.5 * ((4 - found.r / 2) / 8 + 0.5))
