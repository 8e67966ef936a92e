"""The cell of a generated medium: its size, what may be asked of it, and cutting a phase out by rank."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fetopo.microstructure.image import VoxelSize, voxel_sides

Field = npt.NDArray[np.float64]


def cell_of(shape: Sequence[int], voxel_size: VoxelSize) -> tuple[tuple[int, ...], tuple[float, ...]]:
    if len(shape) not in (2, 3) or any(int(n) != n or n < 1 for n in shape):
        raise ValueError(f"shape is {tuple(shape)}: expected 2 or 3 positive whole numbers")
    return tuple(int(n) for n in shape), voxel_sides(voxel_size, len(shape))


def check_fraction(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} is {value}: expected a number between 0 and 1")


def check_radius(name: str, value: float, shape: tuple[int, ...], sides: tuple[float, ...]) -> None:
    low, high = max(sides), min(n * h for n, h in zip(shape, sides, strict=True)) / 4.0
    if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
        raise ValueError(
            f"{name} is {value:g} m: expected {low:g} (a voxel) to {high:g} (a quarter of the cell)"
        )


def ball_volume(dim: int) -> float:
    """Area of the unit disc or volume of the unit sphere."""
    return math.pi if dim == 2 else 4.0 / 3.0 * math.pi


def smallest(field: Field, count: int) -> npt.NDArray[np.bool_]:
    """The `count` voxels with the smallest values; ties go to the lower flat index."""
    flat = field.ravel()
    chosen = np.zeros(flat.size, dtype=bool)
    if count > 0:
        limit = np.partition(flat, count - 1)[count - 1]
        chosen[flat < limit] = True
        ties = np.flatnonzero(flat == limit)
        chosen[ties[: count - int(chosen.sum())]] = True
    return chosen.reshape(field.shape)
