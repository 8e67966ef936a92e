"""How far a density is from crisp, as a constraint that tightens with the sharpness of the projection."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fetopo.design.density import DensityMap

Array = npt.NDArray[np.float64]

#: Sharpness of the projection from which on a density is to be crisp.
SHARP = 64.0


class GreyLevel:
    """Grey level relative to what is allowed at the present sharpness, (1/|Y|) ∫ 4ρ(1−ρ) dx / g(β).

    A target tensor that is met leaves the optimizer nothing to gain from a crisp density, unlike a maximum,
    where the interpolation makes grey a waste of volume. As the constraint value ≤ 1 it has to become crisp.
    Put into `projections` of a :class:`fetopo.design.problem.DesignProblem` it follows the continuation.

    Args:
        density: the density.
        volumes: volumes of this rank's cells.
        volume: |Y|.
        final: g at and beyond `sharp`.
        sharp: β from which on `final` holds; below g = min(1, final·sharp/β).
    """

    states = ()

    def __init__(
        self,
        density: DensityMap,
        volumes: Array,
        volume: float,
        *,
        final: float = 0.008,
        sharp: float = SHARP,
    ) -> None:
        self.density, self.comm, self.rho = density, density.comm, density.rho
        self._share = volumes / volume
        self.final, self.sharp, self.beta = final, sharp, 1.0

    @property
    def allowed(self) -> float:
        """g(β)."""
        return min(1.0, self.final * max(self.sharp / self.beta, 1.0))

    def value(self) -> float:
        """Relative grey level at the present density."""
        rho = self.density.values
        return float(self.comm.allreduce(float(self._share @ (4 * rho * (1 - rho))))) / self.allowed

    def derivative(self) -> Array:
        """Its derivative by ρ as a dual vector over owned cells."""
        return np.asarray(self._share * (4 - 8 * self.density.values) / self.allowed)
