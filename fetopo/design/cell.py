"""Design of a periodic two-material cell: from a wanted property to a verified crisp structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo.design.combination import smooth_maximum
from fetopo.design.constraints import Specification
from fetopo.design.crisp import Labels, threshold, verify, verify_voxels
from fetopo.design.existence import check_design
from fetopo.design.formulation import formulate, make_task, value_of
from fetopo.design.goal import MAIN, Goal
from fetopo.design.model import CellModel
from fetopo.design.problem import Callback, DesignProblem, DesignResult, LoopOptions
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
        verified_tensor: effective tensor of the crisp structure, solved again with the true conductivities by
            elements: on voxels an upper bound of what the structure exactly has.
        verified_refinement: each voxel was split this many times along every axis for that.
        volume_fraction: of the crisp structure.
        reached, verified: the goal's number before and after; with several transports what they reach of
            their bounds, see :meth:`Goal.together`.
        bound: the most that any structure of the wanted volume fraction can reach, or None for a target.
        crisp_bound: the same for the volume fraction of the crisp structure, which a grid rounds.
        verified_lower_bound: on a grid of voxels guaranteed lower bound of the tensor, else None.
        verified_at_least: the goal's number at that bound; None on a mesh, for a target and for a function.
        goal: what it was designed for, in terms of the effective tensor.
        conductivity: of the two materials.
        transports: results by name, "main" included, where there are several.
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
    goal: Goal = field(default_factory=Goal)
    conductivity: tuple[float, float] = (0.0, 1.0)
    transports: Mapping[str, TransportResult] = field(default_factory=dict)

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
    transports: Mapping[str, tuple[float, float]] | None = None,
    constraints: Sequence[Specification] = (),
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
        volume_fraction: of the better material; an upper limit, or the value itself (to 1 %) for a target and
            for several transports, unless a constraint says otherwise.
        filter_radius: smallest length over which the structure varies, in the unit of the cell.
        goal: default: as conductive as possible in every direction.
        transports: conductivities of the same two materials for further transports, by name, in either order,
            e.g. {"ions": (1.0, 0.0)}.
        constraints: any number of those in :mod:`fetopo.design.constraints`.
        start: "inclusions", "random", or one value in [0, 1] per owned cell.
        seed: of the random start.
        law: interpolation between the materials, see :mod:`fetopo.transport.materials`.
        options: continuation and stopping.
        refine: how often each voxel is split along an axis to verify the crisp design.
        petsc_options: of the corrector problems while designing; on a mesh only.
        callbacks: called after every iteration.
    Raises:
        ValueError: values out of range, a target, a floor or a combination that no structure with this volume
            fraction has, a grid that is not periodic, or PETSc options for a grid of voxels.
        RuntimeError: a linear solver did not converge.
    """
    task = make_task(
        cell.dim, conductivity, volume_fraction, filter_radius, goal or Goal(), transports, constraints
    )
    goal, (low, high) = task.goal, task.conductivities[MAIN]
    model = CellModel(cell, filter_radius, petsc_options=petsc_options)
    asked = formulate(model, task, law)
    state = asked.states[MAIN]
    run = DesignProblem(
        model.density,
        smooth_maximum(asked.objective) if isinstance(asked.objective, list) else asked.objective,
        asked.constraints,
        volumes=model.volumes,
        projections=[model.projection],
        interpolations=model.interpolations,
        solvers=model.solvers,
        options=options,
        callbacks=callbacks,
    )
    result = run.run(model.start(start, volume_fraction, seed))
    crisp = threshold(result.rho, model.volumes, model.density.comm)
    fraction = model.fraction(crisp)
    tensors = {name: np.array(s.tensor) for name, s in asked.states.items()}
    verified: dict[str, Array] = {}
    lower: dict[str, Array] = {}
    labels: Labels | None
    for name, pair in task.conductivities.items():
        if isinstance(cell, VoxelGrid):
            verified[name], lower[name], labels = verify_voxels(cell, crisp, pair, refine)
        else:
            verified[name], labels = verify(cell, crisp, pair, refine)
    others = {
        name: TransportResult(
            pair,
            tensors.get(name),
            verified[name],
            lower.get(name),
            goal.reached(verified[name]),
            goal.bound(fraction, pair, cell.dim),
        )
        for name, pair in task.conductivities.items()
        if len(task.conductivities) > 1
    }

    def number(found: dict[str, Array], f: float | None = None) -> float:
        return value_of(model.comm, goal, found[MAIN]) if goal.kind == "function" else task.reached(found, f)

    return CellDesign(
        cell,
        result,
        state,
        model.image(result.rho),
        tensors[MAIN],
        crisp,
        labels,
        verified[MAIN],
        refine if labels is not None else 1,
        fraction,
        number(tensors),
        number(verified, fraction),
        task.bound(),
        task.bound(fraction),
        lower.get(MAIN),
        number(lower, fraction) if lower and goal.kind not in ("target", "function") else None,
        goal,
        (low, high),
        others,
    )
