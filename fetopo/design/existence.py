"""Whether any structure can be what is asked for; told before anything is solved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fetopo.design.goal import MAIN, Goal
from fetopo.transport.bounds import exists, hashin_shtrikman, wiener

Pair = tuple[float, float]


def check_pair(name: str, conductivity: Sequence[float]) -> None:
    """Raise ValueError unless two conductivities are finite, not negative and different."""
    a, b = conductivity
    if not (0 <= min(a, b) < max(a, b) < np.inf):
        raise ValueError(
            f"the conductivities of {name} must be finite, not negative and different, found [{a:g}, {b:g}]"
        )


def most(
    along: Sequence[float] | None, conductivity: Pair, fractions: tuple[float, float], dim: int
) -> float:
    """Largest conductivity of any structure, in one direction or in all at once.

    Args:
        along: direction, or None for all: then Hashin and Shtrikman's bound instead of the arithmetic mean.
        conductivity: where ρ = 0 and where ρ = 1.
        fractions: least and largest volume fraction of ρ = 1.
    """
    # Monotonic in the fraction: the better of the two ends.
    found = []
    for f in fractions:
        mixture = (1 - f, f)
        found.append(
            hashin_shtrikman(mixture, conductivity, dim)[1]
            if along is None
            else wiener(mixture, conductivity)[1]
        )
    return max(found)


def duality_limit(first: Pair, second: Pair) -> float:
    """Most that the product of two isotropic conductivities of one structure can be in two dimensions.

    D(k₀, k₁) D(l₀, l₁) ≤ max(k₀ l₀, k₁ l₁) for two transports that prefer different phases: with l₀ = s k₁
    and l₁ = s k₀ the product is s k₀ k₁ for any isotropic structure and smaller for others, whose harmonic
    means of the principal values are meant; and more conductivity anywhere never makes it smaller. Infinite
    where both prefer the same phase.

    Source: Keller (1964), J. Math. Phys. 5, 548, doi:10.1063/1.1704146; Mendelson (1975), J. Appl. Phys. 46,
    917, doi:10.1063/1.321615.
    """
    if (first[0] < first[1]) == (second[0] < second[1]):
        return float("inf")
    return max(first[0] * second[0], first[1] * second[1])


def most_together(goal: Goal, known: Mapping[str, Pair], volume_fraction: float, dim: int) -> float:
    """Largest number that several transports can reach together, as :meth:`Goal.together` counts.

    That of each alone, and in two dimensions what duality leaves of two that prefer different phases.
    """
    w = goal.shares
    best = goal.together(np.ones(len(w)))
    if dim == 3 or goal.kind != "isotropic" or goal.combine != "smaller":
        return best
    bounds = [goal.bound(volume_fraction, known[name], dim) or 0.0 for name in goal.transports]
    for i, a in enumerate(goal.transports):
        for j, b in enumerate(goal.transports[:i]):
            limit = duality_limit(known[a], known[b])
            best = min(best, (limit / (bounds[i] * bounds[j] * w[i] * w[j])) ** 0.5)
    return best


def check_design(
    dim: int,
    conductivity: Pair,
    volume_fraction: float,
    goal: Goal,
    transports: Mapping[str, Pair] | None = None,
) -> None:
    """Raise ValueError, with one sentence, if no structure can be what is asked for.

    Args:
        dim: 2 or 3.
        conductivity: of the poorer and the better material.
        volume_fraction: of the better one.
        goal: what the design is for.
        transports: conductivities of further transports.
    """
    low, high = conductivity
    if not (0 <= low < high < np.inf):
        raise ValueError(f"conductivity must be two numbers with 0 <= first < second, found [{low}, {high}]")
    if not 0 < volume_fraction < 1:
        raise ValueError(f"volume_fraction must lie between 0 and 1, found {volume_fraction}")
    for name, pair in (transports or {}).items():
        if name == MAIN:
            raise ValueError(f"the transport {MAIN!r} has the conductivities of the design itself")
        check_pair(f"transport {name!r}", pair)
    known = {MAIN: conductivity, **(transports or {})}
    for name in goal.transports:
        if name not in known:
            raise ValueError(f"no transport {name!r}; there are {', '.join(known)}")
    if MAIN not in goal.transports:
        raise ValueError(f"the goal must name the transport {MAIN!r}, found {list(goal.transports)}")
    if goal.direction is not None and len(goal.direction) != dim:
        raise ValueError(f"the direction must have {dim} components, found {list(goal.direction)}")
    _check_value(dim, conductivity, volume_fraction, goal)
    resolved = goal.resolved(dim, volume_fraction, conductivity)
    if resolved.target is not None:
        _check_target(dim, conductivity, volume_fraction, resolved)
    if goal.several and dim == 2 and resolved.kind == "isotropic":
        names = goal.transports
        for i, a in enumerate(names):
            for b in names[:i]:
                if duality_limit(known[a], known[b]) == 0:
                    raise ValueError(
                        f"no structure in two dimensions conducts {b!r} and {a!r} in every direction, each "
                        "is blocked where the other passes: ask for one direction, or for three dimensions"
                    )


def _check_target(dim: int, conductivity: Pair, volume_fraction: float, goal: Goal) -> None:
    T = np.array(goal.target, dtype=float)
    if T.shape != (dim, dim):
        raise ValueError(f"the target must be a {dim}×{dim} tensor, found {T.tolist()}")
    answer = exists(T, (1 - volume_fraction, volume_fraction), conductivity)
    if not answer.ok:
        assert answer.nearest is not None
        rows = ", ".join("[" + ", ".join(f"{v:.6g}" for v in row) + "]" for row in answer.nearest)
        raise ValueError(
            f"no structure of volume fraction {volume_fraction:g} has this tensor: {answer.reason}; "
            f"the nearest that exists is [{rows}]"
        )


def _check_value(dim: int, conductivity: Pair, volume_fraction: float, goal: Goal) -> None:
    """A number that stands for an isotropic tensor: the bound is the nearest that exists."""
    if goal.value is None or goal.kind not in ("tortuosity", "bruggeman"):
        return
    k, value = max(conductivity), goal.value
    if goal.kind == "tortuosity" and value <= 0:
        raise ValueError(f"a tortuosity factor must be positive, found {value:g}")
    low, high = hashin_shtrikman((1 - volume_fraction, volume_fraction), conductivity, dim)

    def number(D: float) -> float:
        if D <= 0:
            return float("inf")
        return (
            volume_fraction * k / D if goal.kind == "tortuosity" else np.log(D / k) / np.log(volume_fraction)
        )

    least, largest = number(high), number(low)
    if not least * (1 - 1e-9) <= value <= largest * (1 + 1e-9):
        name = "tortuosity factor" if goal.kind == "tortuosity" else "Bruggeman exponent"
        nearest = least if value < least else largest
        raise ValueError(
            f"no isotropic structure of volume fraction {volume_fraction:g} has the {name} {value:g}: "
            f"Hashin and Shtrikman's bounds allow {least:.6g} to {largest:.6g}; the nearest that exists is "
            f"{nearest:.6g}"
        )
