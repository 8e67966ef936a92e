"""Design of a periodic two-material cell: from a wanted property to a verified crisp structure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._mpi import require
from fetopo.design.adjoint import MeanDensity, TensorFunctional
from fetopo.design.crisp import Labels, threshold, verify, verify_voxels
from fetopo.design.density import DensityMap, HeavisideProjection, HelmholtzFilter, Interpolation
from fetopo.design.goal import Goal, check_design
from fetopo.design.initial import from_field, start_field
from fetopo.design.problem import Callback, Constraint, DesignProblem, DesignResult, LoopOptions
from fetopo.design.voxels import VoxelFilter, VoxelState, VoxelTensorFunctional
from fetopo.microstructure.mesh import UnitCell, to_image
from fetopo.transport import materials
from fetopo.transport.homogenization import CellProblem
from fetopo.transport.state import PetscOptions
from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid

__all__ = [
    "CellDesign", "Goal", "check_design", "design_cell", "initial_design", "threshold", "verify",
    "verify_voxels",
]  # fmt: skip

Array = npt.NDArray[np.float64]

#: Conductivity, relative to the better phase, that an insulator has while the design is still grey. The
#: finished design is solved with the insulator left out.
VOID_CONTRAST = 1e-3

#: By how much a design for a target tensor may fall short of its volume fraction, relative to it.
TARGET_SLACK = 0.01

#: Krylov tolerance while designing. The tensor's error is of the order of its square; what asks for more is
#: that a run takes the same path on any number of ranks.
DESIGN_OPTIONS: dict[str, Any] = {"ksp_rtol": 1e-10}

#: The same on voxels. There runs with 1e-4 to 1e-10 took the same path to the same crisp structure on 1, 2
#: and 3 ranks, with densities that differed by 6e-8 and less.
VOXEL_TOLERANCE = 1e-6


@dataclass(frozen=True)
class CellDesign:
    """A finished design of a periodic cell.

    Attributes:
        cell: the cell or the grid of voxels it was designed on.
        result: the run: objective, constraints, history.
        problem: the cell problem at the final density.
        density: physical density as an array where the cell is a grid, else None.
        tensor: effective tensor of the density as the optimizer saw it.
        crisp: 0 or 1 for each owned cell, at the wanted volume fraction.
        labels: the same as an integer array where the cell is a grid, else None.
        verified_tensor: effective tensor of the crisp structure, solved again with the true conductivities by
            elements: on voxels an upper bound of what the structure exactly has.
        verified_refinement: each voxel was split this many times along every axis for that.
        volume_fraction: of the crisp structure.
        reached, verified: the goal's number before and after.
        bound: the most that any structure of the wanted volume fraction can reach, or None for a target.
        crisp_bound: the same for the volume fraction of the crisp structure, which a grid rounds.
        verified_lower_bound: on a grid of voxels guaranteed lower bound of the tensor, else None.
        verified_at_least: the goal's number at that bound; None on a mesh and for a target.
    """

    cell: UnitCell | VoxelGrid
    result: DesignResult
    problem: CellProblem | VoxelState
    density: Array | None
    tensor: Array
    crisp: Array
    labels: Labels | None
    verified_tensor: Array
    verified_refinement: int
    volume_fraction: float
    reached: float
    verified: float
    bound: float | None
    crisp_bound: float | None
    verified_lower_bound: Array | None = None
    verified_at_least: float | None = None

    @property
    def comm(self) -> MPI.Comm:
        return self.cell.comm if isinstance(self.cell, VoxelGrid) else self.cell.mesh.comm

    @property
    def discretization(self) -> str:
        """ "mesh" or "voxel"."""
        return "voxel" if isinstance(self.cell, VoxelGrid) else "mesh"

    @property
    def bound_fraction(self) -> float | None:
        """Verified value relative to the bound for the crisp structure's own volume fraction."""
        return None if self.crisp_bound is None else self.verified / self.crisp_bound


@dataclass(frozen=True)
class _Pieces:
    """What a design consists of, on a mesh or on voxels."""

    filter: HelmholtzFilter | VoxelFilter
    density: DensityMap
    interpolation: Interpolation
    problem: CellProblem | VoxelState
    objective: TensorFunctional | VoxelTensorFunctional
    solver: Any


def design_cell(
    cell: UnitCell | VoxelGrid,
    *,
    conductivity: tuple[float, float],
    volume_fraction: float,
    filter_radius: float,
    goal: Goal | None = None,
    start: Array | str = "inclusions",
    seed: int = 0,
    law: Callable[..., Any] = materials.simp,
    options: LoopOptions | None = None,
    refine: int = 2,
    petsc_options: PetscOptions | None = None,
    callbacks: Sequence[Callback] = (),
) -> CellDesign:
    """Distribute two materials in a periodic cell so that it has a wanted effective conductivity.

    Args:
        cell: periodic cell with its mesh, or a periodic grid of voxels, which needs none.
        conductivity: of the poorer and the better material; the poorer may be an insulator (0).
        volume_fraction: of the better material; an upper limit, or the value itself for a target.
        filter_radius: smallest length over which the structure varies, in the unit of the cell.
        goal: default: as conductive as possible in every direction.
        start: "inclusions", "random", or one value in [0, 1] per owned cell.
        seed: of the random start.
        law: interpolation between the materials, see :mod:`fetopo.transport.materials`.
        options: continuation and stopping.
        refine: how often each voxel is split along an axis to verify the crisp design.
        petsc_options: of the corrector problems while designing; on a mesh only.
        callbacks: called after every iteration.
    Raises:
        ValueError: values out of range, a target that no structure with this volume fraction has, a grid
            that is not periodic, or PETSc options for a grid of voxels.
        RuntimeError: a linear solver did not converge.
    """
    goal = goal or Goal()
    low, high = float(conductivity[0]), float(conductivity[1])
    check_design(cell.dim, (low, high), volume_fraction, goal)
    projection = HeavisideProjection()
    grey = max(low, VOID_CONTRAST * high), high
    if isinstance(cell, VoxelGrid):
        if petsc_options:
            raise ValueError(f"a grid of voxels is solved without PETSc, found options {dict(petsc_options)}")
        pieces = _on_voxels(cell, filter_radius, projection, grey, law, goal)
    else:
        pieces = _on_mesh(cell, filter_radius, projection, grey, law, goal, petsc_options)
    density, volumes = pieces.density, pieces.filter.volumes
    comm = density.comm
    volume = MeanDensity(density, volumes, cell.volume)
    constraints = [Constraint("volume", volume, volume_fraction)]
    if goal.kind == "target":
        # More of the better material always helps a maximum, but a target belongs to one volume fraction.
        # The optimizer cannot move along an exact equality of convex approximations, hence the slack.
        constraints.append(
            Constraint("least_volume", volume, volume_fraction * (1 - TARGET_SLACK), "at least")
        )
    m = initial_design(cell, volumes, volume_fraction, start, seed)
    run = DesignProblem(
        density,
        pieces.objective,
        constraints,
        volumes=volumes,
        projection=projection,
        interpolation=pieces.interpolation,
        solvers=[pieces.solver, *pieces.filter.solvers],
        options=options,
        callbacks=callbacks,
    )
    result = run.run(m)
    crisp = threshold(result.rho, volumes, comm)
    lower: Array | None = None
    image: Array | None = None
    labels: Labels | None
    if isinstance(cell, VoxelGrid):
        verified, lower, labels = verify_voxels(cell, crisp, (low, high), refine)
        image = cell.gather(result.rho.reshape(cell.own_shape))
    else:
        verified, labels = verify(cell, crisp, (low, high), refine)
        image = None if cell.grid is None else to_image(cell, result.rho)
    fraction = float(comm.allreduce(float(crisp @ volumes))) / cell.volume
    tensor = np.array(pieces.problem.tensor)
    return CellDesign(
        cell,
        result,
        pieces.problem,
        image,
        tensor,
        crisp,
        labels,
        verified,
        refine if labels is not None else 1,
        fraction,
        goal.reached(tensor),
        goal.reached(verified),
        goal.bound(volume_fraction, (low, high), cell.dim),
        goal.bound(fraction, (low, high), cell.dim),
        lower,
        None if lower is None or goal.kind == "target" else goal.reached(lower),
    )


def _on_mesh(
    cell: UnitCell,
    radius: float,
    projection: HeavisideProjection,
    conductivity: tuple[float, float],
    law: Callable[..., Any],
    goal: Goal,
    petsc_options: PetscOptions | None,
) -> _Pieces:
    interpolation = Interpolation(cell.mesh, *conductivity, law=law)
    filter_ = HelmholtzFilter(cell.mesh, radius, cell=cell)
    density = DensityMap(cell.mesh, filter_, projection)
    kappa = interpolation.ufl(density.rho)
    problem = CellProblem(cell, kappa, petsc_options=DESIGN_OPTIONS | dict(petsc_options or {}))
    assert density.rho is not None
    objective = TensorFunctional(problem, goal.function(), density.rho)
    return _Pieces(filter_, density, interpolation, problem, objective, problem.solver)


def _on_voxels(
    grid: VoxelGrid,
    radius: float,
    projection: HeavisideProjection,
    conductivity: tuple[float, float],
    law: Callable[..., Any],
    goal: Goal,
) -> _Pieces:
    interpolation = Interpolation(grid, *conductivity, law=law)
    filter_ = VoxelFilter(grid, radius)
    density = DensityMap(grid, filter_, projection)
    state = VoxelState(VoxelCellProblem(grid, rtol=VOXEL_TOLERANCE), density, interpolation)
    objective = VoxelTensorFunctional(state, goal.function())
    return _Pieces(filter_, density, interpolation, state, objective, state)


def initial_design(
    cell: UnitCell | VoxelGrid, volumes: Array, volume_fraction: float, start: Array | str, seed: int
) -> Array:
    """First design variables: given, or from a named field."""
    if isinstance(cell, VoxelGrid):
        comm, shared = cell.comm, cell.blocks.comm
    else:
        comm = shared = cell.mesh.comm
    if isinstance(start, str):
        return from_field(start_field(cell, start, seed), volumes, volume_fraction, shared)
    m = np.asarray(start, dtype=float)
    message = f"the initial design needs one value per owned cell, found shape {m.shape}"
    require(comm, m.shape == volumes.shape, message)
    # Also where every rank has the whole grid and works alone.
    require(comm, bool(np.all((m >= 0) & (m <= 1))), "the initial design must lie between 0 and 1")
    return m.copy()
