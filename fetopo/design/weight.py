"""How much to regularize: the weight by the discrepancy principle, or at the corner of the L-curve.

Nothing here knows what is regularized: a weight goes in, a misfit (and a penalty) comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Points of an L-curve that are nearer to each other than this, relative to its extent, count as one: between
#: them a curvature is that of the scatter.
_SAME = 1e-3


@dataclass(frozen=True)
class Discrepancy:
    """Outcome of :func:`discrepancy`.

    Attributes:
        weight: the largest found that meets the limit; where none does, that with the smallest misfit.
        misfit: there.
        limit: τδ.
        met: whether misfit ≤ limit.
        tried: all weights and their misfits, in the order in which they were tried.
    """

    weight: float
    misfit: float
    limit: float
    met: bool
    tried: tuple[tuple[float, float], ...]


def discrepancy(
    misfit: Callable[[float], float],
    noise: float,
    *,
    tau: float = 1.1,
    largest: float = 1e2,
    smallest: float = 1e-6,
    factor: float = 10.0,
    accuracy: float = 1.1,
) -> Discrepancy:
    """Largest weight whose misfit is no larger than the noise explains, misfit(α) ≤ τδ.

    From the largest weight down by a factor until the limit is met, then between the last two by bisection of
    log α. The misfit need not be monotone: what is returned always meets the limit, and no weight tried above
    it does. Weights between those tried may.

    Args:
        misfit: from weight to misfit.
        noise: δ, in the unit of the misfit.
        tau: τ ≥ 1.
        largest, smallest: where to look.
        factor: between weights on the way down.
        accuracy: ratio of the last two weights at which the bisection ends.
    Returns:
        The choice; `met` is False where no weight down to the smallest meets the limit.
    Raises:
        ValueError: numbers out of range, or a misfit that is not finite.
    Source: Morozov (1966), Soviet Math. Dokl. 7, 414; Engl, Hanke and Neubauer, Regularization of Inverse
    Problems (1996), section 4.3.
    """
    if not (0 < smallest < largest < np.inf):
        raise ValueError(f"0 < smallest < largest is needed, found {smallest:g} and {largest:g}")
    if not (factor > 1 and accuracy > 1):
        raise ValueError(f"factor and accuracy must exceed 1, found {factor:g} and {accuracy:g}")
    if not (tau >= 1 and 0 < noise < np.inf):
        raise ValueError(f"tau ≥ 1 and a positive noise are needed, found {tau:g} and {noise:g}")
    limit, tried = tau * noise, []

    def meets(weight: float) -> bool:
        value = float(misfit(weight))
        if not np.isfinite(value):
            raise ValueError(f"the misfit at weight {weight:g} is not finite: {value}")
        tried.append((weight, value))
        return value <= limit

    weight, above = float(largest), float("nan")
    while not meets(weight):
        if weight <= smallest:
            best = min(tried, key=lambda item: item[1])
            return Discrepancy(*best, limit, False, tuple(tried))
        above, weight = weight, max(weight / factor, float(smallest))
    while above / weight > accuracy:
        middle = float(np.sqrt(above * weight))
        if meets(middle):
            weight = middle
        else:
            above = middle
    return Discrepancy(weight, dict(tried)[weight], limit, True, tuple(tried))


@dataclass(frozen=True)
class LCurve:
    """Outcome of :func:`l_curve`.

    Attributes:
        weight: at the corner.
        index: its place among the weights that were given.
        curvature: at each of them, positive at a corner; NaN at the ends and where a point was left out.
    """

    weight: float
    index: int
    curvature: Array


def l_curve(weights: Sequence[float], misfits: Sequence[float], penalties: Sequence[float]) -> LCurve:
    """Weight at the corner of the curve (log misfit, log penalty): where it is bent most.

    The curvature at a point is that of the circle through it and its two neighbours. Points that another one
    beats in both, which a search that ends in local minima leaves behind, are left out.

    Args:
        weights: any order.
        misfits: norm of what is not met, at each weight; positive.
        penalties: value of the regularization, at each weight; positive.
    Raises:
        ValueError: fewer than three points that remain, other lengths, or numbers that are not positive.
    Source: Hansen and O'Leary (1993), SIAM J. Sci. Comput. 14, 1487, doi:10.1137/0914086.
    """
    data = np.array([weights, misfits, penalties], dtype=float)
    if data.ndim != 2 or not (np.isfinite(data).all() and (data > 0).all()):
        raise ValueError("an L-curve needs positive weights, misfits and penalties, as many of each")
    _, x, y = np.log(data)
    kept = _edge(x, y)
    if kept.size < 3:
        raise ValueError(f"an L-curve needs three points that none beats in both, found {kept.size}")
    curvature = np.full(data.shape[1], np.nan)
    for before, here, after in zip(kept, kept[1:], kept[2:], strict=False):
        curvature[here] = _bend(*(np.array([x[i], y[i]]) for i in (before, here, after)))
    index = int(np.nanargmax(curvature))
    return LCurve(float(data[0, index]), index, curvature)


def _edge(x: Array, y: Array) -> npt.NDArray[np.intp]:
    """Points that no other one beats, by rising x, without those that are nearly the same."""
    order = np.lexsort((y, x))
    extent = float(np.hypot(np.ptp(x), np.ptp(y)))
    kept: list[int] = []
    lowest = np.inf
    for i in order:
        if y[i] >= lowest:
            continue
        lowest = y[i]
        if not kept or np.hypot(x[i] - x[kept[-1]], y[i] - y[kept[-1]]) > _SAME * extent:
            kept.append(int(i))
    return np.array(kept, dtype=np.intp)


def _bend(a: Array, b: Array, c: Array) -> float:
    """Curvature of the circle through three points, positive where it turns left."""
    u, v, w = b - a, c - b, c - a
    area = u[0] * v[1] - u[1] * v[0]
    return float(2 * area / (np.linalg.norm(u) * np.linalg.norm(v) * np.linalg.norm(w)))
