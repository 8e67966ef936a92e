"""Distances to spheres in a periodic cell, and spheres pushed apart."""

import math

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from fetopo.microstructure.generate._cell import Field, smallest


def push_apart(centres: Field, radii: Field, lengths: Field, sweeps: int = 60) -> Field:
    """Centres after sweeps that move every overlapping pair apart by its overlap, half each (periodic)."""
    for _ in range(sweeps):
        centres = np.mod(centres, lengths)
        centres[centres >= lengths] = 0.0  # np.mod of a tiny negative number
        pairs = cKDTree(centres, boxsize=lengths).query_pairs(2.0 * radii.max(), output_type="ndarray")
        i, j = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].T
        gap = centres[i] - centres[j]
        gap -= lengths * np.rint(gap / lengths)
        distance = np.sqrt((gap**2).sum(axis=1))
        overlap = np.maximum(radii[i] + radii[j] - distance, 0.0)
        if not overlap.any():
            break
        shift = (0.5 * overlap / np.maximum(distance, 1e-12 * lengths.max()))[:, None] * gap
        np.add.at(centres, i, shift)
        np.add.at(centres, j, -shift)
    return np.mod(centres, lengths)


def two_nearest(
    shape: tuple[int, ...], sides: tuple[float, ...], centres: Field, radii: Field, reach: float
) -> tuple[Field, Field]:
    """Smallest and second smallest |x − c_i|/R_i per voxel centre (periodic), at most `reach`."""
    first, second = np.full(shape, reach), np.full(shape, reach)
    for i in range(radii.size):
        radius = float(radii[i])
        squares: list[Field] = []
        window: list[npt.NDArray[np.int64]] = []
        for axis, (n, side) in enumerate(zip(shape, sides, strict=True)):
            offset = (np.arange(n) + 0.5) * side - centres[i, axis]
            offset -= n * side * np.rint(offset / (n * side))
            near = np.flatnonzero(np.abs(offset) < reach * radius)
            squares.append((offset[near] / radius) ** 2)
            window.append(near)
        box = np.ix_(*window)
        distance = np.sqrt(sum(np.ix_(*squares)))
        nearest = first[box]
        second[box] = np.minimum(second[box], np.maximum(nearest, distance))
        first[box] = np.minimum(nearest, distance)
    return first, second


def nearest_voxels(
    shape: tuple[int, ...], sides: tuple[float, ...], centres: Field, radii: Field, count: int
) -> tuple[npt.NDArray[np.bool_], float]:
    """The `count` voxels of smallest |x − c_i|/R_i, and the largest such distance among them."""
    reach, farthest = 1.0, math.inf
    while farthest >= reach:
        reach *= 1.5
        distance, _ = two_nearest(shape, sides, centres, radii, reach)
        chosen = smallest(distance, count)
        farthest = float(distance[chosen].max(initial=0.0))
    return chosen, farthest
