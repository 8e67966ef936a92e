"""The method of moving asymptotes on distributed vectors.

Every rank holds its own part of the design variables; only sums cross ranks, see `subproblem`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._mpi import require
from fetopo.design.optimizers import Evaluate
from fetopo.design.subproblem import Subproblem, kernel, pointers

Array = npt.NDArray[np.float64]

#: A step goes no nearer to an asymptote than a tenth of its distance.
_EDGE = 0.9


@dataclass(frozen=True)
class MMAOptions:
    """Constants of the method, named as in Svanberg's papers.

    Attributes:
        move: largest change of a variable in one step, relative to its range.
        asyinit: first distance of the asymptotes, relative to the range.
        asyincr, asydecr: factors on that distance where a variable goes on and where it oscillates.
        asymin, asymax: limits of that distance, relative to the range.
        penalty: cost c of violating a constraint; must exceed its optimal multiplier where constraint and
            objective are each scaled to Σ |∂f/∂x| (upper − lower) = 1.
        convexity: curvature that every approximation has at least, relative to its mean |∂f/∂x|.
    """

    move: float = 0.2
    asyinit: float = 0.2
    asyincr: float = 1.2
    asydecr: float = 0.7
    asymin: float = 0.01
    asymax: float = 10.0
    penalty: float = 1000.0
    convexity: float = 0.02

    def __post_init__(self) -> None:
        for name in ("move", "asyinit", "asymin", "penalty", "convexity"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive, found {value}")
        if not self.asymin <= self.asymax:
            raise ValueError(f"asymin must not exceed asymax, found {self.asymin} and {self.asymax}")
        if not 0 < self.asydecr <= 1 <= self.asyincr:
            raise ValueError(f"asydecr ≤ 1 ≤ asyincr is needed, found {self.asydecr} and {self.asyincr}")


class MMA:
    """min f₀(x), or min maxₗ f₀ₗ(x), subject to fᵢ(x) ≤ 0, i = 1…m, lower ≤ x ≤ upper.

    In each step f is replaced by rᵢ + Σⱼ pᵢⱼ/(Uⱼ − xⱼ) + qᵢⱼ/(xⱼ − Lⱼ), which is convex and separable, and
    that problem is solved through its dual. Steps do not depend on the scale of objective and constraints.
    A constraint that is violated is recovered as far as the move limit lets it.

    Args:
        comm: communicator over which the variables are distributed.
        lower, upper: bounds of this rank's variables.
        options: constants of the method.
    Attributes:
        multipliers: of the constraints, at the last step; `weights` those of the objectives, which sum to 1.
        passes: how many passes over the variables the last step took for its dual.
    Raises:
        ValueError: on every rank, where a lower bound is not below its upper bound on any.
    Source: Svanberg (1987), Int. J. Numer. Meth. Eng. 24, 359, doi:10.1002/nme.1620240207; curvature of the
    approximations and several objectives as in Svanberg (2002), SIAM J. Optim. 12, 555,
    doi:10.1137/S1052623499362822.
    """

    #: Values at other points are not asked for.
    needs_evaluate = False

    def __init__(self, comm: MPI.Comm, lower: Array, upper: Array, options: MMAOptions | None = None) -> None:
        lower, upper = np.ascontiguousarray(lower, dtype=float), np.ascontiguousarray(upper, dtype=float)
        ordered = lower.shape == upper.shape and bool((lower < upper).all())
        require(comm, ordered, "every lower bound must lie below its upper bound")
        self.comm = comm
        self.lower, self.upper = lower, upper
        self.options = options or self.default_options()
        self.multipliers: Array = np.zeros(0)
        self.weights: Array = np.zeros(0)
        self.passes = 0.0
        self._steps = 0
        n = lower.size
        self._total = int(comm.allreduce(n))
        self._old: Array = np.zeros(n)
        self._trend: Array = np.zeros(n)
        self._distance: Array = np.ones(n)
        self._low: Array = np.empty(n)
        self._high: Array = np.empty(n)

    @staticmethod
    def default_options() -> MMAOptions:
        return MMAOptions()

    def step(
        self, x: Array, f0: Any, df0: Array, f: Array, df: Array, evaluate: Evaluate | None = None
    ) -> Array:
        """The next iterate. Collective.

        Args:
            x: this rank's variables, shape (n,).
            f0: value of the objective; shape (k,) to minimize the largest of several.
            df0: gradient of the objective, shape (n,); (k, n) for several.
            f: values of the constraints, shape (m,), the same on every rank.
            df: their gradients, shape (m, n).
            evaluate: not used.
        Returns:
            New variables, shape (n,).
        Raises:
            ValueError: on every rank, where a value or a gradient is not finite on any, or the shapes do not
                fit.
        """
        subproblem = self._approximate(x, f0, df0, f, df)
        self._solve(subproblem)
        return subproblem.x

    def _approximate(self, x: Array, f0: Any, df0: Array, f: Array, df: Array) -> Subproblem:
        """Move the asymptotes and set up the approximations around x."""
        x = np.ascontiguousarray(x, dtype=float)
        n = self.lower.size
        f0, f = (np.atleast_1d(np.asarray(v, dtype=float)) for v in (f0, f))
        df0, df = (np.ascontiguousarray(g, dtype=float) for g in (df0, df))
        k, m = f0.size, f.size
        shapes = x.shape == (n,) and df0.size == k * n and df.size == m * n and k > 0
        message = (
            f"the optimizer has {n} variables, found x {x.shape}, ∂f₀ {df0.shape} for {k} objectives, "
            f"∂f {df.shape} for {m} constraints"
        )
        o = self.options
        sizes, total = np.full(k + m, np.nan), np.empty(k + m)
        if shapes:
            factors = np.array(
                [o.asyincr, o.asydecr, o.asymin, o.asymax, o.asyinit, o.move, _EDGE, self._steps]
            )
            kernel().lib.prepare(
                n, k, m, *pointers(x, df0, df, self.lower, self.upper, factors, self._old, self._trend),
                *pointers(self._distance, self._low, self._high, sizes),
            )  # fmt: skip
        self.comm.Allreduce(sizes, total)
        if not (np.isfinite(total).all() and np.isfinite(f0).all() and np.isfinite(f).all()):
            require(self.comm, shapes, message)
            raise ValueError("the optimizer was given a value or gradient that is not finite")
        self._steps += 1
        arrays = (x, df0, df, self.lower, self.upper, self._distance, self._low, self._high)
        rho = self._curvature(total)
        return Subproblem(self.comm, arrays, f0, f, total, rho, o.penalty, self._total)

    def _curvature(self, sizes: Array) -> Array:
        """ρ of every row, from its Σ |∂f/∂x| (upper − lower)."""
        # A row without a slope has no scale of its own.
        return np.where(sizes > 0, self.options.convexity * sizes, 1e-9) / max(self._total, 1)

    def _solve(self, subproblem: Subproblem) -> None:
        k, m = subproblem.k, subproblem.m
        if self.weights.size == k and self.multipliers.size == m:
            start = np.concatenate([self.weights, self.multipliers]) / subproblem.scale
        else:
            start = np.concatenate([np.full(k, 1 / k), np.ones(m)])
        found = subproblem.solve(start) * subproblem.scale
        self.weights, self.multipliers = found[:k], found[k:]
        self.passes = subproblem.passes

    def state(self) -> dict[str, Any]:
        """Last point and step, asymptotes and multipliers, as :class:`fetopo.design.optimizers.Optimizer`."""
        return {
            "steps": self._steps,
            "weights": self.weights.copy(),
            "multipliers": self.multipliers.copy(),
            "x_old": self._old.copy(),
            "x_trend": self._trend.copy(),
            "x_distance": self._distance.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state` as if there had been no interruption.

        Raises:
            ValueError: on every rank, where it has another number of variables on any.
        """
        n = self.lower.size
        fits = all(np.shape(state[key]) == (n,) for key in ("x_old", "x_trend", "x_distance"))
        require(self.comm, fits, f"the optimizer has {n} variables, its state has others")
        self._steps = int(state["steps"])
        self.weights = np.array(state["weights"], dtype=float)
        self.multipliers = np.array(state["multipliers"], dtype=float)
        self._old = np.array(state["x_old"], dtype=float)
        self._trend = np.array(state["x_trend"], dtype=float)
        self._distance = np.array(state["x_distance"], dtype=float)
