"""A cell with a uniform flux through its boundary: the apparent conductivity that bounds from below."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh

from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.homogenization.problem import energy_measure, restricted
from fetopo.transport.homogenization.spaces import CellSpace, indicator
from fetopo.transport.interfaces import Resistances, cell_phases
from fetopo.transport.state import LinearSolver, PetscOptions, assemble_dual, global_sum, owned


class FluxProblem:
    """The d problems of a cell with the flux Σ·n through its boundary, Σ = eᵢ.

    Find uᵢ, up to a constant, with ∫ κ ∇uᵢ·∇v dx = ∫_∂Y eᵢ·n v dS for all v. The mean gradients give the
    resistivity Sᵢⱼ = 1/|Y| ∫_∂Y nᵢ uⱼ dS, and D = S⁻¹.

    Args:
        cell, kappa, degree, conductors, insulators, resistances, petsc_options: as for `CellProblem`.
    Raises:
        ValueError: on every rank; an insulator on the boundary, or a region there that nothing connects with
            the others (no finite potential drives a flux through it: the apparent conductivity is zero), or
            a κ of another shape.
    Source: Huet (1990), J. Mech. Phys. Solids 38, 813, doi:10.1016/0022-5096(90)90041-2.
    """

    def __init__(
        self,
        cell: UnitCell,
        kappa: Any,
        *,
        degree: int = 1,
        conductors: Iterable[int] = (),
        insulators: Iterable[int] = (),
        resistances: Resistances | None = None,
        petsc_options: PetscOptions | None = None,
    ) -> None:
        d, mesh = cell.dim, cell.mesh
        self.cell, self.boundary = cell, "uniform_flux"
        self.space = CellSpace(
            cell,
            degree,
            periodic=False,
            conductors=conductors,
            insulators=insulators,
            resistances=resistances,
        )
        self.kappa = restricted(kappa, self.space, d)
        self.dx = energy_measure(cell, self.kappa, degree)
        self.V = self.space.V
        self.infinite: list[int] = []
        self.potentials = [fem.Function(self.V, name=f"potential_{i}") for i in range(d)]
        faces = dmesh.locate_entities_boundary(mesh, d - 1, self._on_box)
        tags = dmesh.meshtags(mesh, d - 1, np.sort(faces), np.ones(len(faces), dtype=np.int32))
        ds = ufl.Measure("ds", domain=mesh, subdomain_data=tags)(1)
        conducts = self._conducts(insulators)
        area = global_sum(fem.form(conducts * ds))
        whole = 2 * sum(cell.volume / length for length in cell.lengths)
        if abs(area / whole - 1) > 1e-9:
            raise ValueError(
                f"a uniform flux needs a boundary that conducts everywhere: {area / whole:.4%} of it does "
                "(where it does not, the apparent conductivity is zero)"
            )
        u, v = ufl.TrialFunction(self.V), ufl.TestFunction(self.V)
        n = ufl.FacetNormal(mesh)
        self._loads = [fem.form(n[i] * v * ds) for i in range(d)]
        bcs, nullspace = self.space.solvable()
        self._bcs = bcs
        a = ufl.inner(self.flux(ufl.grad(u)), ufl.grad(v)) * self.dx
        added = self.space.interface_matrices(bcs)
        self.solver = LinearSolver(a, bcs, nullspace=nullspace, added=added, petsc_options=petsc_options)
        self._nullspace = nullspace
        self._fluxes = [
            [fem.form(self.flux(ufl.grad(w))[i] * self.dx) for w in self.potentials] for i in range(d)
        ]
        self.tensor: npt.NDArray[np.float64] = np.full((d, d), np.nan)
        self.flux_tensor: npt.NDArray[np.float64] = np.full((d, d), np.nan)

    @property
    def iterations(self) -> int:
        """Krylov iterations of all directions together."""
        return self.solver.iterations

    def _on_box(self, x: npt.NDArray) -> npt.NDArray[np.bool_]:
        lower, upper, eps = self.cell.lower, self.cell.upper, 1e-9 * self.cell.lengths
        near = [
            np.isclose(x[a], plane[a], rtol=0, atol=eps[a])
            for a in range(self.cell.dim)
            for plane in (lower, upper)
        ]
        return np.logical_or.reduce(near)

    def _conducts(self, insulators: Iterable[int]) -> Any:
        return indicator(self.cell, ~np.isin(cell_phases(self.cell), list(insulators)))

    def flux(self, gradient: Any) -> Any:
        """κ g for a gradient g, as UFL."""
        return ufl.dot(self.kappa, gradient) if self.kappa.ufl_shape else self.kappa * gradient

    def local_fields(self) -> list[Any]:
        """After :meth:`solve`, the gradients for a unit of mean gradient along an axis, Σⱼ Dⱼᵢ ∇uⱼ, UFL."""
        d = self.cell.dim
        return [
            sum(float(self.tensor[j, i]) * ufl.grad(self.potentials[j]) for j in range(d)) for i in range(d)
        ]

    def solve(self) -> npt.NDArray[np.float64]:
        """Assemble with the present κ and solve for all directions, from the present potentials.

        Returns:
            Apparent tensor D = S⁻¹, d×d, symmetric. `flux_tensor` has the mean flux over the mean gradient,
            which differs by the solver's residual only; with perfect conductors, the flux in which is not
            known, it is D.
        Raises:
            ValueError: a region on the boundary that nothing connects with the others.
            RuntimeError: the solver did not converge.
        """
        comm = self.cell.mesh.comm
        self.solver.assemble()
        loads = [assemble_dual(load) for load in self._loads]
        self._check_balance(loads)
        rows = [owned(b).copy() for b in loads]
        for b, u in zip(loads, self.potentials, strict=True):
            for bc in self._bcs:
                b.array[bc.dof_indices()[0]] = 0.0
            self.solver.solve(b, u)
        S = comm.allreduce(np.array([[row @ owned(u) for u in self.potentials] for row in rows]))
        S /= self.cell.volume
        inverse: npt.NDArray[np.float64] = np.linalg.inv(S)
        self.tensor = 0.5 * (inverse + inverse.T)
        self.flux_tensor = self.tensor
        if self.space.conductors is None:
            means = np.array([[global_sum(form) for form in row] for row in self._fluxes])
            self.flux_tensor = means / self.cell.volume @ inverse
        return self.tensor

    def _check_balance(self, loads: list[Any]) -> None:
        """What flows into each connected region must flow out of it."""
        count, component = self.space.components()
        if count < 2:
            return
        comm, size = self.cell.mesh.comm, self.V.dofmap.index_map.size_local
        inside = np.flatnonzero(component[:size] >= 0)
        for b in loads:
            total, strength = np.zeros(count), np.zeros(count)
            np.add.at(total, component[inside], b.array[inside])
            np.add.at(strength, component[inside], np.abs(b.array[inside]))
            total, strength = comm.allreduce(total), comm.allreduce(strength)
            if (np.abs(total) > 1e-8 * strength.max()).any():
                raise ValueError(
                    "a uniform flux enters a region at the boundary that nothing connects with the rest: "
                    "the apparent conductivity is zero"
                )
