"""Bounds on the effective conductivity of a mixture: does a wanted property exist at all?

All bounds hold for any arrangement of the phases with the given volume fractions. Conductivity stands for
any linear transport coefficient (thermal, electrical, diffusivity); bounds come in the unit of the input. A
phase may be an insulator (0) or a perfect conductor (infinity).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

Floats = Sequence[float] | npt.NDArray[np.floating]

#: Slack with which a value on a bound still counts as inside, relative to the largest conductivity.
_SLACK = 1e-9


def _phases(fractions: Floats, conductivities: Floats) -> tuple[npt.NDArray, npt.NDArray]:
    f, k = np.asarray(fractions, dtype=float), np.asarray(conductivities, dtype=float)
    if f.ndim != 1 or f.shape != k.shape or f.size == 0:
        raise ValueError(f"one fraction per conductivity is needed, found {f.size} and {k.size}")
    if not (np.isfinite(f).all() and (f >= 0).all() and abs(f.sum() - 1) < 1e-6):
        raise ValueError(f"volume fractions must be non-negative and sum to 1, found {f.tolist()}")
    if np.isnan(k).any() or not (k >= 0).all():
        raise ValueError(f"conductivities must be numbers and non-negative, found {k.tolist()}")
    present = f > 0
    return f[present] / f.sum(), k[present]


def wiener(fractions: Floats, conductivities: Floats) -> tuple[float, float]:
    """Harmonic and arithmetic mean: they bound every eigenvalue of the effective tensor.

    (Σ fᵢ/kᵢ)⁻¹ ≤ λ(D) ≤ Σ fᵢ kᵢ

    Args:
        fractions: volume fractions, n values that sum to 1.
        conductivities: isotropic conductivities 0 ≤ kᵢ ≤ ∞, n values.
    Returns:
        Lower and upper bound; both are attained by a laminate, across and along its layers.
    Raises:
        ValueError: fractions that do not sum to 1, values that are negative or no numbers.
    Source: Wiener (1912), Abh. Sächs. Akad. Wiss. 32, 509.
    """
    f, k = _phases(fractions, conductivities)
    if (k == 0).any():
        lower = 0.0
    else:
        lower = math.inf if np.isinf(k).all() else float(1 / np.sum(f / k))
    return lower, float(np.sum(f * k))


def hashin_shtrikman(fractions: Floats, conductivities: Floats, dim: int) -> tuple[float, float]:
    """Best possible bounds on the conductivity of an isotropic mixture of isotropic phases.

    Λ(z) = (Σ fᵢ/(kᵢ + (d−1)z))⁻¹ − (d−1)z, lower bound Λ(min k), upper bound Λ(max k)

    Args:
        fractions: volume fractions, n values that sum to 1.
        conductivities: isotropic conductivities 0 ≤ kᵢ ≤ ∞, n values.
        dim: 2 or 3.
    Returns:
        Lower and upper bound. With two phases both are attained (coated spheres).
    Raises:
        ValueError: as :func:`wiener`, or another dimension.
    Source: Hashin and Shtrikman (1962), J. Appl. Phys. 33, 3125, doi:10.1063/1.1728579.
    """
    _check_dim(dim)
    f, k = _phases(fractions, conductivities)

    def bound(reference: float) -> float:
        z = (dim - 1) * reference
        if np.isinf(z):
            return math.inf
        if (k + z == 0).any():
            return 0.0
        return float(1 / np.sum(f / (k + z)) - z)

    return bound(float(k.min())), bound(float(k.max()))


def trace_bounds(fractions: Floats, conductivities: Floats, dim: int) -> tuple[float, float]:
    """Bounds on anisotropic mixtures: what the eigenvalues λᵢ of the effective tensor can be together.

    Σ 1/(λᵢ − k_min) ≤ 1/A(k_min) − 1/k_min,   Σ 1/(k_max − λᵢ) ≤ 1/A(k_max) + 1/k_max,
    A(z) = Σ fⱼ z |kⱼ − z|/(kⱼ + (d−1)z)

    With two phases and the Wiener bounds they are the whole truth; equal eigenvalues give Hashin–Shtrikman.

    Args:
        fractions, conductivities, dim: as :func:`hashin_shtrikman`.
    Returns:
        The two right-hand sides, in one over the unit of the input. Infinity bounds nothing: the first beside
        an insulator, the second beside a perfect conductor, both where all phases conduct alike.
    Raises:
        ValueError: as :func:`hashin_shtrikman`.
    Source: Tartar (1985) and Lurie and Cherkaev (1986), two phases; Milton and Kohn (1988), J. Mech. Phys.
    Solids 36, 597, doi:10.1016/0022-5096(88)90001-4, any number.
    """
    _check_dim(dim)
    f, k = _phases(fractions, conductivities)

    def limit(z: float, sign: float) -> float:
        if z == 0 or np.isinf(z) or (k == z).all():
            return math.inf
        differs = k != z
        ratio = np.ones(int(differs.sum()))  # what remains of a perfect conductor
        finite = np.isfinite(k[differs])
        ratio[finite] = abs(k[differs][finite] - z) / (k[differs][finite] + (dim - 1) * z)
        return float((1 / np.sum(f[differs] * ratio) - sign) / z)

    return limit(float(k.min()), 1.0), limit(float(k.max()), -1.0)


@dataclass(frozen=True)
class Existence:
    """Answer of :func:`exists`.

    Attributes:
        ok: whether nothing speaks against the target.
        reason: if something does, what, as one sentence.
        sufficient: whether `ok` proves that the target is attained: with one or two phases. With more the
            conditions are necessary only.
        nearest: the tensor nearest to the target (Frobenius norm) that meets the conditions; the target
            itself where `ok`.
    """

    ok: bool
    reason: str = ""
    sufficient: bool = True
    nearest: npt.NDArray[np.float64] | None = None


def exists(
    target: npt.ArrayLike, fractions: Floats, conductivities: Floats, *, dim: int | None = None
) -> Existence:
    """Whether some arrangement of isotropic phases can have an effective tensor.

    With eigenvalues λᵢ of the target, harmonic mean h and arithmetic mean a of the mixture: h ≤ λᵢ ≤ a and
    the two :func:`trace_bounds`. For two phases these conditions are necessary and sufficient: every tensor
    inside is attained by a laminate of finite rank. For more phases they are necessary only.

    Args:
        target: d×d symmetric tensor, d = 2 or 3; or a number, for an isotropic tensor in `dim` dimensions.
        fractions: volume fractions, n values that sum to 1.
        conductivities: conductivities 0 ≤ kᵢ ≤ ∞, n values.
        dim: 2 or 3, needed where the target is a number.
    Returns:
        The answer, with a sentence that names the bound violated, and the nearest tensor inside.
    Raises:
        ValueError: target not symmetric or not 2×2 or 3×3, a number without `dim`, or as :func:`wiener`.
    Source: as :func:`trace_bounds`; Milton, The Theory of Composites (2002), doi:10.1017/CBO9780511613357,
    chapters 22 and 24.
    """
    D = np.asarray(target, dtype=float)
    if D.ndim == 0:
        if dim is None:
            raise ValueError(f"a target that is a number, here {float(D)}, needs dim")
        _check_dim(dim)
        D = float(D) * np.eye(dim)
    slack = 1e-10 * np.abs(D).max(initial=0.0)
    if D.shape not in ((2, 2), (3, 3)) or not np.allclose(D, D.T, rtol=0, atol=slack):
        raise ValueError(
            f"the target must be a symmetric 2×2 or 3×3 tensor, found {np.asarray(target).tolist()}"
        )
    if dim not in (None, len(D)):
        raise ValueError(f"the target is {len(D)}×{len(D)} and dim is {dim}")
    f, k = _phases(fractions, conductivities)
    lam, axes = np.linalg.eigh(D)
    sufficient = len(np.unique(k)) <= 2
    conditions = _Conditions(f, k, len(D))
    reason = conditions.violated(lam)
    if not reason:
        return Existence(True, "", sufficient, D)
    near = conditions.nearest(lam)
    return Existence(False, reason, sufficient, axes @ np.diag(near) @ axes.T)


class _Conditions:
    """Wiener and trace bounds of one mixture on eigenvalues; they leave a convex set."""

    def __init__(self, f: npt.NDArray, k: npt.NDArray, dim: int) -> None:
        self.f, self.k, self.dim = f, k, dim
        self.lower, self.upper = wiener(f, k)
        self.low, self.high = float(k.min()), float(k.max())
        self.limits = trace_bounds(f, k, dim)
        finite = k[np.isfinite(k)]
        self.slack = _SLACK * float(finite.max(initial=0.0))

    def sums(self, lam: npt.NDArray) -> tuple[float, float]:
        """Left-hand sides of the trace bounds; 0 where these bound nothing."""
        round_off = 1e-4 * self.slack
        low = _sum_of(lam - self.low + round_off) if math.isfinite(self.limits[0]) else 0.0
        high = _sum_of(self.high - lam + round_off) if math.isfinite(self.limits[1]) else 0.0
        return low, high

    def violated(self, lam: npt.NDArray) -> str:
        shown = ", ".join(f"{v:.6g}" for v in lam)
        if lam.min() < self.lower - self.slack or lam.max() > self.upper + self.slack:
            return f"its eigenvalues ({shown}) leave the Wiener bounds [{self.lower:.6g}, {self.upper:.6g}]"
        if self.upper - self.lower <= self.slack:  # phases that are alike but for round-off
            return ""
        for side, found, limit in zip(("lower", "upper"), self.sums(lam), self.limits, strict=True):
            if found > limit * (1 + 1e-9):
                hs = hashin_shtrikman(self.f, self.k, self.dim)
                return (
                    f"its eigenvalues ({shown}) lie beyond the {side} trace bound; "
                    f"for an isotropic tensor the Hashin–Shtrikman bounds are [{hs[0]:.6g}, {hs[1]:.6g}]"
                )
        return ""

    def nearest(self, lam: npt.NDArray) -> npt.NDArray[np.float64]:
        """Projection of eigenvalues onto the set."""
        hs = hashin_shtrikman(self.f, self.k, self.dim)
        inside = np.full(self.dim, 0.5 * (hs[0] + hs[1]) if math.isfinite(hs[1]) else 2 * hs[0] + 1)
        if self.upper - self.lower <= self.slack or not math.isfinite(self.lower):
            return np.full(self.dim, self.lower)
        scale = self.upper if math.isfinite(self.upper) else max(float(lam.max()), float(inside[0]))
        # The harmonic mean of the distances: concave, zero on the edge of the bound's domain.
        constraints = [
            {"type": "ineq", "fun": lambda x, s=side, c=limit: self._distance(x * scale, s, c) / scale}
            for side, limit in enumerate(self.limits)
            if math.isfinite(limit)
        ]
        top = self.upper / scale if math.isfinite(self.upper) else None
        with warnings.catch_warnings():  # a step that leaves the box is put back
            warnings.simplefilter("ignore", RuntimeWarning)
            search = minimize(
                lambda x: float(((x - lam / scale) ** 2).sum()),
                inside / scale,
                jac=lambda x: 2 * (x - lam / scale),
                bounds=[(self.lower / scale, top)] * self.dim,
                constraints=constraints,
                method="SLSQP",
                options={"ftol": 1e-14, "maxiter": 200},
            )
        found = search.x * scale
        found = np.clip(found, self.lower, self.upper)
        # The set is convex: what is outside by the tolerance of the search is drawn towards the inside.
        share = 0.0
        for share in (0.0, *np.logspace(-10, 0, 41)):
            if not self.violated(found + share * (inside - found)):
                break
        return np.asarray(found + share * (inside - found))

    def _distance(self, lam: npt.NDArray, side: int, limit: float) -> float:
        """Σ(1/gapᵢ)⁻¹ − 1/limit, which is concave, and below zero beyond the bound."""
        gap = lam - self.low if side == 0 else self.high - lam
        if gap.min() <= 0:
            return float(gap.min()) - 1 / limit
        return 1 / float(np.sum(1 / gap)) - 1 / limit


def _sum_of(gaps: npt.NDArray) -> float:
    return float(np.sum(1 / np.maximum(gaps, 1e-300)))


def _check_dim(dim: int) -> None:
    if dim not in (2, 3):
        raise ValueError(f"dim must be 2 or 3, found {dim}")
