"""Interfaces with a resistance: the potential jumps by R times the flux through them.

The space is broken there: each phase has degrees of freedom of its own on the interface, as if it had a mesh
of its own, and what couples the two sides is the term ∫_Γ (1/R) [u] [v] dS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem, la
from dolfinx import mesh as dmesh
from petsc4py import PETSc
from scipy.sparse.csgraph import connected_components

from fetopo._compat import index_map, space_with_dofs
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.periodic import facet_pairs, to_ghosts

#: Resistance of the interface between two phases, by the pair of their tags, smaller one first.
Resistances = Mapping[tuple[int, int], float]


def checked_resistances(
    cell: UnitCell, resistances: Mapping[tuple[Any, Any], float] | None
) -> dict[tuple[int, int], float]:
    """Resistances by pairs of tags; those that are zero are left out.

    Raises:
        ValueError: a pair that is not two phases of the cell, named twice with two values, a resistance that
            is negative or not a number.
    """
    found: dict[tuple[int, int], float] = {}
    present = cell.tags()
    for pair, value in (resistances or {}).items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(f"an interface is named by its two phases, found {pair!r}")
        a, b = sorted(cell.tag(phase) for phase in pair)
        if a == b or not {a, b} <= set(present):
            raise ValueError(
                f"an interface needs two different phases of the cell, which has tags {present}: found {pair}"
            )
        R = float(value)
        if math.isnan(R) or R < 0:
            raise ValueError(f"the resistance of interface {pair} must not be negative, found {value}")
        if found.setdefault((a, b), R) != R:
            raise ValueError(f"interface {pair} is given two resistances, {found[a, b]} and {R}")
    return {pair: R for pair, R in found.items() if R > 0}


class Interfaces:
    """A space broken along the interfaces between some phases, and the term that couples their sides.

    Where three phases meet, two of them with a resistance between them share the degrees of freedom if they
    are both continuous with the third.

    Args:
        cell: the cell.
        V: scalar Lagrange space, periodic or not.
        resistances: by pairs of tags, positive; infinite ones are not coupled.
        periodic: whether opposite faces are identified in V.
    """

    def __init__(self, cell: UnitCell, V: Any, resistances: Resistances, *, periodic: bool) -> None:
        self.cell, self._continuous, self.resistances = cell, V, dict(resistances)
        imap = V.dofmap.index_map
        tags = cell.tags()
        self._column = {tag: k for k, tag in enumerate(tags)}
        of_cell = cell_phases(cell)
        at = np.zeros((imap.size_local + imap.num_ghosts, len(tags)), dtype=bool)
        for k, tag in enumerate(tags):
            vector = la.vector(imap, dtype=np.float64)
            vector.array[V.dofmap.list[of_cell == tag].reshape(-1)] = 1
            vector.scatter_reverse(la.InsertMode.add)
            vector.scatter_forward()
            at[:, k] = vector.array > 0.5
        part, parts = self._parts(at)
        # New numbers: those of a degree of freedom follow each other, with its owner.
        owned = imap.size_local
        ends = np.cumsum(parts)
        begin = ends - parts
        new_owned = int(ends[owned - 1]) if owned else 0
        offset = int(cell.mesh.comm.exscan(new_owned) or 0)
        first = to_ghosts(imap, begin[:owned] + offset)
        ghosts = np.concatenate(
            [first[i] + np.arange(parts[i]) for i in range(owned, len(parts))]
            or [np.zeros(0, dtype=np.int64)]
        ).astype(np.int64)
        owners = np.repeat(imap.owners, parts[owned:]).astype(np.int32)
        self._local = begin[:, None] + part  # local index of each phase's degree of freedom
        dofs = V.dofmap.list
        column = np.array([self._column[tag] for tag in of_cell], dtype=np.int64)
        self._cell_column = column
        #: The broken space.
        self.V = space_with_dofs(
            V,
            index_map(cell.mesh.comm, new_owned, ghosts, owners),
            self._local[dofs, column[:, None]].astype(np.int32),
        )
        self._couple(of_cell, at, periodic)

    def _parts(self, at: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """For each degree of freedom, the part each phase there belongs to, and the number of parts."""
        tags = list(self._column)
        joined = np.array([[(min(a, b), max(a, b)) not in self.resistances for b in tags] for a in tags])
        part, parts = np.zeros(at.shape, dtype=np.int64), np.ones(len(at), dtype=np.int64)
        patterns, which = np.unique(at, axis=0, return_inverse=True)
        which = which.reshape(-1)
        for k, pattern in enumerate(patterns):
            here = np.flatnonzero(pattern)
            if len(here) < 2:
                continue
            count, label = connected_components(joined[np.ix_(here, here)], directed=False)
            chosen = which == k
            row = np.zeros(at.shape[1], dtype=np.int64)
            row[here] = label
            part[chosen], parts[chosen] = row, count
        return part, parts

    def _couple(self, of_cell: npt.NDArray, at: npt.NDArray[np.bool_], periodic: bool) -> None:
        """Element matrices of the interface term, and the degrees of freedom on its two sides."""
        cell, V = self.cell, self._continuous
        mesh, d = cell.mesh, cell.dim
        mesh.topology.create_connectivity(d, d - 1)
        mesh.topology.create_connectivity(d - 1, d)
        owned = mesh.topology.index_map(d).size_local
        facets = mesh.topology.connectivity(d, d - 1).array.reshape(len(of_cell), -1)[:owned]
        layout = V.dofmap.dof_layout
        both = np.zeros(facets.shape, dtype=bool)
        for f in range(facets.shape[1]):
            on = V.dofmap.list[:owned][:, layout.entity_closure_dofs(d - 1, f)]
            both[:, f] = at[on].all(axis=1).sum(axis=1) > 1
        cells, sides = np.nonzero(both)
        x = np.zeros((0, d))
        if len(cells):
            x = dmesh.compute_midpoints(mesh, d - 1, facets[cells, sides].astype(np.int32))[:, :d]
        scaled = (x - cell.lower) / cell.lengths
        if periodic:
            scaled[np.isclose(scaled, 1, rtol=0, atol=1e-9)] = 0.0
        other = facet_pairs(mesh.comm, scaled, of_cell[cells])

        finite = {pair: R for pair, R in self.resistances.items() if math.isfinite(R)}
        W = fem.functionspace(mesh, ("Discontinuous Lagrange", V.ufl_element().embedded_superdegree))
        u, v = ufl.TrialFunction(W), ufl.TestFunction(W)
        blocks, mine, across = [], [], []
        for (a, b), R in finite.items():
            chosen = (of_cell[cells] == a) & (other == b)
            entities = np.column_stack([cells[chosen], sides[chosen]]).astype(np.int32)
            ds = ufl.Measure("ds", domain=mesh, subdomain_data=[(1, entities.reshape(-1))])
            matrix = fem.assemble_matrix(fem.form(1 / R * ufl.inner(u, v) * ds(1)))
            matrix.scatter_reverse()
            at_facets = np.unique(entities[:, 0])
            dofs = W.dofmap.list[at_facets]
            size = dofs.shape[1]
            dense = matrix.to_scipy().tocsr()
            starts = dense.indptr[dofs]
            # A row of a discontinuous space has the degrees of freedom of its cell and no others.
            block = (
                dense.data[starts[:, :, None] + np.arange(size)] if len(dofs) else np.zeros((0, size, size))
            )
            order = np.argsort(np.argsort(dofs, axis=1), axis=1)
            blocks.append(np.take_along_axis(block, np.repeat(order[:, None, :], size, axis=1), axis=2))
            base = V.dofmap.list[at_facets]
            column = self._column[b]
            there = np.where(at[base, column], self._local[base, column], -1)
            mine.append(self._local[base, self._cell_column[at_facets][:, None]])
            across.append(there)
        size = V.dofmap.list.shape[1]
        self._blocks = np.concatenate(blocks or [np.zeros((0, size, size))])
        self._mine = np.concatenate(mine or [np.zeros((0, size), dtype=np.int64)])
        found = np.concatenate(across or [np.zeros((0, size), dtype=np.int64)])
        # Degrees of freedom that are not on the facets have zero rows: any partner will do.
        self._across = np.where(found < 0, self._mine, found)

    @property
    def links(self) -> npt.NDArray[np.int32]:
        """Pairs of local degrees of freedom of the broken space that the term couples, shape (n, 2)."""
        used = np.abs(self._blocks).max(axis=2) > 0
        return np.column_stack([self._mine[used], self._across[used]]).astype(np.int32)

    def matrix(self, V: Any, local: npt.NDArray[np.int32], *, lumped: bool = False) -> Any:
        """PETSc matrix of the term on the broken space, or on `V`, whose local indices `local` gives.

        Args:
            lumped: couple each degree of freedom with its partner across only, as strongly as all of them
                together: for a preconditioner, which the positive entries beside the diagonal would mislead.
        """
        blocks = self._blocks
        if lumped:
            blocks = np.abs(blocks).sum(axis=2)[:, :, None] * np.eye(blocks.shape[1])
        imap = V.dofmap.index_map
        a = imap.local_to_global(local[self._mine].reshape(-1).astype(np.int32)).reshape(self._mine.shape)
        b = imap.local_to_global(local[self._across].reshape(-1).astype(np.int32)).reshape(a.shape)
        M = PETSc.Mat().createAIJ([(imap.size_local, imap.size_global)] * 2, comm=self.cell.mesh.comm)
        M.setUp()
        for sign, left, right in ((1, a, a), (1, b, b), (-1, a, b), (-1, b, a)):
            M.setValuesRCV(
                left.astype(PETSc.IntType),
                right.astype(PETSc.IntType),
                sign * blocks,
                addv=PETSc.InsertMode.ADD_VALUES,
            )
        M.assemble()
        return M

    def jumps(self, u: fem.Function) -> npt.NDArray[np.float64]:
        """Jump of a function of the broken space at the degrees of freedom of each interface facet."""
        return u.x.array[self._mine] - u.x.array[self._across]

    def energy(self, u: fem.Function, v: fem.Function) -> float:
        """∫_Γ (1/R) [u] [v] dS."""
        value = np.einsum("ni,nij,nj->", self.jumps(u), self._blocks, self.jumps(v))
        return float(self.cell.mesh.comm.allreduce(value))

    def dual(self, u: fem.Function, V: Any, local: npt.NDArray[np.int32]) -> la.Vector:
        """∫_Γ (1/R) [u] [v] dS as a dual vector of `V`, complete in its owned entries."""
        b = la.vector(V.dofmap.index_map, dtype=np.float64)
        flux = np.einsum("nij,nj->ni", self._blocks, self.jumps(u))
        np.add.at(b.array, local[self._mine], flux)
        np.add.at(b.array, local[self._across], -flux)
        b.scatter_reverse(la.InsertMode.add)
        return b


def cell_phases(cell: UnitCell) -> npt.NDArray[np.int64]:
    """Tag of each local cell."""
    imap = cell.mesh.topology.index_map(cell.dim)
    tags = np.zeros(imap.size_local + imap.num_ghosts, dtype=np.int64)
    tags[cell.cell_tags.indices] = cell.cell_tags.values
    return tags
