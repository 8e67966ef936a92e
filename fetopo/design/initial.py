"""Initial designs as functions of position, the same on any number of ranks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import fem
from mpi4py import MPI

from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.voxel import VoxelGrid

Array = npt.NDArray[np.float64]

#: Shift of the inclusions from the middle, in voxels along each axis.
_OFF_GRID = np.array([0.31, 0.17, 0.23])


def cell_positions(cell: UnitCell | VoxelGrid) -> Array:
    """Midpoints of the owned cells or voxels relative to the box, shape (n, d), in [0, 1]."""
    if isinstance(cell, VoxelGrid):
        axes = [(np.arange(s.start, s.stop) + 0.5) / n for s, n in zip(cell.own, cell.shape, strict=True)]
        return np.stack([x.reshape(-1) for x in np.meshgrid(*axes, indexing="ij")], axis=1)
    Q = fem.functionspace(cell.mesh, ("DG", 0))
    n = Q.dofmap.index_map.size_local
    return (Q.tabulate_dof_coordinates()[:n, : cell.dim] - cell.lower) / cell.lengths


def random_field(cell: UnitCell | VoxelGrid, *, seed: int = 0, waves: int = 1) -> Array:
    """A smooth periodic random field: Fourier modes up to `waves` per axis, amplitudes ~ 1/|k|²."""
    x = cell_positions(cell)
    rng = np.random.default_rng(seed)
    values = np.zeros(len(x))
    for k in itertools.product(range(-waves, waves + 1), repeat=cell.dim):
        if any(k):
            values += rng.normal() / np.dot(k, k) * np.cos(2 * np.pi * (x @ np.array(k) + rng.uniform()))
    return values


def inclusion_field(cell: UnitCell | VoxelGrid) -> Array:
    """Distance from the middle of the cell, in 3D also from its corners: inclusions in a connected matrix.

    Their arrangement (square, body-centred cubic) is that of a good conductor around a poor one. It is
    shifted by fractions of a voxel: a design as symmetric as its grid may sit on a ridge between better
    ones, and round-off, which differs with the number of ranks, would choose the side.
    """
    voxels = cell.shape if isinstance(cell, VoxelGrid) else cell.grid
    shift = 0.0 if voxels is None else _OFF_GRID[: cell.dim] / np.array(voxels)
    x = (cell_positions(cell) - shift) % 1.0 - 0.5
    distance = np.linalg.norm(x, axis=1)
    return distance if cell.dim == 2 else np.minimum(distance, np.linalg.norm(0.5 - np.abs(x), axis=1))


def start_field(cell: UnitCell | VoxelGrid, name: str, seed: int = 0) -> Array:
    """Field by name: "inclusions" or "random".

    Raises:
        ValueError: another name.
    """
    if name == "inclusions":
        return inclusion_field(cell)
    if name == "random":
        return random_field(cell, seed=seed)
    raise ValueError(f"a start is 'inclusions' or 'random', found {name!r}")


def from_field(
    values: Array, volumes: Array, volume_fraction: float, comm: Any, *, sharpness: float = 1.0
) -> Array:
    """A density with a given mean that is high where a field is high.

    x = ½(1 + tanh(s (f − t)/σ)) with σ the standard deviation of f and t chosen for the mean.

    Args:
        values: the field on this rank's cells or voxels.
        volumes: their volumes.
        volume_fraction: mean of the result, in (0, 1).
        comm: communicator.
        sharpness: s; 0 gives a uniform density, large values a crisp one.
    Returns:
        Values in [0, 1] on this rank's cells.
    """
    total, first, second = comm.allreduce(np.array([volumes.sum(), volumes @ values, volumes @ values**2]))
    deviation = np.sqrt(max(second / total - (first / total) ** 2, 1e-300))
    scaled = sharpness * (values - first / total) / deviation

    def density(t: float) -> Array:
        return 0.5 * (1 + np.tanh(scaled - t))

    reach = float(comm.allreduce(float(np.abs(scaled).max(initial=0.0)), op=MPI.MAX)) + 20.0
    low, high = -reach, reach
    for _ in range(80):
        middle = 0.5 * (low + high)
        if comm.allreduce(float(volumes @ density(middle))) > volume_fraction * total:
            low = middle
        else:
            high = middle
    return density(0.5 * (low + high))
