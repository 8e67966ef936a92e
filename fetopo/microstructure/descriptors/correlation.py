"""Two-point correlations of phases, by FFT: radial averages, full maps, along an axis, between phases."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from fetopo._json import plain
from fetopo.microstructure.descriptors._common import Counts, Field, along, axes_for, checked
from fetopo.microstructure.descriptors._radial import radial_pairs
from fetopo.microstructure.image import Image, Mask, VoxelSize

# An FFT of so many values (512 MB) or fewer is in double precision, so that counts are exact; else in single.
DOUBLE_PRECISION_SIZE = 2**26


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
        return dict(plain(self))

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw S₂ against r, and φ² as a dotted line; returns the axes."""
        ax, unit, scale = axes_for(ax, float(self.r[-1]))
        drawn = ax.plot(self.r / scale, self.value, **options)
        ax.axhline(self.value[0] ** 2, color=drawn[0].get_color(), linestyle=":", linewidth=1)
        ax.set_xlabel(f"r{unit}")
        ax.set_ylabel("two-point correlation S₂ (-), φ² dotted")
        return ax


@dataclass(frozen=True, eq=False)
class TwoPointMap:
    """S₂(h) for every lag vector h: probability that x and x + h both lie in the phase.

    Args:
        lags: Components of h along each axis [m], in increasing order, 0 included.
        value: S₂ [-], one axis per axis of the image; φ at h = 0.
    """

    lags: tuple[Field, ...]
    value: Field

    def along(self, axis: int) -> TwoPointCorrelation:
        """S₂ for lags along one axis, h ≥ 0."""
        zero = [int(np.flatnonzero(lag == 0.0)[0]) for lag in self.lags]
        line = np.moveaxis(self.value, axis, -1)[tuple(z for a, z in enumerate(zero) if a != axis)]
        return TwoPointCorrelation(self.lags[axis][zero[axis] :], line[zero[axis] :])

    def to_dict(self) -> dict[str, Any]:
        """Nested lists for JSON; lags in metres."""
        return dict(plain(self))

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the map, in 3D its plane of zero lag along the last axis; returns the axes."""
        plane = self.value
        if plane.ndim == 3:
            plane = plane[:, :, int(np.flatnonzero(self.lags[2] == 0.0)[0])]
        ax, unit, scale = axes_for(ax, max(float(np.ptp(lag)) for lag in self.lags[:2]))
        x, y = (lag / scale for lag in self.lags[:2])
        shown = ax.pcolormesh(x, y, plane.T, shading="nearest", **options)
        ax.figure.colorbar(shown, ax=ax, label="two-point correlation S₂ (-)")
        ax.set_aspect("equal")
        ax.set_xlabel(f"lag along axis 0{unit}")
        ax.set_ylabel(f"lag along axis 1{unit}")
        return ax


@dataclass(frozen=True, eq=False)
class CrossCorrelations:
    """S_ij(r): probability that of a segment of length r one given end lies in phase i, the other in phase j.

    Args:
        labels: Labels of the phases, in increasing order.
        r: Mean length of the lags in each bin [m]; r[0] = 0.
        value: S_ij [-], of shape (phases, phases, lengths of r); symmetric, value[i, i, 0] = φ_i.
    """

    labels: tuple[int, ...]
    r: Field
    value: Field

    def of(self, first: int, second: int) -> TwoPointCorrelation:
        """S_ij of two labels.

        Raises:
            ValueError: A label is not there.
        """
        for label in (first, second):
            if label not in self.labels:
                raise ValueError(f"label {label}: expected one of {', '.join(map(str, self.labels))}")
        pair = self.labels.index(first), self.labels.index(second)
        return TwoPointCorrelation(self.r, self.value[pair])

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; r in metres."""
        return dict(plain(self))

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw S_ij against r for every pair of phases; returns the axes."""
        ax, unit, scale = axes_for(ax, float(self.r[-1]))
        for i, first in enumerate(self.labels):
            for j, second in enumerate(self.labels[i:], start=i):
                ax.plot(self.r / scale, self.value[i, j], label=f"{first}, {second}", **options)
        ax.legend(title="phases i, j")
        ax.set_xlabel(f"r{unit}")
        ax.set_ylabel("correlation S_ij (-)")
        return ax


def two_point_correlation(mask: Mask, voxel_size: VoxelSize, periodic: bool = False) -> TwoPointCorrelation:
    """Radial average of the two-point correlation function of a phase.

        S₂(r) = Σ_h #{x: x, x + h in the phase} / Σ_h #{x: x, x + h in the image},   |h| in the bin of r

    over lag vectors h between voxel centres, in bins [k, k + 1) times the smallest side of a voxel, up to
    half of the smallest side of the image, every bin complete. The counts come from an FFT in parts and are
    exact; without `periodic` the image is padded with zeros so that no lag wraps. At zero lag the value is φ.
    Takes a few times the memory of the mask.

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
    sides = checked(mask, voxel_size)
    r, pairs, inside = radial_pairs([mask], sides, periodic)
    return TwoPointCorrelation(r, inside[0, 0] / pairs)


def two_point_map(mask: Mask, voxel_size: VoxelSize, periodic: bool = False) -> TwoPointMap:
    """Two-point correlation function of a phase for every lag vector, without any average over directions.

        S₂(h) = #{x: x, x + h in the phase} / #{x: x, x + h in the image}

    Args:
        mask: Voxels of the phase, 2D or 3D.
        voxel_size: Side of a voxel [m], one or one per axis.
        periodic: The image is a periodic cell: the map is one period, as large as the image. Else it has the
            lags up to half of the image along each axis; beyond, few pairs are left.

    Returns:
        S₂ against the components of h [m].

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans with at least one voxel.
    """
    sides = checked(mask, voxel_size)
    limits = [n // 2 if periodic else (n - 1) // 2 for n in mask.shape]
    half = lag_counts(mask, limits, [periodic] * mask.ndim)
    # The half with h < 0 along the last axis is the other one seen through the origin.
    mirrored = np.flip(half[..., 1:])
    counts = np.concatenate([mirrored, half], axis=-1)
    lags: list[Counts] = [np.arange(-m, m + 1) for m in limits]
    for axis, n in enumerate(mask.shape):
        if periodic and n % 2 == 0:  # lags −n/2 and n/2 are the same
            counts, lags[axis] = np.delete(counts, -1, axis), lags[axis][:-1]
    dim = mask.ndim
    pairs = math.prod(
        along(n - (0 if periodic else 1) * np.abs(lag), a, dim)
        for a, (n, lag) in enumerate(zip(mask.shape, lags, strict=True))
    )
    return TwoPointMap(tuple(np.asarray(lag * h) for lag, h in zip(lags, sides, strict=True)), counts / pairs)


def two_point_along(
    mask: Mask, voxel_size: VoxelSize, axis: int, periodic: bool = False
) -> TwoPointCorrelation:
    """Two-point correlation function of a phase for lags along an axis.

    Args:
        mask: Voxels of the phase, 2D or 3D.
        voxel_size: Side of a voxel [m], one or one per axis.
        axis: Direction of the lags.
        periodic: The image is a periodic cell.

    Returns:
        S₂ at r = 0, h, …, (N − 1)h [m], as for the lineal path.

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans with at least one voxel, or no such axis.
    """
    side = checked(mask, voxel_size, axis)[axis]
    n = mask.shape[axis]
    lines: Mask = np.moveaxis(mask, axis, -1).reshape(-1, n)
    size = n if periodic else fft.next_fast_len(2 * n - 1, real=True)
    spectrum = np.zeros(size // 2 + 1)
    for start in range(0, len(lines), 4096):
        spectrum += (np.abs(fft.rfft(lines[start : start + 4096].astype(float), n=size)) ** 2).sum(axis=0)
    k = np.arange(n)
    pairs = (np.full(n, n) if periodic else n - k) * len(lines)
    return TwoPointCorrelation(side * k.astype(float), np.rint(fft.irfft(spectrum, n=size)[:n]) / pairs)


def cross_correlations(image: Image, periodic: bool = False) -> CrossCorrelations:
    """Radial averages of the correlations between all phases of an image.

        S_ij(r) = Σ_h #{x: x in i, x + h in j} / Σ_h #{x: x, x + h in the image},   |h| in the bin of r

    with the bins of `two_point_correlation`; S_ii is what that function gives. Σ_ij S_ij = 1 always. In a
    periodic cell Σ_j S_ij(r) = φ_i; without `periodic` it is the fraction of phase i among the voxels that
    have a partner at that distance, φ_i up to what the border leaves out.

    Args:
        image: The image, two phases or more.
        periodic: The image is a periodic cell.

    Returns:
        S_ij against r [m] for all pairs of labels.

    Raises:
        ValueError: The image has one phase only.
    """
    labels = tuple(image.phases)
    if len(labels) < 2:
        raise ValueError(f"the image has phase {labels[0]} only: expected two phases or more")
    masks = [image.mask(label) for label in labels]
    r, pairs, inside = radial_pairs(masks, image.voxel_size, periodic)
    order = range(len(labels))
    values = [[inside[min(i, j), max(i, j)] / pairs for j in order] for i in order]
    return CrossCorrelations(labels, r, np.array(values))


def radial_average(
    counts: Field, shape: Sequence[int], sides: Sequence[float], limits: Sequence[int], periodic: bool
) -> TwoPointCorrelation:
    """Average over directions of counts per lag |h| ≤ limits (last axis: h ≥ 0) that are even in h."""
    dim, step = len(shape), min(sides)
    # The bins whose lags are all there; rounding must not open or close one.
    bins = int(min((m + 1) * h for m, h in zip(limits, sides, strict=True)) / step * (1.0 + 1e-12))
    inside, pairs, lengths = np.zeros(bins), np.zeros(bins), np.zeros(bins)
    lags = [np.arange(-m, m + 1) for m in limits[:-1]] + [np.arange(limits[-1] + 1)]
    # Lag h and −h have the same counts: along the last axis only h ≥ 0 is stored, and h > 0 stands for both.
    rest = [along(lag * h, a, dim - 1) for a, (lag, h) in enumerate(zip(lags[1:], sides[1:], strict=True))]
    squares = sum(r**2 for r in rest)
    weight = along(np.where(lags[-1] > 0, 2.0, 1.0), dim - 2, dim - 1)
    free = [n - (0 if periodic else 1) * np.abs(lag) for n, lag in zip(shape, lags, strict=True)]
    overlap = weight * math.prod(along(f, a, dim - 1) for a, f in enumerate(free[1:]))
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


def lag_counts(mask: Mask, limits: Sequence[int], wraps: Sequence[bool]) -> Field:
    """Number of voxels x with x and x + h in the phase, for lags |h| ≤ limits (last axis: h ≥ 0).

    Args:
        mask: Voxels of the phase.
        limits: Largest lag along each axis, in voxels.
        wraps: Whether the image goes on across its border, per axis.
    """
    spectrum, padded = _spectrum(mask, limits, wraps)
    _multiply(spectrum, spectrum)
    counts = fft.irfftn(spectrum, s=padded, overwrite_x=True)
    del spectrum
    return np.rint(_window(counts, limits))


def _spectrum(mask: Mask, limits: Sequence[int], wraps: Sequence[bool]) -> tuple[npt.NDArray[Any], list[int]]:
    """FFT of a phase, padded so that no lag wraps where the image does not, and the padded shape."""
    padded = [
        n if wrap else fft.next_fast_len(n + m, real=True)
        for n, m, wrap in zip(mask.shape, limits, wraps, strict=True)
    ]
    kind = np.float64 if math.prod(padded) <= DOUBLE_PRECISION_SIZE else np.float32
    return fft.rfftn(mask.astype(kind), s=padded), padded


def _multiply(spectrum: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
    """Replace a spectrum by that of the correlation with another, averaged over h and −h."""
    spectrum.real = spectrum.real * other.real + spectrum.imag * other.imag
    spectrum.imag.fill(0.0)


def _window(counts: Field, limits: Sequence[int]) -> Field:
    """Counts for the lags |h| ≤ limits out of those of all lags (last axis: h ≥ 0)."""
    for axis, m in enumerate(limits):
        last = axis == len(limits) - 1
        counts = np.take(counts, np.arange(0 if last else -m, m + 1), axis=axis, mode="wrap")
    return counts
