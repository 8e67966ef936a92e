"""The method of moving asymptotes on distributed vectors.

Every rank holds its own part of the design variables. The dual of the separable subproblem has one unknown
per constraint, so all that crosses ranks are sums of length m and m²: nothing is gathered. The sums are C.
"""

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

_SOURCE = Path(__file__).with_name("_mma.c")
#: Sums may be done in any order, several at a time.
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros",
          "-fassociative-math")  # fmt: skip

#: Relative accuracy of a sum over many variables.
_ROUND_OFF = 1e-14


@cache
def _kernel() -> Any:
    """The compiled module, with `ffi` and `lib`; it declares what it defines."""
    text = _SOURCE.read_text(encoding="utf-8")
    functions = re.findall(r"^void .*?\)(?=\n\{)", text, re.DOTALL | re.MULTILINE)
    return compiled(_SOURCE, ";\n".join([*functions, ""]), name="mma", flags=_FLAGS)


def _pointers(*arrays: Array) -> list[Any]:
    """For C; arrays that it writes to must be contiguous, others are copied where they are not."""
    kept = [np.ascontiguousarray(a, dtype=float) for a in arrays]
    return [_kernel().ffi.from_buffer("double[]", a) for a in kept]


@dataclass(frozen=True)
class MMAOptions:
    """Constants of the method, named as in Svanberg's papers.

    Attributes:
        move: largest change of a variable in one step, relative to its range.
        asyinit: first distance of the asymptotes, relative to the range.
        asyincr, asydecr: factors on that distance where a variable goes on and where it oscillates.
        asymin, asymax: limits of that distance, relative to the range.
        penalty: cost c of violating a constraint; must exceed the optimal multipliers.
    """

    move: float = 0.2
    asyinit: float = 0.2
    asyincr: float = 1.2
    asydecr: float = 0.7
    asymin: float = 0.01
    asymax: float = 10.0
    penalty: float = 1000.0


class MMA:
    """min f₀(x) subject to fᵢ(x) ≤ 0, i = 1…m, lower ≤ x ≤ upper.

    In each step f is replaced by rᵢ + Σⱼ pᵢⱼ/(Uⱼ − xⱼ) + qᵢⱼ/(xⱼ − Lⱼ), which is convex and separable, and
    that problem is solved through its dual by an interior point method. Objective and constraints should be
    scaled to order one.

    Args:
        comm: communicator over which the variables are distributed.
        lower, upper: bounds of this rank's variables.
        options: constants of the method.
    Raises:
        ValueError: on every rank, where a lower bound is not below its upper bound on any.
    Source: Svanberg (1987), Int. J. Numer. Meth. Eng. 24, 359, doi:10.1002/nme.1620240207; the interior
    point method on the dual as in Aage and Lazarov (2013), Struct. Multidisc. Optim. 47, 493,
    doi:10.1007/s00158-012-0869-2.
    """

    def __init__(self, comm: MPI.Comm, lower: Array, upper: Array, options: MMAOptions | None = None) -> None:
        lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
        ordered = lower.shape == upper.shape and bool((lower < upper).all())
        require(comm, ordered, "every lower bound must lie below its upper bound")
        self.comm = comm
        self.lower, self.upper = lower, upper
        self.options = options or MMAOptions()
        self.multipliers: Array = np.zeros(0)
        self._previous: list[Array] = []
        self._low: Array = np.empty(0)
        self._upp: Array = np.empty(0)

    #: Values at other points are not asked for.
    needs_evaluate = False

    def step(
        self, x: Array, f0: Any, df0: Array, f: Array, df: Array, evaluate: Evaluate | None = None
    ) -> Array:
        """The next iterate. Collective.

        Args:
            x: this rank's variables, shape (n,).
            f0: value of the objective; only its slope matters here.
            df0: gradient of the objective, shape (n,).
            f: values of the constraints, shape (m,), the same on every rank.
            df: their gradients, shape (m, n).
            evaluate: not used.
        Returns:
            New variables, shape (n,).
        Raises:
            ValueError: on every rank, where a value or a gradient is not finite on any.
        """
        f, df = np.atleast_1d(np.asarray(f, dtype=float)), np.atleast_2d(df)
        finite = bool(np.isfinite(df0).all() and np.isfinite(df).all() and np.isfinite(f).all())
        require(self.comm, finite, "the optimizer was given a value or gradient that is not finite")
        self._move_asymptotes(x)
        subproblem = _Subproblem(self, x, df0, f, df)
        self.multipliers = subproblem.solve()
        self._previous = [x.copy(), *self._previous[:1]]
        return subproblem.primal(self.multipliers)

    def state(self) -> dict[str, Any]:
        """Points before, asymptotes and multipliers, see :class:`fetopo.design.optimizers.Optimizer`."""
        state: dict[str, Any] = {"steps": len(self._previous), "multipliers": self.multipliers.copy()}
        if self._previous:
            state |= {"x_low": self._low.copy(), "x_upp": self._upp.copy()}
        return state | {f"x_previous_{i}": x.copy() for i, x in enumerate(self._previous)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        self.multipliers = np.array(state["multipliers"], dtype=float)
        self._previous = [np.array(state[f"x_previous_{i}"]) for i in range(int(state["steps"]))]
        if self._previous:
            self._low, self._upp = np.array(state["x_low"]), np.array(state["x_upp"])

    def _move_asymptotes(self, x: Array) -> None:
        o, span = self.options, self.upper - self.lower
        if len(self._previous) < 2:
            self._low, self._upp = x - o.asyinit * span, x + o.asyinit * span
            return
        older, old = self._previous[1], self._previous[0]
        factors = np.array([o.asyincr, o.asydecr, o.asymin, o.asymax])
        arrays = (x, old, older, self.lower, self.upper, factors, self._low, self._upp)
        _kernel().lib.move_asymptotes(x.size, *_pointers(*arrays))


class _Subproblem:
    """The convex separable approximation at one iterate and its dual."""

    def __init__(self, mma: MMA, x: Array, df0: Array, f: Array, df: Array) -> None:
        o, n, m = mma.options, x.size, f.size
        self.comm, self.penalty, self.n, self.m = mma.comm, o.penalty, n, m
        limits = np.empty((2, n))
        p, q, at_x = np.empty((1 + m, n)), np.empty((1 + m, n)), np.zeros(m)
        _kernel().lib.approximate(
            n, m, *_pointers(x, df0, df.reshape(m, n), mma.lower, mma.upper), o.move,
            *_pointers(mma._low, mma._upp, limits[0], limits[1], p, q, at_x),
        )  # fmt: skip
        self._arrays = (mma._low, mma._upp, limits[0], limits[1], p, q)
        self.r: Array = f - self._sum(at_x)

    def _sum(self, values: Array) -> Array:
        total = np.empty_like(values)
        self.comm.Allreduce(values, total)
        return total

    def primal(self, lam: Array) -> Array:
        """Minimizer of the Lagrangian, x(λ), in closed form."""
        x = np.empty(self.n)
        _kernel().lib.primal(self.n, self.m, *_pointers(lam, *self._arrays, x))
        return x

    def _dual(self, lam: Array) -> tuple[float, Array, Array]:
        """Dual function, its gradient and the negative of its Hessian. Collective."""
        m = self.m
        sums: Array = np.empty(1 + m + m * m)
        _kernel().lib.dual(self.n, m, *_pointers(lam, *self._arrays, sums))
        sums = self._sum(sums)
        y = np.maximum(lam - self.penalty, 0)
        value = sums[0] + lam @ (sums[1 : 1 + m] + self.r) + float(np.sum((self.penalty + 0.5 * y - lam) * y))
        hessian = sums[1 + m :].reshape(m, m) + np.diag((lam > self.penalty).astype(float))
        return float(value), sums[1 : 1 + m] + self.r - y, hessian

    def solve(self) -> Array:
        """Maximize the dual over λ ≥ 0: Newton on the barrier function, barrier weight to 1e-12.

        A pass over the variables is what costs: each gives value, gradient and Hessian, and the weight falls
        faster and faster, as Newton's method converges.
        """
        m = self.m
        if m == 0:
            return np.zeros(0)
        lam: Array = np.full(m, 1.0)
        value, gradient, H = self._dual(lam)
        barrier = 1.0
        while True:
            for _ in range(50):
                residual = gradient + barrier / lam
                # No further than the sums are known.
                known = np.maximum(0.1 * barrier, _ROUND_OFF * np.abs(self.r))
                if (np.abs(residual * np.minimum(lam, 1)) < known).all():
                    break
                step = np.linalg.solve(H + np.diag(barrier / lam**2), residual)
                shrink = np.max(-step / lam, initial=0.0)
                t = min(1.0, 0.95 / shrink) if shrink > 0 else 1.0
                merit, slope = value + barrier * np.log(lam).sum(), float(residual @ step)
                for _ in range(30):
                    trial = lam + t * step
                    value, gradient, H = self._dual(trial)
                    # So near the solution that the value does not tell any more, Newton's steps converge.
                    if slope <= 1e3 * _ROUND_OFF * abs(merit):
                        break
                    if value + barrier * np.log(trial).sum() >= merit + 1e-4 * t * slope:
                        break
                    t *= 0.5
                lam = trial
            if barrier <= 1e-12:
                return lam
            barrier = max(min(0.1 * barrier, barrier**1.5), 1e-12)
