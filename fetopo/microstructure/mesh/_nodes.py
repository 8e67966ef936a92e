"""Types of cells, their nodes in VTK's order, and whole meshes gathered on one rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh
from dolfinx.cpp.io import perm_vtk
from mpi4py import MPI

from fetopo._compat import geometry_dofmap
from fetopo._mpi import get_logger, require
from fetopo.microstructure.mesh.cell import UnitCell

#: Cell types by meshio's name: DOLFINx's name and degree.
TYPES = {
    "triangle": ("triangle", 1),
    "triangle6": ("triangle", 2),
    "quad": ("quadrilateral", 1),
    "quad9": ("quadrilateral", 2),
    "tetra": ("tetrahedron", 1),
    "tetra10": ("tetrahedron", 2),
    "hexahedron": ("hexahedron", 1),
    "hexahedron27": ("hexahedron", 2),
}

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
    order = np.argsort(from_vtk(meshio_type(cell)))
    points, cells, values = (np.concatenate(some) for some in zip(*parts, strict=True))
    return points, cells[:, order], values


def boxed(mesh: Any, tags: Any, phases: dict[str, int]) -> UnitCell:
    """The cell whose box is the bounding box of the mesh. Collective."""
    comm, dim = mesh.comm, mesh.geometry.dim
    x = mesh.geometry.x[:, :dim]
    lower, upper = np.empty(dim), np.empty(dim)
    comm.Allreduce(x.min(axis=0, initial=np.inf), lower, op=MPI.MIN)
    comm.Allreduce(x.max(axis=0, initial=-np.inf), upper, op=MPI.MAX)
    require(comm, bool((upper > lower).all()), f"the mesh is flat: it reaches from {lower} to {upper}")
    local = fem.assemble_scalar(fem.form(fem.Constant(mesh, 1.0) * ufl.Measure("dx", domain=mesh)))
    complete = bool(np.isclose(comm.allreduce(local), np.prod(upper - lower), rtol=1e-6))
    get_logger(__name__, comm).info("%s the box of %s to %s", "fills" if complete else "within", lower, upper)
    return UnitCell(mesh, tags, lower, upper, phases, complete)


def meshio_type(cell: UnitCell) -> str:
    key = (cell.mesh.topology.cell_name(), cell.mesh.ufl_domain().ufl_coordinate_element().degree)
    for kind, value in TYPES.items():
        if value == key:
            return kind
    raise NotImplementedError(f"cells of type {key[0]} and degree {key[1]} cannot be written")


def nodes_of(kind: str) -> int:
    return len(from_vtk(kind))


def from_vtk(kind: str) -> npt.NDArray[np.int64]:
    """Node of VTK's order at every place of DOLFINx's."""
    shape, degree = TYPES[kind]
    simplex = {"triangle": 2, "tetrahedron": 3}
    cube = {"quadrilateral": 2, "hexahedron": 3}
    if shape in cube:
        count = (degree + 1) ** cube[shape]
    else:
        d = simplex[shape]
        count = (d + 1) if degree == 1 else (d + 1) * (d + 2) // 2
    return np.asarray(perm_vtk(getattr(dmesh.CellType, shape), count), dtype=np.int64)
