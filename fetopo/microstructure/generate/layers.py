"""Laminates and checkerboards."""

import logging
import math
from collections.abc import Sequence

import numpy as np

from fetopo.microstructure.generate._cell import (
    cell_of,
    check_fraction,
)
from fetopo.microstructure.image import DEFAULT_VOXEL_SIZE, Image, VoxelSize

logger = logging.getLogger(__name__)


def laminate(
    shape: Sequence[int],
    *,
    fractions: Sequence[float],
    axis: int = 0,
    periods: int = 1,
    voxel_size: VoxelSize = DEFAULT_VOXEL_SIZE,
) -> Image:
    """Layers normal to an axis, label k with the fraction `fractions[k]` of each period.

    Args:
        shape: Voxels along each axis, 2D or 3D.
        fractions: Volume fractions [-] that sum to 1; interfaces are rounded to whole voxels.
        axis: Axis normal to the layers.
        periods: How often the stack repeats along the axis; must divide the number of voxels.
        voxel_size: Side of a voxel [m], one or one per axis.

    Returns:
        Labels 0 to len(fractions) − 1.

    Raises:
        ValueError: A value is out of range, or a layer is thinner than one voxel.
    """
    shape, sides = cell_of(shape, voxel_size)
    for fraction in fractions:
        check_fraction("fractions", fraction)
    if not math.isclose(sum(fractions), 1.0, abs_tol=1e-9):
        raise ValueError(f"fractions sum to {sum(fractions):g}: expected 1")
    if not 0 <= axis < len(shape):
        raise ValueError(f"axis is {axis}: expected 0 to {len(shape) - 1}")
    if periods < 1 or shape[axis] % periods:
        raise ValueError(
            f"periods is {periods}: expected a divisor of the {shape[axis]} voxels along axis {axis}"
        )
    period = shape[axis] // periods
    ends = np.rint(np.cumsum(fractions) * period).astype(int)
    if np.diff(ends, prepend=0).min() < 1:
        raise ValueError(
            f"fractions are {tuple(fractions)}: expected layers of one voxel or more of {period}"
        )
    profile = np.tile(np.searchsorted(ends, np.arange(period), side="right").astype(np.uint8), periods)
    across = [-1 if a == axis else 1 for a in range(len(shape))]
    return Image(np.broadcast_to(profile.reshape(across), shape).copy(), sides)


def checkerboard(shape: Sequence[int], *, tile: int, voxel_size: VoxelSize = DEFAULT_VOXEL_SIZE) -> Image:
    """Squares (cubes) of two phases in turn, half of the volume each.

    Args:
        shape: Voxels along each axis, 2D or 3D; multiples of twice the tile.
        tile: Side of a square in voxels.
        voxel_size: Side of a voxel [m], one or one per axis.

    Returns:
        Labels 0 (at the origin) and 1.

    Raises:
        ValueError: The tile is not positive or does not fit the cell an even number of times.
    """
    shape, sides = cell_of(shape, voxel_size)
    if tile < 1 or any(n % (2 * tile) for n in shape):
        raise ValueError(
            f"tile is {tile} in shape {shape}: expected voxels that are multiples of twice the tile"
        )
    return Image((np.indices(shape, dtype=np.int32) // tile).sum(axis=0) % 2, sides)
