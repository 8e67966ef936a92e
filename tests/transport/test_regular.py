"""Conduction on regular grids: assembled and solved as everywhere else, only faster."""

import logging

import numpy as np
import pytest
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

from fetopo.microstructure.mesh import regular_cell, select_phases
from fetopo.transport import solvers
from fetopo.transport.assembly import Matrix, Pairing, form, jit_options
from fetopo.transport.homogenization import CellProblem
from fetopo.transport.periodic import periodic_space
from fetopo.transport.regular import ScaledElements, conductivity, recognise
from fetopo.transport.regular_multigrid import GridMultigrid
from fetopo.transport.solvers import Hierarchy
from fetopo.transport.state import LinearSolver, LinearState, assemble_dual, owned

#: Conditions by name: where the potential is given. No node is on an edge of such a part, where round-off
#: would decide, on each rank in its own way.
WALLS = {
    "first": lambda x, L: np.isclose(x[0], 0),
    "corner": lambda x, L: np.isclose(x[0], 0) | np.isclose(x[1], L[1]),
    "around": lambda x, L: np.isclose(x[0] * (x[0] - L[0]) * x[1] * (x[1] - L[1]), 0),
    "part": lambda x, L: np.isclose(x[0], 0) & (x[1] < 0.47 * L[1]),
    "parts": lambda x, L: (
        (np.isclose(x[0], 0) & (x[1] < 0.47 * L[1])) | (np.isclose(x[1], L[1]) & (x[0] > 0.61 * L[0]))
    ),
    "part and all": lambda x, L: np.isclose(x[0], L[0]) | (np.isclose(x[1], 0) & (x[0] < 0.61 * L[0])),
    "inside": lambda x, L: np.hypot(x[0] - 0.5 * L[0], x[1] - 0.5 * L[1]) < 0.2,
}


#: The grid's multigrid for the smallest problems too.
GRID = {(2, False): 0, (2, True): 0, (3, False): 0, (3, True): 0}


def problem(comm, dim, walls, n=7, cells=None):
    """Cell of uneven voxels, form and conditions; two phases of contrast 1000."""
    cell = regular_cell(comm, (n, n + 2, n - 1)[:dim], lengths=[1.0, 1.5, 0.8][:dim], cell_type=cells)
    V = fem.functionspace(cell.mesh, ("Lagrange", 1))
    if walls == "periodic":
        V = periodic_space(V, cell.lower, cell.upper)
    bcs = []
    if walls in WALLS:
        dofs = fem.locate_dofs_geometrical(V, lambda x: WALLS[walls](x, cell.lengths))
        bcs = [fem.dirichletbc(0.0, dofs, V)]
    rho = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
    rho.interpolate(lambda x: 1.0 * (np.sin(9 * x[0] + 4 * x[1] * x[1] + 11 * x[2] ** 2) > 0))
    exponent = fem.Constant(cell.mesh, 3.0)
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    kappa = 1e-3 + rho**exponent
    return cell, V, bcs, kappa, kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx


def difference(A, B):
    """Relative difference of two matrices."""
    C = A.copy()
    C.axpy(-1.0, B, PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
    return C.norm() / A.norm()


@pytest.mark.mpi
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("walls", ["periodic", "closed", *WALLS])
def test_same_matrix(comm, dim, walls):
    """Without quadrature, by DOLFINx into its own arrays, and by PETSc: one matrix."""
    cell, _, bcs, _, a = problem(comm, dim, walls)
    found = recognise(a, bcs, cell)
    assert found is not None
    assert ScaledElements.suits(found)
    reference = fem_petsc.assemble_matrix(fem.form(a), bcs)
    reference.assemble()
    for elements in (None, ScaledElements(found)):
        matrix = Matrix(form(a), bcs, elements)
        for _ in range(2):  # nothing is left of the first
            matrix.assemble()
            assert difference(reference, matrix.petsc) < 1e-13


@pytest.mark.mpi
def test_pairing(comm):
    cell, V, *_ = problem(comm, 3, "periodic")
    Q = fem.functionspace(cell.mesh, ("DG", 0))
    f, g = fem.Function(Q), fem.Function(V)
    f.interpolate(lambda x: x[0] + np.sin(x[1]))
    owned(g)[:] = np.random.default_rng(comm.rank).random(owned(g).size)
    g.x.scatter_forward()
    B = Pairing(ufl.TrialFunction(Q) * ufl.TestFunction(V) * ufl.dx)
    expected = assemble_dual(fem.form(f * ufl.TestFunction(V) * ufl.dx))
    assert np.allclose(owned(B.times(f.x.array)), owned(expected), rtol=1e-13, atol=1e-15)
    expected = assemble_dual(fem.form(g * ufl.TestFunction(Q) * ufl.dx))
    assert np.allclose(B.transposed_times(g.x.array)[: owned(f).size], owned(expected), rtol=1e-13)


class TestConductivity:
    def test_found(self, comm):
        _, V, _, kappa, a = problem(comm, 2, "closed")
        assert conductivity(a) == kappa
        u, v = fem.Function(V), ufl.TestFunction(V)
        F = ufl.dot(ufl.grad(v), kappa * ufl.grad(u)) * ufl.dx - v * ufl.dx
        assert conductivity(ufl.derivative(F, u)) == kappa
        halves = [0.5 * kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx for _ in range(2)]
        found = conductivity(ufl.derivative(halves[0] + halves[1], u))
        assert fem.assemble_scalar(fem.form((found - kappa) ** 2 * ufl.dx)) < 1e-28

    def test_other_forms(self, comm):
        cell, V, bcs, kappa, a = problem(comm, 2, "closed")
        u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
        tensor = ufl.as_matrix([[2.0, 0.5], [0.5, 1.0]])
        uneven = ufl.as_matrix([[2.0, 0.0], [0.0, 1.0]])
        for other in (
            a + u * v * ufl.dx,
            a + u * v * ufl.ds,
            a + u.dx(0) * v * ufl.dx,
            ufl.inner(tensor * ufl.grad(u), ufl.grad(v)) * ufl.dx,
            ufl.inner(uneven * ufl.grad(u), ufl.grad(v)) * ufl.dx,
            kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx(1),
            u.dx(0) * v.dx(1) * ufl.dx,
            ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.ds,
        ):
            assert conductivity(other) is None
            assert recognise(other, bcs, cell) is None

    def test_other_meshes_and_spaces(self, comm):
        for cells in ("triangle", "quadrilateral"):
            cell, _, bcs, _, a = problem(comm, 2, "closed", cells=cells)
            assert (recognise(a, bcs, cell) is None) == (cells == "triangle")
            assert recognise(a, bcs, None) is None
        V = fem.functionspace(cell.mesh, ("Lagrange", 2))
        u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
        assert recognise(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, [], cell) is None
        here = cell.cell_tags.indices
        cell = type(cell)(
            cell.mesh,
            dmesh.meshtags(cell.mesh, 2, here, (1 + here % 2).astype(np.int32)),
            cell.lower,
            cell.upper,
            grid=cell.grid,
        )
        part = select_phases(cell, [1])
        V = fem.functionspace(part.mesh, ("Lagrange", 1))
        u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
        assert recognise(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, [], part) is None

    def test_conductivity_that_varies_in_a_cell_is_integrated(self, comm):
        cell, V, bcs, _, _ = problem(comm, 2, "first")
        u, v, x = ufl.TrialFunction(V), ufl.TestFunction(V), ufl.SpatialCoordinate(cell.mesh)
        found = recognise((1 + x[0]) * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, bcs, cell)
        assert found is not None
        assert not ScaledElements.suits(found)


@pytest.mark.mpi
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("walls", ["periodic", "closed", *WALLS])
def test_same_solution(comm, monkeypatch, dim, walls):
    """The assembled system is solved to the tolerance, in few iterations."""
    monkeypatch.setattr(solvers, "GRID_FROM", GRID)
    cell, V, bcs, _, a = problem(comm, dim, walls, n=14 if dim == 2 else 13)
    one = None
    if not bcs:
        one = fem.Function(V)
        one.x.array[:] = 1.0
    x = ufl.SpatialCoordinate(cell.mesh)
    b = assemble_dual(fem.form(ufl.sin(5 * x[0] + 3 * x[1]) * ufl.TestFunction(V) * ufl.dx))
    for bc in bcs:
        b.array[bc.dof_indices()[0]] = 0.0
    solver = LinearSolver(a, bcs, nullspace=one, cell=cell)
    solver.assemble()
    u = fem.Function(V)
    iterations = solver.solve(b, u)
    grid = walls != "inside"
    assert (solver.attempt == "multigrid on the regular grid") is grid
    assert iterations < 25
    if bcs and grid:
        assert (u.x.array[bcs[0].dof_indices()[0]] == 0).all()
    reference = LinearSolver(a, bcs, nullspace=one)
    reference.assemble()
    exact = fem.Function(V)
    reference.solve(b, exact)
    scale = comm.allreduce(np.abs(exact.x.array).max(initial=0), max)
    shift = 0.0
    if one is not None:
        sums = comm.allreduce(np.array([owned(u).sum() - owned(exact).sum(), owned(u).size]))
        shift = sums[0] / sums[1]
    assert np.abs(owned(u) - owned(exact) - shift).max(initial=0) < 1e-7 * scale


@pytest.mark.mpi
def test_cycle_is_symmetric_and_scales(comm):
    cell, _, bcs, _, a = problem(comm, 3, "first", n=13)
    found = recognise(a, bcs, cell)
    grid = GridMultigrid(found)
    grid.update()
    matrix = Matrix(form(a), bcs)
    matrix.assemble()
    x, y = matrix.petsc.createVecs()
    Mx, My = x.duplicate(), y.duplicate()
    x.setRandom()
    y.array[:] = np.cos(np.arange(y.array.size) + comm.rank)
    grid.apply(None, x, Mx)
    grid.apply(None, y, My)
    assert Mx.dot(y) == pytest.approx(My.dot(x), rel=1e-4)
    x.scale(1e-30)
    again = x.duplicate()
    grid.apply(None, x, again)
    Mx.scale(1e-30)
    again.axpy(-1.0, Mx)
    assert again.norm() < 1e-5 * Mx.norm()
    # One cycle is close to the inverse.
    matrix.petsc.mult(My, again)
    again.axpy(-1.0, y)
    assert My.dot(y) > 0
    energy = y.duplicate()
    matrix.petsc.mult(My, energy)
    assert 0.5 < My.dot(energy) / My.dot(y) < 2


@pytest.mark.mpi
def test_cell_problem(comm, monkeypatch):
    """The tensor of a periodic cell and of one between walls, by the grid and by factors."""
    for boundary in ("periodic", "linear", "mixed"):
        tensors = []
        for limit in (0, 10**9):
            monkeypatch.setattr(solvers, "GRID_FROM", dict.fromkeys(GRID, limit))
            cell, _, _, kappa, _ = problem(comm, 3, "closed", n=13)
            cells = CellProblem(cell, kappa, boundary=boundary)
            tensors.append(cells.solve())
            assert ("regular grid" in cells.solver.attempt) == (limit == 0)
        assert np.allclose(*tensors, rtol=0, atol=1e-9 * np.abs(tensors[1]).max())


@pytest.mark.mpi
def test_a_stall_on_the_grid_is_retried(comm, monkeypatch, caplog):
    monkeypatch.setattr(solvers, "GRID_FROM", GRID)
    cell, V, bcs, _, a = problem(comm, 2, "first", n=14)
    solver = LinearSolver(a, bcs, cell=cell, petsc_options={"ksp_max_it": 1, "ksp_rtol": 1e-9})
    solver.assemble()
    b = assemble_dual(fem.form(ufl.TestFunction(V) * ufl.dx))
    b.array[bcs[0].dof_indices()[0]] = 0.0
    with caplog.at_level(logging.WARNING):
        solver.solve(b, fem.Function(V))
    if comm.rank == 0:
        assert "multigrid on the regular grid stopped after 1 iterations" in caplog.records[0].message


def test_options_choose_another(comm, monkeypatch):
    monkeypatch.setattr(solvers, "GRID_FROM", GRID)
    cell, _, bcs, _, a = problem(comm, 2, "first")
    for options in ({"pc_type": "jacobi", "ksp_type": "cg"}, {"pc_hypre_boomeramg_strong_threshold": 0.6}):
        solver = LinearSolver(a, bcs, cell=cell, petsc_options=options)
        assert solver.ksp.getPC().getType() in ("jacobi", "hypre")


def test_forms_of_this_processor(comm, monkeypatch):
    """Compiled for this processor or not: the same to round-off; what is not finite stays so."""
    _, V, _, kappa, a = problem(comm, 3, "first")
    rho = kappa.ufl_operands[1].ufl_operands[0]
    results = []
    for value in ("1", "0"):
        monkeypatch.setenv("FETOPO_NATIVE", value)
        assert bool(jit_options()) is (value == "1")
        u = fem.Function(V)
        u.interpolate(lambda x: np.sin(x[0]) * x[1])
        energy = kappa * ufl.inner(ufl.grad(u), ufl.grad(u)) * ufl.dx
        matrix = fem.assemble_matrix(form(a)).data
        results.append((matrix, assemble_dual(form(ufl.derivative(energy, rho))).array))
    for native, plain in zip(*results, strict=True):
        assert np.abs(native - plain).max() < 1e-13 * np.abs(plain).max()
    monkeypatch.setenv("FETOPO_NATIVE", "1")
    rho.x.array[0] = np.nan
    assert np.isnan(assemble_dual(form(kappa * ufl.TestFunction(V) * ufl.dx)).array).any()


class TestHierarchy:
    def test_lasts_while_it_pays(self):
        hierarchy = Hierarchy()
        assert not hierarchy.lasts()  # no matrix yet
        used, kept = [10, 10, 12, 18, 30], []
        for iterations in used:
            hierarchy.solved(iterations)
            kept.append(hierarchy.lasts())
        # On average, set-up included, 26, 18, 16, 16.5 and 19.2.
        assert kept == [True, True, True, False, False]

    @pytest.mark.mpi
    def test_kept_and_renewed(self, comm, monkeypatch):
        """Whatever was kept, every matrix is solved; a hierarchy that fails is renewed first."""
        monkeypatch.setattr(solvers, "DIRECT_BELOW", {2: 0, 3: 0})
        _, V, bcs, kappa, a = problem(comm, 2, "first", n=24)
        rho = kappa.ufl_operands[1].ufl_operands[0]
        b = assemble_dual(fem.form(ufl.TestFunction(V) * ufl.dx))
        b.array[bcs[0].dof_indices()[0]] = 0.0
        solver = LinearSolver(a, bcs)
        fresh = LinearSolver(a, bcs, petsc_options={"reuse": False})
        kept = []
        for step in range(5):
            if step == 3:
                rho.x.array[:] = 1 - rho.x.array
                solver.options["ksp_max_it"] = 12
                solver.ksp.setTolerances(max_it=12)
            else:
                rho.x.array[:] = np.clip(rho.x.array + 0.01, 0, 1)
            solutions = []
            for s in (solver, fresh):
                s.assemble()
                u = fem.Function(V)
                s.solve(b, u)
                solutions.append(u.x.array.copy())
            kept.append(solver._kept)
            assert not fresh._kept
            assert np.allclose(*solutions, rtol=0, atol=1e-7 * np.abs(solutions[1]).max(initial=1e-300))
        assert kept[:3] == [False, True, True]
        assert not kept[3]
        assert "more sweeps" not in solver.attempt


@pytest.mark.mpi
def test_state_with_values_on_the_boundary_and_without_a_load(comm):
    """u = 1 + x between walls; the load is that of the values only, or of sources only."""
    cell, V, _, _, _ = problem(comm, 2, "closed", n=16)
    ends = [fem.locate_dofs_geometrical(V, lambda x, at=at: np.isclose(x[0], at)) for at in (0.0, 1.0)]
    bcs = [fem.dirichletbc(value, dofs, V) for value, dofs in zip((1.0, 2.0), ends, strict=True)]
    for on in (cell, None):
        u, v = fem.Function(V), ufl.TestFunction(V)
        state = LinearState(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, u, bcs, cell=on)
        state.solve()
        assert np.allclose(u.x.array, 1 + V.tabulate_dof_coordinates()[:, 0], atol=1e-9)
    zero = [fem.dirichletbc(0.0, np.concatenate(ends), V)]
    u = fem.Function(V)
    state = LinearState(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, u, zero, cell=cell)
    state.solve()
    assert not u.x.array.any()
    state = LinearState(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx - v * ufl.dx, u, zero, cell=cell)
    for _ in range(2):
        state.solve()
        x = V.tabulate_dof_coordinates()[:, 0]
        assert np.allclose(u.x.array, 0.5 * x * (1 - x), atol=1e-9)
