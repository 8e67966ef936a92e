"""One linear state problem: forms compiled once, matrix and solver kept, many right-hand sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ufl
from dolfinx import fem, la
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

from fetopo._compat import petsc_vector

PetscOptions = Mapping[str, Any]


def default_options(tdim: int, rtol: float = 1e-10) -> dict[str, Any]:
    """Conjugate gradients with algebraic multigrid, for symmetric conduction problems of any contrast."""
    return {
        "ksp_type": "cg",
        "ksp_rtol": rtol,
        "ksp_max_it": 1000,
        "pc_type": "hypre",
        "pc_hypre_type": "boomeramg",
        "pc_hypre_boomeramg_coarsen_type": "HMIS",
        "pc_hypre_boomeramg_interp_type": "ext+i",
        "pc_hypre_boomeramg_strong_threshold": 0.25 if tdim == 2 else 0.5,
        "pc_hypre_boomeramg_agg_nl": 1 if tdim == 3 else 0,
    }


def set_options(
    ksp: Any, options: dict[str, Any], chosen: PetscOptions | None, prefix: str, singular: bool, size: int
) -> dict[str, Any]:
    """Configure a Krylov solver: defaults, over them what the caller chose, over both the command line.

    Args:
        options: the defaults; none of them stay if the caller chooses another method or preconditioner.
        singular: whether the matrix has a null space.
        size: rows of the matrix.
    Returns:
        The options used, those of the command line apart.
    """
    options = dict(options)
    if singular:
        # The default on the coarsest level, elimination, divides by zero when a singular matrix
        # happens to be singular to the last bit.
        options["pc_hypre_boomeramg_relax_type_coarse"] = "symmetric-SOR/Jacobi"
        if size < 64:
            # A matrix that small is the coarsest level itself, and is eliminated all the same.
            options["pc_type"] = "jacobi"
    if chosen is not None:
        if {"ksp_type", "pc_type"} & set(chosen):
            options = {}
        options |= chosen
    ksp.setOptionsPrefix(prefix)
    database = PETSc.Options()
    # What the command line says under the prefix wins.
    added = [key for key in options if not database.hasName(prefix + key)]
    for key in added:
        database[prefix + key] = options[key]
    ksp.setFromOptions()
    for key in added:
        database.delValue(prefix + key)
    return options


def raise_if_diverged(ksp: Any) -> None:
    """Raise RuntimeError, on every rank, if the last solve did not converge."""
    reason = ksp.getConvergedReason()
    if reason < 0:
        names = {v: k for k, v in vars(PETSc.KSP.ConvergedReason).items() if isinstance(v, int)}
        raise RuntimeError(
            f"the linear solver stopped after {ksp.getIterationNumber()} iterations without converging "
            f"({names.get(reason, reason)}, residual {ksp.getResidualNorm():.3g})"
        )


class LinearSolver:
    """A bilinear form, its matrix and a Krylov solver, for many right-hand sides.

    Args:
        a: bilinear form; coefficients may change between calls of :meth:`assemble`.
        bcs: Dirichlet conditions; their rows and columns become those of the identity.
        nullspace: function that spans the null space of the matrix, if it is singular.
        petsc_options: options of the Krylov solver, over the defaults.
        petsc_options_prefix: prefix under which the command line can change them.
    """

    def __init__(
        self,
        a: ufl.Form,
        bcs: Sequence[Any] = (),
        *,
        nullspace: fem.Function | None = None,
        petsc_options: PetscOptions | None = None,
        petsc_options_prefix: str = "fetopo_",
    ) -> None:
        self.a = fem.form(a)
        self.bcs = list(bcs)
        self.A = fem_petsc.create_matrix(self.a)
        self.iterations = 0
        comm = self.A.comm
        self._nullspace = None
        if nullspace is not None:
            vector = petsc_vector(nullspace.x).copy()
            vector.normalize()
            self._nullspace = PETSc.NullSpace().create(vectors=[vector], comm=comm)
            self.A.setNullSpace(self._nullspace)
        self.ksp = PETSc.KSP().create(comm)
        self.ksp.setOperators(self.A)
        self.options = set_options(
            self.ksp,
            default_options(self.a.mesh.topology.dim),
            petsc_options,
            petsc_options_prefix,
            nullspace is not None,
            self.A.getSize()[0],
        )
        self.ksp.setInitialGuessNonzero(self.ksp.getType() != PETSc.KSP.Type.PREONLY)

    def assemble(self) -> None:
        """Assemble the matrix with the present coefficients."""
        self.A.zeroEntries()
        fem_petsc.assemble_matrix(self.A, self.a, self.bcs)
        self.A.assemble()
        self.ksp.setOperators(self.A)

    def use(self, ksp_type: str) -> None:
        """Change the Krylov method."""
        self.ksp.setType(ksp_type)
        self.options["ksp_type"] = ksp_type

    def set_tolerance(self, rtol: float) -> None:
        """Relative tolerance of the following solves."""
        self.ksp.setTolerances(rtol=rtol)

    def solve(self, b: la.Vector, u: fem.Function, *, transpose: bool = False) -> int:
        """Solve A u = b (or Aᵀ u = b) from the present values of `u`.

        Args:
            b: right-hand side, summed over ranks, with Dirichlet values set in place.
            u: first guess and solution.
        Returns:
            Krylov iterations used.
        Raises:
            RuntimeError: the solver did not converge; on every rank.
        """
        rhs, x = petsc_vector(b), petsc_vector(u.x)
        if self._nullspace is not None:
            self._nullspace.remove(rhs)
        (self.ksp.solveTranspose if transpose else self.ksp.solve)(rhs, x)
        u.x.scatter_forward()
        used = self.ksp.getIterationNumber()
        rhs.destroy()
        x.destroy()
        raise_if_diverged(self.ksp)
        self.iterations += used
        return int(used)

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
    Raises:
        NotImplementedError: F is not linear in `u`.
    """

    def __init__(
        self, F: ufl.Form, u: fem.Function, bcs: Sequence[Any] = (), petsc_options: PetscOptions | None = None
    ) -> None:
        jacobian = ufl.derivative(F, u)
        expanded = ufl.algorithms.expand_derivatives(jacobian)
        if u in expanded.coefficients():
            raise NotImplementedError("the state problem is not linear in its unknown")
        self.F, self.u, self.bcs = F, u, list(bcs)
        self.solver = LinearSolver(jacobian, self.bcs, petsc_options=petsc_options)
        self._residual = fem.form(F)
        self.jacobian = jacobian
        self._step = fem.Function(u.function_space)
        self._chosen = "ksp_type" in (petsc_options or {})
        #: Whether the matrix is symmetric; known after the first solve.
        self.symmetric: bool | None = None

    def solve(self) -> None:
        """Assemble with the present coefficients and solve."""
        self.solver.assemble()
        if self.symmetric is None:
            self.symmetric = self.solver.is_symmetric()
            if not self.symmetric and not self._chosen:
                # Conjugate gradients, the default, need a symmetric matrix.
                self.solver.use("gmres")
        guess = self._step.x.array
        guess[:] = self.u.x.array
        # The boundary values alone give the right-hand side; what is solved for vanishes on the boundary.
        self.u.x.array[:] = 0.0
        for bc in self.bcs:
            bc.set(self.u.x.array)
        self.u.x.scatter_forward()
        guess -= self.u.x.array
        zero_on_boundary(self._step.x, self.bcs)
        b = assemble_dual(self._residual)
        b.array[:] *= -1
        zero_on_boundary(b, self.bcs)
        self.solver.solve(b, self._step)
        self.u.x.array[:] += self._step.x.array


def zero_on_boundary(b: la.Vector, bcs: Sequence[Any]) -> None:
    """Set the entries of a dual vector to zero where `bcs` fix the unknown."""
    for bc in bcs:
        dofs, _ = bc.dof_indices()
        b.array[dofs] = 0.0


def owned(vector: Any) -> np.ndarray:
    """The entries of a function or vector that this rank owns, as a view."""
    vector = getattr(vector, "x", vector)
    return vector.array[: vector.index_map.size_local * vector.block_size]
