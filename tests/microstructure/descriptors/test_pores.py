"""Local thickness against every sphere tried one by one, and on shapes whose thickness is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fetopo.microstructure import generate
from fetopo.microstructure.descriptors import local_thickness, pore_sizes

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, min_side=3, max_side=8)).filter(
    lambda a: 0 < a.sum() < a.size
)


def brute_force(mask, sides, periodic):
    """Largest of all spheres that hold no voxel outside the phase, tried one by one."""
    everywhere = np.argwhere(np.ones_like(mask))
    outside = np.argwhere(~mask)
    sides, box = np.array(sides), np.array(mask.shape)

    def distances(x, points):
        if not periodic:
            return np.sqrt((((points - x) * sides) ** 2).sum(axis=1))
        shifts = np.indices((3,) * mask.ndim).reshape(mask.ndim, -1).T - 1
        images = points[:, None] + shifts * box - x
        return np.sqrt(((images * sides) ** 2).sum(axis=2)).min(axis=1)

    found = np.zeros(mask.shape)
    for x in np.argwhere(mask):
        radius = distances(x, outside).min()
        covered = everywhere[distances(x, everywhere) < radius * (1 - 1e-9)]
        index = tuple(covered.T)
        found[index] = np.maximum(found[index], 2 * radius)
    return found


class TestLocalThickness:
    @given(masks, st.booleans(), st.sampled_from([1.0, 0.37]))
    @settings(max_examples=40, deadline=None)
    def test_equals_brute_force(self, mask, periodic, stretch):
        sides = (stretch, *(1.0,) * (mask.ndim - 1))
        found = local_thickness(mask, sides, periodic)
        np.testing.assert_allclose(found, brute_force(mask, sides, periodic), rtol=1e-7)

    @pytest.mark.parametrize("shape", [(40, 40), (10, 10, 10)])
    @pytest.mark.parametrize("periodic", [False, True])
    def test_large_pores(self, shape, periodic):
        """Pores many voxels wide, so that spheres contained in others are left out."""
        mask = generate.gaussian_field(shape, volume_fraction=0.6, correlation_length=2.4e-6, seed=4).mask(1)
        np.testing.assert_allclose(
            local_thickness(mask, 1.0, periodic), brute_force(mask, (1.0,) * mask.ndim, periodic), rtol=1e-7
        )

    @given(masks, st.data())
    @settings(max_examples=30, deadline=None)
    def test_periodic_translation_invariance(self, mask, data):
        shift = [data.draw(st.integers(0, n - 1)) for n in mask.shape]
        axes = range(mask.ndim)
        found = local_thickness(np.roll(mask, shift, axes), 1.0, periodic=True)
        np.testing.assert_array_equal(found, np.roll(local_thickness(mask, 1.0, periodic=True), shift, axes))

    @pytest.mark.parametrize(("width", "thickness"), [(1, 2), (4, 4), (5, 6)])
    def test_slab(self, width, thickness):
        mask = np.zeros((16, 12, 12), bool)
        mask[3 : 3 + width] = True
        found = local_thickness(mask, 2e-6)
        np.testing.assert_allclose(found[mask], thickness * 2e-6)
        assert not found[~mask].any()

    def test_ball(self):
        x = np.indices((41, 41, 41)) - 20
        mask = (x**2).sum(axis=0) < 15**2
        found = pore_sizes(mask, 1.0)
        assert found.mean == pytest.approx(30, rel=0.02)

    @pytest.mark.parametrize("value", [False, True])
    def test_one_phase_only(self, value):
        with pytest.raises(ValueError, match="local thickness needs the phase and something else"):
            local_thickness(np.full((4, 4), value), 1.0)


class TestPoreSizes:
    @given(masks, st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_distribution(self, mask, periodic):
        found = pore_sizes(mask, 1.0, periodic)
        values = local_thickness(mask, 1.0, periodic)[mask]
        assert (np.diff(found.diameter) > 0).all()
        assert (np.diff(found.cumulative) > 0).all()
        assert found.cumulative[-1] == 1.0
        for diameter, share in zip(found.diameter, found.cumulative, strict=True):
            assert share == pytest.approx(np.mean(values <= diameter))
        assert found.mean == pytest.approx(values.mean())
        assert found.deviation == pytest.approx(values.std(), abs=1e-7)
        edges = np.linspace(0, found.diameter[-1], 5)
        assert found.density(edges) @ np.diff(edges) == pytest.approx(1.0)

    def test_two_slabs(self):
        mask = np.zeros((30, 10), bool)
        mask[2:6] = mask[10:22] = True
        found = pore_sizes(mask, 1.0)
        np.testing.assert_allclose(found.diameter, [4, 12])
        np.testing.assert_allclose(found.cumulative, [0.25, 1.0])
        assert found.mean == pytest.approx(10)
        assert found.quantile(0.2) == 4
        assert found.quantile(0.5) == 12
        np.testing.assert_allclose(found.density(np.array([0.0, 5.0, 15.0])), [0.25 / 5, 0.75 / 10])
        with pytest.raises(ValueError, match=r"share is 1\.5"):
            found.quantile(1.5)
