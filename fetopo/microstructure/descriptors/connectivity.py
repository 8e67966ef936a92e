"""Connected parts of a phase: how many, how large, which percolate, and the cluster function C₂."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fetopo._json import plain
from fetopo.microstructure._labelling import label_mask
from fetopo.microstructure.descriptors._common import Counts, Field, axes_for, checked
from fetopo.microstructure.descriptors._radial import radial_limits
from fetopo.microstructure.descriptors.correlation import (
    lag_counts,
    radial_average,
    two_point_correlation,
)
from fetopo.microstructure.image import Mask, VoxelSize

# Clusters up to this many voxels are counted pair by pair, larger ones by an FFT each.
PAIRWISE_SIZE = 64

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Clusters:
    """Connected parts of a phase; voxels are connected through their faces (edges in 2D).

    Args:
        size: Volume of each (2D: area), the largest first [m³ (m²)].
        fraction: Volume fraction of the phase [-].
        percolating_fraction: Per axis, the share of the phase in clusters that percolate along it [-].
        percolating_count: Per axis, the number of such clusters [-].
    """

    size: Field
    fraction: float
    percolating_fraction: tuple[float, ...]
    percolating_count: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of clusters [-]."""
        return self.size.size

    @property
    def largest_fraction(self) -> float:
        """Share of the phase in its largest cluster [-]; 0 for a phase without voxels."""
        return float(self.size[0] / self.size.sum()) if self.size.size else 0.0

    @property
    def mean_size(self) -> float:
        """Mean volume of the cluster that a point of the phase lies in [m³ (m²)], Σs²/Σs; NaN without one."""
        return float((self.size**2).sum() / self.size.sum()) if self.size.size else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; sizes in m³ (m²)."""
        more = {"count": self.count, "largest_fraction": self.largest_fraction, "mean_size": self.mean_size}
        return {**plain(self), **plain(more)}

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the sizes of the clusters against their rank, the largest first; returns the axes."""
        dim = len(self.percolating_fraction)
        largest = float(self.size[0]) ** (1.0 / dim) if self.size.size else 1.0
        ax, unit, scale = axes_for(ax, largest)
        power = unit.replace(")", "³)" if dim == 3 else "²)")
        ax.loglog(np.arange(1, self.count + 1), self.size / scale**dim, ".", **options)
        ax.set_xlabel("rank of the cluster (-)")
        ax.set_ylabel(f"{'volume' if dim == 3 else 'area'} of the cluster{power}")
        return ax


@dataclass(frozen=True, eq=False)
class TwoPointCluster:
    """C₂(r): probability that both ends of a segment of length r lie in the same cluster of the phase.

    Args:
        r: Mean length of the lags in each bin [m]; r[0] = 0.
        value: C₂ [-]; value[0] = φ.
        blocked: D₂ = S₂ − C₂ [-]: both ends in the phase, but in different clusters.
    """

    r: Field
    value: Field
    blocked: Field

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; r in metres."""
        return dict(plain(self))

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw C₂, and S₂ as a dotted line, against r; returns the axes."""
        ax, unit, scale = axes_for(ax, float(self.r[-1]))
        drawn = ax.plot(self.r / scale, self.value, **options)
        total = self.value + self.blocked
        ax.plot(self.r / scale, total, color=drawn[0].get_color(), linestyle=":", linewidth=1)
        ax.set_xlabel(f"r{unit}")
        ax.set_ylabel("cluster function C₂ (-), S₂ dotted")
        return ax


def clusters(mask: Mask, voxel_size: VoxelSize, periodic: bool = False) -> Clusters:
    """Sizes of the connected parts of a phase, and which of them percolate.

    Without `periodic` a cluster percolates along an axis when it touches both faces normal to it. In a
    periodic cell it does when it is connected to its own image one or more cells away along the axis: a path
    that enters at one face and leaves at another place of the other need not close.

    Args:
        mask: Voxels of the phase, 2D or 3D.
        voxel_size: Side of a voxel [m], one or one per axis.
        periodic: The image is a periodic cell.

    Returns:
        The sizes [m³ (m²)] and the percolating shares [-].

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans with at least one voxel.
    """
    sides = checked(mask, voxel_size)
    if periodic:
        labels, through = _labelled(mask, periodic)
        sizes = np.bincount(labels.ravel(), minlength=len(through) + 1)[1:]
    else:
        found = label_mask(mask)
        sizes, through = found.size, found.touched == 3
    total = max(1, int(sizes.sum()))
    return Clusters(
        np.asarray(np.sort(sizes)[::-1] * math.prod(sides)),
        int(sizes.sum()) / mask.size,
        tuple(int(sizes[through[:, axis]].sum()) / total for axis in range(mask.ndim)),
        tuple(int(through[:, axis].sum()) for axis in range(mask.ndim)),
    )


def label_clusters(mask: Mask, periodic: bool = False) -> tuple[Labels, int]:
    """Clusters of a phase, numbered from 1 (0 is the rest), and their number.

    Args:
        mask: Voxels of the phase, 2D or 3D; connected through their faces (edges in 2D).
        periodic: The image is a periodic cell; clusters go on across the border.

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans with at least one voxel.
    """
    checked(mask, 1.0)
    labels, through = _labelled(mask, periodic)
    return labels, len(through)


def percolating_axes(mask: Mask, periodic: bool = False) -> npt.NDArray[np.bool_]:
    """For each cluster of a phase (rows) whether it percolates along each axis, as `clusters` defines it.

    Args:
        mask: Voxels of the phase, 2D or 3D; connected through their faces (edges in 2D).
        periodic: The image is a periodic cell.

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans with at least one voxel.
    """
    checked(mask, 1.0)
    return _labelled(mask, periodic)[1]


def two_point_cluster(mask: Mask, voxel_size: VoxelSize, periodic: bool = False) -> TwoPointCluster:
    """Radial average of the two-point cluster function of a phase.

        C₂(r) = Σ_h #{x: x, x + h in one cluster} / Σ_h #{x: x, x + h in the image},   |h| in the bin of r

    with the bins of `two_point_correlation`, so that S₂ = C₂ + D₂ bin by bin. Without `periodic` clusters are
    those inside the image: two parts that join beyond its border are different ones.

    Args:
        mask: Voxels of the phase, 2D or 3D.
        voxel_size: Side of a voxel [m], one or one per axis.
        periodic: The image is a periodic cell; clusters go on across the border.

    Returns:
        C₂ and D₂ against r [m].

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans with at least one voxel.

    Source:
        Torquato, Beasley, Chiew, J. Chem. Phys. 88, 6540 (1988), doi:10.1063/1.454440.
    """
    sides = checked(mask, voxel_size)
    limits = radial_limits(mask.shape, sides)
    labels, _ = _labelled(mask, periodic)
    counts = _pairs_in_clusters(labels, limits, periodic)
    together = radial_average(counts, mask.shape, sides, limits, periodic)
    every = two_point_correlation(mask, sides, periodic)
    return TwoPointCluster(every.r, together.value, every.value - together.value)


def _labelled(mask: Mask, periodic: bool) -> tuple[Labels, npt.NDArray[np.bool_]]:
    """Clusters numbered from 1, and per cluster and axis whether it percolates."""
    labels, count = ndimage.label(mask)
    if periodic:
        return _joined(labels, count)
    through = np.zeros((count + 1, mask.ndim), dtype=bool)
    for axis in range(mask.ndim):
        through[np.intersect1d(labels.take(0, axis), labels.take(-1, axis)), axis] = True
    return labels, through[1:]


def _joined(labels: Labels, count: int) -> tuple[Labels, npt.NDArray[np.bool_]]:
    """Clusters that touch across the border made one, and which axes each winds around.

    The parts inside the image are nodes, contacts across the border are edges with the cell vector that they
    cross. Walking a cluster gives every part the cell it lies in; an edge that contradicts closes a path
    around the torus, and its defect says along which axes.
    """
    dim = labels.ndim
    edges: list[list[tuple[int, int, int]]] = [[] for _ in range(count + 1)]
    for axis in range(dim):
        last, first = labels.take(-1, axis).ravel(), labels.take(0, axis).ravel()
        met = (last > 0) & (first > 0)
        contacts = np.unique(np.stack([last[met], first[met]], axis=1), axis=0)
        for a, b in zip(map(int, contacts[:, 0]), map(int, contacts[:, 1]), strict=True):
            edges[a].append((b, axis, 1))
            edges[b].append((a, axis, -1))
    number = np.zeros(count + 1, dtype=np.int32)
    cell = np.zeros((count + 1, dim), dtype=np.int64)
    through: list[npt.NDArray[np.bool_]] = []
    for start in range(1, count + 1):
        if number[start]:
            continue
        winds = np.zeros(dim, dtype=bool)
        number[start] = len(through) + 1
        waiting = [start]
        while waiting:
            a = waiting.pop()
            for b, axis, sign in edges[a]:
                there = cell[a].copy()
                there[axis] += sign
                if number[b]:
                    winds |= there != cell[b]
                else:
                    number[b], cell[b] = number[start], there
                    waiting.append(b)
        through.append(winds)
    return number[labels], np.array(through, dtype=bool).reshape(-1, dim)


def _pairs_in_clusters(labels: Labels, limits: Sequence[int], periodic: bool) -> Field:
    """Number of voxels x with x and x + h in one cluster, for lags |h| ≤ limits (last axis: h ≥ 0)."""
    counts = np.zeros([2 * m + 1 for m in limits[:-1]] + [limits[-1] + 1])
    sizes = np.bincount(labels.ravel())
    large = np.flatnonzero(sizes > PAIRWISE_SIZE)
    large = large[large > 0]
    boxes = ndimage.find_objects(labels)
    for cluster in large:
        box = boxes[cluster - 1]
        spans = [part.stop - part.start for part in box]
        # Lags inside a short box cannot be confused across the border; a long one takes the whole axis.
        wraps = [periodic and span - 1 > m for span, m in zip(spans, limits, strict=True)]
        box = tuple(slice(None) if wrap else part for part, wrap in zip(box, wraps, strict=True))
        near = [min(s - 1, m) if not w else m for s, m, w in zip(spans, limits, wraps, strict=True)]
        found = lag_counts(labels[box] == cluster, near, wraps)
        window = [slice(m - n, m + n + 1) for m, n in zip(limits[:-1], near[:-1], strict=True)]
        counts[(*window, slice(0, near[-1] + 1))] += found
    small = sizes <= PAIRWISE_SIZE
    small[0] = False
    flat: Counts = np.flatnonzero(small[labels.ravel()])
    _add_pairs(counts, flat, labels, limits, periodic)
    return counts


def _add_pairs(counts: Field, flat: Counts, labels: Labels, limits: Sequence[int], periodic: bool) -> None:
    """Add the pairs inside each cluster of the voxels `flat`, one by one."""
    owner = labels.ravel()[flat]
    order = np.argsort(owner, kind="stable")
    owner, flat = owner[order], flat[order]
    place = np.stack(np.unravel_index(flat, labels.shape), axis=1)
    bound, shape = np.array(limits), np.array(labels.shape)
    centre = np.append(bound[:-1], 0)
    counts[tuple(centre)] += flat.size
    for j in range(1, PAIRWISE_SIZE):
        same = np.flatnonzero(owner[j:] == owner[:-j])
        if not same.size:
            break
        lag = place[same + j] - place[same]
        if periodic:
            lag -= shape * np.rint(lag / shape).astype(np.int64)
        lag = lag[(np.abs(lag) <= bound).all(axis=1)]
        for signed in (lag, -lag):
            half = signed[signed[:, -1] >= 0] + centre
            index = np.ravel_multi_index(tuple(half.T), counts.shape)
            np.add.at(counts.reshape(-1), index, 1.0)
