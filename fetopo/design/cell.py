"""Design of a periodic two-material cell: from a wanted property to a verified crisp structure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo.design.checkpoint import Checkpoint
from fetopo.design.crisp import Labels, threshold, verify, verify_voxels
from fetopo.design.goal import Goal, check_design
from fetopo.design.model import CellModel
from fetopo.design.problem import Callback, Constraint, DesignProblem, DesignResult, LoopOptions
from fetopo.design.voxels import VoxelState
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport import materials
from fetopo.transport.homogenization import CellProblem
from fetopo.transport.state import PetscOptions
from fetopo.transport.voxel import VoxelGrid

__all__ = [
    "CellDesign", "Goal", "check_design", "design_cell", "threshold", "verify",
    "verify_voxels",
]  # fmt: skip

Array = npt.NDArray[np.float64]

#: By how much a design for a target tensor may fall short of its volume fraction, relative to it.
TARGET_SLACK = 0.01


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
    checkpoint: Checkpoint | None = None,
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
        checkpoint: where to write what a run can go on from, and whether to go on from there.
    Raises:
        ValueError: values out of range, a target that no structure with this volume fraction has, a grid
            that is not periodic, or PETSc options for a grid of voxels.
        RuntimeError: a linear solver did not converge.
    """
    goal = goal or Goal()
    low, high = float(conductivity[0]), float(conductivity[1])
    check_design(cell.dim, (low, high), volume_fraction, goal)
    model = CellModel(cell, filter_radius, petsc_options=petsc_options)
    state = model.state((low, high), law)
    objective = model.tensor_functional(state, goal.function())
    volume = model.mean_density()
    constraints = [Constraint("volume", volume, volume_fraction)]
    if goal.kind == "target":
        # More of the better material always helps a maximum, but a target belongs to one volume fraction.
        # The optimizer cannot move along an exact equality of convex approximations, hence the slack.
        constraints.append(
            Constraint("least_volume", volume, volume_fraction * (1 - TARGET_SLACK), "at least")
        )
    bound = goal.bound(volume_fraction, (low, high), cell.dim)
    run = DesignProblem(
        model.density,
        objective,
        constraints,
        volumes=model.volumes,
        projections=[model.projection],
        interpolations=model.interpolations,
        solvers=model.solvers,
        options=options,
        callbacks=callbacks,
        bound_fraction=None if bound is None else lambda J: 1 / (J * bound),
    )
    if checkpoint is not None:
        wanted = goal.target or goal.direction or ""
        about = {
            "goal": f"{goal.kind} {wanted}".strip(),
            "conductivity": [low, high],
            "volume fraction": volume_fraction,
        }
        checkpoint = replace(checkpoint, about=about | dict(checkpoint.about))
    result = run.run(model.start(start, volume_fraction, seed), checkpoint)
    crisp = threshold(result.rho, model.volumes, model.density.comm)
    lower: Array | None = None
    labels: Labels | None
    if isinstance(cell, VoxelGrid):
        verified, lower, labels = verify_voxels(cell, crisp, (low, high), refine)
    else:
        verified, labels = verify(cell, crisp, (low, high), refine)
    fraction = model.fraction(crisp)
    tensor = np.array(state.tensor)
    return CellDesign(
        cell,
        result,
        state,
        model.image(result.rho),
        tensor,
        crisp,
        labels,
        verified,
        refine if labels is not None else 1,
        fraction,
        goal.reached(tensor),
        goal.reached(verified),
        bound,
        goal.bound(fraction, (low, high), cell.dim),
        lower,
        None if lower is None or goal.kind == "target" else goal.reached(lower),
    )
