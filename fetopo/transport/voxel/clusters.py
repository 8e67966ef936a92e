"""Correction on clusters that float: bound strongly within, weakly to what is around, small.

A speck of a good conductor in a poor one has a constant of its own, which costs almost no energy. Where two
of them share an aggregate no coarse level can tell them apart, and each would cost an iteration. Their
constants are therefore corrected one by one, z += Σ_c 1_c (1_cᵀr)/(1_cᵀA1_c), before and after the cycle.

After the subspace corrections of Xu (1992), SIAM Rev. 34, 581, doi:10.1137/1034116, and the deflation of Vuik
et al. (1999), J. Comput. Phys. 152, 385, doi:10.1006/jcph.1999.6255, which treats layers of such contrasts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fetopo.transport.voxel import _kernels
from fetopo.transport.voxel.level import Level

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: Share of the largest transmissibility on both sides that a face needs to bind a cluster.
_STRONG = 0.05
#: A cluster floats if what binds it to its surroundings is less than this share of what binds it within.
_FLOATING = 0.1
#: Clusters of more unknowns are left to the coarse levels.
_LARGEST = 4096


class FloatingClusters:
    """The clusters of a level that float, and the correction on them.

    Args:
        level: the finest level, its coefficients known. Its work arrays are overwritten.
    """

    def __init__(self, level: Level) -> None:
        module = _kernels.clusters()
        self.ffi, self.lib, self.level = module.ffi, module.lib, level
        self.struct = self.ffi.cast("level *", int(level.ffi.cast("uintptr_t", level.struct)))
        self.count = 0
        self.places: Array
        self.numbers: Array
        self.inverse: Array
        self.shared: Array
        self._any = False
        insulated = level.struct.kind == level.lib.MASK or level.struct.binary
        if insulated or level.array("x")[0].size >= 2**31:
            # Around an insulator nothing binds a cluster to the rest: it has no load, and no correction.
            self.places, self.numbers = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32)
            self.inverse = np.zeros(0)
            self.shared = np.zeros(0, dtype=np.int64)
            return
        self._find()

    def _pointer(self, kind: str, values: Array | None) -> Any:
        return _kernels.pointer(self.ffi, kind, values)

    def _find(self) -> None:
        level, comm = self.level, self.level.blocks.comm
        self.lib.strongest(self.struct)
        level.exchange("x")
        number = level.array("y")[0].view(np.int32)
        number[...] = -1
        self.lib.clusters(self.struct, _STRONG, self._pointer("int32_t", number))
        inner = (slice(1, -1),) * 3
        own = number[inner]
        # Trees to numbers: those of one unknown and those too large are of no interest.
        size = np.bincount(own.reshape(-1), minlength=number.size)
        kept = np.flatnonzero((size > 1 if comm.size == 1 else size > 0) & (size <= _LARGEST))
        strength = level.array("x")[0].reshape(-1)
        kept = kept[strength[kept] > 0]
        offset = sum(comm.allgather(kept.size)[: comm.rank])
        renumber = np.full(number.size, -2, dtype=np.int32)
        renumber[kept] = offset + np.arange(kept.size, dtype=np.int32)
        own[...] = renumber[own]
        del size, renumber
        merged, self.shared = self._join(number, offset, kept.size)
        count = max(int(merged.max(initial=-1)) + 1, self.shared.size)
        own[...] = np.where(own >= 0, merged[np.maximum(own - offset, 0)] if merged.size else -1, -1)
        self._share_numbers(number)
        unknowns, within, across = np.zeros(count, dtype=np.int64), np.zeros(count), np.zeros(count)
        self.lib.cluster_sums(
            self.struct,
            _STRONG,
            self._pointer("int32_t", number),
            self._pointer("int64_t", unknowns),
            self._pointer("double", within),
            self._pointer("double", across),
        )
        table: Array = np.stack([unknowns.astype(float), within, across])
        if self.shared.size:
            table[:, : self.shared.size] = level.blocks.sum(
                np.ascontiguousarray(table[:, : self.shared.size])
            )
        small = (table[0] > 1) & (table[0] <= _LARGEST)
        across = np.array(table[2])
        floats = small & (across > 0) & (across < _FLOATING * table[1])
        # Numbers of shared clusters stay the same on all ranks: what does not float gets the weight zero.
        self.inverse = np.where(floats, 1 / np.where(floats, across, 1.0), 0.0)
        self.count = count
        wanted = np.append(floats, False)[own]
        self.places = np.flatnonzero(np.pad(wanted, 1)).astype(np.int32)
        self.numbers = number.reshape(-1)[self.places].copy()
        for name in ("x", "y"):
            level.array(name)[...] = 0
        self._any = bool(comm.allreduce(bool(self.places.size), op=MPI.LOR))

    def _join(self, number: Array, offset: int, own: int) -> tuple[Array, Array]:
        """Numbers from 0 for this rank's clusters: those shared with others first, −1 for too large ones."""
        level, comm = self.level, self.level.blocks.comm
        if comm.size == 1:
            return np.arange(own, dtype=np.int32), np.zeros(0, dtype=np.int64)
        padded = number[None]
        level.blocks.exchange(padded)
        links = self._pointer("int32_t", number)
        pairs = np.zeros(
            (self.lib.cluster_links(self.struct, _STRONG, links, self.ffi.NULL), 2), dtype=np.int32
        )
        self.lib.cluster_links(self.struct, _STRONG, links, self._pointer("int32_t", pairs))
        every = np.unique(np.concatenate(comm.allgather(np.unique(pairs, axis=0))), axis=0)
        members, flat = np.unique(every, return_inverse=True)
        flat = flat.reshape(every.shape)
        graph = coo_matrix((np.ones(len(flat)), flat.T), shape=(members.size,) * 2)
        parts, part = connected_components(graph, directed=False)
        bad = np.zeros(parts, dtype=bool)
        bad[part[members < 0]] = True  # bound to something too large
        good = np.cumsum(~bad) - 1
        shared = int(np.count_nonzero(~bad))
        merged = np.full(own, -3, dtype=np.int32)
        mine = (members >= offset) & (members < offset + own)
        merged[members[mine] - offset] = np.where(bad[part[mine]], -1, good[part[mine]])
        alone = merged == -3
        merged[alone] = shared + np.arange(np.count_nonzero(alone))
        return merged, np.arange(shared)

    def _share_numbers(self, number: Array) -> None:
        """Ghosts of the numbers, so that shared clusters know their own across a border."""
        # Clusters of other ranks alone may have the number of one here: they must not be taken for it.
        shared = self.shared.size
        own = number[1:-1, 1:-1, 1:-1].copy()
        number[1:-1, 1:-1, 1:-1] = np.where(own < shared, own, -1)
        self.level.blocks.exchange(number[None])
        number[1:-1, 1:-1, 1:-1] = own

    @property
    def any(self) -> bool:
        """Whether there are any on any rank."""
        return self._any

    def correct(self, started: bool) -> Floats:
        """Add the correction to x. Collective.

        Args:
            started: whether x, its ghosts included, is a start; else it is zero.
        Returns:
            b·(what was added) of this rank's unknowns, per right-hand side.
        """
        rhs, shared = self.level.rhs, self.shared.size
        load, residual = np.zeros((rhs, self.count)), np.zeros((rhs, self.count))
        struct, size = self.struct, self.places.size
        at, number = self._pointer("int32_t", self.places), self._pointer("int32_t", self.numbers)
        self.lib.cluster_gather(
            struct,
            started,
            size,
            at,
            number,
            self.count,
            self._pointer("double", load),
            self._pointer("double", residual),
        )
        if shared:
            residual[:, :shared] = self.level.blocks.sum(np.ascontiguousarray(residual[:, :shared]))
        values = residual * self.inverse
        self.lib.cluster_scatter(struct, size, at, number, self.count, self._pointer("double", values))
        return np.asarray((load * values).sum(axis=1))
