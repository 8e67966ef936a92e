"""The corrector problems of a cell: periodic ones, and with potentials given on its faces.

Conduction stands for any linear transport with a flux −κ∇u: heat, electric charge, diffusion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fetopo._mpi import get_logger
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.assembly import form
from fetopo.transport.conductors import PERCOLATES
from fetopo.transport.homogenization.spaces import CellSpace
from fetopo.transport.interfaces import Resistances
from fetopo.transport.quadrature import is_piecewise_constant, measure
from fetopo.transport.state import (
    LinearSolver,
    PetscOptions,
    assemble_dual,
    global_sum,
    owned,
    zero_on_boundary,
)


@dataclass
class _Group:
    """Directions that share their boundary conditions, and so a matrix and a preconditioner."""

    axes: list[int]
    bcs: list[Any]
    solver: LinearSolver
    fixed: npt.NDArray[np.int32] | None


class CellProblem:
    """The d corrector problems of a cell: find w of the potential u = eᵢ·x + w for each direction.

    Find χᵢ with ∫ κ (eᵢ + ∇χᵢ)·∇v dx = 0 for all v; then Dᵢⱼ = 1/|Y| ∫ κ (eᵢ + ∇χᵢ)·(eⱼ + ∇χⱼ) dx.
    χᵢ and v are periodic ("periodic"), zero on the boundary ("linear": the potential eᵢ·x is given there), or
    zero on the two faces across direction i ("mixed": no flux through the others; then only the diagonal of D
    has a meaning, and only that is returned).

    Where the mesh leaves phases out, these are exact insulators: no flux enters them, and they count in |Y|.
    In perfect conductors eᵢ + ∇χᵢ = 0: χᵢ = gᵢ plus a constant for each of their connected parts, with a
    lift gᵢ (:class:`fetopo.transport.conductors.Conductors`). Where such a part goes on for ever along eᵢ,
    or connects given potentials that differ, Dᵢᵢ is infinite. At interfaces with a resistance R the energy
    has the further term 1/|Y| ∫_Γ (1/R) [χᵢ] [χⱼ] dS.

    Args:
        cell: the cell with its mesh.
        kappa: conductivity, a UFL scalar or symmetric d×d tensor on the mesh; coefficients may change
            between solves.
        boundary: "periodic", "linear" or "mixed".
        degree: polynomial degree of the correctors.
        conductors, insulators: tags of phases of the mesh that conduct perfectly, or not at all; κ has no
            meaning there.
        resistances: resistances R > 0 of interfaces, by pairs of tags, smaller one first.
        petsc_options: options of the Krylov solver.
    Raises:
        ValueError: opposite faces not meshed alike, a κ of another shape, another boundary condition.
    Source: Bensoussan, Lions and Papanicolaou (1978), Asymptotic Analysis for Periodic Structures, chapter 1;
        boundary conditions: Huet (1990), J. Mech. Phys. Solids 38, 813, doi:10.1016/0022-5096(90)90041-2.
    """

    def __init__(
        self,
        cell: UnitCell,
        kappa: Any,
        *,
        boundary: str = "periodic",
        degree: int = 1,
        conductors: Iterable[int] = (),
        insulators: Iterable[int] = (),
        resistances: Resistances | None = None,
        petsc_options: PetscOptions | None = None,
    ) -> None:
        d = cell.dim
        if boundary not in ("periodic", "linear", "mixed"):
            raise ValueError(f"boundary is {boundary!r}: expected 'periodic', 'linear' or 'mixed'")
        self.cell, self.boundary = cell, boundary
        self.space = CellSpace(
            cell,
            degree,
            periodic=boundary == "periodic",
            conductors=conductors,
            insulators=insulators,
            resistances=resistances,
        )
        self.kappa = restricted(kappa, self.space, d)
        self.dx = energy_measure(cell, self.kappa, degree)
        self.V = self.space.V
        self.correctors = [fem.Function(self.V, name=f"corrector_{i}") for i in range(d)]
        self._e = [ufl.as_vector([float(i == j) for j in range(d)]) for i in range(d)]
        self._groups = self._group(petsc_options)
        #: Directions along which perfect conductors let an infinite flux through.
        self.infinite: list[int] = []
        self.lifts: list[fem.Function] | None = None
        if self.space.conductors is not None:
            self._lift()
        v = ufl.TestFunction(self.V)
        fields = self._macroscopic()
        self._loads = [form(-ufl.inner(self.flux(e), ufl.grad(v)) * self.dx) for e in fields]
        self._means = {
            (i, j): form(ufl.inner(fields[i], self.flux(fields[j])) * self.dx)
            for i in range(d)
            for j in range(i, d)
            if i == j or self.kappa.ufl_shape or self.lifts
        }
        self.tensor: npt.NDArray[np.float64] = np.full((d, d), np.nan)
        self.flux_tensor: npt.NDArray[np.float64] = np.full((d, d), np.nan)

    def _group(self, petsc_options: PetscOptions | None) -> list[_Group]:
        """One matrix for each set of boundary conditions."""
        d, space = self.cell.dim, self.space
        u, v = ufl.TrialFunction(self.V), ufl.TestFunction(self.V)
        a = ufl.inner(self.flux(ufl.grad(u)), ufl.grad(v)) * self.dx
        groups = []
        for axes in [[i] for i in range(d)] if self.boundary == "mixed" else [list(range(d))]:
            fixed = None if self.boundary == "periodic" else space.on_faces(axes)
            bcs, nullspace = space.solvable(fixed)
            added = space.interface_matrices(bcs)
            solver = LinearSolver(
                a, bcs, nullspace=nullspace, added=added, petsc_options=petsc_options, cell=self.cell
            )
            groups.append(_Group(axes, bcs, solver, fixed))
        return groups

    def _lift(self) -> None:
        """The lift of each direction, and the directions that have none."""
        conductors = self.space.conductors
        assert conductors is not None
        self.lifts = []
        for group in self._groups:
            for i in group.axes:
                lift, energy = conductors.lift(self._e[i], group.fixed)
                self.lifts.append(lift)
                if energy > PERCOLATES:
                    self.infinite.append(i)
        if self.infinite:
            get_logger(__name__, self.cell.mesh.comm).warning(
                "perfect conductors go through the cell along axes %s: infinite conductivity", self.infinite
            )

    @property
    def solver(self) -> LinearSolver:
        """The solver, of the first direction where each has its own."""
        return self._groups[0].solver

    @property
    def iterations(self) -> int:
        """Krylov iterations of all directions together."""
        return sum(group.solver.iterations for group in self._groups)

    @property
    def tolerance(self) -> float:
        """Relative tolerance of the solvers; may be set."""
        return self.solver.tolerance

    @tolerance.setter
    def tolerance(self, rtol: float) -> None:
        for group in self._groups:
            group.solver.set_tolerance(rtol)

    @property
    def guesses(self) -> list[npt.NDArray[np.float64]]:
        """Where the next solve starts, as views of this rank's values."""
        return [chi.x.array for chi in self.correctors]

    def flux(self, gradient: Any) -> Any:
        """κ g for a gradient g, as UFL."""
        return ufl.dot(self.kappa, gradient) if self.kappa.ufl_shape else self.kappa * gradient

    def _macroscopic(self) -> list[Any]:
        if self.lifts is None:
            return list(self._e)
        return [e + ufl.grad(lift) for e, lift in zip(self._e, self.lifts, strict=True)]

    def local_fields(self) -> list[Any]:
        """The fields eᵢ + ∇χᵢ (with perfect conductors eᵢ + ∇gᵢ + ∇χᵢ), as UFL."""
        return [e + ufl.grad(chi) for e, chi in zip(self._macroscopic(), self.correctors, strict=True)]

    def _load(self, i: int) -> Any:
        b = assemble_dual(self._loads[i])
        if self.lifts is not None and self.space.interfaces is not None:
            coupled = self.space.interfaces.dual(self.lifts[i], self.V, self.space.local)
            b.array[:] -= coupled.array
        return b

    def solve(self) -> npt.NDArray[np.float64]:
        """Assemble with the present κ and solve for all directions, from the present correctors.

        Returns:
            Effective tensor in the energy form, d×d, symmetric; an upper bound in the sense of quadratic
            forms, whatever the error of the correctors. `flux_tensor` then holds the flux form, which
            differs by the solver's residual only (Hill–Mandel). Where a direction conducts infinitely, its
            diagonal entry is infinite and the others of its row and column are zero: the quadratic form is
            right for every gradient across it.
        Raises:
            RuntimeError: the solver did not converge.
        """
        d, comm = self.cell.dim, self.cell.mesh.comm
        cross, energy = np.zeros((d, d)), np.zeros((d, d))
        for group in self._groups:
            group.solver.assemble()
            loads, chis, products = {}, {}, {}
            x, y = group.solver.A.createVecs()
            for i in group.axes:
                if i in self.infinite:
                    self.correctors[i].x.array[:] = 0
                    continue
                b, chi = self._load(i), self.correctors[i]
                zero_on_boundary(b, group.bcs)
                group.solver.solve(b, chi)
                loads[i], chis[i] = owned(b).copy(), owned(chi)
                x.array[:] = chis[i]
                group.solver.A.mult(x, y)
                products[i] = y.array.copy()
            # ∫κ eᵢ·∇χⱼ = −bᵢ·χⱼ, so that both forms need only dot products.
            for i in loads:
                for j in loads:
                    cross[i, j] = -loads[i] @ chis[j]
                    energy[i, j] = products[i] @ chis[j]
            x.destroy()
            y.destroy()
        cross, energy = comm.allreduce(cross), comm.allreduce(energy)
        mean = self._mean()
        self.flux_tensor = self._known((mean + cross) / self.cell.volume)
        tensor = (mean + cross + cross.T + energy) / self.cell.volume
        self.tensor = self._known(0.5 * (tensor + tensor.T))
        return self.tensor

    def _mean(self) -> npt.NDArray[np.float64]:
        d, interfaces = self.cell.dim, self.space.interfaces
        if (0, 1) not in self._means:
            return global_sum(self._means[0, 0]) * np.eye(d)
        mean: npt.NDArray[np.float64] = np.empty((d, d))
        for (i, j), compiled in self._means.items():
            value = global_sum(compiled)
            if self.lifts is not None and interfaces is not None:
                value += interfaces.energy(self.lifts[i], self.lifts[j])
            mean[i, j] = mean[j, i] = value
        return mean

    def _known(self, tensor: npt.NDArray) -> npt.NDArray[np.float64]:
        """Without what has no meaning, with what is infinite."""
        if self.boundary == "mixed":
            tensor = np.diag(np.diag(tensor))
        for i in self.infinite:
            tensor[i, :] = tensor[:, i] = 0.0
            tensor[i, i] = np.inf
        return tensor


def restricted(kappa: Any, space: CellSpace, d: int) -> Any:
    """κ where something conducts, and not perfectly; zero elsewhere.

    Raises:
        ValueError: a κ that is neither a scalar nor a d×d tensor.
    """
    if kappa.ufl_shape not in ((), (d, d)):
        raise ValueError(f"κ must be a scalar or a {d}×{d} tensor, found shape {kappa.ufl_shape}")
    return kappa if space.rest is None else space.rest * kappa


def energy_measure(cell: UnitCell, kappa: Any, degree: int) -> ufl.Measure:
    """Integrates products of gradients exactly where κ is constant in each cell."""
    if not is_piecewise_constant(kappa):
        return ufl.dx(cell.mesh)
    simplex = cell.mesh.topology.cell_name() in ("triangle", "tetrahedron")
    return measure(cell.mesh, 2 * (degree - 1) if simplex else 2 * degree, cell)
