"""Voxel images in memory: labelled and grey, checked, with the side of a voxel in metres."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.microstructure._window import Crop, Mask, check_shape, crop_window

DEFAULT_VOXEL_SIZE = 1.0e-6
"""Side of a voxel in metres where neither the caller nor the file says what it is."""

VoxelSize = float | Sequence[float]


def voxel_sides(voxel_size: VoxelSize, dim: int) -> tuple[float, ...]:
    """Sides of a voxel along each axis.

    Args:
        voxel_size: One side for all axes, or one per axis [m].
        dim: Number of axes.

    Returns:
        `dim` positive lengths [m].

    Raises:
        ValueError: The number of sides is not `dim`, or one of them is not a positive finite number.
    """
    sides = np.atleast_1d(np.asarray(voxel_size, dtype=float))
    if sides.ndim != 1 or sides.size not in (1, dim):
        raise ValueError(f"voxel_size is {voxel_size}: expected one length or {dim}, one per axis, in metres")
    if not (np.isfinite(sides).all() and (sides > 0).all()):
        raise ValueError(f"voxel_size is {voxel_size}: expected positive finite lengths in metres")
    return tuple(float(h) for h in np.broadcast_to(sides, (dim,)))


def _native(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _check_finite(values: npt.NDArray[Any], expected: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        count = values.size - int(np.count_nonzero(finite))
        raise ValueError(f"image holds {count} values that are NaN or infinite: expected {expected}")


def _as_labels(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Array as integer labels in native byte order, read-only; booleans become 0 and 1."""
    labels = np.asarray(values)
    check_shape(labels.shape)
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    elif labels.dtype.kind == "f":
        _check_finite(labels, "integer labels")
        fraction = labels != np.rint(labels)
        if fraction.any():
            raise ValueError(
                f"image holds {labels[fraction][0]}: expected integer labels "
                "(read_grey and segment make them from a grey image)"
            )
        labels = labels.astype(np.int64)
    elif labels.dtype.kind not in "iu":
        raise ValueError(f"image has values of type {labels.dtype}: expected integer labels")
    labels = _native(labels).view()
    labels.flags.writeable = False
    return labels


def _listed(labels: Iterable[int]) -> str:
    """Labels for a message, shortened when there are many."""
    names = [str(label) for label in labels]
    return ", ".join(names if len(names) <= 8 else [*names[:4], "…", names[-1]])


def check_phases(phase: int | Iterable[int], present: Iterable[int]) -> list[int]:
    """One label or several as a list, once all are known to be present.

    Raises:
        ValueError: A label does not occur, or none is given.
    """
    wanted = [int(phase)] if isinstance(phase, int | np.integer) else [int(label) for label in phase]
    missing = [label for label in wanted if label not in present]
    if missing or not wanted:
        raise ValueError(
            f"phase {_listed(missing) or 'missing'}: expected labels of the image, {_listed(present)}"
        )
    return wanted


def voxels_of(labels: npt.NDArray[Any], wanted: Sequence[int]) -> Mask:
    """Where the labels are one of those wanted; no more memory than the result takes, twice."""
    selected: Mask = labels == wanted[0]
    for label in wanted[1:]:
        selected |= labels == label
    return selected


@dataclass(frozen=True, eq=False)
class Image:
    """Labelled image of a material: one integer per voxel.

    Args:
        labels: Integer labels, 2D or 3D; booleans and floats that are whole numbers are converted.
        voxel_size: Side of a voxel along each axis [m]; one number stands for all axes.

    Raises:
        ValueError: The array is empty, not 2D or 3D, not integer, holds NaN, or a side is not positive.
    """

    labels: npt.NDArray[Any]
    voxel_size: tuple[float, ...] = (DEFAULT_VOXEL_SIZE,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", _as_labels(self.labels))
        object.__setattr__(self, "voxel_size", voxel_sides(self.voxel_size, self.labels.ndim))

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of voxels along each axis."""
        return self.labels.shape

    @property
    def dim(self) -> int:
        """Number of axes, 2 or 3."""
        return self.labels.ndim

    @cached_property
    def phases(self) -> dict[int, float]:
        """Volume fraction [-] of every label that occurs, in increasing order of the label."""
        if self.labels.dtype in (np.uint8, np.uint16):
            histogram = np.zeros(65536, dtype=np.int64)
            for part in self.labels:  # slab by slab: bincount works on a copy of eight bytes a voxel
                histogram += np.bincount(part.ravel(), minlength=65536)
            found: npt.NDArray[Any] = np.flatnonzero(histogram)
            counts = histogram[found]
        else:
            found, counts = np.unique(self.labels, return_counts=True)
        return {int(label): int(count) / self.labels.size for label, count in zip(found, counts, strict=True)}

    def crop(self, crop: Crop) -> "Image":
        """Part of the image: a centred cube (square), start (N − n)//2 along each axis, or (start, shape).

        Raises:
            ValueError: The crop is empty or leaves the image.
        """
        return Image(self.labels[crop_window(self.shape, crop)].copy(), self.voxel_size)

    def mask(self, phase: int | Iterable[int]) -> Mask:
        """Voxels that belong to a phase, or to any of several.

        Raises:
            ValueError: A label does not occur in the image, or none is given.
        """
        return voxels_of(self.labels, check_phases(phase, self.phases))

    def relabel(self, mapping: Mapping[int, int]) -> "Image":
        """Image with the labels replaced; those not in the mapping stay.

        Raises:
            ValueError: A label of the mapping does not occur in the image.
        """
        new = {label: int(mapping.get(label, label)) for label in self.phases}
        missing = [label for label in mapping if label not in new]
        if missing:
            raise ValueError(
                f"label {_listed(missing)}: expected labels of the image, {_listed(self.phases)}"
            )
        found = np.array(list(new), dtype=self.labels.dtype)
        values = np.array(list(new.values()))
        smallest = np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max()))
        return Image(values.astype(smallest)[np.searchsorted(found, self.labels)], self.voxel_size)

    def select(self, phase: int | Iterable[int]) -> "Image":
        """Two-phase image: 1 where the voxel belongs to `phase` (one label or several), else 0."""
        return Image(self.mask(phase).astype(np.uint8), self.voxel_size)


@dataclass(frozen=True, eq=False)
class GreyImage:
    """Grey image, such as a tomogram before it is segmented: one number per voxel.

    Args:
        values: Grey values, 2D or 3D, integer or floating point.
        voxel_size: Side of a voxel along each axis [m]; one number stands for all axes.

    Raises:
        ValueError: The array is empty, not 2D or 3D, no real numbers, holds NaN, or a side is not positive.
    """

    values: npt.NDArray[Any]
    voxel_size: tuple[float, ...] = (DEFAULT_VOXEL_SIZE,)

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        check_shape(values.shape)
        if values.dtype.kind not in "biuf":
            raise ValueError(f"grey image has values of type {values.dtype}: expected real numbers")
        if values.dtype.kind == "f":
            _check_finite(values, "finite grey values")
        values = (values.view(np.uint8) if values.dtype == bool else _native(values)).view()
        values.flags.writeable = False
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "voxel_size", voxel_sides(self.voxel_size, values.ndim))

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of voxels along each axis."""
        return self.values.shape

    @property
    def dim(self) -> int:
        """Number of axes, 2 or 3."""
        return self.values.ndim

    def crop(self, crop: Crop) -> "GreyImage":
        """Part of the image: a centred cube of so many voxels a side, or (start, shape)."""
        return GreyImage(self.values[crop_window(self.shape, crop)].copy(), self.voxel_size)
