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
