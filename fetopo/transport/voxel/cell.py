"""The periodic cell problem on voxels: effective tensor, guaranteed lower bound, derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.transport.interval import flux_bound
from fetopo.transport.voxel.grid import VoxelGrid
from fetopo.transport.voxel.operators import Scheme
from fetopo.transport.voxel.state import State

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: Residual relative to the fluxes of a homogeneous cell that is nothing but round-off.
_CANCELLED = 1e-12


class VoxelCellProblem:
    """Effective conductivity of a periodic cell of voxels.

    Dᵢⱼ = 1/|Y| ∫ (eᵢ + ∇χᵢ)·κ(eⱼ + ∇χⱼ) dx with periodic correctors χ, −∇·κ(eⱼ + ∇χⱼ) = 0, by finite volumes
    or by trilinear elements, one per voxel. All directions are solved at once.

    Args:
        grid: periodic along all axes.
        scheme: "finite volumes" or "elements"; the tensor of elements is an upper bound of the exact one.
        rtol: relative residual at which the solver stops; the tensor's error is of the order of its square.
    Attributes:
        state: correctors, and what follows from them.
        tensor: D, shape (d, d), in the unit of the conductivities, after :meth:`solve`.
        iterations: of the last solve.
        imbalance: what the solver left unbalanced, in the unit of the tensor, after :meth:`lower_bound`.
    Raises:
        ValueError: a grid that is not periodic, or another scheme.
    """

    def __init__(self, grid: VoxelGrid, scheme: Scheme = "finite volumes", rtol: float = 1e-8) -> None:
        if not all(grid.periodic):
            raise ValueError("the cell problem needs a grid that is periodic along all axes")
        self.grid, self.scheme, self.rtol = grid, scheme, rtol
        self.state = State(grid, scheme, rhs=grid.dim, double=True)
        sides = self.state.operator.sides
        flat = 3 - grid.dim
        gradient = np.zeros((grid.dim, 3))
        gradient[range(grid.dim), range(flat, 3)] = sides[flat:]
        self.state.gradient = gradient
        self.volume = float(np.prod(sides * self.state.operator.voxels.shape))
        self.tensor: Floats = np.zeros((grid.dim, grid.dim))
        self.iterations = 0
        self.imbalance = 0.0
        self._largest = 1.0
        # Where the conductivity hardly varies along a direction, fluxes of order one cancel in its load: what
        # is left may be round-off, of which no fraction can be asked for.
        self.state.least = _CANCELLED**2 * grid.size * float(np.prod(sides) / sides.max()) ** 2

    def assign(self, kappa: Array, table: Floats | None = None) -> None:
        """Set the conductivities of the own voxels. Collective.

        Args:
            kappa: numbers ≥ 0, shape of the own block, or (d, …) for a diagonal tensor; or a mask, or labels
                with a `table` of conductivities.
        Raises:
            ValueError: a conductivity that is negative or not finite, on every rank.
        """
        kappa = np.asarray(kappa)
        if table is not None or kappa.dtype == bool:
            numbers = np.ones(1) if table is None else np.asarray(table, dtype=float)
        else:
            numbers = np.asarray(kappa, dtype=float)
        low, high = float(numbers.min(initial=np.inf)), float(numbers.max(initial=0.0))
        found = self.grid.blocks.comm.allgather((low, high))
        low, high = min(f[0] for f in found), max(f[1] for f in found)
        if not (low >= 0 and np.isfinite(high)):
            raise ValueError(f"conductivities must be finite and not negative, found {low:g} to {high:g}")
        # Single precision spans 1e±38; the unit of a user's conductivities may be anything.
        self._largest = high if high > 0 and kappa.dtype != bool else 1.0
        if table is not None:
            self.state.assign(kappa, np.asarray(table, dtype=float) / self._largest)
        elif kappa.dtype == bool:
            self.state.assign(kappa)
        else:
            self.state.assign(numbers / self._largest)

    def solve(self) -> None:
        """Solve for all directions, from the last correctors. Collective.

        Raises:
            RuntimeError: the solver did not converge.
        """
        self.state.solve(self.rtol)
        self.iterations = self.state.iterations
        energy: Any = self.state.energy()
        self.tensor = 0.5 * (energy + energy.T) * self._largest / self.volume

    def derivative(self, weight: npt.ArrayLike) -> Array:
        """Σᵢⱼ wᵢⱼ ∂Dᵢⱼ/∂κ for every own voxel, of the discrete problem: correctors are their own adjoints.

        Args:
            weight: shape (d, d).
        Returns:
            Own block, shape of the conductivities.
        """
        return self.state.derivative(np.asarray(weight, dtype=float)) / self.volume

    def lower_bound(self) -> Floats:
        """Lower bound of the exact tensor (finite volumes), as a quadratic form. Collective.

        Raises:
            ValueError: elements give no lower bound.
        """
        if self.scheme != "finite volumes":
            raise ValueError("a lower bound needs the scheme 'finite volumes'")
        found = self.state.fluxes()
        flat = 3 - self.grid.dim
        M: Any = found.mean[flat:] / self.volume
        C: Any = found.complementary / self.volume
        # The exact corrector varies about as much as the discrete one; twice half of that is taken.
        imbalance = found.imbalance * self.state.spread() / self.volume
        self.imbalance = self._largest * float(np.max(imbalance))
        return self._largest * flux_bound(M, C, imbalance)
