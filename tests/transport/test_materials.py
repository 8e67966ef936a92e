"""Interpolation laws: end points, slopes, the formula on arrays and in UFL."""

import numpy as np
import pytest
import ufl
from dolfinx import fem

from fetopo.microstructure.mesh import regular_cell
from fetopo.transport import bounds
from fetopo.transport.materials import NAMES, SLOPES, hashin_shtrikman, law, ramp, simp
from fetopo.transport.state import global_sum

RHO = np.linspace(0, 1, 11)
LAWS = [simp, ramp, hashin_shtrikman(2), hashin_shtrikman(3)]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("penalty", [1.0, 2.0, 3.0])
class TestAll:
    def test_ends(self, law, penalty):
        assert law(0.0, 0.1, 5.0, penalty) == pytest.approx(0.1)
        assert law(1.0, 0.1, 5.0, penalty) == pytest.approx(5.0)

    def test_between_bounds_and_increasing(self, law, penalty):
        values = law(RHO, 0.1, 5.0, penalty)
        assert (np.diff(values) > 0).all()

    def test_intermediate_density_is_penalized(self, law, penalty):
        linear = 0.1 + 4.9 * RHO[1:-1]
        values = law(RHO, 0.1, 5.0, penalty)[1:-1]
        assert (values < linear).all() or (law is simp and penalty == 1)

    def test_convex(self, law, penalty):
        """The less a density is, the less it brings per volume: what drives a design to 0 and 1."""
        second = np.diff(law(RHO, 0.1, 5.0, penalty), 2)
        assert (second > 0).all() or (law is simp and penalty == 1)

    @pytest.mark.parametrize(("low", "high"), [(0.1, 5.0), (1e-3, 1.0), (2.0, 2.5)])
    def test_slope(self, law, penalty, low, high):
        h, rho = 1e-30, RHO[1:]
        slope = np.imag(law(rho + 1j * h, low, high, penalty)) / h
        assert SLOPES[law](rho, low, high, penalty) == pytest.approx(slope, rel=1e-12)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize(("low", "high"), [(0.1, 5.0), (1e-3, 1.0), (2.0, 2.5)])
class TestHashinShtrikman:
    def test_between_the_bounds(self, dim, low, high):
        """Upper bound at p = 1, lower bound for p → ∞, falling in between."""
        mixture = hashin_shtrikman(dim)
        for rho in RHO[1:-1]:
            lower, upper = bounds.hashin_shtrikman((1 - rho, rho), (low, high), dim)
            assert mixture(rho, low, high, 1.0) == pytest.approx(upper, rel=1e-12)
            assert mixture(rho, low, high, 1e12) == pytest.approx(lower, rel=1e-8)
            values = [mixture(rho, low, high, p) for p in (1.0, 1.5, 2.0, 3.0, 6.0, 50.0)]
            assert (np.diff(values) < 0).all()
            assert values[-1] > lower

    def test_is_ramp(self, dim, low, high):
        q = (high - low) / (low + (dim - 1) * (low + (high - low) / 3.0))
        assert hashin_shtrikman(dim)(RHO, low, high, 3.0) == pytest.approx(ramp(RHO, low, high, q))


def test_names():
    for dim in (2, 3):
        assert [law(name, dim) for name in NAMES] == [simp, ramp, hashin_shtrikman(dim)]
    with pytest.raises(ValueError, match="found 'simpp'"):
        law("simpp", 2)
    with pytest.raises(ValueError, match="dim must be 2 or 3, found 1"):
        hashin_shtrikman(1)


def test_values():
    assert simp(0.5, 1.0, 9.0, 3.0) == pytest.approx(2.0)
    assert ramp(0.5, 1.0, 9.0, 2.0) == pytest.approx(3.0)
    assert ramp(0.5, 1.0, 9.0, 0.0) == pytest.approx(5.0)


def test_slope_at_zero():
    h = 1e-7
    assert (simp(h, 0, 1.0, 3.0) - 0) / h == pytest.approx(0, abs=1e-6)
    assert (ramp(h, 0, 1.0, 3.0) - 0) / h == pytest.approx(0.25, rel=1e-5)


@pytest.mark.mpi
@pytest.mark.parametrize("law", LAWS)
def test_same_in_ufl(comm, law):
    mesh = regular_cell(comm, (4, 4)).mesh
    penalty = fem.Constant(mesh, 3.0)
    form = fem.form(law(ufl.SpatialCoordinate(mesh)[0] * 0 + 0.3, 0.1, 5.0, penalty) * ufl.dx)
    for p in (1.0, 3.0, 5.0):
        penalty.value = p
        assert global_sum(form) == pytest.approx(law(0.3, 0.1, 5.0, p), rel=1e-13)
