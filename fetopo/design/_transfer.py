"""Values per cell from the ranks that wrote them to those that are there now, by position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Array = npt.NDArray[np.float64]
Load = Callable[[int], dict[str, npt.NDArray[Any]]]

#: Two midpoints within this many mean edges of a cell are one.
_SAME = 1e-6


def nearest(load: Load, files: int, x: Array) -> tuple[Array, npt.NDArray[np.int64]]:
    """Distance of each own cell to the nearest of a checkpoint, and which file and place that is.

    Args:
        load: file number to arrays, of which "positions" has shape (n, d).
        files: how many there are; one is looked at after the other.
        x: own midpoints, shape (n, d).
    Returns:
        Distances, shape (n,); file and index in it, shape (n, 2).
    """
    distance = np.full(len(x), np.inf)
    place = np.zeros((len(x), 2), dtype=np.int64)
    for number in range(files):
        points = load(number)["positions"]
        if len(points) == 0 or len(x) == 0:
            continue
        d, i = cKDTree(points).query(x)
        closer = d < distance
        distance[closer] = d[closer]
        place[closer, 0], place[closer, 1] = number, i[closer]
    return distance, place


def same_cells(distance: Array, spacing: float) -> bool:
    """Whether every own cell is one of the checkpoint's."""
    return bool((distance <= _SAME * spacing).all())


def pick(load: Load, files: int, place: npt.NDArray[np.int64], name: str, width: int) -> Array:
    """Values of an array with `width` values per cell, shape (width·n,), at the places of :func:`nearest`."""
    result = np.zeros((width, len(place)))
    for number in range(files):
        here = place[:, 0] == number
        if here.any():
            values = load(number)[name].reshape(width, -1)
            result[:, here] = values[:, place[here, 1]]
    return result.reshape(-1)


def interpolate(load: Load, files: int, x: Array, name: str, width: int) -> Array:
    """The same between the cells: mean of the 2ᵈ nearest, weighted with 1/distance².

    Between the cells of a regular grid that is close to (multi)linear interpolation; it stays within the
    range of the values and takes any mesh.
    """
    count = 2 ** x.shape[1]
    distance = np.full((len(x), count), np.inf)
    values = np.zeros((width, len(x), count))
    for number in range(files):
        arrays = load(number)
        points = arrays["positions"]
        if len(points) == 0 or len(x) == 0:
            continue
        d, i = cKDTree(points).query(x, k=list(range(1, count + 1)))
        # Fewer points than asked for: infinitely far.
        here = arrays[name].reshape(width, -1)[:, np.minimum(i, len(points) - 1)]
        both, candidates = np.concatenate([distance, d], axis=1), np.concatenate([values, here], axis=2)
        order = np.argsort(both, axis=1, kind="stable")[:, :count]
        distance = np.take_along_axis(both, order, axis=1)
        values = np.take_along_axis(candidates, order[None], axis=2)
    first = distance[:, :1]
    weight = np.where(first > 0, (first / np.where(distance > 0, distance, 1.0)) ** 2, distance == 0)
    return np.asarray(np.sum(values * weight, axis=2) / weight.sum(axis=1)).reshape(-1)
