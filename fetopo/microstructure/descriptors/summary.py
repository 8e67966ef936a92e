"""All that `fetopo characterize` says of a phase."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from fetopo.microstructure.descriptors.correlation import two_point_correlation
from fetopo.microstructure.descriptors.lineal import chord_lengths, grid_of_lengths, lineal_path
from fetopo.microstructure.descriptors.surface import specific_surface
from fetopo.microstructure.image import Image, percolating_parts


def volume_fractions(image: Image) -> dict[int, float]:
    """Volume fraction [-] of every label of an image."""
    return image.phases


def characterize(image: Image, phase: int | Iterable[int]) -> dict[str, Any]:
    """Descriptors of a phase as one dictionary of plain values, ready for JSON (`fetopo characterize`).

    Args:
        image: The image, taken as not periodic.
        phase: Label of the phase, or several that count as one.

    Returns:
        shape, voxel_size [m per axis], porosity (volume fraction of the phase) [-],
        volume_fractions {label: [-]}, percolating_fraction [axis], mean_chord_length [m per axis, None where
        no chord is complete], specific_surface [1/m], two_point_correlation {r [m], value}, lineal_path {r
        [m], value [axis]} up to half of the smallest side, on multiples of the smallest side of a voxel
        (linear in between for other axes).

    Raises:
        ValueError: The phase does not occur in the image.
    """
    mask = image.mask(phase)
    sides, axes = image.voxel_size, range(image.dim)
    count = int(np.count_nonzero(mask))
    paths = [lineal_path(mask, sides, axis) for axis in axes]
    r = grid_of_lengths(image.shape, sides)
    chords = [chord_lengths(mask, sides, axis).mean for axis in axes]
    return {
        "shape": list(image.shape),
        "voxel_size": list(sides),
        "porosity": count / mask.size,
        "volume_fractions": {str(label): fraction for label, fraction in volume_fractions(image).items()},
        "percolating_fraction": [int(np.count_nonzero(part)) / count for part in percolating_parts(mask)],
        "mean_chord_length": [None if math.isnan(mean) else mean for mean in chords],
        "specific_surface": specific_surface(mask, sides),
        "two_point_correlation": two_point_correlation(mask, sides).to_dict(),
        "lineal_path": {"r": r.tolist(), "value": [np.interp(r, p.r, p.value).tolist() for p in paths]},
    }
