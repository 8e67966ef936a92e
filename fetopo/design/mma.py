"""The method of moving asymptotes on distributed vectors.

Every rank holds its own part of the design variables. The dual of the separable subproblem has one unknown
per constraint, so all that crosses ranks are sums of length m and m²: nothing is gathered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._mpi import require

Array = npt.NDArray[np.float64]


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

    def step(self, x: Array, df0: Array, f: Array, df: Array) -> Array:
        """The next iterate.

        Args:
            x: this rank's variables, shape (n,).
            df0: gradient of the objective, shape (n,).
            f: values of the constraints, shape (m,), the same on every rank.
            df: their gradients, shape (m, n).
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

    def _move_asymptotes(self, x: Array) -> None:
        o, span = self.options, self.upper - self.lower
        if len(self._previous) < 2:
            self._low, self._upp = x - o.asyinit * span, x + o.asyinit * span
            return
        older, old = self._previous[1], self._previous[0]
        trend = (x - old) * (old - older)
        factor = np.where(trend > 0, o.asyincr, np.where(trend < 0, o.asydecr, 1.0))
        self._low = np.clip(x - factor * (old - self._low), x - o.asymax * span, x - o.asymin * span)
        self._upp = np.clip(x + factor * (self._upp - old), x + o.asymin * span, x + o.asymax * span)


class _Subproblem:
    """The convex separable approximation at one iterate and its dual."""

    def __init__(self, mma: MMA, x: Array, df0: Array, f: Array, df: Array) -> None:
        o, span = mma.options, mma.upper - mma.lower
        self.comm, self.penalty, self.m = mma.comm, o.penalty, f.size
        self.L, self.U = mma._low, mma._upp
        self.alpha = np.maximum.reduce([mma.lower, self.L + 0.1 * (x - self.L), x - o.move * span])
        self.beta = np.minimum.reduce([mma.upper, self.U - 0.1 * (self.U - x), x + o.move * span])
        # The small terms keep the approximation strictly convex where a gradient vanishes.
        curvature = 1e-5 / span
        self.r: Array
        grads = np.vstack([df0[None, :], df.reshape(self.m, x.size)])
        plus, minus = np.maximum(grads, 0), np.maximum(-grads, 0)
        pq = 0.001 * (plus + minus) + curvature
        self.p = (plus + pq) * (self.U - x) ** 2
        self.q = (minus + pq) * (x - self.L) ** 2
        at_x = self.p[1:] / (self.U - x) + self.q[1:] / (x - self.L)
        self.r = f - self._sum(at_x.sum(axis=1))

    def _sum(self, values: Array) -> Array:
        total = np.empty_like(values)
        self.comm.Allreduce(np.ascontiguousarray(values), total)
        return total

    def primal(self, lam: Array) -> Array:
        """Minimizer of the Lagrangian, x(λ), in closed form."""
        sp = np.sqrt(self.p[0] + lam @ self.p[1:])
        sq = np.sqrt(self.q[0] + lam @ self.q[1:])
        return np.clip((self.L * sp + self.U * sq) / (sp + sq), self.alpha, self.beta)

    def _dual(self, lam: Array, hessian: bool) -> tuple[float, Array, Array]:
        """Dual function, its gradient and, if asked, the negative of its Hessian."""
        x, m = self.primal(lam), self.m
        ux, xl = 1 / (self.U - x), 1 / (x - self.L)
        terms = self.p * ux + self.q * xl
        y = np.maximum(lam - self.penalty, 0)
        packed: Array = np.zeros(1 + m + m * m)
        packed[0] = terms[0].sum() + lam @ terms[1:].sum(axis=1)
        packed[1 : 1 + m] = terms[1:].sum(axis=1)
        if hessian:
            free = (x > self.alpha) & (x < self.beta)
            slope = (self.p[1:] * ux**2 - self.q[1:] * xl**2)[:, free]
            P, Q = self.p[0] + lam @ self.p[1:], self.q[0] + lam @ self.q[1:]
            bend = (2 * P * ux**3 + 2 * Q * xl**3)[free]
            packed[1 + m :] = ((slope / bend) @ slope.T).ravel()
        packed = self._sum(packed)
        value = packed[0] + lam @ self.r + float(np.sum(self.penalty * y + 0.5 * y**2 - lam * y))
        gradient = packed[1 : 1 + m] + self.r - y
        return value, gradient, packed[1 + m :].reshape(m, m) + np.diag((lam > self.penalty).astype(float))

    def solve(self) -> Array:
        """Maximize the dual over λ ≥ 0: Newton on the barrier function, barrier weight to 1e-12."""
        m = self.m
        if m == 0:
            return np.zeros(0)
        lam: Array = np.full(m, 1.0)
        barrier = 1.0
        while barrier > 1e-12:
            for _ in range(50):
                value, gradient, H = self._dual(lam, hessian=True)
                residual = gradient + barrier / lam
                if np.abs(residual * np.minimum(lam, 1)).max() < 0.1 * barrier:
                    break
                step = np.linalg.solve(H + np.diag(barrier / lam**2), residual)
                shrink = np.max(-step / lam, initial=0.0)
                t = min(1.0, 0.95 / shrink) if shrink > 0 else 1.0
                merit, slope = value + barrier * np.log(lam).sum(), float(residual @ step)
                for _ in range(30):
                    trial = lam + t * step
                    if self._dual(trial, hessian=False)[0] + barrier * np.log(trial).sum() >= (
                        merit + 1e-4 * t * slope - 1e-13 * abs(merit)
                    ):
                        break
                    t *= 0.5
                lam = lam + t * step
            barrier *= 0.1
        return lam
