"""Descriptors against brute force, closed forms, exact media and real images that others have measured."""

import itertools
import json
import math
import tracemalloc
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import integrate, stats

from fetopo.microstructure import generate
from fetopo.microstructure.descriptors import (
    _radial,
    characterize,
    chord_lengths,
    lineal_path,
    specific_surface,
    two_point_along,
    two_point_correlation,
    two_point_map,
    volume_fractions,
)
from fetopo.microstructure.descriptors.correlation import lag_counts, radial_average
from fetopo.microstructure.image import Image, read

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=8))


def real(name: str) -> Path:
    """Path of a real image; the test is skipped where it is not there."""
    if not (DATA / name).is_file():
        pytest.skip(f"real image {name} is not in ../shared/data")
    return DATA / name


def brute_force_s2(mask, sides, periodic):
    """S2 by counting the pairs of every lag, one by one."""
    step, reach = min(sides), min(n * h for n, h in zip(mask.shape, sides, strict=True)) / 2
    limits = [min(int(reach / h + 1e-9), (n - 1) // 2) for n, h in zip(mask.shape, sides, strict=True)]
    bins = int(min((m + 1) * h for m, h in zip(limits, sides, strict=True)) / step + 1e-9)
    inside, pairs = np.zeros(bins), np.zeros(bins)
    for lag in itertools.product(*(range(-m, m + 1) for m in limits)):
        k = int(math.sqrt(sum((g * h) ** 2 for g, h in zip(lag, sides, strict=True))) / step + 1e-9)
        if k >= bins:
            continue
        for x in np.ndindex(mask.shape):
            y = tuple(a + b for a, b in zip(x, lag, strict=True))
            if periodic:
                y = tuple(a % n for a, n in zip(y, mask.shape, strict=True))
            elif not all(0 <= a < n for a, n in zip(y, mask.shape, strict=True)):
                continue
            pairs[k] += 1
            inside[k] += mask[x] and mask[y]
    return (inside / np.maximum(pairs, 1))[pairs > 0]


def lines_along(mask, axis):
    return np.moveaxis(mask, axis, -1).reshape(-1, mask.shape[axis])


class TestTwoPointCorrelation:
    @pytest.mark.parametrize("periodic", [False, True])
    @pytest.mark.parametrize("shape", [(9, 12), (6, 7, 8)])
    @pytest.mark.parametrize("stretch", [1.0, 2.0])
    def test_equals_brute_force(self, shape, periodic, stretch):
        mask = np.random.default_rng(1).random(shape) < 0.4
        sides = (stretch * 1e-6,) + (1e-6,) * (len(shape) - 1)
        found = two_point_correlation(mask, sides, periodic)
        np.testing.assert_allclose(found.value, brute_force_s2(mask, sides, periodic), rtol=0, atol=1e-12)
        assert found.r[0] == 0.0
        assert (np.diff(found.r) > 0).all()

    @given(masks, st.booleans())
    @settings(max_examples=60, deadline=None)
    def test_zero_lag_and_bounds(self, mask, periodic):
        found = two_point_correlation(mask, 2e-6, periodic)
        assert found.value[0] == pytest.approx(mask.mean(), abs=1e-14)
        assert (found.value >= 0).all()
        if periodic:
            assert (found.value <= mask.mean() + 1e-14).all()
        step = (found.r / 2e-6 * (1 + 1e-12)).astype(int)
        np.testing.assert_array_equal(step, np.arange(step.size))

    @given(masks, st.data())
    @settings(max_examples=40, deadline=None)
    def test_periodic_translation_invariance(self, mask, data):
        shift = [data.draw(st.integers(0, n - 1)) for n in mask.shape]
        moved = np.roll(mask, shift, range(mask.ndim))
        first, second = (two_point_correlation(m, 1.0, periodic=True).value for m in (mask, moved))
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-14)

    @pytest.mark.parametrize("shape", [(64, 64), (24, 32, 40)])
    def test_image_and_negative_at_half(self, shape):
        """The thought experiment that opens the subject: equal S2 to round-off."""
        image = generate.overlapping_spheres(shape, volume_fraction=0.5, radius=4e-6, seed=2)
        first, second = (two_point_correlation(image.mask(k), 1e-6, periodic=True).value for k in (0, 1))
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-14)

    @given(hnp.arrays(np.uint8, (6, 7), elements=st.integers(0, 2)))
    @settings(max_examples=30, deadline=None)
    def test_probability_of_the_rest_follows(self, labels):
        """S2 of the complement is 1 − 2φ + S2 in a periodic cell: sums over two phases are exact."""
        mask = labels == 1
        s2 = two_point_correlation(mask, 1.0, periodic=True).value
        rest = two_point_correlation(~mask, 1.0, periodic=True).value
        np.testing.assert_allclose(rest, 1.0 - 2.0 * mask.mean() + s2, rtol=0, atol=1e-14)

    def test_uncorrelated_medium(self):
        """Voxels thrown independently: S2 = φ² beyond zero lag, within five standard errors."""
        mask = np.random.default_rng(3).random((96, 96, 96)) < 0.3
        found = two_point_correlation(mask, 1.0)
        np.testing.assert_allclose(found.value[5:], 0.09, rtol=0, atol=2.5e-3)

    def test_gaussian_field(self):
        """Bivariate normal: S2 = 1/4 + asin(exp(−(r/ℓ)²))/2π at φ = 1/2 (99.9 % t interval over 10 seeds)."""
        runs = []
        for seed in range(10):
            image = generate.gaussian_field(
                (512, 512), volume_fraction=0.5, correlation_length=12e-6, seed=seed
            )
            s2 = two_point_correlation(image.mask(1), 1e-6, periodic=True)
            runs.append(s2.value[[3, 8, 16, 40]])
        r = s2.r[[3, 8, 16, 40]] / 12e-6
        exact = 0.25 + np.arcsin(np.exp(-(r**2))) / (2 * math.pi)
        assert_within_confidence(runs, exact)

    def test_single_precision_of_large_maps_is_enough(self, monkeypatch):
        mask = np.random.default_rng(4).random((60, 61, 62)) < 0.3
        double = two_point_map(mask, 1.0).value
        monkeypatch.setattr("fetopo.microstructure.descriptors.correlation.DOUBLE_PRECISION_SIZE", 0)
        single = two_point_map(mask, 1.0).value
        np.testing.assert_allclose(single, double, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("periodic", [False, True])
    @pytest.mark.parametrize("sides", [(1.0,), (1.0, 1.7, 0.6)])
    @pytest.mark.parametrize("shape", [(20, 17, 24), (25, 30), (1, 6, 7), (8, 1)])
    def test_counted_in_parts_as_over_all_lags(self, monkeypatch, shape, sides, periodic):
        """However few frequencies fit into memory: the pairs of every lag vector, added up in the bins."""
        mask = np.random.default_rng(6).random(shape) < 0.4
        sides = (sides * len(shape))[: len(shape)]
        limits = _radial.radial_limits(shape, sides)
        counts = lag_counts(mask, limits, [periodic] * mask.ndim)
        expected = radial_average(counts, shape, sides, limits, periodic)
        for batch, columns in ((1, 1), (700, 3000), (2**20, 2**21)):
            monkeypatch.setattr(_radial, "BATCH", batch)
            monkeypatch.setattr(_radial, "COLUMNS", columns)
            found = two_point_correlation(mask, sides, periodic)
            np.testing.assert_allclose(found.r, expected.r, rtol=1e-12)
            np.testing.assert_array_equal(found.value, expected.value)

    def test_memory(self):
        mask = np.random.default_rng(6).random((160, 160, 160)) < 0.4
        two_point_correlation(mask[:20], 1.0)
        tracemalloc.start()
        two_point_correlation(mask, 1.0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # 32 MB of frequencies and as much for their transforms, whatever the size; two bytes a voxel beyond.
        assert peak < 100e6

    @pytest.mark.parametrize("mask", [np.zeros((3, 3)), np.zeros(3, bool), np.zeros((0, 3), bool)])
    def test_bad_mask(self, mask):
        with pytest.raises(ValueError, match="expected 2D or 3D booleans"):
            two_point_correlation(mask, 1.0)


class TestLinealPath:
    @given(masks, st.booleans(), st.data())
    @settings(max_examples=80, deadline=None)
    def test_equals_brute_force(self, mask, periodic, data):
        axis = data.draw(st.integers(0, mask.ndim - 1))
        n = mask.shape[axis]
        found = lineal_path(mask, 3e-6, axis, periodic)
        lines = lines_along(mask, axis)
        lines = np.hstack([lines, lines]) if periodic else lines
        for k in range(n):
            windows = [lines[:, i : i + k + 1].all(axis=1) for i in range(n if periodic else n - k)]
            assert found.value[k] == pytest.approx(np.mean(windows), abs=1e-14)
        np.testing.assert_allclose(found.r, 3e-6 * np.arange(n))

    @given(masks, st.booleans(), st.data())
    @settings(max_examples=60, deadline=None)
    def test_below_s2_along_the_same_axis(self, mask, periodic, data):
        axis = data.draw(st.integers(0, mask.ndim - 1))
        path = lineal_path(mask, 1.0, axis, periodic)
        lines = lines_along(mask, axis)
        n = mask.shape[axis]
        for k in range(n):
            ends = np.roll(lines, -k, axis=1) if periodic else lines[:, k:]
            s2 = np.mean(lines[:, : ends.shape[1]] & ends)
            assert path.value[k] <= s2 + 1e-14
        assert path.value[0] == pytest.approx(mask.mean(), abs=1e-14)

    @given(masks, st.data())
    @settings(max_examples=40, deadline=None)
    def test_periodic_translation_invariance(self, mask, data):
        axis = data.draw(st.integers(0, mask.ndim - 1))
        moved = np.roll(mask, [data.draw(st.integers(0, n - 1)) for n in mask.shape], range(mask.ndim))
        np.testing.assert_array_equal(
            lineal_path(mask, 1.0, axis, periodic=True).value,
            lineal_path(moved, 1.0, axis, periodic=True).value,
        )
        first, second = (chord_lengths(m, 1.0, axis, periodic=True) for m in (mask, moved))
        np.testing.assert_array_equal(first.count, second.count)

    def test_tells_an_image_from_its_negative(self):
        image = generate.overlapping_spheres((256, 256), volume_fraction=0.5, radius=8e-6, seed=2)
        void, spheres = (lineal_path(image.mask(k), 1e-6, 0, periodic=True).value[16] for k in (0, 1))
        assert void > 1.3 * spheres

    def test_bad_axis(self):
        with pytest.raises(ValueError, match="axis is 2: expected 0 to 1"):
            lineal_path(np.ones((3, 3), bool), 1.0, 2)


class TestChordLengths:
    @given(masks, st.booleans(), st.data())
    @settings(max_examples=80, deadline=None)
    def test_equals_brute_force(self, mask, periodic, data):
        axis = data.draw(st.integers(0, mask.ndim - 1))
        found = chord_lengths(mask, 2.0, axis, periodic)
        count, cut = np.zeros(mask.shape[axis], int), 0
        for line in lines_along(mask, axis):
            if periodic and not line.all():
                line = np.roll(line, -int(np.argmin(line)))  # starts outside the phase: nothing is cut
            runs = [(key, len(list(group))) for key, group in itertools.groupby(line)]
            for i, (key, length) in enumerate(runs):
                if key and (line.all() or (not periodic and i in (0, len(runs) - 1))):
                    cut += 1
                elif key:
                    count[length - 1] += 1
        np.testing.assert_array_equal(found.count, count)
        assert found.cut == cut
        np.testing.assert_array_equal(found.length, 2.0 * np.arange(1, mask.shape[axis] + 1))

    def test_no_chord(self):
        found = chord_lengths(np.ones((4, 4), bool), 1.0, 0)
        assert math.isnan(found.mean)
        assert found.to_dict()["mean"] is None
        assert found.cut == 4


class TestSpecificSurface:
    @pytest.mark.parametrize(("radius", "tolerance"), [(10, 0.02), (20, 0.005)])
    @pytest.mark.parametrize("sides", [(1e-6, 1e-6, 1e-6), (2e-6, 1e-6, 1e-6), (0.5e-6, 1e-6, 1e-6)])
    def test_sphere(self, radius, tolerance, sides):
        shape = tuple(2 * math.ceil(24e-6 / h) for h in sides)
        r = radius * 1e-6
        mask = sum(_square(n, h, a) for a, (n, h) in enumerate(zip(shape, sides, strict=True))) < r**2
        expected = 4 * math.pi * r**2 / math.prod(n * h for n, h in zip(shape, sides, strict=True))
        assert specific_surface(mask, sides, periodic=True) == pytest.approx(expected, rel=tolerance)

    @pytest.mark.parametrize(("radius", "tolerance"), [(10, 0.015), (40, 0.005)])
    @pytest.mark.parametrize("sides", [(1.0, 1.0), (0.5, 1.0), (1.0, 0.4)])
    def test_disc(self, radius, tolerance, sides):
        shape = tuple(round(128 / h) for h in sides)
        mask = sum(_square(n, h, a, 2) for a, (n, h) in enumerate(zip(shape, sides, strict=True))) < radius**2
        expected = 2 * math.pi * radius / 128**2
        assert specific_surface(mask, sides, periodic=True) == pytest.approx(expected, rel=tolerance)

    def test_planes_are_the_worst_case(self):
        assert specific_surface(
            generate.laminate((40, 40, 40), fractions=(0.5, 0.5)).mask(0), 1e-6, periodic=True
        ) == pytest.approx(2 / 40e-6, rel=0.08)
        assert specific_surface(
            generate.laminate((40, 40), fractions=(0.5, 0.5)).mask(0), 1e-6, periodic=True
        ) == pytest.approx(2 / 40e-6, rel=0.06)

    @pytest.mark.parametrize("sides", [(1.0, 1.0), (0.5, 1.0), (1.0, 0.4), (1.0, 1.0, 1.0), (2.0, 1.0, 0.7)])
    def test_weight_of_a_direction_is_the_share_nearest_to_it(self, sides):
        """Planes normal to an axis give c·Σ_d w_d |cos θ_d| each; w_d by throwing directions at random."""
        dim = len(sides)
        steps = np.array([step for step in itertools.product((-1, 0, 1), repeat=dim) if any(step)]) * sides
        unit = steps / np.linalg.norm(steps, axis=1)[:, None]
        thrown = np.random.default_rng(6).standard_normal((400_000, dim))
        share = np.bincount(np.argmax(thrown @ unit.T, axis=1)) / len(thrown)
        for axis in range(dim):
            mask = generate.laminate((16,) * dim, fractions=(0.5, 0.5), axis=axis).mask(0)
            expected = (
                (2 if dim == 3 else math.pi / 2) * share @ np.abs(unit[:, axis]) * 2 / (16 * sides[axis])
            )
            assert specific_surface(mask, sides, periodic=True) == pytest.approx(expected, rel=3e-3)

    @given(masks, st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_shared_by_both_sides(self, mask, periodic):
        assert specific_surface(mask, 1.0, periodic) == specific_surface(~mask, 1.0, periodic)
        assert specific_surface(mask, 1e-6, periodic) == pytest.approx(
            1e6 * specific_surface(mask, 1.0, periodic)
        )
        sides = (0.5, 1.0, 0.7)[: mask.ndim]
        mirrored = specific_surface(mask[::-1], sides, periodic)
        assert mirrored == pytest.approx(specific_surface(mask, sides, periodic), abs=1e-12)
        moved = np.roll(mask, 1, axis=0)
        assert specific_surface(moved, 1.0, True) == pytest.approx(
            specific_surface(mask, 1.0, True), abs=1e-12
        )

    def test_border_is_no_surface(self):
        assert specific_surface(np.ones((5, 6, 7), bool), 1.0) == 0.0

    def test_overlapping_spheres(self):
        """s = ρ·4πR²·φ_void, and what steps of |d| see of it: 4(φ − S2(|d|))/|d|, weighted."""
        density, radius = math.log(2) / (4 / 3 * math.pi), 10
        seen = 0.0
        for length, count, weight in ((1, 6, 0.04577789), (2**0.5, 12, 0.03698063), (3**0.5, 8, 0.03519564)):
            r = length / radius
            seen += count * weight * 4 * (0.5 - TestOverlappingSpheres.exact_s2(r, 3)) / r
        assert seen == pytest.approx(density * 4 * math.pi * 0.5, rel=0.05)
        runs = []
        for seed in range(8):
            image = generate.overlapping_spheres(
                (80,) * 3, volume_fraction=0.5, radius=radius * 1e-6, seed=seed
            )
            runs.append([specific_surface(image.mask(0), 1e-6, periodic=True) * radius * 1e-6])
        assert_within_confidence(runs, [seen])
        assert np.mean(runs) == pytest.approx(seen, rel=0.015)


def _square(n: int, side: float, axis: int, dim: int = 3) -> np.ndarray:
    """Squared distance from the middle of the cell along an axis, per voxel centre."""
    values = ((np.arange(n) + 0.5 - n / 2) * side) ** 2
    return values.reshape([-1 if a == axis else 1 for a in range(dim)])


def assert_within_confidence(runs, exact, confidence=0.999, allowance=0.0):
    """Mean over independent runs within its t interval of this confidence, component by component."""
    runs = np.asarray(runs)
    half = stats.t.ppf(0.5 + confidence / 2, len(runs) - 1) * runs.std(axis=0, ddof=1) / math.sqrt(len(runs))
    error = runs.mean(axis=0) - exact
    assert (np.abs(error) <= half + allowance).all(), f"error {error} beyond {half}"


class TestOverlappingSpheres:
    """Void of fully penetrable discs and spheres at φ = 1/2; radius 1 in Torquato's closed forms."""

    REFERENCE: ClassVar = {2: (0.32783, 0.32161, 2.2662), 3: (0.31046, 0.29730, 1.9236)}

    @staticmethod
    def exact_s2(r, dim):
        """S2 = exp(−ρ·V₂(r)), V₂ the union of two discs or spheres of radius 1 at distance r ≤ 2."""
        if dim == 2:
            density = math.log(2) / math.pi
            union = 2 * math.pi - 2 * np.arccos(r / 2) + r / 2 * np.sqrt(4 - r**2)
        else:
            density = math.log(2) / (4 / 3 * math.pi)
            union = 4 / 3 * math.pi * (1 + 3 * r / 4 - r**3 / 16)
        return np.exp(-density * union)

    @pytest.mark.parametrize("dim", [2, 3])
    def test_formula_gives_the_published_values(self, dim):
        s2, path, chord = self.REFERENCE[dim]
        assert self.exact_s2(1.0, dim) == pytest.approx(s2, abs=5.1e-6)
        # L(r) = φ exp(−r/ℓ_C) for this medium, so that the mean chord is ∫L/L(0).
        assert 0.5 * math.exp(-1.0 / chord) == pytest.approx(path, abs=1e-5)
        assert integrate.quad(lambda r: math.exp(-r / chord), 0, np.inf)[0] == pytest.approx(chord)

    @pytest.mark.parametrize(("dim", "n", "radius", "seeds"), [(2, 768, 12, 16), (3, 96, 6, 10)])
    def test_within_statistical_error(self, dim, n, radius, seeds):
        """99.9 % t intervals over independent seeds; L and chords averaged over the axes."""
        s2, path, chord = self.REFERENCE[dim]
        runs = []
        for seed in range(seeds):
            image = generate.overlapping_spheres(
                (n,) * dim, volume_fraction=0.5, radius=radius * 1e-6, seed=1000 + seed
            )
            mask = image.mask(0)
            found = two_point_correlation(mask, 1e-6, periodic=True)
            # S2 at r = R: the two bins around it, as their ratio to the closed form at their mean radii.
            near = slice(radius - 1, radius + 1)
            ratio = np.mean(found.value[near] / self.exact_s2(found.r[near] / (radius * 1e-6), dim))
            paths = [lineal_path(mask, 1e-6, axis, periodic=True).value[radius] for axis in range(dim)]
            means = [chord_lengths(mask, 1e-6, axis, periodic=True).mean for axis in range(dim)]
            runs.append((ratio * s2, np.mean(paths), (np.mean(means) / 1e-6 - 0.5) / radius))
        assert_within_confidence(runs, [s2, path, chord])
        np.testing.assert_allclose(np.mean(runs, axis=0), [s2, path, chord], rtol=0.015)

    @pytest.mark.parametrize(
        ("dim", "n", "radius", "seeds", "fraction"), [(2, 512, 10, 16, 0.7), (3, 80, 5, 12, 0.4)]
    )
    def test_whole_curves_within_statistical_error(self, dim, n, radius, seeds, fraction):
        """S₂ and L at many lengths and the mean chord, of the void at other fractions than a half.

        On lags between voxel centres S₂ is the closed form itself; balls on k + 1 centres in a row add the
        same volume each, so that L(kh) = φ (S₂(h)/φ)^k and the mean run is φ/(φ − S₂(h)) voxels: no
        error of the voxels is left. 99.9 % t interval over seeds for all 15 values at once (Bonferroni),
        plus 5e-4 for the cell, in which the fraction does not fluctuate.
        """
        lags = [1, 2, radius // 2, radius, 3 * radius // 2, 2 * radius - 1, 3 * radius]
        reduced = np.minimum(np.array([1, *lags]) / radius, 2.0)
        # S₂ = exp(−ρV₂), and ρ goes with −ln φ.
        values = self.exact_s2(reduced, dim) ** (math.log(fraction) / math.log(0.5))
        step, s2 = values[0], values[1:]
        runs = []
        for seed in range(seeds):
            image = generate.overlapping_spheres(
                (n,) * dim, volume_fraction=1 - fraction, radius=radius * 1e-6, seed=2000 + seed
            )
            mask = image.mask(0)
            found = np.mean(
                [two_point_along(mask, 1e-6, a, periodic=True).value[lags] for a in range(dim)], axis=0
            )
            path = np.mean(
                [lineal_path(mask, 1e-6, a, periodic=True).value[lags] for a in range(dim)], axis=0
            )
            chord = np.mean([chord_lengths(mask, 1e-6, a, periodic=True).mean for a in range(dim)]) / 1e-6
            runs.append([*found, *path, chord / radius])
        exact = [
            *s2,
            *(fraction * (step / fraction) ** np.array(lags)),
            fraction / (fraction - step) / radius,
        ]
        assert_within_confidence(runs, exact, 1 - 0.001 / len(exact), allowance=5e-4)


class TestExactMedia:
    def test_laminate(self):
        """Layers of 6 and 14 voxels, twice: S2 and L along the normal are piecewise linear."""
        image = generate.laminate((40, 8, 8), fractions=(0.3, 0.7), axis=0, periods=2, voxel_size=2e-6)
        mask = image.mask(0)
        k = np.arange(40)
        path = lineal_path(mask, 2e-6, 0, periodic=True)
        np.testing.assert_allclose(path.value, np.maximum(6 - k, 0) / 20, atol=1e-15)
        np.testing.assert_array_equal(lineal_path(mask, 2e-6, 1, periodic=True).value, np.full(8, 0.3))
        chords = chord_lengths(mask, 2e-6, 0, periodic=True)
        assert chords.mean == pytest.approx(12e-6)
        assert chords.count.sum() == chords.count[5] == 2 * 64
        assert chord_lengths(mask, 2e-6, 2).cut == 12 * 8

    def test_checkerboard(self):
        """Squares of 8 voxels: S2 is the product of triangle waves, averaged over the bins."""
        mask = generate.checkerboard((64, 64), tile=8).mask(0)
        found = two_point_correlation(mask, 1.0, periodic=True)
        lag = np.arange(-31, 32)
        wave = np.abs(np.abs(lag) % 16 - 8) / 4.0 - 1.0  # correlation of the sign along one axis
        exact = 0.25 + 0.25 * np.outer(wave, wave)
        k = np.floor(np.hypot(*np.meshgrid(lag, lag))).astype(int)
        expected = [exact[k == b].mean() for b in range(32)]
        np.testing.assert_allclose(found.value, expected, rtol=0, atol=1e-14)
        assert [chord_lengths(mask, 1.0, a, periodic=True).mean for a in (0, 1)] == [8.0, 8.0]


class TestCharacterize:
    def test_contract(self):
        image = generate.electrode((24, 28, 32), porosity=0.4, particle_radius=4e-6, voxel_size=1e-6, seed=1)
        found = characterize(image, 0)
        scalars = "shape voxel_size porosity volume_fractions percolating_fraction mean_chord_length"
        keys = [*scalars.split(), "specific_surface", "two_point_correlation", "lineal_path"]
        more = ["chord_lengths", "specific_surface_from_correlation", "clusters", "anisotropy", "pore_sizes"]
        assert [*found] == [*keys, *more]
        assert found == json.loads(json.dumps(found, allow_nan=False))
        assert found["shape"] == [24, 28, 32]
        assert found["porosity"] == image.phases[0] == volume_fractions(image)[0]
        assert found["two_point_correlation"]["value"][0] == pytest.approx(found["porosity"])
        assert sum(found["volume_fractions"].values()) == pytest.approx(1.0)
        assert len(found["percolating_fraction"]) == len(found["mean_chord_length"]) == 3
        for axis, values in enumerate(found["lineal_path"]["value"]):
            assert len(values) == len(found["lineal_path"]["r"]) == 13
            np.testing.assert_array_equal(values, lineal_path(image.mask(0), 1e-6, axis).value[:13])

    def test_two_dimensions_and_several_labels(self):
        image = generate.electrode(
            (32, 48), porosity=0.5, particle_radius=4e-6, voxel_size=(2e-6, 1e-6), seed=1
        )
        found = characterize(image, [1, 2])
        assert found["porosity"] == pytest.approx(0.5)
        assert len(found["lineal_path"]["value"]) == 2
        json.dumps(found, allow_nan=False)

    def test_one_phase_only(self):
        found = characterize(Image(np.ones((6, 6, 6), int)), 1)
        assert found["mean_chord_length"] == [None] * 3
        assert found["percolating_fraction"] == [1.0] * 3
        json.dumps(found, allow_nan=False)

    def test_absent_phase(self):
        with pytest.raises(ValueError, match="phase 3: expected labels of the image, 0, 1"):
            characterize(generate.checkerboard((8, 8), tile=2), 3)


class TestRealImages:
    """../shared/data/README.md: what PoreSpy says of the pore of nmc@200."""

    def test_two_point_correlation(self):
        mask = read(real("nmc_electrode.tif")).crop(200).mask(0)
        found = two_point_correlation(mask, 1.0)
        np.testing.assert_allclose(
            found.value[[5, 10, 20]] / mask.mean(), [0.72486, 0.5445, 0.40013], rtol=0, atol=1e-4
        )

    def test_chord_lengths(self):
        """PoreSpy measures on a part of the lines: 0.5 % of sampling error."""
        mask = read(real("nmc_electrode.tif")).crop(200).mask(0)
        means = [chord_lengths(mask, 1.0, axis).mean for axis in range(3)]
        np.testing.assert_allclose(means, [15.19, 16.31, 16.33], rtol=0.005)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "phase"),
        [
            ("nmc_electrode.tif", 0),
            ("electrode_three_phase.tiff", 0),
            ("bentheimer_sandstone.npz", 1),
            ("ketton_carbonate.tif", 0),
            ("taufactor_joss_500.npz", 1),
        ],
    )
    def test_every_descriptor_runs(self, name, phase):
        image = read(real(name))
        found = characterize(image, phase)
        s2, porosity = found["two_point_correlation"]["value"], found["porosity"]
        assert s2[0] == pytest.approx(porosity, abs=1e-6)
        assert s2[-1] == pytest.approx(porosity**2, rel=0.25)
        assert all(0 < fraction <= 1 for fraction in found["percolating_fraction"])
        # Crossings of the axes alone: 4φ times the mean of 1/ℓ_C, within the bias of both.
        crossings = np.mean(1.0 / np.array(found["mean_chord_length"]))
        assert found["specific_surface"] == pytest.approx(4 * porosity * crossings, rel=0.25)
