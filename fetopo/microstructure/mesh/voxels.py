"""Voxel images as meshes, one cell per voxel, each rank creating its own slab; and cell values as images."""

from __future__ import annotations

from collections.abc import Iterable

import basix.ufl
import numpy as np
import numpy.typing as npt
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo._compat import create_mesh
from fetopo.microstructure._voxels import VoxelSize, voxel_sides, voxels_of
from fetopo.microstructure.mesh.cell import UnitCell
from fetopo.microstructure.slab import Slab


def voxel_cell(
    comm: MPI.Intracomm,
    labels: npt.NDArray | Slab,
    voxel_size: VoxelSize | None = None,
    *,
    phases: Iterable[int] | None = None,
) -> UnitCell:
    """A voxel image as a mesh: one quadrilateral or hexahedron per voxel, tagged with its label.

    Array axis 0 is x, axis 1 is y, axis 2 is z. Each rank creates the cells of its own rows and learns from
    its neighbours the row next to them; DOLFINx then gives every rank its share of the mesh. Given a slab, no
    rank ever holds the whole image.

    Args:
        comm: communicator to distribute the mesh over.
        labels: integer labels, 2D or 3D: the same array on every rank, or the slab of this rank.
        voxel_size: edge length of a voxel in metres, one number or one per axis; default that of the slab, 1
            for an array.
        phases: labels to mesh; default all. Only their voxels become cells.
    Returns:
        The cell; its box is that of the whole image.
    Raises:
        ValueError: an image that is empty or not 2D or 3D, a label that does not occur, a voxel size that
            is not positive.
    """
    slab = labels if isinstance(labels, Slab) else Slab.share(comm, labels)
    if slab.values.dtype.kind not in "iub":
        raise ValueError(f"labels must be integers, found {slab.values.dtype}")
    h = np.array(slab.voxel_size if voxel_size is None else voxel_sides(voxel_size, slab.dim))
    present = list(slab.phases())
    wanted = present if phases is None else sorted({int(p) for p in phases})
    if not wanted or not set(wanted) <= set(present):
        raise ValueError(f"phases {wanted} are not all in the image, which has {present}")

    cells, nodes = _cells(slab.like(voxels_of(slab.values, wanted)))
    name = "quadrilateral" if slab.dim == 2 else "hexahedron"
    element = basix.ufl.element("Lagrange", name, 1, shape=(slab.dim,))
    mesh = create_mesh(comm, cells, nodes * h, element)
    bare = UnitCell(mesh, None, np.zeros(slab.dim), h * slab.shape, {}, wanted == present, slab.shape)
    # After the distribution a cell knows its place, and the rank that has this voxel in its slab its label.
    values = slab.at(voxel_of_cells(bare)).astype(np.int32)
    tags = dmesh.meshtags(mesh, slab.dim, np.arange(values.size, dtype=np.int32), values)
    return UnitCell(mesh, tags, bare.lower, bare.upper, {}, bare.complete, slab.shape)


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


def _cells(keep: Slab) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cells of the voxels kept in this slab, by node numbers over all ranks, and the places of its nodes.

    The nodes between two slabs belong to the one that comes after; only nodes of some kept voxel are
    numbered, rank by rank. The last ones of a slab's cells are thus the first of the next rank's.
    """
    rows, cross, dim = len(keep.values), keep.shape[1:], keep.dim
    before, after = keep.neighbours()
    empty = np.zeros((1, *cross), dtype=bool)
    around = np.concatenate(
        [empty if before is None else before[None], keep.values, empty if after is None else after[None]]
    )
    padded = np.pad(around, [(0, 0)] + [(1, 1)] * (dim - 1))
    used = np.zeros((rows + 1, *(n + 1 for n in cross)), dtype=bool)
    for shift in np.ndindex(*(2,) * dim):
        used |= padded[tuple(slice(c, c + n) for c, n in zip(shift, used.shape, strict=True))]
    own = used if after is None else used[:-1]
    if rows == 0:
        own = used[:0]
    offset = sum(keep.comm.allgather(int(own.sum()))[: keep.comm.rank])
    numbers = np.cumsum(used).reshape(used.shape)
    numbers += offset - 1

    voxels = np.argwhere(keep.values)
    cells = np.empty((len(voxels), 2**dim), dtype=np.int64)
    # DOLFINx numbers the vertices of a voxel with x running fastest.
    for vertex in range(2**dim):
        corner = [(vertex >> axis) & 1 for axis in range(dim)]
        cells[:, vertex] = numbers[tuple((voxels + np.array(corner)).T)]
    nodes = np.argwhere(own)
    nodes[:, 0] += keep.first
    return cells, nodes
