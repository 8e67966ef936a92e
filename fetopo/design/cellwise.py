"""Gradients of fields that are constant in every cell, with exact transposes, on meshes and on voxels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.periodic import periodic_space
from fetopo.transport.quadrature import measure
from fetopo.transport.state import assemble_dual, owned
from fetopo.transport.voxel import VoxelGrid

Array = npt.NDArray[np.float64]


class NodalField:
    """Cell values as a continuous, piecewise linear field: at each node the mean of the cells around.

    f̂ₙ = Σ_c wₙ_c f_c / Σ_c wₙ_c with wₙ_c the integral of the node's shape function over the cell.

    Args:
        mesh: the mesh.
        cell: periodic cell the mesh belongs to, if it is one.
    Attributes:
        field: f̂, after :meth:`forward`.
        cells: f, as a function that is constant in every cell.
    """

    def __init__(self, mesh: Any, cell: UnitCell | None = None) -> None:
        V, Q = fem.functionspace(mesh, ("Lagrange", 1)), fem.functionspace(mesh, ("DG", 0))
        if cell is not None:
            V = periodic_space(V, cell.lower, cell.upper, complete=cell.complete)
        v, q = ufl.TestFunction(V), ufl.TestFunction(Q)
        dx = measure(mesh, 1, cell)
        self.field, self.cells = fem.Function(V), fem.Function(Q)
        self._dual = fem.Function(V)
        self._to_nodes = fem.form(self.cells * v * dx)
        self._to_cells = fem.form(self._dual * q * dx)
        self._weights = owned(assemble_dual(fem.form(v * dx))).copy()

    def forward(self, values: Array) -> None:
        """Set `cells` and `field` from this rank's values. Collective."""
        owned(self.cells)[:] = values
        self.cells.x.scatter_forward()
        owned(self.field)[:] = owned(assemble_dual(self._to_nodes)) / self._weights
        self.field.x.scatter_forward()

    def vjp(self, dual: Array) -> Array:
        """Pull a derivative by nodal values back to one by cell values. Collective."""
        owned(self._dual)[:] = dual / self._weights
        self._dual.x.scatter_forward()
        return owned(assemble_dual(self._to_cells)).copy()


class GridGradient:
    """Differences of voxel values on a periodic grid that is shared out over ranks.

    Args:
        grid: periodic along every axis.
    """

    def __init__(self, grid: VoxelGrid) -> None:
        self.grid = grid
        self._flat = 3 - grid.dim
        self._padded = grid.blocks.padded(1, np.float64)

    def around(self, own: Array) -> Array:
        """Values of the own block with one layer of neighbours along every axis of the grid. Collective."""
        self._padded[0, 1:-1, 1:-1, 1:-1] = own.reshape(self.grid.blocks.own_shape)
        self.grid.blocks.exchange(self._padded)
        for axis in range(self._flat, 3):
            if self.grid.blocks.wraps(axis):
                view = np.moveaxis(self._padded[0], axis, 0)
                view[0], view[-1] = view[-2], view[1]
        return np.array(self._padded[(0, *(1,) * self._flat)])

    def _block(self, padded: Array, shift: tuple[int, ...]) -> Array:
        return padded[tuple(slice(1 + s, n - 1 + s) for s, n in zip(shift, padded.shape, strict=True))]

    def central(self, own: Array) -> list[Array]:
        """(f(x+h) − f(x−h))/2h along every axis, in the own voxels; its transpose is its negative."""
        padded = self.around(own)
        found: list[Any] = []
        for axis, h in enumerate(self.grid.voxel_size):
            step = tuple(int(a == axis) for a in range(self.grid.dim))
            back = tuple(-s for s in step)
            found.append((self._block(padded, step) - self._block(padded, back)) / (2 * h))
        return found

    def corners(self, own: Array) -> list[Array]:
        """Gradient at the upper corner of each own voxel, from the 2ᵈ voxels that meet there."""
        padded = self.around(own)
        found: list[Any] = [np.zeros(self.grid.own_shape) for _ in self.grid.voxel_size]
        for shift in itertools.product((0, 1), repeat=self.grid.dim):
            values = self._block(padded, shift)
            for axis, part in enumerate(found):
                part += (1 if shift[axis] else -1) * values
        edges = 2 ** (self.grid.dim - 1)
        for part, h in zip(found, self.grid.voxel_size, strict=True):
            np.multiply(part, 1 / (edges * h), out=part)
        return found

    def corners_transposed(self, duals: list[Array]) -> Array:
        """Transpose of :meth:`corners`: from one dual per corner and axis to one per voxel."""
        edges = 2 ** (self.grid.dim - 1)
        result = np.zeros(self.grid.own_shape)
        for axis, (dual, h) in enumerate(zip(duals, self.grid.voxel_size, strict=True)):
            padded = self.around(dual)
            for shift in itertools.product((0, 1), repeat=self.grid.dim):
                back = tuple(-s for s in shift)
                result += (1 if shift[axis] else -1) / (edges * h) * self._block(padded, back)
        return result
