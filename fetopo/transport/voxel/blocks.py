"""Blocks of a regular grid, one per MPI rank, and the exchange of the layer of ghosts around them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

Array = npt.NDArray[Any]

#: Unknowns along an axis that a rank must have where the axis is shared.
_LEAST = 4
#: By how much the largest block may exceed the mean, so that block borders are borders of coarse aggregates.
_UNEVEN = 1.1


def partition(shape: Sequence[int], size: int) -> list[list[int]] | None:
    """Borders of the blocks along each axis: as cubic as can be, on multiples of the highest power of two.

    Args:
        shape: entries of the grid, three axes.
        size: number of ranks.
    Returns:
        Per axis the first entry of each block and the end; None where there are too few entries.
    """
    best: tuple[float, list[list[int]]] | None = None
    for p in itertools.product(range(1, size + 1), repeat=3):
        if int(np.prod(p)) != size:
            continue
        bounds = [_borders(n, k) for n, k in zip(shape, p, strict=True)]
        if any(b is None for b in bounds):
            continue
        blocks = [n / k for n, k in zip(shape, p, strict=True)]
        # An inner block has two faces with others. All else equal the first axes are cut: planes in one
        # piece.
        surface = sum(
            (1 + 1e-3 * a) * min(p[a] - 1, 2) * float(np.prod(blocks)) / blocks[a] for a in range(3)
        )
        if best is None or surface < best[0]:
            best = surface, [b for b in bounds if b is not None]
    return None if best is None else best[1]


def _borders(n: int, parts: int) -> list[int] | None:
    if parts == 1:
        return [0, n]
    for power in reversed(range(n.bit_length())):
        step = 1 << power
        borders = [0, *(step * round(i * n / parts / step) for i in range(1, parts)), n]
        width = np.diff(borders)
        if width.min() >= _LEAST and width.max() <= max(_UNEVEN * n / parts, n / parts + 1):
            return borders
    return None


@dataclass(frozen=True)
class Blocks:
    """How the entries of a three-dimensional grid are shared out.

    Attributes:
        comm: communicator; the ranks are in the order of the blocks, the last axis fastest.
        bounds: per axis the borders of the blocks.
        periodic: per axis, whether the last entry is next to the first.
    """

    comm: Any
    bounds: tuple[tuple[int, ...], ...]
    periodic: tuple[bool, ...]
    _buffers: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def parts(self) -> tuple[int, ...]:
        """Number of blocks along each axis."""
        return tuple(len(b) - 1 for b in self.bounds)

    @property
    def coordinates(self) -> tuple[int, ...]:
        """Which block along each axis this rank has."""
        return tuple(int(c) for c in np.unravel_index(self.comm.rank, self.parts))

    @property
    def shape(self) -> tuple[int, ...]:
        """Entries of the whole grid."""
        return tuple(b[-1] for b in self.bounds)

    @property
    def own(self) -> tuple[slice, ...]:
        """This rank's entries in the whole grid."""
        return self.of(self.comm.rank)

    def of(self, rank: int) -> tuple[slice, ...]:
        """Entries of a rank in the whole grid."""
        at = np.unravel_index(rank, self.parts)
        return tuple(slice(b[c], b[c + 1]) for b, c in zip(self.bounds, at, strict=True))

    @property
    def own_shape(self) -> tuple[int, ...]:
        return tuple(s.stop - s.start for s in self.own)

    def ends(self, axis: int) -> tuple[bool, bool]:
        """Whether this rank has the first, and the last entries along an axis."""
        c = self.coordinates[axis]
        return c == 0, c == self.parts[axis] - 1

    def wraps(self, axis: int) -> bool:
        """Whether the axis meets itself on this rank."""
        return self.periodic[axis] and self.parts[axis] == 1

    def like(self, shape: Sequence[int]) -> Blocks:
        """Blocks with the same inner borders of a grid that has a few entries more or fewer at its end."""
        bounds = tuple((*b[:-1], n) for b, n in zip(self.bounds, shape, strict=True))
        return Blocks(self.comm, bounds, self.periodic)

    def coarse(self, factor: Sequence[int]) -> Blocks | None:
        """Blocks of aggregates; None where an aggregate would lie on two ranks."""
        for b, f in zip(self.bounds, factor, strict=True):
            if any(at % f for at in b[1:-1]):
                return None
        bounds = tuple(tuple(-(-at // f) for at in b) for b, f in zip(self.bounds, factor, strict=True))
        return Blocks(self.comm, bounds, self.periodic)

    def padded(self, rhs: int, dtype: Any) -> Array:
        """Zeros for the own entries with a layer of ghosts, shape (rhs, n₀+2, n₁+2, n₂+2)."""
        return np.zeros((rhs, *(n + 2 for n in self.own_shape)), dtype=dtype)

    def exchange(self, values: Array) -> None:
        """Fill the ghosts that are entries of other ranks, one axis after the other. Collective.

        Ghosts of an axis that meets itself on this rank are left to the kernels' `wrap`.
        """
        for axis, parts in enumerate(self.parts):
            if parts == 1:
                continue
            below, above = self._neighbours(axis)
            n = values.shape[axis + 1]
            front: tuple[Any, ...] = (slice(None),) * (axis + 1)
            for source, target, send, receive in ((below, above, n - 2, 0), (above, below, 1, n - 1)):
                out = np.ascontiguousarray(values[(*front, send)])
                key = (axis, values.dtype.char, out.shape)
                into = self._buffers.get(key)
                if into is None:
                    into = self._buffers[key] = np.empty_like(out)
                self.comm.Sendrecv(out, target, recvbuf=into, source=source)
                if source != MPI.PROC_NULL:
                    values[(*front, receive)] = into

    def complete(self, values: Array) -> None:
        """Fill all ghosts but those beyond faces that are not periodic. Collective."""
        self.exchange(values)
        for axis in range(3):
            if self.wraps(axis):
                view = np.moveaxis(values, axis + 1, 1)
                view[:, 0], view[:, -1] = view[:, -2], view[:, 1]

    def _neighbours(self, axis: int) -> tuple[int, int]:
        found = []
        for step in (-1, 1):
            at = list(self.coordinates)
            at[axis] += step
            if not 0 <= at[axis] < self.parts[axis] and not self.periodic[axis]:
                found.append(MPI.PROC_NULL)
                continue
            at[axis] %= self.parts[axis]
            found.append(int(np.ravel_multi_index(at, self.parts)))
        return found[0], found[1]

    def sum(self, values: Array) -> Any:
        """Sum of a small array over the ranks. Collective."""
        if self.comm.size == 1:
            return values
        total = np.empty_like(values)
        self.comm.Allreduce(values, total, op=MPI.SUM)
        return total
