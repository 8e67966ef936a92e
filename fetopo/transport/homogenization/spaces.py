"""The space of the potentials of a cell: which degrees of freedom are one, which are two, which are held."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import fem
from petsc4py import PETSc

from fetopo._mpi import get_logger
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.components import label_components, on_every_copy, pin_islands
from fetopo.transport.conductors import Conductors
from fetopo.transport.interfaces import Interfaces, Resistances, cell_phases
from fetopo.transport.periodic import periodic_space

Index = npt.NDArray[np.int32]


class CellSpace:
    """Lagrange space of a cell: periodic or not, broken at resistive interfaces, merged in conductors.

    Args:
        cell: the cell.
        degree: polynomial degree.
        periodic: whether opposite faces are identified.
        conductors, insulators: tags of the phases that conduct perfectly, and of those in the mesh that do
            not.
        resistances: of interfaces, by pairs of tags.
    """

    def __init__(
        self,
        cell: UnitCell,
        degree: int,
        *,
        periodic: bool,
        conductors: Iterable[int] = (),
        insulators: Iterable[int] = (),
        resistances: Resistances | None = None,
    ) -> None:
        self.cell = cell
        V = fem.functionspace(cell.mesh, ("Lagrange", degree))
        if periodic:
            V = periodic_space(V, cell.lower, cell.upper, complete=cell.complete)
        self.interfaces: Interfaces | None = None
        if resistances:
            self.interfaces = Interfaces(cell, V, resistances, periodic=periodic)
            V = self.interfaces.V
        #: The space in which perfect conductors are not yet points.
        self.full = V
        phases = cell_phases(cell)
        idle, perfect = np.isin(phases, list(insulators)), np.isin(phases, list(conductors))
        #: DG0 indicator of what conducts neither perfectly nor not at all; None where that is everything.
        self.rest: fem.Function | None = None
        self.conductors: Conductors | None = None
        comm = cell.mesh.comm
        self._cells = np.flatnonzero(~idle).astype(np.int32) if comm.allreduce(int(idle.sum())) else None
        if comm.allreduce(int((idle | perfect).sum())):
            self.rest = indicator(cell, ~(idle | perfect))
        if comm.allreduce(int(perfect.sum())):
            self.conductors = Conductors(
                V, indicator(cell, perfect), np.flatnonzero(perfect).astype(np.int32)
            )
            self.V, self.local = self.conductors.V, self.conductors.local
        else:
            size = V.dofmap.index_map.size_local + V.dofmap.index_map.num_ghosts
            self.V, self.local = V, np.arange(size, dtype=np.int32)

    def on_faces(self, axes: Iterable[int]) -> Index:
        """Degrees of freedom of the full space on the faces of the box across some axes, on every rank."""
        cell = self.cell
        x = self.full.tabulate_dof_coordinates()[:, : cell.dim]
        eps = 1e-9 * cell.lengths
        near = np.isclose(x, cell.lower, rtol=0, atol=eps) | np.isclose(x, cell.upper, rtol=0, atol=eps)
        # Of a degree of freedom in none of the cells here the coordinates are not known.
        known = np.zeros(len(x), dtype=bool)
        known[self.full.dofmap.list.reshape(-1)] = True
        return np.flatnonzero(on_every_copy(self.full, near[:, list(axes)].any(axis=1) & known)).astype(
            np.int32
        )

    def solvable(self, fixed: Index | None = None) -> tuple[list[Any], fem.Function | None]:
        """Boundary conditions of zero on V, and the function that spans what null space they leave.

        Args:
            fixed: degrees of freedom of the full space that are to be zero.
        """
        held = fixed
        if fixed is not None and self.conductors is not None:
            held = self.conductors.on_merged(fixed)
        bcs = [] if held is None else [fem.dirichletbc(0.0, held, self.V)]
        nullspace = None
        if self.cell.complete and self._cells is None and self.interfaces is None:
            if held is None:
                nullspace = fem.Function(self.V)
                nullspace.x.array[:] = 1.0
            return bcs, nullspace
        pinned, largest, islands = pin_islands(self.V, self._cells, self._links(), held)
        if largest is not None:
            nullspace = fem.Function(self.V)
            nullspace.x.array[:] = largest
        if islands:
            get_logger(__name__, self.cell.mesh.comm).info(
                "%d isolated regions found in the conducting phases", islands
            )
        if self.cell.mesh.comm.allreduce(len(pinned)):
            bcs.append(fem.dirichletbc(0.0, pinned, self.V))
        return bcs, nullspace

    def _links(self) -> Index | None:
        return None if self.interfaces is None else self.local[self.interfaces.links]

    def components(self) -> tuple[int, npt.NDArray[np.int64]]:
        """Connected regions of what conducts, as `label_components` gives them."""
        return label_components(self.V, self._cells, self._links())

    def interface_matrices(self, bcs: list[Any]) -> tuple[Any, Any] | None:
        """PETSc matrices of the interface term, zero where `bcs` hold; the second for a preconditioner."""
        if self.interfaces is None:
            return None
        imap = self.V.dofmap.index_map
        held = np.unique(np.concatenate([bc.dof_indices()[0] for bc in bcs] or [np.zeros(0, dtype=np.int32)]))
        rows = imap.local_to_global(held[held < imap.size_local].astype(np.int32))
        exact, lumped = (
            self.interfaces.matrix(self.V, self.local, lumped=simple) for simple in (False, True)
        )
        for M in (exact, lumped):
            M.zeroRowsColumns(rows.astype(PETSc.IntType), diag=0.0)
        return exact, lumped


def indicator(cell: UnitCell, chosen: npt.NDArray[np.bool_]) -> fem.Function:
    """DG0 function that is 1 in chosen local cells and 0 in the others."""
    inside = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
    inside.x.array[inside.function_space.dofmap.list.reshape(-1)] = chosen
    return inside
