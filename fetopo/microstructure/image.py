"""Labelled voxel images: read, validate, crop, select phases, write.

Axis 0 is the slowest array index. In files that name their axes (OME, ImageJ) the array axes of a 3D image
are (z, y, x), those of a 2D image (y, x). Lengths are in metres.
"""

import contextlib
import logging
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fetopo.microstructure._tiff import read_tiff, write_tiff

logger = logging.getLogger(__name__)

DEFAULT_VOXEL_SIZE = 1.0e-6
"""Side of a voxel in metres where neither the caller nor the file says what it is."""

SUFFIXES = (".tif", ".tiff", ".npy", ".npz", ".raw")

VoxelSize = float | Sequence[float]
Mask = npt.NDArray[np.bool_]


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


def _as_labels(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Array as integer labels in native byte order, read-only; booleans become 0 and 1."""
    labels = np.asarray(values)
    if labels.ndim not in (2, 3):
        raise ValueError(f"image has {labels.ndim} dimensions (shape {labels.shape}): expected 2 or 3")
    if labels.size == 0:
        raise ValueError(
            f"image is empty (shape {labels.shape}): expected at least one voxel along each axis"
        )
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    elif labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            count = int(labels.size - np.isfinite(labels).sum())
            raise ValueError(f"image holds {count} values that are NaN or infinite: expected integer labels")
        fraction = labels != np.rint(labels)
        if fraction.any():
            raise ValueError(
                f"image holds {labels[fraction][0]}: expected integer labels (segment a grey image first)"
            )
        labels = labels.astype(np.int64)
    elif labels.dtype.kind not in "iu":
        raise ValueError(f"image has values of type {labels.dtype}: expected integer labels")
    labels = labels.astype(labels.dtype.newbyteorder("="), copy=False).view()
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

    def crop(self, n: int) -> "Image":
        """Centred cube (square) of n voxels a side: start (N − n)//2 along each axis.

        Raises:
            ValueError: n is not positive or larger than the image.
        """
        if not 0 < n <= min(self.shape):
            raise ValueError(
                f"crop of {n} voxels from an image of shape {self.shape}: expected 1 to {min(self.shape)}"
            )
        window = tuple(slice((size - n) // 2, (size - n) // 2 + n) for size in self.shape)
        return Image(self.labels[window].copy(), self.voxel_size)

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


def percolating_parts(mask: Mask, axes: Sequence[int] | None = None) -> list[Mask]:
    """Parts of a phase that connect opposite faces of the image, for several axes with one labelling.

    Voxels are connected through their faces (edges in 2D); the image is not continued beyond its border.

    Args:
        mask: Voxels of the phase.
        axes: Axes to test; all when None.

    Returns:
        One mask per axis: the voxels whose cluster touches both faces normal to it.

    Raises:
        ValueError: An axis does not exist.
    """
    axes = range(mask.ndim) if axes is None else axes
    for axis in axes:
        if not 0 <= axis < mask.ndim:
            raise ValueError(f"axis is {axis}: expected 0 to {mask.ndim - 1}")
    clusters, count = ndimage.label(mask)
    parts = []
    for axis in axes:
        through = np.zeros(count + 1, dtype=bool)
        through[np.intersect1d(clusters.take(0, axis), clusters.take(-1, axis))] = True
        through[0] = False
        parts.append(through[clusters])
    return parts


def percolating(mask: Mask, axis: int) -> Mask:
    """Part of a phase that connects the two opposite faces normal to `axis` (see `percolating_parts`)."""
    return percolating_parts(mask, [axis])[0]


def percolating_fraction(mask: Mask, axis: int) -> float:
    """Share [-] of a phase that connects the two faces normal to `axis`; 0 for a phase without voxels."""
    return int(np.count_nonzero(percolating(mask, axis))) / max(1, int(np.count_nonzero(mask)))


def trim(mask: Mask, axis: int) -> tuple[Mask, float]:
    """Phase without the clusters that cannot carry a steady current along `axis`.

    Returns:
        The percolating part, and the share [-] of the phase that was removed.
    """
    kept = percolating(mask, axis)
    total = max(1, int(np.count_nonzero(mask)))
    removed = (int(np.count_nonzero(mask)) - int(np.count_nonzero(kept))) / total
    logger.info("trim along axis %d removes %.3g of the phase", axis, removed)
    return kept, removed


def read(
    path: str | os.PathLike[str],
    *,
    voxel_size: VoxelSize | None = None,
    shape: Sequence[int] | None = None,
    dtype: npt.DTypeLike | None = None,
    name: str | None = None,
) -> Image:
    """Read a labelled image: .tif/.tiff (multi-page, compressed), .npy, .npz or .raw (C order).

    Args:
        path: File; the suffix tells the format.
        voxel_size: Side of a voxel [m], one or one per axis. None takes what the file says (OME, ImageJ, a
            fine enough resolution tag, the array `voxel_size` of an .npz), else 1e-6 m.
        shape: Voxels along each axis; .raw only, required.
        dtype: Type of a value; .raw only, required.
        name: Array of an .npz that holds several; `labels` when None and present.

    Returns:
        The image.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Unknown suffix, truncated or inconsistent file, or contents that are no labelled image.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image file")
    suffix = path.suffix.lower()
    if suffix != ".raw" and (shape is not None or dtype is not None):
        raise ValueError(f"{path}: shape and dtype are for .raw files; a {suffix} file holds its own")
    size: VoxelSize | None = None
    try:
        if suffix in (".tif", ".tiff"):
            labels, size = read_tiff(path)
        elif suffix == ".npy":
            labels = np.load(path, allow_pickle=False)
        elif suffix == ".npz":
            labels, size = _read_npz(path, name)
        elif suffix == ".raw":
            labels = _read_raw(path, shape, dtype)
        else:
            raise ValueError(f"unknown suffix '{path.suffix}': expected one of {', '.join(SUFFIXES)}")
        if voxel_size is None and size is None:
            logger.info("%s names no voxel size: %g m assumed", path, DEFAULT_VOXEL_SIZE)
        size = voxel_size if voxel_size is not None else size
        return Image(labels, voxel_sides(DEFAULT_VOXEL_SIZE if size is None else size, np.ndim(labels)))
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: {error}") from error


def _read_npz(path: Path, name: str | None) -> tuple[npt.NDArray[Any], VoxelSize | None]:
    with np.load(path, allow_pickle=False) as archive:
        names = [key for key in archive.files if key != "voxel_size"]
        if name is None:
            name = "labels" if "labels" in names else names[0] if len(names) == 1 else None
        if name not in names:
            raise ValueError(
                f"array {name or 'not named'}: expected one of {', '.join(names) or 'none found'}"
            )
        size = archive["voxel_size"] if "voxel_size" in archive.files else None
        return archive[name], size


def _read_raw(path: Path, shape: Sequence[int] | None, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
    if shape is None or dtype is None:
        raise ValueError(f"a .raw file needs shape and dtype, found shape {shape} and dtype {dtype}")
    if any(n < 1 for n in shape):
        raise ValueError(f"shape is {tuple(shape)}: expected positive numbers of voxels")
    kind = np.dtype(dtype)
    expected, found = int(np.prod(shape, dtype=np.int64)) * kind.itemsize, path.stat().st_size
    if expected != found:
        raise ValueError(f"file has {found} bytes: expected {expected} for shape {tuple(shape)} of {kind}")
    return np.fromfile(path, dtype=kind).reshape(shape)


def write(path: str | os.PathLike[str], image: Image) -> None:
    """Write an image with its voxel size: .tif/.tiff (deflate, OME metadata), .npz, or .npy (labels only).

    The file appears under its name only once it is complete.

    Args:
        path: File; the suffix tells the format. A file of that name is replaced.
        image: What to write.

    Raises:
        ValueError: Unknown suffix, or labels too large for the format.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".tif", ".tiff", ".npy", ".npz"):
        raise ValueError(f"{path}: cannot write suffix '{path.suffix}': expected .tif, .tiff, .npy or .npz")
    with _replacing(path) as file:
        if suffix == ".npy":
            np.save(file, image.labels, allow_pickle=False)
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
