"""Taylor tests of every functional through every filter and projection, on uniform and graded meshes."""

import itertools

import numpy as np
import pytest
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh

from fetopo.design import functionals
from fetopo.design.adjoint import FormFunctional, ReducedFunctional, TensorFunctional
from fetopo.design.density import DensityMap, HeavisideProjection, HelmholtzFilter, Interpolation
from fetopo.design.initial import cell_positions, random_field
from fetopo.design.verification import taylor_test
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.homogenization import CellProblem
from fetopo.transport.materials import ramp, simp
from fetopo.transport.state import LinearState

pytestmark = pytest.mark.mpi

LAWS = {"simp": simp, "ramp": ramp}
GMRES = {"ksp_type": "gmres", "ksp_rtol": 1e-13, "pc_type": "jacobi"}
DIRECT = {"ksp_type": "preonly", "pc_type": "lu", "pc_factor_mat_solver_type": "mumps"}


def graded(comm):
    pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
    from fetopo.microstructure.geometry import inclusion_cell

    return inclusion_cell(comm, [(0.4, 0.5)], 0.3, mesh_size=0.2, interface_size=0.05)


def graded_3d(comm):
    pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
    from fetopo.microstructure.geometry import inclusion_cell

    return inclusion_cell(comm, [(0.4, 0.5, 0.5)], 0.3, mesh_size=0.4, interface_size=0.2)


CELLS = {
    # Not of volume 1, so that no factor hides.
    "quadrilateral": lambda comm: regular_cell(comm, (8, 6)),
    "triangle": lambda comm: regular_cell(comm, (8, 8), (1.0, 1.5), "triangle"),
    "hexahedron": lambda comm: regular_cell(comm, (4, 4, 3)),
    "graded": graded,
}

#: Every way from the design variable to the density: (filter radius, sharpness of the projection or None).
MAPS = list(itertools.product((0.0, 0.3), (None, 4.0)))


@pytest.fixture(params=CELLS)
def cell(request, comm):
    return CELLS[request.param](comm)


@pytest.fixture(params=LAWS)
def law(request):
    return LAWS[request.param]


def start(cell):
    """A design that varies, away from 0 and 1."""
    field = random_field(cell, seed=3)
    return 0.5 + 0.3 * np.tanh(field)


def density_of(cell, radius, beta, periodic=True):
    steps = [HelmholtzFilter(cell.mesh, radius, cell=cell if periodic else None)]
    if beta is not None:
        steps.append(HeavisideProjection(beta))
    return DensityMap(cell.mesh, *steps)


def direction(cell):
    """Rough, the same on any number of ranks, and more up than down: second order terms do not cancel."""
    return 0.25 + 0.75 * np.sin(cell_positions(cell) @ np.array([37.0, 91.0, 53.0])[: cell.dim])


def rate(reduced, cell):
    m, dm = start(cell), direction(cell)
    reduced(m)
    return taylor_test(reduced, m, reduced.derivative(), dm, comm=reduced.comm, step=2e-3).rate


def tensor_functions(d):
    target = np.diag(np.linspace(0.2, 0.4, d))
    target[0, 1] = target[1, 0] = 0.05
    return {
        "mean_resistivity": functionals.mean_resistivity,
        "resistivity_along": functionals.resistivity_along((1.0, 2.0, -0.5)[:d]),
        "distance_to": functionals.distance_to(target),
        "off_diagonal": lambda D: D[0, 1],
        "user": lambda D: ufl.exp(D[0, 0]) * D[1, 1] ** 2 + ufl.ln(ufl.det(D)),
    }


@pytest.mark.parametrize("name", list(tensor_functions(2)))
def test_functions_of_the_tensor(cell, law, name):
    density = DensityMap(cell.mesh)
    kappa = Interpolation(cell.mesh, 0.01, 1.0, 3.0, law)
    problem = CellProblem(cell, kappa.ufl(density.rho))
    functional = TensorFunctional(problem, tensor_functions(cell.dim)[name], density.rho)
    for radius, beta in MAPS:
        density.steps = density_of(cell, radius, beta).steps
        assert rate(ReducedFunctional(functional, density), cell) > 1.9, (radius, beta)


@pytest.mark.parametrize("name", ["mean_resistivity", "off_diagonal"])
def test_functions_of_the_tensor_on_graded_tetrahedra(comm, name):
    cell = graded_3d(comm)
    density = density_of(cell, 0.4, 4.0)
    kappa = Interpolation(cell.mesh, 0.01, 1.0)
    problem = CellProblem(cell, kappa.ufl(density.rho))
    functional = TensorFunctional(problem, tensor_functions(3)[name], density.rho)
    assert rate(ReducedFunctional(functional, density), cell) > 1.9


def test_anisotropic_conductivity_of_degree_2(comm):
    """κ(ρ) may be a tensor, the correctors quadratic."""
    cell = graded(comm)
    density = density_of(cell, 0.3, 4.0)
    A = ufl.as_matrix([[1.0, 0.3], [0.3, 2.0]])
    problem = CellProblem(cell, simp(density.rho, 0.01, 1.0) * A, degree=2)
    functional = TensorFunctional(problem, functionals.mean_resistivity, density.rho)
    assert rate(ReducedFunctional(functional, density), cell) > 1.9


def test_penalty_can_change(comm):
    """The derivative follows the continuation."""
    cell = regular_cell(comm, (8, 8))
    density = density_of(cell, 0.3, 1.0)
    kappa = Interpolation(cell.mesh, 0.01, 1.0, 1.0)
    problem = CellProblem(cell, kappa.ufl(density.rho))
    reduced = ReducedFunctional(TensorFunctional(problem, functionals.mean_resistivity, density.rho), density)
    values = []
    for kappa.penalty, density.steps[1].beta in ((1.0, 1.0), (3.0, 8.0), (4.0, 2.0)):
        assert rate(reduced, cell) > 1.9
        values.append(reduced(start(cell)))
    assert len({round(v, 6) for v in values}) == 3


def test_mean_density(cell):
    for radius, beta in MAPS:
        density = density_of(cell, radius, beta)
        functional = FormFunctional(functionals.mean_density(density.rho, cell.volume), density.rho)
        reduced = ReducedFunctional(functional, density)
        assert rate(reduced, cell) > 1.9
        result = taylor_test(reduced, start(cell), reduced.derivative(), comm=reduced.comm)
        # Linear without a projection.
        assert result.exact is (beta is None)
        if beta is None:
            assert reduced(np.full_like(start(cell), 0.3)) == pytest.approx(0.3)


# --- functionals of a state ---------------------------------------------------------------------------


class Heat:
    """Heat conduction with a Dirichlet condition on one side, a Robin condition on the others, a source."""

    def __init__(self, cell, law=simp, *, value=0.0, advection=0.0, density_source=False, options=None):
        mesh, d = cell.mesh, cell.dim
        self.cell = cell
        self.density = DensityMap(mesh)
        rho = self.rho = self.density.rho
        V = fem.functionspace(mesh, ("Lagrange", 1))
        u, v = fem.Function(V), ufl.TestFunction(V)
        kappa = Interpolation(mesh, 0.01, 1.0, 3.0, law).ufl(rho)
        self.kappa = kappa
        f = fem.Constant(mesh, 1.0)
        self.source = rho * f if density_source else f
        F = kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx - self.source * v * ufl.dx
        F += 0.1 * u * v * ufl.ds
        if advection:
            F += advection * rho * u.dx(d - 1) * v * ufl.dx
        mesh.topology.create_connectivity(d - 1, d)
        side = dmesh.locate_entities_boundary(mesh, d - 1, lambda x: np.isclose(x[0], 0.0))
        bc = fem.dirichletbc(value, fem.locate_dofs_topological(V, d - 1, side), V)
        self.state = LinearState(F, u, [bc], options or {"ksp_rtol": 1e-13})
        self.u = u

    def functional(self, J):
        return FormFunctional(J, self.rho, self.state)

    def rates(self, functional):
        """Taylor rates through every map."""
        found = []
        for radius, beta in MAPS:
            self.density.steps = density_of(self.cell, radius, beta, periodic=False).steps
            found.append(rate(ReducedFunctional(functional, self.density), self.cell))
        return found


FORMS = {
    "square": lambda h: h.u**2 * ufl.dx,
    "boundary": lambda h: h.u**3 * ufl.ds + h.rho * h.u * ufl.ds,
    "density": lambda h: h.rho**2 * ufl.exp(h.u / 10) * ufl.dx,
    "flux": lambda h: h.kappa**2 * ufl.inner(ufl.grad(h.u), ufl.grad(h.u)) * ufl.dx,
    "part": lambda h: ufl.conditional(ufl.lt(ufl.SpatialCoordinate(h.u)[0], 0.5), h.u, 0) * ufl.dx,
}


def test_compliance_needs_no_adjoint(cell, law):
    heat = Heat(cell, law)
    functional = heat.functional(functionals.compliance(heat.u, heat.source))
    assert min(heat.rates(functional)) > 1.9
    assert functional.adjoint_solves == 0


@pytest.mark.parametrize("name", FORMS)
def test_forms_need_one_adjoint(cell, name):
    heat = Heat(cell)
    functional = heat.functional(FORMS[name](heat))
    assert min(heat.rates(functional)) > 1.9
    assert functional.adjoint_solves == len(MAPS)


@pytest.mark.parametrize("name", ["square", "flux"])
def test_forms_with_ramp(comm, name):
    heat = Heat(graded(comm), ramp)
    assert min(heat.rates(heat.functional(FORMS[name](heat)))) > 1.9


@pytest.mark.parametrize("kind", ["quadrilateral", "graded"])
class TestSelfAdjoint:
    def test_multiple_of_compliance(self, comm, kind):
        heat = Heat(CELLS[kind](comm))
        functional = heat.functional(-2.5 * functionals.compliance(heat.u, heat.source))
        assert min(heat.rates(functional)) > 1.9
        assert functional.adjoint_solves == 0

    def test_load_that_depends_on_the_density(self, comm, kind):
        heat = Heat(CELLS[kind](comm), density_source=True)
        functional = heat.functional(functionals.compliance(heat.u, heat.source))
        assert min(heat.rates(functional)) > 1.9
        assert functional.adjoint_solves == 0

    def test_not_with_a_boundary_value(self, comm, kind):
        heat = Heat(CELLS[kind](comm), value=0.7)
        functional = heat.functional(functionals.compliance(heat.u, heat.source))
        assert min(heat.rates(functional)) > 1.9
        assert functional.adjoint_solves == len(MAPS)

    def test_not_with_another_weight(self, comm, kind):
        heat = Heat(CELLS[kind](comm))
        x = ufl.SpatialCoordinate(heat.cell.mesh)
        functional = heat.functional((1 + 1e-6 * x[1]) * heat.u * ufl.dx)
        assert min(heat.rates(functional)) > 1.9
        assert functional.adjoint_solves == len(MAPS)

    @pytest.mark.parametrize("options", [DIRECT, GMRES])
    def test_not_with_advection(self, comm, kind, options):
        """A matrix that is not symmetric: compliance has an adjoint too, with the transposed operator."""
        heat = Heat(CELLS[kind](comm), advection=3.0, options=options)
        for J in (functionals.compliance(heat.u, heat.source), FORMS["boundary"](heat)):
            functional = heat.functional(J)
            assert min(heat.rates(functional)) > 1.9
            assert functional.adjoint_solves == len(MAPS)


def test_functional_of_the_density_beside_a_state(comm):
    heat = Heat(regular_cell(comm, (6, 6)))
    functional = heat.functional(heat.rho**2 * ufl.dx)
    assert min(heat.rates(functional)) > 1.9
    assert functional.adjoint_solves == 0


def test_states_may_share_a_solve(comm):
    """The value of one functional does not disturb the derivative of another."""
    heat = Heat(graded(comm))
    one = heat.functional(FORMS["square"](heat))
    other = heat.functional(functionals.compliance(heat.u, heat.source))
    heat.density.steps = density_of(heat.cell, 0.3, 4.0, periodic=False).steps
    reduced = ReducedFunctional(one, heat.density)
    reduced(start(heat.cell))
    alone = one.derivative()
    other.derivative()
    again = one.derivative()
    assert np.abs(alone - again).max(initial=0) < 1e-10 * max(comm.allgather(np.abs(alone).max(initial=0)))


def test_same_on_one_rank(comm, alone):
    """Value and norm of the derivative (cells come in another order)."""
    found = []
    for c in (comm, alone):
        cell = regular_cell(c, (8, 8))
        density = density_of(cell, 0.3, 4.0)
        problem = CellProblem(cell, simp(density.rho, 0.01, 1.0))
        functional = TensorFunctional(problem, functionals.mean_resistivity, density.rho)
        reduced = ReducedFunctional(functional, density)
        heat = Heat(cell)
        J = heat.functional(FORMS["boundary"](heat))
        heat.density.steps = density_of(cell, 0.3, 4.0, periodic=False).steps
        other = ReducedFunctional(J, heat.density)
        row = []
        for r in (reduced, other):
            value = r(start(cell))
            gradient = r.derivative()
            row += [value, c.allreduce(gradient.sum()), c.allreduce(gradient @ gradient)]
        found.append(row)
    assert found[0] == pytest.approx(found[1], rel=1e-8)


class TestOfTheTest:
    """What the Taylor test must not let pass."""

    def reduced(self, cell):
        density = density_of(cell, 0.3, 4.0)
        problem = CellProblem(cell, simp(density.rho, 0.01, 1.0))
        functional = TensorFunctional(problem, functionals.mean_resistivity, density.rho)
        return ReducedFunctional(functional, density)

    @pytest.mark.parametrize("factor", [-1.0, 0.0, 0.99, 1.01])
    def test_wrong_factor(self, comm, factor):
        reduced = self.reduced(graded(comm))
        m = start(reduced.functional.state.cell)
        reduced(m)
        wrong = factor * reduced.derivative()
        # A small error shows once the steps are small.
        result = taylor_test(reduced, m, wrong, dm=np.ones(m.size), comm=comm, step=1e-4)
        assert result.rate == pytest.approx(1, abs=0.1)

    def test_filter_instead_of_its_transpose(self, comm):
        """A uniform mesh does not notice it, a graded one does."""
        rates = {}
        for name in ("quadrilateral", "graded"):
            reduced = self.reduced(CELLS[name](comm))
            m = start(reduced.functional.state.cell)
            reduced(m)
            filter_, projection = reduced.density.steps
            wrong = filter_.forward(projection.vjp(reduced.functional.derivative()))
            dm = direction(reduced.functional.state.cell)
            rates[name] = taylor_test(reduced, m, wrong, dm, comm=comm, step=1e-3).rate
        assert rates["quadrilateral"] > 1.9
        assert rates["graded"] < 1.2

    def test_forgotten_adjoint(self, comm):
        heat = Heat(graded(comm))
        functional = heat.functional(FORMS["square"](heat))
        reduced = ReducedFunctional(functional, heat.density)
        m = start(heat.cell)
        reduced(m)
        assert taylor_test(reduced, m, np.zeros(m.size), comm=comm, step=1e-3).rate < 1.2


def test_function_that_is_no_scalar(comm):
    cell = regular_cell(comm, (3, 3))
    rho = DensityMap(cell.mesh).rho
    with pytest.raises(ValueError, match=r"must be a scalar, found shape \(2, 2\)"):
        TensorFunctional(CellProblem(cell, simp(rho, 0.1, 1.0)), lambda D: D, rho)


@pytest.mark.parametrize("direction", [(0.0, 0.0), (np.nan, 1.0)])
def test_direction_refused(direction):
    with pytest.raises(ValueError, match="not zero"):
        functionals.resistivity_along(direction)


@pytest.mark.parametrize("target", [np.zeros((2, 2)), [[1, 2], [3, 4]], [1, 2], np.ones((2, 3))])
def test_target_refused(target):
    with pytest.raises(ValueError, match="symmetric tensor that is not zero"):
        functionals.distance_to(target)
