"""One linear state problem: forms compiled once, matrix and solver kept, many right-hand sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ufl
from dolfinx import fem, la
from mpi4py import MPI
from petsc4py import PETSc

from fetopo._compat import petsc_vector
from fetopo._mpi import get_logger
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.assembly import Matrix, form
from fetopo.transport.regular import ScaledElements, recognise
from fetopo.transport.regular_multigrid import GridMultigrid
from fetopo.transport.solvers import Attempt, Hierarchy, configure, grid_attempt, ladder, stalled

PetscOptions = Mapping[str, Any]

#: Options that a user gives and every attempt keeps.
_TOLERANCES = ("ksp_rtol", "ksp_atol", "ksp_divtol", "ksp_norm_type")


class LinearSolver:
    """A bilinear form, its matrix and a Krylov solver, for many right-hand sides.

    Without options the solver is chosen by size, dimension, symmetry and null space (:func:`solvers.ladder`).
    One that stalls is replaced by the next stronger one, with a warning in the log; that one stays for the
    right-hand sides that follow. So it is with a solver that the user chose; tolerances the user gave hold
    for every attempt.

    A hierarchy of algebraic multigrid stays for the matrices that follow until the iterations it costs are
    worth a new one. Conduction with linear elements on a regular grid (:mod:`fetopo.transport.regular`) is
    assembled without quadrature and has the multigrid of the voxels.

    Args:
        a: bilinear form; coefficients may change between calls of :meth:`assemble`.
        bcs: Dirichlet conditions; their rows and columns become those of the identity.
        nullspace: function that spans the null space of the matrix, if it is singular.
        added: PETSc matrix that is added to that of the form, with zero rows where `bcs` hold, and the one
            that multigrid sees in its place.
        petsc_options: options of the Krylov solver, over the defaults; with a `ksp_type` or `pc_type` they
            replace the defaults. `{"retry": False}` makes a solver that stalls an error, `{"reuse": False}`
            a hierarchy for every matrix.
        petsc_options_prefix: prefix under which the command line can change them (`-fetopo_retry 0` too);
            those of a second and later attempt have this prefix and `retry_`.
        cell: the cell that the mesh belongs to, if it belongs to one.
    """

    def __init__(
        self,
        a: ufl.Form,
        bcs: Sequence[Any] = (),
        *,
        nullspace: fem.Function | None = None,
        added: tuple[Any, Any] | None = None,
        petsc_options: PetscOptions | None = None,
        petsc_options_prefix: str = "fetopo_",
        cell: UnitCell | None = None,
    ) -> None:
        self.a = form(a)
        self.bcs = list(bcs)
        self._added = added
        problem = None if added is not None else recognise(a, self.bcs, cell)
        elements = None
        if problem is not None and ScaledElements.suits(problem):
            elements = ScaledElements(problem)
        self._matrix = Matrix(self.a, self.bcs, elements)
        self.A = self._matrix.petsc
        self.iterations = 0
        comm = self.A.comm
        self._nullspace: Any = None
        if nullspace is not None:
            vector = petsc_vector(nullspace.x).copy()
            vector.normalize()
            self._nullspace = PETSc.NullSpace().create(vectors=[vector], comm=comm)
            self.A.setNullSpace(self._nullspace)
        self._prefix, self._given = petsc_options_prefix, dict(petsc_options or {})
        database = PETSc.Options()
        self.retry, self.reuse = (
            database.getBool(self._prefix + name, bool(self._given.pop(name, True)))
            for name in ("retry", "reuse")
        )
        #: Whether user or command line chose the method.
        self.chosen = bool({"ksp_type", "pc_type"} & set(self._given)) or any(
            database.hasName(self._prefix + key) for key in ("ksp_type", "pc_type")
        )
        #: Whether the matrix is symmetric; found when it is first assembled.
        self.symmetric: bool | None = None
        #: For whoever counts the iterations of several.
        self.name = ""
        self._grid: GridMultigrid | None = None
        if problem is not None and not self._multigrid_given and GridMultigrid.suits(problem):
            self._grid = GridMultigrid(problem)
        self._hierarchy, self._kept = Hierarchy(), False
        self._rtol: float | None = None
        self._pinned: Any = None
        self._substitute: Any = None
        self.ksp: Any = None
        self._attempts = self._ladder(symmetric=True)
        self._begin(0)

    @property
    def _multigrid_given(self) -> bool:
        """Whether there are options that mean a preconditioner of PETSc."""
        return self.chosen or any(key.startswith("pc_") for key in self._given)

    def _ladder(self, symmetric: bool) -> list[Attempt]:
        size, dim = self.A.getSize()[0], self.a.mesh.topology.dim
        singular = self._nullspace is not None
        attempts = ladder(dim, size, symmetric=symmetric, singular=singular)
        if self._grid is not None and symmetric:
            attempts = [*grid_attempt(dim, size, self._grid.contacts), *attempts]
        if {"ksp_type", "pc_type"} & set(self._given):
            return [Attempt("the solver that was asked for", self._given), *attempts]
        if self._given:
            if any(key.startswith("pc_") for key in self._given):
                # Options of multigrid: the attempt they belong to comes first.
                attempts.sort(key=lambda attempt: attempt.options["pc_type"] != "hypre")
            first = attempts[0]
            attempts = [replace(first, options=dict(first.options) | self._given), *attempts]
        return attempts

    def _begin(self, index: int) -> None:
        """Make the Krylov solver of an attempt; its preconditioner is set up by the next solve."""
        attempt = self._attempts[index]
        self.attempt, self._index = attempt.name, index
        options = dict(attempt.options)
        if index > 0:
            options |= {key: value for key, value in self._given.items() if key in _TOLERANCES}
        self.options = options
        if self.ksp is not None:
            self.ksp.destroy()
        self.ksp = PETSc.KSP().create(self.A.comm)
        self._set_operators()
        configure(self.ksp, options, self._prefix + ("retry_" if index else ""))
        self._keep(False)
        if self._on_grid and self._grid is not None:
            self.ksp.getPC().setPythonContext(self._grid)
            if self.A.assembled:
                self._grid.update()
        if self._rtol is not None:
            self.ksp.setTolerances(rtol=self._rtol)
        self.ksp.setInitialGuessNonzero(self.ksp.getType() != PETSc.KSP.Type.PREONLY)

    @property
    def _on_grid(self) -> bool:
        return bool(self._grid is not None and self._attempts[self._index].options.get("pc_type") == "python")

    def _set_operators(self) -> None:
        """Give the solver its matrix and the one its preconditioner is made from."""
        attempt = self._attempts[self._index]
        factorises = attempt.options.get("pc_type") in ("lu", "cholesky")
        base = self.A if factorises or self._substitute is None else self._substitute
        if not (attempt.pinned and self.A.assembled):
            self.ksp.setOperators(self.A, base)
            return
        if self._pinned is None or self._substitute is not None:
            self._pinned = base.duplicate(copy=True)
            self._pinned.setNullSpace(PETSc.NullSpace())
        else:
            base.copy(self._pinned, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
        diagonal = base.getDiagonal()
        weight = self._nullspace.getVecs()[0].copy()
        weight.abs()
        weight.pointwiseMult(weight, diagonal)
        # The stiffest unknown: beside it the others' round-off is small.
        row, _ = weight.max()
        first, last = self.A.getOwnershipRange()
        if first <= row < last:
            self._pinned.setValue(row, row, diagonal.getValue(row), PETSc.InsertMode.ADD_VALUES)
        self._pinned.assemble()
        diagonal.destroy()
        weight.destroy()
        self.ksp.setOperators(self.A, self._pinned)

    def assemble(self) -> None:
        """Assemble the matrix with the present coefficients."""
        self._matrix.assemble()
        if self._added is not None:
            different = PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN
            self.A, self._substitute = self._matrix.petsc.copy(), self._matrix.petsc.copy()
            for matrix, added in zip((self.A, self._substitute), self._added, strict=True):
                matrix.axpy(1.0, added, different)
                if self._nullspace is not None:
                    matrix.setNullSpace(self._nullspace)
        if self.symmetric is None:
            self.symmetric = self._seems_symmetric()
            if not self.symmetric and not self.chosen:
                # Conjugate gradients, the default, need a symmetric matrix.
                self._attempts = self._ladder(symmetric=False)
            self._begin(self._index)
            return
        if self._on_grid and self._grid is not None:
            self._grid.update()
        algebraic = self.ksp.getPC().getType() in ("hypre", "gamg") and not self._attempts[self._index].pinned
        self._keep(self.reuse and algebraic and self._hierarchy.lasts())
        self._set_operators()

    def _keep(self, kept: bool) -> None:
        """Say whether the preconditioner is that of an earlier matrix."""
        self._kept = kept
        self.ksp.getPC().setReusePreconditioner(kept)
        if not kept:
            self._hierarchy = Hierarchy()

    def use(self, ksp_type: str) -> None:
        """Change the Krylov method."""
        self.ksp.setType(ksp_type)
        self.options["ksp_type"] = ksp_type

    def set_tolerance(self, rtol: float) -> None:
        """Relative tolerance of the following solves."""
        self._rtol = rtol
        self.ksp.setTolerances(rtol=rtol)

    @property
    def tolerance(self) -> float:
        """Relative tolerance: residual over right-hand side, wherever a solve starts from."""
        return float(self.ksp.getTolerances()[0])

    def solve(self, b: la.Vector, u: fem.Function, *, transpose: bool = False) -> int:
        """Solve A u = b (or Aᵀ u = b) from the present values of `u`.

        Args:
            b: right-hand side, summed over ranks, with Dirichlet values set in place.
            u: first guess and solution.
        Returns:
            Krylov iterations used, those of attempts that stalled included.
        Raises:
            RuntimeError: no solver converged, or matrix or right-hand side are not finite; on every rank.
        """
        rhs, x = petsc_vector(b), petsc_vector(u.x)
        if self._nullspace is not None:
            self._nullspace.remove(rhs)
        guess = x.copy()
        used = 0
        try:
            while True:
                failure = self._attempt(rhs, x, transpose)
                used += self.ksp.getIterationNumber()
                if failure is None:
                    self._hierarchy.solved(self.ksp.getIterationNumber())
                    break
                if self._kept:
                    # Before another solver is tried, this one gets a hierarchy of its own matrix.
                    self._keep(False)
                    guess.copy(x)
                    continue
                failure = f"{self.attempt} {failure}"
                for what, value in (("matrix", self.A.norm()), ("right-hand side", rhs.norm())):
                    if not np.isfinite(value):
                        raise RuntimeError(f"the {what} of the linear system is not finite: {failure}")
                if not self.retry or self._index + 1 == len(self._attempts):
                    raise RuntimeError(f"the linear solver failed: {failure}")
                following = self._attempts[self._index + 1].name
                get_logger(__name__, self.a.mesh.comm).warning("%s; trying %s", failure, following)
                guess.copy(x)
                self._begin(self._index + 1)
        finally:
            u.x.scatter_forward()
            for vector in (rhs, x, guess):
                vector.destroy()
        self.iterations += used
        return int(used)

    def _attempt(self, rhs: Any, x: Any, transpose: bool) -> str | None:
        """Solve; returns None or what went wrong."""
        try:
            (self.ksp.solveTranspose if transpose else self.ksp.solve)(rhs, x)
        except PETSc.Error as error:
            return f"failed (PETSc error {error.ierr})"
        failure = stalled(self.ksp)
        if failure is not None and self.ksp.getIterationNumber() == 0 and x.norm() > 0:
            # A load that all but vanished: the last solution is a start far worse than none.
            x.set(0.0)
            (self.ksp.solveTranspose if transpose else self.ksp.solve)(rhs, x)
            failure = stalled(self.ksp)
        return failure

    def _seems_symmetric(self, tolerance: float = 1e-11) -> bool:
        """Whether x·Ay = y·Ax for two vectors without structure: two products instead of a transpose."""
        x, y = self.A.createVecs()
        z = y.duplicate()
        first, last = self.A.getOwnershipRange()
        number = np.arange(first, last, dtype=float)
        # Any two sequences would do that no symmetry of a mesh shares.
        x.array[:] = np.modf(number * 0.6180339887498949)[0] - 0.5
        y.array[:] = np.modf(number * number * 0.4142135623730951)[0] - 0.5
        self.A.mult(x, z)
        one, size = z.dot(y), z.norm() * y.norm()
        self.A.mult(y, z)
        other = z.dot(x)
        for vector in (x, y, z):
            vector.destroy()
        return bool(abs(one - other) <= tolerance * size)

    def is_symmetric(self, tolerance: float = 1e-12) -> bool:
        """Whether the assembled matrix equals its transpose, to `tolerance` times its largest row sum."""
        scale = self.A.norm(PETSc.NormType.INFINITY)
        difference = self.A.copy()
        transposed = self.A.copy()
        transposed.transpose()
        difference.axpy(-1.0, transposed, PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
        return bool(difference.norm(PETSc.NormType.INFINITY) <= tolerance * scale)


def assemble_dual(form: Any) -> la.Vector:
    """Assemble a linear form; owned entries are complete, as for a right-hand side or a derivative."""
    b = fem.assemble_vector(form)
    b.scatter_reverse(la.InsertMode.add)
    return b


def global_sum(form: Any) -> float:
    """Assemble a scalar form over all ranks."""
    return float(form.mesh.comm.allreduce(fem.assemble_scalar(form)))


class LinearState:
    """The state u(m) of a problem F(u; m; v) = 0 that is linear in u.

    Args:
        F: residual form, with `u` as a coefficient: F = a(u, v) − L(v).
        u: the state; holds the solution after :meth:`solve`, and is the first guess of the next.
        bcs: Dirichlet conditions on its space.
        petsc_options: options of the Krylov solver.
        cell: the cell that the mesh belongs to, if it belongs to one; a regular one is solved faster.
    Raises:
        NotImplementedError: F is not linear in `u`.
    """

    def __init__(
        self,
        F: ufl.Form,
        u: fem.Function,
        bcs: Sequence[Any] = (),
        petsc_options: PetscOptions | None = None,
        cell: UnitCell | None = None,
    ) -> None:
        jacobian = ufl.derivative(F, u)
        expanded = ufl.algorithms.expand_derivatives(jacobian)
        if u in expanded.coefficients():
            raise NotImplementedError("the state problem is not linear in its unknown")
        self.F, self.u, self.bcs = F, u, list(bcs)
        self.solver = LinearSolver(jacobian, self.bcs, petsc_options=petsc_options, cell=cell)
        self.jacobian = jacobian
        # At u = 0 the bilinear part vanishes: it is much of the work and seldom needed.
        zero = ufl.replace(ufl.algorithms.expand_derivatives(F), {u: ufl.constantvalue.Zero(u.ufl_shape)})
        self._load = None if zero.empty() else form(-zero)
        self._residual: Any = None
        self._step = fem.Function(u.function_space)
        #: Whether the matrix is symmetric; known after the first solve.
        self.symmetric: bool | None = None

    @property
    def tolerance(self) -> float:
        """Relative tolerance of the solver; may be set."""
        return self.solver.tolerance

    @tolerance.setter
    def tolerance(self, rtol: float) -> None:
        self.solver.set_tolerance(rtol)

    @property
    def guesses(self) -> list[np.ndarray]:
        """Where the next solve starts, as views of this rank's values."""
        return [self.u.x.array]

    def solve(self) -> None:
        """Assemble with the present coefficients and solve, from the present state."""
        self.solver.assemble()
        if self.symmetric is None:
            self.symmetric = self.solver.is_symmetric()
        guess = self._step.x.array
        guess[:] = self.u.x.array
        # The boundary values alone give the right-hand side; what is solved for vanishes on the boundary.
        self.u.x.array[:] = 0.0
        for bc in self.bcs:
            bc.set(self.u.x.array)
        self.u.x.scatter_forward()
        guess -= self.u.x.array
        zero_on_boundary(self._step.x, self.bcs)
        self.solver.solve(self.load(), self._step)
        self.u.x.array[:] += self._step.x.array

    def load(self) -> la.Vector:
        """The right-hand side −F(u; v) at the present u, zero where conditions hold. Collective."""
        comm = self.u.function_space.mesh.comm
        if comm.allreduce(bool(self.u.x.array.any()), MPI.LOR):
            if self._residual is None:
                self._residual = form(self.F)
            b = assemble_dual(self._residual)
            b.array[:] *= -1
        elif self._load is not None:
            b = assemble_dual(self._load)
        else:
            imap = self.u.function_space.dofmap
            b = la.vector(imap.index_map, imap.index_map_bs)
        zero_on_boundary(b, self.bcs)
        return b


def zero_on_boundary(b: la.Vector, bcs: Sequence[Any]) -> None:
    """Set the entries of a dual vector to zero where `bcs` fix the unknown."""
    for bc in bcs:
        dofs, _ = bc.dof_indices()
        b.array[dofs] = 0.0


def owned(vector: Any) -> np.ndarray:
    """The entries of a function or vector that this rank owns, as a view."""
    vector = getattr(vector, "x", vector)
    return vector.array[: vector.index_map.size_local * vector.block_size]
