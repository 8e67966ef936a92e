"""Values of cells that other ranks own, by a plan that is made once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.transport.voxel import VoxelGrid

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Exchange:
    """Fetches values from the ranks that own them, and returns derivatives to them.

    y = E x with one 1 per row of E; nothing is gathered to one rank. Making one is collective.

    Args:
        comm: communicator.
        size: number of values this rank owns.
        owner: rank that has each wanted value, shape (n,).
        index: its place among the values of that rank, shape (n,).
    """

    def __init__(self, comm: Any, size: int, owner: npt.NDArray[Any], index: npt.NDArray[Any]) -> None:
        self.comm, self.size = comm, size
        self._order = np.argsort(owner, kind="stable")
        self._wanted = np.bincount(owner, minlength=comm.size).astype(np.int32)
        self._given = np.empty_like(self._wanted)
        comm.Alltoall(self._wanted, self._given)
        self._places: Integers = np.empty(int(self._given.sum()), dtype=np.int64)
        asked = np.ascontiguousarray(np.asarray(index)[self._order], dtype=np.int64)
        comm.Alltoallv([asked, self._wanted], [self._places, self._given])

    def forward(self, values: Array) -> Array:
        """The wanted values from each rank's own, y = E x. Collective."""
        arrived = np.empty(self._order.size)
        out = np.ascontiguousarray(values[self._places], dtype=float)
        self.comm.Alltoallv([out, self._given], [arrived, self._wanted])
        result = np.empty_like(arrived)
        result[self._order] = arrived
        return result

    def transpose(self, duals: Array) -> Array:
        """Sums of the wanted values' derivatives at their owners, Eᵀ ȳ. Collective."""
        arrived = np.empty(self._places.size)
        out = np.ascontiguousarray(duals[self._order], dtype=float)
        self.comm.Alltoallv([out, self._wanted], [arrived, self._given])
        # Of nothing it counts in integers.
        return np.bincount(self._places, weights=arrived, minlength=self.size).astype(float)


def exchange_of_voxels(grid: VoxelGrid, indices: Integers) -> Exchange:
    """Exchange that fetches voxels of a grid by their indices, shape (n, d). Collective."""
    flat = 3 - grid.dim
    bounds, parts = grid.blocks.bounds[flat:], grid.blocks.parts
    block, local, width = [], [], []
    for axis, borders in enumerate(bounds):
        at = np.searchsorted(borders, indices[:, axis], side="right") - 1
        block.append(at)
        local.append(indices[:, axis] - np.asarray(borders)[at])
        width.append(np.diff(borders)[at])
    none = [np.zeros(len(indices), dtype=np.int64)] * flat
    owner = np.ravel_multi_index([*none, *block], parts)
    place = local[0]
    for axis in range(1, grid.dim):
        place = place * width[axis] + local[axis]
    return Exchange(grid.blocks.comm, int(np.prod(grid.own_shape)), owner, place)


def exchange_of_cells(comm: Any, imap: Any, numbers: Integers) -> Exchange:
    """Exchange that fetches cells of a mesh by their global numbers, shape (n,). Collective."""
    starts = np.array(comm.allgather(int(imap.local_range[0])), dtype=np.int64)
    owner = np.searchsorted(starts, numbers, side="right") - 1
    return Exchange(comm, int(imap.size_local), owner, numbers - starts[owner])
