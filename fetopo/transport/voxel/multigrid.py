"""Multigrid on aggregates of 2×2×2 unknowns: every level is a seven-point stencil, no matrix is stored.

Transfer is constant on an aggregate. The transmissibility between two aggregates is the sum over the faces
between them, halved because the distance is twice as long: with the plain sum, which is what a Galerkin
product would give, the correction is only half of what it should be (Braess 1995). W-cycle (a V-cycle
takes up to twice the iterations, and coarse levels cost little), Chebyshev–Jacobi of degree two before and
after.

Source: Braess (1995), Computing 55, 379, doi:10.1007/BF02238488.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.transport.voxel import _kernels
from fetopo.transport.voxel.blocks import Blocks
from fetopo.transport.voxel.clusters import FloatingClusters
from fetopo.transport.voxel.level import Level
from fetopo.transport.voxel.pieces import Pieces

Array = npt.NDArray[Any]

#: A distributed level with no more unknowns than this is gathered: every rank then solves it by itself.
_SMALL = 8192
#: Axes are coarsened whose mean transmissibility is at least this share of the largest one.
_STRONG = 0.25
#: Most levels: 2²⁴ unknowns along three axes with every axis halved alone.
_MOST = 80


class Hierarchy:
    """Levels below a finest one, and the cycle through them.

    Args:
        finest_blocks: distribution of the unknowns of the level to precondition.
        rhs: right-hand sides.
        singular: whether constants cost no energy: no potential is fixed, nothing is added to the diagonal.
    Attributes:
        levels: from the finest to the one with one unknown.
        gathered: index of the first level that every rank has whole.
    """

    def __init__(self, finest_blocks: Blocks, rhs: int, singular: bool = False) -> None:
        module = _kernels.multigrid()
        self.ffi, self.lib = module.ffi, module.lib
        self.structs = self.ffi.new("level[]", _MOST)
        self.rhs, self.singular = rhs, singular
        self.finest = Level(finest_blocks, self.structs + 0, rhs)
        self.levels: list[Level] = [self.finest]
        self.gathered = 0
        self._proxy: Level | None = None
        self._copied = False
        self.corrections: list[Pieces | FloatingClusters] = []

    def build(self) -> None:
        """Coefficients of all coarse levels from those of the finest. Collective."""
        old = {level.blocks.shape: level for level in self.levels}
        self.levels = [self.finest]
        self._proxy = None
        alone = self.finest.blocks.comm.size == 1
        self.gathered = 0 if alone else -1
        while max(self.levels[-1].blocks.shape) > 1:
            fine = self.levels[-1]
            factor = self._factor(fine, alone or self.gathered >= 0)
            for axis in range(3):
                fine.struct.factor[axis] = factor[axis]
            coarse = fine.blocks.coarse(factor)
            together = self.gathered < 0 and (coarse is None or _size(coarse) <= _SMALL)
            if together:
                self._gather(fine, factor, old)
            else:
                assert coarse is not None
                level = self._level(coarse, old)
                self.lib.coarsen(fine.struct, level.struct)
                level.struct.shift = fine.struct.shift * float(np.prod(factor))
                self.levels.append(level)
        for level in self.levels[1:]:
            level.struct.sweeps = min(2, self.finest.struct.sweeps)
        if self.gathered < 0:
            self.gathered = len(self.levels)
        pieces, clusters = Pieces(self.finest), FloatingClusters(self.finest)
        self.corrections = [found for found in (pieces, clusters) if found.any]
        if pieces.any:
            # Paths a voxel wide need more smoothing as well.
            self.finest.struct.sweeps = max(2, self.finest.struct.sweeps)

    def _level(self, blocks: Blocks, old: dict[tuple[int, ...], Level]) -> Level:
        """A level at the next place, with the arrays of an earlier build where they fit."""
        place = len(self.levels)
        if place >= _MOST:
            raise RuntimeError(
                f"more than {_MOST} levels: a grid of {self.finest.blocks.shape} is too uneven"
            )
        known = old.get(blocks.shape)
        if (
            known is not None
            and known.blocks.bounds == blocks.bounds
            and known.struct == self.structs + place
        ):
            return known
        level = Level(blocks, self.structs + place, self.rhs)
        level.faces()
        level.work()
        return level

    def _factor(self, level: Level, alone: bool) -> tuple[int, ...]:
        """2 along axes that are to be coarsened, 1 along the others."""
        sums: Array = np.zeros(6)
        self.lib.strength(level.struct, _kernels.pointer(self.ffi, "double", sums))
        if not alone:
            sums = level.blocks.sum(sums)
        shape = level.blocks.shape
        mean = [s / c if c else 0.0 for s, c in sums.reshape(3, 2)]
        strongest = max((m for m, n in zip(mean, shape, strict=True) if n > 1), default=0.0)
        factor = [2 if n > 1 and m >= _STRONG * strongest else 1 for m, n in zip(mean, shape, strict=True)]
        return tuple(factor)

    def _gather(self, fine: Level, factor: tuple[int, ...], old: dict[tuple[int, ...], Level]) -> None:
        """The next level whole on every rank; where aggregates cross ranks, the fine one is gathered too."""
        from mpi4py import MPI

        coarse = fine.blocks.coarse(factor)
        self._copied = coarse is None
        if coarse is None:
            # The level itself is needed whole: it stands for the next one, nothing is coarsened.
            factor, coarse = (1, 1, 1), fine.blocks
            for axis in range(3):
                fine.struct.factor[axis] = 1
        self._proxy = Level(coarse, self.ffi.new("level *"), self.rhs)
        self._proxy.faces()
        self._proxy.work()
        self.lib.coarsen(fine.struct, self._proxy.struct)
        whole = Blocks(MPI.COMM_SELF, tuple((0, n) for n in coarse.shape), coarse.periodic)
        level = self._level(whole, old)
        level.struct.shift = fine.struct.shift * float(np.prod(factor))
        for axis in range(3):
            self._collect(self._proxy, level, axis)
        self.gathered = len(self.levels)
        self.levels.append(level)
        self._parts = [coarse.of(rank) for rank in range(coarse.comm.size)]
        counts = [int(np.prod([s.stop - s.start for s in part])) for part in self._parts]
        self._counts = np.array(counts) * self.rhs

    def _collect(self, proxy: Level, whole: Level, axis: int) -> None:
        """Faces of all ranks into the arrays of the level that each has whole."""
        first = proxy.blocks.ends(axis)[0]
        inner = [slice(1, -1)] * 3
        inner[axis] = slice(0 if first else 1, -1)
        own = proxy.array(f"face{axis}")[0][tuple(inner)]
        target = whole.array(f"face{axis}")[0]
        comm = proxy.blocks.comm
        for rank, part in enumerate(comm.allgather(np.ascontiguousarray(own))):
            at = [slice(s.start + 1, s.stop + 1) for s in proxy.blocks.of(rank)]
            if at[axis].start == 1:
                at[axis] = slice(0, at[axis].stop)
            target[tuple(at)] = part

    # ---- the cycle

    def cycle(self, products: Array) -> None:
        """x of the finest level ≈ A⁻¹b, from zero; `products` gets b·x of this rank's block."""
        out = _kernels.pointer(self.ffi, "double", products)
        if self.singular:
            self._center()
        started = bool(self.corrections)
        if started:
            self.finest.array("x")[...] = 0
        for number, correction in enumerate(self.corrections):
            if number:
                self.finest.exchange("x")
            correction.correct(number > 0)
        if self.gathered == 0:
            self.lib.cycle(self.structs, 0, len(self.levels) - 1, started, out)
        else:
            self._down(0, started, out)
        for correction in reversed(self.corrections):
            self.finest.exchange("x")
            products += correction.correct(True)

    def _center(self) -> None:
        """Take the mean off the load, see `sum_of_load` of the kernels. Collective."""
        sums = np.zeros(self.rhs)
        self.lib.sum_of_load(self.finest.struct, _kernels.pointer(self.ffi, "double", sums))
        mean = self.finest.blocks.sum(sums) / _size(self.finest.blocks)
        self.lib.shift_load(self.finest.struct, _kernels.pointer(self.ffi, "double", mean))

    def _down(self, here: int, guess: bool, products: Any) -> None:
        level, lib = self.levels[here], self.lib
        if not guess:
            lib.smooth_first(level.struct)
            level.exchange("y")
            lib.smooth_second(level.struct)
        for _ in range(int(not guess), level.struct.sweeps):
            self._sweep(level, self.ffi.NULL)
        level.exchange("x")
        last = len(self.levels) - 1
        if here + 1 >= self.gathered:
            self._whole(level)
        elif here + 1 <= last:
            lib.restrict_residual(level.struct, self.levels[here + 1].struct)
            self._down(here + 1, False, self.ffi.NULL)
            if here + 1 < last:
                self._down(here + 1, True, self.ffi.NULL)
            lib.prolong(level.struct, self.levels[here + 1].struct)
        for left in reversed(range(level.struct.sweeps)):
            self._sweep(level, self.ffi.NULL if left else products)

    def _sweep(self, level: Level, products: Any) -> None:
        level.exchange("x")
        self.lib.smooth_third(level.struct)
        level.exchange("y")
        self.lib.smooth_fourth(level.struct, products)

    def _whole(self, level: Level) -> None:
        """The correction from the levels that every rank has whole."""
        proxy, whole, last = self._proxy, self.levels[self.gathered], len(self.levels) - 1
        assert proxy is not None
        self.lib.restrict_residual(level.struct, proxy.struct)
        inner = (slice(None), *(slice(1, -1),) * 3)
        own = np.ascontiguousarray(proxy.array("b")[inner])
        every = np.empty(int(self._counts.sum()), dtype=np.float32)
        proxy.blocks.comm.Allgatherv(own, (every, self._counts))
        b, at = whole.array("b")[inner], 0
        for part, count in zip(self._parts, self._counts, strict=True):
            shape = (self.rhs, *(s.stop - s.start for s in part))
            b[(slice(None), *part)] = every[at : at + count].reshape(shape)
            at += count
        first = self.gathered
        if self._copied:
            # The level has been smoothed where it is distributed: this copy of it only passes on.
            first += 1
            whole.array("x")[...] = 0
            self.lib.restrict_residual(whole.struct, self.structs + first)
        self.lib.cycle(self.structs, first, last, 0, self.ffi.NULL)
        if first < last:
            self.lib.cycle(self.structs, first, last, 1, self.ffi.NULL)
        if self._copied:
            self.lib.prolong(whole.struct, self.structs + first)
        mine = (slice(None), *proxy.blocks.own)
        proxy.array("x")[inner] = whole.array("x")[inner][mine]
        self.lib.prolong(level.struct, proxy.struct)


def _size(blocks: Blocks) -> int:
    return int(np.prod(blocks.shape, dtype=np.int64))
