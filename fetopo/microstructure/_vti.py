"""VTK ImageData files (.vti): voxels as cells, array axes (z, y, x), spacing in metres. Needs VTK."""

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fetopo.microstructure._tiff import length
from fetopo.microstructure._window import Source, Values, Window, check_shape

logger = logging.getLogger(__name__)

UNIT = "length_unit"
"""Field data that says what the spacing is measured in; VTK itself has no units."""

COARSEST = 1.0e-3
"""A spacing from here on, without a unit in the file, counts voxels (or micrometres) rather than metres."""


def _vtk() -> tuple[Any, Any, Any, Any]:
    """VTK's modules, imported only for files of this kind."""
    try:
        from vtkmodules import vtkCommonCore, vtkCommonDataModel, vtkIOXML
        from vtkmodules.util import numpy_support
    except ImportError as error:
        raise ImportError(".vti files need VTK: install fetopo[images]") from error
    return vtkCommonCore, vtkCommonDataModel, vtkIOXML, numpy_support


@contextlib.contextmanager
def _caught(core: Any, problems: list[str]) -> Iterator[None]:
    """Errors that any part of VTK has to tell, kept for an exception instead of standard error."""
    shown, window = core.vtkOutputWindow.GetInstance(), core.vtkStringOutputWindow()
    core.vtkOutputWindow.SetInstance(window)
    try:
        yield
    finally:
        core.vtkOutputWindow.SetInstance(shown)
        if "err" in window.GetOutput().lower():
            problems.append(window.GetOutput())
            logger.debug("VTK: %s", window.GetOutput())


def _check_complete(path: Path) -> None:
    """Raise unless the file begins and ends as VTK's XML files do: its reader fills gaps without a word."""
    with open(path, "rb") as file:
        head = file.read(1000)
        file.seek(max(0, path.stat().st_size - 100))
        tail = file.read()
    if b"<VTKFile" not in head or b"ImageData" not in head:
        raise ValueError("no VTK ImageData: expected an XML file of type ImageData")
    if not tail.rstrip().endswith(b"</VTKFile>"):
        raise ValueError("truncated VTI: expected </VTKFile> at its end")


def open_vti(path: Path, name: str | None) -> Source:
    """Source of a cell array, or of a point array where there is none; VTK reads the extent asked for.

    Raises:
        ImportError: VTK is not installed.
        ValueError: Truncated file, or no array of that name.
    """
    _check_complete(path)
    core, model, xml, support = _vtk()
    reader = xml.vtkXMLImageDataReader()
    problems: list[str] = []
    reader.SetFileName(str(path))
    with _caught(core, problems):
        reader.UpdateInformation()
    if problems or reader.GetErrorCode():
        raise ValueError("no readable VTI: expected what VTK writes as ImageData")
    extent = [int(e) for e in reader.GetOutputInformation(0).Get(reader.GetExecutive().WHOLE_EXTENT())]
    cells = [reader.GetCellArrayName(k) for k in range(reader.GetNumberOfCellArrays())]
    points = [reader.GetPointArrayName(k) for k in range(reader.GetNumberOfPointArrays())]
    names, on_cells = (cells, 1) if cells and (name is None or name in cells) else (points, 0)
    if name is None:
        name = "labels" if "labels" in names else names[0] if len(names) == 1 else None
    if name not in names:
        raise ValueError(
            f"array {name or 'not named'}: expected one of {', '.join(cells + points) or 'none found'}"
        )
    nodes = [b - a + 1 for a, b in zip(extent[::2], extent[1::2], strict=True)]
    dim = 2 if nodes[2] == 1 else 3
    shape = tuple(n - on_cells for n in nodes[:dim])[::-1]
    check_shape(shape)
    selections = reader.GetPointDataArraySelection(), reader.GetCellDataArraySelection()
    for selection in selections:
        selection.DisableAllArrays()
    voxel_size = _spacing(reader, model, extent, dim)
    selections[on_cells].EnableArray(name)

    def load(window: Window) -> Values:
        part = list(extent)
        for axis, w in enumerate(window[::-1]):
            part[2 * axis : 2 * axis + 2] = (extent[2 * axis] + k for k in (w.start, w.stop - 1 + on_cells))
        with _caught(core, problems):
            reader.UpdateExtent(part)
        image = reader.GetOutput()
        data = (image.GetCellData() if on_cells else image.GetPointData()).GetArray(name)
        wanted = tuple(w.stop - w.start for w in window)
        if problems or reader.GetErrorCode() or data is None:
            raise ValueError(f"no readable VTI: array {name} is damaged")
        found = data.GetNumberOfTuples(), data.GetNumberOfComponents()
        if found != (math.prod(wanted), 1):
            raise ValueError(
                f"array {name} has {found[0]} values of {found[1]} components: expected "
                f"{math.prod(wanted)} of one"
            )
        return np.array(support.vtk_to_numpy(data)).reshape(wanted)

    return Source(shape, load, voxel_size)


def _spacing(reader: Any, model: Any, extent: list[int], dim: int) -> tuple[float, ...] | None:
    """Sides of a voxel in metres, slowest axis first; None where the file states none."""
    spacing = reader.GetOutputInformation(0).Get(model.vtkDataObject.SPACING())[:dim][::-1]
    reader.UpdateExtent(
        [e for a, b in zip(extent[::2], extent[1::2], strict=True) for e in (a, min(a + 1, b))]
    )
    unit = reader.GetOutput().GetFieldData().GetAbstractArray(UNIT)
    if unit is not None:
        sides = [length(h, str(unit.GetValue(0))) for h in spacing]
        return None if None in sides else tuple(h for h in sides if h is not None)
    if all(0 < h < COARSEST for h in spacing):
        return tuple(float(h) for h in spacing)
    logger.info("spacing %s without a unit is not taken for metres", spacing)
    return None


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
