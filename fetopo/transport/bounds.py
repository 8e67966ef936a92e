"""Bounds on the effective conductivity of a mixture: does a wanted property exist at all?

All bounds hold for any arrangement of the phases with the given volume fractions. Conductivity stands for
any linear transport coefficient (thermal, electrical, diffusivity); bounds come in the unit of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = Sequence[float] | npt.NDArray[np.floating]

#: Slack with which a value on a bound still counts as inside, relative to the largest conductivity.
_SLACK = 1e-9


def _phases(fractions: Floats, conductivities: Floats) -> tuple[npt.NDArray, npt.NDArray]:
    f, k = np.asarray(fractions, dtype=float), np.asarray(conductivities, dtype=float)
    if f.ndim != 1 or f.shape != k.shape or f.size == 0:
        raise ValueError(f"one fraction per conductivity is needed, found {f.size} and {k.size}")
    if not (np.isfinite(f).all() and (f >= 0).all() and abs(f.sum() - 1) < 1e-6):
        raise ValueError(f"volume fractions must be non-negative and sum to 1, found {f.tolist()}")
    if not (np.isfinite(k).all() and (k >= 0).all()):
        raise ValueError(f"conductivities must be finite and non-negative, found {k.tolist()}")
    present = f > 0
    return f[present] / f.sum(), k[present]


def wiener(fractions: Floats, conductivities: Floats) -> tuple[float, float]:
    """Harmonic and arithmetic mean: they bound every eigenvalue of the effective tensor.

    (Σ fᵢ/kᵢ)⁻¹ ≤ λ(D) ≤ Σ fᵢ kᵢ

    Args:
        fractions: volume fractions, n values that sum to 1.
        conductivities: isotropic conductivities kᵢ ≥ 0, n values.
    Returns:
        Lower and upper bound; both are attained by a laminate, across and along its layers.
    Raises:
        ValueError: fractions that do not sum to 1, negative or non-finite values.
    Source: Wiener (1912), Abh. Sächs. Akad. Wiss. 32, 509.
    """
    f, k = _phases(fractions, conductivities)
    lower = 0.0 if (k == 0).any() else float(1 / np.sum(f / k))
    return lower, float(np.sum(f * k))


def hashin_shtrikman(fractions: Floats, conductivities: Floats, dim: int) -> tuple[float, float]:
    """Best possible bounds on the conductivity of an isotropic mixture of isotropic phases.

    Λ(z) = (Σ fᵢ/(kᵢ + (d−1)z))⁻¹ − (d−1)z, lower bound Λ(min k), upper bound Λ(max k)

    Args:
        fractions: volume fractions, n values that sum to 1.
        conductivities: isotropic conductivities kᵢ ≥ 0, n values.
        dim: 2 or 3.
    Returns:
        Lower and upper bound. With two phases both are attained (coated spheres).
    Raises:
        ValueError: as :func:`wiener`, or another dimension.
    Source: Hashin and Shtrikman (1962), J. Appl. Phys. 33, 3125, doi:10.1063/1.1728579.
    """
    if dim not in (2, 3):
        raise ValueError(f"dim must be 2 or 3, found {dim}")
    f, k = _phases(fractions, conductivities)

    def bound(reference: float) -> float:
        z = (dim - 1) * reference
        if (k + z == 0).any():
            return 0.0
        return float(1 / np.sum(f / (k + z)) - z)

    return bound(float(k.min())), bound(float(k.max()))


@dataclass(frozen=True)
class Attainability:
    """Answer of :func:`attainable`: `ok`, and if not, `reason` as one sentence."""

    ok: bool
    reason: str = ""


def attainable(target: npt.ArrayLike, fractions: Floats, conductivities: Floats) -> Attainability:
    """Whether an effective tensor can be reached by some arrangement of two isotropic phases.

    With k₁ < k₂, eigenvalues λᵢ of the target, harmonic mean h and arithmetic mean a of the mixture:

    h ≤ λᵢ ≤ a,   Σ 1/(λᵢ − k₁) ≤ 1/(h − k₁) + (d−1)/(a − k₁),   Σ 1/(k₂ − λᵢ) ≤ 1/(k₂ − h) + (d−1)/(k₂ − a)

    These conditions are necessary and sufficient: every tensor inside is attained by a laminate of finite
    rank. An isotropic target gives the Hashin–Shtrikman bounds.

    Args:
        target: d×d symmetric tensor, d = 2 or 3.
        fractions: the two volume fractions.
        conductivities: the two conductivities.
    Returns:
        The answer, with a sentence that names the bound violated.
    Raises:
        ValueError: target not symmetric or not 2×2 or 3×3, not two phases, or as :func:`wiener`.
    Source: Tartar (1985) and Lurie and Cherkaev (1986); Milton, The Theory of Composites (2002),
    doi:10.1017/CBO9780511613357, chapter 22.
    """
    D = np.asarray(target, dtype=float)
    slack = 1e-10 * np.abs(D).max(initial=0.0)
    if D.shape not in ((2, 2), (3, 3)) or not np.allclose(D, D.T, rtol=0, atol=slack):
        raise ValueError(
            f"the target must be a symmetric 2×2 or 3×3 tensor, found {np.asarray(target).tolist()}"
        )
    if len(conductivities) != 2:
        raise ValueError(f"exactly two phases are supported, found {len(conductivities)}")
    f, k = _phases(fractions, conductivities)
    dim = D.shape[0]
    lam = np.linalg.eigvalsh(D)
    lower, upper = wiener(f, k)
    slack = _SLACK * k.max()
    shown = ", ".join(f"{v:.6g}" for v in lam)
    if lam.min() < lower - slack or lam.max() > upper + slack:
        return Attainability(
            False, f"its eigenvalues ({shown}) leave the Wiener bounds [{lower:.6g}, {upper:.6g}]"
        )
    if k.size == 1 or k[0] == k[1]:
        return Attainability(True)
    low, high = float(k.min()), float(k.max())

    def sum_of(values: npt.NDArray) -> float:
        return float(np.sum(1 / np.maximum(values, 1e-300)))

    means = np.array([lower] + [upper] * (dim - 1))
    # With an insulator h = k₁ = 0: the right-hand side is infinite and nothing bounds the trace from below.
    too_low = low > 0 and sum_of(lam - low) > sum_of(means - low) * (1 + 1e-9)
    too_high = sum_of(high - lam) > sum_of(high - means) * (1 + 1e-9)
    if too_low or too_high:
        hs = hashin_shtrikman(f, k, dim)
        side = "lower" if too_low else "upper"
        return Attainability(
            False,
            f"its eigenvalues ({shown}) lie beyond the {side} trace bound; "
            f"for an isotropic tensor the Hashin–Shtrikman bounds are [{hs[0]:.6g}, {hs[1]:.6g}]",
        )
    return Attainability(True)
