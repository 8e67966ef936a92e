"""Voxel images, labelled and grey: read whole or in part, write; and the names of images at one place.

Axis 0 is the slowest array index. In files that name their axes (OME, ImageJ) the array axes of a 3D image
are (z, y, x), those of a 2D image (y, x). Lengths are in metres.
"""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo._mpi import on_every_rank
from fetopo._paths import replacing
from fetopo.microstructure._files import SUFFIXES, opened
from fetopo.microstructure._tiff import write_tiff
from fetopo.microstructure._voxels import DEFAULT_VOXEL_SIZE, GreyImage, Image, VoxelSize, voxel_sides
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
from fetopo.microstructure.slab import Slab

__all__ = [
    "DEFAULT_VOXEL_SIZE", "SUFFIXES", "Connectivity", "Crop", "GreyImage", "Image", "Mask", "Slab",
    "VoxelSize", "connectivity", "percolating", "percolating_fraction", "percolating_parts", "read",
    "read_grey", "read_slab", "read_slabs", "trim", "voxel_sides", "write",
]  # fmt: skip

logger = logging.getLogger(__name__)


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


def read_slabs(comm: Any, path: str | os.PathLike[str], *, crop: Crop | None = None, **options: Any) -> Slab:
    """Read a labelled image so that each rank has its own rows and none the whole. Collective.

    Args:
        comm: Communicator; rank r of n reads the rows from ⌊N r/n⌋ to ⌊N (r + 1)/n⌋ of N, perhaps none.
        path: File or folder, as for `read`.
        crop: Part of the image that is shared out.
        **options: `voxel_size`, `shape`, `dtype` and `name`, as for `read`.

    Returns:
        The slab of this rank, with labels as values.

    Raises:
        FileNotFoundError, ValueError: As `read`, on every rank.
    """
    bounds: list[int] = []

    def slab(rows: int) -> tuple[int, int]:
        bounds[:] = [rows * rank // comm.size for rank in range(comm.size + 1)]
        start, stop = bounds[comm.rank : comm.rank + 2]
        return (start, stop) if start < stop else (0, 1)

    with on_every_rank(comm):
        found: Image = _load(Image, path, crop, slab, **options)
    rows = bounds[comm.rank + 1] - bounds[comm.rank]
    return Slab(comm, found.labels[:rows], found.voxel_size, tuple(bounds))


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
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # of the file system
            raise
        # A damaged file makes decoders and parsers fail in ways of their own.
        raise ValueError(f"{path}: not readable, {type(error).__name__}: {error}") from error


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
    with replacing(path) as part, open(part, "wb") as file:
        if suffix == ".npy":
            np.save(file, image.labels, allow_pickle=False)
        elif suffix == ".vti":
            write_vti(part, image.labels, image.voxel_size)
        elif suffix == ".npz":
            np.savez_compressed(file, labels=image.labels, voxel_size=np.array(image.voxel_size))
        else:
            write_tiff(file, image.labels, image.voxel_size)
