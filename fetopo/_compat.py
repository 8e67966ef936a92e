"""The only module that knows DOLFINx has versions: what 0.9 to 0.11 have under different names."""

from __future__ import annotations

from typing import Any

import dolfinx
import numpy as np
import numpy.typing as npt
from dolfinx import cpp as _cpp
from dolfinx import fem
from mpi4py import MPI

#: (major, minor) of the DOLFINx in use.
VERSION = tuple(int(part) for part in dolfinx.__version__.split(".")[:2])

if not (0, 9) <= VERSION < (0, 12):
    raise ImportError(f"fetopo needs DOLFINx 0.9, 0.10 or 0.11, found {dolfinx.__version__}")


def gmsh_to_mesh(model: Any, comm: MPI.Comm, rank: int, gdim: int) -> tuple[Any, Any, Any]:
    """Distribute a Gmsh model that lives on `rank`; returns mesh, cell tags and facet tags."""
    if VERSION < (0, 10):
        from dolfinx.io import gmshio

        return gmshio.model_to_mesh(model, comm, rank, gdim=gdim)
    from dolfinx.io import gmsh as gmshio

    data = gmshio.model_to_mesh(model, comm, rank, gdim=gdim)
    return data.mesh, data.cell_tags, data.facet_tags


def create_mesh(comm: MPI.Comm, cells: npt.NDArray, x: npt.NDArray, element: Any) -> Any:
    """Distribute a mesh given by cells (global node numbers) and nodes, each rank passing its part."""
    if VERSION < (0, 10):
        return dolfinx.mesh.create_mesh(comm, cells, x, element)
    return dolfinx.mesh.create_mesh(comm, cells, element, x)


def create_submesh(mesh: Any, cells: npt.NDArray[np.int32]) -> tuple[Any, npt.NDArray[np.int32]]:
    """Mesh of some cells, and for each of its local cells the cell of `mesh` it comes from."""
    submesh, cell_map, *_ = dolfinx.mesh.create_submesh(mesh, mesh.topology.dim, cells)
    if VERSION < (0, 10):
        return submesh, cell_map
    imap = submesh.topology.index_map(submesh.topology.dim)
    here = np.arange(imap.size_local + imap.num_ghosts, dtype=np.int32)
    return submesh, cell_map.sub_topology_to_topology(here, False)


def refine(mesh: Any, edges: npt.NDArray[np.int32]) -> tuple[Any, npt.NDArray[np.int32]]:
    """Simplices refined where `edges` are marked, each staying on its rank, and the parent of each cell."""
    option = dolfinx.mesh.RefinementOption.parent_cell
    fine, parent, _ = dolfinx.mesh.refine(mesh, edges, None, option)
    tdim, comm = mesh.topology.dim, mesh.comm
    imap = fine.topology.index_map(tdim)
    number = imap.size_local + imap.num_ghosts
    # The parents are in the order in which the cells were made, not in that of the mesh made of them; which
    # of the two is meant is not documented, but a child lies in its parent.
    made = np.asarray(fine.topology.original_cell_index)[:number] - (comm.exscan(len(parent)) or 0)
    centre = dolfinx.mesh.compute_midpoints(fine, tdim, np.arange(number, dtype=np.int32))
    for order in (made, np.arange(number)):
        inside = bool(((order >= 0) & (order < len(parent))).all())
        if inside:
            found = np.asarray(parent)[order].astype(np.int32)
            corners = mesh.geometry.x[geometry_dofmap(mesh)[found]]
            slack = 1e-9 * np.ptp(corners, axis=1).max(initial=0.0)
            inside = bool(
                ((centre >= corners.min(axis=1) - slack) & (centre <= corners.max(axis=1) + slack)).all()
            )
        if comm.allreduce(inside, MPI.LAND):
            return fine, found
    raise RuntimeError("the parents of the refined cells are not where the children are")


def geometry_dofmap(mesh: Any) -> npt.NDArray[np.int32]:
    """Nodes of each local cell."""
    return mesh.geometry.dofmap if VERSION < (0, 11) else mesh.geometry.dofmaps[0]


def index_map(
    comm: MPI.Comm, owned: int, ghosts: npt.NDArray[np.int64], owners: npt.NDArray[np.int32]
) -> Any:
    """Index map from the number of owned indices and the global numbers and owners of the ghosts."""
    # The constructor that finds the neighbours itself takes a tag since 0.10; this one never changed.
    asked = np.zeros(comm.size, dtype=np.int32)
    asked[owners] = 1
    asking = np.empty_like(asked)
    comm.Alltoall(asked, asking)
    neighbours = [np.flatnonzero(flags).astype(np.int32) for flags in (asked, asking)]
    return dolfinx.common.IndexMap(comm, owned, neighbours, ghosts, owners)


def space_with_dofs(V: Any, index_map: Any, cell_dofs: npt.NDArray[np.int32]) -> Any:
    """The space `V` with another numbering: `cell_dofs[cell, i]` are local indices into `index_map`."""
    table = _cpp.graph.AdjacencyList_int32(np.ascontiguousarray(cell_dofs, dtype=np.int32))
    layout = V.dofmap.dof_layout
    dofmap = _cpp.fem.DofMap(layout, index_map, 1, table, 1)
    element = V.element if VERSION < (0, 10) else V._cpp_object.element
    element = getattr(element, "_cpp_object", element)
    arguments = [V.mesh._cpp_object, element, dofmap]
    if VERSION < (0, 10):
        arguments.append(())
    kind = _cpp.fem.FunctionSpace_float64
    return fem.FunctionSpace(V.mesh, V.ufl_element(), kind(*arguments))


def petsc_vector(vector: Any) -> Any:
    """A PETSc vector that shares the memory of a `dolfinx.la.Vector`."""
    if VERSION < (0, 10):
        return dolfinx.la.create_petsc_vector_wrap(vector)
    from dolfinx.la import petsc

    return petsc.create_vector_wrap(vector)


def interpolation_points(V: Any) -> npt.NDArray:
    """Reference points of a space, for `fem.Expression`."""
    points = V.element.interpolation_points
    return points() if callable(points) else points
