"""Meshes refined where the two bounds of a property are far apart, until the interval is narrow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import la
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo._compat import geometry_dofmap, refine
from fetopo._mpi import get_logger
from fetopo.microstructure.mesh import UnitCell, select_phases
from fetopo.transport.enclosure import Enclosure, enclose
from fetopo.transport.homogenization import Conductivity, checked_conductivity
from fetopo.transport.periodic import identify
from fetopo.transport.state import PetscOptions


@dataclass(frozen=True)
class AdaptiveStep:
    """One mesh of :func:`enclose_adaptively`: its cells, and the interval on it."""

    cells: int
    enclosure: Enclosure


def enclose_adaptively(
    cell: UnitCell,
    conductivity: Conductivity,
    *,
    axis: int | None = None,
    width: float = 1e-2,
    max_cells: int = 200_000,
    fraction: float = 0.5,
    petsc_options: PetscOptions | None = None,
    callback: Callable[[AdaptiveStep], None] | None = None,
) -> list[AdaptiveStep]:
    """Refine a mesh of simplices where the local gap is largest, until the interval is narrow enough.

    Each round marks the fewest cells that together have a `fraction` of the gap (Dörfler), and bisects. At
    singular corners, where uniform refinement converges slowly, this regains the rate of smooth solutions:
    width ~ 1/N in 2D for N cells. Corners of curved interfaces are not rounded: the geometry is that of the
    first mesh.

    Args:
        cell: triangles or tetrahedra with straight edges.
        conductivity, axis, petsc_options: as for :func:`enclose`.
        width: relative width of the interval to stop at.
        max_cells: number of cells from which on no mesh is refined any more.
        fraction: of the gap, between 0 and 1; 1 refines every cell.
        callback: called after each mesh.
    Returns:
        All steps, the narrowest interval last.
    Raises:
        ValueError: a width, fraction or number that is not positive, and as :func:`enclose`.
    Source: Dörfler (1996), SIAM J. Numer. Anal. 33, 1106, doi:10.1137/0733054.
    """
    if not (width > 0 and 0 < fraction <= 1 and max_cells > 0):
        raise ValueError(
            f"width {width}, fraction {fraction}, max_cells {max_cells}: expected positive, fraction ≤ 1"
        )
    if cell.mesh.topology.cell_name() not in ("triangle", "tetrahedron"):
        raise NotImplementedError(
            f"only triangles and tetrahedra are refined, found {cell.mesh.topology.cell_name()} cells"
        )
    values = checked_conductivity(cell, conductivity)
    conducting = [tag for tag, value in values.items() if np.any(value)]
    cell = select_phases(cell, conducting) if conducting else cell
    kept = {tag: values[tag] for tag in conducting} or dict(values)
    log = get_logger(__name__, cell.mesh.comm)
    steps: list[AdaptiveStep] = []
    while True:
        found = enclose(cell, kept, axis=axis, petsc_options=petsc_options)
        count = cell.mesh.topology.index_map(cell.dim).size_global
        steps.append(AdaptiveStep(count, found))
        log.info("%d cells: relative width %.3g", count, found.width)
        if callback is not None:
            callback(steps[-1])
        if found.width <= width or count >= max_cells:
            return steps
        assert found.gap is not None
        cell = refine_cell(cell, mark(cell, found.gap.x.array, fraction), periodic=axis is None)


def mark(cell: UnitCell, gap: npt.NDArray[np.float64], fraction: float) -> npt.NDArray[np.bool_]:
    """The local cells that belong to the fewest ones with a `fraction` of the sum of `gap`. Collective."""
    comm = cell.mesh.comm
    owned = cell.mesh.topology.index_map(cell.dim).size_local
    own = gap[:owned]
    total = comm.allreduce(float(own.sum()))
    low, high = 0.0, max(comm.allgather(float(own.max(initial=0.0))))
    # The threshold above which the gap adds up to the fraction, by bisection.
    for _ in range(50):
        middle = 0.5 * (low + high)
        if comm.allreduce(float(own[own >= middle].sum())) >= fraction * total:
            low = middle
        else:
            high = middle
    return np.asarray(gap >= low)


def refine_cell(cell: UnitCell, marked: npt.NDArray[np.bool_], *, periodic: bool = True) -> UnitCell:
    """A cell with marked simplices bisected, and others as far as that needs; tags go over to the children.

    Where an edge on a periodic face is divided, so is its partner across: both faces stay meshed alike.
    Children stay on the rank of their parent. Facet tags are not kept.

    Args:
        cell: triangles or tetrahedra.
        marked: per local cell, ghosts included.
        periodic: whether opposite faces are to stay alike.
    """
    mesh, tdim = cell.mesh, cell.dim
    mesh.topology.create_entities(1)
    mesh.topology.create_connectivity(tdim, 1)
    mesh.topology.create_connectivity(1, tdim)
    mesh.topology.create_connectivity(1, 0)
    edges = _closure(cell, marked, periodic)
    fine, parent = refine(mesh, edges)
    fine.topology.create_connectivity(tdim, tdim)
    imap = mesh.topology.index_map(tdim)
    tags = np.zeros(imap.size_local + imap.num_ghosts, dtype=np.int32)
    tags[cell.cell_tags.indices] = cell.cell_tags.values
    here = fine.topology.index_map(tdim)
    number = here.size_local + here.num_ghosts
    values = tags[np.asarray(parent)[:number]]
    cell_tags = dmesh.meshtags(fine, tdim, np.arange(number, dtype=np.int32), values)
    return UnitCell(fine, cell_tags, cell.lower, cell.upper, cell.phases, cell.complete)


def _closure(cell: UnitCell, marked: npt.NDArray[np.bool_], periodic: bool) -> npt.NDArray[np.int32]:
    """Local edges to divide: those of marked cells, and where a triangle has one, its longest (Rivara).

    The refinement would add the latter by itself, but not on the face across.
    """
    mesh, comm = cell.mesh, cell.mesh.comm
    tdim = cell.dim
    imap = mesh.topology.index_map(1)
    count = imap.size_local + imap.num_ghosts
    ends = dmesh.entities_to_geometry(mesh, 1, np.arange(count, dtype=np.int32), False)
    x = mesh.geometry.x[np.asarray(ends).reshape(count, 2)]
    length = np.linalg.norm(x[:, 0] - x[:, 1], axis=1)
    if periodic:
        shared, local, _ = identify(comm, imap, x.mean(axis=1)[: imap.size_local], cell.lower, cell.upper)
    else:
        shared, local = imap, np.arange(count, dtype=np.int32)
    vector = la.vector(shared, dtype=np.float64)

    def agree(divided: npt.NDArray[np.bool_]) -> Any:
        """Edges divided on any rank or on any of the faces that are one."""
        vector.array[:] = 0.0
        np.add.at(vector.array, local, divided.astype(float))
        vector.scatter_reverse(la.InsertMode.add)
        vector.scatter_forward()
        return vector.array[local] > 0

    links = mesh.topology.connectivity(tdim, 1)
    cells = links.array.reshape(len(geometry_dofmap(mesh)), -1)
    if tdim == 2:
        triangles = cells
    else:
        mesh.topology.create_entities(2)
        mesh.topology.create_connectivity(2, 1)
        triangles = mesh.topology.connectivity(2, 1).array.reshape(-1, 3)
    sides = length[triangles]
    # Of edges equally long all count: whichever the refinement takes, its partner is divided too.
    longest = sides > sides.max(axis=1, keepdims=True) * (1 - 1e-9)
    divided = np.zeros(count, dtype=bool)
    divided[cells[marked[: len(cells)]]] = True
    divided = agree(divided)
    while True:
        before = divided.copy()
        touched = divided[triangles].any(axis=1)
        divided[triangles[touched][longest[touched]]] = True
        divided = agree(divided)
        if not comm.allreduce(bool((divided != before).any()), MPI.LOR):
            return np.flatnonzero(divided).astype(np.int32)
