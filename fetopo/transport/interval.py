"""A value between two bounds, for numbers and for tensors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Where between the bounds on voxels, flux below and trilinear elements above, the exact value lies.
#: Found by splitting the voxels of real images, see docs/tortuosity.md.
VOXEL_WEIGHT = 0.44


def between(lower: npt.ArrayLike, upper: npt.ArrayLike, weight: float = 0.5) -> npt.NDArray[np.float64]:
    """Weighted geometric mean of two bounds: A #_w B = B^½ (B^{-½} A B^{-½})^{1−w} B^½.

    It never leaves the interval: A ≤ A #_w B ≤ B as quadratic forms, and in 2D it respects duality: the
    inverse of the mean is the mean of the inverses.

    Args:
        lower, upper: numbers or symmetric d×d matrices, lower ≤ upper.
        weight: 0 gives the lower, 1 the upper bound.
    Returns:
        The mean. Round-off that makes a lower bound slightly negative counts as zero.
    Source: Bhatia (2007), Positive Definite Matrices, chapter 4, doi:10.1515/9781400827787.
    """
    A, B = np.atleast_2d(np.asarray(lower, dtype=float)), np.atleast_2d(np.asarray(upper, dtype=float))
    values, vectors = np.linalg.eigh(B)
    there = values > 1e-15 * max(float(values.max()), 0.0)
    if not there.any():
        return np.zeros(np.shape(lower))
    root = vectors[:, there] * np.sqrt(values[there])
    inverse = vectors[:, there] / np.sqrt(values[there])
    inner, turned = np.linalg.eigh(inverse.T @ A @ inverse)
    mean = root @ ((turned * np.clip(inner, 0.0, 1.0) ** (1 - weight)) @ turned.T) @ root.T
    return np.asarray(0.5 * (mean + mean.T)).reshape(np.shape(lower))


def flux_bound(
    mean: npt.NDArray[np.float64], energy: npt.NDArray[np.float64], imbalance: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Lower bound of an effective tensor from fluxes σⱼ in balance: M C⁻¹ Mᵀ, less what imbalance may change.

    For any c: ξᵀMc − ε|c|₁ ≤ (cᵀCc)^½ (ξᵀDξ)^½, and c = C⁻¹Mᵀξ gives the bound. Flux that a solver left
    unbalanced thus costs width, not the guarantee.

    Args:
        mean: Mᵢⱼ = 1/|Y| ∫ eᵢ·σⱼ dx.
        energy: Cᵢⱼ = 1/|Y| ∫ σᵢ·κ⁻¹σⱼ dx.
        imbalance: per flux, 1/|Y| Σ |net flux out of a voxel| · (a bound of |χ|).
    """
    d = len(mean)
    values, vectors = np.linalg.eigh(energy)
    worst = float(np.max(imbalance))
    # Any fluxes serve: those that carry no more than what is unbalanced are left out.
    good = values > max(4 * d * worst, 1e-14 * float(values.max()))
    inverse = (vectors[:, good] / values[good]) @ vectors[:, good].T
    c = inverse @ mean.T
    bound = mean @ c
    bound = 0.5 * (bound + bound.T)
    # ε = ε_j bounds ∫(div σⱼ) χ_ξ for unit ξ; the last term is for round-off in sums of millions of terms.
    loss = 2 * worst * d * float(np.linalg.norm(c, 2)) + 1e-13 * float(np.trace(bound))
    bound -= loss * np.eye(d)
    return np.maximum(bound, 0.0) if d == 1 else bound
