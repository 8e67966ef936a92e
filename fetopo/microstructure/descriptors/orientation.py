"""How a phase differs between directions: mean chords in all of them, their tensor, integral lengths."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import integrate

from fetopo._json import plain
from fetopo.microstructure.descriptors._common import Counts, Field, axes_for, both_phases, checked
from fetopo.microstructure.descriptors.correlation import two_point_along
from fetopo.microstructure.descriptors.surface import directions, slopes
from fetopo.microstructure.image import Mask, VoxelSize


@dataclass(frozen=True, eq=False)
class Anisotropy:
    """Mean chord lengths of a phase by direction.

    Args:
        step: Steps to the neighbours of a voxel, one of each opposite pair [voxels].
        direction: Their unit vectors [-].
        mean_chord: Mean chord length along each of them [m]; infinite where no surface is crossed.
        tensor: H [1/m²], symmetric, with n·H·n ≈ 1/ℓ(n)² for the mean chord ℓ(n) along n, by least squares.
        integral_length: Per axis ∫ (S₂(r) − φ²)/(φ − φ²) dr up to the first zero [m].
    """

    step: Counts
    direction: Field
    mean_chord: Field
    tensor: Field
    integral_length: Field

    @property
    def principal(self) -> tuple[Field, Field]:
        """Principal mean chord lengths [m], the largest first, and their directions as rows [-]."""
        values, vectors = np.linalg.eigh(self.tensor)
        values = np.where(values > 1e-10 * values.max(), values, 0.0)
        with np.errstate(divide="ignore"):
            return 1.0 / np.sqrt(values), vectors.T

    @property
    def ratio(self) -> float:
        """Largest over smallest principal mean chord length [-]; 1 for an isotropic medium."""
        lengths, _ = self.principal
        return float(lengths[0] / lengths[-1])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; lengths in metres, None where infinite."""
        lengths, vectors = self.principal
        more = {"principal_length": lengths, "principal_direction": vectors, "ratio": self.ratio}
        return {**plain(self), **plain(more)}

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the mean chord length of every direction and those of the tensor; returns the axes."""
        finite = self.mean_chord[np.isfinite(self.mean_chord)]
        ax, unit, scale = axes_for(ax, float(finite.max(initial=0.0)) or 1.0)
        names = [" ".join(map(str, step)) for step in self.step]
        shown = np.where(np.isfinite(self.mean_chord), self.mean_chord, 0.0) / scale
        ax.bar(names, shown, **options)
        for length, style in zip(self.principal[0], ("--", "-.", ":"), strict=False):
            if math.isfinite(length):
                ax.axhline(length / scale, color="black", linestyle=style, linewidth=1)
        ax.tick_params(axis="x", rotation=60)
        ax.set_xlabel("step to the neighbour (voxels); lines: principal lengths")
        ax.set_ylabel(f"mean chord length{unit}")
        return ax


def anisotropy(mask: Mask, voxel_size: VoxelSize, periodic: bool = False) -> Anisotropy:
    """Mean chord lengths in 13 (2D: 4) directions, the tensor that fits them, integral lengths of S₂.

        ℓ(n) = φ / (−∂S₂/∂r(0; n)),   n·H·n = 1/ℓ(n)²

    with the slope of `surface_from_correlation`, which counts chords shorter than a voxel too. The tensor is
    exact for a medium made from an isotropic one by stretching, and for layers. The integral length tells
    over how far the phase is correlated; it is not a mean of chords (where S₂ is exponential, it is
    (1 − φ) ℓ).

    Args:
        mask: Voxels of the phase, 2D or 3D, with three voxels or more along each axis.
        voxel_size: Side of a voxel [m], one or one per axis.
        periodic: The image is a periodic cell.

    Returns:
        Lengths [m] and tensor [1/m²].

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans, the phase is empty or fills the image, or
            the image is thinner than three voxels.

    Source:
        Harrigan, Mann, J. Mater. Sci. 19, 761 (1984), doi:10.1007/BF00540446.
    """
    sides = checked(mask, voxel_size)
    both_phases(mask, "anisotropy")
    dim, fraction = mask.ndim, int(np.count_nonzero(mask)) / mask.size
    steps = np.array([step for step, _ in directions(sides)])
    vectors = steps * np.array(sides)
    n = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    rate = np.array(slopes(mask, sides, periodic)) / fraction
    pairs = [(i, j) for i in range(dim) for j in range(i, dim)]
    matrix = np.stack([n[:, i] * n[:, j] * (1.0 if i == j else 2.0) for i, j in pairs], axis=1)
    scale = float(rate.max()) or 1.0
    found = np.linalg.lstsq(matrix, (rate / scale) ** 2, rcond=None)[0] * scale**2
    tensor = np.zeros((dim, dim))
    for (i, j), value in zip(pairs, found, strict=True):
        tensor[i, j] = tensor[j, i] = value
    with np.errstate(divide="ignore"):
        chords = np.asarray(1.0 / rate)
    lengths = [_integral_length(mask, sides, axis, periodic) for axis in range(dim)]
    return Anisotropy(steps, np.asarray(n), chords, tensor, np.array(lengths))


def _integral_length(mask: Mask, sides: tuple[float, ...], axis: int, periodic: bool) -> float:
    found = two_point_along(mask, sides, axis, periodic)
    half = mask.shape[axis] // 2 + 1
    fraction = found.value[0]
    value = (found.value[:half] - fraction**2) / (fraction - fraction**2)
    below = np.flatnonzero(value <= 0.0)
    if not below.size:
        return float(integrate.trapezoid(value, found.r[:half]))
    end = int(below[0])
    # The last interval is cut where the line through its ends is zero.
    last = 0.5 * value[end - 1] ** 2 / (value[end - 1] - value[end]) * sides[axis]
    return float(integrate.trapezoid(value[:end], found.r[:end])) + float(last)
