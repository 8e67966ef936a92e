"""Meshes of unit cells and of voxel images, distributed over MPI ranks, with one cell tag per phase."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import basix.ufl
import numpy as np
import numpy.typing as npt
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo._compat import create_mesh, create_submesh

_REGULAR = {
    "triangle": (2, dmesh.CellType.triangle),
    "quadrilateral": (2, dmesh.CellType.quadrilateral),
    "tetrahedron": (3, dmesh.CellType.tetrahedron),
    "hexahedron": (3, dmesh.CellType.hexahedron),
}


@dataclass(frozen=True)
class UnitCell:
    """A box-shaped piece of material with its mesh.

    Attributes:
        mesh: the mesh, of the whole box or of some of its phases.
        cell_tags: phase of each cell.
        lower, upper: corners of the box, shape (d,), in metres. Averages are over this box.
        phases: names of the tags, where they have any.
        complete: whether the mesh fills the box.
        grid: voxels per axis where every cell of the mesh is one voxel of a regular grid, else None.
    """

    mesh: Any
    cell_tags: Any
    lower: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]
    phases: Mapping[str, int] = field(default_factory=dict)
    complete: bool = True
    grid: tuple[int, ...] | None = None

    @property
    def dim(self) -> int:
        return len(self.lower)

    @property
    def lengths(self) -> npt.NDArray[np.float64]:
        return self.upper - self.lower

    @property
    def volume(self) -> float:
        """Volume of the box (not of the mesh, which may leave phases out)."""
        return float(np.prod(self.lengths))

    def tag(self, phase: int | str) -> int:
        """Tag of a phase given by name or tag.

        Raises:
            ValueError: the cell has no phase of that name.
        """
        if isinstance(phase, str):
            if phase not in self.phases:
                raise ValueError(
                    f"no phase {phase!r}; this cell has {', '.join(self.phases) or 'unnamed tags'}"
                )
            return self.phases[phase]
        return int(phase)

    def tags(self) -> list[int]:
        """Tags present on any rank, sorted. Collective."""
        found = self.mesh.comm.allgather(np.unique(self.cell_tags.values).tolist())
        return sorted({int(tag) for part in found for tag in part})


def regular_cell(
    comm: MPI.Intracomm,
    shape: Sequence[int],
    lengths: Sequence[float] | None = None,
    cell_type: str | None = None,
) -> UnitCell:
    """A box meshed regularly; every cell has tag 1.

    Args:
        comm: communicator to distribute the mesh over.
        shape: divisions per axis, (nx, ny) or (nx, ny, nz).
        lengths: edge lengths in metres; default: the longest is 1 and divisions are cubes.
        cell_type: "quadrilateral" (default in 2D), "triangle", "hexahedron" (default in 3D) or "tetrahedron".
    Raises:
        ValueError: counts or lengths that are not positive, or a cell type of another dimension.
    """
    dim = len(shape)
    if dim not in (2, 3) or any(int(n) != n or n < 1 for n in shape):
        raise ValueError(f"shape must be 2 or 3 positive integers, found {tuple(shape)}")
    lengths = [n / max(shape) for n in shape] if lengths is None else [float(a) for a in lengths]
    if len(lengths) != dim or not all(np.isfinite(a) and a > 0 for a in lengths):
        raise ValueError(f"lengths must be {dim} positive numbers, found {lengths}")
    cell_type = cell_type or ("quadrilateral" if dim == 2 else "hexahedron")
    if cell_type not in _REGULAR or _REGULAR[cell_type][0] != dim:
        raise ValueError(f"no cell type {cell_type!r} in {dim}D; choose from {_names(dim)}")
    create = dmesh.create_rectangle if dim == 2 else dmesh.create_box
    kind = _REGULAR[cell_type][1]
    mesh = create(comm, [np.zeros(dim), np.array(lengths)], [int(n) for n in shape], cell_type=kind)
    grid = tuple(int(n) for n in shape) if cell_type in ("quadrilateral", "hexahedron") else None
    return UnitCell(mesh, _tag_all(mesh, 1), np.zeros(dim), np.array(lengths), {}, True, grid)


def voxel_cell(
    comm: MPI.Intracomm,
    labels: npt.NDArray,
    voxel_size: float | npt.ArrayLike = 1.0,
    *,
    phases: Iterable[int] | None = None,
) -> UnitCell:
    """A voxel image as a mesh: one quadrilateral or hexahedron per voxel, tagged with its label.

    Array axis 0 is x, axis 1 is y, axis 2 is z. Each rank creates the cells of its own slab.

    Args:
        comm: communicator to distribute the mesh over.
        labels: integer labels, 2D or 3D, the same array on every rank.
        voxel_size: edge length of a voxel in metres, one number or one per axis.
        phases: labels to mesh; default all. Only their voxels become cells.
    Returns:
        The cell; its box is that of the whole image.
    Raises:
        ValueError: an image that is empty or not 2D or 3D, a label that does not occur, a voxel size that
            is not positive.
    """
    labels = np.asarray(labels)
    if labels.ndim not in (2, 3) or labels.size == 0:
        raise ValueError(f"a 2D or 3D image is needed, found shape {labels.shape}")
    if labels.dtype.kind not in "iub":
        raise ValueError(f"labels must be integers, found {labels.dtype}")
    h = np.broadcast_to(np.asarray(voxel_size, dtype=float), (labels.ndim,))
    if not (np.isfinite(h).all() and (h > 0).all()):
        raise ValueError(f"voxel size must be positive, found {h.tolist()}")
    present = set(np.unique(labels).tolist())
    wanted = present if phases is None else {int(p) for p in phases}
    if not wanted or not wanted <= present:
        raise ValueError(f"phases {sorted(wanted)} are not all in the image, which has {sorted(present)}")
    keep = np.isin(labels, list(wanted))

    cells, nodes = _slab(comm, keep)
    name = "quadrilateral" if labels.ndim == 2 else "hexahedron"
    element = basix.ufl.element("Lagrange", name, 1, shape=(labels.ndim,))
    mesh = create_mesh(comm, cells, nodes * h, element)
    upper = h * labels.shape
    bare = UnitCell(mesh, None, np.zeros(labels.ndim), upper, {}, wanted == present, labels.shape)
    values = labels[tuple(voxel_of_cells(bare).T)].astype(np.int32)
    tags = dmesh.meshtags(mesh, labels.ndim, np.arange(values.size, dtype=np.int32), values)
    return UnitCell(mesh, tags, bare.lower, upper, {}, bare.complete, labels.shape)


def voxel_of_cells(cell: UnitCell) -> npt.NDArray[np.int64]:
    """Voxel index of each local cell (ghosts included) of a regular cell, shape (n, d).

    Raises:
        ValueError: the mesh is not one of voxels.
    """
    if cell.grid is None:
        raise ValueError("this cell is not a regular grid of voxels")
    tdim = cell.mesh.topology.dim
    imap = cell.mesh.topology.index_map(tdim)
    here = np.arange(imap.size_local + imap.num_ghosts, dtype=np.int32)
    middle = dmesh.compute_midpoints(cell.mesh, tdim, here)[:, : cell.dim]
    return np.floor((middle - cell.lower) / cell.lengths * cell.grid).astype(np.int64)


def to_image(cell: UnitCell, values: npt.NDArray[np.float64], fill: float = 0.0) -> npt.NDArray[np.float64]:
    """Cell values of a regular cell as an array, complete on every rank.

    Args:
        cell: a cell with a grid.
        values: one value per owned cell (the array of a DG0 function).
        fill: value of voxels without a cell.
    Returns:
        Array of the cell's grid shape; axis 0 is x.
    """
    owned = cell.mesh.topology.index_map(cell.mesh.topology.dim).size_local
    index = tuple(voxel_of_cells(cell)[:owned].T)
    assert cell.grid is not None
    image = np.zeros(cell.grid)
    image[index] = np.asarray(values)[:owned] - fill
    cell.mesh.comm.Allreduce(MPI.IN_PLACE, image)
    return image + fill


def select_phases(cell: UnitCell, phases: Iterable[int | str]) -> UnitCell:
    """The part of a cell that is made of some phases, as a cell with the same box.

    Raises:
        ValueError: a phase that is not there, on every rank.
    """
    wanted = sorted({cell.tag(p) for p in phases})
    present = cell.tags()
    if not wanted or not set(wanted) <= set(present):
        raise ValueError(f"phases {wanted} are not all in the cell, which has tags {present}")
    if wanted == present:
        return cell
    tdim = cell.mesh.topology.dim
    imap = cell.mesh.topology.index_map(tdim)
    tags = np.zeros(imap.size_local + imap.num_ghosts, dtype=np.int32)
    tags[cell.cell_tags.indices] = cell.cell_tags.values
    chosen = np.flatnonzero(np.isin(tags, wanted)).astype(np.int32)
    mesh, parent = create_submesh(cell.mesh, chosen)
    values = tags[parent].astype(np.int32)
    sub_tags = dmesh.meshtags(mesh, tdim, np.arange(values.size, dtype=np.int32), values)
    names = {name: tag for name, tag in cell.phases.items() if tag in wanted}
    return UnitCell(mesh, sub_tags, cell.lower, cell.upper, names, False, cell.grid)


def _slab(
    comm: MPI.Intracomm, keep: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """This rank's cells, by node numbers over all ranks, and the lattice positions of its nodes."""
    per_plane = keep.reshape(keep.shape[0], -1).sum(axis=1)
    share = np.cumsum(per_plane) / per_plane.sum()
    ends = [int(np.searchsorted(share, (r + 1) / comm.size - 1e-12)) + 1 for r in range(comm.size)]
    ends[-1] = keep.shape[0]
    bounds = np.maximum.accumulate([0, *np.minimum(ends, keep.shape[0])])
    start, stop = int(bounds[comm.rank]), int(bounds[comm.rank + 1])

    # A node plane belongs to the slab above it; only nodes that some kept voxel touches are numbered.
    lattice = [n + 1 for n in keep.shape]
    used = np.zeros((stop - start + 1, *lattice[1:]), dtype=bool)
    padded = np.pad(
        keep[max(start - 1, 0) : stop + 1],
        [(int(start == 0), int(stop == keep.shape[0]))] + [(1, 1)] * (keep.ndim - 1),
    )
    corners = np.ndindex(*(2,) * keep.ndim)
    for shift in corners:
        window = tuple(slice(c, c + n) for c, n in zip(shift, used.shape, strict=True))
        used |= padded[window]
    last = stop == keep.shape[0]
    own = used if last else used[:-1]
    if stop == start:
        own = used[:0]
    count = int(own.sum())
    offset = int(comm.exscan(count) or 0)
    numbers = np.cumsum(used.reshape(-1)).reshape(used.shape) - 1 + offset

    voxels = np.argwhere(keep[start:stop])
    cells = np.empty((len(voxels), 2**keep.ndim), dtype=np.int64)
    # DOLFINx numbers the vertices of a voxel with x running fastest.
    for vertex in range(2**keep.ndim):
        corner = [(vertex >> axis) & 1 for axis in range(keep.ndim)]
        cells[:, vertex] = numbers[tuple((voxels + np.array(corner)).T)]
    nodes = np.argwhere(own)
    nodes[:, 0] += start
    return cells, nodes


def _tag_all(mesh: Any, tag: int) -> Any:
    imap = mesh.topology.index_map(mesh.topology.dim)
    here = np.arange(imap.size_local + imap.num_ghosts, dtype=np.int32)
    return dmesh.meshtags(mesh, mesh.topology.dim, here, np.full(here.size, tag, dtype=np.int32))


def _names(dim: int) -> str:
    return ", ".join(name for name, (d, _) in _REGULAR.items() if d == dim)
