"""A case file's design on a communicator: what the commands that design have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo.case import Case
from fetopo.design.cell import CellDesign, design_cell
from fetopo.design.checkpoint import Checkpoint
from fetopo.design.goal import Goal
from fetopo.design.problem import Callback
from fetopo.microstructure.mesh import UnitCell, regular_cell, voxel_of_cells
from fetopo.transport.voxel import VoxelGrid

Array = npt.NDArray[np.float64]


def make_cell(case: Case, comm: MPI.Intracomm) -> UnitCell | VoxelGrid:
    """The cell of a case, a mesh or a grid of voxels, distributed over `comm`. Collective."""
    if case.discretization == "voxel":
        return VoxelGrid(comm, case.cell.shape, case.voxel_size, periodic=True)
    return regular_cell(comm, case.cell.shape, case.lengths)


def own_part(cell: UnitCell | VoxelGrid, values: Array) -> Array:
    """Values of an array over the grid of a cell on this rank's cells or voxels."""
    if isinstance(cell, VoxelGrid):
        return np.asarray(cell.take(values)).reshape(-1)
    owned = cell.mesh.topology.index_map(cell.dim).size_local
    return np.asarray(values[tuple(voxel_of_cells(cell)[:owned].T)])


def run_case(
    case: Case,
    comm: MPI.Intracomm,
    *,
    start: Array | str | None = None,
    seed: int | None = None,
    goal: Goal | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    **arguments: Any,
) -> CellDesign:
    """Design the cell of a case. Collective.

    Args:
        case: what to design.
        comm: the ranks that do.
        start: first density, an array over the grid or the name of a field; default what the case names.
        seed: of a random start; default that of the case.
        goal: in place of that of the case.
        callbacks, checkpoint: see :func:`fetopo.design.cell.design_cell`.
        arguments: further ones of it, in place of what the case says.
    """
    cell = make_cell(case, comm)
    first: Any = case.start.field if start is None else start
    if not isinstance(first, str):
        first = own_part(cell, first)
    asked: dict[str, Any] = {
        "conductivity": case.conductivity,
        "volume_fraction": case.material.volume_fraction,
        "filter_radius": case.filter_radius,
        "goal": case.goal() if goal is None else goal,
        "transports": case.transports,
        "constraints": case.constraints(),
        "filter": case.filter.kind,
        "passive": case.passive_regions(),
        "symmetry": case.cell.symmetry,
        "seed": case.start.seed if seed is None else seed,
        "law": case.law(),
        "options": case.options(),
        "refine": case.verify.refine,
    }
    return design_cell(cell, start=first, callbacks=callbacks, checkpoint=checkpoint, **(asked | arguments))
