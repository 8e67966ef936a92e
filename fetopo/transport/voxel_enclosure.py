"""Bounds of the effective conductivity of voxels: elements above, the flux of finite volumes below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.microstructure.connectivity import percolating
from fetopo.microstructure.mesh import UnitCell, to_image
from fetopo.transport.discretization import solver_obstacles
from fetopo.transport.state import PetscOptions
from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid, through
from fetopo.transport.voxel.operators import Scheme

Tensor = npt.NDArray[np.float64]

#: Relative residuals. The upper bound is off by the square of its own, the lower one by a multiple of it.
RTOL: dict[str, float] = {"elements": 1e-7, "finite volumes": 1e-10}
#: Of finite volumes between two faces, where little is lost by it.
TIGHT = 1e-12
#: What will do, unless a tolerance was given, where round-off ends the iteration: what is left is known and
#: taken off the bound.
WORST = 1e-5


def conductivity_of_voxels(labels: npt.NDArray[Any], values: Mapping[int, Any]) -> npt.NDArray[np.float64]:
    """Conductivity of own voxels from their labels: one number each, or the diagonal of a tensor in front.

    Args:
        labels: own block of labels.
        values: for every label a number or a diagonal d×d tensor.
    """
    known = sorted(values)
    place = np.searchsorted(known, labels)
    if not any(np.ndim(values[label]) for label in known):
        return np.array([float(values[label]) for label in known])[place]
    eye = np.eye(labels.ndim)
    full = [
        np.diag(values[label] if np.ndim(values[label]) else float(values[label]) * eye) for label in known
    ]
    return np.ascontiguousarray(np.array(full).T[:, place])


def periodic_problem(
    grid: VoxelGrid, kappa: npt.NDArray[np.float64], scheme: Scheme, rtol: float | None = None
) -> VoxelCellProblem:
    """A periodic cell problem, solved; `kappa` are the own conductivities."""
    problem = VoxelCellProblem(grid, scheme, rtol or RTOL[scheme])
    problem.assign(kappa)
    try:
        problem.solve()
    except RuntimeError:
        if rtol is not None:
            raise
        problem.rtol = WORST
        problem.solve()
    return problem


def voxel_bounds(
    cell: UnitCell, values: Mapping[int, float], axis: int | None, petsc_options: PetscOptions | None
) -> tuple[Tensor, Tensor, float]:
    """Lower bound, upper bound and imbalance of a cell of voxels.

    Args:
        cell: a cell with a grid; voxels without a cell of the mesh are insulators.
        values: conductivity of each tag.
        axis: None for the periodic cell, else the direction of transport between two faces.
        petsc_options: of which `ksp_rtol` counts.
    Raises:
        ValueError: nothing connects the faces along `axis`, or another option.
    """
    for obstacle in solver_obstacles(petsc_options):
        raise ValueError(f"bounds of voxels have no {obstacle}, only ksp_rtol")
    assert cell.grid is not None
    rtol = (petsc_options or {}).get("ksp_rtol")
    comm, h = cell.mesh.comm, cell.lengths / np.array(cell.grid)
    here = np.zeros(cell.cell_tags.indices.size)
    owned = cell.mesh.topology.index_map(cell.dim).size_local
    here[cell.cell_tags.indices] = [values[tag] for tag in cell.cell_tags.values.tolist()]
    kappa = to_image(cell, here[:owned])
    grid = VoxelGrid(comm, cell.grid, tuple(h), periodic=axis is None)
    if axis is None:
        own = grid.take(kappa)
        elements = periodic_problem(grid, own, "elements", rtol)
        volumes = periodic_problem(grid, own, "finite volumes", rtol)
        return volumes.lower_bound(), elements.tensor, volumes.imbalance
    connected = percolating(kappa > 0, axis)
    if not connected.any():
        raise ValueError(f"nothing that conducts connects the faces of axis {axis}")
    own = grid.take(np.where(connected, kappa, 0.0))
    worst = WORST if rtol is None else None
    primal = through(grid, own, axis, "elements", rtol=rtol or RTOL["elements"], worst=worst)
    dual = through(grid, own, axis, "finite volumes", rtol=rtol or TIGHT, worst=worst)
    lower, upper = (np.array([[value]]) for value in (dual.lower_bound, primal.conductivity))
    return np.minimum(lower, upper), upper, dual.imbalance
