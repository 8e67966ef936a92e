"""Pairs of voxels by their distance: exact counts for a radial average, in little more memory than the image.

The counts of all lags of a large image would fill many times its memory. A radial average needs less. With
the last axis transformed, the correlation over the other axes is one problem for each frequency k,

    C(h', k) = Σ_x' conj f(x', k) g(x' + h', k),   h = (h', l), l the lag along the last axis

and all h' of one length |h'| fall into the same bins for every l. Their sum over h' is kept, real because it
holds h' and −h', and transformed back: integers again, once divided by the number of values.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt
from scipy import fft

from fetopo.microstructure.descriptors._common import Counts, Field, along, half_reach
from fetopo.microstructure.image import Mask

BATCH = 2**20
"""Complex numbers of 16 bytes that are transformed over all axes but the last at once, or thereabouts."""
COLUMNS = 2**21
"""The least number of them that is kept of the transform along the last axis; more for large images."""


def radial_limits(shape: Sequence[int], sides: Sequence[float]) -> list[int]:
    """Largest lag along each axis, in voxels, that a radial average up to half of the image needs."""
    reach = half_reach(shape, sides)
    return [min(int(reach / h * (1.0 + 1e-12)), (n - 1) // 2) for n, h in zip(shape, sides, strict=True)]


def radial_pairs(
    masks: Sequence[Mask], sides: Sequence[float], periodic: bool
) -> tuple[Field, Field, dict[tuple[int, int], Field]]:
    """Pairs of voxels in bins of their distance, counted exactly, for every two of some phases.

    Bin k holds the lag vectors with k ≤ |h|/min(sides) < k + 1, as far as all of them are within half of the
    smallest side of the image.

    Args:
        masks: The phases.
        sides: Sides of a voxel [m].
        periodic: The image is a periodic cell.

    Returns:
        Per bin the mean length of its lags [m] (weighted by the pairs in the image), the number of pairs of
        voxels of the image, and for (i, j), i ≤ j, the mean of the number of pairs with x in i and x + h in j
        and of that with x in j and x + h in i.
    """
    shape = masks[0].shape
    limits, step = radial_limits(shape, sides), min(sides)
    bins = int(min((m + 1) * h for m, h in zip(limits, sides, strict=True)) / step * (1.0 + 1e-12))
    square, group, circle = _circles(limits[:-1], sides[:-1], shape[:-1], periodic)
    sums = _sums(masks, limits, periodic, group, square.size)
    lags = np.arange(limits[-1] + 1)
    # Lag l along the last axis stands for −l too.
    weight = np.where(lags > 0, 2.0, 1.0)
    free = weight * (shape[-1] - (0 if periodic else 1) * lags)
    pairs, lengths = np.zeros(bins), np.zeros(bins)
    inside = {pair: np.zeros(bins) for pair in sums}
    size = _padded(shape, limits, periodic)[-1]
    others = math.prod(_padded(shape, limits, periodic)[:-1])
    for start in range(0, square.size, max(1, BATCH // size)):
        part = slice(start, start + max(1, BATCH // size))
        r = np.sqrt(square[part, None] + (lags * sides[-1]) ** 2)
        every = (r / step * (1.0 + 1e-12)).astype(np.int64)
        near = every < bins
        index, here = every[near], (circle[part, None] * free)[near]
        pairs += np.bincount(index, here, bins)
        lengths += np.bincount(index, here * r[near], bins)
        for pair, total in sums.items():
            counts = np.rint(fft.irfft(total[:, part].T, n=size)[:, : lags.size] * (2.0 / others)) / 2.0
            inside[pair] += np.bincount(index, (counts * weight)[near], bins)
    known = pairs > 0
    return lengths[known] / pairs[known], pairs[known], {pair: n[known] for pair, n in inside.items()}


def _padded(shape: Sequence[int], limits: Sequence[int], periodic: bool) -> list[int]:
    """Shape of the transforms: large enough that no lag up to the limits wraps where the image does not."""
    if periodic:
        return list(shape)
    return [fft.next_fast_len(n + m, real=True) for n, m in zip(shape, limits, strict=True)]


def _circles(
    limits: Sequence[int], sides: Sequence[float], shape: Sequence[int], periodic: bool
) -> tuple[Field, Counts, Field]:
    """Lengths of the lags h' ≥ 0 along all axes but the last.

    Returns:
        The squares |h'|² that occur [m²], for every h' which of them is its own, and for each of them the sum
        over the h' of either sign of the number of pairs of voxels in the image (in 1 or 2 dimensions).
    """
    dim = len(limits)
    lags = [np.arange(m + 1) for m in limits]
    squares = sum(along((lag * h) ** 2, a, dim) for a, (lag, h) in enumerate(zip(lags, sides, strict=True)))
    # Squares that differ by round-off only are one.
    unit = min(sides) ** 2
    keys, group = np.unique(np.rint(np.asarray(squares).ravel() / unit * 1e9), return_inverse=True)
    free = [
        np.where(lag > 0, 2.0, 1.0) * (n - (0 if periodic else 1) * lag)
        for n, lag in zip(shape, lags, strict=True)
    ]
    overlap = math.prod(along(f, a, dim) for a, f in enumerate(free))
    total = np.bincount(group.ravel(), np.asarray(overlap).ravel(), keys.size)
    return np.asarray(keys / 1e9 * unit), group.ravel().astype(np.int64), np.asarray(total)


def _sums(
    masks: Sequence[Mask], limits: Sequence[int], periodic: bool, group: Counts, groups: int
) -> dict[tuple[int, int], Field]:
    """For every two phases the correlation summed over the lags h' of a length, by frequency and length."""
    padded = _padded(masks[0].shape, limits, periodic)
    frequencies = padded[-1] // 2 + 1
    pairs = list(combinations_with_replacement(range(len(masks)), 2))
    sums: dict[tuple[int, int], Field] = {pair: np.zeros((frequencies, groups)) for pair in pairs}
    batch = max(1, BATCH // math.prod(padded[:-1]))
    for start, columns in _columns(masks, padded[-1]):
        for first in range(0, columns[0].shape[-1], batch):
            spectra = [_transformed(part[..., first : first + batch], padded[:-1]) for part in columns]
            for i, j in pairs:
                one, other = spectra[i], spectra[j]
                folded = _folded(one.real * other.real + one.imag * other.imag, limits[:-1])
                for k in range(folded.shape[-1]):
                    column = folded[..., k].ravel()
                    sums[i, j][start + first + k] += np.bincount(group, column, groups)
            del spectra
        del columns
    return sums


def _columns(masks: Sequence[Mask], size: int) -> Iterator[tuple[int, list[npt.NDArray[np.complex128]]]]:
    """The transform along the last axis, so many frequencies at a time as memory allows."""
    lines, n = masks[0].size // masks[0].shape[-1], masks[0].shape[-1]
    # Two bytes a voxel, for all masks together.
    most = max(COLUMNS, masks[0].size // 8)
    frequencies = size // 2 + 1
    width = max(1, min(frequencies, most // (lines * len(masks))))
    rows = max(1, BATCH // (8 * size))
    for start in range(0, frequencies, width):
        stop = min(start + width, frequencies)
        found = []
        for mask in masks:
            values, flat = np.empty((lines, stop - start), dtype=np.complex128), mask.reshape(-1, n)
            for row in range(0, lines, rows):
                line = flat[row : row + rows].astype(np.float64)
                values[row : row + rows] = fft.rfft(line, n=size, axis=1)[:, start:stop]
            found.append(values.reshape(*mask.shape[:-1], stop - start))
        yield start, found


def _transformed(values: npt.NDArray[np.complex128], padded: Sequence[int]) -> npt.NDArray[np.complex128]:
    """Transform over all axes but the last, the padding last where it is longest."""
    for axis in reversed(range(len(padded))):
        values = fft.fft(values, n=padded[axis], axis=axis)
    return values


def _folded(power: Field, limits: Sequence[int]) -> Field:
    """Correlation for the lags h' ≥ 0 from a real spectrum, each with those that differ in signs added.

    Not divided by the number of values.
    """
    last = len(limits) - 1
    # Of a real function the transform at −h' is the conjugate: half of one axis is enough.
    found = np.take(fft.rfft(power, axis=last), np.arange(limits[last] + 1), axis=last)
    if last == 1:
        found = fft.fft(found, axis=0)
        head, tail = found[: limits[0] + 1].real, found[-1 : -limits[0] - 1 : -1].real
        head[1:] += tail
        real = head
    else:
        real = found.real
    # What is left out are the lags h' < 0 along that axis: as many again, but for h' = 0.
    real[(slice(None),) * last + (slice(1, None),)] *= 2.0
    return real
