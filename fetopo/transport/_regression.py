"""Straight lines through data with unknown scatter: weighted least squares with Student's confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """y = intercept + slope x.

    Attributes:
        slope, intercept: the estimates.
        covariance: of (intercept, slope), 2×2; zeros for an intercept that is given.
        freedom: degrees of freedom left.
        scatter: standard deviation of an observation of weight 1.
        known: whether the weights are the inverse variances themselves, and not up to a factor only.
    """

    slope: float
    intercept: float
    covariance: Floats
    freedom: int
    scatter: float
    known: bool = False

    def slope_interval(self, confidence: float) -> tuple[float, float]:
        """Where the slope lies, by Student's t."""
        half = self._quantile(confidence) * float(np.sqrt(self.covariance[1, 1]))
        return self.slope - half, self.slope + half

    def interval(self, x: npt.ArrayLike, confidence: float) -> tuple[Floats, Floats]:
        """Where the line lies at x, by Student's t."""
        x = np.asarray(x, dtype=float)
        C = self.covariance
        half = self._quantile(confidence) * np.sqrt(C[0, 0] + 2 * x * C[0, 1] + x**2 * C[1, 1])
        middle = self.intercept + self.slope * x
        return middle - half, middle + half

    def _quantile(self, confidence: float) -> float:
        p = 0.5 + 0.5 * confidence
        return float(stats.norm.ppf(p) if self.known else stats.t.ppf(p, self.freedom))


def fit_line(
    x: Floats,
    y: Floats,
    weights: Floats,
    intercept: float | None = None,
    *,
    slope: float | None = None,
    known: bool = False,
) -> Line:
    """The line that minimizes Σ w (y − a − b x)², with intercept or slope given or not.

    Args:
        x, y: at least one observation more than there are unknowns; as many where the variances are known.
        weights: inverse variances of the observations, up to a factor.
        intercept, slope: one of them, if it is known.
        known: the weights are the inverse variances. The covariance then follows from them; where the
            observations scatter more than they should, from the scatter.
    Raises:
        ValueError: too few observations, or all x the same (all zero where the intercept is given).
    """
    asked = [i for i, value in enumerate((intercept, slope)) if value is None]
    freedom = x.size - len(asked)
    if freedom < (0 if known else 1):
        need = len(asked) + (0 if known else 1)
        raise ValueError(f"at least {need} values are needed for a confidence interval, found {x.size}")
    both = np.column_stack([np.ones_like(x), x])
    given = np.array([intercept or 0.0, slope or 0.0])
    columns, rest = both[:, asked], y - both @ given
    root = np.sqrt(weights)
    found, _, rank, _ = np.linalg.lstsq(columns * root[:, None], rest * root, rcond=None)
    if rank < len(asked):
        raise ValueError("all values are at the same place: no slope can be told from them")
    variance = float(np.sum(weights * (rest - columns @ found) ** 2)) / freedom if freedom else 1.0
    covariance = np.zeros((2, 2))
    scale = max(variance, 1.0) if known else variance
    covariance[np.ix_(asked, asked)] = scale * np.linalg.inv((columns.T * weights) @ columns)
    given[asked] = found
    return Line(float(given[1]), float(given[0]), covariance, freedom, float(np.sqrt(variance)), known)


def check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, found {confidence}")
