"""Fick's second law in bodies where it has a series: plane sheet, long cylinder, sphere.

τ = Dt/a² is the dimensionless time; a is the radius, or the half thickness of a sheet with both faces open
(the thickness, if one face is closed). Uptake is M(t)/M∞, the share of what finally goes in (or comes out).
Source: Crank, The Mathematics of Diffusion, 2nd edition (1975), chapters 4 to 6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erfc, jn_zeros

Array = npt.NDArray[np.float64]

_TERMS = 400
#: Below this time the series for short times is used for a sheet, above it the one for long times.
_SHORT = 0.05


def sheet_uptake(tau: npt.ArrayLike) -> Array:
    """Uptake of a plane sheet with a fixed surface concentration, M/M∞ = 1 − Σ 2 exp(−q²τ)/q², q = (n + ½)π.

    Args:
        tau: Dt/a² ≥ 0, any shape.
    Source: Crank (1975), equations 4.18 and 4.20.
    """
    tau = _times(tau)
    q = (np.arange(_TERMS) + 0.5) * np.pi
    value = 1 - np.sum(2 / q**2 * np.exp(-np.multiply.outer(tau, q**2)), axis=-1)
    short = 2 * np.sqrt(tau / np.pi)
    # The corrections of the short-time series are below 1e-16 up to here.
    return np.where(tau < 0.02, short, value)


def cylinder_uptake(tau: npt.ArrayLike) -> Array:
    """Uptake of a long cylinder with a fixed surface concentration, M/M∞ = 1 − Σ 4 exp(−α²τ)/α², J₀(α) = 0.

    Args:
        tau: Dt/a² ≥ 0, any shape; the series has 400 terms, so that the error is 1e-3 at τ = 0 and below
            1e-15 from τ = 3e-5.
    Source: Crank (1975), equation 5.23.
    """
    alpha = jn_zeros(0, _TERMS)
    return 1 - np.sum(4 / alpha**2 * np.exp(-np.multiply.outer(_times(tau), alpha**2)), axis=-1)


def sphere_uptake(tau: npt.ArrayLike) -> Array:
    """Uptake of a sphere with a fixed surface concentration, M/M∞ = 1 − 6/π² Σ exp(−n²π²τ)/n².

    Args:
        tau: Dt/a² ≥ 0, any shape.
    Source: Crank (1975), equations 6.20 and 6.21.
    """
    tau = _times(tau)
    n = np.arange(1, _TERMS)
    value = 1 - 6 / np.pi**2 * np.sum(np.exp(-np.multiply.outer(tau, (n * np.pi) ** 2)) / n**2, axis=-1)
    return np.where(tau < 0.02, 6 * np.sqrt(tau / np.pi) - 3 * tau, value)


def sheet_profile(x: npt.ArrayLike, tau: float) -> Array:
    """Concentration in a sheet that was empty, one face kept at 1 (x = 1), no flux at the other (x = 0).

    c = 1 − Σ 2(−1)ⁿ/q · exp(−q²τ) cos(qx), q = (n + ½)π; for short times by images.

    Args:
        x: place divided by a, in [0, 1].
        tau: Dt/a² > 0.
    Source: Crank (1975), equations 4.16 and 4.17.
    """
    x = np.asarray(x, dtype=float)
    if tau < _SHORT:
        root = 2 * np.sqrt(tau)
        return erfc((1 - x) / root) + erfc((1 + x) / root) - erfc((3 - x) / root) - erfc((3 + x) / root)
    n = np.arange(_TERMS)
    q = (n + 0.5) * np.pi
    amplitude = 2 * (-1.0) ** n / q * np.exp(-(q**2) * tau)
    return 1 - np.cos(np.multiply.outer(x, q)) @ amplitude


def time_lag(length: float, diffusivity: float) -> float:
    """Time lag of a sheet that was empty, L²/(6D): where the asymptote of the amount that came through
    starts.

    Source: Crank (1975), equation 4.26.
    """
    return length**2 / (6 * diffusivity)


def _times(tau: npt.ArrayLike) -> Array:
    tau = np.asarray(tau, dtype=float)
    if not (np.isfinite(tau).all() and (tau >= 0).all()):
        raise ValueError(f"times must be finite and not negative, found {_worst(tau)}")
    return tau


def _worst(tau: Array) -> Any:
    return tau[~(np.isfinite(tau) & (tau >= 0))].flat[0]
