"""From design variable to physical density: filter, projection, interpolation, each with its transpose.

    x ─ symmetry ─ passive ─ filter ─▶ x̃ ─ HeavisideProjection ─ passive ─▶ ρ ─ Interpolation ─▶ κ

Arrays hold one value per owned cell, on a grid of voxels one per voxel of the own block in C order. `forward`
maps values; `vjp` maps a derivative with respect to the result (a dual vector: one number per cell, already
summed over the cell) to one with respect to the input. The steps that are not here: `filters`, `regions`,
`symmetry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import fem

from fetopo.design.filters import HelmholtzFilter
from fetopo.design.regions import PassiveRegions
from fetopo.design.symmetry import Symmetry
from fetopo.transport import materials
from fetopo.transport.state import owned
from fetopo.transport.voxel import VoxelGrid

__all__ = ["DensityMap", "HeavisideProjection", "HelmholtzFilter", "Interpolation", "chain"]

Array = npt.NDArray[np.float64]


class HeavisideProjection:
    """Smoothed step that sharpens a filtered field.

    ρ = (tanh βη + tanh β(x̃ − η)) / (tanh βη + tanh β(1 − η))

    Args:
        beta: sharpness β > 0; continuation may set the attribute.
        eta: threshold η in (0, 1); one number, or one for each of this rank's values.
    Raises:
        ValueError: values outside these ranges.
    Source: Wang, Lazarov and Sigmund (2011), Struct. Multidisc. Optim. 43, 767,
    doi:10.1007/s00158-010-0602-y.
    """

    def __init__(self, beta: float = 1.0, eta: float | Array = 0.5) -> None:
        self.eta = np.array(eta, dtype=float)
        if not (0 < beta < np.inf and np.all((self.eta > 0) & (self.eta < 1))):
            raise ValueError(f"the projection needs β > 0 and 0 < η < 1, found β = {beta} and η = {eta}")
        self.beta = float(beta)
        self._step: Array = np.zeros(0)

    def _scale(self) -> Array:
        return np.asarray(np.tanh(self.beta * self.eta) + np.tanh(self.beta * (1 - self.eta)))

    def forward(self, x: Array) -> Array:
        """Projected values; remembers the point for :meth:`vjp`."""
        self._step = np.tanh(self.beta * (x - self.eta))
        return (np.tanh(self.beta * self.eta) + self._step) / self._scale()

    def vjp(self, dual: Array) -> Array:
        """Pull a derivative back at the point of the last :meth:`forward`."""
        return dual * ((1 - self._step) * (1 + self._step) * (self.beta / self._scale()))


class Interpolation:
    """Conductivity as a function of density, by one of the laws in :mod:`fetopo.transport.materials`.

    Args:
        domain: mesh on which :meth:`ufl` is used, or a grid of voxels, which has no UFL.
        first, second: conductivities at ρ = 0 and ρ = 1; where the first is the larger, the law goes from
            the second to the first in 1 − ρ, so that the penalty stays on what conducts.
        penalty: exponent of SIMP or q of RAMP; continuation may set the attribute `penalty`.
        law: function (ρ, low, high, penalty) that works on UFL and on arrays, real and complex.
    Raises:
        ValueError: a conductivity that is not positive and finite (use a small ratio for an insulator while
            designing; the finished design is solved without it), or both alike.
    """

    def __init__(
        self,
        domain: Any,
        first: float,
        second: float,
        penalty: float = 3.0,
        law: Callable[..., Any] = materials.simp,
    ) -> None:
        low, high = sorted((float(first), float(second)))
        if not (0 < low < high < np.inf):
            raise ValueError(
                f"conductivities must be positive, finite and different, found {first} and {second}"
            )
        self.low, self.high, self.law, self.reversed = low, high, law, first > second
        self._penalty = float(penalty)
        self._constants: tuple[fem.Constant, ...] = ()
        if not isinstance(domain, VoxelGrid):
            # Constants, not literals: other values need no other compiled form.
            self._constants = tuple(fem.Constant(domain, c) for c in (self.low, self.high, self._penalty))
        self._rho: Array = np.zeros(0)

    @property
    def penalty(self) -> float:
        return self._penalty

    @penalty.setter
    def penalty(self, value: float) -> None:
        self._penalty = float(value)
        if self._constants:
            self._constants[2].value = self._penalty

    def ufl(self, rho: Any) -> Any:
        """κ(ρ) as UFL; follows changes of the penalty.

        Raises:
            TypeError: made for a grid of voxels.
        """
        if not self._constants:
            raise TypeError("on a grid of voxels there is no UFL: use forward and vjp")
        return self.law(1 - rho if self.reversed else rho, *self._constants)

    def forward(self, rho: Array) -> Array:
        """κ per cell; remembers the point for :meth:`vjp`."""
        self._rho = 1 - rho if self.reversed else rho
        return np.asarray(self.law(self._rho, self.low, self.high, self.penalty))

    def vjp(self, dual: Array) -> Array:
        """Pull a derivative back: κ′(ρ) as known, or by a complex step, exact for any smooth law."""
        slope = materials.SLOPES.get(self.law)
        dual = -dual if self.reversed else dual
        if slope is not None:
            return np.asarray(dual * slope(self._rho, self.low, self.high, self.penalty))
        h = 1e-30
        return dual * np.imag(self.law(self._rho + 1j * h, self.low, self.high, self.penalty)) / h


class DensityMap:
    """Design variable to physical density: the steps in order, and back through all of them.

    Args:
        domain: a mesh, where `rho` becomes a DG0 function, or a grid of voxels, where `rho` is None and one
            value per voxel of the own block, in C order, all there is.
        steps: objects with `forward` and `vjp`.
    """

    def __init__(self, domain: Any, *steps: Any) -> None:
        self.steps, self.domain = steps, domain
        self.rho: fem.Function | None = None
        #: What each step gave in the last :meth:`forward`, for functionals that look inside the chain.
        self.inner: list[Array] = []
        #: Maps that go on from what a step gives: number of the step and map, set by every :meth:`forward`.
        self.followers: list[tuple[int, DensityMap]] = []
        #: Communicator over which the values are distributed.
        self.comm = domain.blocks.comm if isinstance(domain, VoxelGrid) else domain.comm
        if isinstance(domain, VoxelGrid):
            self._values = np.zeros(int(np.prod(domain.own_shape)))
        else:
            self.rho = fem.Function(fem.functionspace(domain, ("DG", 0)), name="density")

    @property
    def values(self) -> Array:
        """The density on this rank's cells or voxels."""
        return self._values if self.rho is None else owned(self.rho)

    def forward(self, x: Array) -> Array:
        """Map the design variable and set the density; returns its values on this rank."""
        self.inner.clear()
        for step in self.steps:
            x = step.forward(x)
            self.inner.append(x)
        self.values[:] = x
        if self.rho is not None:
            self.rho.x.scatter_forward()
        for number, follower in self.followers:
            follower.forward(self.inner[number])
        return x

    def vjp(self, dual: Array, inner: Mapping[int, Array] | None = None) -> Array:
        """Derivative with respect to the design variable from one with respect to the density.

        Args:
            dual: with respect to the density.
            inner: with respect to what a step gives, by the number of the step, in addition.
        """
        for number in reversed(range(len(self.steps))):
            if inner and number in inner:
                dual = dual + inner[number]
            dual = self.steps[number].vjp(dual)
        return dual


def chain(
    filter: Any,
    projection: Any | None = None,
    *,
    passive: PassiveRegions | None = None,
    symmetry: Symmetry | None = None,
) -> list[Any]:
    """Steps of a density map in the order in which they belong.

    Passive regions come twice: before the filter, so that what is beside them sees them as they are, and at
    the end, so that they are exactly that.

    Args:
        filter, projection, passive, symmetry: the steps; None leaves one out.
    Raises:
        ValueError: passive regions that are not as symmetric as the design shall be.
    """
    if symmetry is not None and passive is not None:
        symmetry.check(passive.solid, "the passive solid")
        symmetry.check(passive.void, "the passive void")
    steps = (symmetry, passive, filter, projection, passive)
    return [step for step in steps if step is not None]
