"""The mesh before the interface is there: a body-centred lattice that ends at the faces of a box.

3D: two neighbouring cube centres and an edge of the face between them make a tetrahedron (angles of 60 and 90
degrees). At a face of the box the one cube centre that is left makes one with the centre of that face (45, 60
and 90 degrees): mirror images of each other on opposite faces, so that these match.
2D: each square is split by its two diagonals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass
class Complex:
    """Simplices in a box whose opposite faces may be one.

    Nodes that periodicity makes one share a position: x = at[same] + offset.

    Attributes:
        at: positions of the nodes that differ, shape (k, d).
        same: for each node its row in `at`, shape (n,).
        offset: 0, or along a periodic axis the edge of the box, shape (n, d).
        fixed: along which axes a row of `at` lies on a face of the box and must stay, shape (k, d).
        outer: whether a row of `at` lies on a face that has no partner, shape (k,).
        cells: nodes of the simplices, shape (m, d + 1).
    """

    at: Array
    same: Ints
    offset: Array
    fixed: npt.NDArray[np.bool_]
    outer: npt.NDArray[np.bool_]
    cells: Ints

    @property
    def dim(self) -> int:
        return self.at.shape[1]

    def nodes(self, at: Array | None = None) -> Array:
        """Positions of all nodes, shape (n, d)."""
        return (self.at if at is None else at)[self.same] + self.offset


class Lattice:
    """Numbers of the lattice: every node is a vector of integers, four to an edge of a cube.

    Corners of cubes are multiples of 4, centres odd multiples of 2; the middle of an edge between two nodes
    is half their sum and no other node or middle.
    """

    def __init__(self, divisions: Sequence[int], lengths: Array, periodic: Sequence[bool]) -> None:
        self.divisions = np.array(divisions, dtype=np.int64)
        self.lengths, self.periodic = lengths, np.array(periodic, dtype=bool)

    def build(self) -> tuple[Complex, Ints]:
        """The lattice and the integers of its nodes, shape (n, d)."""
        n, dim = self.divisions, len(self.divisions)
        corners = _grid([np.arange(k + 1) for k in n]) * 4
        centres = _grid([np.arange(k) for k in n]) * 4 + 2
        corner = np.arange(len(corners)).reshape(n + 1)
        centre = len(corners) + np.arange(len(centres)).reshape(n)
        whole = [corners, centres]
        count = len(corners) + len(centres)
        cells = []
        for axis in range(dim):
            rest = [a for a in range(dim) if a != axis]
            if dim == 2:
                for side in (slice(None, -1), slice(1, None)):
                    cells += _fans([centre], corner[_along(axis, side)], rest)
                continue
            pair = [centre[_along(axis, side)] for side in (slice(None, -1), slice(1, None))]
            cells += _fans(pair, corner[_along(axis, slice(1, -1))], rest)
            for end, position in ((0, 0), (-1, 4 * n[axis])):
                middle = np.insert(_grid([np.arange(n[a]) for a in rest]) * 4 + 2, axis, position, axis=1)
                number = (count + np.arange(len(middle))).reshape(n[rest])
                whole.append(middle)
                count += len(middle)
                cells += _fans([centre[_along(axis, end)], number], corner[_along(axis, end)], (0, 1))
        integers = np.concatenate(whole)
        x = integers / (4 * n) * self.lengths
        return self.complex(integers, x, positive(x, np.concatenate(cells))), integers

    def keys(self, integers: Ints) -> Ints:
        """One number for each place, the same on opposite faces along periodic axes."""
        size = 4 * self.divisions
        wrapped = np.where(self.periodic, integers % size, integers)
        key = wrapped[:, 0]
        for axis in range(1, len(size)):
            key = key * (size[axis] + 1) + wrapped[:, axis]
        return key

    def complex(self, integers: Ints, x: Array, cells: Ints) -> Complex:
        """The simplices with their nodes identified across periodic faces."""
        size = 4 * self.divisions
        _, first, same = np.unique(self.keys(integers), return_index=True, return_inverse=True)
        offset = np.where(self.periodic & (integers == size), self.lengths, 0.0)
        at = (x - offset)[first]
        face = (integers == 0) | (integers == size)
        return Complex(
            at, same.reshape(-1), offset, face[first], (face & ~self.periodic).any(axis=1)[first], cells
        )


def _grid(axes: Sequence[Ints]) -> Ints:
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def _along(axis: int, index: int | slice) -> tuple[int | slice, ...]:
    return (*(slice(None),) * axis, index)


def _fans(apexes: list[Ints], corner: Ints, axes: Sequence[int]) -> list[Ints]:
    """Simplices of one node of each array per face and each edge of the faces, which extend along `axes`."""
    found: list[Ints] = []
    for axis in axes:
        for side in (slice(None, -1), slice(1, None)) if len(axes) == 2 else (slice(None),):
            edge = corner
            for across in axes:
                edge = edge[_along(across, side)] if across != axis else edge
            ends = edge[_along(axis, slice(None, -1))], edge[_along(axis, slice(1, None))]
            found.append(np.stack([*apexes, *ends], axis=-1).reshape(-1, len(apexes) + 2))
    return found


def volumes(x: Array, cells: Ints) -> Array:
    """Signed volumes (areas) of simplices."""
    a = x[cells[:, 0]]
    e = [x[cells[:, k]] - a for k in range(1, cells.shape[1])]
    if len(e) == 2:
        return 0.5 * (e[0][:, 0] * e[1][:, 1] - e[0][:, 1] * e[1][:, 0])
    return np.einsum("ij,ij->i", e[0], np.cross(e[1], e[2])) / 6.0


def positive(x: Array, cells: Ints) -> Ints:
    """The same simplices, with nodes exchanged where the volume was negative."""
    turn = volumes(x, cells) < 0
    cells[turn, :2] = cells[turn, 1::-1]
    return cells


def shape(x: Array, cells: Ints) -> Array:
    """Mean ratio c V^(2/d)/Σ l² of simplices: 1 for equilateral ones, ≤ 0 for flat or inverted ones."""
    d = cells.shape[1] - 1
    points = [x[cells[:, i]] for i in range(d + 1)]
    mean = sum(points) / (d + 1)
    lengths = (d + 1) * sum(((p - mean) ** 2).sum(axis=1) for p in points)
    volume = volumes(x, cells)
    c = 4 * np.sqrt(3.0) if d == 2 else 12 * 3 ** (2 / 3)
    return np.sign(volume) * c * np.abs(volume) ** (2 / d) / lengths
