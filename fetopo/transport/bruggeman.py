"""Bruggeman's relation fitted to a series of structures: its exponent, and how well it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo._json import plain
from fetopo.figure import new_figure, plain_ticks
from fetopo.transport._regression import Line, check_confidence, fit_line

Floats = npt.NDArray[np.float64]

#: The exponent that Bruggeman's effective medium has for non-conducting spheres of all sizes.
CLASSIC = 1.5


@dataclass(frozen=True, eq=False)
class BruggemanFit:
    """Result of :func:`fit_bruggeman`, κ_eff = κ₀ ε^α.

    Attributes:
        exponent: α.
        interval: confidence interval of α.
        prefactor: κ₀, in the unit of the conductivities; given or fitted.
        prefactor_interval: its confidence interval, None where κ₀ was given.
        bulk: conductivity of the phase itself, with which tortuosity factors are formed.
        confidence: level of the intervals, as 0.95.
        freedom: degrees of freedom of Student's distribution.
        scatter: standard deviation of ln κ about the line (for weight 1).
        porosity, conductivity: the data.
        tortuosity: measured tortuosity factors τ = ε κ_bulk/κ_eff.
    """

    exponent: float
    interval: tuple[float, float]
    prefactor: float
    prefactor_interval: tuple[float, float] | None
    bulk: float
    confidence: float
    freedom: int
    scatter: float
    porosity: Floats
    conductivity: Floats
    tortuosity: Floats
    _line: Line

    def predict(self, porosity: npt.ArrayLike) -> Floats:
        """κ₀ ε^α."""
        return self.prefactor * np.asarray(porosity, dtype=float) ** self.exponent

    def predict_tortuosity(self, porosity: npt.ArrayLike) -> Floats:
        """ε κ_bulk/(κ₀ ε^α), which is ε^(1−α) where κ₀ = κ_bulk."""
        ε = np.asarray(porosity, dtype=float)
        return self.bulk / self.prefactor * ε ** (1 - self.exponent)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists for JSON, with the fitted τ beside the measured one."""
        values = {name: plain(value) for name, value in vars(self).items() if name != "_line"}
        return values | {"tortuosity_of_fit": plain(self.predict_tortuosity(self.porosity))}

    def plot(self, ax: Any = None) -> Any:
        """Draw the data, the fit with its confidence band and the classic exponent; returns the axes."""
        ax = new_figure().subplots() if ax is None else ax
        ε = np.geomspace(self.porosity.min(), self.porosity.max(), 100)
        low, high = (np.exp(edge) for edge in self._line.interval(np.log(ε), self.confidence))
        ax.fill_between(ε, low, high, alpha=0.25, linewidth=0)
        percent = f"{100 * self.confidence:g} %"
        label = f"α = {self.exponent:.3f} ({percent}: {self.interval[0]:.3f} to {self.interval[1]:.3f})"
        ax.plot(ε, self.predict(ε), label=label)
        ax.plot(ε, self.bulk * ε**CLASSIC, "--", color="grey", label=f"α = {CLASSIC}")
        ax.plot(self.porosity, self.conductivity, "o", color="black", markersize=4, label="structures")
        ax.set_xscale("log")
        ax.set_yscale("log")
        plain_ticks(ax.xaxis)
        plain_ticks(ax.yaxis)
        ax.set_xlabel("porosity ε (-)")
        ax.set_ylabel("effective conductivity" + (" / bulk (-)" if self.bulk == 1 else ""))
        ax.legend()
        return ax


def fit_bruggeman(
    porosity: npt.ArrayLike,
    conductivity: npt.ArrayLike,
    *,
    bulk: float = 1.0,
    prefactor: float | None | str = "bulk",
    weights: npt.ArrayLike | None = None,
    confidence: float = 0.95,
) -> BruggemanFit:
    """Fit κ_eff = κ₀ ε^α to a series of structures, by weighted least squares of the logarithms.

    ln κᵢ = ln κ₀ + α ln εᵢ + noise of variance σ²/wᵢ, σ unknown. The interval of α is α ± t s_α with
    Student's t for the degrees of freedom left. It tells the scatter of the structures about the law, not
    whether the law holds: compare `scatter` and the picture. Straight pores give α = 1, the classic medium
    of Bruggeman 1.5.

    Args:
        porosity: volume fractions ε of the conducting phase, n values in (0, 1].
        conductivity: effective conductivities κ > 0, n values in any unit.
        bulk: conductivity of the phase itself, in the same unit (1 for relative diffusivities).
        prefactor: κ₀: "bulk" (the law is then exact at ε = 1), a number, or None to fit it too.
        weights: inverse variances of ln κ up to a factor, n values; default: all alike.
        confidence: level of the intervals.
    Raises:
        ValueError: values out of range (a structure that does not conduct has no logarithm: leave it out and
            say so), lengths that differ, fewer values than unknowns plus one, or all at the same porosity.
    Source: Bruggeman (1935), Ann. Phys. 416, 636, doi:10.1002/andp.19354160705; in electrodes: Tjaden et al.
    (2016), Curr. Opin. Chem. Eng. 12, 44, doi:10.1016/j.coche.2016.02.006.
    """
    ε, κ = np.asarray(porosity, dtype=float), np.asarray(conductivity, dtype=float)
    w = np.ones_like(ε) if weights is None else np.asarray(weights, dtype=float)
    if ε.ndim != 1 or not ε.shape == κ.shape == w.shape:
        shapes = f"{ε.shape}, {κ.shape}, {w.shape}"
        raise ValueError(f"one conductivity (and weight) per porosity is needed, found shapes {shapes}")
    for name, values, sound in (
        ("porosity must lie in (0, 1]", ε, (ε > 0) & (ε <= 1)),
        ("conductivity must be positive and finite", κ, (κ > 0) & np.isfinite(κ)),
        ("weights must be positive and finite", w, (w > 0) & np.isfinite(w)),
    ):
        if not sound.all():
            first = int(np.flatnonzero(~sound)[0])
            raise ValueError(f"{name}, found {values[first]} at place {first}")
    check_confidence(confidence)
    if isinstance(prefactor, str):
        if prefactor != "bulk":
            raise ValueError(f'prefactor must be "bulk", a number or None, found {prefactor!r}')
        prefactor = bulk
    for name, value in (("bulk", bulk), ("prefactor", prefactor)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number, found {value}")

    line = fit_line(np.log(ε), np.log(κ), w, None if prefactor is None else float(np.log(prefactor)))
    around = None
    if prefactor is None:
        low, high = line.interval(0.0, confidence)
        around = float(np.exp(low)), float(np.exp(high))
    return BruggemanFit(
        line.slope,
        line.slope_interval(confidence),
        float(np.exp(line.intercept)),
        around,
        float(bulk),
        confidence,
        line.freedom,
        line.scatter,
        ε,
        κ,
        ε * bulk / κ,
        line,
    )
