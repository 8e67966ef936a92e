"""Pore sizes: the largest sphere inside the phase that covers each of its points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fetopo._json import plain
from fetopo.microstructure.descriptors._common import (
    Field,
    along,
    axes_for,
    both_phases,
    checked,
    squared_lengths,
)
from fetopo.microstructure.image import Mask, VoxelSize

# So many voxels of spheres are written at once (8 bytes each).
STAMP_SIZE = 2**22
# Relative difference of squared radii that is round-off.
HAIR = 1e-8


@dataclass(frozen=True, eq=False)
class PoreSizes:
    """Distribution of the local thickness over the volume of a phase.

    Args:
        diameter: The values that occur, in increasing order [m].
        cumulative: Share of the phase with a local thickness up to each of them [-]; the last is 1.
        mean: Mean local thickness [m].
        deviation: Its standard deviation [m].
    """

    diameter: Field
    cumulative: Field
    mean: float
    deviation: float

    def quantile(self, share: float) -> float:
        """Smallest diameter that a share of the phase does not exceed [m]; 0.5 gives the median.

        Raises:
            ValueError: The share is not between 0 and 1.
        """
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"share is {share}: expected 0 to 1")
        return float(self.diameter[min(int(np.searchsorted(self.cumulative, share)), self.diameter.size - 1)])

    def density(self, edges: Field) -> Field:
        """Share of the phase per diameter [1/m] in bins (edges[k], edges[k + 1]] [m]."""
        index = np.searchsorted(self.diameter, edges, side="right")
        share = np.append(0.0, self.cumulative)[index]
        return np.asarray(np.diff(share) / np.diff(edges))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; lengths in metres."""
        return dict(plain(self))

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the cumulative distribution, and the mean as a dotted line; returns the axes."""
        ax, unit, scale = axes_for(ax, float(self.diameter[-1]))
        x = np.append(0.0, self.diameter) / scale
        drawn = ax.step(x, np.append(0.0, self.cumulative), where="post", **options)
        ax.axvline(self.mean / scale, color=drawn[0].get_color(), linestyle=":", linewidth=1)
        ax.set_xlabel(f"local thickness{unit}, mean dotted")
        ax.set_ylabel("share of the phase up to it (-)")
        return ax


def pore_sizes(mask: Mask, voxel_size: VoxelSize, periodic: bool = False) -> PoreSizes:
    """Pore-size distribution by local thickness: how much of a phase lies in spheres of which size.

    Args:
        mask: Voxels of the phase, 2D or 3D.
        voxel_size: Side of a voxel [m], one or one per axis.
        periodic: The image is a periodic cell.

    Returns:
        The cumulative distribution over diameters [m], with mean and deviation.

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans, or the phase is empty or fills the image.
    """
    values, counts = np.unique(local_thickness(mask, voxel_size, periodic)[mask], return_counts=True)
    share = counts / counts.sum()
    mean = float(values @ share)
    deviation = math.sqrt(float((values - mean) ** 2 @ share))
    return PoreSizes(values, np.cumsum(counts) / counts.sum(), mean, deviation)


def local_thickness(mask: Mask, voxel_size: VoxelSize, periodic: bool = False) -> Field:
    """Diameter of the largest sphere (disc) inside the phase that covers each voxel.

        τ(x) = 2 max {R(c): |x − c| < R(c)},   R(c) the distance from c to the nearest voxel outside the phase

    between voxel centres, for every voxel centre c and every radius that occurs. The wall lies half a voxel
    before the first voxel outside, so that a slab of w voxels has τ = w or w + 1, whichever is even.
    Without `periodic` what lies beyond the border counts as more of the phase: spheres may reach across it.

    Spheres that a neighbouring one contains are left out (the discrete medial axis), the others written in
    increasing order of their radii.

    Args:
        mask: Voxels of the phase, 2D or 3D.
        voxel_size: Side of a voxel [m], one or one per axis.
        periodic: The image is a periodic cell.

    Returns:
        τ per voxel [m], 0 outside the phase.

    Raises:
        ValueError: The mask is not a 2D or 3D array of booleans, or the phase is empty or fills the image.

    Source:
        Hildebrand, Rüegsegger, J. Microsc. 185, 67 (1997), doi:10.1046/j.1365-2818.1997.1340694.x; medial
        axis: Remy, Thiel, Image Vis. Comput. 23, 167 (2005), doi:10.1016/j.imavis.2004.06.007.
    """
    sides = checked(mask, voxel_size)
    both_phases(mask, "local thickness")
    distance = _distance(mask, sides, periodic)
    # Radii that differ by round-off only are one; a hair taken off keeps |x − c| < R strict.
    unit = min(sides)
    radii, rank = np.unique(np.rint((distance / unit) ** 2 * 1e9), return_inverse=True)
    radii = np.sqrt(radii / 1e9) * unit
    rank = rank.reshape(mask.shape)
    centres = mask & ~_contained(rank, radii, sides, periodic)
    thickness = 2.0 * radii[_stamp(rank, centres, radii, sides, periodic)]
    return np.asarray(np.where(mask, thickness, 0.0))


def _distance(mask: Mask, sides: Sequence[float], periodic: bool) -> Field:
    """Distance from each voxel of the phase to the nearest one outside, between centres."""
    distance: Field = ndimage.distance_transform_edt(mask, sampling=sides)
    if not periodic:
        return distance
    # With more of the cell around it no voxel is farther from the rest than now.
    reach = [math.ceil(float(distance.max()) / h) for h in sides]
    padded = np.pad(mask, [(m, m) for m in reach], mode="wrap")
    inner = tuple(slice(m, m + n) for m, n in zip(reach, mask.shape, strict=True))
    return np.asarray(ndimage.distance_transform_edt(padded, sampling=sides)[inner])


def _contained(rank: npt.NDArray[np.intp], radii: Field, sides: Sequence[float], periodic: bool) -> Mask:
    """Voxels whose sphere lies inside that of a neighbour, voxel by voxel."""
    dim = rank.ndim
    squares = radii**2 * (1.0 - HAIR)
    steps = list(product((0, 1), repeat=dim))[1:]
    # For each radius and direction the largest |x − d|² over the voxels x of the sphere, from one octant.
    farthest = np.zeros((len(steps), radii.size))
    for k, square in enumerate(squares):
        if k == 0 and square <= 0.0:
            continue
        axes = [np.arange(int(math.sqrt(square) / h) + 1) for h in sides]
        inside = squared_lengths([a * h for a, h in zip(axes, sides, strict=True)])
        for s, step in enumerate(steps):
            moved = squared_lengths([(a + d) * h for a, d, h in zip(axes, step, sides, strict=True)])
            farthest[s, k] = moved[inside < square].max()
    contained = np.zeros(rank.shape, dtype=bool)
    around = np.pad(rank, 1, mode="wrap") if periodic else np.pad(rank, 1)
    for step in product((-1, 0, 1), repeat=dim):
        if not any(step):
            continue
        # The smallest rank of a neighbour whose sphere holds the whole of this one.
        needed = np.searchsorted(squares, farthest[steps.index(tuple(abs(d) for d in step))], side="right")
        there = tuple(slice(1 + d, 1 + d + n) for d, n in zip(step, rank.shape, strict=True))
        contained |= around[there] >= needed[rank]
    return contained


def _stamp(
    rank: npt.NDArray[np.intp], centres: Mask, radii: Field, sides: Sequence[float], periodic: bool
) -> npt.NDArray[np.intp]:
    """Per voxel the rank of the largest sphere that covers it."""
    reach = [int(float(radii[-1]) / h) for h in sides]
    shape = tuple(n + 2 * m for n, m in zip(rank.shape, reach, strict=True))
    covered = np.zeros(shape, dtype=np.int32)
    flat = covered.ravel()
    place = np.flatnonzero(centres)
    owner = rank.ravel()[place]
    order = np.argsort(owner, kind="stable")
    place, owner = place[order], owner[order]
    index = [x + m for x, m in zip(np.unravel_index(place, rank.shape), reach, strict=True)]
    start = np.ravel_multi_index(tuple(index), shape)
    begin = np.searchsorted(owner, np.arange(radii.size + 1))
    strides = [math.prod(shape[a + 1 :]) for a in range(rank.ndim)]
    for k in range(radii.size):
        here = start[begin[k] : begin[k + 1]]
        if not here.size:
            continue
        steps = [np.arange(-int(radii[k] / h), int(radii[k] / h) + 1) for h in sides]
        lengths = squared_lengths([s * h for s, h in zip(steps, sides, strict=True)])
        offset = np.zeros(1, dtype=np.intp)
        for axis, (s, n) in enumerate(zip(steps, strides, strict=True)):
            offset = offset + along(s * n, axis, rank.ndim)
        ball = offset[lengths < radii[k] ** 2 * (1.0 - HAIR)]
        chunk = max(1, STAMP_SIZE // ball.size)
        for first in range(0, here.size, chunk):
            flat[(here[first : first + chunk, None] + ball).ravel()] = k
    return _folded(covered, rank.shape, reach, periodic)


def _folded(
    covered: npt.NDArray[np.int32], shape: tuple[int, ...], reach: Sequence[int], periodic: bool
) -> npt.NDArray[np.intp]:
    """The image without its margin; in a periodic cell what lies there is brought back inside."""
    for axis, (n, m) in enumerate(zip(shape, reach, strict=True)):
        moved = np.moveaxis(covered, axis, 0)
        inside = moved[m : m + n].copy()
        if periodic:
            for k in range(moved.shape[0]):
                np.maximum(inside[(k - m) % n], moved[k], out=inside[(k - m) % n])
        covered = np.moveaxis(inside, 0, axis)
    return covered.astype(np.intp)
