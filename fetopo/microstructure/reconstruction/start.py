"""Where an annealing starts: voxels thrown at random, or a Gaussian field whose cut is near the S₂ wanted."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import fft, special

from fetopo.microstructure.descriptors._common import Field
from fetopo.microstructure.generate._cell import smallest
from fetopo.microstructure.image import Image, Mask
from fetopo.microstructure.reconstruction.targets import Target, TwoPointTarget


def starting_mask(
    start: str | Image,
    targets: Sequence[Target],
    rng: np.random.Generator,
    shape: tuple[int, ...],
    sides: tuple[float, ...],
    fraction: float,
    count: int,
) -> Mask:
    """Voxels of phase 1 to start from, `count` of them.

    Raises:
        ValueError: An unknown name, or an image of another shape, other labels or another count.
    """
    if isinstance(start, Image):
        if start.shape != shape or not set(start.phases) <= {0, 1}:
            raise ValueError(
                f"start has shape {start.shape} and labels {list(start.phases)}: "
                f"expected {shape} and labels 0 and 1"
            )
        mask: Mask = start.labels == 1
        if np.count_nonzero(mask) != count:
            raise ValueError(f"start has {np.count_nonzero(mask)} voxels of phase 1: expected {count}")
        return mask
    if start not in ("informed", "random"):
        raise ValueError(f"start is {start!r}: expected informed, random or an image")
    field = rng.standard_normal(shape)
    if start == "informed":
        wanted = [t for t in targets if isinstance(t, TwoPointTarget) and t.lags in ("all", "radial")]
        if wanted:
            field = _correlated(field, wanted[0], sides, fraction)
    return smallest(field, count)


def _correlated(noise: Field, target: TwoPointTarget, sides: tuple[float, ...], fraction: float) -> Field:
    """Noise with the covariance ρ(h) whose level cut has S₂, as far as its spectrum is not negative."""
    axes = [np.fft.fftfreq(n, 1.0 / n) * h for n, h in zip(noise.shape, sides, strict=True)]
    lags = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, noise.ndim)
    wanted = target.values(lags).reshape(noise.shape)
    wanted = np.where(np.isfinite(wanted), wanted, fraction**2)
    spectrum = np.maximum(fft.rfftn(gaussian_covariance(wanted, fraction)).real, 0.0)
    return np.asarray(fft.irfftn(fft.rfftn(noise) * np.sqrt(spectrum), s=noise.shape))


def gaussian_covariance(correlation: Field, fraction: float) -> Field:
    """Covariance ρ of a Gaussian field that has S₂ once cut at φ; −1 or 1 beyond what it can have.

        S₂ = φ² + 1/(2π) ∫_0^{asin ρ} exp(−t²/(1 + sin θ)) dθ,   φ = Φ(t)

    Source:
        Quiblier, J. Colloid Interface Sci. 98, 84 (1984), doi:10.1016/0021-9797(84)90481-8.
    """
    level = special.ndtri(fraction)
    angle = np.linspace(-0.5 * math.pi, 0.5 * math.pi, 4001)
    middle = 0.5 * (angle[1:] + angle[:-1])
    step = np.exp(-(level**2) / (1.0 + np.sin(middle))) * np.diff(angle) / (2.0 * math.pi)
    total = np.concatenate([[0.0], np.cumsum(step)])
    total += fraction**2 - total[angle.size // 2]
    return np.sin(np.interp(correlation, total, angle))
