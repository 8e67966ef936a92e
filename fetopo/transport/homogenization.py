"""Effective conductivity of a periodic cell from its correctors.

Conduction stands for any linear transport with a flux −κ∇u: heat, electric charge, diffusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fetopo._mpi import get_logger
from fetopo.microstructure.mesh import UnitCell, select_phases
from fetopo.transport.components import pin_islands
from fetopo.transport.periodic import periodic_space
from fetopo.transport.quadrature import is_piecewise_constant, measure
from fetopo.transport.state import (
    LinearSolver,
    PetscOptions,
    assemble_dual,
    global_sum,
    owned,
    zero_on_boundary,
)

Conductivity = Mapping[Any, float | npt.ArrayLike]


class CellProblem:
    """The d corrector problems of a periodic cell: one matrix, one preconditioner, d right-hand sides.

    Find χᵢ periodic with ∫ κ (eᵢ + ∇χᵢ)·∇v dx = 0 for all periodic v; then
    Dᵢⱼ = 1/|Y| ∫ κ (eᵢ + ∇χᵢ)·(eⱼ + ∇χⱼ) dx.

    Where the mesh leaves phases out, these are exact insulators: no flux enters them, and they count in |Y|.

    Args:
        cell: the cell with its mesh.
        kappa: conductivity, a UFL scalar or symmetric d×d tensor on the mesh; coefficients may change
            between solves.
        degree: polynomial degree of the correctors.
        petsc_options: options of the Krylov solver.
    Raises:
        ValueError: opposite faces not meshed alike, or a κ of another shape.
    Source: Bensoussan, Lions and Papanicolaou (1978), Asymptotic Analysis for Periodic Structures, chapter 1.
    """

    def __init__(
        self, cell: UnitCell, kappa: Any, *, degree: int = 1, petsc_options: PetscOptions | None = None
    ) -> None:
        d = cell.dim
        if kappa.ufl_shape not in ((), (d, d)):
            raise ValueError(f"κ must be a scalar or a {d}×{d} tensor, found shape {kappa.ufl_shape}")
        self.cell, self.kappa = cell, kappa
        simplex = cell.mesh.topology.cell_name() in ("triangle", "tetrahedron")
        products = 2 * (degree - 1) if simplex else 2 * degree
        constant = is_piecewise_constant(kappa)
        #: Integrates products of gradients exactly where κ is constant in each cell.
        self.dx = measure(cell.mesh, products, cell) if constant else ufl.dx(cell.mesh)
        V = fem.functionspace(cell.mesh, ("Lagrange", degree))
        self.V = periodic_space(V, cell.lower, cell.upper, complete=cell.complete)
        self.correctors = [fem.Function(self.V, name=f"corrector_{i}") for i in range(d)]
        u, v = ufl.TrialFunction(self.V), ufl.TestFunction(self.V)
        e = [ufl.as_vector([float(i == j) for j in range(d)]) for i in range(d)]
        self._loads = [fem.form(-ufl.inner(self.flux(e_i), ufl.grad(v)) * self.dx) for e_i in e]
        self._means = {
            (i, j): fem.form(ufl.inner(e[i], self.flux(e[j])) * self.dx)
            for i in range(d)
            for j in range(i, d)
            if i == j or kappa.ufl_shape
        }
        bcs, nullspace = self._solvability()
        a = ufl.inner(self.flux(ufl.grad(u)), ufl.grad(v)) * self.dx
        self.solver = LinearSolver(a, bcs, nullspace=nullspace, petsc_options=petsc_options)
        self._bcs = bcs
        self.tensor = np.full((d, d), np.nan)
        self.flux_tensor = np.full((d, d), np.nan)

    def _solvability(self) -> tuple[list[Any], fem.Function]:
        nullspace = fem.Function(self.V)
        if self.cell.complete:
            nullspace.x.array[:] = 1.0
            return [], nullspace
        pinned, nullspace.x.array[:] = pin_islands(self.V)
        owned_here = self.V.dofmap.index_map.size_local
        islands = self.cell.mesh.comm.allreduce(int((pinned < owned_here).sum()))
        if not islands:
            return [], nullspace
        get_logger(__name__, self.cell.mesh.comm).info(
            "%d isolated regions found in the conducting phases", islands
        )
        return [fem.dirichletbc(0.0, pinned, self.V)], nullspace

    def flux(self, gradient: Any) -> Any:
        """κ g for a gradient g, as UFL."""
        return ufl.dot(self.kappa, gradient) if self.kappa.ufl_shape else self.kappa * gradient

    def local_fields(self) -> list[Any]:
        """The fields eᵢ + ∇χᵢ, as UFL."""
        d = self.cell.dim
        return [
            ufl.as_vector([float(i == j) for j in range(d)]) + ufl.grad(chi)
            for i, chi in enumerate(self.correctors)
        ]

    def solve(self) -> npt.NDArray[np.float64]:
        """Assemble with the present κ and solve for all directions, from the present correctors.

        Returns:
            Effective tensor in the energy form, d×d, symmetric; an upper bound in the sense of quadratic
            forms, whatever the error of the correctors. `flux_tensor` then holds the flux form, which
            differs by the solver's residual only.
        Raises:
            RuntimeError: the solver did not converge.
        """
        d, comm = self.cell.dim, self.cell.mesh.comm
        self.solver.assemble()
        loads = []
        for load, chi in zip(self._loads, self.correctors, strict=True):
            b = assemble_dual(load)
            zero_on_boundary(b, self._bcs)
            self.solver.solve(b, chi)
            loads.append(owned(b).copy())
        chis = [owned(chi) for chi in self.correctors]
        A = self.solver.A
        x, y = A.createVecs()
        products = []
        for chi in chis:
            x.array[:] = chi
            A.mult(x, y)
            products.append(y.array.copy())
        # ∫κ eᵢ·∇χⱼ = −bᵢ·χⱼ, so that both forms need only dot products.
        cross = np.array([[-loads[i] @ chis[j] for j in range(d)] for i in range(d)])
        energy = np.array([[products[i] @ chis[j] for j in range(d)] for i in range(d)])
        cross, energy = comm.allreduce(cross), comm.allreduce(energy)
        x.destroy()
        y.destroy()
        mean = self._mean()
        self.flux_tensor = (mean + cross) / self.cell.volume
        tensor = (mean + cross + cross.T + energy) / self.cell.volume
        self.tensor = 0.5 * (tensor + tensor.T)
        return self.tensor

    def _mean(self) -> npt.NDArray[np.float64]:
        d = self.cell.dim
        if not self.kappa.ufl_shape:
            return global_sum(self._means[0, 0]) * np.eye(d)
        mean = np.empty((d, d))
        for (i, j), form in self._means.items():
            mean[i, j] = mean[j, i] = global_sum(form)
        return mean


@dataclass(frozen=True)
class EffectiveConductivity:
    """Result of :func:`effective_conductivity`.

    Attributes:
        tensor: effective conductivity, d×d, symmetric, in the unit of the input.
        flux_tensor: the same from the mean flux; equal up to the solver's tolerance.
        problem: the cell problem with its correctors, on the mesh of what conducts.
        iterations: Krylov iterations of all directions together.
    """

    tensor: npt.NDArray[np.float64]
    flux_tensor: npt.NDArray[np.float64]
    problem: CellProblem
    iterations: int


def effective_conductivity(
    cell: UnitCell, conductivity: Conductivity, *, degree: int = 1, petsc_options: PetscOptions | None = None
) -> EffectiveConductivity:
    """Effective conductivity tensor of a periodic cell with one conductivity per phase.

    Phases of conductivity zero are left out of the mesh: exact insulators, without a fictitious value.

    Args:
        cell: the cell; its tags are the phases.
        conductivity: for every phase, by tag or name, a number ≥ 0 or a symmetric d×d tensor.
        degree: polynomial degree.
        petsc_options: options of the Krylov solver.
    Raises:
        ValueError: a phase without a conductivity or a conductivity without a phase, negative values, a
            tensor that is not symmetric and positive definite; on every rank.
        RuntimeError: the solver did not converge.
    """
    values = checked_conductivity(cell, conductivity)
    conducting = [tag for tag, value in values.items() if np.any(value)]
    if not conducting:
        raise ValueError("no phase conducts: all conductivities are zero")
    part = select_phases(cell, conducting)
    kappa = conductivity_field(part, {tag: values[tag] for tag in conducting})
    problem = CellProblem(part, kappa, degree=degree, petsc_options=petsc_options)
    tensor = problem.solve()
    return EffectiveConductivity(tensor, problem.flux_tensor, problem, problem.solver.iterations)


def conductivity_field(cell: UnitCell, values: Mapping[int, npt.NDArray]) -> fem.Function:
    """Piecewise constant function with one value, number or d×d tensor, per tag."""
    d = cell.dim
    tensorial = any(np.ndim(value) for value in values.values())
    Q = fem.functionspace(cell.mesh, ("DG", 0, (d, d)) if tensorial else ("DG", 0))
    kappa = fem.Function(Q, name="conductivity")
    array = kappa.x.array.reshape(-1, d * d if tensorial else 1)
    cells = Q.dofmap.list.reshape(-1)
    for tag, value in values.items():
        full = np.asarray(value, dtype=float)
        if tensorial and full.ndim == 0:
            full = float(full) * np.eye(d)
        array[cells[cell.cell_tags.find(tag)]] = full.reshape(-1)
    return kappa


def checked_conductivity(cell: UnitCell, conductivity: Conductivity) -> dict[int, npt.NDArray]:
    """Conductivity of each phase by tag, after the checks that :func:`effective_conductivity` promises."""
    d, present = cell.dim, cell.tags()
    values = {cell.tag(phase): np.asarray(value, dtype=float) for phase, value in conductivity.items()}
    if set(values) != set(present):
        raise ValueError(
            f"one conductivity per phase is needed: the cell has tags {present}, found {sorted(values)}"
        )
    for tag, value in values.items():
        if value.shape not in ((), (d, d)) or not np.isfinite(value).all():
            raise ValueError(
                f"the conductivity of phase {tag} must be a number or a {d}×{d} tensor, found {value}"
            )
        if value.ndim == 0 and value < 0:
            raise ValueError(f"the conductivity of phase {tag} must not be negative, found {float(value)}")
        if (
            value.ndim
            and np.any(value)
            and not (np.allclose(value, value.T) and np.linalg.eigvalsh(value).min() > 0)
        ):
            raise ValueError(
                f"the conductivity tensor of phase {tag} must be symmetric positive definite, found {value}"
            )
    return values
