"""A regular grid of conductivities, distributed by rows: neighbours, numbers of unknowns, PETSc matrices.

What the two voxel discretizations (`grid_elements`, `grid_flux`) share. No mesh is made: coefficients of
a stencil are sums of shifted arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from petsc4py import PETSc
from scipy.sparse import csr_matrix

from fetopo.microstructure.slab import Slab
from fetopo.transport.solvers import configure, multigrid_options, over, stalled
from fetopo.transport.state import PetscOptions

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Grid:
    """Conductivity per voxel of a box; zero is an exact insulator.

    Attributes:
        kappa: own rows of the conductivity, or of a mask.
        sides: edge lengths of a voxel.
        periodic: per axis, whether opposite faces are one.
    """

    kappa: Slab
    sides: npt.NDArray[np.float64]
    periodic: tuple[bool, ...]

    @property
    def comm(self) -> Any:
        return self.kappa.comm

    @property
    def shape(self) -> tuple[int, ...]:
        return self.kappa.shape

    @property
    def dim(self) -> int:
        return self.kappa.dim

    @property
    def volume(self) -> float:
        """Volume of the box."""
        return float(np.prod(self.sides * self.shape))

    def area(self, axis: int) -> float:
        """Area of a voxel's face normal to an axis."""
        return float(np.prod(self.sides) / self.sides[axis])

    def padded(self) -> Array:
        """Own rows with one layer of neighbours around; zero beyond a face that is not periodic."""
        return pad(self.comm, np.asarray(self.kappa.values), self.periodic, 0)


def grid_of(kappa: Slab, sides: Sequence[float], periodic: Sequence[bool]) -> Grid:
    """A grid whose lengths are relative to the longest side of a voxel, so that numbers stay near one."""
    h = np.asarray(sides, dtype=float)
    return Grid(kappa, h / h.max(), tuple(periodic))


def pad(comm: Any, rows: Array, periodic: Sequence[bool], fill: float) -> Array:
    """An array distributed by rows with the layer of entries around the own rows. Collective."""
    counts = comm.allgather(len(rows))
    full = [rank for rank, count in enumerate(counts) if count]
    before = after = np.full((1, *rows.shape[1:]), fill, dtype=rows.dtype)
    down = up = None
    if len(rows):
        place = full.index(comm.rank)
        previous, following = full[place - 1], full[(place + 1) % len(full)]
        # A plane goes both ways also where the box ends, and is then not used: every rank does the same.
        down = comm.sendrecv(rows[-1:], following, source=previous)
        up = comm.sendrecv(rows[:1], previous, source=following)
        if periodic[0] or place > 0:
            before = down
        if periodic[0] or place + 1 < len(full):
            after = up
    result = np.concatenate([before, rows, after])
    for axis in range(1, rows.ndim):
        width = [(int(a == axis),) * 2 for a in range(rows.ndim)]
        result = (
            np.pad(result, width, mode="wrap")
            if periodic[axis]
            else np.pad(result, width, constant_values=fill)
        )
    return np.asarray(result)


def number(comm: Any, used: npt.NDArray[np.bool_], periodic: Sequence[bool]) -> tuple[Array, int, int]:
    """Number the entries used over all ranks, row by row.

    Returns:
        The numbers with a layer of neighbours around, −1 where there is none; how many are on this rank, and
        how many on all.
    """
    own = int(np.count_nonzero(used))
    counts = comm.allgather(own)
    kind = np.int32 if sum(counts) < 2**31 else np.int64
    numbers = np.full(used.shape, -1, dtype=kind)
    numbers[used] = np.arange(sum(counts[: comm.rank]), sum(counts[: comm.rank + 1]), dtype=kind)
    return pad(comm, numbers, periodic, -1), own, sum(counts)


def shifted(padded: Array, offset: Sequence[int], shape: Sequence[int]) -> Array:
    """View of a padded array that begins `offset` entries after its corner."""
    return np.asarray(padded[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))])


def to_petsc(
    comm: Any, columns: Array, values: Array, total: int, *, repeated: bool
) -> tuple[Any, csr_matrix]:
    """Matrix from the columns and values of its own rows, shape (rows, entries); column −1 is no entry.

    Args:
        columns: increasing in each row, unless `repeated`.
        repeated: whether a row may hold a column twice or out of order, as around periodic faces.
    """
    keep = (columns >= 0) & (values != 0)
    pointer = np.concatenate([[0], np.cumsum(keep.sum(axis=1))]).astype(PETSc.IntType)
    A = csr_matrix(
        (values[keep].astype(np.float64), columns[keep].astype(PETSc.IntType), pointer),
        shape=(len(columns), total),
    )
    if repeated:
        A.sum_duplicates()
    size = ((len(columns), total),) * 2
    if comm.size > 1:
        matrix = PETSc.Mat().createAIJ(size, csr=(A.indptr, A.indices, A.data), comm=comm)
    else:
        matrix = PETSc.Mat().createAIJWithArrays(size, (A.indptr, A.indices, A.data), comm=comm)
    matrix.setOption(PETSc.Mat.Option.SPD, True)
    return matrix, A


class GridSolver:
    """A Krylov solver for a symmetric matrix made from a grid, for many right-hand sides.

    Args:
        A: PETSc matrix.
        tdim: dimension of the grid, on which the defaults depend.
        singular: whether the constant may be in the null space.
        petsc_options: over the defaults.
    """

    def __init__(self, A: Any, tdim: int, *, singular: bool, petsc_options: PetscOptions | None) -> None:
        self.A = A
        self.iterations = 0
        if singular:
            A.setNullSpace(PETSc.NullSpace().create(constant=True, comm=A.comm))
        self.ksp = PETSc.KSP().create(A.comm)
        self.ksp.setOperators(A)
        options = over(multigrid_options(tdim, singular=singular, size=A.getSize()[0]), petsc_options)
        options.pop("retry", None)
        configure(self.ksp, options, "fetopo_")
        self.rtol = float(options.get("ksp_rtol", 1e-10))

    def solve(self, b: Array) -> Array:
        """Own part of the solution of A x = b, from zero.

        Raises:
            RuntimeError: the solver did not converge.
        """
        x, rhs = self.A.createVecs()
        rhs.array[:] = b
        self.ksp.solve(rhs, x)
        failure = stalled(self.ksp)
        if failure is not None:
            raise RuntimeError(f"the linear solver {failure}")
        self.iterations += int(self.ksp.getIterationNumber())
        result = x.array.copy()
        x.destroy()
        rhs.destroy()
        return np.asarray(result)

    def multiply(self, x: Array) -> Array:
        """Own part of A x."""
        v, y = self.A.createVecs()
        v.array[:] = x
        self.A.mult(v, y)
        result = y.array.copy()
        v.destroy()
        y.destroy()
        return np.asarray(result)

    def destroy(self) -> None:
        """Give the memory of PETSc's objects back."""
        self.ksp.destroy()
        self.A.destroy()
