"""Directions of particles, spread about an axis."""

import math

import numpy as np

from fetopo.microstructure.generate._cell import Field


def watson_directions(rng: np.random.Generator, axis: Field, concentration: float, number: int) -> Field:
    """Unit vectors n with density ∝ exp(κ (n·a)²) about the unit axis a, in 2D or 3D.

    κ = ∞ aligns them with a, κ = 0 is isotropic, κ = −∞ lays them across a.

    Returns:
        Directions, shape (number, d).

    Source:
        Best, Fisher, Aust. J. Stat. 28, 13 (1986), doi:10.1111/j.1467-842X.1986.tb00580.x.
    """
    dim = axis.size
    if dim == 2:
        if math.isinf(concentration):
            angle: Field = np.zeros(number)
        else:  # cos²θ = (1 + cos 2θ)/2: von Mises in 2θ, which covers n and −n alike
            angle = 0.5 * rng.vonmises(0.0, 0.5 * abs(concentration), number)
        angle = angle + (0.5 * math.pi if concentration < 0.0 else 0.0)
        return np.cos(angle)[:, None] * axis + np.sin(angle)[:, None] * np.array([-axis[1], axis[0]])
    cosine = _cosines(rng, concentration, number)
    around = rng.standard_normal((number, 3))
    around -= (around @ axis)[:, None] * axis
    around /= np.linalg.norm(around, axis=1)[:, None]
    return cosine[:, None] * axis + np.sqrt(1.0 - cosine**2)[:, None] * around


def _cosines(rng: np.random.Generator, concentration: float, number: int) -> Field:
    """Numbers in [0, 1] with density ∝ exp(κt²), by rejection."""
    if math.isinf(concentration):
        return np.full(number, 1.0 if concentration > 0.0 else 0.0)
    found: Field = np.empty(0)
    while found.size < number:
        u = rng.random(2 * number + 16)
        if concentration > 1e-6:  # from exp(κt)
            t = 1.0 + np.log(u + (1.0 - u) * math.exp(-concentration)) / concentration
            log_ratio = concentration * t * (t - 1.0)
        elif concentration >= -1.0:
            t, log_ratio = u, concentration * u**2
        else:  # from a half normal
            t = np.abs(rng.standard_normal(u.size)) / math.sqrt(-2.0 * concentration)
            log_ratio = np.where(t <= 1.0, 0.0, -np.inf)
        found = np.append(found, np.clip(t[rng.random(t.size) < np.exp(log_ratio)], 0.0, 1.0))
    return found[:number]
