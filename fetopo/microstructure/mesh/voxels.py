"""Voxel images as meshes, one cell per voxel, each rank creating its own slab; and cell values as images."""

from __future__ import annotations

from collections.abc import Iterable

import basix.ufl
import numpy as np
import numpy.typing as npt
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo._compat import create_mesh
from fetopo.microstructure.mesh.cell import UnitCell


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
