"""One linear state problem: manufactured solutions, boundary values, transposes, failures on every rank."""

import numpy as np
import pytest
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh
from petsc4py import PETSc

from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.state import LinearSolver, LinearState, assemble_dual, global_sum, owned

pytestmark = pytest.mark.mpi

STALLS = {"ksp_type": "cg", "pc_type": "none", "ksp_max_it": 2}
DIRECT = {"ksp_type": "preonly", "pc_type": "lu", "pc_factor_mat_solver_type": "mumps"}


def boundary(V):
    mesh = V.mesh
    mesh.topology.create_connectivity(mesh.topology.dim - 1, mesh.topology.dim)
    facets = dmesh.exterior_facet_indices(mesh.topology)
    return fem.locate_dofs_topological(V, mesh.topology.dim - 1, facets)


def poisson(comm, n, kind, degree, petsc_options=None):
    """−∇·(1 + x)∇u = f with the boundary values of a known u; returns the state and its L² error."""
    dim = 2 if kind in ("triangle", "quadrilateral") else 3
    mesh = regular_cell(comm, (n,) * dim, cell_type=kind).mesh
    V = fem.functionspace(mesh, ("Lagrange", degree))
    u, v, x = fem.Function(V), ufl.TestFunction(V), ufl.SpatialCoordinate(mesh)
    exact = ufl.cos(2 * x[0]) * ufl.exp(x[1]) + (x[2] ** 3 if dim == 3 else 0)
    kappa = 1 + x[0]
    edge = fem.Function(V)
    edge.interpolate(lambda x: np.cos(2 * x[0]) * np.exp(x[1]) + (x[2] ** 3 if dim == 3 else 0))
    source = -ufl.div(kappa * ufl.grad(exact))
    F = kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx - source * v * ufl.dx
    state = LinearState(F, u, [fem.dirichletbc(edge, boundary(V))], petsc_options)
    state.solve()
    return state, global_sum(fem.form((u - exact) ** 2 * ufl.dx)) ** 0.5


class TestLinearState:
    @pytest.mark.parametrize("kind", ["triangle", "quadrilateral", "tetrahedron", "hexahedron"])
    @pytest.mark.parametrize("degree", [1, 2])
    def test_rate(self, comm, kind, degree):
        sizes = (8, 16) if kind in ("triangle", "quadrilateral") else (4, 8)
        errors = [poisson(comm, n, kind, degree)[1] for n in sizes]
        assert np.log2(errors[0] / errors[1]) > degree + 1 - 0.15

    def test_same_on_one_rank(self, comm, alone):
        (state, error), (_, expected) = (poisson(c, 16, "quadrilateral", 1) for c in (comm, alone))
        assert error == pytest.approx(expected, rel=1e-9)
        assert state.solver.iterations > 0

    def test_starts_from_the_present_solution(self, comm):
        state, _ = poisson(comm, 16, "quadrilateral", 1)
        first = state.solver.iterations
        before = state.u.x.array.copy()
        state.solve()
        assert state.solver.iterations - first <= 1
        assert np.allclose(state.u.x.array, before, rtol=0, atol=1e-8)

    def test_start_values_do_not_change_the_solution(self, comm):
        """Neither on the boundary nor inside."""
        state, _ = poisson(comm, 8, "triangle", 1, DIRECT)
        before = state.u.x.array.copy()
        state.u.x.array[:] = 7.0
        state.solve()
        assert np.allclose(state.u.x.array, before, atol=1e-12)

    def test_nonlinear_problem_is_refused(self, comm):
        V = fem.functionspace(regular_cell(comm, (3, 3)).mesh, ("Lagrange", 1))
        u, v = fem.Function(V), ufl.TestFunction(V)
        F = (1 + u**2) * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx - v * ufl.dx
        with pytest.raises(NotImplementedError, match="not linear"):
            LinearState(F, u)


def forms(comm, advection=0.0, n=12):
    V = fem.functionspace(regular_cell(comm, (n, n)).mesh, ("Lagrange", 1))
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    a = ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx
    if advection:
        a += advection * u.dx(0) * v * ufl.dx
    return V, a


class TestLinearSolver:
    def test_symmetry_of_the_matrix(self, comm):
        for advection, expected in ((0.0, True), (5.0, False)):
            V, a = forms(comm, advection)
            solver = LinearSolver(a, [fem.dirichletbc(0.0, boundary(V), V)])
            solver.assemble()
            assert solver.is_symmetric() is expected

    def test_transpose(self, comm):
        """The transposed matrix is the matrix of the adjoint form, boundary conditions included."""
        V, a = forms(comm, 5.0)
        bcs = [fem.dirichletbc(0.0, boundary(V), V)]
        b = assemble_dual(fem.form(ufl.TestFunction(V) * ufl.dx))
        owned(b)[[d for d in bcs[0].dof_indices()[0] if d < owned(b).size]] = 0
        solutions = []
        for form, transpose in ((a, True), (ufl.adjoint(a), False)):
            solver = LinearSolver(form, bcs, petsc_options=DIRECT)
            solver.assemble()
            x = fem.Function(V)
            solver.solve(b, x, transpose=transpose)
            solutions.append(x.x.array.copy())
        assert np.allclose(*solutions, atol=1e-13)

    def test_null_space(self, comm):
        """A pure Neumann problem; what the right-hand side has along the constant is removed."""
        V, a = forms(comm)
        one = fem.Function(V)
        one.x.array[:] = 1
        solver = LinearSolver(a, nullspace=one)
        solver.assemble()
        x, source = fem.Function(V), ufl.SpatialCoordinate(V.mesh)[0]
        solver.solve(assemble_dual(fem.form(source * ufl.TestFunction(V) * ufl.dx)), x)
        y = V.tabulate_dof_coordinates()[: owned(x).size, 0]
        left = comm.allgather(owned(x)[np.isclose(y, 0)])
        right = comm.allgather(owned(x)[np.isclose(y, 1)])
        jump = np.concatenate(right).mean() - np.concatenate(left).mean()
        # −u″ = x − 1/2, u′(0) = u′(1) = 0: u′ = (x − x²)/2 and u(1) − u(0) = 1/4 − 1/6
        assert jump == pytest.approx(1 / 12, rel=1e-8)

    def test_failure_is_raised_on_every_rank(self, comm):
        V, a = forms(comm, n=32)
        solver = LinearSolver(
            a, [fem.dirichletbc(0.0, boundary(V), V)], petsc_options=STALLS | {"retry": False}
        )
        solver.assemble()
        with pytest.raises(RuntimeError, match=r"stopped after \d+ iterations without converging \(DIVERGED"):
            solver.solve(assemble_dual(fem.form(ufl.TestFunction(V) * ufl.dx)), fem.Function(V))
        assert comm.allreduce(1) == comm.size

    def test_options(self, comm):
        _, a = forms(comm)
        assert LinearSolver(a).ksp.getPC().getType() == "cholesky"
        assert LinearSolver(a, petsc_options={"pc_type": "jacobi"}).ksp.getPC().getType() == "jacobi"
        assert LinearSolver(a, petsc_options={"ksp_rtol": 1e-3}).ksp.getTolerances()[0] == 1e-3
        assert LinearSolver(a, petsc_options={"ksp_rtol": 1e-3}).ksp.getPC().getType() == "cholesky"
        assert LinearSolver(a, petsc_options=DIRECT).ksp.getType() == "preonly"

    def test_command_line_wins_and_nothing_is_left_behind(self, comm):
        _, a = forms(comm)
        database = PETSc.Options()
        database["test_state_ksp_rtol"] = 1e-4
        try:
            solver = LinearSolver(a, petsc_options_prefix="test_state_")
            assert solver.ksp.getTolerances()[0] == 1e-4
            left = [key for key in database.getAll() if key.startswith("test_state_")]
            assert left == ["test_state_ksp_rtol"]
        finally:
            database.delValue("test_state_ksp_rtol")

    def test_tolerance_can_change(self, comm):
        _, a = forms(comm)
        solver = LinearSolver(a)
        solver.set_tolerance(1e-3)
        assert solver.ksp.getTolerances()[0] == 1e-3


def test_owned_is_a_view(comm):
    V, _ = forms(comm)
    f = fem.Function(V)
    owned(f)[:] = 3
    n = V.dofmap.index_map.size_local
    assert (f.x.array[:n] == 3).all()
    assert owned(f).size == n


def test_problem_without_symmetry_needs_no_options(comm):
    """Advection and diffusion on (0, 1), u = (1 − exp(w x))/(1 − exp(w)): the default solver copes."""
    mesh = dmesh.create_unit_square(comm, 64, 4, dmesh.CellType.quadrilateral)
    V = fem.functionspace(mesh, ("Lagrange", 1))
    u, v, w = fem.Function(V), ufl.TestFunction(V), 4.0
    ends = [fem.locate_dofs_geometrical(V, lambda x, at=at: np.isclose(x[0], at)) for at in (0.0, 1.0)]
    bcs = [fem.dirichletbc(value, dofs, V) for value, dofs in zip((0.0, 1.0), ends, strict=True)]
    state = LinearState(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx + w * u.dx(0) * v * ufl.dx, u, bcs)
    state.solve()
    assert state.symmetric is False
    exact = fem.Function(V)
    exact.interpolate(lambda x: np.expm1(w * x[0]) / np.expm1(w))
    assert np.abs(u.x.array - exact.x.array).max() < 1e-3
