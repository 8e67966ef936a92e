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
    """

    slope: float
    intercept: float
    covariance: Floats
    freedom: int
    scatter: float

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
        return float(stats.t.ppf(0.5 + 0.5 * confidence, self.freedom))


def fit_line(x: Floats, y: Floats, weights: Floats, intercept: float | None = None) -> Line:
    """The line that minimizes Σ w (y − a − b x)², with the intercept a given or not.

    Args:
        x, y: at least one observation more than there are unknowns.
        weights: inverse variances of the observations, up to a factor.
        intercept: if it is known.
    Raises:
        ValueError: too few observations, or all x the same (all zero where the intercept is given).
    """
    unknowns = 2 if intercept is None else 1
    freedom = x.size - unknowns
    if freedom < 1:
        raise ValueError(
            f"at least {unknowns + 1} values are needed for a confidence interval, found {x.size}"
        )
    columns = np.column_stack([np.ones_like(x), x])[:, 2 - unknowns :]
    known = 0.0 if intercept is None else intercept
    root = np.sqrt(weights)
    coefficients, _, rank, _ = np.linalg.lstsq(columns * root[:, None], (y - known) * root, rcond=None)
    if rank < unknowns:
        raise ValueError("all values are at the same place: no slope can be told from them")
    residual = y - known - columns @ coefficients
    variance = float(np.sum(weights * residual**2)) / freedom
    covariance = np.zeros((2, 2))
    covariance[2 - unknowns :, 2 - unknowns :] = variance * np.linalg.inv((columns.T * weights) @ columns)
    at_zero = float(coefficients[0]) if intercept is None else intercept
    return Line(float(coefficients[-1]), at_zero, covariance, freedom, float(np.sqrt(variance)))


def check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, found {confidence}")
