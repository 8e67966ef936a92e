"""What a phase of an image looks like, in the statistics of the field.

All functions take the mask of one phase and the voxel size, in 2D and 3D. Lengths are in metres, areas per
volume in 1/m. `periodic` says whether the image continues on its other side; without it only what lies inside
counts.
"""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.spatial import SphericalVoronoi

from fetopo.microstructure.image import Image, Mask, VoxelSize, percolating_parts, voxel_sides

logger = logging.getLogger(__name__)

# An FFT of so many values (512 MB) or fewer is in double precision, so that counts are exact; else in single.
DOUBLE_PRECISION_SIZE = 2**26

Field = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TwoPointCorrelation:
    """S₂(r): probability that both ends of a segment of length r, thrown at random, lie in the phase.

    Args:
        r: Mean length of the lags in each bin [m]; r[0] = 0.
        value: S₂ [-], not divided by the volume fraction: value[0] = φ.
    """

    r: Field
    value: Field

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; r in metres."""
        return {"r": self.r.tolist(), "value": self.value.tolist()}


@dataclass(frozen=True, eq=False)
class LinealPath:
    """L(r): probability that a segment of length r, thrown along one axis, lies wholly in the phase.

    Args:
        r: Whole multiples of the voxel side along the axis [m]; r[0] = 0.
        value: L [-]; value[0] = φ.
    """

    r: Field
    value: Field

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; r in metres."""
        return {"r": self.r.tolist(), "value": self.value.tolist()}


@dataclass(frozen=True, eq=False)
class ChordLengths:
    """Complete chords of a phase along one axis: runs of its voxels with another phase at both ends.

    Args:
        length: The lengths that are possible, whole multiples of the voxel side along the axis [m].
        count: How many chords have each length.
        cut: Number of chords that end at the border of the image; they are not in `count`.
    """

    length: Field
    count: Counts
    cut: int

    @property
    def mean(self) -> float:
        """Mean length of the complete chords [m]; NaN when there is none."""
        total = int(self.count.sum())
        return float(self.length @ self.count) / total if total else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; lengths in metres, the mean None when there is no complete chord."""
        mean = None if math.isnan(self.mean) else self.mean
        return {"length": self.length.tolist(), "count": self.count.tolist(), "cut": self.cut, "mean": mean}


def volume_fractions(image: Image) -> dict[int, float]:
    """Volume fraction [-] of every label of an image."""
    return image.phases


def two_point_correlation(mask: Mask, voxel_size: VoxelSize, periodic: bool = False) -> TwoPointCorrelation:
    """Radial average of the two-point correlation function of a phase.

        S₂(r) = Σ_h #{x: x, x + h in the phase} / Σ_h #{x: x, x + h in the image},   |h| in the bin of r

    over lag vectors h between voxel centres, in bins [k, k + 1) times the smallest side of a voxel, up to
    half of the smallest side of the image, every bin complete. The counts come from an FFT; without
    `periodic` the image is padded with zeros so that no lag wraps. At zero lag the value is φ.

    Args:
        mask: Voxels of the phase, 2D or 3D.
        voxel_size: Side of a voxel [m], one or one per axis.
        periodic: The image is a periodic cell.

    Returns:
        S₂ against r [m].

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans with at least one voxel.

    Source:
        Torquato, Random Heterogeneous Materials, sec. 2.2 and 12.3 (2002), doi:10.1007/978-1-4757-6355-3.
    """
    sides = _checked(mask, voxel_size)
    step = min(sides)
    reach = min(n * h for n, h in zip(mask.shape, sides, strict=True)) / 2.0
    limits = [
        min(int(reach / h * (1.0 + 1e-12)), (n - 1) // 2) for n, h in zip(mask.shape, sides, strict=True)
    ]
    counts = _lag_counts(mask, limits, periodic)

    # The bins whose lags are all there; rounding must not open or close one.
    bins = int(min((m + 1) * h for m, h in zip(limits, sides, strict=True)) / step * (1.0 + 1e-12))
    inside, pairs, lengths = np.zeros(bins), np.zeros(bins), np.zeros(bins)
    lags = [np.arange(-m, m + 1) for m in limits[:-1]] + [np.arange(limits[-1] + 1)]
    # Lag h and −h have the same counts: along the last axis only h ≥ 0 is stored, and h > 0 stands for both.
    rest = [
        _along(lag * h, a, mask.ndim - 1) for a, (lag, h) in enumerate(zip(lags[1:], sides[1:], strict=True))
    ]
    squares = sum(r**2 for r in rest)
    weight = _along(np.where(lags[-1] > 0, 2.0, 1.0), mask.ndim - 2, mask.ndim - 1)
    free = [n - (0 if periodic else 1) * np.abs(lag) for n, lag in zip(mask.shape, lags, strict=True)]
    overlap = weight * math.prod(_along(f, a, mask.ndim - 1) for a, f in enumerate(free[1:]))
    for k, lag in enumerate(lags[0]):
        r = np.sqrt(squares + (lag * sides[0]) ** 2)
        every = (r / step * (1.0 + 1e-12)).astype(np.int64).ravel()
        near = every < bins
        index, here = every[near], (overlap * free[0][k]).ravel()[near]
        inside += np.bincount(index, (weight * counts[k]).ravel()[near], bins)
        pairs += np.bincount(index, here, bins)
        lengths += np.bincount(index, here * r.ravel()[near], bins)
    known = pairs > 0
    return TwoPointCorrelation(lengths[known] / pairs[known], inside[known] / pairs[known])


def lineal_path(mask: Mask, voxel_size: VoxelSize, axis: int, periodic: bool = False) -> LinealPath:
    """Lineal-path function along an axis, exactly, from the lengths of all runs of voxels of the phase.

        L(kh) = Σ_runs max(0, ℓ − k) / Σ_lines (N − k)          (periodic: N instead of N − k)

    A run of ℓ voxels (those cut by the border count with their visible part) holds a segment of k voxel sides
    for (ℓ − k)h of its starting points, which may be anywhere, not only on voxel centres. L is also the
    probability that k + 1 consecutive voxels all belong to the phase, so that L ≤ S₂ along the same axis.

    Args:
        mask: Voxels of the phase, 2D or 3D.
        voxel_size: Side of a voxel [m], one or one per axis.
        axis: Direction of the segments.
        periodic: The image is a periodic cell; runs go on across the border.

    Returns:
        L at r = 0, h, …, (N − 1)h [m].

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans with at least one voxel, or no such axis.

    Source:
        Lu, Torquato, Phys. Rev. A 45, 922 (1992), doi:10.1103/PhysRevA.45.922.
    """
    side = _checked(mask, voxel_size, axis)[axis]
    n = mask.shape[axis]
    runs, cut, full = _runs(mask, axis, periodic)
    total = runs + cut
    # Σ_{ℓ>k} (ℓ − k) c_ℓ is the sum over j > k of the number of runs of at least j voxels.
    at_least = np.cumsum(total[::-1])[::-1]
    held = np.cumsum(at_least[:0:-1])[::-1]
    k = np.arange(n)
    if periodic:
        held, starts = held + full * n, np.full(n, n)
    else:
        held, starts = held + full * (n - k), n - k
    return LinealPath(side * k.astype(float), held / (starts * (mask.size // n)))


def chord_lengths(mask: Mask, voxel_size: VoxelSize, axis: int, periodic: bool = False) -> ChordLengths:
    """Lengths of the complete chords of a phase along an axis.

    Every line of voxels is a test line; a chord is a run of voxels of the phase. Chords that touch the border
    are left out (their length is not known) and counted apart. In a periodic cell chords go on across the
    border and only lines wholly in the phase are left out. A run of ℓ voxels counts ℓh; chords shorter than a
    voxel can be missed, so that the mean in an isotropic medium is ℓ_C + h/2 + O(h²/ℓ_C).

    Args:
        mask: Voxels of the phase, 2D or 3D.
        voxel_size: Side of a voxel [m], one or one per axis.
        axis: Direction of the chords.
        periodic: The image is a periodic cell.

    Returns:
        The lengths [m], their counts and their mean.

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans with at least one voxel, or no such axis.

    Source:
        Torquato, Lu, Phys. Rev. E 47, 2950 (1993), doi:10.1103/PhysRevE.47.2950.
    """
    side = _checked(mask, voxel_size, axis)[axis]
    runs, cut, full = _runs(mask, axis, periodic)
    return ChordLengths(side * np.arange(1.0, runs.size), runs[1:], int(cut.sum()) + full)


def specific_surface(mask: Mask, voxel_size: VoxelSize, periodic: bool = False) -> float:
    """Area (2D: length) of the surface of a phase per volume (area) of the image, by Crofton's formula.

        s = c Σ_d w_d · #{changes between x and x + d} / (#{pairs} |d|),   c = 2 in 3D, π/2 in 2D

    over the 13 (2D: 4) directions d to the neighbours of a voxel, weighted by the share w_d of the sphere
    (circle) nearest to them. Unbiased for isotropic surfaces when the voxels are fine (0.3 % for a sphere,
    1.3 % for a disc of 10 voxels radius). Gaps narrower than a voxel are missed (overlapping spheres:
    0.7 h/ℓ_C too little, ℓ_C the mean chord), and planes along the axes come out up to 7 % too small. To
    count the faces of the voxels would give 50 % too much for a sphere. The image border is no surface.

    Args:
        mask: Voxels of the phase, 2D or 3D.
        voxel_size: Side of a voxel [m], one or one per axis.
        periodic: The image is a periodic cell.

    Returns:
        Specific surface [1/m].

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans with at least one voxel.

    Source:
        Legland, Kiêu, Devaux, Image Anal. Stereol. 26, 83 (2007), doi:10.5566/ias.v26.p83-92.
    """
    sides = np.array(_checked(mask, voxel_size))
    margin = 1 if periodic else 0
    if periodic:
        mask = np.pad(mask, 1, mode="wrap")
    total = 0.0
    for step, weight in _crofton(sides):
        # Pairs (x, x + d) inside the image; a margin stands for the other side of a periodic one.
        spans = [
            (margin or max(0, -s), n - (margin or max(0, s))) for n, s in zip(mask.shape, step, strict=True)
        ]
        here = tuple(slice(a, b) for a, b in spans)
        there = tuple(slice(a + s, b + s) for (a, b), s in zip(spans, step, strict=True))
        first, second = mask[here], mask[there]
        changes = np.count_nonzero(first != second) / max(1, first.size)
        total += weight * changes / float(np.linalg.norm(np.array(step) * sides))
    return (2.0 if mask.ndim == 3 else 0.5 * math.pi) * total


def characterize(image: Image, phase: int | Iterable[int]) -> dict[str, Any]:
    """Descriptors of a phase as one dictionary of plain values, ready for JSON (`fetopo characterize`).

    Args:
        image: The image, taken as not periodic.
        phase: Label of the phase, or several that count as one.

    Returns:
        shape, voxel_size [m per axis], porosity (volume fraction of the phase) [-],
        volume_fractions {label: [-]}, percolating_fraction [axis], mean_chord_length [m per axis, None where
        no chord is complete], specific_surface [1/m], two_point_correlation {r [m], value}, lineal_path {r
        [m], value [axis]} up to half of the smallest side, on multiples of the smallest side of a voxel
        (linear in between for other axes).

    Raises:
        ValueError: The phase does not occur in the image.
    """
    mask = image.mask(phase)
    sides, axes = image.voxel_size, range(image.dim)
    count = int(np.count_nonzero(mask))
    paths = [lineal_path(mask, sides, axis) for axis in axes]
    reach = min(n * h for n, h in zip(image.shape, sides, strict=True)) / 2.0
    r = min(sides) * np.arange(int(reach / min(sides) * (1.0 + 1e-12)) + 1)
    chords = [chord_lengths(mask, sides, axis).mean for axis in axes]
    return {
        "shape": list(image.shape),
        "voxel_size": list(sides),
        "porosity": count / mask.size,
        "volume_fractions": {str(label): fraction for label, fraction in volume_fractions(image).items()},
        "percolating_fraction": [int(np.count_nonzero(part)) / count for part in percolating_parts(mask)],
        "mean_chord_length": [None if math.isnan(mean) else mean for mean in chords],
        "specific_surface": specific_surface(mask, sides),
        "two_point_correlation": two_point_correlation(mask, sides).to_dict(),
        "lineal_path": {"r": r.tolist(), "value": [np.interp(r, p.r, p.value).tolist() for p in paths]},
    }


def _checked(mask: Mask, voxel_size: VoxelSize, axis: int = 0) -> tuple[float, ...]:
    """Sides of a voxel, once the mask and the axis are known to be sound."""
    if mask.dtype != np.bool_ or mask.ndim not in (2, 3) or mask.size == 0:
        raise ValueError(f"mask is {mask.dtype} of shape {mask.shape}: expected 2D or 3D booleans, not empty")
    if not 0 <= axis < mask.ndim:
        raise ValueError(f"axis is {axis}: expected 0 to {mask.ndim - 1}")
    return voxel_sides(voxel_size, mask.ndim)


def _along(values: npt.NDArray[Any], axis: int, dim: int) -> npt.NDArray[Any]:
    return values.reshape([-1 if a == axis else 1 for a in range(dim)])


def _lag_counts(mask: Mask, limits: list[int], periodic: bool) -> Field:
    """Number of voxels x with x and x + h in the phase, for lags |h| ≤ limits (last axis: h ≥ 0)."""
    extra = [0 if periodic else m for m in limits]
    padded = [
        n if periodic else fft.next_fast_len(n + m, real=True) for n, m in zip(mask.shape, extra, strict=True)
    ]
    kind = np.float64 if math.prod(padded) <= DOUBLE_PRECISION_SIZE else np.float32
    spectrum = fft.rfftn(mask.astype(kind), s=padded)
    spectrum.real = spectrum.real**2 + spectrum.imag**2
    spectrum.imag = 0.0
    counts = fft.irfftn(spectrum, s=padded, overwrite_x=True)
    del spectrum
    for axis, m in enumerate(limits):
        last = axis == len(limits) - 1
        counts = np.take(counts, np.arange(0 if last else -m, m + 1), axis=axis, mode="wrap")
    return np.rint(counts)


def _runs(mask: Mask, axis: int, periodic: bool) -> tuple[Counts, Counts, int]:
    """Runs of a phase along an axis, counted by length 0 … N, without the lines wholly in the phase.

    Returns:
        Complete runs, runs cut by the border (none when periodic), and the number of whole lines.
    """
    n = mask.shape[axis]
    lines: Mask = np.moveaxis(mask, axis, -1).reshape(-1, n)
    whole: Mask = np.asarray(lines.all(axis=1))
    full = int(np.count_nonzero(whole))
    if periodic:  # begin every line at the start of a run, so that none crosses the border
        starts = np.argmin(lines, axis=1)
        lines = np.take_along_axis(lines, (np.arange(n) + starts[:, None]) % n, axis=1)
    bits = np.zeros((lines.shape[0], n + 2), dtype=np.int8)
    bits[:, 1:-1] = lines & ~whole[:, None]
    change = np.diff(bits.ravel())
    begin, end = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    length = end - begin
    at_border = (
        np.zeros(length.size, dtype=bool) if periodic else (begin % (n + 2) == 0) | (end % (n + 2) == n)
    )
    complete = np.bincount(length[~at_border], minlength=n + 1)
    return complete, np.bincount(length[at_border], minlength=n + 1), full


def _crofton(sides: Field) -> list[tuple[tuple[int, ...], float]]:
    """Directions to the neighbours, one of each opposite pair, and their shares of all directions."""
    steps = [step for step in product((-1, 0, 1), repeat=sides.size) if any(step)]
    unit = np.array(steps) * sides
    unit = unit / np.linalg.norm(unit, axis=1)[:, None]
    if sides.size == 3:
        shares = SphericalVoronoi(unit).calculate_areas() / (4.0 * math.pi)
    else:
        angle = np.arctan2(unit[:, 0], unit[:, 1])
        order = np.argsort(angle)
        gaps = np.diff(angle[order], append=angle[order[0]] + 2.0 * math.pi)
        shares = np.empty(len(steps))
        shares[order] = (gaps + np.roll(gaps, 1)) / (4.0 * math.pi)
    half = len(steps) // 2  # the second half of the list mirrors the first
    return [(step, 2.0 * float(share)) for step, share in zip(steps[half:], shares[half:], strict=True)]
