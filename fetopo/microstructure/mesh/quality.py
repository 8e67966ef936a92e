"""How good a simplicial mesh is: angles, radius ratios, what each phase fills."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._compat import geometry_dofmap
from fetopo._json import plain
from fetopo.microstructure.mesh.cell import UnitCell

Array = npt.NDArray[np.float64]

_CHUNK = 200_000
_BINS = 1800


@dataclass(frozen=True)
class MeshQuality:
    """Quality of the simplices of a mesh.

    Attributes:
        cells: number of cells.
        smallest_angle, largest_angle: of all cells [degrees], dihedral in 3D.
        angle_percentiles: smallest angle [degrees, to 0.1] that so many percent of the cells undercut.
        smallest_radius_ratio, mean_radius_ratio: d times the radius of the inscribed sphere over that of the
            circumscribed one, 1 for an equilateral simplex [-].
        smallest_volume: of a cell [m^d]; not signed.
        volume_error: sum of all volumes relative to the box, minus 1, where the mesh fills it, else NaN [-].
        volume_fractions: part of the box that each phase fills, by name or tag [-].
    """

    cells: int
    smallest_angle: float
    largest_angle: float
    angle_percentiles: dict[str, float]
    smallest_radius_ratio: float
    mean_radius_ratio: float
    smallest_volume: float
    volume_error: float
    volume_fractions: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        return plain(self)


def quality(cell: UnitCell) -> MeshQuality:
    """Quality of a mesh of triangles or tetrahedra. Collective.

    Radius ratio: 2D 8 A²/(a b c s) with s half the circumference, 3D 216 V²/(S √(p (p − 2a)(p − 2b)(p − 2c)))
    with the area S of the surface, the products a, b, c of the lengths of opposite edges, and p = a + b + c.

    Args:
        cell: a cell of straight triangles or tetrahedra.
    Raises:
        ValueError: the mesh has other cells.
    """
    mesh, comm, d = cell.mesh, cell.mesh.comm, cell.dim
    name = mesh.topology.cell_name()
    if name not in ("triangle", "tetrahedron"):
        raise ValueError(f"the quality of triangles and tetrahedra is known, found {name}s")
    count = mesh.topology.index_map(d).size_local
    nodes = geometry_dofmap(mesh)[:count, : d + 1]
    x = mesh.geometry.x[:, :d]
    tags = np.zeros(
        mesh.topology.index_map(d).size_local + mesh.topology.index_map(d).num_ghosts, dtype=np.int32
    )
    tags[cell.cell_tags.indices] = cell.cell_tags.values
    known = cell.tags()
    filled = np.zeros(len(known))
    histogram = np.zeros(_BINS, dtype=np.int64)
    low = np.array([180.0, np.inf, np.inf])  # angle, radius ratio, volume
    high, total = 0.0, 0.0
    for start in range(0, count, _CHUNK):
        points = x[nodes[start : start + _CHUNK]]
        angles = dihedral_angles(points)
        volume, ratio = _volume_and_ratio(points)
        smallest = angles.min(axis=1)
        histogram += np.bincount(np.minimum((smallest * 10).astype(int), _BINS - 1), minlength=_BINS)
        low = np.minimum(low, [smallest.min(), ratio.min(), volume.min()])
        high, total = max(high, float(angles.max())), total + float(ratio.sum())
        for k, tag in enumerate(known):
            filled[k] += volume[tags[start : start + len(points)] == tag].sum()
    low, high = np.min(comm.allgather(low), axis=0), comm.allreduce(high, op=MPI.MAX)
    histogram, filled = comm.allreduce(histogram), comm.allreduce(filled)
    cells, total = int(histogram.sum()), comm.allreduce(total)
    below = np.cumsum(histogram)
    percentiles = {f"{p:g}": float(np.searchsorted(below, p / 100 * cells) / 10) for p in (0.1, 1, 10, 50)}
    names = {tag: phase for phase, tag in cell.phases.items()}
    return MeshQuality(
        cells,
        float(low[0]),
        high,
        percentiles,
        float(low[1]),
        total / max(cells, 1),
        float(low[2]),
        float(filled.sum() / cell.volume - 1) if cell.complete else float("nan"),
        {names.get(tag, str(tag)): float(v / cell.volume) for tag, v in zip(known, filled, strict=True)},
    )


def dihedral_angles(points: Array) -> Array:
    """Angles of triangles (m, 3, 2) or dihedral angles of tetrahedra (m, 4, 3) in degrees."""
    k = points.shape[1]
    if k == 3:
        e = [points[:, (i + 1) % 3] - points[:, i] for i in range(3)]
        cosine = [-_cosine(e[i], e[i - 1]) for i in range(3)]
    else:
        p = [points[:, i] for i in range(4)]
        outward = ((1, 2, 3), (0, 3, 2), (0, 1, 3), (0, 2, 1))
        n = [np.cross(p[b] - p[a], p[c] - p[a]) for a, b, c in outward]
        cosine = [-_cosine(n[i], n[j]) for i, j in itertools.combinations(range(4), 2)]
    return np.degrees(np.arccos(np.clip(np.stack(cosine, axis=1), -1, 1)))


def _cosine(a: npt.NDArray, b: npt.NDArray) -> npt.NDArray:
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _volume_and_ratio(points: Array) -> tuple[Array, Array]:
    k = points.shape[1]
    edge = {
        (i, j): np.linalg.norm(points[:, i] - points[:, j], axis=1)
        for i, j in itertools.combinations(range(k), 2)
    }
    if k == 3:
        u, v = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
        area = 0.5 * np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
        a, b, c = edge.values()
        return area, 16 * area**2 / (a * b * c * (a + b + c))
    u, v, w = (points[:, i] - points[:, 0] for i in (1, 2, 3))
    volume = np.abs(np.einsum("ij,ij->i", u, np.cross(v, w))) / 6
    corners = [[points[:, i] for i in face] for face in itertools.combinations(range(4), 3)]
    surface = sum(0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1) for a, b, c in corners)
    a, b, c = edge[0, 1] * edge[2, 3], edge[0, 2] * edge[1, 3], edge[0, 3] * edge[1, 2]
    p = a + b + c
    root = np.sqrt(np.maximum(p * (p - 2 * a) * (p - 2 * b) * (p - 2 * c), 0))
    return volume, 216 * volume**2 / (surface * np.where(root > 0, root, np.inf))
