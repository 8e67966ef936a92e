"""Inclusions that overlap at random: discs and spheres, ellipsoids and platelets of any orientation."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fetopo.microstructure.generate._cell import (
    Field,
    ball_volume,
    cell_of,
    check_fraction,
    check_radius,
    smallest,
)
from fetopo.microstructure.generate._spheres import nearest_voxels
from fetopo.microstructure.generate.orientation import watson_directions
from fetopo.microstructure.image import DEFAULT_VOXEL_SIZE, Image, VoxelSize

logger = logging.getLogger(__name__)


def overlapping_spheres(
    shape: Sequence[int],
    *,
    volume_fraction: float,
    radius: float,
    seed: int,
    voxel_size: VoxelSize = DEFAULT_VOXEL_SIZE,
) -> Image:
    """Fully penetrable discs (2D) or spheres (3D) with centres thrown at random.

    ρ·V centres with ρ = −ln(1 − φ)/v(R), v the volume of one sphere. The common radius is then adjusted (the
    fewer the spheres, the more; the radius used is logged) until the fraction φ of the spheres is met to one
    voxel.

    Args:
        shape: Voxels along each axis, 2D or 3D.
        volume_fraction: Fraction φ of the spheres [-].
        radius: Nominal radius R [m], at least one voxel, at most a quarter of the cell.
        seed: Seed of the random numbers.
        voxel_size: Side of a voxel [m], one or one per axis.

    Returns:
        Labels 0 void, 1 spheres.

    Raises:
        ValueError: A fraction, length or shape is out of range.

    Source:
        Torquato, Random Heterogeneous Materials, ch. 5 (2002), doi:10.1007/978-1-4757-6355-3.
    """
    shape, sides = cell_of(shape, voxel_size)
    check_fraction("volume_fraction", volume_fraction)
    check_radius("radius", radius, shape, sides)
    rng = np.random.default_rng(seed)
    lengths = np.array(shape) * np.array(sides)
    density = -math.log1p(-volume_fraction) / (ball_volume(len(shape)) * radius ** len(shape))
    number = max(1, round(density * float(np.prod(lengths))))
    centres = rng.random((number, len(shape))) * lengths
    radii = np.full(number, radius)
    spheres, scale = nearest_voxels(shape, sides, centres, radii, round(volume_fraction * math.prod(shape)))
    logger.info("%d spheres of %.4g nominal radii", number, scale)
    return Image(spheres, sides)


def ellipsoids(
    shape: Sequence[int],
    *,
    volume_fraction: float,
    radius: float,
    aspect_ratio: float,
    direction: Sequence[float],
    concentration: float = math.inf,
    seed: int,
    voxel_size: VoxelSize = DEFAULT_VOXEL_SIZE,
) -> Image:
    """Fully penetrable spheroids (3D) or ellipses (2D), semi-axes a across and c = aspect·a along the axis.

    The axes n are distributed as exp(κ (n·direction)²): aligned for κ = ∞, isotropic for κ = 0, all across
    the direction for κ = −∞. Numbers and sizes are as for `overlapping_spheres`.

    Args:
        shape: Voxels along each axis, 2D or 3D.
        volume_fraction: Fraction φ of the particles [-].
        radius: Nominal semi-axis a [m]; a and c at least half a voxel, at most a quarter of the cell.
        aspect_ratio: c/a [-]: above 1 needles, below 1 flakes.
        direction: Vector along which the axes of the particles lie.
        concentration: κ [-].
        seed: Seed of the random numbers.
        voxel_size: Side of a voxel [m], one or one per axis.

    Returns:
        Labels 0 void, 1 particles.

    Raises:
        ValueError: A fraction, length, direction or shape is out of range.

    Source:
        Boolean model: Chiu, Stoyan, Kendall, Mecke, Stochastic Geometry, ch. 3 (2013),
        doi:10.1002/9781118658222.
    """
    particle = _Spheroid(radius, aspect_ratio * radius)
    return _oriented(particle, shape, volume_fraction, direction, concentration, seed, voxel_size)


def platelets(
    shape: Sequence[int],
    *,
    volume_fraction: float,
    radius: float,
    thickness: float,
    direction: Sequence[float],
    concentration: float = math.inf,
    seed: int,
    voxel_size: VoxelSize = DEFAULT_VOXEL_SIZE,
) -> Image:
    """Fully penetrable flat discs (3D) or rectangles (2D), such as graphite flakes.

    As `ellipsoids`, with `direction` and `concentration` for the normals of the flakes.

    Args:
        shape: Voxels along each axis, 2D or 3D.
        volume_fraction: Fraction φ of the flakes [-].
        radius: Nominal radius [m], half the long side in 2D; at least half a voxel, at most a fifth of the
            cell.
        thickness: Nominal thickness [m]; at least a voxel, at most a fifth of the cell.
        direction: Vector along which the normals lie.
        concentration: κ [-].
        seed: Seed of the random numbers.
        voxel_size: Side of a voxel [m], one or one per axis.

    Returns:
        Labels 0 void, 1 flakes.

    Raises:
        ValueError: A fraction, length, direction or shape is out of range.
    """
    particle = _Platelet(radius, 0.5 * thickness)
    return _oriented(particle, shape, volume_fraction, direction, concentration, seed, voxel_size)


@dataclass(frozen=True)
class _Spheroid:
    across: float
    along: float
    room = 0.25  # of the cell that its half width may take

    def volume(self, dim: int) -> float:
        return ball_volume(dim) * self.across ** (dim - 1) * self.along

    def extent(self, axis: Field) -> Field:
        """Half the width along each coordinate axis."""
        return np.sqrt(self.across**2 * (1.0 - axis**2) + self.along**2 * axis**2)

    def distance(self, along: Field, square: Field) -> Field:
        """1 on the surface, growing in proportion outwards; from the offset along the axis and |offset|²."""
        across = np.maximum(square - along**2, 0.0)
        return np.sqrt(across / self.across**2 + (along / self.along) ** 2)


@dataclass(frozen=True)
class _Platelet(_Spheroid):
    room = 0.2

    def volume(self, dim: int) -> float:
        return 2.0 * self.along * (2.0 * self.across if dim == 2 else math.pi * self.across**2)

    def extent(self, axis: Field) -> Field:
        return self.across * np.sqrt(np.maximum(1.0 - axis**2, 0.0)) + self.along * np.abs(axis)

    def distance(self, along: Field, square: Field) -> Field:
        across = np.sqrt(np.maximum(square - along**2, 0.0))
        return np.maximum(across / self.across, np.abs(along) / self.along)


def _oriented(
    particle: _Spheroid,
    shape: Sequence[int],
    fraction: float,
    direction: Sequence[float],
    concentration: float,
    seed: int,
    voxel_size: VoxelSize,
) -> Image:
    shape, sides = cell_of(shape, voxel_size)
    dim, lengths = len(shape), np.array(shape) * np.array(sides)
    check_fraction("volume_fraction", fraction)
    low, high = 0.5 * max(sides), particle.room * float(lengths.min())
    for half in (particle.across, particle.along):
        if not low <= half <= high:
            raise ValueError(
                f"particle has half a width of {half:g} m: expected {low:g} (half a voxel) to {high:g} "
                f"({particle.room:g} of the cell)"
            )
    axis = np.asarray(direction, dtype=float)
    if axis.shape != (dim,) or not np.isfinite(axis).all() or not axis.any():
        raise ValueError(f"direction is {direction}: expected a vector of {dim} numbers, not all 0")
    if math.isnan(concentration):
        raise ValueError("concentration is nan: expected a number, or infinity for aligned particles")
    rng = np.random.default_rng(seed)
    number = max(1, round(-math.log1p(-fraction) * float(np.prod(lengths)) / particle.volume(dim)))
    centres = rng.random((number, dim)) * lengths
    axes = watson_directions(rng, axis / np.linalg.norm(axis), concentration, number)
    count = round(fraction * math.prod(shape))
    for reach in (1.2, 1.5, 2.0):  # beyond, a particle would meet itself across the cell
        distance = _nearest(particle, shape, sides, centres, axes, reach)
        chosen = smallest(distance, count)
        farthest = float(distance[chosen].max(initial=0.0))
        if farthest < reach:
            logger.info("%d particles of %.4g nominal size", number, farthest)
            return Image(chosen, sides)
    raise ValueError(
        f"volume_fraction is {fraction}: the {number} particles cannot reach it; use smaller ones"
    )


def _nearest(
    particle: _Spheroid,
    shape: tuple[int, ...],
    sides: tuple[float, ...],
    centres: Field,
    axes: Field,
    reach: float,
) -> Field:
    """Smallest distance to a particle per voxel centre (periodic), at most `reach`."""
    field = np.full(shape, reach)
    for i in range(len(centres)):
        axis, extent = axes[i], particle.extent(axes[i])
        offsets, window = [], []
        for a, (n, side) in enumerate(zip(shape, sides, strict=True)):
            offset = (np.arange(n) + 0.5) * side - centres[i, a]
            offset -= n * side * np.rint(offset / (n * side))
            near = np.flatnonzero(np.abs(offset) < reach * extent[a])
            offsets.append(offset[near])
            window.append(near)
        box, grids = np.ix_(*window), np.ix_(*offsets)
        along = sum((axis[a] * x for a, x in enumerate(grids)), np.zeros(()))
        distance = particle.distance(along, sum((x**2 for x in grids), np.zeros(())))
        field[box] = np.minimum(field[box], distance)
    return field
