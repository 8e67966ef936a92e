"""Interpolation of conductivity between two materials, as functions that return UFL.

ρ = 0 is the material with `low`, ρ = 1 the one with `high`; in between the penalty makes intermediate
densities pay more volume than they bring conductivity, which is what drives a design to 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: A UFL expression, or a number or NumPy array where the formula is evaluated directly.
Expr = Any


def simp(rho: Expr, low: float, high: float, penalty: Expr = 3.0) -> Expr:
    """Solid isotropic material with penalization, κ(ρ) = k₀ + (k₁ − k₀) ρᵖ.

    Args:
        rho: density in [0, 1].
        low: conductivity k₀ at ρ = 0.
        high: conductivity k₁ at ρ = 1.
        penalty: p ≥ 1 (a `fem.Constant` lets continuation change it without a new form).
    Source: Bendsøe and Sigmund (1999), Arch. Appl. Mech. 69, 635, doi:10.1007/s004190050248.
    """
    return low + (high - low) * rho**penalty


def ramp(rho: Expr, low: float, high: float, penalty: Expr = 3.0) -> Expr:
    """Rational approximation of material properties, κ(ρ) = k₀ + (k₁ − k₀) ρ/(1 + q(1 − ρ)).

    Its slope at ρ = 0 is not zero, unlike :func:`simp`'s. Arguments as there, with `penalty` q ≥ 0.

    Source: Stolpe and Svanberg (2001), Struct. Multidisc. Optim. 22, 116, doi:10.1007/s001580100129.
    """
    return low + (high - low) * rho / (1 + penalty * (1 - rho))


def simp_slope(rho: Expr, low: float, high: float, penalty: Expr = 3.0) -> Expr:
    """Derivative of :func:`simp` with respect to the density, (k₁ − k₀) p ρᵖ⁻¹."""
    return (high - low) * penalty * rho ** (penalty - 1)


def ramp_slope(rho: Expr, low: float, high: float, penalty: Expr = 3.0) -> Expr:
    """Derivative of :func:`ramp` with respect to the density, (k₁ − k₀) (1 + q)/(1 + q(1 − ρ))²."""
    return (high - low) * (1 + penalty) / (1 + penalty * (1 - rho)) ** 2


def _hashin_shtrikman(dim: int) -> tuple[Callable[..., Expr], Callable[..., Expr]]:
    """The law of Hashin and Shtrikman's bounds in `dim` dimensions, and its derivative."""

    def penalty_of(low: Expr, high: Expr, penalty: Expr) -> Expr:
        """q of :func:`ramp` for the reference conductivity."""
        return (high - low) / (low + (dim - 1) * (low + (high - low) / penalty))

    def law(rho: Expr, low: float, high: float, penalty: Expr = 3.0) -> Expr:
        return ramp(rho, low, high, penalty_of(low, high, penalty))

    def slope(rho: Expr, low: float, high: float, penalty: Expr = 3.0) -> Expr:
        return ramp_slope(rho, low, high, penalty_of(low, high, penalty))

    law.__name__ = f"hashin_shtrikman_{dim}d"
    law.__doc__ = f"""Law of :func:`hashin_shtrikman` in {dim} dimensions."""
    return law, slope


_HASHIN_SHTRIKMAN = {dim: _hashin_shtrikman(dim) for dim in (2, 3)}


def hashin_shtrikman(dim: int) -> Callable[..., Expr]:
    """Interpolation by the bounds of Hashin and Shtrikman, with a penalty that leads from one to the other.

    κ(ρ) = ((1−ρ)/(k₀+z) + ρ/(k₁+z))⁻¹ − z,  z = (d−1)(k₀ + (k₁ − k₀)/p)

    At p = 1 this is the upper bound on an isotropic mixture with volume fraction ρ, and what coated spheres
    reach: a grey density is then worth what the best microstructure is worth. For p → ∞ it falls to the lower
    bound. In between, as a function of ρ, it is :func:`ramp` with q = (k₁ − k₀)/(k₀ + z).

    Args:
        dim: d, 2 or 3.
    Returns:
        The law, with the arguments of :func:`simp` and p ≥ 1; the same object for the same dimension.
    Raises:
        ValueError: another dimension.
    Source: Hashin and Shtrikman (1962), J. Appl. Phys. 33, 3125, doi:10.1063/1.1728579, used as an
    interpolation by Bendsøe and Sigmund (1999), doi:10.1007/s004190050248.
    """
    if dim not in _HASHIN_SHTRIKMAN:
        raise ValueError(f"dim must be 2 or 3, found {dim}")
    return _HASHIN_SHTRIKMAN[dim][0]


#: Names of the laws, see :func:`law`.
NAMES = ("simp", "ramp", "hashin-shtrikman")


def law(name: str, dim: int) -> Callable[..., Expr]:
    """Law by name, in 2 or 3 dimensions.

    Raises:
        ValueError: another name.
    """
    if name not in NAMES:
        raise ValueError(f"an interpolation is {', '.join(map(repr, NAMES))}, found {name!r}")
    return {"simp": simp, "ramp": ramp}.get(name) or hashin_shtrikman(dim)


#: Laws whose derivative is known; others are differentiated where it is needed.
SLOPES = {simp: simp_slope, ramp: ramp_slope} | dict(_HASHIN_SHTRIKMAN.values())
