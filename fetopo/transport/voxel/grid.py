"""A regular grid of voxels, distributed in blocks over MPI ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo.microstructure._voxels import voxel_sides
from fetopo.microstructure.slab import Slab
from fetopo.transport.voxel.blocks import Blocks, partition

Array = npt.NDArray[Any]


class VoxelGrid:
    """Voxels of a box and their distribution over ranks: each has a block of them.

    Making one is collective. Where there are too few voxels to share out, every rank has them all and works
    alone.

    Args:
        comm: communicator to distribute over.
        shape: voxels along each axis, two or three.
        voxel_size: edge lengths of a voxel [m], one or one per axis.
        periodic: whether opposite faces are one, for all axes or per axis.
    Attributes:
        comm, shape, voxel_size, periodic: as given.
        blocks: the distribution, with three axes: a 2D grid is one layer of a 3D one.
    Raises:
        ValueError: a shape that is not two or three positive numbers, or edges that are not positive.
    """

    def __init__(
        self,
        comm: Any,
        shape: Sequence[int],
        voxel_size: float | Sequence[float] = 1.0,
        periodic: bool | Sequence[bool] = False,
    ) -> None:
        shape = tuple(int(n) for n in shape)
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ValueError(f"a grid needs two or three positive numbers of voxels, found {shape}")
        self.comm, self.shape = comm, shape
        self.voxel_size = tuple(float(h) for h in voxel_sides(voxel_size, len(shape)))
        wraps = (periodic,) * len(shape) if isinstance(periodic, bool) else tuple(map(bool, periodic))
        if len(wraps) != len(shape):
            raise ValueError(f"periodic needs one value or {len(shape)}, found {wraps}")
        self.periodic = wraps
        layer = (1,) * (3 - self.dim)
        full = (*layer, *shape)
        bounds = partition(full, comm.size)
        shared = comm if bounds is not None else MPI.COMM_SELF
        borders = bounds if bounds is not None else [[0, n] for n in full]
        flat = (False,) * (3 - self.dim)
        self.blocks = Blocks(shared, tuple(map(tuple, borders)), (*flat, *wraps))

    @property
    def dim(self) -> int:
        """Number of axes, 2 or 3."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def lengths(self) -> npt.NDArray[np.float64]:
        """Edge lengths of the box [m]."""
        return np.array(self.voxel_size) * self.shape

    @property
    def volume(self) -> float:
        """Volume of the box [m^d]."""
        return float(np.prod(self.lengths))

    @property
    def alone(self) -> bool:
        """Whether every rank has all voxels."""
        return self.blocks.comm.size == 1

    @property
    def own(self) -> tuple[slice, ...]:
        """This rank's block in arrays of the whole grid."""
        return self.blocks.own[3 - self.dim :]

    @property
    def own_shape(self) -> tuple[int, ...]:
        return self.blocks.own_shape[3 - self.dim :]

    def take(self, values: npt.ArrayLike | Slab) -> Array:
        """This rank's block of values of the whole grid: an array every rank has, or a slab. Collective.

        Raises:
            ValueError: values of another shape.
        """
        if isinstance(values, Slab):
            return self._from_slab(values)
        values = np.asarray(values)
        if values.shape != self.shape:
            raise ValueError(f"values have shape {values.shape}: expected {self.shape} as the grid")
        return np.ascontiguousarray(values[self.own])

    def _from_slab(self, slab: Slab) -> Array:
        if slab.shape != self.shape:
            raise ValueError(f"the slabs have shape {slab.shape}: expected {self.shape} as the grid")
        if self.alone and slab.comm.size == 1:
            return np.ascontiguousarray(slab.values)
        start, stop = slab.first, slab.first + len(slab.values)
        parts: list[Any] = []
        for rank in range(slab.comm.size):
            box = self.own if self.alone else self.blocks.of(rank)[3 - self.dim :]
            low, high = max(box[0].start, start), min(box[0].stop, stop)
            inside = (slice(low - start, high - start), *box[1:])
            parts.append((low, np.ascontiguousarray(slab.values[inside])) if low < high else None)
        result = np.empty(self.own_shape, dtype=slab.values.dtype)
        for part in slab.comm.alltoall(parts):
            if part is not None:
                low, rows = part
                result[low - self.own[0].start : low - self.own[0].start + len(rows)] = rows
        return result

    def gather(self, own: Array) -> Array:
        """Values of the whole grid on every rank, from those of each. Collective."""
        own = np.asarray(own)
        if own.shape != self.own_shape:
            raise ValueError(f"values have shape {own.shape}: expected this rank's {self.own_shape}")
        if self.alone:
            return own.copy()
        result = np.empty(self.shape, dtype=own.dtype)
        for rank, part in enumerate(self.comm.allgather(own)):
            result[self.blocks.of(rank)[3 - self.dim :]] = part
        return result

    def to_slab(self, own: Array) -> Slab:
        """The same values by rows of the grid, see `microstructure.slab`. Collective."""
        n, size = self.shape[0], self.comm.size
        bounds = tuple(n * rank // size for rank in range(size + 1))
        own = np.asarray(own)
        if self.alone:
            rows = own[bounds[self.comm.rank] : bounds[self.comm.rank + 1]]
            return Slab(self.comm, rows, self.voxel_size, bounds)
        box = self.own
        parts: list[Any] = []
        for rank in range(size):
            low, high = max(box[0].start, bounds[rank]), min(box[0].stop, bounds[rank + 1])
            first = box[0].start
            parts.append(
                (low, box[1:], np.ascontiguousarray(own[low - first : high - first])) if low < high else None
            )
        start = bounds[self.comm.rank]
        rows = np.empty((bounds[self.comm.rank + 1] - start, *self.shape[1:]), dtype=own.dtype)
        for part in self.comm.alltoall(parts):
            if part is not None:
                low, rest, values = part
                rows[(slice(low - start, low - start + len(values)), *rest)] = values
        return Slab(self.comm, rows, self.voxel_size, bounds)

    def sum(self, values: npt.ArrayLike) -> Any:
        """Sum over the ranks of numbers that each has for its block. Collective."""
        values = np.asarray(values, dtype=float)
        return (
            self.blocks.sum(np.ascontiguousarray(values))
            if values.ndim
            else float(self.blocks.sum(values.reshape(1))[0])
        )
