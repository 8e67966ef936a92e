"""The images of the voxel benchmarks, by name: `nmc@200` is the centred 200³ crop, `field@64` generated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

#: File, its label of the conducting phase (fibre grey levels: None), keywords for reading.
FILES = {
    "nmc": ("nmc_electrode.tif", 0, {}),
    "electrode": ("electrode_three_phase.tiff", 0, {}),
    "bentheimer": ("bentheimer_sandstone.npz", 1, {}),
    "berea": ("berea_200x200x200_uint8.raw", 0, {"shape": (200, 200, 200), "dtype": "uint8"}),
    "ketton": ("ketton_carbonate.tif", 0, {}),
    "fiberform": ("fiberform_grey.tif", None, {}),
    "cast iron": ("cast_iron_100x100x100_uint8.raw", 87, {"shape": (100, 100, 100), "dtype": "uint8"}),
    "joss": ("taufactor_joss_500.npz", 1, {}),
}
#: Largest cube in the file.
SIDES = {
    "nmc": 251, "electrode": 256, "bentheimer": 500, "berea": 200, "ketton": 256, "fiberform": 100,
    "cast iron": 100, "joss": 500,
}  # fmt: skip
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def available(name: str, data: str | Path = DATA) -> bool:
    """Whether the image can be had: the file is there, or it is generated."""
    kind = name.split("@")[0]
    return kind not in FILES or (Path(data) / FILES[kind][0]).exists()


def mask(name: str, data: str | Path = DATA) -> npt.NDArray[np.bool_]:
    """The conducting phase of an image: `kind` or `kind@side`, the kind one of FILES, `field` or `noise`.

    Args:
        name: of the image.
        data: folder of the files.
    Returns:
        Boolean array, C order. A crop larger than the file is tiled from it.
    Raises:
        ValueError: The name says nothing.
    """
    from fetopo.microstructure import image

    kind, _, side = name.partition("@")
    n = int(side) if side else None
    if kind in ("field", "noise"):
        if n is None:
            raise ValueError(f"{name}: a generated image needs its side, {kind}@64")
        values = coefficient(kind, n)
        return values > np.median(values)
    if kind not in FILES:
        raise ValueError(
            f"{name}: the image must be one of {[*FILES, 'field', 'noise']}, with @side or without"
        )
    file, label, how = FILES[kind]
    path = Path(data) / file
    times = 1
    if n is not None and n > SIDES[kind]:
        times = -(-n // SIDES[kind])
    crop = None if n is None else n // times
    if label is None:
        found = image.read_grey(path, crop=crop).values < 90
    else:
        found = image.read(path, crop=crop, **how).labels == label
    if times > 1:
        found = np.tile(found, (times,) * found.ndim)
    return np.ascontiguousarray(found)


def coefficient(kind: str, n: int) -> npt.NDArray[np.float32]:
    """A periodic n³ field with values in [0, 1]: `noise` uniform and white, `field` smooth over 16 voxels.

    Waves are summed rather than transformed: the memory of generating stays small beside that of solving.
    """
    rng = np.random.default_rng(0)
    if kind == "noise":
        return rng.random((n, n, n), dtype=np.float32)
    found = np.zeros((n, n, n), np.float32)
    x = 2 * np.pi * np.arange(n, dtype=np.float32) / n
    highest = max(n // 16, 1)
    for _ in range(48):
        k = rng.integers(-highest, highest + 1, 3)
        # cos(a + b + c) as a sum of products of one-dimensional arrays
        a, b, c = (
            np.exp(1j * (k[0] * x + rng.uniform(0, 2 * np.pi))),
            np.exp(1j * k[1] * x),
            np.exp(1j * k[2] * x),
        )
        plane = np.multiply.outer(b, c)
        for i in range(n):
            found[i] += (a[i] * plane).real.astype(np.float32)
    found -= found.min()
    found /= found.max()
    return found
