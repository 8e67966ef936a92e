"""Implicit steps in time for M ċ = F(t) − K c, and the choice of their length.

TR-BDF2: a trapezoidal stage and a backward difference stage with one and the same matrix M + d Δt K. It is of
second order, L-stable (what is too fast for the step is damped, not rung), its stages are of second order too
(boundary values that change in time cost no accuracy), and it has an estimate of third order inside. A first
step, and one after a jump of the data, has no slope to start from: it is Alexander's method of two stages,
which needs none and has the same matrix.

Source: Bank et al. (1985), IEEE Trans. Electron Devices 32, 1992, doi:10.1109/T-ED.1985.22232; Hosea and
Shampine (1996), Appl. Numer. Math. 20, 21, doi:10.1016/0168-9274(95)00115-8; Alexander (1977), SIAM J. Numer.
Anal. 14, 1006, doi:10.1137/0714068.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Diagonal coefficient of both methods: the matrix is M + DIAGONAL·Δt·K.
DIAGONAL = 1 - math.sqrt(0.5)
_W = math.sqrt(2) / 4


@dataclass(frozen=True)
class Method:
    """A diagonally implicit Runge–Kutta method whose last stage is the result.

    Attributes:
        nodes: time of each stage in steps.
        weights: row i has the slopes of the stages before stage i, and its own, DIAGONAL (0 if explicit).
        estimate: factors of the slopes that give result − embedded result, divided by Δt.
        order: power of Δt with which this difference falls.
    """

    nodes: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    estimate: tuple[float, ...]
    order: int


TR_BDF2 = Method(
    (0.0, 2 * DIAGONAL, 1.0),
    ((0.0,), (DIAGONAL, DIAGONAL), (_W, _W, DIAGONAL)),
    ((4 * _W - 1) / 3, -1 / 3, 2 * DIAGONAL / 3),
    3,
)
SDIRK2 = Method(
    (DIAGONAL, 1.0),
    ((DIAGONAL,), (1 - DIAGONAL, DIAGONAL)),
    (-DIAGONAL, DIAGONAL),
    2,
)


@dataclass(frozen=True)
class TimeOptions:
    """How steps in time are chosen.

    Attributes:
        rtol: allowed error of a step (root mean square over the body), relative to the largest |c| so far.
        atol: the same, in the unit of c.
        step: a fixed length of all steps in seconds; None (default) lets the error choose.
        first_step: length of the first step, in seconds; default a ten-thousandth of the time to go. Later
            ones are this one times powers of 2, so that few matrices are needed.
        max_step: longest step, in seconds.
        max_steps: number of steps (rejected ones included) after which a run gives up.
    Raises:
        ValueError: a tolerance that is negative or both zero, lengths or counts that are not positive.
    """

    rtol: float = 1e-4
    atol: float = 0.0
    step: float | None = None
    first_step: float | None = None
    max_step: float = math.inf
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, found {value}")
        if self.rtol == 0 and self.atol == 0:
            raise ValueError("one of rtol and atol must be positive, found rtol = 0 and atol = 0")
        for name in ("step", "first_step", "max_step", "max_steps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, found {value}")


def next_factor(error: float, order: int) -> float:
    """By how much to change a step whose error is `error` times the allowed one: a power of 2.

    A factor of 1 where less than doubling is possible: the matrix stays. Below 1 only for an error above 1.
    """
    if error <= 0:
        return 8.0
    if not math.isfinite(error):
        return 1 / 64
    power = math.floor(math.log2(0.9 * error ** (-1 / order)))
    if error <= 1:
        power = max(power, 0)
    return float(2.0 ** min(max(power, -6), 3))
