"""Design on a regular grid of voxels, without a mesh: its state and functions of its tensor.

Its filters are in `filters`; all else (projection, interpolation, density map, constraints, the loop) is that
of meshes. Arrays of a design hold one value per voxel of the rank's own block, in C order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.design.density import DensityMap, Interpolation
from fetopo.design.filters import VoxelFilter
from fetopo.design.tensor import TensorValue
from fetopo.transport.voxel import VoxelCellProblem

__all__ = ["VoxelFilter", "VoxelState", "VoxelTensorFunctional"]

Array = npt.NDArray[np.float64]


class VoxelState:
    """The cell problem of a density on voxels, for all functionals that look at it.

    Args:
        problem: cell problem on the grid.
        density: the density map.
        interpolation: from density to conductivity.
    """

    def __init__(self, problem: VoxelCellProblem, density: DensityMap, interpolation: Interpolation) -> None:
        self.problem, self.density, self.interpolation = problem, density, interpolation
        self.comm = density.comm
        self._kappa: Array = np.zeros(0)
        #: Krylov iterations of all solves so far.
        self.iterations = 0
        self.name = "state"

    @property
    def tolerance(self) -> float:
        """Relative tolerance of the solver; may be set."""
        return float(self.problem.rtol)

    @tolerance.setter
    def tolerance(self, rtol: float) -> None:
        self.problem.rtol = rtol

    @property
    def guesses(self) -> list[Array]:
        """Where the next solve starts, as views of this rank's values."""
        return [self.problem.state.u]

    @property
    def tensor(self) -> Array:
        """Effective tensor at the last solved density, shape (d, d)."""
        return np.asarray(self.problem.tensor)

    def solve(self) -> Array:
        """Solve the correctors at the present density; returns the tensor. Collective.

        Raises:
            RuntimeError: the solver did not converge.
        """
        kappa = self.interpolation.forward(self.density.values)
        self._kappa = kappa.reshape(self.problem.grid.own_shape)
        self.problem.assign(self._kappa)
        self.problem.solve()
        self.iterations += int(self.problem.iterations)
        return self.tensor

    def correctors(self) -> Array:
        """χ of each direction in the unit of the lengths, on every rank: shape (d, *grid). Collective."""
        grid, own = self.problem.grid, self.problem.state.u[:, 1:-1, 1:-1, 1:-1]
        parts = [grid.gather(np.ascontiguousarray(chi).reshape(grid.own_shape)) for chi in own]
        return np.stack(parts) * max(grid.voxel_size)

    def flux(self, axis: int = 0) -> Array:
        """κ(e + ∇χ) per voxel, the mean of its faces, on every rank: shape (*grid, d). Collective.

        Finite volumes only. `axis`: that of the mean gradient e.
        """
        grid = self.problem.grid
        kappa, chi = grid.gather(self._kappa), self.correctors()[axis]
        components = []
        for a, h in enumerate(grid.voxel_size):
            following = np.roll(kappa, -1, a)
            gradient = (np.roll(chi, -1, a) - chi) / h + float(a == axis)
            face = 2 * kappa * following / (kappa + following) * gradient
            components.append(0.5 * (face + np.roll(face, 1, a)))
        return np.stack(components, axis=-1)


class VoxelTensorFunctional:
    """A function of the effective tensor of a periodic grid of voxels, J(D(ρ)).

    dJ/dρ = κ′(ρ) Σᵢⱼ ∂J/∂Dᵢⱼ ∂Dᵢⱼ/∂κ; the correctors are their own adjoints, so d solves give the value and
    the derivative.

    Args:
        state: the cell problem and the density it belongs to.
        function: J as a function that takes D as a UFL d×d tensor and returns a UFL scalar, as for
            :class:`fetopo.design.adjoint.TensorFunctional`.
    Raises:
        ValueError: `function` does not return a scalar.
    """

    #: There is no DOLFINx function: the density is `state.density`.
    rho = None

    def __init__(self, state: VoxelState, function: Callable[[Any], Any]) -> None:
        self.state, self.states, self.comm = state, (state,), state.comm
        grid = state.problem.grid
        self.function = TensorValue(grid.comm, function, grid.dim)

    def value(self) -> float:
        """J(D) at the present tensor."""
        return self.function.value(self.state.tensor)

    def derivative(self) -> Array:
        """dJ/dρ as a dual vector over the own voxels, at the density of the last solve."""
        weight = self.function.derivative(self.state.tensor)
        dual = np.asarray(self.state.problem.derivative(weight)).reshape(-1)
        return self.state.interpolation.vjp(dual)
