"""Interpolation laws: end points, slopes, the formula on arrays and in UFL."""

import numpy as np
import pytest
import ufl
from dolfinx import fem

from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.materials import ramp, simp
from fetopo.transport.state import global_sum

RHO = np.linspace(0, 1, 11)


@pytest.mark.parametrize("law", [simp, ramp])
@pytest.mark.parametrize("penalty", [1.0, 2.0, 3.0])
class TestBoth:
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


def test_values():
    assert simp(0.5, 1.0, 9.0, 3.0) == pytest.approx(2.0)
    assert ramp(0.5, 1.0, 9.0, 2.0) == pytest.approx(3.0)
    assert ramp(0.5, 1.0, 9.0, 0.0) == pytest.approx(5.0)


def test_slope_at_zero():
    h = 1e-7
    assert (simp(h, 0, 1.0, 3.0) - 0) / h == pytest.approx(0, abs=1e-6)
    assert (ramp(h, 0, 1.0, 3.0) - 0) / h == pytest.approx(0.25, rel=1e-5)


@pytest.mark.mpi
@pytest.mark.parametrize("law", [simp, ramp])
def test_same_in_ufl(comm, law):
    mesh = regular_cell(comm, (4, 4)).mesh
    penalty = fem.Constant(mesh, 3.0)
    form = fem.form(law(ufl.SpatialCoordinate(mesh)[0] * 0 + 0.3, 0.1, 5.0, penalty) * ufl.dx)
    for p in (1.0, 3.0, 5.0):
        penalty.value = p
        assert global_sum(form) == pytest.approx(law(0.3, 0.1, 5.0, p), rel=1e-13)
