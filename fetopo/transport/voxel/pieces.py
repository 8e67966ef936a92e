"""Correction on pieces of a conductor that walls part: a coarse space that knows which way is open.

Aggregates of 2×2×2, and the larger ones of coarse levels, join what a thin wall parts within them. Where
conductors are scarce and winding, dead ends and detours then have errors that no level takes down. Cubic
blocks cut the conductors into pieces that hang together, with a wall between them where there is one. With P
the indicators of the pieces, z += P (PᵀAP)⁻¹ Pᵀ(r − A z) before and after the cycle takes those errors down.
PᵀAP is sparse because paths are scarce, and factorized once.

After the deflation of Vuik et al. (1999), J. Comput. Phys. 152, 385, doi:10.1006/jcph.1999.6255, and the
additional coarse space of Nicolaides (1987), SIAM J. Numer. Anal. 24, 355, doi:10.1137/0724027.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from scipy.sparse import coo_matrix, csc_matrix, csr_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from fetopo.transport.voxel import _kernels
from fetopo.transport.voxel.level import Level

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: Share of the largest transmissibility from which on a face belongs to a conductor.
_STRONG = 0.05
#: Aggregates that a wall parts, of all that hold any conductor: 0.0065 to 0.0077 in an image that took 25 to
#: 33 iterations without the pieces, 0.0013 at most in those that took less than 20,
_PARTED = 0.004
#: except for one (0.011) in which 40 % of the voxels conduct: where ways are many, no wall matters.
_SCARCE = 0.25
#: Edges of blocks, and the most pieces: the smallest edge is taken that has no more. Factors grow faster.
_BLOCKS = (4, 8, 16, 32)
_MOST = 200_000
#: Added to the diagonal (relative) of a part of the network that nothing binds to the rest.
_FREE = 1e-6


class Pieces:
    """The pieces of a level's conductors, if they are of use, and the correction on them.

    Args:
        level: the finest level, its coefficients known. Its work arrays are overwritten.
    Attributes:
        any: whether there are any.
        total: number of pieces on all ranks.
    """

    def __init__(self, level: Level) -> None:
        module = _kernels.pieces()
        self.ffi, self.lib, self.level = module.ffi, module.lib, level
        self.struct = self.ffi.cast("level *", int(level.ffi.cast("uintptr_t", level.struct)))
        self.first = np.array([own.start for own in level.blocks.own], dtype=np.int64)
        self.any, self.total, self.count, self.offset = False, 0, 0, 0
        self.number: Array = np.zeros(0, dtype=np.int32)
        comm = level.blocks.comm
        strong = _STRONG * float(comm.allreduce(self._largest(), op=MPI.MAX))
        if strong > 0 and self._useful(strong) and level.array("x")[0].size < 2**31:
            self._find(strong)

    def _pointer(self, kind: str, values: Array | None) -> Any:
        return _kernels.pointer(self.ffi, kind, values)

    def _largest(self) -> float:
        level, kind = self.level, self.level.struct.kind
        if kind in (level.lib.FACES, level.lib.FINE_FACES):
            # NumPy's maximum is ten times as fast as a loop that has to ask for each face.
            name = "face" if kind == level.lib.FACES else "fine_face"
            return max(float(level.array(f"{name}{axis}").max()) for axis in range(3))
        return float(self.lib.largest(self.struct))

    def _useful(self, strong: float) -> bool:
        counts = np.zeros(3, dtype=np.int64)
        self.lib.parted(
            self.struct, strong, self._pointer("int64_t", self.first), self._pointer("int64_t", counts)
        )
        conducting, some, several = self.level.blocks.sum(counts)
        size = np.prod(self.level.blocks.shape, dtype=float)
        return bool(several > _PARTED * some and conducting < _SCARCE * size)

    def _find(self, strong: float) -> None:
        level, comm = self.level, self.level.blocks.comm
        number = np.full(level.array("x")[0].shape, -1, dtype=np.int32)
        for block in _BLOCKS:
            self.count = self.lib.pieces(
                self.struct,
                strong,
                block,
                self._pointer("int64_t", self.first),
                self._pointer("int32_t", level.array("y")[0].view(np.int32)),
                self._pointer("int32_t", number),
            )
            counts = comm.allgather(self.count)
            self.total = sum(counts)
            if self.total <= _MOST:
                break
        level.array("y")[...] = 0
        if not 0 < self.total <= _MOST:
            return
        self.any, self.offset = True, sum(counts[: comm.rank])
        number[number >= 0] += self.offset
        level.blocks.complete(number[None])
        self.number = number
        self.factors = splu(
            self._matrix(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )

    def _matrix(self) -> csc_matrix:
        """PᵀAP of all ranks, of the seven-point operator (to which that of elements is equivalent)."""
        comm, shape = self.level.blocks.comm, (self.total, self.total)
        number, null = self._pointer("int32_t", self.number), self.ffi.NULL
        size = self.lib.piece_links(self.struct, number, self.offset, null, null, null, null)
        pairs, values = np.zeros((size, 2), dtype=np.int32), np.zeros(size)
        diagonal, leak = np.zeros(self.count), np.zeros(self.count)
        self.lib.piece_links(
            self.struct,
            number,
            self.offset,
            self._pointer("int32_t", pairs),
            self._pointer("double", values),
            self._pointer("double", diagonal),
            self._pointer("double", leak),
        )
        own = coo_matrix((values, pairs.T), shape=shape).tocsr()
        own.sum_duplicates()
        links = sum(comm.allgather(own), start=csr_matrix(shape))
        every = np.concatenate(comm.allgather(np.stack([diagonal, leak])), axis=1)
        parts, part = connected_components(links, directed=False)
        free = (np.bincount(part, weights=every[1], minlength=parts) == 0)[part]
        # A piece that nothing binds to anything has no load: any number will do.
        bound = np.where(every[0] > 0, every[0], 1.0)
        return (diags(np.where(free, (1 + _FREE) * bound, bound)) - links).tocsc()

    def correct(self, started: bool) -> Floats:
        """Add the correction to x. Collective.

        Args:
            started: whether x, its ghosts included, is a start; else it is zero.
        Returns:
            b·(what was added) of this rank's unknowns, per right-hand side.
        """
        rhs = self.level.rhs
        load, residual = np.zeros((rhs, self.count)), np.zeros((rhs, self.count))
        number = self._pointer("int32_t", self.number)
        self.lib.piece_gather(
            self.struct,
            started,
            number,
            self.offset,
            self.count,
            self._pointer("double", load),
            self._pointer("double", residual),
        )
        own = slice(self.offset, self.offset + self.count)
        every = np.zeros((rhs, self.total))
        every[:, own] = residual
        values = np.ascontiguousarray(self.factors.solve(self.level.blocks.sum(every).T).T)
        self.lib.piece_scatter(self.struct, number, self.total, self._pointer("double", values))
        return np.asarray((load * values[:, own]).sum(axis=1))
