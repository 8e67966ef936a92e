"""Periodic random and ordered media.

A generator returns an `Image`, or a `Packing` of hard spheres that makes one. The cell is periodic; random
media are reproducible from `seed`. Phases are cut out of a continuous field by rank (the k voxels where it
is smallest), so that a volume fraction is met to one voxel. Lengths are in metres.
"""

from fetopo.microstructure.generate.electrodes import electrode
from fetopo.microstructure.generate.fields import gaussian_field
from fetopo.microstructure.generate.hard import dense_packing, random_sequential_addition
from fetopo.microstructure.generate.layers import checkerboard, laminate
from fetopo.microstructure.generate.overlapping import ellipsoids, overlapping_spheres, platelets
from fetopo.microstructure.generate.packing import Packing, regular_array
from fetopo.microstructure.generate.surfaces import minimal_surface

__all__ = [
    "Packing",
    "checkerboard",
    "dense_packing",
    "electrode",
    "ellipsoids",
    "gaussian_field",
    "laminate",
    "minimal_surface",
    "overlapping_spheres",
    "platelets",
    "random_sequential_addition",
    "regular_array",
]
