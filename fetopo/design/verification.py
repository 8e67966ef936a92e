"""The Taylor test: does a derivative belong to its functional?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TaylorTest:
    """Result of :func:`taylor_test`.

    Attributes:
        steps: the step sizes h.
        first, second: |J(m + h dm) − J(m)| and |J(m + h dm) − J(m) − h dJ/dm·dm| for each.
        rates: observed orders of `second` between steps; 2 for a correct derivative.
        exact: whether `second` is nothing but noise (round-off, or 1e-9 of `first`), as for a functional
            linear in m.
    """

    steps: Array
    first: Array
    second: Array
    rates: Array
    exact: bool

    @property
    def rate(self) -> float:
        """The order between the two smallest steps; infinite where the remainder is round-off."""
        return float("inf") if self.exact else float(self.rates[-1])


def taylor_test(
    J: Callable[[Array], float],
    m: Array,
    dJdm: Array,
    dm: Array | None = None,
    *,
    comm: Any,
    step: float = 1e-2,
    count: int = 4,
    seed: int = 1,
) -> TaylorTest:
    """Compare a functional with its first order expansion on a sequence of halved steps.

    |J(m + h dm) − J(m) − h dJ/dm·dm| = O(h²)

    Args:
        J: function of this rank's values of m; collective.
        m: the point.
        dJdm: derivative there, a dual vector.
        dm: direction; default random in [−1, 1].
        comm: communicator over which m is distributed.
        step: largest h.
        count: number of steps.
        seed: of the random direction.
    """
    if dm is None:
        dm = np.random.default_rng([seed, comm.rank]).uniform(-1, 1, m.size)
    slope = float(comm.allreduce(float(dJdm @ dm)))
    steps = step * 0.5 ** np.arange(count)
    values = np.array([J(m + h * dm) for h in steps])
    base = J(m)
    first = np.abs(values - base)
    second = np.abs(values - base - steps * slope)
    # Round-off, or what iterative solvers leave, next to the first order term.
    noise = 100 * np.finfo(float).eps * max(abs(base), np.abs(values).max(), steps[0] * abs(slope))
    noise = max(noise, 1e-9 * first.max())
    floor = np.maximum(second, 1e-300)
    rates = np.log2(floor[:-1] / floor[1:])
    return TaylorTest(steps, first, second, rates, bool((second < noise).all()))
