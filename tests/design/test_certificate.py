"""Certified bounds: closed forms, reference values, and random structures that must not fall below them."""

import numpy as np
import pytest
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh
from scipy.optimize import linprog

from fetopo.design.adjoint import TensorFunctional
from fetopo.design.certificate import Energy, certify, linear_minimum
from fetopo.design.density import Interpolation
from fetopo.design.heat import Convection, Fixed, HeatModel, Inflow
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.homogenization import CellProblem
from fetopo.transport.materials import ramp, simp
from fetopo.transport.state import LinearState, owned

pytestmark = pytest.mark.mpi

LOW, FRACTION = 1e-3, 0.4


def left(x):
    return np.isclose(x[0], 0)


def window(x):
    return np.isclose(x[0], 0) & (np.abs(x[1] - 0.5) < 0.05 + 1e-9)


def two_sides(x):
    return np.isclose(x[0], 0) | np.isclose(x[1], 1)


def optimum_1d():
    """min ∫ q²/κ over x in (0, 1) with q = 1 − x, LOW ≤ κ ≤ 1 and the volume: κ = max(q/μ, LOW)."""
    mean = LOW + (1 - LOW) * FRACTION
    mu = (mean - np.sqrt(mean**2 - LOW**2)) / LOW**2
    s = mu * LOW
    return mu * (1 - s**2) / 2 + s**3 / (3 * LOW)


def density_at(cell, structure):
    """0 or 1 per local cell from a function of its middle."""
    tdim = cell.mesh.topology.dim
    imap = cell.mesh.topology.index_map(tdim)
    here = np.arange(imap.size_local, dtype=np.int32)
    return structure(dmesh.compute_midpoints(cell.mesh, tdim, here).T)


def compliance_of(model, state, values):
    model.density.values[:] = values
    model.rho.x.scatter_forward()
    state.solve()
    return model.compliance(state).value()


@pytest.mark.parametrize("cell_type", ["triangle", "quadrilateral"])
def test_optimum_in_closed_form(comm, cell_type):
    """One dimension: the finite elements' optimum is below the exact one, and the bound below that."""
    model = HeatModel(regular_cell(comm, (100, 2), (1.0, 0.02), cell_type), (LOW, 1.0))
    # Compliance of a strip of width 1.
    found = model.certificate([model.load(1.0, fixed=[Fixed(0.0, left)])], FRACTION, tolerance=1e-5)
    exact = optimum_1d()
    assert found.bound / 0.02 < exact
    assert found.bound / 0.02 == pytest.approx(exact, rel=1e-3)
    assert 0 <= found.relaxed_gap < 1e-5
    assert found.continuum is (cell_type == "triangle")
    middle = density_at(model.cell, lambda x: x[0])
    mean = LOW + (1 - LOW) * FRACTION
    kappa = np.maximum((1 - middle) * 2 * mean, LOW)
    assert np.abs(LOW + (1 - LOW) * found.density - kappa).max(initial=0) < 0.01


def test_convection_and_inflow_in_closed_form(comm):
    """All heat passes through the convecting side: its resistance 1/h adds Q²/h for every design."""
    model = HeatModel(regular_cell(comm, (100, 2), (1.0, 0.02)), (LOW, 1.0))
    state = model.load(1.0, convection=[Convection(0.5, left)])
    found = model.certificate([state], FRACTION, tolerance=1e-5)
    assert found.bound / 0.02 == pytest.approx(optimum_1d() + 2, rel=1e-3)
    # Flux 1 through the whole length: uniform density is the best, and resistance in series the value.
    state = model.load(
        inflow=[Inflow(1.0, lambda x: np.isclose(x[0], 1))], convection=[Convection(0.5, left)]
    )
    found = model.certificate([state], FRACTION, tolerance=1e-6)
    exact = 1 / (LOW + (1 - LOW) * FRACTION) + 2
    assert found.bound / 0.02 == pytest.approx(exact, rel=1e-6)


def test_two_load_cases(comm):
    cell = regular_cell(comm, (12, 12), cell_type="triangle")
    model = HeatModel(cell, (LOW, 1.0))
    states = [model.load(f, fixed=[Fixed(0.0, left)]) for f in (1.0, 2.0)]
    one = model.certificate(states[:1], FRACTION)
    both = model.certificate(states, FRACTION, weights=[0.5, 0.25])
    # Compliance is quadratic in the source: ½ + ¼·4 times that of the first.
    assert both.bound == pytest.approx(1.5 * one.bound, rel=1e-8)
    worst = model.certificate(states, FRACTION)
    assert worst.relaxed_gap < 1e-3
    assert worst.bound == pytest.approx(4 * one.bound, rel=2e-3)
    assert worst.weights[1] > 0.99


def test_worst_of_two_different_load_cases(comm):
    """Either case alone bounds the largest from below; together they bound it better."""
    cell = regular_cell(comm, (16, 16), cell_type="triangle")
    model = HeatModel(cell, (LOW, 1.0))
    x = ufl.SpatialCoordinate(cell.mesh)
    sources = [ufl.conditional(x[1] < 0.5, 1.0, 0.0), ufl.conditional(x[1] > 0.5, 0.6, 0.0)]
    fixed = [Fixed(0.0, lambda x: np.isclose(x[0], 0) & (x[1] < 0.25 + 1e-9))]
    states = [model.load(f, fixed=fixed) for f in sources]
    alone = [model.certificate([state], FRACTION).bound for state in states]
    worst = model.certificate(states, FRACTION)
    assert worst.relaxed_gap < 1e-3
    assert worst.bound >= max(alone) * (1 - 1e-3)
    values = [compliance_of(model, state, worst.density) for state in states]
    assert worst.bound <= max(values)


@pytest.mark.parametrize("cell_type", ["triangle", "quadrilateral"])
@pytest.mark.parametrize("law", [simp, ramp])
def test_no_structure_falls_below(comm, cell_type, law):
    """Random, striped and grey structures with at most the volume, on the mesh itself."""
    cell = regular_cell(comm, (20, 20), cell_type=cell_type)
    model = HeatModel(cell, (LOW, 1.0), law=law)
    state = model.load(1.0, fixed=[Fixed(0.0, window)])
    found = model.certificate([state], FRACTION)
    assert found.relaxed_gap < 1e-3
    rng = np.random.default_rng([7, comm.rank])
    n = model.volumes.size
    structures = [(rng.random(n) < FRACTION).astype(float) for _ in range(3)]
    structures += [rng.random(n) * s for s in (0.5, 0.8)]
    structures += [found.density, np.full(n, FRACTION), np.zeros(n)]
    structures += [
        density_at(cell, lambda x, k=k: (np.sin(k * (x[1] - 0.5)) ** 2 < 0.3) * 1.0) for k in (5, 20)
    ]
    for values in structures:
        used = model.fraction(values)
        objective = compliance_of(model, state, values)
        assert objective >= found.bound_at(used) * (1 - 1e-10), used
        if used <= FRACTION:
            assert objective >= found.bound * (1 - 1e-10)
            assert found.gap(objective) >= -1e-10
    # The relaxed design itself, without the penalty, comes to its value.
    model.interpolation.penalty = 1.0 if law is simp else 0.0
    assert compliance_of(model, state, found.density) == pytest.approx(found.relaxed, rel=1e-8)


def test_bound_of_triangles_holds_for_finer_structures(comm):
    """A bound from a coarse mesh of triangles, held against structures that only a finer mesh can show."""
    coarse, fine = (regular_cell(comm, (n, n), cell_type="triangle") for n in (10, 40))
    model = HeatModel(coarse, (LOW, 1.0))
    bound = model.certificate([model.load(1.0, fixed=[Fixed(0.0, two_sides)])], FRACTION)
    assert bound.continuum
    model = HeatModel(fine, (LOW, 1.0))
    state = model.load(1.0, fixed=[Fixed(0.0, two_sides)])
    best = model.certificate([state], FRACTION)
    assert bound.bound < best.relaxed
    for k in (15, 40):
        values = density_at(fine, lambda x, k=k: (np.sin(k * (x[0] + x[1])) ** 2 < 0.3) * 1.0)
        assert compliance_of(model, state, values) >= bound.bound_at(model.fraction(values))


def test_knapsack_is_that_of_a_linear_program(comm, alone):
    rng = np.random.default_rng(3)
    g, v = rng.normal(size=30), rng.uniform(0.5, 2, 30)
    lower, upper = rng.uniform(0, 0.3, 30), rng.uniform(0.5, 1, 30)
    for budget in (lower @ v, 0.3 * v.sum(), 0.6 * v.sum(), 2 * v.sum()):
        exact = linprog(g, A_ub=v[None], b_ub=[budget], bounds=list(zip(lower, upper, strict=True))).fun
        value = linear_minimum(g, v, budget, alone, (lower, upper))
        assert value == pytest.approx(exact, abs=1e-9)
        mine = slice(comm.rank, None, comm.size)
        shared = linear_minimum(g[mine], v[mine], budget, comm, (lower[mine], upper[mine]))
        assert shared == pytest.approx(exact, abs=1e-9)


def test_cell_energies(comm):
    """Without a penalty nothing conducts better than the uniform mixture: the arithmetic mean of Wiener."""
    cell = regular_cell(comm, (12, 12))
    rho = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
    interpolation = Interpolation(cell.mesh, 0.1, 1.0, 1.0)
    problem = CellProblem(cell, interpolation.ufl(rho))
    functional = TensorFunctional(problem, lambda D: ufl.tr(ufl.inv(D)) / 2, rho)
    volumes = np.full(owned(rho).size, 1 / 144)
    found = certify([functional], rho, volumes, 0.3, weights=[1.0], offset=0.1 / 0.9, tolerance=1e-8)
    assert found.bound == pytest.approx(1 / 0.37, rel=1e-7)


def test_given_parts(comm):
    """Limits of the density per cell are kept, and the bound rises with what they forbid."""
    cell = regular_cell(comm, (12, 12), cell_type="triangle")
    model = HeatModel(cell, (LOW, 1.0))
    rho = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
    T, v = (fem.Function(fem.functionspace(cell.mesh, ("Lagrange", 1))) for _ in range(2))
    v = ufl.TestFunction(T.function_space)
    bc = fem.dirichletbc(0.0, fem.locate_dofs_geometrical(T.function_space, left), T.function_space)
    F = (LOW + (1 - LOW) * rho) * ufl.inner(ufl.grad(T), ufl.grad(v)) * ufl.dx - v * ufl.dx
    energy = Energy(LinearState(F, T, [bc]), rho)
    free = certify([energy], rho, model.volumes, FRACTION, weights=[1.0])
    upper = density_at(cell, lambda x: np.where(x[0] < 0.3, 0.5, 1.0))
    lower = density_at(cell, lambda x: np.where(x[0] > 0.8, 0.3, 0.0))
    bound = certify([energy], rho, model.volumes, FRACTION, weights=[1.0], limits=(lower, upper))
    assert bound.bound > 1.02 * free.bound
    assert bound.relaxed_gap < 1e-3
    assert (bound.density >= lower).all()
    assert (bound.density <= upper).all()
    with pytest.raises(ValueError, match="the given parts alone take"):
        certify([energy], rho, model.volumes, 0.05, weights=[1.0], limits=(lower, upper))


def test_same_on_any_number_of_ranks(comm, alone):
    bounds = []
    for c in (comm, alone):
        model = HeatModel(regular_cell(c, (20, 20)), (LOW, 1.0))
        state = model.load(1.0, fixed=[Fixed(0.0, window)])
        bounds.append(model.certificate([state], FRACTION).bound)
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-9)


def test_refusals(comm):
    model = HeatModel(regular_cell(comm, (4, 4)), (LOW, 1.0))
    state = model.load(1.0, fixed=[Fixed(0.0, left)])
    with pytest.raises(ValueError, match="volume fraction"):
        model.certificate([state], 0.0)
    with pytest.raises(ValueError, match="positive weights"):
        model.certificate([state], 0.5, weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="fixed temperatures of 0"):
        model.certificate([model.load(1.0, fixed=[Fixed(1.0, left)])], 0.5)
    concave = HeatModel(model.cell, (LOW, 1.0), penalty=0.5)
    with pytest.raises(ValueError, match="does not exceed the linear one, found simp"):
        concave.certificate([concave.load(1.0, fixed=[Fixed(0.0, left)])], 0.5)
    with pytest.raises(ValueError, match="no penalty"):
        Energy(state, model.rho)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "where", "reference", "n"), [(1e-2, two_sides, 2.7729e-5, 125), (1.0, window, 1.1208, 160)]
)
def test_reference_values(comm, source, where, reference, n):
    """Bounds that were found by another program, on triangles."""
    model = HeatModel(regular_cell(comm, (n, n), cell_type="triangle"), (LOW, 1.0))
    found = model.certificate([model.load(source, fixed=[Fixed(0.0, where)])], FRACTION, tolerance=5e-4)
    assert found.bound == pytest.approx(reference, rel=1e-3)
    # A bound below the true one is a bound as well: the relaxed design is evidence that it cannot rise.
    assert found.bound <= reference * (1 + 5e-4)
    assert found.relaxed >= reference * (1 - 1e-6)
