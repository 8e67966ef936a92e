"""A value between two bounds, for numbers and for tensors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Where between the bounds on voxels, flux below and trilinear elements above, the exact value lies.
#: Found by splitting the voxels of real images, see docs/tortuosity.md.
VOXEL_WEIGHT = 0.45


def between(lower: npt.ArrayLike, upper: npt.ArrayLike, weight: float = 0.5) -> npt.NDArray[np.float64]:
    """Weighted geometric mean of two bounds: A #_w B = A^½ (A^{-½} B A^{-½})^w A^½.

    It never leaves the interval: A ≤ A #_w B ≤ B as quadratic forms, and in 2D it respects duality: the
    inverse of the mean is the mean of the inverses.

    Args:
        lower, upper: numbers or symmetric d×d matrices, lower ≤ upper.
        weight: 0 gives the lower, 1 the upper bound.
    Returns:
        The mean; the arithmetic one where the lower bound is not positive definite.
    Source: Bhatia (2007), Positive Definite Matrices, chapter 4, doi:10.1515/9781400827787.
    """
    A, B = np.atleast_2d(np.asarray(lower, dtype=float)), np.atleast_2d(np.asarray(upper, dtype=float))
    values, vectors = np.linalg.eigh(A)
    if values.min() <= 0:
        mean = (1 - weight) * A + weight * B
    else:
        root = (vectors * np.sqrt(values)) @ vectors.T
        inverse = (vectors / np.sqrt(values)) @ vectors.T
        inner, turned = np.linalg.eigh(inverse @ B @ inverse)
        mean = root @ ((turned * np.maximum(inner, 0.0) ** weight) @ turned.T) @ root
    return np.asarray(0.5 * (mean + mean.T)).reshape(np.shape(lower))
