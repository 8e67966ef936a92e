"""What all descriptors share: checks, conversion to plain values, axes to draw on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.figure import length_unit, new_figure
from fetopo.microstructure.image import Mask, VoxelSize, voxel_sides

Field = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def checked(mask: Mask, voxel_size: VoxelSize, axis: int = 0) -> tuple[float, ...]:
    """Sides of a voxel, once the mask and the axis are known to be sound."""
    if mask.dtype != np.bool_ or mask.ndim not in (2, 3) or mask.size == 0:
        raise ValueError(f"mask is {mask.dtype} of shape {mask.shape}: expected 2D or 3D booleans, not empty")
    if not 0 <= axis < mask.ndim:
        raise ValueError(f"axis is {axis}: expected 0 to {mask.ndim - 1}")
    return voxel_sides(voxel_size, mask.ndim)


def both_phases(mask: Mask, what: str) -> None:
    """Raise ValueError where the phase is empty or fills the image."""
    count = int(np.count_nonzero(mask))
    if count in (0, mask.size):
        raise ValueError(
            f"the phase has {count} of {mask.size} voxels: {what} needs the phase and something else"
        )


def half_reach(shape: Sequence[int], sides: Sequence[float]) -> float:
    """Half of the smallest side of the image [m]."""
    return min(n * h for n, h in zip(shape, sides, strict=True)) / 2.0


def squared_lengths(parts: Sequence[npt.NDArray[Any]]) -> Field:
    """Σ_a x_a² on the grid of the components x_a along each axis."""
    dim = len(parts)
    total: Any = 0.0
    for axis, part in enumerate(parts):
        total = total + along(part, axis, dim) ** 2
    return np.asarray(total, dtype=np.float64)


def along(values: npt.NDArray[Any], axis: int, dim: int) -> npt.NDArray[Any]:
    """Vector as an array of `dim` axes that varies along one."""
    return values.reshape([-1 if a == axis else 1 for a in range(dim)])


def axes_for(ax: Any, largest: float) -> tuple[Any, str, float]:
    """Axes to draw on (new ones when None), and label and size of the unit for lengths up to `largest`."""
    unit, scale = length_unit(largest)
    return (new_figure().subplots() if ax is None else ax), unit, scale


def inverse(unit: str) -> str:
    """Label of one over a unit of length: ` (µm)` becomes ` (1/µm)`."""
    return unit.replace("(", "(1/")
