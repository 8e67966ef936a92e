"""What a file of voxel values holds, and the part of it that is wanted, before any value is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Window = tuple[slice, ...]
Crop = int | tuple[Sequence[int], Sequence[int]]
"""Side of a centred cube in voxels, or (start, shape) along each axis."""


@dataclass(frozen=True)
class Source:
    """Voxel values in a file.

    Args:
        shape: Number of voxels along each axis.
        load: Reads a window into an array of its own, and no more of the file than the format demands.
        voxel_size: Side of a voxel along each axis [m] where the file states it.
    """

    shape: tuple[int, ...]
    load: Callable[[Window], Values]
    voxel_size: Any = None


def mapped(values: Values, voxel_size: Any = None) -> Source:
    """Source of an array, memory-mapped or not."""
    return Source(values.shape, lambda window: np.array(values[window]), voxel_size)


def check_shape(shape: Sequence[int]) -> None:
    """Raise ValueError unless the shape is that of a 2D or 3D image with voxels in it."""
    if len(shape) not in (2, 3):
        raise ValueError(f"image has {len(shape)} dimensions (shape {tuple(shape)}): expected 2 or 3")
    if 0 in shape:
        raise ValueError(
            f"image is empty (shape {tuple(shape)}): expected at least one voxel along each axis"
        )


def crop_window(shape: Sequence[int], crop: Crop | None) -> Window:
    """Part of an image that a crop names; a cube starts at (N − n)//2 along each axis.

    Raises:
        ValueError: The crop is empty or leaves the image.
    """
    if crop is None:
        return tuple(slice(0, size) for size in shape)
    if isinstance(crop, int | np.integer):
        if not 0 < crop <= min(shape):
            raise ValueError(
                f"crop of {crop} voxels from an image of shape {tuple(shape)}: expected 1 to {min(shape)}"
            )
        return tuple(slice((size - int(crop)) // 2, (size - int(crop)) // 2 + int(crop)) for size in shape)
    try:
        window = tuple(slice(int(a), int(a) + int(n)) for a, n in zip(*crop, strict=True))
    except (TypeError, ValueError):
        raise ValueError(f"crop is {crop}: expected a number of voxels or (start, shape)") from None
    inside = (0 <= w.start < w.stop <= size for w, size in zip(window, shape, strict=False))
    if len(window) != len(shape) or not all(inside):
        raise ValueError(
            f"crop (start, shape) is {crop}: expected a part of an image of shape {tuple(shape)}"
        )
    return window


def slab_window(window: Window, slab: tuple[int, int] | None) -> Window:
    """Rows `start` to `stop` (excluded) of a window along axis 0.

    Raises:
        ValueError: The slab is empty or leaves the window.
    """
    if slab is None:
        return window
    rows = window[0].stop - window[0].start
    start, stop = slab
    if not 0 <= start < stop <= rows:
        raise ValueError(f"slab is ({start}, {stop}): expected 0 ≤ start < stop ≤ {rows}")
    return slice(window[0].start + start, window[0].start + stop), *window[1:]


def share(rows: int, rank: int, size: int) -> tuple[int, int]:
    """First and last (excluded) of the rows that belong to a rank; all ranks see the same errors.

    Raises:
        ValueError: No such rank, or more ranks than rows.
    """
    if not 0 <= rank < size:
        raise ValueError(f"rank is {rank} of {size}: expected 0 ≤ rank < size")
    if size > rows:
        raise ValueError(f"{rows} rows along axis 0 for {size} ranks: expected at least one row a rank")
    return rows * rank // size, rows * (rank + 1) // size
