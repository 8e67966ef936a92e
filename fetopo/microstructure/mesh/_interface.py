"""The surface between the phases of a simplicial complex: facets, normals, where it is no manifold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fetopo.microstructure.mesh._lattice import Array, Complex, Ints


def facets(mesh: Complex, inside: npt.NDArray[np.bool_], on: npt.NDArray[np.bool_]) -> Ints:
    """Facets with `inside` on one side and the other phase on the other, as nodes, shape (f, d).

    A facet on a periodic face counts if the cell across that face is of the other phase.

    Args:
        mesh: the complex.
        inside: phase of each cell.
        on: whether a row of `mesh.at` lies on the interface; only facets of such nodes are looked at.
    Returns:
        Nodes of the facets as the inner cell has them; the first is followed by the rest so that the
        normal by the right hand (in 2D: the edge turned clockwise) points out of that cell, if its volume
        is positive.
    """
    d = mesh.dim
    surface = on[mesh.same][mesh.cells]
    near = np.flatnonzero(surface.sum(axis=1) >= d)
    found, phase = [], []
    for opposite in range(d + 1):
        face = _outward(d, opposite)
        rows = near[surface[near][:, face].all(axis=1)]
        found.append(mesh.cells[rows][:, face])
        phase.append(inside[rows])
    nodes, sides = np.concatenate(found), np.concatenate(phase)
    key = np.sort(mesh.same[nodes], axis=1)
    _, group = np.unique(key, axis=0, return_inverse=True)
    group = group.reshape(-1)
    count = np.bincount(group)
    inner = np.bincount(group, weights=sides).astype(np.int64)
    return nodes[((count == 2) & (inner == 1))[group] & sides]


def _outward(d: int, opposite: int) -> list[int]:
    if d == 2:
        return [[1, 2], [2, 0], [0, 1]][opposite]
    return [[1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1]][opposite]


def edges(surface: Ints) -> tuple[Ints, Ints, Ints]:
    """Edges of triangles by sorted nodes, the edge of each side (3 f), and triangles per edge."""
    sides = np.sort(np.concatenate([surface[:, [0, 1]], surface[:, [1, 2]], surface[:, [2, 0]]]), axis=1)
    unique, which, count = np.unique(sides, axis=0, return_inverse=True, return_counts=True)
    return unique, which.reshape(-1), count


def defects(surface: Ints, outer: npt.NDArray[np.bool_]) -> Ints:
    """Nodes where the facets, given by rows of `Complex.at`, form no manifold.

    A manifold here: every edge has two triangles, or one where it lies on a face without a partner; the
    triangles around a node form one fan; a node on such a face is on the border of its fan. In 2D: every
    node has two edges, or one on such a face.
    """
    if surface.shape[1] == 2:
        count = np.bincount(surface.reshape(-1), minlength=outer.size)
        return np.flatnonzero((count > 0) & (count != np.where(outer, 1, 2)))
    unique, which, count = edges(surface)
    border = outer[unique].all(axis=1)
    wrong = (count > 2) | ((count == 1) & ~border)
    bad = np.zeros(outer.size, dtype=bool)
    bad[unique[wrong]] = True

    # Corners of triangles at one node are linked where the triangles share an edge at that node.
    f = len(surface)
    order = np.argsort(which, kind="stable")
    first = np.searchsorted(which[order], np.flatnonzero(count == 2))
    pair = np.stack([order[first], order[first + 1]])
    triangle = pair % f
    links = []
    for end in range(2):
        corner = []
        for k in range(2):
            nodes = surface[triangle[k]]
            node = unique[which[pair[k]], end]
            corner.append(triangle[k] * 3 + (nodes == node[:, None]).argmax(axis=1))
        links.append(np.stack(corner))
    rows, columns = np.concatenate(links, axis=1)
    graph = coo_matrix((np.ones(rows.size, dtype=np.int8), (rows, columns)), (3 * f, 3 * f))
    _, fan = connected_components(graph, directed=False)
    _, one = np.unique(fan, return_index=True)
    fans = np.bincount(surface.reshape(-1)[one], minlength=outer.size)
    bad |= fans > 1
    # A fan that closes around a node on an outer face touches that face from inside.
    open_ = np.zeros(outer.size, dtype=bool)
    open_[unique[count == 1]] = True
    bad |= (fans == 1) & outer & ~open_
    return np.flatnonzero(bad)


def euler_characteristic(surface: Ints) -> int:
    """Nodes − edges + triangles (2D: nodes − edges) of facets given by rows of `Complex.at`."""
    nodes = len(np.unique(surface))
    if surface.shape[1] == 2:
        return nodes - len(surface)
    return nodes - len(edges(surface)[0]) + len(surface)


def area_vectors(x: Array, surface: Ints) -> Array:
    """Normal times area (2D: length) of each facet, out of the inner phase, shape (f, d)."""
    if surface.shape[1] == 2:
        along = x[surface[:, 1]] - x[surface[:, 0]]
        return np.stack([along[:, 1], -along[:, 0]], axis=1)
    a, b, c = (x[surface[:, k]] for k in range(3))
    return 0.5 * np.cross(b - a, c - a)


def sum_at(count: int, rows: Ints, values: Array) -> Array:
    """Values (n, k) added up by row, shape (count, k)."""
    return np.stack([np.bincount(rows, weights=v, minlength=count) for v in values.T], axis=1)
