"""Files of voxel values by suffix: each opened as a Source, which reads a window without the rest."""

import contextlib
import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fetopo.microstructure._tiff import open_tiff
from fetopo.microstructure._vti import open_vti
from fetopo.microstructure._window import Source, Values, Window, check_shape, mapped

SUFFIXES = (".tif", ".tiff", ".npy", ".npz", ".raw", ".vti")
SLICES = (".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg")
"""Suffixes of the slices of a folder."""


@contextlib.contextmanager
def opened(
    path: Path, shape: Sequence[int] | None, dtype: npt.DTypeLike | None, name: str | None
) -> Iterator[Source]:
    """The values of a file or of a folder of slices, to be read inside the block.

    Raises:
        ValueError: Unknown suffix, truncated or inconsistent file, options for another format.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        suffix = "folder"
    elif suffix not in SUFFIXES:
        raise ValueError(
            f"unknown suffix '{path.suffix}': expected one of {', '.join(SUFFIXES)}, or a folder"
        )
    if suffix != ".raw" and (shape is not None or dtype is not None):
        raise ValueError(f"shape and dtype are for .raw files; a {suffix} file holds its own")
    if suffix not in (".npz", ".vti") and name is not None:
        raise ValueError(f"name is {name!r}: only .npz and .vti files hold named arrays")
    if suffix in (".tif", ".tiff"):
        with open_tiff(path) as source:
            yield source
    elif suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            yield _open_npz(archive, path, name)
    elif suffix == "folder":
        yield _open_folder(path)
    elif suffix == ".vti":
        yield open_vti(path, name)
    elif suffix == ".npy":
        yield _open_npy(path)
    else:
        yield _open_raw(path, shape, dtype)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type of the array that follows in a .npy file."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f".npy format {version[0]}.{version[1]}: expected 1.0 or 2.0")


def _open_npy(path: Path) -> Source:
    with open(path, "rb") as file:
        shape, _, _ = _header(file)
    check_shape(shape)
    return mapped(np.load(path, mmap_mode="r", allow_pickle=False))


def _open_npz(archive: zipfile.ZipFile, path: Path, name: str | None) -> Source:
    """Source that unpacks an array row by row, up to the end of the window."""
    members = [key.removesuffix(".npy") for key in archive.namelist() if key.endswith(".npy")]
    names = [key for key in members if key != "voxel_size"]
    if name is None:
        name = "labels" if "labels" in names else names[0] if len(names) == 1 else None
    if name not in names:
        raise ValueError(f"array {name or 'not named'}: expected one of {', '.join(names) or 'none found'}")
    size = None
    if "voxel_size" in members:
        with archive.open("voxel_size.npy") as file:
            size = np.lib.format.read_array(file, allow_pickle=False)
    with archive.open(f"{name}.npy") as file:
        shape, fortran, kind = _header(file)
        begin = file.tell()
    if kind.hasobject:
        raise ValueError(f"array {name} holds Python objects: expected numbers")
    check_shape(shape)
    expected, found = math.prod(shape) * kind.itemsize, archive.getinfo(f"{name}.npy").file_size - begin
    if expected != found:
        raise ValueError(f"array {name} has {found} bytes: expected {expected} for shape {shape} of {kind}")

    def load(window: Window) -> Values:
        with archive.open(f"{name}.npy") as file:
            if fortran:
                return np.array(np.lib.format.read_array(file, allow_pickle=False)[window])
            _header(file)
            values = np.empty([w.stop - w.start for w in window], dtype=kind)
            count = int(np.prod(shape[1:], dtype=np.int64)) * kind.itemsize
            for row in range(window[0].stop):
                content = file.read(count)
                if len(content) != count:
                    raise ValueError(f"array {name} ends in row {row}: expected {shape[0]} rows")
                if row >= window[0].start:
                    plane = np.frombuffer(content, dtype=kind).reshape(shape[1:])
                    values[row - window[0].start] = plane[window[1:]]
            if window[0].stop == shape[0] and file.read(1):  # at the end the checksum is compared
                raise ValueError(f"array {name} goes on after row {shape[0] - 1}")
            return values

    return Source(shape, load, size)


def _open_raw(path: Path, shape: Sequence[int] | None, dtype: npt.DTypeLike | None) -> Source:
    if shape is None or dtype is None:
        raise ValueError(f"a .raw file needs shape and dtype, found shape {shape} and dtype {dtype}")
    if any(n < 1 for n in shape):
        raise ValueError(f"shape is {tuple(shape)}: expected positive numbers of voxels")
    try:
        kind = np.dtype(dtype)
    except TypeError:
        raise ValueError(f"dtype is {dtype!r}: expected the name of a NumPy type, such as uint8") from None
    expected, found = int(np.prod(shape, dtype=np.int64)) * kind.itemsize, path.stat().st_size
    if expected != found:
        raise ValueError(f"file has {found} bytes: expected {expected} for shape {tuple(shape)} of {kind}")
    return mapped(np.memmap(path, dtype=kind, mode="r", shape=tuple(shape)))


def natural(name: str) -> list[tuple[int, int, str]]:
    """Key that sorts names by the numbers in them: slice2 before slice10."""
    parts = (part for part in re.split(r"(\d+)", name.lower()) if part)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _open_folder(path: Path) -> Source:
    """Source of the slices of a folder, in natural order of their names; other files are passed over."""
    files = [p for p in path.iterdir() if p.suffix.lower() in SLICES and not p.name.startswith(".")]
    files.sort(key=lambda p: (natural(p.name), p.name))
    kinds = sorted({p.suffix.lower() for p in files})
    if not files or len(kinds) > 1:
        raise ValueError(
            f"folder with slices of type {', '.join(kinds) or 'none'}: expected files of one type of "
            + ", ".join(SLICES)
        )
    shape, size = _slice_shape(files[0])

    def load(window: Window) -> Values:
        values: Values | None = None
        for row, file in enumerate(files[window[0]]):
            plane = _slice(file, shape)[window[1:]]
            if values is None:
                values = np.empty([w.stop - w.start for w in window], dtype=plane.dtype)
            if plane.dtype != values.dtype:
                raise ValueError(f"{file.name} holds {plane.dtype}: expected {values.dtype} as in the others")
            values[row] = plane
        assert values is not None
        return values

    return Source((len(files), *shape), load, size)


def _slice_shape(file: Path) -> tuple[tuple[int, ...], Any]:
    """Shape of a slice, and the voxel size in three dimensions where it says one."""
    if file.suffix.lower() not in (".tif", ".tiff"):
        return _slice(file, None).shape, None
    with open_tiff(file, dim=3) as source:
        if len(source.shape) != 2:
            raise ValueError(f"{file.name} has shape {source.shape}: expected slices of two dimensions")
        return source.shape, source.voxel_size


def _slice(file: Path, shape: tuple[int, ...] | None) -> Values:
    """Values of one slice, which must have the shape of the others."""
    try:
        if file.suffix.lower() in (".tif", ".tiff"):
            with open_tiff(file) as source:
                plane = source.load(tuple(slice(0, n) for n in source.shape))
        else:
            from skimage.io import imread

            plane = imread(file)
    except (ValueError, OSError, SyntaxError) as error:  # SyntaxError is what Pillow says of a broken PNG
        raise ValueError(f"slice {file.name}: {error}") from error
    if plane.ndim != 2 or (shape is not None and plane.shape != shape):
        raise ValueError(
            f"slice {file.name} has shape {plane.shape}: expected "
            + ("one value a pixel" if shape is None or plane.ndim != 2 else f"{shape} as the first")
        )
    return plane
