"""The screened Poisson equation on a voxel grid, as the density filter needs it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo.transport.voxel.grid import VoxelGrid
from fetopo.transport.voxel.operators import sides_of
from fetopo.transport.voxel.state import State

Array = npt.NDArray[Any]


class ScreenedPoisson:
    """−ℓ²∇²u + u = f by finite volumes: one value per voxel.

    Through walls, faces that are not periodic, there is no flux, or ℓ² ∂u/∂n = −b u with a length b. The map
    u = (I + ℓ²L)⁻¹ f is symmetric in the values per voxel, and without flux keeps their sum.

    Args:
        grid: the voxels.
        length: ℓ, in the unit of the voxel size; the Helmholtz filter of radius R has ℓ = R/(2√3).
        wall_length: b, in the same unit; 0 for no flux.
        rtol: relative residual at which the solver stops.
    Attributes:
        iterations: of the last solve.
    Raises:
        ValueError: a length that is not positive, a wall length that is negative.
    """

    def __init__(
        self, grid: VoxelGrid, length: float, rtol: float = 1e-10, *, wall_length: float = 0.0
    ) -> None:
        if not (np.isfinite(length) and length > 0):
            raise ValueError(f"the length must be positive, found {length}")
        if not (np.isfinite(wall_length) and wall_length >= 0):
            raise ValueError(f"the length of the walls must not be negative, found {wall_length}")
        self.grid, self.rtol = grid, rtol
        # In units of a voxel's longest edge, divided by ℓ² so that conductivities are one.
        unit = length / max(grid.voxel_size)
        self._scale = float(np.prod(sides_of(grid))) / unit**2
        fixed = [(wall_length > 0 and not wraps,) * 2 for wraps in grid.periodic]
        self.state = State(grid, shift=self._scale, fixed=fixed)
        self.state.assign(np.ones(grid.own_shape, dtype=bool))
        if wall_length > 0:
            self._soften_walls(length**2 / wall_length)
        self.state.source = self.state.operator.blocks.padded(1, np.float64)

    def _soften_walls(self, distance: float) -> None:
        """Put the zero potential not at the walls but a distance ℓ²/b beyond them: u + (ℓ²/b) ∂u/∂n = 0."""
        operator = self.state.operator
        for axis, h in enumerate(self.grid.voxel_size, 3 - self.grid.dim):
            faces = np.moveaxis(operator.level.array(f"face{axis}")[0], axis, 0)
            for side, fixed in ((0, operator.level.struct.low[axis]), (-2, operator.level.struct.high[axis])):
                if fixed:
                    faces[side] *= 0.5 * h / (0.5 * h + distance)
        operator.hierarchy.build()

    @property
    def iterations(self) -> int:
        return self.state.iterations

    def solve(self, values: Array) -> Array:
        """u for the own values f. Collective.

        Raises:
            RuntimeError: the solver did not converge.
        """
        inner = (0, *(slice(1, -1),) * 3)
        assert self.state.source is not None
        # Derivatives may be tiny, and single precision, in which part of the solver works, ends at 1e-38.
        largest = self.grid.blocks.comm.allreduce(float(np.abs(values).max(initial=0.0)), op=MPI.MAX)
        unit = largest if 0 < largest < np.inf else 1.0
        values = np.reshape(values, self.state.operator.blocks.own_shape) / unit
        self.state.source[inner] = values * self._scale
        self.state.u[:] = 0
        self.state.solve(self.rtol)
        return self.state.u[inner].reshape(self.grid.own_shape) * unit
