"""Effective conductivity of a voxel image: on its voxels, with an interval, or on a mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fetopo.microstructure.image import Slab, VoxelSize, voxel_sides
from fetopo.microstructure.mesh import voxel_cell
from fetopo.transport.discretization import Discretization, choose, solver_obstacles
from fetopo.transport.homogenization.conductivity import Conductivity, checked_values
from fetopo.transport.homogenization.effective import BOUNDARIES, effective_conductivity
from fetopo.transport.state import PetscOptions
from fetopo.transport.voxel import VoxelGrid
from fetopo.transport.voxel_enclosure import conductivity_of_voxels, periodic_problem

Method = Literal["interval", "elements"]


@dataclass(frozen=True)
class ImageConductivity:
    """Result of :func:`image_conductivity`; tensors are d×d, in the unit of the input.

    Attributes:
        tensor: effective conductivity by trilinear elements, symmetric.
        lower_bound, upper_bound: as quadratic forms they hold the exact tensor of the periodic voxel image:
            the lower one from the flux of finite volumes, the upper one is `tensor`. None where not known.
        iterations: Krylov iterations.
        volume_fractions: share of each label.
        conventions: discretization, boundary, degree, elements.
    """

    tensor: npt.NDArray[np.float64]
    lower_bound: npt.NDArray[np.float64] | None
    upper_bound: npt.NDArray[np.float64] | None
    iterations: int
    volume_fractions: Mapping[int, float]
    conventions: Mapping[str, Any] = field(default_factory=dict)


def image_conductivity(
    comm: Any,
    labels: npt.NDArray[Any] | Slab,
    conductivity: Conductivity,
    *,
    voxel_size: VoxelSize | None = None,
    method: Method = "interval",
    discretization: Discretization | None = None,
    boundary: str = "periodic",
    degree: int = 1,
    petsc_options: PetscOptions | None = None,
    **options: Any,
) -> ImageConductivity:
    """Effective conductivity tensor of a voxel image with one conductivity per label.

    Dᵢⱼ = 1/|Y| ∫ κ (eᵢ + ∇χᵢ)·(eⱼ + ∇χⱼ) dx, χ periodic. On voxels no mesh is made.

    Args:
        comm: communicator to distribute the image over.
        labels: integer labels, 2D or 3D: the same array on every rank, or the slab of this rank.
        conductivity: for every label, as :func:`effective_conductivity` has them.
        voxel_size: sides of a voxel, of which only the ratios matter; default those of the slab, else 1.
        method: "interval" for both bounds, "elements" for the tensor and upper bound only.
        discretization: "voxel" or "mesh". By default "voxel", but "mesh" where voxels cannot do what is
            asked: infinite or varying conductivities, tensors that are not diagonal, another boundary or
            degree, resistive interfaces, options of PETSc other than `ksp_rtol`; the log says so.
        boundary, degree, petsc_options, options: as for :func:`effective_conductivity`.
    Raises:
        ValueError: as :func:`effective_conductivity`, or a discretization or method that does not exist or
            cannot do what is asked; on every rank.
        RuntimeError: the solver did not converge.
    Source: Prager and Synge (1947), doi:10.1090/qam/25902, for the bounds.
    """
    slab = labels if isinstance(labels, Slab) else Slab.share(comm, labels)
    if voxel_size is not None:
        slab = Slab(comm, slab.values, voxel_sides(voxel_size, slab.dim), slab.bounds)
    if slab.values.dtype.kind not in "iub":
        raise ValueError(f"labels must be integers, found {slab.values.dtype}")
    if method not in ("interval", "elements"):
        raise ValueError(f"method is {method!r}: expected interval or elements")
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary is {boundary!r}: expected one of {', '.join(BOUNDARIES)}")
    fractions = slab.phases()
    for label in conductivity:
        if isinstance(label, str):
            raise ValueError(f"no phase {label!r}: an image has labels, here {list(fractions)}")
    by_label = {int(label): value for label, value in conductivity.items()}
    values = checked_values(by_label, slab.dim, list(fractions), "image has labels")
    obstacles = [] if boundary == "periodic" else [f"boundary {boundary!r}"]
    obstacles += [] if degree == 1 else [f"degree {degree}"]
    obstacles += _obstacles(values) + [name.replace("_", " ") for name in options if options[name]]
    chosen = choose(comm, discretization, obstacles + solver_obstacles(petsc_options))
    conventions = {
        "discretization": chosen,
        "boundary": boundary,
        "degree": degree,
        "elements": "one per voxel",
    }
    if chosen == "mesh":
        cell = voxel_cell(comm, slab)
        found = effective_conductivity(
            cell, by_label, boundary=boundary, degree=degree, petsc_options=petsc_options, **options
        )
        upper = found.tensor if boundary == "periodic" and np.isfinite(found.tensor).all() else None
        return ImageConductivity(found.tensor, None, upper, found.iterations, fractions, conventions)
    if not any(np.any(value) for value in values.values()):
        raise ValueError("no phase conducts: all conductivities are zero")
    grid = VoxelGrid(comm, slab.shape, slab.voxel_size, periodic=True)
    kappa = conductivity_of_voxels(grid.take(slab), values)
    rtol = (petsc_options or {}).get("ksp_rtol")
    elements = periodic_problem(grid, kappa, "elements", rtol)
    tensor, lower, iterations = elements.tensor, None, elements.iterations
    if method == "interval":
        volumes = periodic_problem(grid, kappa, "finite volumes", rtol)
        lower, iterations = volumes.lower_bound(), iterations + volumes.iterations
    return ImageConductivity(tensor, lower, tensor, iterations, fractions, conventions)


def _obstacles(values: Mapping[int, Any]) -> list[str]:
    """Conductivities that voxels cannot have."""
    found = []
    for value in values.values():
        if not isinstance(value, np.ndarray):
            found.append("conductivity that varies within a phase")
        elif not np.isfinite(value).all():
            found.append("infinite conductivity")
        elif value.ndim and np.any(value != np.diag(np.diag(value))):
            found.append("conductivity tensor with entries off its diagonal")
    return list(dict.fromkeys(found))
