"""Design of a periodic two-material cell: from a wanted property to a verified crisp structure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo.design.checkpoint import Checkpoint
from fetopo.design.crisp import Labels, VoxelStructure, threshold, verify, verify_voxels, voxel_structure
from fetopo.design.goal import Goal, check_design
from fetopo.design.grey import GreyLevel
from fetopo.design.model import CellModel
from fetopo.design.problem import Callback, Constraint, DesignProblem, DesignResult, LoopOptions
from fetopo.design.realize import Structure, realize
from fetopo.design.target import correct_target
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
        structure: the crisp structure on its own mesh, solved again with the true conductivities.
        voxels: the crisp structure as voxels, solved again likewise; None where the cell is no grid.
        reached, verified: the goal's number before and after.
        bound: the most that any structure of the wanted volume fraction can reach, or None for a target.
        crisp_bound: the same for the volume fraction of the meshed structure.
        verified_at_least: the goal's number at the guaranteed lower bound; None for a target, or without one.
    """

    cell: UnitCell | VoxelGrid
    result: DesignResult
    problem: CellProblem | VoxelState
    density: Array | None
    tensor: Array
    crisp: Array
    labels: Labels | None
    structure: Structure
    voxels: VoxelStructure | None
    reached: float
    verified: float
    bound: float | None
    crisp_bound: float | None
    verified_at_least: float | None = None

    @property
    def comm(self) -> MPI.Comm:
        return self.cell.comm if isinstance(self.cell, VoxelGrid) else self.cell.mesh.comm

    @property
    def discretization(self) -> str:
        """ "mesh" or "voxel"."""
        return "voxel" if isinstance(self.cell, VoxelGrid) else "mesh"

    @property
    def verified_tensor(self) -> Array:
        """Effective tensor of the meshed structure, best estimate."""
        return self.structure.tensor

    @property
    def verified_lower_bound(self) -> Array | None:
        """Guaranteed lower bound of the tensor of the meshed structure, where there is one."""
        return self.structure.lower_bound

    @property
    def volume_fraction(self) -> float:
        """Of the better material in the meshed structure."""
        return self.structure.volume_fraction

    @property
    def projection_gap(self) -> float:
        """‖D − Dᶜ‖/‖Dᶜ‖ with the effective tensors of the density and of the meshed crisp structure."""
        D = self.structure.tensor
        return float(np.linalg.norm(self.tensor - D)) / max(float(np.linalg.norm(D)), 1e-300)

    @property
    def bound_fraction(self) -> float | None:
        """Verified value relative to the bound for the meshed structure's own volume fraction."""
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
    objective: Any = model.tensor_functional(state, goal.function())
    volume = model.mean_density()
    constraints = [Constraint("volume", volume, volume_fraction)]
    projections: list[Any] = [model.projection]
    if goal.kind == "target":
        # More of the better material always helps a maximum, but a target belongs to one volume fraction.
        # The optimizer cannot move along an exact equality of convex approximations, hence the slack.
        constraints.append(
            Constraint("least_volume", volume, volume_fraction * (1 - TARGET_SLACK), "at least")
        )
        grey = GreyLevel(model.density, model.volumes, model.volume)
        constraints.append(Constraint("grey", grey, 1.0))
        projections.append(grey)
    bound = goal.bound(volume_fraction, (low, high), cell.dim)
    run = DesignProblem(
        model.density,
        objective,
        constraints,
        volumes=model.volumes,
        projections=projections,
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

    def meshed(result: DesignResult, shapes: bool = False) -> Structure:
        crisp = threshold(result.rho, model.volumes, model.density.comm)
        return realize(model, result.m, result.rho, crisp, (low, high), shapes=shapes)

    if goal.kind == "target":
        result = correct_target(run, result, np.array(goal.target), objective, lambda r: meshed(r).tensor)
    structure = meshed(result, shapes=True)
    crisp = threshold(result.rho, model.volumes, model.density.comm)
    voxels = voxel_structure(model, crisp, (low, high), refine)
    tensor, lower = np.array(state.tensor), structure.lower_bound
    return CellDesign(
        cell,
        result,
        state,
        model.image(result.rho),
        tensor,
        crisp,
        None if voxels is None else voxels.labels,
        structure,
        voxels,
        goal.reached(tensor),
        goal.reached(structure.tensor),
        bound,
        goal.bound(structure.volume_fraction, (low, high), cell.dim),
        None if lower is None or goal.kind == "target" else goal.reached(lower),
    )
