"""An image that no rank holds whole: each rank has its own rows along axis 0, in the order of the ranks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fetopo._mpi import require
from fetopo.microstructure._voxels import Image, VoxelSize, check_phases, voxel_sides, voxels_of
from fetopo.microstructure._window import Values

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True, eq=False)
class Slab:
    """A rank's own rows of an image: labels, a mask, or any one value per voxel.

    Making one is collective. `image.read_slabs` reads one from a file, `Slab.share` cuts one from an array,
    `like` makes one with other values on the same rows.

    Args:
        comm: Communicator of the ranks that hold the image.
        values: The rows of this rank, in 2D or 3D; a rank may have none.
        voxel_size: Side of a voxel [m], one or one per axis.
        bounds: First row of every rank, and at the end the number of rows; found out when None.

    Raises:
        ValueError: Rows that do not fit together, no voxel on any rank, or a side that is not positive.
    """

    comm: MPI.Comm
    values: Values
    voxel_size: tuple[float, ...] = (1.0,)
    bounds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        object.__setattr__(self, "values", values)
        if not self.bounds:
            found = self.comm.allgather((values.shape, values.dtype.str))
            if len({(shape[1:], kind) for shape, kind in found}) > 1 or values.ndim not in (2, 3):
                raise ValueError(f"slabs are {found}: expected rows of one 2D or 3D image")
            rows = [shape[0] for shape, _ in found]
            object.__setattr__(self, "bounds", tuple(int(n) for n in np.cumsum([0, *rows])))
        if 0 in self.shape:
            raise ValueError(f"image is empty (shape {self.shape}): expected at least one voxel")
        object.__setattr__(self, "voxel_size", voxel_sides(self.voxel_size, values.ndim))

    @classmethod
    def share(cls, comm: MPI.Comm, values: npt.ArrayLike, voxel_size: VoxelSize = 1.0) -> Slab:
        """Cut an array that every rank has into slabs of equal thickness, without copying."""
        values = np.asarray(values)
        if values.ndim not in (2, 3) or values.size == 0:
            raise ValueError(f"a 2D or 3D image is needed, found shape {values.shape}")
        bounds = tuple(values.shape[0] * rank // comm.size for rank in range(comm.size + 1))
        sides = voxel_sides(voxel_size, values.ndim)
        return cls(comm, values[bounds[comm.rank] : bounds[comm.rank + 1]], sides, bounds)

    @property
    def first(self) -> int:
        """Row of the image where this slab begins."""
        return self.bounds[self.comm.rank]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of voxels of the whole image along each axis."""
        return (self.bounds[-1], *self.values.shape[1:])

    @property
    def dim(self) -> int:
        """Number of axes, 2 or 3."""
        return self.values.ndim

    @property
    def size(self) -> int:
        """Number of voxels of the whole image."""
        return int(np.prod(self.shape, dtype=np.int64))

    def like(self, values: Values) -> Slab:
        """Other values on the same rows."""
        if values.shape != self.values.shape:
            raise ValueError(f"values have shape {values.shape}: expected {self.values.shape} as the slab")
        return Slab(self.comm, values, self.voxel_size, self.bounds)

    def phases(self) -> dict[int, float]:
        """Volume fraction [-] of every label that occurs, in increasing order of the label. Collective."""
        own: dict[int, float] = {}
        if self.values.size:
            values = self.values.view(np.uint8) if self.values.dtype == bool else self.values
            own = Image(values, self.voxel_size).phases
        total: dict[int, float] = {}
        for part in self.comm.allgather({label: round(f * self.values.size) for label, f in own.items()}):
            for label, count in part.items():
                total[label] = total.get(label, 0) + count
        return {label: total[label] / self.size for label in sorted(total)}

    def mask(self, phase: int | Iterable[int]) -> Slab:
        """Voxels that belong to a phase, or to any of several. Collective.

        Raises:
            ValueError: A label does not occur in the image, or none is given; on every rank.
        """
        wanted = check_phases(phase, self.phases())
        return self.like(voxels_of(self.values, wanted))

    def count(self) -> int:
        """Number of voxels of the whole image that are not zero. Collective."""
        return int(self.comm.allreduce(int(np.count_nonzero(self.values))))

    def neighbours(self, values: Values | None = None) -> tuple[Values | None, Values | None]:
        """The row before this slab and the row after it, None at the border of the image. Collective.

        Args:
            values: Rows to exchange, one entry per row of the slab; those of the slab when None.
        """
        from mpi4py import MPI

        values = self.values if values is None else values
        full = [rank for rank in range(self.comm.size) if self.bounds[rank] < self.bounds[rank + 1]]
        before = after = MPI.PROC_NULL
        if self.comm.rank in full:
            place = full.index(self.comm.rank)
            before = full[place - 1] if place > 0 else before
            after = full[place + 1] if place + 1 < len(full) else after
        down = self.comm.sendrecv(values[-1] if len(values) else None, after, source=before)
        up = self.comm.sendrecv(values[0] if len(values) else None, before, source=after)
        return down, up

    def at(self, voxels: npt.NDArray[np.int64]) -> Values:
        """Values of any voxels of the image, wherever they are. Collective; each rank asks for its own.

        Args:
            voxels: Indices into the whole image, shape (n, d).
        Returns:
            n values.
        Raises:
            ValueError: An index outside the image, on every rank.
        """
        voxels = np.asarray(voxels, dtype=np.int64).reshape(-1, self.dim)
        inside = bool(((voxels >= 0) & (voxels < self.shape)).all())
        require(self.comm, inside, f"voxels outside an image of shape {self.shape}")
        flat = np.asarray(np.ravel_multi_index(tuple(voxels.T), self.shape))
        plane = self.size // self.shape[0]
        order = np.argsort(flat, kind="stable")
        edges = np.searchsorted(flat[order], np.array(self.bounds, dtype=np.int64) * plane)
        asked = [flat[order[a:b]] for a, b in pairwise(int(e) for e in edges)]
        here = self.values.reshape(-1)
        answers = self.comm.alltoall([here[part - self.first * plane] for part in self.comm.alltoall(asked)])
        found = np.empty(len(flat), dtype=self.values.dtype)
        found[order] = np.concatenate(answers)
        return found
