"""TIFF files: pages to arrays, voxel size from OME, ImageJ or resolution tags, damage told from data."""

import contextlib
import hashlib
import logging
import struct
import uuid
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import tifffile

from fetopo.microstructure._window import Source, Values, Window, check_shape, mapped

logger = logging.getLogger(__name__)

# Dots per inch: a plain resolution tag up to here describes paper or a screen, not voxels.
FINEST_PRINT = 600.0

# Bytes of a value by the type of a tag: TIFF 6 and BigTIFF.
_TAG_BYTES = dict(enumerate((0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)))

# Powers of ten of a metre; ImageJ writes the micro sign escaped.
_UNITS = {"m": 0, "cm": -2, "mm": -3, "nm": -9, "pm": -12, "å": -10, "angstrom": -10}
_UNITS |= dict.fromkeys(("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"), -6)


@contextlib.contextmanager
def open_tiff(path: Path, dim: int | None = None) -> Iterator[Source]:
    """Source of a TIFF file. Uncompressed stacks are memory-mapped, of others the pages wanted are decoded.

    Args:
        path: File.
        dim: Axes of the voxel size, where they are more than those of the file (slices of a folder).

    Raises:
        ValueError: Truncated or damaged file, colour channels.
    """
    with contextlib.ExitStack() as stack:
        with _as_value_error():
            tif = stack.enter_context(tifffile.TiffFile(path))
            _check_directories(tif)
            shape, load = _pages(tif, path)
            size = _tiff_voxel_size(tif, dim or len(shape))
        yield Source(shape, load, size)


@contextlib.contextmanager
def _as_value_error() -> Iterator[None]:
    """Each decoder, and tifffile itself, has exceptions of its own."""
    try:
        yield
    except (ValueError, OSError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"no readable TIFF: {error}") from error


def _pages(tif: tifffile.TiffFile, path: Path) -> tuple[tuple[int, ...], Callable[[Window], Values]]:
    """Shape of the image in a file, and what reads a window of it."""
    series = tif.series
    first = series[0]
    if "S" in first.axes or "C" in first.axes:
        raise ValueError(f"image has colour channels (axes {first.axes}): expected one value a voxel")
    pages, shape = list(first.pages), first.shape
    if len(series) > 1 and len(first.shape) == 2 and len({(s.shape, s.dtype) for s in series}) == 1:
        pages, shape = [one.pages[0] for one in series], (len(series), *first.shape)  # written one by one
    elif len(series) > 1:
        logger.warning("%s holds %d images: the first is read", path, len(series))
    check_shape(shape)
    if shape == first.shape and first.keyframe.is_memmappable and first.dataoffset is not None:
        kind = np.dtype(first.dtype).newbyteorder(tif.byteorder)
        values = np.memmap(path, dtype=kind, mode="r", offset=first.dataoffset, shape=shape)
        return shape, mapped(values).load

    def load(window: Window) -> Values:
        with _as_value_error():
            if len(shape) != 3 or len(pages) != shape[0]:
                return np.array(first.asarray()[window])
            planes = pages[window[0]]
            values = np.empty([w.stop - w.start for w in window], dtype=first.dtype)
            for plane, page in zip(values, planes, strict=True):
                plane[...] = page.asarray()[window[1:]]
            return values

    return shape, load


def _check_directories(tif: tifffile.TiffFile) -> None:
    """Raise when the chain of pages or the data of a page leaves the file, which tifffile does not tell."""
    layout, handle, size = tif.tiff, tif.filehandle, tif.filehandle.size
    handle.seek(8 if layout.is_bigtiff else 4)
    offset, pages = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))[0], 0
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise ValueError(f"damaged TIFF: page {pages} is one before it, at byte {offset}")
        seen.add(offset)
        count = layout.tagnosize
        if offset + count <= size:
            handle.seek(offset)
            tags = struct.unpack(layout.tagnoformat, handle.read(count))[0]
            count += tags * layout.tagsize
            if offset + count <= size:
                _check_tags(tif, handle.read(tags * layout.tagsize), pages)
        if offset + count + layout.offsetsize > size:
            raise ValueError(f"truncated TIFF: page {pages} begins at byte {offset}, the file has {size}")
        handle.seek(offset + count)
        offset, pages = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))[0], pages + 1
    if pages == 0:
        raise ValueError("truncated TIFF: no page found")
    for number, page in enumerate(tif.pages):
        end = max((a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
        if end > size:
            raise ValueError(f"truncated TIFF: page {number} ends at byte {end}, the file has {size}")


def _check_tags(tif: tifffile.TiffFile, entries: bytes, page: int) -> None:
    """Raise when the value of a tag leaves the file: the metadata may be what a truncated file has lost."""
    layout, size = tif.tiff, tif.filehandle.size
    for start in range(0, len(entries), layout.tagsize):
        entry = entries[start : start + layout.tagsize]
        code, kind = struct.unpack(tif.byteorder + "HH", entry[:4])
        number, offset = struct.unpack(f"{tif.byteorder}2{layout.offsetformat[-1]}", entry[4:])
        length = number * _TAG_BYTES.get(kind, 0)
        if length > layout.offsetsize and offset + length > size:
            raise ValueError(
                f"truncated TIFF: tag {code} of page {page} ends at byte {offset + length} of {size}"
            )


def length(value: Any, unit: str) -> float | None:
    """Length in metres, its decimal digits kept; None when it is no positive length."""
    exponent = _UNITS.get(unit.strip().lower())
    with contextlib.suppress(ArithmeticError, ValueError, TypeError):
        if exponent is not None and float(value) > 0:
            return float(Decimal(str(value)).scaleb(exponent))
    return None


def _tiff_voxel_size(tif: tifffile.TiffFile, dim: int) -> tuple[float, ...] | None:
    """Voxel size along each array axis from OME, ImageJ or the resolution tags; None if not stated."""
    tags = tif.pages.first.tags
    ratios = [tags[name].value if name in tags else (0, 0) for name in ("YResolution", "XResolution")]
    pixel = [float(f"{den / num:.9g}") if num else None for num, den in ratios]  # per unit of the resolution
    sides: list[float | None]  # z, y, x
    if tif.is_ome and tif.ome_metadata:
        pixels = ElementTree.fromstring(tif.ome_metadata).find(".//{*}Pixels")
        known: dict[str, str] = {} if pixels is None else dict(pixels.attrib)
        sides = [
            length(known.get(f"PhysicalSize{c}"), known.get(f"PhysicalSize{c}Unit", "µm")) for c in "ZYX"
        ]
    elif tif.is_imagej and tif.imagej_metadata:
        unit = str(tif.imagej_metadata.get("unit", ""))
        sides = [length(value, unit) for value in (tif.imagej_metadata.get("spacing"), *pixel)]
    else:
        centimetres = {2: 2.54, 3: 1.0}.get(
            int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 0
        )
        sides = [None, *(h and centimetres and length(f"{h * centimetres:.9g}", "cm") for h in pixel)]
        if any(h is not None and h > 0.0254 / FINEST_PRINT for h in sides):
            return None
    if sides[0] is None and sides[1] == sides[2]:
        sides[0] = sides[1]  # only the size in the plane is known: the scan is taken for isotropic
    stated = tuple(h for h in sides[-dim:] if h is not None)
    return stated if len(stated) == dim else None


def write_tiff(file: BinaryIO, labels: npt.NDArray[Any], voxel_size: Sequence[float]) -> None:
    """Write labels, deflated, with their voxel size as OME metadata.

    Raises:
        ValueError: Labels that do not fit 32 bits.
    """
    low, high = int(labels.min()), int(labels.max())
    kind = np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
    if kind.itemsize > 4:
        raise ValueError(f"labels from {low} to {high}: expected labels that fit 32 bits")
    metadata: dict[str, Any] = {"axes": "ZYX"[-labels.ndim :], "Creator": "fetopo"}
    # tifffile would put time and machine into it; the same image shall give the same file.
    metadata["UUID"] = str(
        uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(labels.astype(kind).tobytes()).hexdigest())
    )
    for axis, side in zip(metadata["axes"], voxel_size, strict=True):
        metadata[f"PhysicalSize{axis}"] = format(Decimal(repr(side)).scaleb(6), "f")
        metadata[f"PhysicalSize{axis}Unit"] = "µm"
    tifffile.imwrite(
        file,
        labels.astype(kind),
        ome=True,
        photometric="minisblack",
        compression="zlib",
        software="fetopo",
        metadata=metadata,
    )
