"""Properties of one window of an image, as functions of its labels; each window is solved on one rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo.microstructure._voxels import VoxelSize, voxels_of
from fetopo.microstructure.image import connectivity
from fetopo.transport.homogenization import image_conductivity
from fetopo.transport.tortuosity import tortuosity

#: A number or tensor of a window of labels (2D or 3D array).
Property = Callable[[npt.NDArray[Any]], float | npt.NDArray[np.float64]]


def volume_fraction(phase: int | Iterable[int]) -> Property:
    """Volume fraction [-] of a phase, or of several together; 0 where it does not occur."""
    wanted = _wanted(phase)
    return lambda window: float(np.mean(voxels_of(window, wanted)))


def through_diffusivity(phase: int | Iterable[int], axis: int = 0, **options: Any) -> Property:
    """Through-feature diffusivity D_eff/D₀ of a phase along an axis, no flux through the sides.

    0 where the phase does not connect the two faces of the window. `options` go to
    :func:`fetopo.transport.tortuosity.tortuosity` (voxel_size, method, discretization, petsc_options); the
    method is "elements" unless given.
    """
    wanted = _wanted(phase)

    def property_of(window: npt.NDArray[Any]) -> float:
        mask = voxels_of(window, wanted)
        if not mask.any() or not next(iter(connectivity(mask, [axis]))).percolating:
            return 0.0
        chosen = {"method": "elements"} | options
        return tortuosity(MPI.COMM_SELF, mask, [axis], **chosen)[0].relative_diffusivity

    return property_of


def effective(
    conductivity: Mapping[int, float | npt.ArrayLike], *, voxel_size: VoxelSize = 1.0, **options: Any
) -> Property:
    """Effective conductivity tensor, d×d, in the unit of the input; zero where nothing conducts.

    `options` go to :func:`fetopo.transport.homogenization.image_conductivity`: discretization, boundary
    conditions, degree, petsc_options. A phase of the window without a conductivity is a ValueError; one of
    the list may be absent from a window.
    """
    values = {int(label): value for label, value in conductivity.items()}

    def property_of(window: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        present = [int(label) for label in np.unique(window)]
        missing = [label for label in present if label not in values]
        if missing:
            raise ValueError(f"phases {missing} have no conductivity, found {sorted(values)}")
        if not any(np.any(values[label]) for label in present):
            return np.zeros((window.ndim,) * 2)
        used = {label: values[label] for label in present}
        chosen = {"method": "elements", "voxel_size": voxel_size} | options
        return image_conductivity(MPI.COMM_SELF, window, used, **chosen).tensor

    return property_of


def _wanted(phase: int | Iterable[int]) -> list[int]:
    return [int(phase)] if isinstance(phase, int | np.integer) else [int(p) for p in phase]
