"""Media with given descriptors: from another image or from formulas, by exchanging voxels.

    targets = targets_from(image, phase=1, two_point=1.0, lineal_path=1.0)
    found = reconstruct((128, 128), targets, voxel_size=image.voxel_size, seed=1)

The result is a periodic two-phase image, its volume fraction exact to one voxel, with how near it came to
each target and the criterion that ended the search. Method and figures: docs/reconstruction.md.
"""

from fetopo.microstructure.reconstruction.annealing import Annealing, reconstruct
from fetopo.microstructure.reconstruction.result import Reached, Reconstruction, Step
from fetopo.microstructure.reconstruction.targets import (
    LineTarget,
    Target,
    TwoPointTarget,
    match_chord_lengths,
    match_lineal_path,
    match_two_point,
    targets_from,
)

__all__ = [
    "Annealing",
    "LineTarget",
    "Reached",
    "Reconstruction",
    "Step",
    "Target",
    "TwoPointTarget",
    "match_chord_lengths",
    "match_lineal_path",
    "match_two_point",
    "reconstruct",
    "targets_from",
]
