"""Design of a periodic two-material cell: from a wanted property to a verified crisp structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo.design.cell_diagnosis import diagnose_structure
from fetopo.design.checkpoint import Checkpoint
from fetopo.design.constraints import Specification
from fetopo.design.crisp import Labels, VoxelStructure, threshold, verify, verify_voxels, voxel_structure
from fetopo.design.diagnosis import Finding, Watch, diagnose
from fetopo.design.existence import check_design
from fetopo.design.formulation import formulate, make_task, value_of
from fetopo.design.goal import MAIN, Goal
from fetopo.design.grey import GreyLevel
from fetopo.design.model import CellModel
from fetopo.design.problem import Callback, Constraint, DesignProblem, DesignResult, LoopOptions
from fetopo.design.realize import Structure, realize, solved_with
from fetopo.design.regions import PassiveRegions, Region
from fetopo.design.regularization import Regularization, regularized
from fetopo.design.symmetry import Symmetry
from fetopo.design.target import correct_target
from fetopo.design.voxels import VoxelState
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport import materials
from fetopo.transport.homogenization import CellProblem
from fetopo.transport.state import PetscOptions
from fetopo.transport.voxel import VoxelGrid

__all__ = [
    "CellDesign", "Goal", "TransportResult", "check_design", "design_cell", "threshold", "verify",
    "verify_voxels",
]  # fmt: skip

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TransportResult:
    """One of the transports through a finished design.

    Attributes:
        conductivity: where ρ = 0 and where ρ = 1.
        tensor: effective tensor of the density as the optimizer saw it; None if it took no part.
        verified_tensor: that of the crisp structure, as :attr:`CellDesign.verified_tensor`.
        verified_lower_bound: as :attr:`CellDesign.verified_lower_bound`.
        verified: the goal's number in it.
        bound: the most that any structure of this volume fraction reaches with this transport alone, or None.
    """

    conductivity: tuple[float, float]
    tensor: Array | None
    verified_tensor: Array
    verified_lower_bound: Array | None
    verified: float
    bound: float | None


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
        reached, verified: the goal's number before and after; with several transports what they reach of
            their bounds, see :meth:`Goal.together`.
        bound: the most that any structure of the wanted volume fraction can reach, or None for a target.
        crisp_bound: the same for the volume fraction of the meshed structure.
        verified_at_least: the goal's number at the guaranteed lower bound; None for a target or a function,
            or without one.
        goal: what it was designed for, in terms of the effective tensor.
        conductivity: of the two materials.
        transports: results by name, "main" included, where there are several.
        findings: what is not as it should be, see :mod:`fetopo.design.diagnosis`.
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
    goal: Goal = field(default_factory=Goal)
    conductivity: tuple[float, float] = (0.0, 1.0)
    transports: Mapping[str, TransportResult] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

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
    transports: Mapping[str, tuple[float, float]] | None = None,
    constraints: Sequence[Specification] = (),
    regularization: Sequence[Regularization] = (),
    filter: str = "helmholtz",
    passive: PassiveRegions | Mapping[str, Region] | None = None,
    symmetry: Symmetry | str | None = None,
    start: Array | str = "inclusions",
    seed: int = 0,
    law: Callable[..., Any] | str = materials.simp,
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
        volume_fraction: of the better material; an upper limit, or the value itself (to 1 %) for a target and
            for several transports, unless a constraint says otherwise.
        filter_radius: smallest length over which the structure varies, in the unit of the cell.
        goal: default: as conductive as possible in every direction.
        transports: conductivities of the same two materials for further transports, by name, in either order,
            e.g. {"ions": (1.0, 0.0)}.
        constraints: any number of those in :mod:`fetopo.design.constraints`.
        regularization: terms that are added to the objective; a target is then met as far as they let it.
        filter, passive, symmetry: see :class:`fetopo.design.model.CellModel`.
        start: "inclusions", "random", or one value in [0, 1] per owned cell.
        seed: of the random start.
        law: interpolation between the materials, or its name, see :mod:`fetopo.transport.materials`.
        options: continuation, optimizer and stopping.
        refine: how often each voxel is split along an axis to verify the crisp design.
        petsc_options: of the corrector problems while designing; on a mesh only.
        callbacks: called after every iteration.
        checkpoint: where to write what a run can go on from, and whether to go on from there.
    Raises:
        ValueError: values out of range, a target, a floor or a combination that no structure with this volume
            fraction has, a grid that is not periodic, or PETSc options for a grid of voxels.
        RuntimeError: a linear solver did not converge.
    """
    task = make_task(
        cell.dim, conductivity, volume_fraction, filter_radius, goal or Goal(), transports, constraints
    )
    goal, (low, high) = task.goal, task.conductivities[MAIN]
    model = CellModel(
        cell, filter_radius, filter=filter, passive=passive, symmetry=symmetry, petsc_options=petsc_options
    )
    asked = formulate(model, task, law)
    state, limits = asked.states[MAIN], asked.constraints
    projections: list[Any] = [model.projection]
    if goal.kind == "target":
        grey = GreyLevel(model.density, model.volumes, model.volume)
        limits.append(Constraint("grey", grey, 1.0))
        projections.append(grey)
    objective = regularized(asked.objective, regularization, model)
    bound = task.bound()
    of_bound = bound if objective is asked.objective else None
    run = DesignProblem(
        model.density,
        objective,
        limits,
        volumes=model.volumes,
        projections=projections,
        interpolations=model.interpolations,
        solvers=model.solvers,
        options=options,
        callbacks=[*callbacks, Watch()],
        bound_fraction=None if of_bound is None else lambda J: 1 / (J * of_bound),
    )
    if checkpoint is not None:
        about = {
            "goal": task.described,
            "conductivity": [low, high],
            "volume fraction": volume_fraction,
            "constraints": [repr(spec) for spec in task.constraints],
            **({"regularization": [term.described for term in regularization]} if regularization else {}),
        }
        checkpoint = replace(checkpoint, about=about | dict(checkpoint.about))
    result = run.run(model.start(start, volume_fraction, seed), checkpoint)

    def meshed(result: DesignResult, shapes: bool = False) -> Structure:
        crisp = threshold(result.rho, model.volumes, model.density.comm)
        return realize(model, result.m, result.rho, crisp, (low, high), shapes=shapes)

    if goal.kind == "target":
        of_tensor: Any = asked.objective
        result = correct_target(run, result, np.array(goal.target), of_tensor, lambda r: meshed(r).tensor)
    stuck = diagnose(result, run)
    structure = meshed(result, shapes=True)
    crisp = threshold(result.rho, model.volumes, model.density.comm)
    voxels = voxel_structure(model, crisp, (low, high), refine)
    solved = {MAIN: structure}
    for name, pair in task.conductivities.items():
        if name != MAIN:
            solved[name] = solved_with(structure, pair)
    fraction = structure.volume_fraction
    tensors = {name: np.array(s.tensor) for name, s in asked.states.items()}
    lower = {name: found.lower_bound for name, found in solved.items() if found.lower_bound is not None}
    others = {
        name: TransportResult(
            pair,
            tensors.get(name),
            solved[name].tensor,
            lower.get(name),
            goal.reached(solved[name].tensor),
            goal.bound(fraction, pair, cell.dim),
        )
        for name, pair in task.conductivities.items()
        if len(task.conductivities) > 1
    }

    def number(found: Mapping[str, Array], f: float | None = None) -> float:
        return value_of(model.comm, goal, found[MAIN]) if goal.kind == "function" else task.reached(found, f)

    at_least = len(lower) == len(solved) and goal.kind not in ("target", "function")
    design = CellDesign(
        cell,
        result,
        state,
        model.image(result.rho),
        tensors[MAIN],
        crisp,
        None if voxels is None else voxels.labels,
        structure,
        voxels,
        number(tensors),
        number({name: found.tensor for name, found in solved.items()}, fraction),
        bound,
        task.bound(fraction),
        number(lower, fraction) if at_least else None,
        goal,
        (low, high),
        others,
    )
    return replace(design, findings=(*stuck, *diagnose_structure(design)))
