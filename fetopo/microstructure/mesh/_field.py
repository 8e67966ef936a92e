"""A level-set function from an image: indicator or density, blurred, interpolated between voxel centres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float64]

_PAD = 2


@dataclass(frozen=True)
class Field:
    """Multilinear interpolant of values at voxel centres, beyond the outermost ones periodic or constant.

    Attributes:
        padded: values, with two voxels more at either end of every axis.
        voxel: sides of a voxel, shape (d,).
    """

    padded: npt.NDArray[np.float32]
    voxel: Array

    def __call__(self, x: Array) -> Array:
        """Values at points of shape (n, d) that lie at most a voxel outside the box."""
        index = x / self.voxel + (_PAD - 0.5)
        return ndimage.map_coordinates(self.padded, index.T, output=np.float64, order=1, mode="nearest")

    def fraction_above(self, level: float) -> float:
        """Volume fraction where the field is above a level, taken as linear in every voxel.

        A voxel of value v is filled to ½ + (v − level)/w, between 0 and 1, with w its range from side to side
        along all axes: right for planes along an axis, and for others on average over their positions.
        """
        inner = [slice(_PAD, -_PAD)] * self.padded.ndim
        values = self.padded[tuple(inner)]
        width = np.full(values.shape, 1e-6, dtype=np.float32)
        for axis in range(self.padded.ndim):
            ends = []
            for shift in (-1, 1):
                window = list(inner)
                window[axis] = slice(_PAD + shift, self.padded.shape[axis] - _PAD + shift)
                ends.append(self.padded[tuple(window)])
            width += np.abs(ends[1] - ends[0]) / 2
        return float(np.clip(0.5 + (values - level) / width, 0.0, 1.0).mean(dtype=np.float64))


def level_set(values: npt.NDArray, voxel: Array, periodic: Sequence[bool], blur: float) -> Field:
    """Values blurred by a Gaussian of `blur` voxels, across the faces along periodic axes."""
    smooth = np.asarray(values, dtype=np.float32)
    if blur > 0:
        modes = ["wrap" if wrap else "nearest" for wrap in periodic]
        smooth = ndimage.gaussian_filter(smooth, blur, mode=modes)
    for axis, wrap in enumerate(periodic):
        width = [(_PAD, _PAD) if a == axis else (0, 0) for a in range(smooth.ndim)]
        smooth = np.pad(smooth, width, mode="wrap" if wrap else "edge")
    return Field(smooth, voxel)
