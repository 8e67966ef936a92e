"""Meshes from and to files with the names of their phases."""

from __future__ import annotations

import os
from pathlib import Path

import basix.ufl
import numpy as np
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo._compat import create_mesh
from fetopo._mpi import on_every_rank
from fetopo.microstructure.mesh import _meshio
from fetopo.microstructure.mesh._nodes import TYPES, boxed, from_vtk, gather, nodes_of
from fetopo.microstructure.mesh.cell import UnitCell
from fetopo.microstructure.mesh.paraview import read_xdmf, write_xdmf


def read_mesh(
    comm: MPI.Intracomm, path: str | os.PathLike[str], *, name: str | None = None, scale: float = 1.0
) -> UnitCell:
    """Read a mesh and its phases: any format of meshio, or XDMF of DOLFINx.

    The cells of highest dimension are taken. Phases are the first of these that the file has: the array
    `name`; the arrays "phase", "gmsh:physical", "medit:ref", "cell_tags"; the sets of cells by name. Their
    names are those of physical groups, of sets, or of arrays "phase:NAME" as `write_mesh` leaves them.
    Without any of it every cell has tag 1.

    Args:
        comm: communicator to distribute the mesh over; rank 0 reads.
        path: file, its suffix tells the format; .h5-backed XDMF and .med need h5py in meshio.
        name: array of cell data with one whole number per cell, the phase; of DOLFINx's XDMF the cell tags.
        scale: metres in one unit of the file.
    Returns:
        The cell; its box is the bounding box of the mesh.
    Raises:
        FileNotFoundError: no such file.
        ValueError: on every rank; a file that meshio cannot read, no cells or cells of several types, an
            array that is not there or not of whole numbers, cells in no set or in two.
    """
    path = Path(path)
    if not 0 < scale < np.inf:
        raise ValueError(f"scale is {scale}: expected a positive number of metres")
    points, cells, tags, kind = None, None, None, ""
    phases: dict[str, int] = {}
    heavy = False
    with on_every_rank(comm):
        if comm.rank == 0:
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file")
            heavy = path.suffix.lower() == ".xdmf" and b".h5:/" in path.read_bytes()
            if not heavy:
                try:
                    points, cells, tags, kind, phases = _meshio.read(path, name)
                except ValueError as error:
                    raise ValueError(f"{path}: {error}") from error
    if comm.bcast(heavy):
        return read_xdmf(comm, path, name or "phase", scale)
    kind, phases, tags = comm.bcast((kind, phases, tags))
    shape, degree = TYPES[kind]
    dim = 2 if shape in ("triangle", "quadrilateral") else 3
    if comm.rank > 0:
        points, cells = np.zeros((0, dim)), np.zeros((0, nodes_of(kind)), dtype=np.int64)
    assert points is not None
    assert cells is not None
    assert tags is not None
    element = basix.ufl.element("Lagrange", shape, degree, shape=(dim,))
    mesh = create_mesh(comm, cells[:, from_vtk(kind)], points * scale, element)
    values = tags[mesh.topology.original_cell_index].astype(np.int32)
    cell_tags = dmesh.meshtags(mesh, dim, np.arange(values.size, dtype=np.int32), values)
    return boxed(mesh, cell_tags, phases)


def write_mesh(path: str | os.PathLike[str], cell: UnitCell, *, scale: float = 1.0) -> None:
    """Write a mesh with its phases in a format of meshio. Collective; the mesh is gathered on rank 0.

    Phases are kept by name: in .msh (Gmsh 2.2) as physical groups, in .inp as element sets, elsewhere
    (.vtu, .vtk) as the array "phase" of tags with one array "phase:NAME" of zeros and ones for each
    name. The file appears under its name only once it is complete. .xdmf is written by `write_xdmf` instead.

    Args:
        path: file; the suffix tells the format. A file of that name is replaced.
        cell: what to write.
        scale: units of the file in one metre.
    Raises:
        ValueError: on every rank; a suffix that meshio does not know, or a format that cannot hold the cells.
    """
    path = Path(path)
    if not 0 < scale < np.inf:
        raise ValueError(f"scale is {scale}: expected a positive number")
    if path.suffix == ".xdmf":
        if scale != 1.0:
            raise ValueError(f"scale is {scale}: XDMF is written in metres, expected 1")
        return write_xdmf(path, cell)
    with on_every_rank(cell.mesh.comm):
        _meshio.library()
    mesh = gather(cell)
    with on_every_rank(cell.mesh.comm):
        if cell.mesh.comm.rank == 0:
            assert mesh is not None
            _meshio.write(path, mesh, cell, scale)
