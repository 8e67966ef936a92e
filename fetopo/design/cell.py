"""Design of a periodic two-material cell: from a wanted property to a verified crisp structure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import fem
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo._mpi import require
from fetopo.design import functionals
from fetopo.design.adjoint import FormFunctional, TensorFunctional
from fetopo.design.density import DensityMap, HeavisideProjection, HelmholtzFilter, Interpolation
from fetopo.design.initial import from_field, start_field
from fetopo.design.problem import Callback, Constraint, DesignProblem, DesignResult, LoopOptions
from fetopo.microstructure.mesh import UnitCell, to_image, voxel_cell
from fetopo.transport import materials
from fetopo.transport.bounds import exists, hashin_shtrikman, wiener
from fetopo.transport.homogenization import CellProblem, effective_conductivity
from fetopo.transport.state import PetscOptions, owned

Array = npt.NDArray[np.float64]

#: Conductivity, relative to the better phase, that an insulator has while the design is still grey. The
#: finished design is solved with the insulator left out.
VOID_CONTRAST = 1e-3

#: By how much a design for a target tensor may fall short of its volume fraction, relative to it.
TARGET_SLACK = 0.01

#: Krylov tolerance while designing. The tensor's error is of the order of its square; what asks for more is
#: that a run takes the same path on any number of ranks.
DESIGN_OPTIONS: dict[str, Any] = {"ksp_rtol": 1e-10}


@dataclass(frozen=True)
class Goal:
    """What a cell is designed for: one of `isotropic`, `along` a direction, or a `target` tensor.

    Attributes:
        kind: "isotropic" (most conductive in every direction), "along" or "target".
        direction: for "along", a vector of length d.
        target: for "target", a symmetric d×d tensor.
    """

    kind: str = "isotropic"
    direction: tuple[float, ...] | None = None
    target: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        needed = {"isotropic": None, "along": self.direction, "target": self.target}
        if self.kind not in needed:
            raise ValueError(f"a goal is one of {', '.join(needed)}, found {self.kind!r}")
        if self.kind != "isotropic" and needed[self.kind] is None:
            raise ValueError(
                f"a goal of kind {self.kind!r} needs its {'direction' if self.kind == 'along' else 'target'}"
            )

    def function(self) -> functionals.TensorFunction:
        """The function of the tensor to minimize."""
        if self.kind == "along":
            assert self.direction is not None
            return functionals.resistivity_along(self.direction)
        if self.kind == "target":
            return functionals.distance_to(np.array(self.target))
        return functionals.mean_resistivity

    def reached(self, D: Array) -> float:
        """What was asked for: conductivity in all or one direction, or relative distance to the target."""
        if self.kind == "along":
            n = np.asarray(self.direction, dtype=float) / np.linalg.norm(self.direction)  # type: ignore[arg-type]
            return float(n @ D @ n)
        if self.kind == "target":
            T = np.array(self.target)
            return float(np.linalg.norm(D - T) / np.linalg.norm(T))
        eigenvalues = np.linalg.eigvalsh(D)
        return 0.0 if eigenvalues.min() <= 0 else float(D.shape[0] / np.sum(1 / eigenvalues))

    def bound(self, volume_fraction: float, conductivity: tuple[float, float], dim: int) -> float | None:
        """The most that any structure can reach; None for a target."""
        fractions = (1 - volume_fraction, volume_fraction)
        if self.kind == "along":
            return wiener(fractions, conductivity)[1]
        return hashin_shtrikman(fractions, conductivity, dim)[1] if self.kind == "isotropic" else None


@dataclass(frozen=True)
class CellDesign:
    """A finished design of a periodic cell.

    Attributes:
        cell: the cell it was designed on.
        result: the run: objective, constraints, history.
        density: physical density as an array where the cell is a grid, else None.
        tensor: effective tensor of the density as the optimizer saw it.
        crisp: 0 or 1 for each owned cell, at the wanted volume fraction.
        labels: the same as an integer array where the cell is a grid, else None.
        verified_tensor: effective tensor of the crisp structure, solved again with the true conductivities.
        verified_refinement: each voxel was split this many times along every axis for that.
        volume_fraction: of the crisp structure.
        reached, verified: the goal's number before and after.
        bound: the most that any structure of the wanted volume fraction can reach, or None for a target.
        crisp_bound: the same for the volume fraction of the crisp structure, which a grid rounds.
    """

    cell: UnitCell
    result: DesignResult
    problem: CellProblem
    density: Array | None
    tensor: Array
    crisp: Array
    labels: npt.NDArray[np.uint8] | None
    verified_tensor: Array
    verified_refinement: int
    volume_fraction: float
    reached: float
    verified: float
    bound: float | None
    crisp_bound: float | None

    @property
    def bound_fraction(self) -> float | None:
        """Verified value relative to the bound for the crisp structure's own volume fraction."""
        return None if self.crisp_bound is None else self.verified / self.crisp_bound


def design_cell(
    cell: UnitCell,
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
        cell: periodic cell.
        conductivity: of the poorer and the better material; the poorer may be an insulator (0).
        volume_fraction: of the better material; an upper limit, or the value itself for a target.
        filter_radius: smallest length over which the structure varies, in the unit of the mesh.
        goal: default: as conductive as possible in every direction.
        start: "inclusions", "random", or one value in [0, 1] per owned cell.
        seed: of the random start.
        law: interpolation between the materials, see :mod:`fetopo.transport.materials`.
        options: continuation and stopping.
        refine: how often each voxel is split along an axis to verify the crisp design.
        petsc_options: of the corrector problems while designing.
        callbacks: called after every iteration.
    Raises:
        ValueError: values out of range, or a target that no structure with this volume fraction has.
        RuntimeError: a linear solver did not converge.
    """
    goal = goal or Goal()
    low, high = float(conductivity[0]), float(conductivity[1])
    check_design(cell.dim, (low, high), volume_fraction, goal)
    comm, mesh = cell.mesh.comm, cell.mesh
    projection = HeavisideProjection()
    interpolation = Interpolation(mesh, max(low, VOID_CONTRAST * high), high, law=law)
    filter_ = HelmholtzFilter(mesh, filter_radius, cell=cell)
    density = DensityMap(mesh, filter_, projection)
    problem = CellProblem(
        cell, interpolation.ufl(density.rho), petsc_options=DESIGN_OPTIONS | dict(petsc_options or {})
    )
    objective = TensorFunctional(problem, goal.function(), density.rho)
    mean = functionals.mean_density(density.rho, cell.volume)
    volume = FormFunctional(mean, density.rho)
    constraints = [Constraint("volume", volume, volume_fraction)]
    if goal.kind == "target":
        # More of the better material always helps a maximum, but a target belongs to one volume fraction.
        # The optimizer cannot move along an exact equality of convex approximations, hence the slack.
        constraints.append(
            Constraint("least_volume", volume, volume_fraction * (1 - TARGET_SLACK), "at least")
        )
    m = initial_design(cell, filter_.volumes, volume_fraction, start, seed)
    run = DesignProblem(
        density,
        objective,
        constraints,
        volumes=filter_.volumes,
        projection=projection,
        interpolation=interpolation,
        solvers=[problem.solver, *filter_.solvers],
        options=options,
        callbacks=callbacks,
    )
    result = run.run(m)
    crisp = threshold(result.rho, filter_.volumes, comm)
    verified, labels = verify(cell, crisp, (low, high), refine)
    fraction = float(comm.allreduce(float(crisp @ filter_.volumes))) / cell.volume
    return CellDesign(
        cell,
        result,
        problem,
        None if cell.grid is None else to_image(cell, result.rho),
        problem.tensor.copy(),
        crisp,
        labels,
        verified,
        refine if labels is not None else 1,
        fraction,
        goal.reached(problem.tensor),
        goal.reached(verified),
        goal.bound(volume_fraction, (low, high), cell.dim),
        goal.bound(fraction, (low, high), cell.dim),
    )


def check_design(dim: int, conductivity: tuple[float, float], volume_fraction: float, goal: Goal) -> None:
    """Raise ValueError, with one sentence, if no structure can be what is asked for."""
    low, high = conductivity
    if not (0 <= low < high < np.inf):
        raise ValueError(f"conductivity must be two numbers with 0 <= first < second, found [{low}, {high}]")
    if not 0 < volume_fraction < 1:
        raise ValueError(f"volume_fraction must lie between 0 and 1, found {volume_fraction}")
    if goal.direction is not None and len(goal.direction) != dim:
        raise ValueError(f"the direction must have {dim} components, found {list(goal.direction)}")
    if goal.target is not None:
        T = np.array(goal.target, dtype=float)
        if T.shape != (dim, dim):
            raise ValueError(f"the target must be a {dim}×{dim} tensor, found {T.tolist()}")
        answer = exists(T, (1 - volume_fraction, volume_fraction), conductivity)
        if not answer.ok:
            raise ValueError(
                f"no structure of volume fraction {volume_fraction:g} has this tensor: {answer.reason}"
            )


def initial_design(
    cell: UnitCell, volumes: Array, volume_fraction: float, start: Array | str, seed: int
) -> Array:
    """First design variables: given, or from a named field."""
    if isinstance(start, str):
        return from_field(start_field(cell, start, seed), volumes, volume_fraction, cell.mesh.comm)
    m = np.asarray(start, dtype=float)
    message = f"the initial design needs one value per owned cell, found shape {m.shape}"
    require(cell.mesh.comm, m.shape == volumes.shape, message)
    return m.copy()


def threshold(rho: Array, volumes: Array, comm: MPI.Comm) -> Array:
    """0 or 1 per cell, cut where the volume comes closest to that of the density."""
    wanted = float(comm.allreduce(float(rho @ volumes)))
    low, high = 0.0, 1.0 + 1e-12
    for _ in range(60):
        middle = 0.5 * (low + high)
        if comm.allreduce(float(volumes[rho >= middle].sum())) > wanted:
            low = middle
        else:
            high = middle
    # Cells of equal density cross the threshold together: take the nearer side.
    excess = [abs(comm.allreduce(float(volumes[rho >= t].sum())) - wanted) for t in (low, high)]
    return (rho >= (low if excess[0] < excess[1] else high)).astype(float)


def verify(
    cell: UnitCell, crisp: Array, conductivity: tuple[float, float], refine: int
) -> tuple[Array, npt.NDArray[np.uint8] | None]:
    """Effective tensor of a crisp structure with its true conductivities, and its labels where it is a grid.

    Grid cells are meshed again with every voxel split `refine` times per axis; other meshes are used as
    they are, tagged with the structure.
    """
    comm, labels = cell.mesh.comm, None
    if cell.grid is not None:
        labels = np.rint(to_image(cell, crisp)).astype(np.uint8)
        fine = np.kron(labels, np.ones((refine,) * cell.dim, dtype=np.uint8))
        solved = voxel_cell(comm, fine, tuple(cell.lengths / cell.grid / refine))
    else:
        Q_values = _with_ghosts(cell, crisp)
        here = np.arange(Q_values.size, dtype=np.int32)
        tags = dmesh.meshtags(cell.mesh, cell.dim, here, np.rint(Q_values).astype(np.int32))
        solved = replace(cell, cell_tags=tags, phases={})
    present = solved.tags()
    values = {tag: conductivity[tag] for tag in present}
    if not any(values.values()):
        return np.zeros((cell.dim, cell.dim)), labels
    return effective_conductivity(solved, values).tensor, labels


def _with_ghosts(cell: UnitCell, values: Array) -> Array:
    f = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
    owned(f)[:] = values
    f.x.scatter_forward()
    return f.x.array[f.function_space.dofmap.list.reshape(-1)]
