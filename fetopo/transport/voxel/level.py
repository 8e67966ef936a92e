"""One level of the multigrid hierarchy: its arrays, and the structure through which kernels see them."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo.transport.voxel import _kernels
from fetopo.transport.voxel.blocks import Blocks

Array = npt.NDArray[Any]


@cache
def threads() -> int:
    """Threads a rank may use: OMP_NUM_THREADS, else the machine's cores shared among the ranks on it."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdigit():
        return max(1, int(wanted))
    here = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    count: int = here.size
    here.Free()
    return max(1, len(os.sched_getaffinity(0)) // count)


class Level:
    """Arrays of a level and the structure that points at them.

    Args:
        blocks: distribution of its unknowns.
        struct: the C structure to fill in.
        rhs: number of right-hand sides.
    """

    def __init__(self, blocks: Blocks, struct: Any, rhs: int) -> None:
        self.blocks, self.struct, self.rhs = blocks, struct, rhs
        self.ffi = _kernels.multigrid().ffi
        self.lib = _kernels.multigrid().lib
        self.kept: dict[str, Array] = {}
        struct.rhs, struct.threads, struct.parts, struct.radius = rhs, threads(), 1, 2.0
        struct.sweeps = 1
        for axis, n in enumerate(blocks.own_shape):
            struct.n[axis] = struct.voxels[axis] = n
            struct.wrap[axis] = blocks.wraps(axis)
            struct.factor[axis] = 1

    def give(self, name: str, kind: str, values: Array, index: int | None = None) -> Array:
        """Let the structure's member point at an array, and keep the array alive."""
        found = _kernels.pointer(self.ffi, kind, values)
        if index is None:
            setattr(self.struct, name, found)
        else:
            getattr(self.struct, name)[index] = found
        self.kept[name if index is None else f"{name}{index}"] = values
        return values

    def work(self) -> None:
        """Allocate solution, second vector and right-hand side of the smoother."""
        for name in ("x", "y", "b"):
            self.give(name, "float", self.blocks.padded(self.rhs, np.float32))

    def faces(self, double: bool = False) -> None:
        """Allocate the transmissibilities of the faces."""
        member, kind = ("fine_face", "double") if double else ("face", "float")
        self.struct.kind = self.lib.FINE_FACES if double else self.lib.FACES
        for axis in range(3):
            values = self.blocks.padded(1, np.float64 if double else np.float32)
            self.give(member, kind, values, axis)

    def array(self, name: str) -> Array:
        """An array given before."""
        return self.kept[name]

    def exchange(self, name: str) -> None:
        """Fill the ghosts of a single-precision array. Collective."""
        values = self.kept[name]
        self.blocks.exchange(values)
        self.lib.wrap_ff(self.struct, _kernels.pointer(self.ffi, "float", values), len(values))

    def exchange_double(self, values: Array) -> None:
        """The same for an array of doubles, shape (rhs, …) with ghosts. Collective."""
        self.blocks.exchange(values)
        self.lib.wrap_dd(self.struct, _kernels.pointer(self.ffi, "double", values), len(values))
