"""Shares of three and more materials: one design field per material beyond the first, nested in each other.

    x₁ ─ chain ─▶ ρ₁ ┐
    x₂ ─ chain ─▶ ρ₂ ┴─ c₁ = ρ₁, c₂ = ρ₁ρ₂, … ─▶ κ = κ₀ + Σₖ (κₖ − κₖ₋₁) cₖᵖ

cₖ is the share of the materials k and beyond: material k has the volume fraction ⟨cₖ⟩ − ⟨cₖ₊₁⟩. With SIMP
this is κ₀ + ρ₁ᵖ((κ₁ − κ₀) + ρ₂ᵖ(κ₂ − κ₁)). Design variables, shares and derivatives are the fields' arrays,
one after the other, with one value per owned cell or voxel each, so that the loop sees one density.

Source: Bendsøe and Sigmund (1999), Arch. Appl. Mech. 69, 635, doi:10.1007/s004190050248; Gibiansky and
Sigmund (2000), J. Mech. Phys. Solids 48, 461, doi:10.1016/S0022-5096(99)00043-5.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.design.adjoint import Functional
from fetopo.design.density import DensityMap, Interpolation
from fetopo.transport import materials

Array = npt.NDArray[np.float64]


class NestedDensity:
    """Design variables of several fields to the shares of the materials, and back.

    Args:
        domain: a mesh or a grid of voxels.
        chains: the steps of each field, see :func:`fetopo.design.density.chain`.
    Attributes:
        shares: a density map per field that holds cₖ; on a mesh its `rho` is a DG0 function.
        steps: those of all fields.
        domain: as given.
        comm: communicator over which the values are distributed.
    """

    #: There is no single function.
    rho = None

    def __init__(self, domain: Any, chains: Sequence[Sequence[Any]]) -> None:
        self.domain = domain
        self.steps = [step for steps in chains for step in steps]
        self._fields = [DensityMap(domain, *steps) for steps in chains]
        self.shares = [DensityMap(domain) for _ in chains]
        self.comm = self.shares[0].comm
        self._rho: list[Array] = []

    @property
    def values(self) -> Array:
        """Shares of all fields on this rank, one after the other."""
        return np.concatenate([share.values for share in self.shares])

    def forward(self, x: Array) -> Array:
        """Map the design variables and set the shares; returns them."""
        self._rho = [
            field.forward(part).copy()
            for field, part in zip(self._fields, np.split(x, len(self._fields)), strict=True)
        ]
        product = np.ones_like(self._rho[0])
        for rho, share in zip(self._rho, self.shares, strict=True):
            product = product * rho
            share.forward(product)
        return self.values

    def vjp(self, dual: Array) -> Array:
        """Derivative with respect to the design variables from one with respect to the shares."""
        duals = np.split(dual, len(self._fields))
        pulled = []
        # Of the share beyond: c̄ₖ collects what cₖ₊₁ = cₖ ρₖ₊₁ hands back.
        back = np.zeros_like(duals[0])
        for k in reversed(range(len(duals))):
            back = duals[k] + back
            before = self.shares[k - 1].values if k else 1.0
            pulled.append(self._fields[k].vjp(back * before))
            back = back * self._rho[k]
        return np.concatenate(pulled[::-1])


class NestedInterpolation:
    """Conductivity of a mixture of nested materials.

    κ = κ₀ + Σₖ (law(cₖ; κₖ₋₁, κₖ) − κₖ₋₁)

    Args:
        domain: mesh or grid of voxels, as for :class:`fetopo.design.density.Interpolation`.
        conductivities: κ₀, κ₁, …, rising or falling; neighbours may be alike.
        penalty, law: as there.
    Raises:
        ValueError: conductivities that are not positive and finite, all alike, or neither rising nor falling.
    """

    def __init__(
        self,
        domain: Any,
        conductivities: Sequence[float],
        penalty: float = 3.0,
        law: Callable[..., Any] = materials.simp,
    ) -> None:
        k = [float(c) for c in conductivities]
        if not all(0 < c < np.inf for c in k):
            raise ValueError(f"conductivities must be positive and finite, found {k}")
        steps = np.diff(k)
        if not ((steps >= 0).all() or (steps <= 0).all()) or not steps.any():
            raise ValueError(f"conductivities must rise or fall from material to material, found {k}")
        self._first = k[0]
        self._steps = [
            None if a == b else Interpolation(domain, a, b, penalty, law) for a, b in itertools.pairwise(k)
        ]
        self._bases = k[:-1]
        self._penalty = float(penalty)

    @property
    def penalty(self) -> float:
        return self._penalty

    @penalty.setter
    def penalty(self, value: float) -> None:
        self._penalty = float(value)
        for step in self._steps:
            if step is not None:
                step.penalty = value

    def ufl(self, shares: Sequence[Any]) -> Any:
        """κ as UFL from the shares as functions; follows changes of the penalty."""
        total: Any = self._first
        for step, base, share in zip(self._steps, self._bases, shares, strict=True):
            if step is not None:
                total = total + (step.ufl(share) - base)
        return total

    def forward(self, shares: Array) -> Array:
        """κ per cell; remembers the point for :meth:`vjp`."""
        parts = np.split(shares, len(self._steps))
        total = np.full_like(parts[0], self._first)
        for step, base, share in zip(self._steps, self._bases, parts, strict=True):
            if step is not None:
                total += step.forward(share) - base
        return total

    def vjp(self, dual: Array) -> Array:
        """Pull a derivative back, to all shares."""
        return np.concatenate([np.zeros_like(dual) if s is None else s.vjp(dual) for s in self._steps])


class JointFunctional:
    """One functional of several fields on a mesh, from its derivative with respect to each.

    Args:
        parts: the same functional, each differentiated by another field.
    """

    rho = None

    def __init__(self, parts: Sequence[Functional]) -> None:
        self.parts, self.comm, self.states = list(parts), parts[0].comm, parts[0].states

    def value(self) -> float:
        """The value, the same for all parts."""
        return self.parts[0].value()

    def derivative(self) -> Array:
        """Derivatives with respect to the fields, one after the other."""
        return np.concatenate([part.derivative() for part in self.parts])


class MaterialFraction:
    """Volume fraction of material k, ⟨cₖ⟩ − ⟨cₖ₊₁⟩ with c₀ = 1.

    Args:
        density: the shares.
        volumes: volumes of this rank's cells.
        volume: of the whole.
        material: k.
    Raises:
        ValueError: a material that is not there.
    """

    states = ()
    rho = None

    def __init__(self, density: NestedDensity, volumes: Array, volume: float, material: int) -> None:
        fields = len(density.shares)
        if not 0 <= material <= fields:
            raise ValueError(f"the material must be 0 to {fields}, found {material}")
        self.density, self.comm = density, density.comm
        weights = np.zeros((fields, volumes.size))
        if material > 0:
            weights[material - 1] = volumes / volume
        if material < fields:
            weights[material] = -volumes / volume
        self._constant = float(material == 0)
        self._weights = weights.reshape(-1)

    def value(self) -> float:
        """The fraction at the present density. Collective."""
        return self._constant + float(self.comm.allreduce(float(self._weights @ self.density.values)))

    def derivative(self) -> Array:
        """Its derivative with respect to the shares, a dual vector over owned cells, field after field."""
        return self._weights.copy()
