"""What two transports through one structure can have at most together: theory for a front."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fetopo.design.existence import Pair, duality_limit
from fetopo.design.goal import Goal
from fetopo.transport.bounds import hashin_shtrikman, wiener

Array = npt.NDArray[np.float64]

#: Volume fractions among which the best is sought where they are free.
_FRACTIONS = 2001


def most_of_second(values: npt.ArrayLike, first: Pair, second: Pair, fraction: float, dim: int) -> Array:
    """Most that a second conductivity can be where the first has at least a value, at one volume fraction.

    With D = f₀k₀ + f₁k₁ − f₀f₁(k₁ − k₀)²/(f₁k₀ + f₀k₁ + (d−1)M) an isotropic structure has for each transport
    a number M between k₀ and k₁, an average of harmonic means of the two, by the same weights for both. The
    most that M of the second can be is therefore what arithmetic means give, with the same shares for both,
    and M = max(k₀, k₁) gives the bound of Hashin and Shtrikman. In two dimensions duality
    limits the product. Harmonic means of the principal values of an anisotropic structure obey the same:
    a polycrystal of it is isotropic and no worse.

    Args:
        values: least values of the first conductivity.
        first, second: conductivities of the two transports where ρ = 0 and where ρ = 1.
        fraction: volume fraction of ρ = 1.
        dim: 2 or 3.
    Returns:
        One value each; no number where no structure has so much of the first.
    Source: Bergman (1978), Phys. Rep. 43, 377, doi:10.1016/0370-1573(78)90009-1; Milton (1981), J. Appl.
    Phys. 52, 5294, doi:10.1063/1.329386; for two phases that are insulators for one transport each Torquato,
    Hyun and Donev (2002), doi:10.1103/PhysRevLett.89.266601.
    """
    D, f = np.asarray(values, dtype=float), (1 - fraction, fraction)
    low, high = hashin_shtrikman(f, first, dim)
    own = hashin_shtrikman(f, second, dim)[1]
    if min(f) == 0 or (first[0] < first[1]) == (second[0] < second[1]):
        found = np.full(D.shape, own)
    else:
        # Below its least value the first asks for nothing.
        D_at = np.clip(D, low, high)
        (k0, k1), (l0, l1) = first, second
        mean = f[0] * k0 + f[1] * k1
        M = (f[0] * f[1] * (k1 - k0) ** 2 / (mean - D_at) - f[1] * k0 - f[0] * k1) / (dim - 1)
        N = l0 + np.clip((M - k0) / (k1 - k0), 0.0, 1.0) * (l1 - l0)
        below = f[1] * l0 + f[0] * l1 + (dim - 1) * N
        drop = np.divide(f[0] * f[1] * (l1 - l0) ** 2, below, out=np.full(D.shape, np.inf), where=below > 0)
        found = np.clip(f[0] * l0 + f[1] * l1 - drop, 0.0, own)
        if dim == 2:
            with np.errstate(divide="ignore"):
                found = np.minimum(found, duality_limit(first, second) / D_at)
    return np.where(high * (1 + 1e-9) >= D, found, np.nan)


def front_bounds(
    goal: Goal,
    first: Pair,
    second: Pair,
    fractions: tuple[float, float],
    dim: int,
    *,
    points: int = 201,
) -> Array:
    """Curve beyond which no structure lies in the plane of two conductivities.

    Attained in two dimensions by coated discs and everything isotropic where the transports are each other's
    mirror image (l₀ = s k₁, l₁ = s k₀), along one direction by laminates, and always at the ends. Elsewhere
    structures may fall short of it.

    Args:
        goal: "isotropic", for harmonic means of the principal values, or "along" a direction.
        first, second: conductivities of the two transports where ρ = 0 and where ρ = 1.
        fractions: least and largest volume fraction of ρ = 1.
        dim: 2 or 3.
        points: number of points of the curve.
    Returns:
        Pairs, the first conductivity rising, shape (points, 2).
    Raises:
        ValueError: another kind of goal, or fractions out of range or order.
    """
    low, high = fractions
    if not 0 <= low <= high <= 1:
        raise ValueError(f"volume fractions must rise between 0 and 1, found {low:g} and {high:g}")
    f = np.linspace(low, high, 1 if low == high else _FRACTIONS)
    if goal.kind == "along":
        ends = [[wiener((1 - x, x), pair)[1] for pair in (first, second)] for x in (low, high)]
        if (first[0] < first[1]) == (second[0] < second[1]):
            ends = [np.max(ends, axis=0).tolist()] * 2
        first_end, last_end = np.array(sorted(ends))
        return np.linspace(first_end, last_end, points)
    if goal.kind != "isotropic":
        raise ValueError(
            f"a front has bounds for conductivities in every direction or one, found {goal.kind!r}"
        )
    most = [hashin_shtrikman((1 - x, x), first, dim)[1] for x in (low, high)]
    # Where the second is largest the first has what is left: the least that still goes with it.
    best = max((hashin_shtrikman((1 - x, x), second, dim)[1], x) for x in (low, high))
    left = _most_of_first(best[1], first, second, dim)
    both_large = left > 0 and max(most) > 10 * left
    values = (np.geomspace if both_large else np.linspace)(left, max(most), points)
    values[-1] = max(most)
    table = np.array([most_of_second(values, first, second, x, dim) for x in f])
    return np.stack([values, np.nanmax(table, axis=0)], axis=1)


def _most_of_first(fraction: float, first: Pair, second: Pair, dim: int) -> float:
    """The first conductivity of the structure that is best for the second at a volume fraction."""
    low, high = hashin_shtrikman((1 - fraction, fraction), first, dim)
    return high if (first[0] < first[1]) == (second[0] < second[1]) else low
