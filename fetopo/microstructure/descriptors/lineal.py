"""Straight lines through a phase: lineal path and chord lengths, from the runs of voxels along an axis."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fetopo._json import plain
from fetopo.microstructure.descriptors._common import Counts, Field, axes_for, checked, half_reach, inverse
from fetopo.microstructure.image import Mask, VoxelSize

# So many voxels are looked through at once.
BLOCK = 2**20


@dataclass(frozen=True, eq=False)
class LinealPath:
    """L(r): probability that a segment of length r, thrown along one axis (or all), lies wholly in the phase.

    Args:
        r: Lengths [m]; r[0] = 0.
        value: L [-]; value[0] = φ.
    """

    r: Field
    value: Field

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; r in metres."""
        return dict(plain(self))

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw L against r; returns the axes."""
        ax, unit, scale = axes_for(ax, float(self.r[-1]))
        ax.plot(self.r / scale, self.value, **options)
        ax.set_xlabel(f"r{unit}")
        ax.set_ylabel("lineal path L (-)")
        return ax


@dataclass(frozen=True, eq=False)
class ChordLengths:
    """Complete chords of a phase along one axis: runs of its voxels with another phase at both ends.

    Args:
        length: The lengths that are possible, whole multiples of the voxel side along the axis [m].
        count: How many chords have each length [-].
        cut: Number of chords that end at the border of the image [-]; they are not in `count`.
    """

    length: Field
    count: Counts
    cut: int

    @property
    def mean(self) -> float:
        """Mean length of the complete chords [m]; NaN when there is none."""
        total = int(self.count.sum())
        return float(self.length @ self.count) / total if total else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation of the length of the complete chords [m]; NaN when there is none."""
        total = int(self.count.sum())
        if not total:
            return math.nan
        return math.sqrt(float((self.length - self.mean) ** 2 @ self.count) / total)

    def quantile(self, share: float) -> float:
        """Smallest length that a share of the complete chords does not exceed [m]; NaN when there is none.

        Raises:
            ValueError: The share is not between 0 and 1.
        """
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"share is {share}: expected 0 to 1")
        up_to = np.cumsum(self.count)
        if not up_to[-1]:
            return math.nan
        return float(self.length[min(int(np.searchsorted(up_to, share * up_to[-1])), self.length.size - 1)])

    @property
    def density(self) -> Field:
        """Probability density p(ℓ) of the length [1/m]: Σ p h = 1, h the voxel side; NaN without a chord."""
        total = int(self.count.sum())
        return self.count / (total * self.length[0]) if total else np.full(self.count.size, math.nan)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; lengths in metres, mean and density None when there is no complete chord."""
        return {**plain(self), "density": plain(self.density), "mean": plain(self.mean)}

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the density against the length, up to the longest chord, and the mean; returns the axes."""
        last = int(np.flatnonzero(self.count).max(initial=0)) + 1
        ax, unit, scale = axes_for(ax, float(self.length[last - 1]))
        drawn = ax.plot(self.length[:last] / scale, self.density[:last] * scale, **options)
        if math.isfinite(self.mean):
            ax.axvline(self.mean / scale, color=drawn[0].get_color(), linestyle=":", linewidth=1)
        ax.set_xlabel(f"chord length{unit}")
        ax.set_ylabel(f"density{inverse(unit)}, mean dotted")
        return ax


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
    side = checked(mask, voxel_size, axis)[axis]
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


def mean_lineal_path(mask: Mask, voxel_size: VoxelSize, periodic: bool = False) -> LinealPath:
    """Lineal-path function averaged over the axes.

    Where the sides of a voxel differ, an axis whose side is not the smallest is interpolated linearly.

    Args:
        mask: Voxels of the phase, 2D or 3D.
        voxel_size: Side of a voxel [m], one or one per axis.
        periodic: The image is a periodic cell.

    Returns:
        Mean of L over the axes, on multiples of the smallest side of a voxel up to half of the smallest side
        of the image [m].

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans with at least one voxel.
    """
    sides = checked(mask, voxel_size)
    r = grid_of_lengths(mask.shape, sides)
    paths = [lineal_path(mask, sides, axis, periodic) for axis in range(mask.ndim)]
    values = [np.interp(r, path.r, path.value) for path in paths]
    return LinealPath(r, np.asarray(np.mean(values, axis=0)))


def grid_of_lengths(shape: tuple[int, ...], sides: tuple[float, ...]) -> Field:
    """Multiples of the smallest side of a voxel up to half of the smallest side of the image [m]."""
    step = min(sides)
    return np.asarray(step * np.arange(int(half_reach(shape, sides) / step * (1.0 + 1e-12)) + 1.0))


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
    side = checked(mask, voxel_size, axis)[axis]
    runs, cut, full = _runs(mask, axis, periodic)
    return ChordLengths(side * np.arange(1.0, runs.size), runs[1:], int(cut.sum()) + full)


def _runs(mask: Mask, axis: int, periodic: bool) -> tuple[Counts, Counts, int]:
    """Runs of a phase along an axis, counted by length 0 … N, without the lines wholly in the phase.

    Returns:
        Complete runs, runs cut by the border (none when periodic), and the number of whole lines.
    """
    lines = np.moveaxis(mask, axis, -1)
    rows = max(1, BLOCK // lines[0].size)
    n = mask.shape[axis]
    complete: Counts = np.zeros(n + 1, dtype=np.int64)
    cut: Counts = np.zeros(n + 1, dtype=np.int64)
    full = 0
    for start in range(0, len(lines), rows):
        part = _runs_of_lines(lines[start : start + rows].reshape(-1, n), periodic)
        complete, cut, full = complete + part[0], cut + part[1], full + part[2]
    return complete, cut, full


def _runs_of_lines(lines: Mask, periodic: bool) -> tuple[Counts, Counts, int]:
    """Runs along the last axis of lines, as `_runs`."""
    n = lines.shape[1]
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
