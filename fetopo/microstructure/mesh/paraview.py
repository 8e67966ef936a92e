"""Meshes and functions for ParaView: XDMF, which can be read again, and VTX."""

from __future__ import annotations

import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dolfinx
from dolfinx import fem
from dolfinx import mesh as dmesh
from dolfinx.io import VTXWriter, XDMFFile
from mpi4py import MPI

from fetopo._mpi import on_every_rank
from fetopo.microstructure.mesh._meshio import MARK
from fetopo.microstructure.mesh._nodes import boxed
from fetopo.microstructure.mesh.cell import UnitCell


def write_xdmf(path: str | os.PathLike[str], cell: UnitCell, functions: Sequence[fem.Function] = ()) -> None:
    """Write the mesh, its phases (cell tags "phase") and functions as XDMF for ParaView, in parallel.

    Two files, .xdmf and .h5. The names of the phases are written as an `Information` of the XDMF, which
    ParaView ignores and `read_mesh` reads. Collective.

    Args:
        path: file that ends in .xdmf.
        cell: mesh and phases.
        functions: on that mesh, of the degree of its geometry or constant in each cell.
    Raises:
        ValueError: another suffix; on every rank.
    """
    path = Path(path)
    if path.suffix != ".xdmf":
        raise ValueError(f"{path}: expected a file that ends in .xdmf")
    comm = cell.mesh.comm
    with _beside(comm, path) as folder:
        cell.mesh.topology.create_connectivity(cell.dim - 1, cell.dim)
        tags = dmesh.meshtags(cell.mesh, cell.dim, cell.cell_tags.indices, cell.cell_tags.values)
        tags.name = "phase"
        with XDMFFile(comm, str(folder / path.name), "w") as file:
            file.write_mesh(cell.mesh)
            file.write_meshtags(tags, cell.mesh.geometry)
            for function in functions:
                file.write_function(function)
        with on_every_rank(comm):
            if comm.rank == 0:
                tree = ET.parse(folder / path.name)
                domain = tree.getroot().find("Domain")
                assert domain is not None
                for name, tag in cell.phases.items():
                    ET.SubElement(domain, "Information", Name=MARK + name, Value=str(tag))
                tree.write(folder / path.name, encoding="utf-8", xml_declaration=True)
                # The heavy data first: what names it comes when it is there.
                for suffix in (".h5", ".xdmf"):
                    os.replace((folder / path.name).with_suffix(suffix), path.with_suffix(suffix))


def read_xdmf(comm: MPI.Intracomm, path: Path, name: str, scale: float) -> UnitCell:
    """What `write_xdmf` or DOLFINx wrote."""
    phases: dict[str, int] = {}
    grid = ""
    with on_every_rank(comm):
        if comm.rank == 0:
            root = ET.parse(path).getroot()
            grids = [g.get("Name", "") for g in root.iter("Grid")]
            if not grids or not path.with_suffix(".h5").is_file():
                raise ValueError(f"{path}: expected a grid in it and its .h5 beside it")
            grid = grids[0]
            if name not in grids:
                raise ValueError(f"{path}: no cell tags {name!r}, found {', '.join(grids[1:]) or 'none'}")
            for item in root.iter("Information"):
                if item.get("Name", "").startswith(MARK):
                    phases[item.get("Name", "")[len(MARK) :]] = int(item.get("Value", ""))
    grid, phases = comm.bcast((grid, phases))
    with XDMFFile(comm, str(path), "r") as file:
        mesh = file.read_mesh(name=grid)
        mesh.topology.create_connectivity(mesh.topology.dim, mesh.topology.dim)
        tags = file.read_meshtags(mesh, name=name)
    mesh.geometry.x[:] *= scale
    return boxed(mesh, tags, phases)


def write_vtx(path: str | os.PathLike[str], cell: UnitCell, functions: Sequence[fem.Function] = ()) -> None:
    """Write functions, or without any the phases, as VTX (ADIOS2) for ParaView, in parallel. Collective.

    VTX shows Lagrange functions of any degree as they are, on curved cells too. The phases are written as the
    discontinuous function "phase" of the tags; VTX has no place for their names.

    Args:
        path: folder that ends in .bp; one of that name is replaced.
        cell: mesh and phases.
        functions: Lagrange functions on that mesh, all of one element.
    Raises:
        ValueError: another suffix, functions of different elements; on every rank.
        RuntimeError: DOLFINx was built without ADIOS2.
    """
    path = Path(path)
    if path.suffix != ".bp":
        raise ValueError(f"{path}: expected a folder that ends in .bp")
    if not dolfinx.has_adios2:
        raise RuntimeError("this DOLFINx has no ADIOS2, which VTX needs: use write_xdmf")
    if len({f.function_space.ufl_element() for f in functions}) > 1:
        raise ValueError("VTX holds functions of one element: expected that, or one file for each")
    if not functions:
        degree = cell.mesh.ufl_domain().ufl_coordinate_element().degree
        V = fem.functionspace(cell.mesh, ("DG", degree))
        phase = fem.Function(V, name="phase")
        phase.x.array[V.dofmap.list[cell.cell_tags.indices]] = cell.cell_tags.values[:, None]
        functions = [phase]
    comm = cell.mesh.comm
    with _beside(comm, path) as folder:
        with VTXWriter(comm, str(folder / path.name), list(functions), engine="BP4") as file:
            file.write(0.0)
        with on_every_rank(comm):
            if comm.rank == 0:
                old = folder / "old"
                if path.exists():
                    os.replace(path, old)
                os.replace(folder / path.name, path)


@contextmanager
def _beside(comm: MPI.Intracomm, path: Path) -> Iterator[Path]:
    """A folder beside `path`, the same on every rank, that is gone after the block."""
    folder = path.with_name(f".{path.name}.{comm.bcast(os.getpid())}.part")
    with on_every_rank(comm):
        if comm.rank == 0:
            folder.mkdir()
    try:
        yield folder
    finally:
        comm.Barrier()
        if comm.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
