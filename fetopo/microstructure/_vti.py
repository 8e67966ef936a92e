"""VTK ImageData files (.vti): voxels as cells, array axes (z, y, x), spacing in metres. Writing needs VTK."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from fetopo.microstructure._tiff import length
from fetopo.microstructure._vtkxml import VtkFile, array_reader, parse
from fetopo.microstructure._window import Source, Values, Window, check_shape

logger = logging.getLogger(__name__)

UNIT = "length_unit"
"""Field data that says what the spacing is measured in; VTK itself has no units."""

DATA = ("CellData", "PointData")

COARSEST = 1.0e-3
"""A spacing from here on, without a unit in the file, counts voxels (or micrometres) rather than metres."""


def _vtk() -> tuple[Any, Any, Any, Any]:
    """VTK's modules, imported only for files of this kind."""
    try:
        from vtkmodules import vtkCommonCore, vtkCommonDataModel, vtkIOXML
        from vtkmodules.util import numpy_support
    except ImportError as error:
        raise ImportError("writing .vti files needs VTK: install fetopo[images]") from error
    return vtkCommonCore, vtkCommonDataModel, vtkIOXML, numpy_support


def open_vti(path: Path, name: str | None) -> Source:
    """Source of a cell array, or of a point array where there is none.

    Rows are read as they are asked for, of compressed arrays the blocks they lie in.

    Raises:
        ValueError: Truncated or damaged file, or no array of that name.
    """
    file = parse(path)
    image = file.root.find("ImageData")
    if image is None:
        raise ValueError("no VTK ImageData: expected an XML file of type ImageData")
    extent = _numbers(image, "WholeExtent", 6)
    pieces = image.findall("Piece")
    if not pieces:
        raise ValueError("no readable VTI: it has no piece")
    cells, points = ([str(a.get("Name")) for a in pieces[0].findall(f"{d}/DataArray")] for d in DATA)
    names, on_cells = (cells, 1) if cells and (name is None or name in cells) else (points, 0)
    if name is None:
        name = "labels" if "labels" in names else names[0] if len(names) == 1 else None
    if name not in names:
        raise ValueError(
            f"array {name or 'not named'}: expected one of {', '.join(cells + points) or 'none found'}"
        )
    dim = 2 if extent[4] == extent[5] else 3
    shape = _shape(extent, dim, on_cells)
    check_shape(shape)
    parts: list[tuple[Window, Any, Any]] = []
    for piece in pieces:
        own = _numbers(piece, "Extent", 6)
        if any(own[k] < extent[k] or own[k + 1] > extent[k + 1] for k in (0, 2, 4)):
            raise ValueError(f"no readable VTI: a piece of extent {own} in an image of extent {extent}")
        size = _shape(own, dim, on_cells)
        arrays = [a for a in piece.findall(f"{DATA[1 - on_cells]}/DataArray") if a.get("Name") == name]
        if not arrays:
            raise ValueError(f"array {name} is not in every piece")
        start = [own[2 * a] - extent[2 * a] for a in reversed(range(dim))]
        window = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        if 0 not in size:
            parts.append((window, *array_reader(file, arrays[0], math.prod(size))))
    if not parts or (len(parts) == 1 and tuple(w.stop - w.start for w in parts[0][0]) != shape):
        raise ValueError(f"no readable VTI: its pieces do not fill the extent {extent}")

    def load(window: Window) -> Values:
        values = np.empty([w.stop - w.start for w in window], dtype=parts[0][1].newbyteorder("="))
        known = None if len(parts) == 1 else np.zeros(values.shape, dtype=bool)
        for place, _, read in parts:
            common = tuple(
                slice(max(p.start, w.start), min(p.stop, w.stop)) for p, w in zip(place, window, strict=True)
            )
            if any(c.start >= c.stop for c in common):
                continue
            size = [p.stop - p.start for p in place]
            plane = math.prod(size[1:])
            first, last = (k - place[0].start for k in (common[0].start, common[0].stop))
            rows = np.reshape(read(first * plane, last * plane), (last - first, *size[1:]))
            there = _within(common, window)
            values[there] = rows[(slice(None), *_within(common, place)[1:])]
            if known is not None:
                known[there] = True
        if known is not None and not known.all():
            raise ValueError(f"no readable VTI: its pieces do not fill the extent {extent}")
        return values

    return Source(shape, load, _spacing(file, image, dim))


def _within(part: Window, window: Window) -> Window:
    """A part of an image as a part of a window that holds it."""
    return tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, window, strict=True))


def _shape(extent: Sequence[int], dim: int, on_cells: int) -> tuple[int, ...]:
    """Voxels along each axis, slowest first: cells, or points where the values are theirs."""
    return tuple(extent[2 * a + 1] - extent[2 * a] + 1 - on_cells for a in reversed(range(dim)))


def _numbers(element: Any, key: str, count: int) -> list[int]:
    """Whole numbers of an attribute.

    Raises:
        ValueError: Not as many as expected, or no extent.
    """
    text = str(element.get(key))
    try:
        found = [int(part) for part in text.split()]
    except ValueError:
        found = []
    if len(found) != count or any(a > b for a, b in zip(found[::2], found[1::2], strict=True)):
        raise ValueError(f"no readable VTI: {key} is {text!r}, expected {count} numbers in pairs")
    return found


def _spacing(file: VtkFile, image: Any, dim: int) -> tuple[float, ...] | None:
    """Sides of a voxel in metres, slowest axis first; None where the file states none."""
    text = str(image.get("Spacing", "1 1 1"))
    try:
        spacing = [float(part) for part in text.split()][:dim][::-1]
    except ValueError:
        spacing = []
    if len(spacing) != dim:
        raise ValueError(f"no readable VTI: Spacing is {text!r}, expected three numbers")
    unit = next((a for a in image.findall("FieldData/Array") if a.get("Name") == UNIT), None)
    if unit is not None:
        sides = [length(h, _text(file, unit)) for h in spacing]
        return None if None in sides else tuple(h for h in sides if h is not None)
    if all(0 < h < COARSEST for h in spacing):
        return tuple(spacing)
    logger.info("spacing %s without a unit is not taken for metres", spacing)
    return None


def _text(file: VtkFile, array: Any) -> str:
    """The first text of an array of texts: the bytes up to a zero. Short, and no more than its bytes say."""
    for size in range(1, 17):
        copy = ElementTree.Element("DataArray", {**array.attrib, "type": "UInt8", "NumberOfComponents": "1"})
        copy.text = array.text
        try:
            _, read = array_reader(file, copy, size)
        except ValueError:
            continue
        return bytes(read(0, size)).split(b"\0")[0].decode("utf-8", "replace")
    raise ValueError(f"no readable VTI: array {UNIT} is damaged")


def write_vti(path: Path, labels: Values, voxel_size: Sequence[float]) -> None:
    """Write labels as the cell array `labels`, compressed, with their voxel size as spacing in metres.

    Raises:
        ImportError: VTK is not installed.
        OSError: VTK could not write the file.
    """
    core, model, xml, support = _vtk()
    image = model.vtkImageData()
    flat = labels.ndim == 2
    image.SetDimensions(*(n + 1 for n in labels.shape[::-1]), *([1] if flat else []))
    image.SetSpacing(*voxel_size[::-1], *([min(voxel_size)] if flat else []))
    data = support.numpy_to_vtk(np.ascontiguousarray(labels).ravel(), deep=True)
    data.SetName("labels")
    image.GetCellData().SetScalars(data)
    unit = core.vtkStringArray()
    unit.SetName(UNIT)
    unit.InsertNextValue("m")
    image.GetFieldData().AddArray(unit)
    writer = xml.vtkXMLImageDataWriter()
    writer.SetInputData(image)
    writer.SetFileName(str(path))
    writer.SetHeaderTypeToUInt64()
    if writer.Write() != 1 or writer.GetErrorCode():
        raise OSError(f"{path}: VTK could not write it (code {writer.GetErrorCode()})")
