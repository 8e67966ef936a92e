"""VTK's XML files: their elements, and the bytes of their arrays, every size checked before it is believed.

Read here rather than by VTK, which fills gaps without a word and can end the process over a damaged file.
"""

from __future__ import annotations

import base64
import binascii
import lzma
import math
import mmap
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from fetopo.microstructure._window import Values

TYPES = {
    f"{name}{bits}": f"{code}{bits // 8}"
    for name, code in (("Int", "i"), ("UInt", "u"), ("Float", "f"))
    for bits in (8, 16, 32, 64)
    if code != "f" or bits >= 32
}
COMPRESSORS = ("", "vtkZLibDataCompressor", "vtkLZ4DataCompressor", "vtkLZMADataCompressor")


@dataclass(frozen=True)
class VtkFile:
    """The elements of a file, and its appended data.

    Args:
        root: The element VTKFile; what is appended is not in it.
        appended: Bytes after the underscore, b"" where nothing is appended.
        encoded: Whether they are in base64.
    """

    root: Any
    appended: memoryview
    encoded: bool

    @property
    def order(self) -> str:
        """Byte order as NumPy writes it."""
        return ">" if self.root.get("byte_order") == "BigEndian" else "<"


def parse(path: Path) -> VtkFile:
    """Elements and appended data of a file.

    Raises:
        ValueError: No complete XML file of VTK's.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    # The map goes when the last view of it does.
    if b"<VTKFile" not in content[:1000]:
        raise ValueError("no VTK ImageData: expected an XML file of type ImageData")
    if not content[max(0, size - 100) :].rstrip().endswith(b"</VTKFile>"):
        raise ValueError("truncated VTI: expected </VTKFile> at its end")
    start = content.find(b"<AppendedData")
    text, appended, encoding = content[:], memoryview(b""), "raw"
    if start >= 0:
        mark = content.find(b"_", content.find(b">", start))
        end = content.rfind(b"</AppendedData")
        if not start < mark < end:
            raise ValueError("no readable VTI: its appended data have no beginning or no end")
        head = content[start : content.find(b">", start)]
        encoding = "base64" if b"base64" in head else "raw"
        text, appended = content[:start] + b"</VTKFile>", memoryview(content)[mark + 1 : end]
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"no readable VTI: {error}") from None
    compressor = root.get("compressor", "")
    if compressor not in COMPRESSORS:
        raise ValueError(
            f"no readable VTI: compressor {compressor}, expected one of {', '.join(COMPRESSORS)}"
        )
    return VtkFile(root, appended, encoding == "base64")


def array_reader(file: VtkFile, array: Any, count: int) -> tuple[np.dtype[Any], Callable[[int, int], Values]]:
    """Type of an array's values, and what reads those from one number to another (excluded).

    Args:
        file: The file.
        array: The element DataArray.
        count: How many values there have to be.

    Raises:
        ValueError: Another number of values, sizes that cannot be, an unknown type.
    """
    name, kind = array.get("Name"), array.get("type", "")
    if kind not in TYPES:
        raise ValueError(f"array {name} has type {kind or 'missing'}: expected one of {', '.join(TYPES)}")
    if int(array.get("NumberOfComponents", "1")) != 1:
        raise ValueError(f"array {name} has {array.get('NumberOfComponents')} components: expected one")
    dtype = np.dtype(file.order + TYPES[kind])
    form = array.get("format", "ascii")
    if form == "ascii":
        try:
            values = np.array((array.text or "").split(), dtype=object).astype(dtype)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"array {name} is not {kind} throughout: {error}") from None
        if values.size != count:
            raise ValueError(f"array {name} has {values.size} values: expected {count}")
        return dtype, lambda a, b: values[a:b]
    if form not in ("binary", "appended"):
        raise ValueError(f"array {name} has format {form}: expected ascii, binary or appended")
    inline = form == "binary"
    data = memoryview((array.text or "").strip().encode()) if inline else file.appended
    offset = 0 if inline else int(array.get("offset", "-1"))
    if not 0 <= offset < max(1, len(data)):
        raise ValueError(f"array {name} begins at byte {offset} of {len(data)}")
    stream = _Stream(data[offset:], inline or file.encoded, f"array {name}")
    read = _compressed if file.root.get("compressor") else _plain
    part = read(stream, file, count * dtype.itemsize)
    return dtype, lambda a, b: np.frombuffer(part(a * dtype.itemsize, b * dtype.itemsize), dtype=dtype)


Bytes = Callable[[int, int], bytes]


class _Stream:
    """Bytes from some place on, in base64 or as they are."""

    def __init__(self, data: memoryview, encoded: bool, what: str) -> None:
        self.data, self.encoded, self.what = data, encoded, what

    def get(self, start: int, size: int) -> bytes:
        """Bytes of one encoded piece."""
        if start + size > len(self.data):
            raise ValueError(f"{self.what} ends early: {len(self.data)} bytes, expected {start + size}")
        if not self.encoded:
            found = bytes(self.data[start : start + size])
        else:
            first = start // 3 * 4
            text = bytes(self.data[first : (start + size + 2) // 3 * 4])
            try:
                found = base64.b64decode(text, validate=True)[start % 3 : start % 3 + size]
            except binascii.Error as error:
                raise ValueError(f"{self.what} is no base64: {error}") from None
        if len(found) != size:
            raise ValueError(f"{self.what} ends early: {len(found)} bytes, expected {size}")
        return found

    def after(self, size: int) -> _Stream:
        """What follows an encoded piece of so many bytes."""
        return _Stream(self.data[(size + 2) // 3 * 4 if self.encoded else size :], self.encoded, self.what)

    def numbers(self, file: VtkFile, start: int, count: int) -> list[int]:
        """Whole numbers of a header."""
        kind = np.dtype(file.order + ("u8" if file.root.get("header_type") == "UInt64" else "u4"))
        found = self.get(start * kind.itemsize, count * kind.itemsize)
        return [int(n) for n in np.frombuffer(found, dtype=kind)]


def _width(file: VtkFile) -> int:
    return 8 if file.root.get("header_type") == "UInt64" else 4


def _plain(stream: _Stream, file: VtkFile, expected: int) -> Bytes:
    """Bytes of an array that is not compressed: their number, then they."""
    (size,) = stream.numbers(file, 0, 1)
    if size != expected:
        raise ValueError(f"{stream.what} has {size} bytes: expected {expected}")
    stream.get(_width(file) + size - 1, 1)  # the last one is there
    return lambda start, stop: stream.get(_width(file) + start, stop - start)


def _compressed(stream: _Stream, file: VtkFile, expected: int) -> Bytes:
    """Bytes of an array in blocks: how many, the size of one and of the last, what each is packed to."""
    blocks, size, rest = stream.numbers(file, 0, 3)
    whole = (blocks - 1) * size + (rest or size)
    # So many bytes cannot be packed into a block of one: more blocks than bytes are no header.
    if blocks < 1 or size < 1 or rest > size or whole != expected or blocks > max(1, len(stream.data)):
        raise ValueError(
            f"{stream.what} has {blocks} blocks of {size} bytes, the last of {rest}: expected {expected}"
        )
    packed = stream.numbers(file, 3, blocks)
    ends = list(accumulate(packed, initial=0))
    body = stream.after((3 + blocks) * _width(file))
    body.get(max(0, ends[-1] - 1), 1)
    method = file.root.get("compressor")

    def part(start: int, stop: int) -> bytes:
        found = []
        first, last = start // size, math.ceil(stop / size)
        for k in range(first, last):
            length = rest if rest and k == blocks - 1 else size
            found.append(_unpacked(body.get(ends[k], packed[k]), length, method, f"{stream.what}, block {k}"))
        return b"".join(found)[start - first * size : stop - first * size]

    return part


def _unpacked(data: bytes, size: int, method: str | None, what: str) -> bytes:
    """A block as it was before it was packed; no more memory than its size is taken."""
    try:
        if method == "vtkZLibDataCompressor":
            found = zlib.decompressobj().decompress(data, size)
        elif method == "vtkLZMADataCompressor":
            found = lzma.LZMADecompressor().decompress(data, size)
        else:
            from imagecodecs import lz4_decode

            found = bytes(lz4_decode(data, out=size))
    except (zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise ValueError(f"{what} is damaged: {error}") from None
    if len(found) != size:
        raise ValueError(f"{what} is damaged: {len(found)} bytes, expected {size}")
    return found
