"""The globally convergent method of moving asymptotes, on distributed vectors.

A step of MMA is taken only where the approximations were conservative: where they were not, they are made
steeper and the subproblem is solved again, so that objective and violation cannot rise from step to step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo._mpi import require
from fetopo.design.mma import MMA, MMAOptions
from fetopo.design.optimizers import Evaluate
from fetopo.design.subproblem import Subproblem

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GCMMAOptions(MMAOptions):
    """Constants of the method; those of MMA, and:

    Attributes:
        inner_iterations: most evaluations at one step; the last point is then taken as it is.
        tolerance: an approximation counts as conservative if it is too low by no more than this, relative to
            |f| + Σ |∂f/∂x| (upper − lower). Larger than the error of the linear solves.
    """

    inner_iterations: int = 15
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner_iterations < 1:
            raise ValueError(f"inner_iterations must be at least 1, found {self.inner_iterations}")
        if not 0 <= self.tolerance < np.inf:
            raise ValueError(f"tolerance must not be negative, found {self.tolerance}")


class GCMMA(MMA):
    """MMA that converges to a stationary point from any start.

    The approximations carry a term ρᵢ d(x), d(x) = Σⱼ (U − L)(x − xᵏ)²/((U − x)(x − L)(upper − lower)). Where
    one is below the function at the subproblem's solution x̂, its ρᵢ rises to
    min(10 ρᵢ, 1.1 (ρᵢ + (fᵢ(x̂) − f̃ᵢ(x̂))/d(x̂))).

    Args:
        comm: communicator over which the variables are distributed.
        lower, upper: bounds of this rank's variables.
        options: constants of the method.
    Attributes:
        inner: evaluations that the last step took.
    Source: Svanberg (2002), SIAM J. Optim. 12, 555, doi:10.1137/S1052623499362822.
    """

    needs_evaluate = True
    options: GCMMAOptions
    inner = 0

    @staticmethod
    def default_options() -> GCMMAOptions:
        return GCMMAOptions()

    def step(
        self, x: Array, f0: Any, df0: Array, f: Array, df: Array, evaluate: Evaluate | None = None
    ) -> Array:
        """The next iterate, see :meth:`fetopo.design.mma.MMA.step`. Collective.

        Raises:
            ValueError: on every rank, without `evaluate`, where a value or a gradient is not finite on any,
                or the shapes do not fit.
        """
        if evaluate is None:
            raise ValueError("GCMMA needs evaluate, which gives objective and constraints at another point")
        o = self.options
        subproblem = self._approximate(x, f0, df0, f, df)
        here = np.concatenate([np.atleast_1d(np.asarray(v, dtype=float)) for v in (f0, f)])
        slack = o.tolerance * (np.abs(here) + subproblem.sizes)
        for self.inner in range(1, o.inner_iterations + 1):
            self._solve(subproblem)
            new = subproblem.x.copy()
            there = np.concatenate([np.atleast_1d(np.asarray(v, dtype=float)) for v in evaluate(new)])
            require(
                self.comm,
                bool(np.isfinite(there).all()),
                "the optimizer was given a value that is not finite",
            )
            lacking = there - here - subproblem.changes
            if (lacking <= slack).all() or self.inner == o.inner_iterations:
                break
            distance = self._distance_of(subproblem, new)
            if distance <= 0:
                break
            rho = subproblem.rho
            more = np.minimum(10 * rho, 1.1 * (rho + lacking / distance))
            subproblem.rho = np.where(lacking > slack, more, rho)
        return new

    def _distance_of(self, subproblem: Subproblem, new: Array) -> float:
        """d(x̂), over all ranks."""
        s2 = ((new - self._old) / self._distance) ** 2
        mine = float(np.sum(2 * self._distance * s2 / ((1 - s2) * (self.upper - self.lower))))
        return float(self.comm.allreduce(mine))
