"""Level cuts of Gaussian random fields."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import fft

from fetopo.microstructure.generate._cell import (
    Field,
    cell_of,
    check_fraction,
    check_radius,
    smallest,
)
from fetopo.microstructure.image import DEFAULT_VOXEL_SIZE, Image, VoxelSize

Spectrum = Callable[[Field], npt.ArrayLike]

SPECTRA: dict[str, Callable[[Field, int], Field]] = {
    "power law": lambda q, dim: (1.0 + q**2) ** (-0.5 * (dim + 1)),
    "spinodal": lambda q, dim: np.exp(-0.5 * ((q / (2.0 * math.pi) - 1.0) / 0.1) ** 2),
}
"""Spectral densities of kℓ and the dimension."""


def gaussian_field(
    shape: Sequence[int],
    *,
    volume_fraction: float,
    correlation_length: float | None = None,
    spectrum: str | Spectrum = "gaussian",
    seed: int,
    voxel_size: VoxelSize = DEFAULT_VOXEL_SIZE,
) -> Image:
    """Thresholded Gaussian random field of a given spectral density S(|k|), isotropic.

    By name, with the correlation length ℓ and the covariance of the field before it is thresholded:
    "gaussian", S ∝ exp(−(kℓ)²/4), covariance exp(−(r/ℓ)²);
    "power law", S ∝ (1 + (kℓ)²)^(−(d+1)/2), covariance exp(−r/ℓ): rough interfaces;
    "spinodal", S ∝ exp(−(kℓ − 2π)²/(2w²)) with w = 2π/10, a shell of waves of length ℓ, covariance near
    J₀(2πr/ℓ) in 2D and sinc(2r/ℓ) in 3D: bicontinuous, as after spinodal decomposition.

    Args:
        shape: Voxels along each axis, 2D or 3D.
        volume_fraction: Fraction of phase 1 [-].
        correlation_length: ℓ [m], at least one voxel (two for "spinodal"), at most a quarter of the cell;
            None with a function.
        spectrum: A name, or a function of an array of |k| > 0 [rad/m] that returns S ≥ 0 in any unit.
        seed: Seed of the random numbers.
        voxel_size: Side of a voxel [m], one or one per axis.

    Returns:
        Labels 0 and 1; phase 1 is where the field is smallest.

    Raises:
        ValueError: A fraction, length or shape is out of range, an unknown name, or a spectrum that is
            negative, not finite or zero on all waves of the cell.

    Source:
        Quiblier, J. Colloid Interface Sci. 98, 84 (1984), doi:10.1016/0021-9797(84)90481-8.
    """
    shape, sides = cell_of(shape, voxel_size)
    check_fraction("volume_fraction", volume_fraction)
    rng = np.random.default_rng(seed)
    if callable(spectrum):
        if correlation_length is not None:
            raise ValueError(
                f"correlation_length is {correlation_length:g} m beside a function for the spectrum: "
                "expected None"
            )
        field = spectral_noise(rng, shape, sides, spectrum)
    else:
        if spectrum not in ("gaussian", *SPECTRA):
            raise ValueError(
                f"spectrum is {spectrum!r}: expected a function or one of {', '.join(('gaussian', *SPECTRA))}"
            )
        length = math.nan if correlation_length is None else correlation_length
        check_radius("correlation_length", length, shape, sides)
        if spectrum == "gaussian":
            field = smooth_noise(rng, shape, sides, length)
        else:
            if spectrum == "spinodal" and length < 2.0 * max(sides):
                raise ValueError(
                    f"correlation_length is {length:g} m: "
                    f"expected waves of {2.0 * max(sides):g} (two voxels) or more"
                )
            density, dim = SPECTRA[spectrum], len(shape)
            field = spectral_noise(rng, shape, sides, lambda k: density(k * length, dim))
    return Image(smallest(field, round(volume_fraction * field.size)), sides)


def smooth_noise(
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


def spectral_noise(
    rng: np.random.Generator, shape: tuple[int, ...], sides: tuple[float, ...], density: Spectrum
) -> Field:
    """Periodic Gaussian field of zero mean and unit variance with a spectral density S(|k|), k in rad/m.

    Raises:
        ValueError: The density is negative or not finite, or zero on all waves of the cell.
    """
    square = np.zeros(())
    for axis, (n, side) in enumerate(zip(shape, sides, strict=True)):
        k = 2.0 * math.pi * (fft.rfftfreq if axis == len(shape) - 1 else fft.fftfreq)(n, side)
        square = square[..., None] + k**2
    wave = np.sqrt(square)
    wave.flat[0] = wave.flat[1] if wave.size > 1 else 1.0
    values = np.array(np.broadcast_to(np.asarray(density(wave), dtype=float), wave.shape))
    if not np.isfinite(values).all() or values.min() < 0.0:
        wrong = values[~(values >= 0.0) | np.isinf(values)].flat[0]
        raise ValueError(f"spectrum holds {wrong}: expected finite values, not negative, for |k| > 0")
    values.flat[0] = 0.0  # no mean
    if not values.any():
        raise ValueError(
            f"spectrum is 0 on all waves of the cell, |k| from {wave.min():g} to {wave.max():g} rad/m: "
            "expected some that are not"
        )
    field = np.asarray(fft.irfftn(fft.rfftn(rng.standard_normal(shape)) * np.sqrt(values), s=shape))
    return (field - field.mean()) / field.std()
