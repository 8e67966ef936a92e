"""Objectives and constraints, as functions that return UFL.

Functions of the effective tensor take D as a d×d UFL tensor; functions of a field return a form. Write your
own the same way and check it with :func:`fetopo.design.verification.taylor_test`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl

TensorFunction = Callable[[Any], Any]


def mean_resistivity(D: Any) -> Any:
    """tr(D⁻¹)/d: smallest where D conducts well in every direction at once.

    Its inverse is the harmonic mean of the principal conductivities, which for an isotropic cell is the
    conductivity itself.
    """
    return ufl.tr(ufl.inv(D)) / D.ufl_shape[0]


def resistivity_along(direction: Sequence[float]) -> TensorFunction:
    """1/(n·D n) for a unit vector n along `direction`.

    Raises:
        ValueError: a direction of length zero.
    """
    n = np.asarray(direction, dtype=float)
    if not np.isfinite(n).all() or np.linalg.norm(n) == 0:
        raise ValueError(f"a direction must be a finite vector that is not zero, found {direction}")
    unit = ufl.as_vector((n / np.linalg.norm(n)).tolist())
    return lambda D: 1 / ufl.dot(unit, D * unit)


def conductivity_along(direction: Sequence[float]) -> TensorFunction:
    """n·D n for a unit vector n along `direction`.

    Raises:
        ValueError: a direction of length zero.
    """
    inverse = resistivity_along(direction)
    return lambda D: 1 / inverse(D)


def harmonic_conductivity(D: Any) -> Any:
    """d/tr(D⁻¹), the harmonic mean of the principal conductivities: what every direction has at once."""
    return 1 / mean_resistivity(D)


def anisotropy(smoothing: float = 0.0) -> TensorFunction:
    """√(‖D − (tr D/d) I‖²/‖(tr D/d) I‖² + s²), the part of D that depends on the direction.

    Args:
        smoothing: s; positive where a derivative is needed at isotropic tensors.
    """

    def function(D: Any) -> Any:
        d = D.ufl_shape[0]
        mean = ufl.tr(D) / d
        rest = D - mean * ufl.Identity(d)
        return ufl.sqrt(ufl.inner(rest, rest) / (d * mean**2) + smoothing**2)

    return function


def distance_to(target: npt.ArrayLike) -> TensorFunction:
    """‖D − D*‖²/‖D*‖² in the Frobenius norm.

    Raises:
        ValueError: a target that is not a symmetric tensor, or zero.
    """
    T = np.asarray(target, dtype=float)
    if T.ndim != 2 or T.shape[0] != T.shape[1] or not np.allclose(T, T.T) or not T.any():
        raise ValueError(f"the target must be a symmetric tensor that is not zero, found {T.tolist()}")
    goal = ufl.as_matrix(T.tolist())
    return lambda D: ufl.inner(D - goal, D - goal) / float(np.sum(T * T))


def mean_density(rho: Any, volume: float) -> ufl.Form:
    """Volume fraction of the material with ρ = 1: 1/|Y| ∫ ρ dx."""
    return rho / volume * ufl.dx


def compliance(u: Any, source: Any) -> ufl.Form:
    """Thermal compliance ∫ f u dx: the mean temperature weighted with the heat source f."""
    return source * u * ufl.dx
