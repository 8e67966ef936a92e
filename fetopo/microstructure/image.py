"""Labelled voxel images: read, validate, crop, select phases, write.

Axis 0 is the slowest array index. In files that name their axes (OME, ImageJ) the array axes of a 3D image
are (z, y, x), those of a 2D image (y, x). Lengths are in metres.
"""

import contextlib
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from fetopo.microstructure._files import SUFFIXES, opened
from fetopo.microstructure._tiff import write_tiff
from fetopo.microstructure._vti import write_vti
from fetopo.microstructure._window import Crop, check_shape, crop_window, share, slab_window
from fetopo.microstructure.connectivity import (
    Connectivity,
    Mask,
    connectivity,
    percolating,
    percolating_fraction,
    percolating_parts,
    trim,
)

__all__ = [
    "DEFAULT_VOXEL_SIZE", "SUFFIXES", "Connectivity", "Crop", "GreyImage", "Image", "Mask", "VoxelSize",
    "connectivity", "percolating", "percolating_fraction", "percolating_parts", "read", "read_grey",
    "read_slab", "trim", "voxel_sides", "write",
]  # fmt: skip

logger = logging.getLogger(__name__)

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
        wanted = [int(phase)] if isinstance(phase, int | np.integer) else [int(label) for label in phase]
        missing = [label for label in wanted if label not in self.phases]
        if missing or not wanted:
            raise ValueError(
                f"phase {_listed(missing) or 'missing'}: expected labels of the image, {_listed(self.phases)}"
            )
        selected = self.labels == wanted[0]
        for label in wanted[1:]:
            selected |= self.labels == label
        return selected

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


def read(
    path: str | os.PathLike[str],
    *,
    crop: Crop | None = None,
    slab: tuple[int, int] | None = None,
    voxel_size: VoxelSize | None = None,
    shape: Sequence[int] | None = None,
    dtype: npt.DTypeLike | None = None,
    name: str | None = None,
) -> Image:
    """Read a labelled image: .tif/.tiff, .npy, .npz, .vti, .raw (C order), or a folder of slices.

    Only the part asked for is held in memory: .npy, .raw and uncompressed TIFF are memory-mapped, of
    compressed TIFF and of folders the pages of the part are decoded, .npz is unpacked row by row.

    Args:
        path: File, its suffix tells the format; or folder of two-dimensional slices of one type (.tif, .png,
            .bmp, .jpg), taken in natural order of their names along axis 0.
        crop: Part to read: side of the centred cube in voxels, or (start, shape) along each axis.
        slab: First and last (excluded) row along axis 0, of the crop when there is one (see `read_slab`).
        voxel_size: Side of a voxel [m], one or one per axis. None takes what the file says (OME, ImageJ, a
            fine enough resolution tag, the array `voxel_size` of an .npz, a .vti's spacing), else 1e-6 m.
        shape: Voxels along each axis; .raw only, required.
        dtype: Type of a value; .raw only, required.
        name: Array of an .npz or .vti that holds several; `labels` when None and present.

    Returns:
        The image.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Unknown suffix, truncated or inconsistent file, a crop that leaves the image, or contents
            that are no labelled image.
    """
    return _load(
        Image, path, crop, lambda rows: slab, voxel_size=voxel_size, shape=shape, dtype=dtype, name=name
    )


def read_grey(
    path: str | os.PathLike[str],
    *,
    crop: Crop | None = None,
    slab: tuple[int, int] | None = None,
    voxel_size: VoxelSize | None = None,
    shape: Sequence[int] | None = None,
    dtype: npt.DTypeLike | None = None,
    name: str | None = None,
) -> GreyImage:
    """Read a grey image, to be segmented by :mod:`fetopo.microstructure.segment`; arguments as for `read`."""
    return _load(
        GreyImage, path, crop, lambda rows: slab, voxel_size=voxel_size, shape=shape, dtype=dtype, name=name
    )


def read_slab(
    path: str | os.PathLike[str], rank: int, size: int, *, crop: Crop | None = None, **options: Any
) -> tuple[Image, int]:
    """Read the share of one rank: contiguous rows along axis 0, at most one more than another rank's.

    Args:
        path: File or folder, as for `read`.
        rank: The rank, 0 to size − 1 (`comm.rank`).
        size: Number of ranks (`comm.size`).
        crop: Part of the image that is shared out.
        **options: `voxel_size`, `shape`, `dtype` and `name`, as for `read`.

    Returns:
        The slab, and the row of the (cropped) image where it begins.

    Raises:
        ValueError: As `read`; more ranks than rows, on every rank.
    """
    first: list[int] = []

    def slab(rows: int) -> tuple[int, int]:
        first.append(share(rows, rank, size)[0])
        return share(rows, rank, size)

    found: Image = _load(Image, path, crop, slab, **options)
    return found, first[0]


def _load(
    kind: Any,
    path: str | os.PathLike[str],
    crop: Crop | None,
    slab: Callable[[int], tuple[int, int] | None],
    *,
    voxel_size: VoxelSize | None = None,
    shape: Sequence[int] | None = None,
    dtype: npt.DTypeLike | None = None,
    name: str | None = None,
) -> Any:
    """Image or grey image of a part of a file; everything that can be known is checked before it is read."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such image file")
    try:
        with opened(path, shape, dtype, name) as source:
            check_shape(source.shape)
            window = crop_window(source.shape, crop)
            window = slab_window(window, slab(window[0].stop - window[0].start))
            size = source.voxel_size if voxel_size is None else voxel_size
            if size is None:
                logger.info("%s names no voxel size: %g m assumed", path, DEFAULT_VOXEL_SIZE)
            sides = voxel_sides(DEFAULT_VOXEL_SIZE if size is None else size, len(source.shape))
            return kind(source.load(window), sides)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: {error}") from error


def write(path: str | os.PathLike[str], image: Image) -> None:
    """Write an image with its voxel size: .tif/.tiff (deflate, OME metadata), .npz, .vti, or .npy (labels
    only).

    The file appears under its name only once it is complete.

    Args:
        path: File; the suffix tells the format. A file of that name is replaced.
        image: What to write.

    Raises:
        ValueError: Unknown suffix, or labels too large for the format.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".tif", ".tiff", ".npy", ".npz", ".vti"):
        raise ValueError(f"{path}: cannot write suffix '{path.suffix}': expected .tif, .npy, .npz or .vti")
    with _replacing(path) as file:
        if suffix == ".npy":
            np.save(file, image.labels, allow_pickle=False)
        elif suffix == ".vti":
            write_vti(Path(file.name), image.labels, image.voxel_size)
        elif suffix == ".npz":
            np.savez_compressed(file, labels=image.labels, voxel_size=np.array(image.voxel_size))
        else:
            write_tiff(file, image.labels, image.voxel_size)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """File beside `path` that takes its name when the block ends well and vanishes when it does not."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
