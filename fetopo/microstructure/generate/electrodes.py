"""A lithium-ion electrode: particles, binder bridges, pore."""

import logging
import math
from collections.abc import Sequence

import numpy as np

from fetopo.microstructure.generate._cell import (
    Field,
    ball_volume,
    cell_of,
    check_fraction,
    check_radius,
    smallest,
)
from fetopo.microstructure.generate._spheres import push_apart, two_nearest
from fetopo.microstructure.generate.fields import smooth_noise
from fetopo.microstructure.image import DEFAULT_VOXEL_SIZE, Image, VoxelSize

logger = logging.getLogger(__name__)


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
    shape, sides = cell_of(shape, voxel_size)
    check_fraction("porosity", porosity)
    if not 0.0 <= binder < 1.0 - porosity:
        raise ValueError(f"binder is {binder}: expected 0 to less than 1 − porosity = {1.0 - porosity:g}")
    if not 0.0 <= radius_spread <= 0.6:
        raise ValueError(f"radius_spread is {radius_spread}: expected 0 to 0.6")
    if not 0.0 <= roughness <= 0.5:
        raise ValueError(f"roughness is {roughness}: expected 0 to 0.5")
    check_radius("particle_radius", particle_radius, shape, sides)

    rng = np.random.default_rng(seed)
    size = math.prod(shape)
    n_pore, n_binder = round(porosity * size), round(binder * size)
    lengths = np.array(shape) * np.array(sides)
    radii = _radii(rng, particle_radius, radius_spread, 1.0 - porosity - binder, lengths)
    centres = push_apart(rng.random((radii.size, len(shape))) * lengths, radii, lengths)
    first, second = two_nearest(shape, sides, centres, radii, reach=3.0)
    noise = smooth_noise(rng, shape, sides, 0.5 * particle_radius)

    labels = np.zeros(shape, dtype=np.uint8)
    active = smallest(first + roughness * noise, size - n_pore - n_binder)
    bridges = smallest(np.where(active, np.inf, first + second), n_binder)
    labels[active] = 1
    labels[bridges] = 2
    logger.info("electrode of shape %s: %d particles", shape, radii.size)
    return Image(labels, sides)


def _radii(rng: np.random.Generator, mean: float, spread: float, fraction: float, lengths: Field) -> Field:
    """Log-normal radii whose volumes sum to a fraction of the cell; a tail beyond [0.4, 2] means is cut."""
    sigma = math.sqrt(math.log1p(spread**2))
    dim, cell = lengths.size, float(np.prod(lengths))
    number = 8 + 2 * round(fraction * cell / (ball_volume(dim) * mean**dim))
    drawn = mean * np.clip(np.exp(sigma * rng.standard_normal(number) - 0.5 * sigma**2), 0.4, 2.0)
    volumes = np.cumsum(ball_volume(dim) * drawn**dim)
    kept = drawn[: max(2, int(np.searchsorted(volumes, fraction * cell)))]
    return kept * (fraction * cell / float(np.sum(ball_volume(dim) * kept**dim))) ** (1.0 / dim)
