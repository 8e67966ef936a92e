"""Optimality criteria on distributed vectors: one objective, one constraint that every variable adds to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._compile import compiled
from fetopo._mpi import require
from fetopo.design.optimizers import Evaluate

Array = npt.NDArray[np.float64]

_SOURCE = Path(__file__).with_name("_oc.c")
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros",
          "-fassociative-math")  # fmt: skip

#: Part of the range by which the origin of growth lies below the lower bound: variables there can leave it.
_SHIFT = 1e-2
#: A gradient of the constraint may be negative by so much of its sum, from solves that are not exact.
_NEGATIVE = 1e-6
#: The linearized constraint holds to this, relative to its possible change in the step.
_ROUND_OFF = 1e-14


@cache
def kernel() -> Any:
    """The compiled module, with `ffi` and `lib`; it declares what it defines."""
    text = _SOURCE.read_text(encoding="utf-8")
    functions = re.findall(r"^void .*?\)(?=\n\{)", text, re.DOTALL | re.MULTILINE)
    return compiled(_SOURCE, ";\n".join([*functions, ""]), name="oc", flags=_FLAGS)


def _pointers(*arrays: Array) -> list[Any]:
    return [kernel().ffi.from_buffer("double[]", a) for a in arrays]


@dataclass(frozen=True)
class OCOptions:
    """Constants of the method.

    Attributes:
        move: largest change of a variable in one step, relative to its range.
        damping: exponent η of the update.
    """

    move: float = 0.2
    damping: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.move < np.inf:
            raise ValueError(f"move must be positive, found {self.move}")
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping must lie in (0, 1], found {self.damping}")


class OC:
    """min f₀(x) subject to f(x) ≤ 0 with ∂f/∂x ≥ 0, lower ≤ x ≤ upper, by a fixed-point iteration.

    x ← x (max(−∂f₀/∂x, 0)/(λ ∂f/∂x))^η, within the move limit and the bounds, with x counted from a hundredth
    of its range below the lower bound. λ is such that f + ∂f/∂x·(new − x) = 0, by Newton's method between
    brackets: in λ^−η that sum is piecewise linear.

    Args:
        comm: communicator over which the variables are distributed.
        lower, upper: bounds of this rank's variables.
        options: constants of the method.
    Attributes:
        multipliers: λ of the last step, shape (1,); 0 where the constraint does not bind.
        passes: how many passes over the variables that took.
    Raises:
        ValueError: on every rank, where a lower bound is not below its upper bound on any.
    Source: Bendsøe and Sigmund (2004), Topology Optimization, 2nd ed., section 1.2.1,
    doi:10.1007/978-3-662-05086-6.
    """

    #: Values at other points are not asked for.
    needs_evaluate = False

    def __init__(self, comm: MPI.Comm, lower: Array, upper: Array, options: OCOptions | None = None) -> None:
        lower, upper = np.ascontiguousarray(lower, dtype=float), np.ascontiguousarray(upper, dtype=float)
        ordered = lower.shape == upper.shape and bool((lower < upper).all())
        require(comm, ordered, "every lower bound must lie below its upper bound")
        self.comm, self.lower, self.upper = comm, lower, upper
        self.options = options or OCOptions()
        self.multipliers: Array = np.zeros(0)
        self.passes = 0
        self._c = 0.0

    def step(
        self, x: Array, f0: Any, df0: Array, f: Array, df: Array, evaluate: Evaluate | None = None
    ) -> Array:
        """The next iterate. Collective.

        Args:
            x: this rank's variables, shape (n,).
            f0: value of the objective; only its slope matters here.
            df0: gradient of the objective, shape (n,).
            f: value of the constraint, shape (1,), the same on every rank.
            df: its gradient, shape (1, n).
            evaluate: not used.
        Returns:
            New variables, shape (n,).
        Raises:
            ValueError: on every rank, where there is not exactly one objective and one constraint, the
                constraint falls with a variable, a value or gradient is not finite, or the shapes do not fit.
        """
        o, n = self.options, self.lower.size
        f = np.atleast_1d(np.asarray(f, dtype=float))
        if np.size(f0) != 1 or f.size != 1:
            raise ValueError(
                "optimality criteria serve one objective and exactly one constraint, "
                f"found {np.size(f0)} and {f.size}; use MMA"
            )
        x, df0, df = (np.ascontiguousarray(a, dtype=float).reshape(-1) for a in (x, df0, df))
        fits = x.size == df0.size == df.size == n
        message = f"the optimizer has {n} variables, found {x.size}, ∂f₀ {df0.size} and ∂f {df.size}"
        factor, mine, sums = np.empty(n), np.full(7, np.nan), np.empty(7)
        if fits:
            kernel().lib.growth(
                n, *_pointers(x, df0, df, self.lower, self.upper), o.move, o.damping, _SHIFT,
                *_pointers(factor, mine),
            )  # fmt: skip
        self.comm.Allreduce(mine, sums)
        down, up, size, negative, slope, origin, grown = sums
        if not (np.isfinite([size, slope]).all() and np.isfinite(f[0]) and np.isfinite(np.asarray(f0)).all()):
            require(self.comm, fits, message)
            raise ValueError("the optimizer was given a value or gradient that is not finite")
        if negative > _NEGATIVE * size:
            raise ValueError("optimality criteria need a constraint that rises with every variable; use MMA")
        new = np.empty(n)

        def update(c: float) -> tuple[float, float]:
            mine, total = np.empty(2), np.empty(2)
            arrays = _pointers(x, df, self.lower, self.upper)
            kernel().lib.update(n, *arrays, o.move, _SHIFT, *_pointers(factor), c, *_pointers(mine, new))
            self.comm.Allreduce(mine, total)
            self.passes += 1
            return float(f[0] + total[0]), float(total[1])

        self.passes = 0
        if f[0] + up <= 0:
            update(np.inf)
            self.multipliers = np.zeros(1)
        elif f[0] + down >= 0:
            update(0.0)
            self.multipliers = np.full(1, np.inf)
        else:
            guess = self._c if self._c > 0 else origin / grown if grown > 0 else 1.0
            self._c = _root(update, guess, _ROUND_OFF * (up - down))
            self.multipliers = np.array([self._c ** (-1 / o.damping)])
        return new

    def state(self) -> dict[str, Any]:
        """The last λ^−η, from which the next one is looked for, and λ."""
        return {"scale": self._c, "multipliers": self.multipliers.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        self._c = float(state["scale"])
        self.multipliers = np.array(state["multipliers"], dtype=float)


def _root(function: Any, c: float, tolerance: float) -> float:
    """Root c > 0 of an increasing function that returns value and slope; the last call is at the root."""
    low, high = 0.0, np.inf
    for _ in range(200):
        value, slope = function(c)
        if abs(value) <= tolerance:
            break
        low, high = (c, high) if value < 0 else (low, c)
        if high < np.inf and high - low <= 4e-16 * high:
            break
        wanted = c - value / slope if slope > 0 else np.nan
        if not low < wanted < high:
            wanted = 4 * low if high == np.inf else 0.25 * high if low == 0 else (low * high) ** 0.5
        c = wanted
    return c
