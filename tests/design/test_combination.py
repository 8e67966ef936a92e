"""Sums, ratios and maxima of functionals: values in closed form, Taylor tests, states solved once."""

import numpy as np
import pytest
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh

from fetopo.design import functionals
from fetopo.design.adjoint import ReducedFunctional, form_functional
from fetopo.design.combination import Combination, ratio, smooth_maximum, weighted_sum
from fetopo.design.density import DensityMap, HelmholtzFilter, Interpolation
from fetopo.design.initial import cell_positions, random_field
from fetopo.design.model import CellModel
from fetopo.design.verification import taylor_test
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.state import LinearState
from fetopo.transport.voxel import VoxelGrid

pytestmark = pytest.mark.mpi

CELLS = {
    "mesh": lambda comm: regular_cell(comm, (8, 6)),
    "voxel": lambda comm: VoxelGrid(comm, (8, 6), (0.2, 0.15), periodic=True),
}


@pytest.fixture(params=CELLS)
def model(request, comm):
    return CellModel(CELLS[request.param](comm), 0.3)


def start(cell):
    return 0.5 + 0.3 * np.tanh(random_field(cell, seed=3))


def rate(functional, model, step=2e-3):
    reduced = ReducedFunctional(functional, model.density)
    dm = 0.25 + 0.75 * np.sin(cell_positions(model.cell) @ np.array([37.0, 91.0, 53.0])[: model.dim])
    m = start(model.cell)
    reduced(m)
    return taylor_test(reduced, m, reduced.derivative(), dm, comm=reduced.comm, step=step).rate


def two_transports(model):
    """Resistivity through one phase, and through the other."""
    return [
        model.tensor_functional(model.state((1e-2, 1.0)), functionals.mean_resistivity),
        model.tensor_functional(model.state((2.0, 1e-2)), functionals.resistivity_along((1.0, 0.0))),
    ]


COMBINATIONS = {
    "sum": lambda p: weighted_sum(p),
    "weighted sum": lambda p: weighted_sum(p, (2.0, -0.5)),
    "ratio": lambda p: ratio(*p),
    "maximum": lambda p: smooth_maximum(p),
    "nested": lambda p: ratio(weighted_sum(p, (1.0, 3.0)), smooth_maximum(p, 4.0)),
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_taylor(model, name):
    parts = two_transports(model)
    parts[1] = weighted_sum([parts[1], model.mean_density()], (1.0, 5.0))
    assert rate(COMBINATIONS[name](parts), model) > 1.9


def test_a_wrong_slope_is_seen(model):
    parts = two_transports(model)
    wrong = Combination(parts, lambda J: float(J[0] * J[1]), lambda J: np.array([J[1], 0.9 * J[0]]))
    assert rate(wrong, model, 1e-4) < 1.5


def test_values(model):
    parts = two_transports(model)
    model.density.forward(start(model.cell))
    for part in parts:
        part.states[0].solve()
    a, b = (part.value() for part in parts)
    assert weighted_sum(parts, (2.0, -0.5)).value() == pytest.approx(2 * a - 0.5 * b)
    assert ratio(*parts).value() == pytest.approx(a / b)
    assert smooth_maximum(parts, 200.0).value() == pytest.approx(max(a, b), rel=4e-3)
    assert smooth_maximum([parts[0]] * 3).value() == pytest.approx(a)
    assert smooth_maximum(parts, 800.0).value() > 0  # no overflow


def test_shared_states_come_once(model):
    parts = two_transports(model)
    assert len(weighted_sum([*parts, parts[0]]).states) == 2
    assert len(ratio(weighted_sum(parts), parts[0]).states) == 2


def test_load_cases(comm):
    """Worst of two loads on one body, by forms that a user writes."""
    cell = regular_cell(comm, (8, 6))
    mesh = cell.mesh
    density = DensityMap(mesh, HelmholtzFilter(mesh, 0.3))
    kappa = Interpolation(mesh, 0.01, 1.0).ufl(density.rho)
    V = fem.functionspace(mesh, ("Lagrange", 1))
    v, x = ufl.TestFunction(V), ufl.SpatialCoordinate(mesh)
    side = dmesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[0], 0.0))
    bc = fem.dirichletbc(0.0, fem.locate_dofs_topological(V, 1, side), V)
    temperatures = []
    for source in (x[1], 1 - x[1]):
        u = fem.Function(V)
        F = kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx - source * v * ufl.dx
        state = LinearState(F, u, [bc], {"ksp_rtol": 1e-13})
        temperatures.append(form_functional(lambda u, rho, dx: (1 + rho) * u**4 * dx, state, density.rho))
    worst = smooth_maximum(temperatures)
    assert len(worst.states) == 2
    reduced = ReducedFunctional(worst, density)
    m = start(cell)
    reduced(m)
    assert taylor_test(reduced, m, reduced.derivative(), comm=comm, step=2e-3).rate > 1.9
    for J in (lambda u, rho, dx: u, lambda u, rho, dx: v * dx, lambda u, rho, dx: 1.0):
        with pytest.raises(ValueError, match="must return a scalar form"):
            form_functional(J, state, density.rho)


def test_refused(model):
    parts = two_transports(model)
    with pytest.raises(ValueError, match="at least one functional"):
        weighted_sum([])
    with pytest.raises(ValueError, match=r"one finite weight per functional.*\[1.0\] for 2"):
        weighted_sum(parts, [1.0])
    with pytest.raises(ValueError, match="above 1, found 1"):
        smooth_maximum(parts, 1.0)
    with pytest.raises(ValueError, match="positive values"):
        smooth_maximum([weighted_sum(parts, (-1.0, 0.0))]).function(np.array([-1.0]))
