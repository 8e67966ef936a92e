"""Meshes from and to files with the names of their phases: what meshio reads, XDMF and VTX for ParaView."""

from __future__ import annotations

import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import basix.ufl
import dolfinx
import numpy as np
import numpy.typing as npt
from dolfinx import fem
from dolfinx import mesh as dmesh
from dolfinx.cpp.io import perm_vtk
from dolfinx.io import VTXWriter, XDMFFile
from mpi4py import MPI

from fetopo._compat import create_mesh, geometry_dofmap
from fetopo._mpi import get_logger, on_every_rank, require
from fetopo.microstructure.mesh.cell import UnitCell

#: Cell types by meshio's name: DOLFINx's name and degree.
_TYPES = {
    "triangle": ("triangle", 1),
    "triangle6": ("triangle", 2),
    "quad": ("quadrilateral", 1),
    "quad9": ("quadrilateral", 2),
    "tetra": ("tetrahedron", 1),
    "tetra10": ("tetrahedron", 2),
    "hexahedron": ("hexahedron", 1),
    "hexahedron27": ("hexahedron", 2),
}
#: Cell types of a dimension, with those that are known but cannot be used.
_OF_DIMENSION = {
    3: ("tetra", "hexahedron", "wedge", "pyramid"),
    2: ("triangle", "quad"),
}
#: Arrays of cell data in which phases are looked for.
_ARRAYS = ("phase", "gmsh:physical", "medit:ref", "cell_tags")
#: An array of zeros and ones by this prefix and the name of a phase marks its cells.
_MARK = "phase:"


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
                    points, cells, tags, kind, phases = _read_with_meshio(path, name)
                except ValueError as error:
                    raise ValueError(f"{path}: {error}") from error
    if comm.bcast(heavy):
        return _read_xdmf(comm, path, name or "phase", scale)
    kind, phases, tags = comm.bcast((kind, phases, tags))
    shape, degree = _TYPES[kind]
    dim = 2 if shape in ("triangle", "quadrilateral") else 3
    if comm.rank > 0:
        points, cells = np.zeros((0, dim)), np.zeros((0, _nodes(kind)), dtype=np.int64)
    assert points is not None
    assert cells is not None
    assert tags is not None
    element = basix.ufl.element("Lagrange", shape, degree, shape=(dim,))
    mesh = create_mesh(comm, cells[:, _from_vtk(kind)], points * scale, element)
    values = tags[mesh.topology.original_cell_index].astype(np.int32)
    cell_tags = dmesh.meshtags(mesh, dim, np.arange(values.size, dtype=np.int32), values)
    return _boxed(mesh, cell_tags, phases)


def _read_with_meshio(path: Path, name: str | None) -> tuple[Any, Any, Any, str, dict[str, int]]:
    """Nodes (n, d), cells in VTK's order of nodes, their tags, their type, names of the tags."""
    meshio = _meshio()
    try:
        mesh = meshio.read(path)
    except (Exception, SystemExit) as error:  # meshio ends the process where it knows no reader
        raise ValueError(f"meshio cannot read it: {str(error).strip() or type(error).__name__}") from error
    kinds = [block.type for block in mesh.cells]
    for wanted in (3, 2):
        chosen = [k for k, kind in enumerate(kinds) if kind.rstrip("0123456789") in _OF_DIMENSION[wanted]]
        if chosen:
            break
    else:
        raise ValueError(
            f"no triangles, quadrilaterals, tetrahedra or hexahedra, found {kinds or 'no cells'}"
        )
    of_dim = sorted({kinds[k] for k in chosen})
    if len(of_dim) > 1 or of_dim[0] not in _TYPES:
        raise ValueError(f"cells of type {', '.join(of_dim)}: expected one of {', '.join(_TYPES)}")
    cells = np.vstack([mesh.cells[k].data for k in chosen]).astype(np.int64)
    tags, phases = _phases(mesh, chosen, wanted, name)

    points = np.asarray(mesh.points, dtype=float)
    if not np.isfinite(points).all():
        raise ValueError("nodes hold NaN or infinity: expected finite coordinates")
    # Nodes of other cells would be left without an owner.
    used, cells = np.unique(cells, return_inverse=True)
    cells = cells.reshape(-1, _nodes(of_dim[0]))
    points = points[used]
    if wanted == 2 and points.shape[1] == 3 and np.abs(points[:, 2]).max() > 1e-9 * np.ptp(points):
        raise ValueError("a surface in space: expected triangles or quadrilaterals in the plane z = 0")
    return np.ascontiguousarray(points[:, :wanted]), cells, tags, of_dim[0], phases


def _phases(
    mesh: Any, chosen: Sequence[int], dim: int, name: str | None
) -> tuple[npt.NDArray[np.int32], dict[str, int]]:
    data = {key: np.concatenate([blocks[k] for k in chosen]) for key, blocks in mesh.cell_data.items()}
    if name is not None and name not in data:
        raise ValueError(f"no cell data {name!r}, found {', '.join(data) or 'none'}")
    found = name or next((key for key in _ARRAYS if key in data), None)
    marks = {key[len(_MARK) :]: np.flatnonzero(data[key]) for key in data if key.startswith(_MARK)}
    if found is not None:
        values = data[found]
        if values.ndim != 1 or not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise ValueError(f"cell data {found!r} is not one whole number per cell")
        tags = values.astype(np.int32)
        phases = {key: int(tag) for key, (tag, d) in mesh.field_data.items() if d == dim}
        for key, cells in marks.items():
            own = np.unique(tags[cells])
            if len(own) == 1:
                phases[key] = int(own[0])
        present = set(tags.tolist())
        return tags, {key: tag for key, tag in phases.items() if tag in present}
    sets = {
        key: np.concatenate(_offset(mesh, blocks, chosen))
        for key, blocks in mesh.cell_sets.items()
        if not key.startswith("gmsh:")
    } or marks
    sets = {key: cells for key, cells in sets.items() if len(cells)}
    count = sum(len(mesh.cells[k].data) for k in chosen)
    tags = np.zeros(count, dtype=np.int32)
    times = np.zeros(count, dtype=np.int64)
    for tag, cells in enumerate(sets.values(), start=1):
        tags[cells.astype(np.int64)] = tag
        times[cells.astype(np.int64)] += 1
    if not sets:
        return np.ones(count, dtype=np.int32), {}
    if (times != 1).any():
        raise ValueError(
            f"{int((times == 0).sum())} cells are in no set and {int((times > 1).sum())} in several of "
            f"{', '.join(sets)}: expected each in one, or name the cell data that holds the phase"
        )
    return tags, {key: tag for tag, key in enumerate(sets, start=1)}


def _offset(mesh: Any, blocks: Sequence[Any], chosen: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """Cells of a set, counted through all chosen blocks."""
    found: list[npt.NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    first = 0
    for k in chosen:
        if blocks[k] is not None:
            found.append(np.asarray(blocks[k], dtype=np.int64) + first)
        first += len(mesh.cells[k].data)
    return found


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
        _meshio()
    mesh = gather(cell)
    with on_every_rank(cell.mesh.comm):
        if cell.mesh.comm.rank == 0:
            assert mesh is not None
            _write_with_meshio(path, mesh, cell, scale)


def _write_with_meshio(path: Path, gathered: Gathered, cell: UnitCell, scale: float) -> None:
    meshio = _meshio()
    points, cells, tags = gathered
    kind = _meshio_type(cell)
    points = points * scale
    names = {name: tag for name, tag in cell.phases.items() if (tags == tag).any()}
    suffix, options = path.suffix.lower(), {}
    if suffix not in meshio.extension_to_filetypes:
        raise ValueError(f"{path}: meshio writes no {path.suffix!r}, expected for example .msh, .vtu or .inp")
    blocks: dict[str, Any] = {"cell_data": {"phase": [tags]}}
    if suffix == ".msh":
        options = {"file_format": "gmsh22", "binary": True}
        values = [tags.astype(np.int32)]
        blocks = {"cell_data": {"gmsh:physical": values, "gmsh:geometrical": values}}
        blocks["field_data"] = {name: np.array([tag, cell.dim]) for name, tag in names.items()}
    elif suffix == ".inp":
        unnamed = {f"phase_{tag}": int(tag) for tag in np.unique(tags) if tag not in names.values()}
        sets = {name: [np.flatnonzero(tags == tag)] for name, tag in {**names, **unnamed}.items()}
        options, blocks = {"file_format": "abaqus"}, {"cell_sets": sets}
    else:
        for name, tag in names.items():
            blocks["cell_data"][_MARK + name] = [(tags == tag).astype(np.int32)]
    # Formats of 3D only, and ParaView, want a third coordinate.
    points = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
    with replacing(path) as part:
        try:
            meshio.write(part, meshio.Mesh(points, [(kind, cells)], **blocks), **options)
        except (Exception, SystemExit) as error:
            raise ValueError(f"{path}: meshio cannot write it: {error}") from error


Gathered = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int32]]


def gather(cell: UnitCell) -> Gathered | None:
    """All nodes (n, d), cells in VTK's order of nodes and tags of a mesh, on rank 0. Collective."""
    mesh = cell.mesh
    comm, tdim = mesh.comm, mesh.topology.dim
    nodes = mesh.geometry.index_map()
    owned = mesh.topology.index_map(tdim).size_local
    dofmap = geometry_dofmap(mesh)[:owned]
    tags = np.zeros(owned, dtype=np.int32)
    own = cell.cell_tags.indices < owned
    tags[cell.cell_tags.indices[own]] = cell.cell_tags.values[own]
    numbers = nodes.local_to_global(dofmap.reshape(-1).astype(np.int32)).reshape(dofmap.shape)
    parts = comm.gather((mesh.geometry.x[: nodes.size_local, : cell.dim], numbers, tags))
    if parts is None:
        return None
    order = np.argsort(_from_vtk(_meshio_type(cell)))
    points, cells, values = (np.concatenate(some) for some in zip(*parts, strict=True))
    return points, cells[:, order], values


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
                    ET.SubElement(domain, "Information", Name=_MARK + name, Value=str(tag))
                tree.write(folder / path.name, encoding="utf-8", xml_declaration=True)
                # The heavy data first: what names it comes when it is there.
                for suffix in (".h5", ".xdmf"):
                    os.replace((folder / path.name).with_suffix(suffix), path.with_suffix(suffix))


def _read_xdmf(comm: MPI.Intracomm, path: Path, name: str, scale: float) -> UnitCell:
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
                if item.get("Name", "").startswith(_MARK):
                    phases[item.get("Name", "")[len(_MARK) :]] = int(item.get("Value", ""))
    grid, phases = comm.bcast((grid, phases))
    with XDMFFile(comm, str(path), "r") as file:
        mesh = file.read_mesh(name=grid)
        mesh.topology.create_connectivity(mesh.topology.dim, mesh.topology.dim)
        tags = file.read_meshtags(mesh, name=name)
    mesh.geometry.x[:] *= scale
    return _boxed(mesh, tags, phases)


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
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` that takes its place when the block ends well and vanishes when it does not."""
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


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


def _boxed(mesh: Any, tags: Any, phases: dict[str, int]) -> UnitCell:
    """The cell whose box is the bounding box of the mesh. Collective."""
    comm, dim = mesh.comm, mesh.geometry.dim
    x = mesh.geometry.x[:, :dim]
    lower, upper = np.empty(dim), np.empty(dim)
    comm.Allreduce(x.min(axis=0, initial=np.inf), lower, op=MPI.MIN)
    comm.Allreduce(x.max(axis=0, initial=-np.inf), upper, op=MPI.MAX)
    require(comm, bool((upper > lower).all()), f"the mesh is flat: it reaches from {lower} to {upper}")
    local = fem.assemble_scalar(fem.form(fem.Constant(mesh, 1.0) * _dx(mesh)))
    complete = bool(np.isclose(comm.allreduce(local), np.prod(upper - lower), rtol=1e-6))
    get_logger(__name__, comm).info("%s the box of %s to %s", "fills" if complete else "within", lower, upper)
    return UnitCell(mesh, tags, lower, upper, phases, complete)


def _dx(mesh: Any) -> Any:
    import ufl

    return ufl.Measure("dx", domain=mesh)


def _meshio_type(cell: UnitCell) -> str:
    key = (cell.mesh.topology.cell_name(), cell.mesh.ufl_domain().ufl_coordinate_element().degree)
    for kind, value in _TYPES.items():
        if value == key:
            return kind
    raise NotImplementedError(f"cells of type {key[0]} and degree {key[1]} cannot be written")


def _nodes(kind: str) -> int:
    return len(_from_vtk(kind))


def _from_vtk(kind: str) -> npt.NDArray[np.int64]:
    """Node of VTK's order at every place of DOLFINx's."""
    shape, degree = _TYPES[kind]
    simplex = {"triangle": 2, "tetrahedron": 3}
    cube = {"quadrilateral": 2, "hexahedron": 3}
    if shape in cube:
        count = (degree + 1) ** cube[shape]
    else:
        d = simplex[shape]
        count = (d + 1) if degree == 1 else (d + 1) * (d + 2) // 2
    return np.asarray(perm_vtk(getattr(dmesh.CellType, shape), count), dtype=np.int64)


def _meshio() -> Any:
    try:
        import meshio
    except ImportError as error:
        raise ImportError("mesh files need meshio: install meshio") from error
    return meshio
