"""Solvers converge whatever contrast, cells, degree and structure; one that stalls is followed by another."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh
from petsc4py import PETSc

from fetopo.microstructure.mesh import regular_cell
from fetopo.transport import solvers
from fetopo.transport.homogenization import CellProblem
from fetopo.transport.solvers import ladder
from fetopo.transport.state import LinearSolver, assemble_dual, owned
from fetopo.transport.tortuosity import tortuosity

FLAT = ("triangle", "quadrilateral")
CONTRASTS = (1.0, 1e3, 1e6, 1e9)


def structure(name, n, dim):
    """Labels 0 and 1: boards of two voxels, white noise, or two thin channels with a dead end."""
    if name == "boards":
        return ((np.indices((n,) * dim) // 2).sum(axis=0) % 2).astype(int)
    if name == "noise":
        return (np.random.default_rng(0).random((n,) * dim) < 0.5).astype(int)
    labels = np.zeros((n,) * dim, dtype=int)
    labels[:, n // 2] = labels[n // 3] = 1
    labels[n // 3 + 1, 0] = 1
    return labels


def cell_problem(comm, kind, degree, name, contrast, n=None, options=None):
    dim = 2 if kind in FLAT else 3
    n = n or {(2, 1): 16, (2, 2): 12, (3, 1): 8, (3, 2): 6}[dim, degree]
    cell = regular_cell(comm, (n,) * dim, cell_type=kind)
    Q = fem.functionspace(cell.mesh, ("DG", 0))
    kappa = fem.Function(Q)
    imap = cell.mesh.topology.index_map(dim)
    here = np.arange(imap.size_local + imap.num_ghosts, dtype=np.int32)
    middle = dmesh.compute_midpoints(cell.mesh, dim, here)[:, :dim]
    labels = structure(name, n, dim)[tuple((middle * n).astype(int).T)]
    kappa.x.array[Q.dofmap.list.reshape(-1)] = np.where(labels == 1, contrast, 1.0)
    return CellProblem(cell, kappa, degree=degree, petsc_options=options)


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize(
    "kind",
    [
        "quadrilateral",
        pytest.param("triangle", marks=pytest.mark.mpi),
        pytest.param("hexahedron", marks=pytest.mark.mpi),
        "tetrahedron",
    ],
)
@pytest.mark.parametrize("name", ["boards", "noise", "channels"])
@pytest.mark.parametrize("iterative", [False, True])
def test_every_contrast_converges(comm, monkeypatch, caplog, kind, degree, name, iterative):
    """By factors and by multigrid: energy and flux forms agree, and so do both solvers."""
    if iterative:
        monkeypatch.setattr(solvers, "DIRECT_BELOW", {2: 0, 3: 0})
    for contrast in CONTRASTS:
        problem = cell_problem(comm, kind, degree, name, contrast)
        D = problem.solve()
        assert np.allclose(problem.flux_tensor, D, rtol=0, atol=1e-8 * np.abs(D).max())
        assert np.linalg.eigvalsh(D).min() >= 1 - 1e-9
        assert problem.solver.iterations < 400


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["noise", "channels"])
@pytest.mark.parametrize(("limit", "rel"), [(10**9, 1e-10), (0, 1e-8)])
def test_same_on_one_rank(comm, alone, monkeypatch, name, limit, rel):
    monkeypatch.setattr(solvers, "DIRECT_BELOW", {2: limit, 3: limit})
    for contrast in (1e2, 1e9):
        both = [cell_problem(c, "hexahedron", 1, name, contrast).solve() for c in (comm, alone)]
        assert np.allclose(*both, rtol=0, atol=rel * np.abs(both[1]).max())


@pytest.mark.mpi
@pytest.mark.parametrize("limit", [0, 10**9])
def test_through_feature(comm, monkeypatch, limit):
    monkeypatch.setattr(solvers, "DIRECT_BELOW", {2: limit, 3: limit})
    mask = np.random.default_rng(1).random((9, 9, 9)) < 0.6
    (found,) = tortuosity(comm, mask, [0], petsc_options={"ksp_rtol": 1e-11})
    assert found.flux_imbalance < 1e-8


STALLS = {"ksp_type": "cg", "pc_type": "none", "ksp_max_it": 2}


def dirichlet(comm, n=16, options=None, wind=0.0):
    """A load between walls; returns solver, right-hand side and unknown."""
    V = fem.functionspace(regular_cell(comm, (n, n)).mesh, ("Lagrange", 1))
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    walls = fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0] * (1 - x[0]), 0))
    bcs = [fem.dirichletbc(0.0, walls, V)]
    a = ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx
    if wind:
        a += wind * u.dx(0) * v * ufl.dx
    solver = LinearSolver(a, bcs, petsc_options=options)
    solver.assemble()
    b = assemble_dual(fem.form(v * ufl.dx))
    b.array[walls] = 0
    return solver, b, fem.Function(V)


@pytest.mark.mpi
class TestRetry:
    def test_stall_is_retried_and_the_log_says_so(self, comm, caplog):
        solver, b, u = dirichlet(comm, options=STALLS)
        reference, _, exact = dirichlet(comm)
        reference.solve(b, exact)
        with caplog.at_level(logging.WARNING):
            solver.solve(b, u)
        assert np.allclose(u.x.array, exact.x.array, atol=1e-9)
        texts = [r.message for r in caplog.records]
        assert len(texts) == (1 if comm.rank == 0 else 0)
        if texts:
            assert "the solver that was asked for stopped after 2 iterations" in texts[0]
            assert "DIVERGED_MAX_IT" in texts[0]
            assert "trying a direct solver (MUMPS)" in texts[0]
        # It stays, without another word.
        caplog.clear()
        u.x.array[:] = 0
        solver.solve(b, u)
        assert not caplog.records
        assert solver.attempt == "a direct solver (MUMPS)"

    def test_limit_alone(self, comm, monkeypatch, caplog):
        """A small `ksp_max_it` over the defaults: the attempts after it have a limit of their own."""
        monkeypatch.setattr(solvers, "DIRECT_BELOW", {2: 0, 3: 0})
        solver, b, u = dirichlet(comm, 32, options={"ksp_max_it": 2, "ksp_rtol": 1e-9})
        with caplog.at_level(logging.WARNING):
            solver.solve(b, u)
        assert solver.attempt != "the solver that was asked for"
        assert solver.ksp.getTolerances()[0] == 1e-9
        if comm.rank == 0:
            assert "algebraic multigrid (hypre) stopped after 2" in caplog.records[0].message

    def test_whole_ladder(self, comm, monkeypatch, caplog):
        """Every attempt but the last is made to stall."""
        monkeypatch.setattr(solvers, "DIRECT_BELOW", {2: 0, 3: 0})
        solver, b, u = dirichlet(comm, 32)
        lame = [replace(a, options=dict(a.options) | {"ksp_max_it": 1}) for a in solver._attempts[:-1]]
        solver._attempts = [*lame, solver._attempts[-1]]
        solver._begin(0)
        with caplog.at_level(logging.WARNING):
            solver.solve(b, u)
        names = [a.name for a in solver._attempts]
        assert solver.attempt == names[-1] == "a direct solver (MUMPS)"
        if comm.rank == 0:
            assert [r.message.split("; trying ")[1] for r in caplog.records] == names[1:]

    def test_switched_off(self, comm, caplog):
        solver, b, u = dirichlet(comm, options=STALLS | {"retry": False})
        with pytest.raises(RuntimeError, match="the solver that was asked for stopped after 2 iterations"):
            solver.solve(b, u)
        assert not caplog.records

    def test_switched_off_on_the_command_line(self, comm):
        database = PETSc.Options()
        database["fetopo_retry"] = False
        try:
            assert not dirichlet(comm)[0].retry
        finally:
            database.delValue("fetopo_retry")

    def test_singular_problem_is_retried(self, comm, caplog):
        exact = cell_problem(comm, "triangle", 1, "noise", 50.0).solve()
        problem = cell_problem(comm, "triangle", 1, "noise", 50.0, options=STALLS)
        assert np.allclose(problem.solve(), exact, rtol=1e-8)

    def test_transposed(self, comm):
        """The retry of a transposed solve solves the transposed system."""
        solver, b, u = dirichlet(comm, options=STALLS, wind=5.0)
        solver.solve(b, u, transpose=True)
        assert solver.attempt == "a direct solver (MUMPS)"
        x, y = solver.A.createVecs()
        x.array[:] = owned(u)
        solver.A.multTranspose(x, y)
        assert np.abs(y.array - owned(b)).max(initial=0) < 1e-9 * comm.allreduce(np.abs(owned(b)).sum())

    def test_starts_again_from_the_first_guess(self, comm, monkeypatch):
        """What a broken attempt leaves behind is not where the next one starts."""
        solver, b, u = dirichlet(comm, options=STALLS)
        attempt, seen = solver._attempt, []

        def spoiled(rhs, x, transpose):
            seen.append(x.norm())
            found = attempt(rhs, x, transpose)
            if found is not None:
                x.set(np.nan)
            return found

        monkeypatch.setattr(solver, "_attempt", spoiled)
        u.x.array[:] = 2.0
        solver.solve(b, u)
        assert len(seen) == 2
        assert seen[0] == seen[1] > 0
        assert np.isfinite(u.x.array).all()

    def test_numbers_that_are_not_finite_are_no_stall(self, comm, caplog):
        solver, b, u = dirichlet(comm)
        if comm.rank == comm.size - 1:
            b.array[b.index_map.size_local // 2] = np.nan
        with pytest.raises(RuntimeError, match="right-hand side of the linear system is not finite"):
            solver.solve(b, u)


@pytest.mark.mpi
class TestChoice:
    def test_by_size(self):
        assert "MUMPS" in ladder(2, 1000)[0].name
        assert "MUMPS" in ladder(3, 1000)[0].name
        assert "hypre" in ladder(3, 100_000)[0].name
        for attempts in (ladder(2, 10), ladder(3, 10**6), ladder(3, 10**6, symmetric=False)):
            assert len({a.name for a in attempts}) == len(attempts) > 2
        assert "MUMPS" in ladder(3, 10**6)[-1].name

    def test_symmetry_is_found(self, comm, monkeypatch):
        monkeypatch.setattr(solvers, "DIRECT_BELOW", {2: 0, 3: 0})
        assert dirichlet(comm)[0].ksp.getType() == "cg"
        solver, b, u = dirichlet(comm, wind=5.0)
        assert solver.symmetric is False
        assert solver.ksp.getType() == "gmres"
        solver.solve(b, u)

    def test_what_was_asked_for_is_used(self, comm):
        solver, _, _ = dirichlet(comm, wind=5.0, options={"ksp_type": "bcgs", "pc_type": "jacobi"})
        assert solver.ksp.getType() == "bcgs"
        assert solver.ksp.getPC().getType() == "jacobi"
        # Options of multigrid alone mean multigrid, however small the problem.
        solver, _, _ = dirichlet(comm, options={"pc_hypre_boomeramg_strong_threshold": 0.7})
        assert solver.ksp.getPC().getType() == "hypre"

    def test_one_preconditioner_for_all_directions(self, comm, monkeypatch):
        """Set up once per assembly, whatever the number of right-hand sides."""
        problem = cell_problem(comm, "hexahedron", 1, "noise", 10.0)
        problem.solver.assemble()
        calls = []
        original = problem.solver._set_operators
        monkeypatch.setattr(problem.solver, "_set_operators", lambda: calls.append(1) or original())
        problem.solve()
        assert len(calls) == 1

    def test_tolerance_survives_a_retry(self, comm):
        solver, b, u = dirichlet(comm, options=STALLS)
        solver.set_tolerance(1e-7)
        solver.solve(b, u)
        assert solver.ksp.getTolerances()[0] == 1e-7
        assert owned(u).max(initial=0) > 0


def test_dense_work_uses_openblas():
    """The reference BLAS makes MUMPS five to ten times slower."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("what is loaded can be read on Linux only")
    loaded = {line.split()[-1] for line in maps.read_text().splitlines() if "libblas" in line}
    if not loaded:
        pytest.skip("BLAS is not a library of its own here")
    # Debian's OpenBLAS and the reference have one name in two folders.
    assert all("openblas" in path for path in loaded), loaded
