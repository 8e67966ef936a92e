"""Phase volumes of a mesh made right: nodes of the interfaces moved out by what flat facets cut off."""

from __future__ import annotations

from copy import copy
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Field = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


class Nodes(NamedTuple):
    """Nodes of a Gmsh mesh: Gmsh's tags, coordinates (n, 3), and the row of every tag."""

    tags: Index
    x: Field
    row: Index


def read_nodes(model: Any) -> Nodes:
    tags, x, _ = model.mesh.getNodes()
    row = np.full(int(tags.max()) + 1, -1, dtype=np.int64)
    row[tags] = np.arange(len(tags))
    return Nodes(tags.astype(np.int64), np.array(x).reshape(-1, 3), row)


def read_elements(model: Any, nodes: Nodes, dim: int, tags: list[int]) -> Index:
    """Rows of the nodes of all elements of some entities, shape (m, nodes per element); of one type."""
    parts = []
    for tag in tags:
        kinds, _, connected = model.mesh.getElements(dim, tag)
        for kind, flat in zip(kinds, connected, strict=True):
            count = model.mesh.getElementProperties(kind)[3]
            parts.append(nodes.row[np.asarray(flat, dtype=np.int64)].reshape(-1, count))
    return np.vstack(parts) if parts else np.zeros((0, dim + 1), dtype=np.int64)


class Simplices:
    """Triangles or tetrahedra, straight or curved, and the integrals of their Jacobian determinants."""

    def __init__(self, model: Any, dim: int, order: int, rows: Index) -> None:
        kind = model.mesh.getElementType("Triangle" if dim == 2 else "Tetrahedron", order)
        points, weights = model.mesh.getIntegrationPoints(kind, f"Gauss{max(1, dim * (order - 1))}")
        _, basis, _ = model.mesh.getBasisFunctions(kind, points, f"GradLagrange{order}")
        self.dim, self.rows, self.weights, self.sign = dim, rows, np.array(weights), 1.0
        self.gradients = np.array(basis).reshape(len(weights), -1, 3)[:, :, :dim]
        # A curved cell can be turned inside out between the integration points: look at its nodes too.
        properties = model.mesh.getElementProperties(kind)
        corners = np.zeros((properties[3], 3))
        corners[:, :dim] = np.array(properties[4]).reshape(-1, dim)
        _, basis, _ = model.mesh.getBasisFunctions(kind, corners.ravel().tolist(), f"GradLagrange{order}")
        self.at_nodes = np.array(basis).reshape(len(corners), -1, 3)[:, :, :dim]

    def upright(self, x: Field) -> None:
        """Count the cells positive even where they are all mirrored."""
        if self.volume(x) < 0:
            self.sign = -self.sign

    def some(self, chosen: npt.NDArray[np.bool_]) -> Simplices:
        """These cells only."""
        part = copy(self)
        part.rows = self.rows[chosen]
        return part

    def determinants(self, x: Field, gradients: Field | None = None) -> Field:
        """At every integration point (or where the gradients are taken), shape (m, q)."""
        gradients = self.gradients if gradients is None else gradients
        J = np.tensordot(x[self.rows][:, :, : self.dim], gradients, axes=(1, 1)).transpose(2, 0, 1, 3)
        # J[q, m, i, j] = ∂xᵢ/∂ξⱼ; written out, it takes a tenth of the time of numpy.linalg.det.
        if self.dim == 2:
            return self.sign * (J[..., 0, 0] * J[..., 1, 1] - J[..., 0, 1] * J[..., 1, 0]).T
        minors = [
            J[..., 1, (k + 1) % 3] * J[..., 2, (k + 2) % 3] - J[..., 1, (k + 2) % 3] * J[..., 2, (k + 1) % 3]
            for k in range(3)
        ]
        return sum(J[..., 0, k] * minors[k] for k in range(3)).T

    def smallest(self, x: Field) -> Field:
        """Smallest determinant of each cell, shape (m,), among its nodes and integration points."""
        return np.minimum(self.determinants(x).min(axis=1), self.determinants(x, self.at_nodes).min(axis=1))

    def volume(self, x: Field) -> float:
        return float((self.determinants(x) @ self.weights).sum())


def untangled(parts: list[Simplices], x: Field, lower: Field, edges: Field, rounds: int = 10) -> Field:
    """Nodes of a curved mesh, the middles of edges drawn back to the straight edge where a cell needs it.

    Raises:
        RuntimeError: a cell with straight edges is inside out.
    """
    dim = len(edges)
    ends = ((0, 1), (1, 2), (2, 0)) if dim == 2 else ((0, 1), (1, 2), (2, 0), (3, 0), (3, 2), (3, 1))
    straight = x.copy()
    for part in parts:
        for k, (i, j) in enumerate(ends):
            straight[part.rows[:, dim + 1 + k]] = 0.5 * (x[part.rows[:, i]] + x[part.rows[:, j]])
    group = periodic_groups(x, lower, edges)
    share: Field = np.ones(len(x))
    for attempt in range(rounds + 1):
        new = straight + share[:, None] * (x - straight)
        bad = np.zeros(len(x), dtype=bool)
        for part in parts:
            flat = part.smallest(straight)
            bad[part.rows[part.smallest(new) < 0.1 * flat]] = True
            if (flat <= 0).any():
                raise RuntimeError("cells are turned inside out")
        if not bad.any():
            return new
        share[bad] *= 0.5 if attempt < rounds - 1 else 0.0
        share = smallest_of_group(share, group)
    raise RuntimeError("curved cells are turned inside out")


class Surface(NamedTuple):
    """Facets of an interface by rows of nodes (m, k), and the ball (row, centre, radius) each lies on."""

    facets: Index
    balls: npt.NDArray[np.intp]
    centers: Field
    radii: Field


def outward(surface: Surface, x: Field, dim: int, order: int) -> tuple[Index, Field]:
    """How far the nodes of an interface must move out for its facets to enclose what the balls do.

    A flat facet with vertices on a ball of radius R cuts off a cap of mean height Σ e²/(24 R) over the three
    edges e of a triangle, e²/(12 R) over a line. A node takes the mean over its facets, weighted by their
    areas. It is small where facets are small, so that narrow gaps stay open. On curved facets the height
    goes with e⁴/R³ instead; the factor is left to `fitted`.

    Returns:
        Rows of the nodes, and the displacement of each, shape (n, 3), not yet made periodic, together with
        the weight as a fourth column.
    """
    corners = x[surface.facets[:, :dim]]
    edges = [corners[:, i] - corners[:, j] for i in range(dim) for j in range(i)]
    squares = sum((edge**2).sum(axis=1) for edge in edges)
    size = np.linalg.norm(np.cross(edges[0], edges[1]), axis=1) / 2 if dim == 3 else np.sqrt(squares)
    height = squares / ((24 if dim == 3 else 12) * surface.radii)
    if order > 1:
        height = height**2 / surface.radii
    rows, place = np.unique(surface.facets, return_inverse=True)
    place = place.reshape(surface.facets.shape)
    total = np.zeros((len(rows), 4))
    for k in range(surface.facets.shape[1]):
        radial = x[surface.facets[:, k]] - surface.centers
        radial /= np.linalg.norm(radial, axis=1, keepdims=True)
        np.add.at(total, place[:, k], np.column_stack([radial * (height * size)[:, None], size]))
    return rows, total


def periodic_groups(x: Field, lower: Field, edges: Field) -> npt.NDArray[np.intp]:
    """A number for each node, the same for all that the faces of the box identify."""
    inside = (x[:, : len(edges)] - lower) / edges
    inside[np.abs(inside - np.rint(inside)) < 1e-9] = 0.0
    pairs = cKDTree(inside, boxsize=1.0).query_pairs(1e-8, output_type="ndarray")
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(x), len(x)))
    return connected_components(links, directed=False)[1]


def mean_move(total: Field, group: npt.NDArray[np.intp], x: Field, lower: Field, edges: Field) -> Field:
    """Weighted mean displacement of each group of nodes; a node on a face of the box stays in it."""
    dim = len(edges)
    summed = np.zeros((group.max() + 1, 4))
    np.add.at(summed, group, total)
    move = (summed[:, :3] / summed[:, 3:])[group]
    for axis in range(dim):
        for plane in (lower[axis], lower[axis] + edges[axis]):
            move[np.abs(x[:, axis] - plane) < 1e-9 * edges.max(), axis] = 0.0
    move[:, dim:] = 0.0
    return move


def smallest_of_group(values: Field, group: npt.NDArray[np.intp]) -> Field:
    least = np.full(group.max() + 1, np.inf)
    np.minimum.at(least, group, values)
    return least[group]


def room(
    x: Field, own: npt.NDArray[np.intp], balls: tuple[Field, Field], lower: Field, edges: Field
) -> Field:
    """How far each node may move: 0.3 of its distance to the next ball and to a face of the box.

    Args:
        x: nodes, shape (n, 3).
        own: ball (row of `balls`) that each lies on.
        balls: centres and radii of all balls with their images.
    """
    dim = len(edges)
    free: Field = np.full(len(x), np.inf)
    for k, (center, radius) in enumerate(zip(*balls, strict=True)):
        others = own != k
        distance = np.linalg.norm(x[others, :dim] - center, axis=1) - radius
        free[others] = np.minimum(free[others], np.maximum(distance, 0.0))
    for axis in range(dim):
        for plane in (lower[axis], lower[axis] + edges[axis]):
            distance = np.abs(x[:, axis] - plane)
            free = np.where(distance > 1e-9 * edges.max(), np.minimum(free, distance), free)
    return 0.3 * free


def shifted(rows: Index, move: Field, most: Field, factor: float, x: Field) -> Field:
    """All nodes, those of an interface moved by a multiple of `move` but not farther than `most`."""
    length = abs(factor) * np.linalg.norm(move, axis=1)
    shorter = np.minimum(1.0, most / np.maximum(length, 1e-300))
    new = x.copy()
    new[rows] += (factor * shorter)[:, None] * move
    return new


def fitted(cells: Simplices, x: Field, rows: Index, move: Field, most: Field, target: float) -> Field:
    """Nodes, those of one interface moved by one multiple of `move` so that the phase has its volume.

    Args:
        cells: cells of the phase.
        x: all nodes; not changed.
        rows, move, most: nodes of the interface, displacement of each, and the longest allowed.
        target: volume.
    Raises:
        RuntimeError: no multiple between −1 and 8 does.
    """
    here = np.zeros(len(x), dtype=bool)
    here[rows] = True
    moving = cells.some(np.asarray(here[cells.rows].any(axis=1)))
    rest = cells.volume(x) - moving.volume(x)

    def excess(factor: float) -> float:
        return (rest + moving.volume(shifted(rows, move, most, factor, x))) / target - 1.0

    low, high = -1.0, 8.0
    if not excess(low) <= 0.0 <= excess(high):
        raise RuntimeError(
            f"the volume of a phase is {excess(0.0):+.2%} off and moving its interface cannot mend it: "
            "take a smaller mesh size"
        )
    return shifted(rows, move, most, float(brentq(excess, low, high, xtol=1e-5)), x)
