"""Functionals made of functionals: sums, ratios, the largest of several. The chain rule and no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.design.adjoint import Functional, pull_back
from fetopo.design.density import DensityMap

Array = npt.NDArray[np.float64]


class Combination:
    """A function of the values of several functionals, f(J₁, …, Jₙ).

    df/dρ = Σᵢ ∂f/∂Jᵢ dJᵢ/dρ. States that several of them share are solved once.

    Args:
        parts: the functionals, which may be combinations themselves.
        function: f, from their n values to a number.
        slopes: ∂f/∂Jᵢ at these values, n numbers.
    Raises:
        ValueError: no parts.
    """

    def __init__(
        self,
        parts: Sequence[Functional],
        function: Callable[[Array], float],
        slopes: Callable[[Array], Array],
    ) -> None:
        if not parts:
            raise ValueError("a combination needs at least one functional")
        self.parts, self.function, self.slopes = list(parts), function, slopes
        self.comm = self.parts[0].comm
        self.rho = getattr(self.parts[0], "rho", None)
        #: State problems of all parts, each once.
        self.states: tuple[Any, ...] = tuple({id(s): s for p in self.parts for s in p.states}.values())

    def values(self) -> Array:
        """Values of the parts at the present density."""
        return np.array([part.value() for part in self.parts])

    def value(self) -> float:
        """f at the present density."""
        return float(self.function(self.values()))

    def derivative(self) -> Array:
        """df/dρ as a dual vector over owned cells."""
        return self._sum([part.derivative() for part in self.parts])

    def design_derivative(self, density: DensityMap) -> Array:
        """df/dm, also of parts that look at more than the density."""
        if any(hasattr(part, "design_derivative") for part in self.parts):
            return self._sum([pull_back(part, density) for part in self.parts])
        return density.vjp(self.derivative())

    def _sum(self, gradients: Sequence[Array]) -> Array:
        slopes = self.slopes(self.values())
        return np.asarray(sum(s * g for s, g in zip(slopes, gradients, strict=True)))


def weighted_sum(parts: Sequence[Functional], weights: Sequence[float] | None = None) -> Combination:
    """Σ wᵢ Jᵢ, for instance over load cases; without weights the sum.

    Raises:
        ValueError: another number of weights, or weights that are not finite.
    """
    w = np.ones(len(parts)) if weights is None else np.asarray(weights, dtype=float)
    if w.shape != (len(parts),) or not np.isfinite(w).all():
        raise ValueError(f"one finite weight per functional is needed, found {w.tolist()} for {len(parts)}")
    return Combination(parts, lambda J: float(w @ J), lambda J: w)


def ratio(first: Functional, second: Functional) -> Combination:
    """J₁/J₂."""
    return Combination(
        [first, second],
        lambda J: float(J[0] / J[1]),
        lambda J: np.array([1 / J[1], -J[0] / J[1] ** 2]),
    )


def smooth_maximum(parts: Sequence[Functional], exponent: float = 16.0) -> Combination:
    """(Σ Jᵢᵖ/n)^(1/p) of positive values: below the largest by a factor of n^(1/p) at most.

    Equal values give that value. To minimize the largest itself, give a design problem the list of
    functionals as its objective.

    Args:
        parts: functionals with positive values.
        exponent: p > 1.
    Raises:
        ValueError: another exponent, or at :meth:`Combination.value` a value that is not positive.
    """
    if not (np.isfinite(exponent) and exponent > 1):
        raise ValueError(f"the exponent must be a finite number above 1, found {exponent}")

    def scaled(J: Array) -> tuple[float, Array, float]:
        if not (J > 0).all():
            raise ValueError(f"a smooth maximum needs positive values, found {J.tolist()}")
        # By the largest, so that no power overflows.
        relative = J / J.max()
        mean = float(np.mean(relative**exponent))
        return float(J.max()), relative, mean

    def function(J: Array) -> float:
        largest, _, mean = scaled(J)
        return float(largest * mean ** (1 / exponent))

    def slopes(J: Array) -> Array:
        _, relative, mean = scaled(J)
        return np.asarray(mean ** (1 / exponent - 1) * relative ** (exponent - 1) / len(J))

    return Combination(parts, function, slopes)
