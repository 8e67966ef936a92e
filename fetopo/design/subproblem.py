"""The convex separable subproblem of the method of moving asymptotes, solved through its dual.

The dual has one unknown per constraint, and per objective where there are several, so that all that crosses
ranks are that many sums and their squares: nothing is gathered. A pass over the variables gives value, slope
and curvature of the dual; passes are what costs. A tenth of the variables tells the multipliers to a few per
cent, and Newton's method on all of them, from there, needs three or four passes.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._compile import compiled

Array = npt.NDArray[np.float64]

_SOURCE = Path(__file__).with_name("_mma.c")
#: Sums may be done in any order, several at a time.
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros",
          "-fassociative-math")  # fmt: skip

#: Relative accuracy of a sum over many variables.
_ROUND_OFF = 1e-14
#: Multipliers are known where Newton's step is below this part of the largest of them.
_SETTLED = 1e-11
#: A sample is looked at first where there are more variables than this on all ranks, one block in so many.
#: An odd number: strides of a power of two would follow the rows of a grid.
_MANY, _EVERY = 100_000, 11


@cache
def kernel() -> Any:
    """The compiled module, with `ffi` and `lib`; it declares what it defines."""
    text = _SOURCE.read_text(encoding="utf-8")
    functions = re.findall(r"^void .*?\)(?=\n\{)", text, re.DOTALL | re.MULTILINE)
    return compiled(_SOURCE, ";\n".join([*functions, ""]), name="mma", flags=_FLAGS)


def pointers(*arrays: Array) -> list[Any]:
    """For C: contiguous arrays of floats."""
    return [kernel().ffi.from_buffer("double[]", a) for a in arrays]


class Subproblem:
    """min z + c·y + ½ y·y over x, z, y ≥ 0 with f̃₀ₗ(x) ≤ z and f̃ᵢ(x) ≤ yᵢ, the approximations around one x.

    Rows are the k objectives, then the m constraints. They are solved scaled: a constraint by the sum of its
    |∂f/∂x| (upper − lower), all objectives by the largest of theirs, which makes `penalty` a pure number.

    Args:
        comm: communicator over which the variables are distributed.
        arrays: x, ∂f₀, ∂f, lower, upper, distance of the asymptotes and the limits of t, see `_mma.c`.
        f0, f: values at x, shapes (k,) and (m,).
        sizes: Σ |∂f/∂x| (upper − lower) of every row over all ranks, shape (k + m,).
        rho: additional curvature of every row, in the unit of its value.
        penalty: c, relative to that scale.
        total: number of variables on all ranks.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        arrays: tuple[Array, ...],
        f0: Array,
        f: Array,
        sizes: Array,
        rho: Array,
        penalty: float,
        total: int,
    ) -> None:
        self.comm, self.k, self.m, self.penalty, self.total = comm, f0.size, f.size, penalty, total
        self.n, self._pointers, self._arrays = arrays[0].size, pointers(*arrays), arrays
        self.rho, self.sizes = rho, sizes
        objective = float(sizes[: self.k].max()) or 1.0
        #: Raw multipliers are these times the scaled ones.
        self.scale: Array = np.ones(self.k + self.m)
        self.scale[self.k :] = objective / np.where(sizes[self.k :] > 0, sizes[self.k :], objective)
        self._unit = self.scale / objective
        # One objective's value does not matter, and the differences of several are what does.
        self._values: Array = np.concatenate([f0 - f0.max(), f])
        self._soft: npt.NDArray[np.bool_] = np.arange(self.k + self.m) >= self.k
        #: Which multipliers are unknown: that of a single objective is 1.
        self._unknown: npt.NDArray[np.bool_] = self._soft | (self.k > 1)
        #: Change of every row's approximation at the last point that was looked at.
        self.changes: Array = np.zeros(self.k + self.m)
        #: Passes over the variables so far, in parts of all of them.
        self.passes = 0.0
        self.magnitude = 0.0
        self.x: Array = np.empty(self.n)

    def dual(self, u: Array, every: int = 1, *, write: bool = False) -> tuple[float, Array, Array]:
        """Dual function of scaled multipliers, its gradient and the negative of its Hessian. Collective.

        Args:
            u: scaled multipliers, shape (k + m,).
            every: look at one block of variables in so many.
            write: leave the minimizer of the Lagrangian in `x`.
        """
        rows = self.k + self.m
        sums: Array = np.empty(rows + rows * rows + 1)
        nu = u * self.scale
        lib, ffi = kernel().lib, kernel().ffi
        x, df0, df, lower, upper, distance, low, high = self._pointers
        new = ffi.from_buffer("double[]", self.x) if write else ffi.NULL
        lib.dual(
            self.n, self.k, self.m, every, *pointers(nu, self.rho), x, df0, df, lower, upper, distance, low,
            high, *pointers(sums), new,
        )  # fmt: skip
        total = np.empty_like(sums)
        self.comm.Allreduce(sums, total)
        self.passes += 1 / every
        weight = self.total / max(total[-1], 1.0)
        changes = weight * total[:rows]
        if every == 1:
            self.changes = changes
        gradient = (self._values + changes) * self._unit
        hessian = total[rows:-1].reshape(rows, rows) * np.outer(self.scale, self._unit) * weight
        over = np.where(self._soft, np.maximum(u - self.penalty, 0), 0)
        value = float(u @ gradient - 0.5 * over @ over)
        terms = (np.abs(self._values) + np.abs(changes)) * self._unit
        #: What the dual's value is a sum of: where it is much smaller itself, round-off is not.
        self.magnitude = float(np.abs(u) @ terms) + abs(value)
        return value, gradient - over, hessian + np.diag((over > 0).astype(float))

    def solve(self, start: Array) -> Array:
        """Scaled multipliers at the maximum of the dual, from a guess; `x` becomes the minimizer."""
        if not self._unknown.any():
            self.dual(start, write=True)
            return start
        u = start
        if self.total > _MANY:
            # Of a sample that leaves no limit on the multipliers nothing is to be learned.
            u = self._newton(u, _EVERY, 1e-3)[0]
        found, settled = self._newton(u)
        if not settled:
            found, settled = self._newton(self._interior(1e-6))
        if not settled:
            found = self._interior(1e-12)
            self.dual(found, write=True)
        return found

    def _newton(self, u: Array, every: int = 1, tolerance: float = _SETTLED) -> tuple[Array, bool]:
        """Newton's method on the multipliers that are not zero; whether it settled."""
        near = False
        value, gradient, H = self.dual(u, every)
        for _ in range(12):
            best = self._quadratic(u, gradient, H)
            if best is None:
                return u, False
            step = best - u
            length, size = float(np.abs(step).max()), float(np.abs(best).max())
            slope = float(gradient @ step)
            if length <= tolerance * size or slope <= _ROUND_OFF**2:
                if not near and every == 1:
                    self.dual(u, write=True)
                return u, True
            near = every == 1 and length <= 1e-2 * size
            for shorter in range(8):
                trial = u + step * 0.5**shorter
                new = self.dual(trial, every, write=near)
                # So near the solution that the value does not tell any more, Newton's steps converge.
                gained = new[0] - value >= 1e-4 * slope * 0.5**shorter
                if gained or slope <= 1e3 * _ROUND_OFF * self.magnitude:
                    break
            else:
                return u, False
            u, (value, gradient, H) = trial, new
        return u, False

    def _quadratic(self, u: Array, gradient: Array, H: Array) -> Array | None:
        """Maximizer of the quadratic model of the dual, by changing the set of zeros until it is right."""
        k, free = self.k, self._unknown
        H = H - np.diag((u > self.penalty) & self._soft)
        slope = gradient + np.where(self._soft, np.maximum(u - self.penalty, 0), 0) + H @ u
        H = H + np.diag(np.full(u.size, 1e-13 * (np.trace(H) + 1e-30)))
        positive = free & ((u > 0) | (gradient > 0))
        over = np.zeros(u.size, dtype=bool)
        for _ in range(10 + 2 * u.size):
            if k > 1 and not positive[:k].any():
                return None
            on = np.flatnonzero(positive)
            new, objectives = np.where(free, 0.0, u), on < k
            matrix = H[np.ix_(on, on)] + np.diag(over[on].astype(float))
            right = slope[on] - H[np.ix_(on, ~free)] @ u[~free] + self.penalty * over[on]
            multiplier = 0.0
            try:
                if k > 1:
                    column = objectives.astype(float)
                    matrix = np.block([[matrix, column[:, None]], [column[None], np.zeros((1, 1))]])
                    *solution, multiplier = np.linalg.solve(matrix, np.append(right, 1.0))
                    new[on] = solution
                elif on.size:
                    new[on] = np.linalg.solve(matrix, right)
            except np.linalg.LinAlgError:
                return None
            rest = H @ new - slope + multiplier * (np.arange(u.size) < k)
            wanted = free & np.where(positive, new > 0, rest < 0)
            above = self._soft & wanted & (new > self.penalty)
            if (wanted == positive).all() and (above == over).all():
                return new if np.isfinite(new).all() else None
            positive, over = wanted, above
        return None

    def _interior(self, last: float) -> Array:
        """Maximize the dual from afar: Newton on the barrier function, barrier weight down to `last`."""
        k, on = self.k, np.flatnonzero(self._unknown)
        u: Array = np.ones(k + self.m)
        u[:k] = 1 / k
        column = (on < k).astype(float)[:, None]
        value, gradient, H = self.dual(u)
        barrier = 1.0
        while True:
            for _ in range(50):
                v = u[on]
                force = gradient[on] + barrier / v
                matrix = H[np.ix_(on, on)] + np.diag(barrier / v**2)
                multiplier = 0.0
                if k > 1:
                    matrix = np.block([[matrix, column], [column.T, np.zeros((1, 1))]])
                    *solution, multiplier = np.linalg.solve(matrix, np.append(force, 0.0))
                    step = np.array(solution)
                else:
                    step = np.linalg.solve(matrix, force)
                residual = force - multiplier * column[:, 0]
                if (np.abs(residual * np.minimum(v, 1)) < max(0.1 * barrier, _ROUND_OFF)).all():
                    break
                shrink = float(np.max(-step / v, initial=0.0))
                t = min(1.0, 0.95 / shrink) if shrink > 0 else 1.0
                merit, slope = value + barrier * np.log(v).sum(), float(force @ step)
                for _ in range(30):
                    trial = u.copy()
                    trial[on] = v + t * step
                    value, gradient, H = self.dual(trial)
                    # As in Newton's method above.
                    if slope <= 1e3 * _ROUND_OFF * abs(merit):
                        break
                    if value + barrier * np.log(trial[on]).sum() >= merit + 1e-4 * t * slope:
                        break
                    t *= 0.5
                u = trial
            if barrier <= last:
                return u
            barrier = max(min(0.1 * barrier, barrier**1.5), last)
