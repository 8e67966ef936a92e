"""Mean and scatter of a property over windows of growing size, and the size that an error asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from fetopo._json import plain
from fetopo.figure import length_unit, new_figure, plain_ticks
from fetopo.transport._regression import Line, check_confidence, fit_line
from fetopo.transport._sampling import Failure

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class VarianceFit:
    """The law D²(V) = D² (A/V)^γ fitted to a study.

    Attributes:
        exponent: γ; 1 for windows larger than the correlations of a medium whose integral range is finite.
        interval: confidence interval of γ; both ends γ where it was given.
        factor: D² A^γ, in the unit of the property squared times m^(dγ).
        integral_range: A [m^d], the volume over which the medium forgets; None without the point variance D².
        integral_range_interval: its confidence interval.
        confidence: level of the intervals.
    """

    exponent: float
    interval: tuple[float, float]
    factor: float
    integral_range: float | None
    integral_range_interval: tuple[float, float] | None
    confidence: float
    line: Line

    def variance(self, volume: npt.ArrayLike) -> Floats:
        """D²(V) for volumes [m^d]."""
        return self.factor * np.asarray(volume, dtype=float) ** -self.exponent


@dataclass(frozen=True)
class RveSize:
    """Answer of :meth:`RveStudy.size_for`.

    Attributes:
        length: edge of the sample [m] from which on the error is met.
        interval: confidence interval of the length that the scatter asks for.
        voxels: the length in voxels, rounded up.
        limited_by: "scatter", or "bias" where the mean of smaller windows is off by more than the error.
        extrapolated: whether the length exceeds the largest window studied.
        relative_error, confidence, realisations: what was asked for.
    """

    length: float
    interval: tuple[float, float]
    voxels: int
    limited_by: str
    extrapolated: bool
    relative_error: float
    confidence: float
    realisations: int


@dataclass(frozen=True, eq=False)
class RveStudy:
    """Result of :func:`window_study` and :func:`realisation_study`.

    Attributes:
        sizes: edges of the windows in voxels, increasing.
        voxel_size: sides of a voxel [m].
        samples: for each size the values that were computed, n numbers or tensors (n, …).
        failures: windows without a value.
    """

    sizes: tuple[int, ...]
    voxel_size: tuple[float, ...]
    samples: tuple[Floats, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def volumes(self) -> Floats:
        """Volume of a window of each size [m^d]."""
        return np.array([float(n) ** len(self.voxel_size) for n in self.sizes]) * np.prod(self.voxel_size)

    @property
    def lengths(self) -> Floats:
        """Edge of a window of each size [m], the geometric mean over the axes."""
        return self.volumes ** (1 / len(self.voxel_size))

    @property
    def means(self) -> list[Floats]:
        """Mean of the property, number or tensor, for each size."""
        return [values.mean(axis=0) for values in self.samples]

    @property
    def variances(self) -> list[Floats]:
        """Unbiased variance of the property, entry by entry, for each size."""
        return [values.var(axis=0, ddof=1) for values in self.samples]

    @property
    def scalars(self) -> list[Floats]:
        """The samples as numbers: of a tensor the mean of its diagonal, of a vector that of its entries."""
        return [
            values
            if values.ndim == 1
            else (values if values.ndim == 2 else np.diagonal(values, 0, 1, 2)).mean(1)
            for values in self.samples
        ]

    @property
    def bias(self) -> tuple[Floats, Floats]:
        """Mean at each size over that of the largest windows, less one; and its standard error."""
        mean = np.array([v.mean() for v in self.scalars])
        error = np.array([v.std(ddof=1) / np.sqrt(len(v)) for v in self.scalars])
        both = np.hypot(error, error[-1])
        both[-1] = error[-1]
        return mean / mean[-1] - 1, both / abs(mean[-1])

    def fit(
        self,
        *,
        exponent: float | None = None,
        point_variance: float | None = None,
        confidence: float = 0.95,
        smallest: int = 0,
    ) -> VarianceFit:
        """Fit the decay of the variance, D²(V) = D² (A/V)^γ, to the logarithms.

        ln s² of n Gaussian values has the variance ψ′((n−1)/2) and the bias ψ((n−1)/2) − ln((n−1)/2); sizes
        are weighted and corrected with these.

        Args:
            exponent: γ, if it is known (1 for a finite integral range).
            point_variance: D², for the integral range: f(1−f) for a volume fraction, f(1−f)(k₁−k₂)² for a
                property that averages two values k.
            confidence: level of the intervals.
            smallest: leave out windows of fewer voxels along an edge.
        Raises:
            ValueError: fewer than two sizes (one with γ given) whose values scatter, or options out of range.
        Source: Kanit et al. (2003), Int. J. Solids Struct. 40, 3647, doi:10.1016/S0020-7683(03)00143-4.
        """
        check_confidence(confidence)
        for name, value in (("exponent", exponent), ("point_variance", point_variance)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, found {value}")
        rows = [
            (V, v.var(ddof=1), 0.5 * (len(v) - 1))
            for n, V, v in zip(self.sizes, self.volumes, self.scalars, strict=True)
            if n >= smallest and v.var(ddof=1) > 0
        ]
        need = 1 if exponent is not None else 2
        if len(rows) < need:
            raise ValueError(f"the values of {need} sizes must scatter for a fit, found {len(rows)}")
        V, s2, half = np.array(rows).T
        y = np.log(s2) - (special.digamma(half) - np.log(half))
        slope = None if exponent is None else -float(exponent)
        line = fit_line(np.log(V), y, 1 / special.polygamma(1, half), slope=slope, known=True)
        γ = -line.slope
        low, high = line.slope_interval(confidence)
        A, around = None, None
        if point_variance is not None:
            at, deviation = _inverse(line, np.log(point_variance))
            z = float(stats.norm.ppf(0.5 + 0.5 * confidence))
            A = float(np.exp(at))
            around = float(np.exp(at - z * deviation)), float(np.exp(at + z * deviation))
        return VarianceFit(γ, (-high, -low), float(np.exp(line.intercept)), A, around, confidence, line)

    def size_for(
        self,
        relative_error: float = 0.05,
        confidence: float = 0.95,
        realisations: int = 1,
        fit: VarianceFit | None = None,
    ) -> RveSize:
        """Size of the sample whose property is within a relative error of the mean, at a confidence.

        V with z D(V)/√n = error × mean; z the quantile of the normal distribution, n the realisations that
        are averaged, the mean that of the largest windows. Averaging more samples does not remove the bias of
        small windows (boundary conditions): the size is also at least the smallest from which on the means
        stay within the error of that of the largest.

        Raises:
            ValueError: options out of range, a mean of zero, or as :meth:`fit`.
        """
        check_confidence(confidence)
        if not (np.isfinite(relative_error) and relative_error > 0):
            raise ValueError(f"relative_error must be a positive number, found {relative_error}")
        if realisations < 1:
            raise ValueError(f"realisations must be at least 1, found {realisations}")
        mean = float(self.scalars[-1].mean())
        if mean == 0:
            raise ValueError("the mean of the largest windows is 0: no relative error")
        fit = self.fit(confidence=confidence) if fit is None else fit
        if fit.exponent <= 0:
            raise ValueError(f"the scatter does not decay with the size (exponent {fit.exponent:.3g})")
        z = float(stats.norm.ppf(0.5 + 0.5 * confidence))
        wanted = 2 * np.log(relative_error * abs(mean) * np.sqrt(realisations) / z)
        at, deviation = _inverse(fit.line, wanted)
        d = len(self.voxel_size)
        low, length, high = (float(np.exp((at + s * z * deviation) / d)) for s in (-1, 0, 1))
        off = np.flatnonzero(abs(self.bias[0]) > relative_error)
        unbiased = float(self.lengths[off[-1] + 1]) if off.size else 0.0
        longest = max(length, unbiased)
        side = float(np.prod(self.voxel_size)) ** (1 / d)
        return RveSize(
            longest,
            (low, high),
            int(np.ceil(longest / side * (1 - 1e-12))),
            "bias" if unbiased > length else "scatter",
            bool(longest > self.lengths[-1] * (1 + 1e-12)),
            relative_error,
            confidence,
            realisations,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists for JSON: for each size number of samples, mean, variance, bias."""
        bias, error = self.bias
        return {
            "sizes": list(self.sizes),
            "lengths": plain(self.lengths),
            "samples": [len(values) for values in self.samples],
            "means": plain(self.means),
            "variances": plain(self.variances),
            "bias": plain(bias),
            "bias_error": plain(error),
            "failures": plain(self.failures),
        }

    def plot(
        self, ax: Any = None, quantity: str = "variance", fit: VarianceFit | None = None, **style: Any
    ) -> Any:
        """Draw "variance" against the volume with its fit, or "mean" with its scatter; returns the axes.

        Raises:
            ValueError: another quantity.
        """
        if quantity not in ("variance", "mean"):
            raise ValueError(f"quantity must be variance or mean, found {quantity!r}")
        ax = new_figure().subplots() if ax is None else ax
        unit, scale = length_unit(float(self.lengths[-1]))
        x = self.lengths / scale
        mean = np.array([v.mean() for v in self.scalars])
        deviation = np.array([v.std(ddof=1) for v in self.scalars])
        if quantity == "mean":
            drawn = ax.errorbar(x, mean, deviation, fmt="o-", markersize=4, capsize=3, **style)
            ax.fill_between(x, 0.95 * mean[-1], 1.05 * mean[-1], color=drawn[0].get_color(), alpha=0.12)
            ax.set_ylabel("mean and standard deviation; band: ±5 %")
        else:
            (points,) = ax.plot(x, deviation**2, "o", markersize=4, **style)
            if fit is not None:
                at = np.geomspace(self.lengths[0], self.lengths[-1] * 1.5, 50)
                ax.plot(at / scale, fit.variance(at ** len(self.voxel_size)), color=points.get_color())
            ax.set_xscale("log")
            ax.set_yscale("log")
            plain_ticks(ax.xaxis)
            ax.set_ylabel("variance")
        ax.set_xlabel(f"edge of the window{unit}")
        return ax


def _inverse(line: Line, y: float) -> tuple[float, float]:
    """x where the line has the value y, and its standard deviation."""
    x = (y - line.intercept) / line.slope
    C = line.covariance
    return x, float(np.sqrt(max(C[0, 0] + 2 * x * C[0, 1] + x**2 * C[1, 1], 0.0)) / abs(line.slope))
