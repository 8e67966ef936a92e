"""Conditions that every medium meets, so that no annealing is started towards what cannot exist."""

import numpy as np

from fetopo.microstructure.descriptors import TwoPointMap
from fetopo.microstructure.descriptors._common import Counts, Field
from fetopo.microstructure.reconstruction.targets import TwoPointTarget

TOLERANCE = 1e-9


def check_correlation(
    target: TwoPointTarget,
    lags: Counts,
    values: Field,
    origin: float,
    fraction: float,
    shape: tuple[int, ...],
    sides: tuple[float, ...],
) -> Field:
    """S₂ at the lags, once it is known to be one that a medium may have.

        S₂(0) = φ;   max(0, 2φ − 1) ≤ S₂(h) ≤ φ;   φ − S₂(2h) ≤ 2 (φ − S₂(h))

    The last is the triangle inequality for two equal steps: φ − S₂ grows at least linearly where it leaves 0,
    which a Gaussian, smooth at the origin, does not. These are necessary, not sufficient. Measured values,
    which the border of an image disturbs, are only brought back into their bounds.

    Raises:
        ValueError: A condition is not met.

    Source:
        Torquato, Ind. Eng. Chem. Res. 45, 6923 (2006), doi:10.1021/ie058082t.
    """
    voxel = 1.0 / float(np.prod(shape))
    measured = isinstance(target.source, TwoPointMap) or hasattr(target.source, "value")
    if abs(origin - fraction) > (2e-3 if measured else TOLERANCE) + 0.51 * voxel:
        raise ValueError(f"S₂(0) is {origin:g}: expected the volume fraction, {fraction:g}")
    low, high = max(0.0, 2.0 * fraction - 1.0), fraction
    if measured:
        return np.clip(values, low, high)
    length = np.linalg.norm(lags * sides, axis=1)
    wrong = np.flatnonzero((values < low - TOLERANCE) | (values > high + TOLERANCE))
    if wrong.size:
        i = wrong[np.argmin(length[wrong])]
        raise ValueError(
            f"S₂ is {values[i]:g} at {length[i]:g} m: expected {low:g} to {high:g}, as φ = {fraction:g}"
        )
    twice = target.values(np.asarray(2 * lags * sides, dtype=np.float64))
    broken = np.flatnonzero(fraction - twice > 2.0 * (fraction - values) + TOLERANCE + voxel)
    if broken.size:
        i = broken[np.argmin(length[broken])]
        raise ValueError(
            f"S₂ is {values[i]:g} at {length[i]:g} m and {twice[i]:g} at twice that: no medium has this, "
            f"since φ − S₂(2r) ≤ 2 (φ − S₂(r)): {fraction - twice[i]:g} and {2 * (fraction - values[i]):g}"
        )
    return values


def check_path(values: Field, side: float, fraction: float) -> None:
    """Raise ValueError unless L(0) = φ, L ≥ 0, L does not grow and is convex."""
    if abs(values[0] - fraction) > 5e-3:
        raise ValueError(f"L(0) is {values[0]:g}: expected the volume fraction of the phase, {fraction:g}")
    if (values < -TOLERANCE).any():
        i = int(np.flatnonzero(values < -TOLERANCE)[0])
        raise ValueError(f"L is {values[i]:g} at {i * side:g} m: expected 0 or more")
    grows = np.flatnonzero(np.diff(values) > TOLERANCE)
    if grows.size:
        i = int(grows[0])
        raise ValueError(
            f"L grows from {values[i]:g} at {i * side:g} m to {values[i + 1]:g} at {(i + 1) * side:g} m: "
            "a longer segment cannot fit more often"
        )
    bends = np.flatnonzero(np.diff(values, 2) < -2e-3 * fraction)  # borders of an image disturb a little
    if bends.size:
        i = int(bends[0]) + 1
        raise ValueError(f"L is not convex at {i * side:g} m: the density of chords would be negative there")


def check_chords(density: Field, side: float) -> None:
    """Raise ValueError unless the density of chord lengths is nowhere negative and somewhere positive."""
    if (density < 0.0).any():
        i = int(np.flatnonzero(density < 0.0)[0])
        raise ValueError(
            f"density of chord lengths is {density[i]:g} at {(i + 1) * side:g} m: expected 0 or more"
        )
    if not density.any():
        raise ValueError("density of chord lengths is 0 everywhere: expected some chords")
