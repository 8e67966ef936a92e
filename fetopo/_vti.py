"""Fields on a regular grid as VTK ImageData, without VTK."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from fetopo._paths import replacing

_TYPES = {"f4": "Float32", "f8": "Float64", "u1": "UInt8", "i4": "Int32"}


def write_voxel_fields(
    path: Path, fields: Mapping[str, npt.NDArray | None], voxel_size: Sequence[float]
) -> None:
    """Write one value per voxel and field; axis 0 of the arrays is x.

    Args:
        path: file, `.vti`.
        fields: arrays of one shape, in 2D or 3D, of real numbers, bytes or 32-bit integers; with one more
            axis at the end, of vectors. None is left out.
        voxel_size: sides of a voxel in metres, one per axis.
    """
    dim = len(voxel_size)
    arrays = {name: values for name, values in fields.items() if values is not None}
    shape = next(iter(arrays.values())).shape[:dim]
    extent = " ".join(f"0 {n}" for n in (*shape, *[1] * (3 - dim)))
    # A plane gets a thickness, so that its pixels are cells.
    spacing = " ".join(repr(float(h)) for h in (*voxel_size, *[min(voxel_size)] * (3 - dim)))
    lines, blocks, offset = [], [], 0
    for name, values in arrays.items():
        kind = _TYPES[values.dtype.str[1:]]
        parts = values.shape[dim] if values.ndim > dim else 1
        # x runs fastest, after the components of a vector.
        data = np.ascontiguousarray(values.reshape(*shape, parts).transpose(*range(dim)[::-1], dim))
        if 1 < parts < 3:
            data = np.concatenate([data, np.zeros_like(data[..., :1])], axis=-1)
            parts = 3
        lines.append(
            f'<DataArray type="{kind}" Name={quoteattr(name)} NumberOfComponents="{parts}" '
            f'format="appended" offset="{offset}"/>'
        )
        blocks += [np.uint64(data.nbytes).tobytes(), data.tobytes()]
        offset += 8 + data.nbytes
    head = (
        '<?xml version="1.0"?>\n'
        f'<VTKFile type="ImageData" version="1.0" byte_order="{sys.byteorder.capitalize()}Endian" '
        'header_type="UInt64">\n'
        f'<ImageData WholeExtent="{extent}" Origin="0 0 0" Spacing="{spacing}">\n'
        f'<Piece Extent="{extent}"><CellData>\n' + "\n".join(lines) + "\n</CellData></Piece>\n"
        '</ImageData>\n<AppendedData encoding="raw">\n_'
    )
    with replacing(path) as part, part.open("wb") as file:
        file.write(head.encode())
        for block in blocks:
            file.write(block)
        file.write(b"\n</AppendedData>\n</VTKFile>\n")
