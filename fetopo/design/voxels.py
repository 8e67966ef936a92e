"""Design on a regular grid of voxels, without a mesh: its filter, its state and functions of its tensor.

The other steps (projection, interpolation, density map, constraints, the loop) are those of meshes. Arrays
of a design hold one value per voxel of the rank's own block, in C order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.design.density import DensityMap, Interpolation
from fetopo.design.tensor import TensorValue
from fetopo.transport.voxel import ScreenedPoisson, VoxelCellProblem, VoxelGrid

Array = npt.NDArray[np.float64]


class VoxelFilter:
    """Local averaging over a distance R by a screened Poisson equation, on a periodic grid of voxels.

    −r²∇²x̃ + x̃ = x,  r = R/(2√3), by finite volumes with one value per voxel. All voxels are alike, so that
    the filter is its own transpose; volume is preserved and 0 ≤ x ≤ 1 gives 0 ≤ x̃ ≤ 1.

    Args:
        grid: the grid, periodic along every axis.
        radius: R, in the unit of the grid; 0 returns the input.
    Attributes:
        volumes: volume of each voxel of the own block.
        solvers: linear solvers it uses, for whoever counts iterations.
    Raises:
        ValueError: a radius that is negative or not finite, or a grid that is not periodic.
    Source: Lazarov and Sigmund (2011), Int. J. Numer. Meth. Eng. 86, 765, doi:10.1002/nme.3072.
    """

    def __init__(self, grid: VoxelGrid, radius: float) -> None:
        if not (np.isfinite(radius) and radius >= 0):
            raise ValueError(f"the filter radius must be non-negative and finite, found {radius}")
        if not all(grid.periodic):
            raise ValueError(f"the grid must be periodic along every axis, found {grid.periodic}")
        self.grid, self.radius = grid, float(radius)
        self.volumes: Array = np.full(int(np.prod(grid.own_shape)), float(np.prod(grid.voxel_size)))
        self.solvers: list[Any] = []
        if radius > 0:
            self._solver = ScreenedPoisson(grid, radius / (2 * 3**0.5))
            self.solvers.append(self._solver)

    def _apply(self, values: Array) -> Array:
        if self.radius == 0:
            return values.copy()
        return np.asarray(self._solver.solve(values.reshape(self.grid.own_shape))).reshape(-1)

    def forward(self, x: Array) -> Array:
        """Filtered values x̃ = (1 + r²L)⁻¹ x."""
        return self._apply(x)

    def vjp(self, dual: Array) -> Array:
        """Pull a derivative back: (1 + r²L)⁻¹ ȳ, the same map."""
        return self._apply(dual)


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
