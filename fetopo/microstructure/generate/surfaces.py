"""Triply periodic minimal surfaces, as networks and as sheets."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from fetopo.microstructure.generate._cell import Field, cell_of, check_fraction, smallest
from fetopo.microstructure.image import DEFAULT_VOXEL_SIZE, Image, VoxelSize

LEVEL_SETS: dict[str, Callable[[Field, Field, Field], Field]] = {
    "gyroid": lambda x, y, z: np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x),
    "schwarz_p": lambda x, y, z: np.cos(x) + np.cos(y) + np.cos(z),
    "schwarz_d": lambda x, y, z: np.cos(x) * np.cos(y) * np.cos(z) - np.sin(x) * np.sin(y) * np.sin(z),
}
"""Functions of 2πx/a that vanish near the minimal surface (its leading Fourier terms), of zero mean."""


def minimal_surface(
    kind: str,
    shape: Sequence[int],
    *,
    volume_fraction: float,
    part: str = "network",
    periods: int | Sequence[int] = 1,
    voxel_size: VoxelSize = DEFAULT_VOXEL_SIZE,
) -> Image:
    """Gyroid, Schwarz P or Schwarz D (diamond), by the level sets that approximate them.

    gyroid: sin x cos y + sin y cos z + sin z cos x; P: cos x + cos y + cos z; D: cos x cos y cos z −
    sin x sin y sin z, with x, y, z in units of a period over 2π.

    Args:
        kind: "gyroid", "schwarz_p" or "schwarz_d".
        shape: Voxels along each axis, 3D.
        volume_fraction: Fraction of phase 1 [-].
        part: "network": phase 1 is one side of the surface, f < t; "sheet": phase 1 is a wall around the
            surface, |f| < t, between two networks of phase 0.
        periods: How often the surface repeats, along all axes or along each.
        voxel_size: Side of a voxel [m], one or one per axis.

    Returns:
        Labels 0 and 1. A network falls apart below the fractions 0.017 (gyroid), 0.212 (P) and 0.079 (D).

    Raises:
        ValueError: Unknown kind or part, a value out of range, or fewer than 4 voxels in a period.

    Source:
        Schoen, NASA TN D-5541 (1970); level sets: Wohlgemuth, Yufa, Hoffman, Thomas, Macromolecules 34, 6083
        (2001), doi:10.1021/ma0019499.
    """
    if kind not in LEVEL_SETS:
        raise ValueError(f"kind is {kind!r}: expected one of {', '.join(LEVEL_SETS)}")
    if part not in ("network", "sheet"):
        raise ValueError(f"part is {part!r}: expected network or sheet")
    shape, sides = cell_of(shape, voxel_size)
    if len(shape) != 3:
        raise ValueError(f"shape is {shape}: expected 3 numbers of voxels, one per axis")
    check_fraction("volume_fraction", volume_fraction)
    repeats = (periods,) * 3 if isinstance(periods, int) else tuple(periods)
    if len(repeats) != 3 or any(int(p) != p or p < 1 for p in repeats):
        raise ValueError(f"periods is {periods}: expected one positive whole number or 3")
    if any(n < 4 * p for n, p in zip(shape, repeats, strict=True)):
        raise ValueError(f"periods is {periods} in shape {shape}: expected 4 voxels or more in a period")
    axes = [
        2.0 * math.pi * (((np.arange(n) + 0.5) * p / n) % 1.0) for n, p in zip(shape, repeats, strict=True)
    ]
    field = LEVEL_SETS[kind](axes[0][:, None, None], axes[1][:, None], axes[2])
    # Voxels that symmetry makes equal differ by round-off: rounded, they tie, and ties go by index.
    field = np.round(np.abs(field) if part == "sheet" else field, 12)
    return Image(smallest(field, round(volume_fraction * field.size)), sides)
