"""Cutting a lattice along a level set: snapping of nodes, division of the cells that are crossed.

A cell is crossed where its nodes differ in sign; values vary linearly along edges. Cut everywhere, the
interface is a manifold, because a piecewise linear function without zeros at the nodes has no other level
sets; but cuts near a node make slivers. Nodes with a cut nearby are therefore moved onto it (Labelle and
Shewchuk 2007, doi:10.1145/1276377.1276448), unless that would pinch the interface.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fetopo.microstructure.mesh import _interface
from fetopo.microstructure.mesh._lattice import Array, Complex, Ints, Lattice, positive, shape

#: How near a cut may come to a node, as part of the edge: of edges along the axes, of others. Larger than
#: what Labelle and Shewchuk prove angles for (0.249, 0.414): after smoothing the smallest angle of what was
#: tried is larger by one to three degrees. `Cut.release_poor` takes back what would go wrong.
SNAP = (0.3, 0.45)

#: Shape of a lattice cell below which its nodes are put back.
POOR = 0.2


def pairs(dim: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(dim + 1), 2))


def fraction_above(values: Array) -> Array:
    """Part of each simplex where a linear function is positive; nodal values (m, d + 1) in falling order."""
    v, d = values, values.shape[1] - 1
    count = (v > 0).sum(axis=1)
    out = (count == d + 1).astype(float)
    one, all_but_one = count == 1, count == d
    if one.any():
        a = v[one]
        out[one] = np.prod(a[:, :1] / (a[:, :1] - a[:, 1:]), axis=1)
    if all_but_one.any():
        a = v[all_but_one]
        out[all_but_one] = 1.0 - np.prod(a[:, -1:] / (a[:, -1:] - a[:, :-1]), axis=1)
    if d == 3 and (two := count == 2).any():
        p, n = v[two][:, :2], v[two][:, 2:]
        t = p[:, :, None] / (p[:, :, None] - n[:, None, :])
        out[two] = (
            t[:, 1, 0] * t[:, 1, 1] + t[:, 0, 0] * t[:, 0, 1] * (1 - t[:, 1, 1])
            + t[:, 0, 0] * t[:, 1, 1] * (1 - t[:, 1, 0])
        )  # fmt: skip
    return out


@dataclass
class Parts:
    """A mesh of two phases.

    Attributes:
        mesh: the complex.
        inside: phase of each cell.
        on: rows of `mesh.at` on the interface.
        facets: nodes of the facets of the interface, shape (f, d).
    """

    mesh: Complex
    inside: npt.NDArray[np.bool_]
    on: npt.NDArray[np.bool_]
    facets: Ints


class Cut:
    """A lattice, the value of the level-set function at its nodes, and which nodes are snapped.

    Args:
        lattice: what numbers the nodes.
        mesh: its complex; snapping moves its nodes.
        integers: of its nodes.
        values: at the rows of `mesh.at`; positive inside.
        snap: largest distance of a cut from a node that is moved there, see `SNAP`.
    """

    def __init__(
        self, lattice: Lattice, mesh: Complex, integers: Ints, values: Array, snap: tuple[float, float]
    ):
        self.lattice, self.mesh, self.integers, self.snap = lattice, mesh, integers, snap
        self.values = np.where(values == 0, np.finfo(float).tiny, values)
        self.original = self.values.copy()
        self.start = mesh.at.copy()
        self.snapped = np.zeros(len(mesh.at), dtype=bool)

    def limits(self, edges: Ints) -> Array:
        """How near a node may be to the cut of each edge (nodes in the last axis), as part of the edge."""
        step = self.integers[edges[..., 0]] - self.integers[edges[..., 1]]
        straight = np.abs(step).max(axis=-1) == 4
        return np.where(straight, *self.snap)

    def crossed(self) -> Ints:
        """Edges with nodes of different sign, inner node first."""
        phi = self.values[self.mesh.same]
        local = phi[self.mesh.cells]
        rows = self.mesh.cells[(local.max(axis=1) > 0) & (local.min(axis=1) < 0)]
        every = np.concatenate([rows[:, p] for p in pairs(self.mesh.dim)])
        sign = phi[every] > 0
        differ = (phi[every[:, 0]] * phi[every[:, 1]] < 0) & (sign[:, 0] != sign[:, 1])
        found = np.where(sign[differ][:, :1], every[differ], every[differ][:, ::-1])
        n = len(self.mesh.same)
        code = np.unique(found[:, 0] * n + found[:, 1])
        return np.stack([code // n, code % n], axis=1)

    def snap_nodes(self) -> None:
        """Move nodes with a cut nearby onto it, the closest first; their values become 0."""
        m = self.mesh
        edges = self.crossed()
        a, b = m.same[edges].T
        t = self.values[a] / (self.values[a] - self.values[b])
        limit = self.limits(edges)
        x = self.mesh.nodes()
        way = x[edges[:, 1]] - x[edges[:, 0]]
        # A node on a face of the box moves within that face. Where the cut edge leaves it, the node misses
        # the cut by as much as a cut at the limit would: so only half as far.
        found = []
        for node, neighbour, part, along in ((a, b, t, way), (b, a, 1 - t, -way)):
            leaves = m.fixed[node] & (along != 0)
            distance = np.round(part / limit * np.where(leaves.any(axis=1), 2.0, 1.0), 9)
            step = np.where(leaves, 0.0, part[:, None] * along)
            near = distance < 1
            found.append((node[near], neighbour[near], distance[near], step[near]))
        who, other, distance, step = (np.concatenate(column) for column in zip(*found, strict=True))
        best = np.full(len(m.at), np.inf)
        while who.size:
            best[:] = np.inf
            np.minimum.at(best, who, distance)
            # The nearer end of an edge goes first; its cut is then gone for the other.
            wait = np.zeros(len(m.at), dtype=bool)
            later = (best[who] > best[other]) | ((best[who] == best[other]) & (who > other))
            wait[who[later]] = True
            chosen = np.flatnonzero((distance == best[who]) & ~wait[who])
            if not chosen.size:
                break
            nodes, first = np.unique(who[chosen], return_index=True)
            m.at[nodes] += step[chosen[first]]
            self.values[nodes] = 0.0
            self.snapped[nodes] = True
            left = (self.values[who] != 0) & (self.values[other] != 0)
            who, other, distance, step = who[left], other[left], distance[left], step[left]

    def release_poor(self) -> int:
        """Put back the nodes of lattice cells that snapping has made flat; returns how many."""
        count = 0
        while True:
            same = self.mesh.same[self.mesh.cells]
            moved = np.flatnonzero(self.snapped[same].any(axis=1))
            poor = shape(self.mesh.nodes(), self.mesh.cells[moved]) < POOR
            nodes = np.unique(same[moved[poor]])
            nodes = nodes[self.snapped[nodes]]
            if not nodes.size:
                return count
            self.release(nodes)
            count += nodes.size

    def release_pinched(self) -> tuple[int, Parts]:
        """Put back snapped nodes until the interface is a manifold; returns how many, and the mesh."""
        count = 0
        while True:
            parts = self.divide()
            mesh = parts.mesh
            wrong = np.zeros(len(mesh.at), dtype=bool)
            wrong[_interface.defects(mesh.same[parts.facets], mesh.outer)] = True
            if not len(parts.facets):  # a phase of so few nodes that snapping has eaten it
                wrong[:] = True
            if not wrong.any():
                return count, parts
            nodes = np.unique(self.mesh.same[wrong[mesh.same[: len(self.mesh.same)]]])
            nodes = nodes[self.snapped[nodes]]
            if not nodes.size:
                raise RuntimeError(f"the interface is no manifold at {int(wrong.sum())} nodes")
            self.release(nodes)
            count += nodes.size

    def release(self, nodes: Ints) -> None:
        """Put snapped nodes back."""
        self.mesh.at[nodes] = self.start[nodes]
        self.values[nodes] = self.original[nodes]
        self.snapped[nodes] = False

    def divide(self) -> Parts:
        """The mesh cut along the interface."""
        m, d = self.mesh, self.mesh.dim
        edges = self.crossed()
        a, b = m.same[edges].T
        t = self.values[a] / (self.values[a] - self.values[b])
        limit = self.limits(edges)
        t = np.clip(t, limit, 1 - limit)[:, None]
        x = m.nodes()
        points = x[edges[:, 0]] + t * (x[edges[:, 1]] - x[edges[:, 0]])  # on a face exactly, if both ends are
        middle = (self.integers[edges[:, 0]] + self.integers[edges[:, 1]]) // 2

        phi = self.values[m.same][m.cells]
        crossed = (phi.max(axis=1) > 0) & (phi.min(axis=1) < 0)
        n = len(m.same)
        # Columns by sign, inside first; nodes of one sign by number across periodic faces.
        cells = m.cells[crossed]
        order = np.lexsort((m.same[cells], -np.sign(phi[crossed])), axis=1)
        cells = np.take_along_axis(cells, order, axis=1)
        sign = np.sign(np.take_along_axis(phi[crossed], order, axis=1)).astype(np.int8)
        code = edges[:, 0] * n + edges[:, 1]
        parts, sides = [], []
        for above, zero in itertools.product(range(1, d + 1), range(d)):
            below = d + 1 - above - zero
            if below < 1:
                continue
            rows = cells[((sign > 0).sum(axis=1) == above) & ((sign < 0).sum(axis=1) == below)]
            if not len(rows):
                continue
            P, Z, N = rows[:, :above].T, rows[:, above : above + zero].T, rows[:, above + zero :].T
            c = [[n + np.searchsorted(code, p * n + q) for q in N] for p in P]
            for simplices, side in (
                (_tip(P, Z, N, c), True),
                (_tip(N, Z, P, [list(r) for r in zip(*c, strict=True)]), False),
            ):
                for simplex in simplices:
                    parts.append(np.stack(simplex, axis=1))
                    sides.append(np.full(len(rows), side))
        whole = phi[~crossed]
        level = np.where(
            (whole == 0).all(axis=1), self.original[m.same][m.cells[~crossed]].sum(axis=1), whole.sum(axis=1)
        )
        cells = np.concatenate([m.cells[~crossed], *parts])
        inside = np.concatenate([level > 0, *sides])
        integers = np.concatenate([self.integers, middle])
        nodes = np.concatenate([x, points])
        out = self.lattice.complex(integers, nodes, positive(nodes, cells))
        on = np.zeros(len(out.at), dtype=bool)
        on[out.same[n:]] = True
        on[out.same[:n][self.snapped[m.same]]] = True
        return Parts(out, inside, on, _interface.facets(out, inside, on))


def _tip(P: Ints, Z: Ints, N: Ints, c: list[list[Ints]]) -> list[list[Ints]]:
    """Simplices of the part of a cell with the nodes P, cut from the nodes N at c[p][n]; nodes Z on the cut.

    Diagonals of cut faces start at the first of P, that of a four-cornered cut at c[0][0].
    """
    if len(P) == 1:
        return [[P[0], *c[0], *Z]]
    if len(P) == 3:  # a prism
        return [
            [P[0], P[1], P[2], c[2][0]],
            [P[0], P[1], c[2][0], c[1][0]],
            [P[0], c[0][0], c[1][0], c[2][0]],
        ]
    if len(N) == 1:  # a trapezium, in 3D with the tip Z
        return [[P[0], P[1], c[1][0], *Z], [P[0], c[0][0], c[1][0], *Z]]
    return [
        [P[0], P[1], c[1][0], c[1][1]],
        [P[0], c[0][0], c[0][1], c[1][1]],
        [P[0], c[0][0], c[1][1], c[1][0]],
    ]
