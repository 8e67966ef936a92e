"""Interpolation of conductivity between two materials, as functions that return UFL.

ρ = 0 is the material with `low`, ρ = 1 the one with `high`; in between the penalty makes intermediate
densities pay more volume than they bring conductivity, which is what drives a design to 0 and 1.
"""

from __future__ import annotations

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


#: Laws whose derivative is known; others are differentiated where it is needed.
SLOPES = {simp: simp_slope, ramp: ramp_slope}
