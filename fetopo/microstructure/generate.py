"""Periodic random and ordered media, as labelled images.

Every generator returns an `Image`. The cell is periodic; random ones are reproducible from `seed`. Phases are
cut out of a continuous field by rank (the k voxels where it is smallest), so that a volume fraction is met to
one voxel.
"""

import logging
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.spatial import cKDTree

from fetopo.microstructure.image import DEFAULT_VOXEL_SIZE, Image, VoxelSize, voxel_sides

logger = logging.getLogger(__name__)

Field = npt.NDArray[np.float64]


def electrode(
    shape: Sequence[int],
    *,
    porosity: float,
    binder: float = 0.1,
    particle_radius: float,
    radius_spread: float = 0.25,
    roughness: float = 0.15,
    voxel_size: VoxelSize = DEFAULT_VOXEL_SIZE,
    seed: int,
) -> Image:
    """Lithium-ion positive electrode: rough polydisperse particles held together by binder bridges.

    Particles of log-normal radius R_i are thrown into the cell and pushed apart where they overlap. With the
    scaled distances d_i = |x − c_i|/R_i sorted per voxel, d₁ ≤ d₂ ≤ …, active material is where d₁ +
    roughness·g is smallest (g: a Gaussian field of unit variance that varies over half a particle radius) and
    binder where d₁ + d₂ is smallest among the rest: near the contacts, as bridges.

    Args:
        shape: Voxels along each axis, 2D or 3D.
        porosity: Volume fraction of the pore [-].
        binder: Volume fraction of the binder [-], may be 0.
        particle_radius: Mean radius of the particles [m], at least one voxel, at most a quarter of the cell.
        radius_spread: Standard deviation of the radius over its mean [-].
        roughness: Amplitude of the surface noise over the particle radius [-]; 0 gives spheres.
        voxel_size: Side of a voxel [m], one or one per axis.
        seed: Seed of the random numbers.

    Returns:
        Labels 0 pore, 1 active material, 2 binder.

    Raises:
        ValueError: A fraction, length or shape is out of range.

    Source:
        Binder as bridges between near particles: Mistry, Smith, Mukherjee, ACS Appl. Mater. Interfaces 10,
        6317 (2018), doi:10.1021/acsami.7b17771.
    """
    shape, sides = _cell(shape, voxel_size)
    _check_fraction("porosity", porosity)
    if not 0.0 <= binder < 1.0 - porosity:
        raise ValueError(f"binder is {binder}: expected 0 to less than 1 − porosity = {1.0 - porosity:g}")
    if not 0.0 <= radius_spread <= 0.6:
        raise ValueError(f"radius_spread is {radius_spread}: expected 0 to 0.6")
    if not 0.0 <= roughness <= 0.5:
        raise ValueError(f"roughness is {roughness}: expected 0 to 0.5")
    _check_radius("particle_radius", particle_radius, shape, sides)

    rng = np.random.default_rng(seed)
    size = math.prod(shape)
    n_pore, n_binder = round(porosity * size), round(binder * size)
    lengths = np.array(shape) * np.array(sides)
    radii = _radii(rng, particle_radius, radius_spread, 1.0 - porosity - binder, lengths)
    centres = _push_apart(rng.random((radii.size, len(shape))) * lengths, radii, lengths)
    first, second = _two_nearest(shape, sides, centres, radii, reach=3.0)
    noise = _smooth_noise(rng, shape, sides, 0.5 * particle_radius)

    labels = np.zeros(shape, dtype=np.uint8)
    active = _smallest(first + roughness * noise, size - n_pore - n_binder)
    bridges = _smallest(np.where(active, np.inf, first + second), n_binder)
    labels[active] = 1
    labels[bridges] = 2
    logger.info("electrode of shape %s: %d particles", shape, radii.size)
    return Image(labels, sides)


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
    shape, sides = _cell(shape, voxel_size)
    _check_fraction("volume_fraction", volume_fraction)
    _check_radius("radius", radius, shape, sides)
    rng = np.random.default_rng(seed)
    lengths = np.array(shape) * np.array(sides)
    density = -math.log1p(-volume_fraction) / (_ball(len(shape)) * radius ** len(shape))
    number = max(1, round(density * float(np.prod(lengths))))
    centres = rng.random((number, len(shape))) * lengths
    reach, farthest = 1.0, math.inf
    while farthest >= reach:
        reach *= 1.5
        distance, _ = _two_nearest(shape, sides, centres, np.full(number, radius), reach)
        spheres = _smallest(distance, round(volume_fraction * distance.size))
        farthest = float(distance[spheres].max(initial=0.0))
    logger.info("%d spheres of %.4g nominal radii", number, farthest)
    return Image(spheres, sides)


def gaussian_field(
    shape: Sequence[int],
    *,
    volume_fraction: float,
    correlation_length: float,
    seed: int,
    voxel_size: VoxelSize = DEFAULT_VOXEL_SIZE,
) -> Image:
    """Thresholded Gaussian random field with covariance exp(−(r/ℓ)²).

    Args:
        shape: Voxels along each axis, 2D or 3D.
        volume_fraction: Fraction of phase 1 [-].
        correlation_length: ℓ [m], at least one voxel, at most a quarter of the cell.
        seed: Seed of the random numbers.
        voxel_size: Side of a voxel [m], one or one per axis.

    Returns:
        Labels 0 and 1; phase 1 is where the field is smallest.

    Raises:
        ValueError: A fraction, length or shape is out of range.

    Source:
        Quiblier, J. Colloid Interface Sci. 98, 84 (1984), doi:10.1016/0021-9797(84)90481-8.
    """
    shape, sides = _cell(shape, voxel_size)
    _check_fraction("volume_fraction", volume_fraction)
    _check_radius("correlation_length", correlation_length, shape, sides)
    field = _smooth_noise(np.random.default_rng(seed), shape, sides, correlation_length)
    return Image(_smallest(field, round(volume_fraction * field.size)), sides)


def laminate(
    shape: Sequence[int],
    *,
    fractions: Sequence[float],
    axis: int = 0,
    periods: int = 1,
    voxel_size: VoxelSize = DEFAULT_VOXEL_SIZE,
) -> Image:
    """Layers normal to an axis, label k with the fraction `fractions[k]` of each period.

    Args:
        shape: Voxels along each axis, 2D or 3D.
        fractions: Volume fractions [-] that sum to 1; interfaces are rounded to whole voxels.
        axis: Axis normal to the layers.
        periods: How often the stack repeats along the axis; must divide the number of voxels.
        voxel_size: Side of a voxel [m], one or one per axis.

    Returns:
        Labels 0 to len(fractions) − 1.

    Raises:
        ValueError: A value is out of range, or a layer is thinner than one voxel.
    """
    shape, sides = _cell(shape, voxel_size)
    for fraction in fractions:
        _check_fraction("fractions", fraction)
    if not math.isclose(sum(fractions), 1.0, abs_tol=1e-9):
        raise ValueError(f"fractions sum to {sum(fractions):g}: expected 1")
    if not 0 <= axis < len(shape):
        raise ValueError(f"axis is {axis}: expected 0 to {len(shape) - 1}")
    if periods < 1 or shape[axis] % periods:
        raise ValueError(
            f"periods is {periods}: expected a divisor of the {shape[axis]} voxels along axis {axis}"
        )
    period = shape[axis] // periods
    ends = np.rint(np.cumsum(fractions) * period).astype(int)
    if np.diff(ends, prepend=0).min() < 1:
        raise ValueError(
            f"fractions are {tuple(fractions)}: expected layers of one voxel or more of {period}"
        )
    profile = np.tile(np.searchsorted(ends, np.arange(period), side="right").astype(np.uint8), periods)
    across = [-1 if a == axis else 1 for a in range(len(shape))]
    return Image(np.broadcast_to(profile.reshape(across), shape).copy(), sides)


def checkerboard(shape: Sequence[int], *, tile: int, voxel_size: VoxelSize = DEFAULT_VOXEL_SIZE) -> Image:
    """Squares (cubes) of two phases in turn, half of the volume each.

    Args:
        shape: Voxels along each axis, 2D or 3D; multiples of twice the tile.
        tile: Side of a square in voxels.
        voxel_size: Side of a voxel [m], one or one per axis.

    Returns:
        Labels 0 (at the origin) and 1.

    Raises:
        ValueError: The tile is not positive or does not fit the cell an even number of times.
    """
    shape, sides = _cell(shape, voxel_size)
    if tile < 1 or any(n % (2 * tile) for n in shape):
        raise ValueError(
            f"tile is {tile} in shape {shape}: expected voxels that are multiples of twice the tile"
        )
    return Image((np.indices(shape, dtype=np.int32) // tile).sum(axis=0) % 2, sides)


def _cell(shape: Sequence[int], voxel_size: VoxelSize) -> tuple[tuple[int, ...], tuple[float, ...]]:
    if len(shape) not in (2, 3) or any(int(n) != n or n < 1 for n in shape):
        raise ValueError(f"shape is {tuple(shape)}: expected 2 or 3 positive whole numbers")
    return tuple(int(n) for n in shape), voxel_sides(voxel_size, len(shape))


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} is {value}: expected a number between 0 and 1")


def _check_radius(name: str, value: float, shape: tuple[int, ...], sides: tuple[float, ...]) -> None:
    low, high = max(sides), min(n * h for n, h in zip(shape, sides, strict=True)) / 4.0
    if not low <= value <= high:
        raise ValueError(
            f"{name} is {value:g} m: expected {low:g} (a voxel) to {high:g} (a quarter of the cell)"
        )


def _ball(dim: int) -> float:
    """Area of the unit disc or volume of the unit sphere."""
    return math.pi if dim == 2 else 4.0 / 3.0 * math.pi


def _radii(rng: np.random.Generator, mean: float, spread: float, fraction: float, lengths: Field) -> Field:
    """Log-normal radii whose volumes sum to a fraction of the cell; a tail beyond [0.4, 2] means is cut."""
    sigma = math.sqrt(math.log1p(spread**2))
    dim, cell = lengths.size, float(np.prod(lengths))
    number = 8 + 2 * round(fraction * cell / (_ball(dim) * mean**dim))
    drawn = mean * np.clip(np.exp(sigma * rng.standard_normal(number) - 0.5 * sigma**2), 0.4, 2.0)
    volumes = np.cumsum(_ball(dim) * drawn**dim)
    kept = drawn[: max(2, int(np.searchsorted(volumes, fraction * cell)))]
    return kept * (fraction * cell / float(np.sum(_ball(dim) * kept**dim))) ** (1.0 / dim)


def _push_apart(centres: Field, radii: Field, lengths: Field, sweeps: int = 60) -> Field:
    """Centres after sweeps that move every overlapping pair apart by its overlap, half each (periodic)."""
    for _ in range(sweeps):
        centres = np.mod(centres, lengths)
        centres[centres >= lengths] = 0.0  # np.mod of a tiny negative number
        pairs = cKDTree(centres, boxsize=lengths).query_pairs(2.0 * radii.max(), output_type="ndarray")
        i, j = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].T
        gap = centres[i] - centres[j]
        gap -= lengths * np.rint(gap / lengths)
        distance = np.sqrt((gap**2).sum(axis=1))
        overlap = np.maximum(radii[i] + radii[j] - distance, 0.0)
        if not overlap.any():
            break
        shift = (0.5 * overlap / np.maximum(distance, 1e-12 * lengths.max()))[:, None] * gap
        np.add.at(centres, i, shift)
        np.add.at(centres, j, -shift)
    return np.mod(centres, lengths)


def _two_nearest(
    shape: tuple[int, ...], sides: tuple[float, ...], centres: Field, radii: Field, reach: float
) -> tuple[Field, Field]:
    """Smallest and second smallest |x − c_i|/R_i per voxel centre (periodic), at most `reach`."""
    first, second = np.full(shape, reach), np.full(shape, reach)
    for i in range(radii.size):
        radius = float(radii[i])
        squares: list[Field] = []
        window: list[npt.NDArray[np.int64]] = []
        for axis, (n, side) in enumerate(zip(shape, sides, strict=True)):
            offset = (np.arange(n) + 0.5) * side - centres[i, axis]
            offset -= n * side * np.rint(offset / (n * side))
            near = np.flatnonzero(np.abs(offset) < reach * radius)
            squares.append((offset[near] / radius) ** 2)
            window.append(near)
        box = np.ix_(*window)
        distance = np.sqrt(sum(np.ix_(*squares)))
        nearest = first[box]
        second[box] = np.minimum(second[box], np.maximum(nearest, distance))
        first[box] = np.minimum(nearest, distance)
    return first, second


def _smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], sides: tuple[float, ...], length: float
) -> Field:
    """Periodic Gaussian field of zero mean and unit variance with covariance exp(−(r/length)²)."""
    spectrum = fft.rfftn(rng.standard_normal(shape))
    for axis, (n, side) in enumerate(zip(shape, sides, strict=True)):
        k = 2.0 * math.pi * (fft.rfftfreq if axis == len(shape) - 1 else fft.fftfreq)(n, side)
        profile = np.exp(-((k * length) ** 2) / 8.0)
        spectrum *= profile.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    field = np.asarray(fft.irfftn(spectrum, s=shape))
    return (field - field.mean()) / field.std()


def _smallest(field: Field, count: int) -> npt.NDArray[np.bool_]:
    """The `count` voxels with the smallest values; ties go to the lower flat index."""
    flat = field.ravel()
    chosen = np.zeros(flat.size, dtype=bool)
    if count > 0:
        limit = np.partition(flat, count - 1)[count - 1]
        chosen[flat < limit] = True
        ties = np.flatnonzero(flat == limit)
        chosen[ties[: count - int(chosen.sum())]] = True
    return chosen.reshape(field.shape)
