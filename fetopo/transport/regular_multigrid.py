"""The multigrid of the voxels as a preconditioner for linear elements on a regular grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from petsc4py import PETSc

from fetopo.transport.regular import CellValues, Conduction
from fetopo.transport.voxel import VoxelGrid
from fetopo.transport.voxel.blocks import Blocks
from fetopo.transport.voxel.operators import Operator

Array = npt.NDArray[Any]

#: Conductivity of a contact, relative to the largest there is.
CONTACT = 1e3


class GridMultigrid:
    """A cycle of the voxels' multigrid as a PETSc preconditioner (`pc_type python`).

    The matrix stays the one that was assembled: it decides what is solved, this only how fast. Where the
    potential is given on a part of a face, the grid gets a layer of voxels beyond it: good conductors in
    front of that part, insulators elsewhere, and the potential given behind them.

    Args:
        problem: conduction that :meth:`suits`.
    """

    def __init__(self, problem: Conduction) -> None:
        cell, d = problem.cell, problem.cell.dim
        comm = cell.mesh.comm
        #: Whether the potential is given on parts of faces.
        self.contacts = bool(problem.contacts)
        layers, grid = _layered(problem)
        given = np.array(problem.fixed) | (layers > 0)
        self.operator = Operator(grid, "elements", fixed=[(bool(a), bool(b)) for a, b in given])
        self.kappa = CellValues(cell.mesh, problem.kappa)
        cells = self.kappa.space.tabulate_dof_coordinates()[: len(self.kappa.owned), :d]
        voxels = ((cells - cell.lower) / problem.spacing).astype(np.int64) + layers[:, 0]
        self._voxels = _Exchange(comm, np.arange(len(voxels)), voxels, len(voxels), grid.blocks)
        at = problem.index + layers[:, 0]
        inside = (at >= given[:, 0]) & (at <= np.array(grid.shape) - given[:, 1])
        free = inside.all(axis=1) & ~problem.held
        self._nodes = _Exchange(
            comm, np.flatnonzero(free), (at - given[:, 0])[free], len(at), self.operator.blocks
        )
        whole = np.zeros(grid.shape, dtype=bool)
        for (axis, side), contact in problem.contacts.items():
            place: list[Any] = [slice(a, m - b) for (a, b), m in zip(layers, grid.shape, strict=True)]
            place[axis] = -side
            whole[tuple(place)] = contact
        self._contacts = whole[grid.own]
        # Lengths of the operator are relative to the longest edge of a voxel.
        self._unit = float(problem.spacing.max()) ** (d - 2)
        self._scale = 1.0
        self._products = np.zeros(1)

    @staticmethod
    def suits(problem: Conduction) -> bool:
        """Whether potentials are given on faces or parts of them, and voxels enough for the ranks."""
        return not problem.elsewhere and not (problem.cell.mesh.comm.size > 1 and _layered(problem)[1].alone)

    def update(self) -> None:
        """Build the hierarchy of the present conductivity. Collective."""
        self.kappa.update()
        comm = self.operator.voxels.comm
        values = self._voxels.to_block(self.kappa.owned).reshape(self._contacts.shape)
        largest = comm.allreduce(float(values.max(initial=0.0)), MPI.MAX)
        # Levels are kept in single precision.
        largest = largest if 0 < largest < np.inf else 1.0
        self._scale = 1 / (largest * self._unit)
        self.operator.assign(np.where(self._contacts, CONTACT, values / largest))

    def apply(self, pc: Any, x: Any, y: Any) -> None:
        """y ≈ A⁻¹x; called by PETSc."""
        x.copy(y)
        size = x.norm(PETSc.NormType.INFINITY)
        if size == 0:
            return
        level = self.operator.level
        b = level.array("b")[0, 1:-1, 1:-1, 1:-1]
        np.multiply(self._nodes.to_block(x).reshape(b.shape), 1 / size, out=b, casting="same_kind")
        self.operator.hierarchy.cycle(self._products)
        found = level.array("x")[0, 1:-1, 1:-1, 1:-1] * np.float64(size * self._scale)
        self._nodes.from_block(found.reshape(-1), y)

    #: The cycle is symmetric.
    applyTranspose = apply


def _layered(problem: Conduction) -> tuple[Array, VoxelGrid]:
    """Layers of voxels to add at both ends of each axis, shape (d, 2), and the grid with them."""
    assert problem.cell.grid is not None
    layers = np.zeros((problem.cell.dim, 2), dtype=np.int64)
    for face in problem.contacts:
        layers[face] = 1
    shape = [int(m) for m in np.array(problem.cell.grid) + layers.sum(axis=1)]
    edges = [float(h) for h in problem.spacing]
    return layers, VoxelGrid(problem.cell.mesh.comm, shape, edges, periodic=problem.periodic)


class _Exchange:
    """Values of owned degrees of freedom to the blocks of a grid and back.

    Args:
        owned: local numbers of the degrees of freedom that are on the grid.
        index: where each is, shape (…, d).
        size: how many this rank owns.
        blocks: distribution of the grid.
    """

    def __init__(self, comm: MPI.Comm, owned: Array, index: Array, size: int, blocks: Blocks) -> None:
        flat = 3 - index.shape[1]
        index = np.concatenate([np.zeros((len(index), flat), dtype=np.int64), index], axis=1)
        at = [np.searchsorted(b, i, side="right") - 1 for b, i in zip(blocks.bounds, index.T, strict=True)]
        parts = [blocks.of(rank) for rank in range(comm.size)]
        first = np.array([[s.start for s in part] for part in parts])
        shape = np.array([[s.stop - s.start for s in part] for part in parts])
        begin = np.concatenate([[0], np.cumsum(shape.prod(axis=1))])
        rank = np.ravel_multi_index(at, blocks.parts)
        i, j, k = (index - first[rank]).T
        place = begin[rank] + (i * shape[rank, 1] + j) * shape[rank, 2] + k
        self._block = PETSc.Vec().createMPI((shape[comm.rank].prod(), begin[-1]), comm=comm)
        self._own = PETSc.Vec().createMPI((size, PETSc.DECIDE), comm=comm)
        start = self._own.getOwnershipRange()[0]
        sets = [PETSc.IS().createGeneral(v.astype(PETSc.IntType), comm=comm) for v in (owned + start, place)]
        self._scatter = PETSc.Scatter().create(self._own, sets[0], self._block, sets[1])

    def to_block(self, values: Any) -> Array:
        """Values of this rank's block; the array is used again. Collective."""
        if isinstance(values, np.ndarray):
            self._own.array[:] = values
            values = self._own
        # Places that belong to no degree of freedom.
        self._block.set(0.0)
        self._scatter.scatter(values, self._block, PETSc.InsertMode.INSERT, PETSc.ScatterMode.FORWARD)
        return np.asarray(self._block.array)

    def from_block(self, values: Array, into: Any) -> None:
        """Values of the block into a PETSc vector; entries that are not on the grid stay. Collective."""
        self._block.array[:] = values
        self._scatter.scatter(self._block, into, PETSc.InsertMode.INSERT, PETSc.ScatterMode.REVERSE)
