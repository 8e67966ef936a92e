"""Surface from the slope of S₂, and anisotropy, on media where both are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fetopo.microstructure import generate
from fetopo.microstructure.descriptors import (
    anisotropy,
    chord_lengths,
    specific_surface,
    surface_from_correlation,
    two_point_along,
)

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, min_side=3, max_side=7)).filter(
    lambda a: 0 < a.sum() < a.size
)


class TestSurfaceFromCorrelation:
    @pytest.mark.parametrize(("dim", "n", "radius", "seeds"), [(2, 512, 12, 6), (3, 96, 8, 6)])
    def test_overlapping_spheres(self, dim, n, radius, seeds):
        """s = φ_void ρ |∂B|; the direct count misses what gaps below a voxel hide, the slope does not."""
        density = math.log(2) / (math.pi if dim == 2 else 4 / 3 * math.pi)
        exact = 0.5 * density * (2 * math.pi if dim == 2 else 4 * math.pi) / radius
        cells = [
            generate.overlapping_spheres((n,) * dim, volume_fraction=0.5, radius=radius * 1e-6, seed=s)
            for s in range(seeds)
        ]
        slope = np.mean([surface_from_correlation(c.mask(0), 1.0, periodic=True).value for c in cells])
        direct = np.mean([specific_surface(c.mask(0), 1.0, periodic=True) for c in cells])
        assert slope == pytest.approx(exact, rel=0.02)
        assert direct < 0.98 * exact
        assert abs(slope - exact) < 0.5 * abs(direct - exact)

    @given(masks, st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_both_sides_scale_and_correlation(self, mask, periodic):
        found = surface_from_correlation(mask, 1.0, periodic)
        assert found.value == pytest.approx(surface_from_correlation(~mask, 1.0, periodic).value)
        assert surface_from_correlation(mask, 1e-6, periodic).value == pytest.approx(1e6 * found.value)
        assert found.value == pytest.approx(-(4 if mask.ndim == 3 else math.pi) * found.slope)
        assert found.correlation[0] == pytest.approx(mask.mean())

    @given(masks, st.data())
    @settings(max_examples=30, deadline=None)
    def test_periodic_translation_invariance(self, mask, data):
        moved = np.roll(mask, [data.draw(st.integers(0, n - 1)) for n in mask.shape], range(mask.ndim))
        first, second = (surface_from_correlation(m, 1.0, periodic=True) for m in (mask, moved))
        assert first.value == pytest.approx(second.value)
        one, two = (anisotropy(m, 1.0, periodic=True) for m in (mask, moved))
        np.testing.assert_allclose(one.tensor, two.tensor, atol=1e-12)
        np.testing.assert_allclose(one.integral_length, two.integral_length, atol=1e-12)

    def test_correlation_along_the_axes_of_a_square_grid(self):
        """Layers across axis 0: of the four directions only one meets no surface; S₂ there by hand."""
        mask = generate.laminate((20, 20), fractions=(0.5, 0.5)).mask(0)
        found = surface_from_correlation(mask, 1.0, periodic=True)
        line = two_point_along(mask, 1.0, 0, periodic=True).value
        np.testing.assert_allclose(found.correlation, 0.5 - (0.5 - line[:3]) * 0.75)
        assert found.value == pytest.approx(2 / 20, rel=0.06)

    def test_too_thin(self):
        with pytest.raises(ValueError, match="expected three voxels or more"):
            surface_from_correlation(np.ones((2, 5), bool), 1.0)


class TestAnisotropy:
    @pytest.mark.parametrize("dim", [2, 3])
    def test_layers(self, dim):
        """1/ℓ(n) = |n₀|/ℓ: the tensor has one eigenvalue, exactly."""
        mask = generate.laminate((24,) * dim, fractions=(0.5, 0.5), periods=2, axis=0).mask(0)
        found = anisotropy(mask, 2e-6, periodic=True)
        expected = np.zeros((dim, dim))
        expected[0, 0] = 1 / 12e-6**2
        np.testing.assert_allclose(found.tensor, expected, atol=1e-9 * expected.max())
        lengths, vectors = found.principal
        assert lengths[-1] == pytest.approx(12e-6)
        assert np.isinf(lengths[:-1]).all()
        assert abs(vectors[-1][0]) == pytest.approx(1)
        assert math.isinf(found.ratio)
        assert found.to_dict()["ratio"] is None
        assert chord_lengths(mask, 2e-6, 0, periodic=True).mean == pytest.approx(12e-6)

    @pytest.mark.parametrize("dim", [2, 3])
    def test_isotropic(self, dim):
        image = generate.overlapping_spheres(
            (384,) * 2 if dim == 2 else (96,) * 3, volume_fraction=0.5, radius=8e-6, seed=2
        )
        found = anisotropy(image.mask(0), 1e-6, periodic=True)
        assert found.ratio < 1.12
        exact = {2: 2.2662, 3: 1.9236}[dim] * 8e-6
        np.testing.assert_allclose(found.principal[0], exact, rtol=0.1)

    def test_stretched(self):
        """The same voxels twice as long along axis 1: twice the ratio, the direction found."""
        image = generate.overlapping_spheres((512, 512), volume_fraction=0.5, radius=12e-6, seed=3)
        found = anisotropy(image.mask(0), (1e-6, 2e-6), periodic=True)
        plain = anisotropy(image.mask(0), 1e-6, periodic=True)
        assert found.ratio == pytest.approx(2, rel=0.06)
        assert abs(found.principal[1][0] @ [0, 1]) > 0.99
        np.testing.assert_allclose(found.integral_length, plain.integral_length * [1, 2])

    def test_inclined_layers(self):
        """Layers normal to (1, 1): the direction does not have to be an axis."""
        x, y = np.indices((48, 48))
        mask = (x + y) % 24 < 12
        found = anisotropy(mask, 1.0, periodic=True)
        assert abs(found.principal[1][-1] @ [1, 1]) / 2**0.5 > 0.999
        assert found.principal[0][-1] == pytest.approx(12 / 2**0.5, rel=0.06)

    def test_integral_length(self):
        """Squares of 8 voxels: (S₂ − φ²)/φ(1 − φ) falls from 1 to 0 in a line over half a square."""
        found = anisotropy(generate.checkerboard((64, 64), tile=8).mask(0), 1.0, periodic=True)
        np.testing.assert_allclose(found.integral_length, 2.0)

    def test_one_phase_only(self):
        with pytest.raises(ValueError, match="anisotropy needs the phase and something else"):
            anisotropy(np.ones((4, 4), bool), 1.0)
