"""Noise in, structure out: how far designs for noisy targets lie apart, with and without regularization."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._groups import Groups
from fetopo._mpi import get_logger
from fetopo.design.existence import check_design
from fetopo.design.goal import Goal
from fetopo.design.initial import from_field, random_field
from fetopo.design.regularization import Regularization
from fetopo.design.weight import Discrepancy, discrepancy, l_curve
from fetopo.design.weight_path import PathDesign, PathOptions, WeightPath
from fetopo.microstructure.descriptors.comparison import align
from fetopo.transport.bounds import exists
from fetopo.transport.voxel import VoxelGrid

Array = npt.NDArray[np.float64]


def noisy_targets(
    target: npt.ArrayLike,
    level: float,
    count: int,
    *,
    conductivity: tuple[float, float],
    volume_fraction: float,
    seed: int = 0,
) -> list[Array]:
    """Targets T + N with symmetric N of independent normal entries, scaled to ‖N‖ = δ‖T‖.

    One that no structure has is replaced by the nearest that exists: the set of tensors that exist is
    convex, so that the distance to T does not grow.

    Args:
        target: T, d×d, which must exist.
        level: δ ≥ 0.
        count: how many.
        conductivity: of the poorer and the better material.
        volume_fraction: of the better one.
        seed: of the noise; the same directions at every level.
    Raises:
        ValueError: a target that does not exist, or a negative level.
    """
    T = np.asarray(target, dtype=float)
    rows: Any = T.tolist()
    goal = Goal("target", target=tuple(map(tuple, rows)))
    check_design(len(T), conductivity, volume_fraction, goal)
    if not 0 <= level < np.inf:
        raise ValueError(f"a noise level must be finite and not negative, found {level}")
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        N = rng.normal(size=T.shape)
        N = 0.5 * (N + N.T)
        noisy = T + N * (level * np.linalg.norm(T) / np.linalg.norm(N))
        near = exists(noisy, (1 - volume_fraction, volume_fraction), conductivity).nearest
        assert near is not None
        found.append(0.5 * (near + near.T))
    return found


@dataclass(frozen=True)
class Recipe:
    """One way to make a design for a noisy target.

    Attributes:
        name: of it, in tables.
        filter_radius: of the density filter, in the unit of the cell.
        terms: regularization, with relative weights; none is none.
        start: "random", another for each realization, or "same", the same for all.
        rule: what chooses the common weight.
    """

    name: str
    filter_radius: float
    terms: tuple[Regularization, ...] = ()
    start: Literal["random", "same"] = "random"
    rule: Literal["discrepancy", "l-curve"] = "discrepancy"


@dataclass(frozen=True)
class StudyOptions:
    """What a study does.

    Attributes:
        levels: noise δ, relative to the norm of the target.
        realizations: noisy targets at each level.
        seed: of noise and starts.
        tau: τ of the discrepancy principle.
        floor: misfit below which a design is as good as exact; a smaller noise counts as this.
        largest, smallest, factor, accuracy: weights, see :func:`fetopo.design.weight.discrepancy`.
        waves: of the random starts, see :func:`fetopo.design.initial.random_field`.
        path: how designs are made.
    Raises:
        ValueError: no level, or fewer than two realizations.
    """

    levels: tuple[float, ...] = (0.01, 0.02, 0.05)
    realizations: int = 4
    seed: int = 0
    tau: float = 1.1
    floor: float = 5e-3
    largest: float = 10.0
    smallest: float = 1e-3
    factor: float = 10**0.5
    accuracy: float = 1.8
    waves: int = 3
    path: PathOptions = field(default_factory=PathOptions)

    def __post_init__(self) -> None:
        if not self.levels or self.realizations < 2:
            raise ValueError(
                "a study of stability needs a level of noise and two realizations, "
                f"found {list(self.levels)} and {self.realizations}"
            )


@dataclass(frozen=True)
class StudyRun:
    """One design of a study.

    Attributes:
        recipe, level, realization: which.
        target: noisy.
        design: chosen; its misfit is that to the noisy target.
        met: whether the misfit is at most τδ.
        path: all weights that were tried with their misfits and penalties, shape (n, 3).
    """

    recipe: str
    level: float
    realization: int
    target: Array
    design: PathDesign
    met: bool
    path: Array


@dataclass(frozen=True)
class StabilityStudy:
    """Outcome of :func:`stability_study`, the same on every rank.

    Attributes:
        target: without noise.
        recipes, levels: in the order in which they were given.
        runs: all designs.
    """

    target: Array
    recipes: tuple[str, ...]
    levels: tuple[float, ...]
    runs: list[StudyRun]

    def of(self, recipe: str, level: float) -> list[StudyRun]:
        """Runs of a recipe at a level."""
        return [run for run in self.runs if run.recipe == recipe and run.level == level]

    def distances(self, recipe: str, level: float) -> Array:
        """Distances of all pairs of structures, each pair moved until it fits best."""
        masks = [run.design.labels == 1 for run in self.of(recipe, level)]
        return np.array([align(a, b).distance for a, b in itertools.combinations(masks, 2)])

    def rows(self) -> list[dict[str, float | str]]:
        """One row per recipe and level: distances, misfits to noisy and to true target, weights."""
        size = float(np.linalg.norm(self.target))
        found: list[dict[str, float | str]] = []
        for recipe, level in itertools.product(self.recipes, self.levels):
            runs, apart = self.of(recipe, level), self.distances(recipe, level)
            errors = [float(np.linalg.norm(run.design.tensor - self.target)) / size for run in runs]
            found.append(
                {
                    "recipe": recipe,
                    "noise": level,
                    "distance": float(apart.mean()),
                    "distance_min": float(apart.min()),
                    "distance_max": float(apart.max()),
                    "misfit": float(np.mean([run.design.misfit for run in runs])),
                    "misfit_max": float(max(run.design.misfit for run in runs)),
                    "error": float(np.mean(errors)),
                    "weight": float(np.median([run.design.weight for run in runs])),
                    "met": float(sum(run.met for run in runs)),
                    "runs": float(len(runs)),
                }
            )
        return found

    def table(self) -> str:
        """The rows as text."""
        lines = [f"{'recipe':28} noise   distance (range)      misfit  to true target  weight   met"]
        for row in self.rows():
            noise, misfit, error = (100 * float(row[key]) for key in ("noise", "misfit", "error"))
            weight = f"{row['weight']:<8.3g}" if row["weight"] else "none    "
            lines.append(
                f"{row['recipe']:28} {noise:3.0f} %   {row['distance']:.3f} "
                f"({row['distance_min']:.2f} to {row['distance_max']:.2f})  {misfit:5.2f} % "
                f"{error:11.2f} %    {weight} {row['met']:.0f}/{row['runs']:.0f}"
            )
        return "\n".join(lines)


def choose(path: WeightPath, recipe: Recipe, noise: float, o: StudyOptions) -> tuple[PathDesign, bool]:
    """The design of a path at the weight that a recipe's rule chooses; whether it meets τδ. Collective."""
    limit = o.tau * noise
    if not path.terms:
        design = path.at(0.0)
        return design, design.misfit <= limit
    if recipe.rule == "l-curve":
        steps = int(np.floor(np.log(o.largest / o.smallest) / np.log(o.factor) + 1e-9))
        weights = [o.largest / o.factor**k for k in range(steps + 1)]
        found = [path.at(weight) for weight in weights]
        corner = l_curve(weights, [d.misfit for d in found], [d.penalty for d in found])
        design = found[corner.index]
        return design, design.misfit <= limit
    chosen: Discrepancy = discrepancy(
        lambda weight: path.at(weight).misfit,
        noise,
        tau=o.tau,
        largest=o.largest,
        smallest=o.smallest,
        factor=o.factor,
        accuracy=o.accuracy,
    )
    return path.at(chosen.weight), chosen.met


def stability_study(
    comm: MPI.Intracomm,
    shape: Sequence[int],
    target: npt.ArrayLike,
    recipes: Sequence[Recipe],
    *,
    conductivity: tuple[float, float],
    volume_fraction: float,
    options: StudyOptions | None = None,
    groups: int | None = None,
) -> StabilityStudy:
    """Design for noisy copies of a target by each recipe, and compare the structures. Collective.

    All recipes have the same noisy targets and, where their start is random, the same starts. Runs are shared
    out over groups of ranks.

    Args:
        comm: all ranks.
        shape: voxels per axis of the periodic cell, whose longest edge is 1.
        target: without noise, d×d.
        recipes: what to compare.
        conductivity: of the poorer and the better material.
        volume_fraction: of the better one.
        options: see there.
        groups: of ranks; default one per rank.
    Raises:
        ValueError: a target that no structure has, recipes of the same name, or values out of range.
        RuntimeError: a linear solver did not converge.
    """
    o, T = options or StudyOptions(), np.asarray(target, dtype=float)
    names = tuple(recipe.name for recipe in recipes)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"recipes need different names, found {list(names)}")
    targets = {
        level: noisy_targets(
            T, level, o.realizations, conductivity=conductivity, volume_fraction=volume_fraction, seed=o.seed
        )
        for level in o.levels
    }
    tasks = list(itertools.product(recipes, o.levels, range(o.realizations)))

    def work(own: MPI.Intracomm, number: int, task: tuple[Recipe, float, int]) -> StudyRun:
        recipe, level, realization = task
        grid = VoxelGrid(own, tuple(shape), 1 / max(shape), periodic=True)
        seed = o.seed + (realization if recipe.start == "random" else 0)
        volumes = np.full(int(np.prod(grid.own_shape)), float(np.prod(grid.voxel_size)))
        waves = random_field(grid, seed=seed, waves=o.waves)
        path = WeightPath(
            grid,
            conductivity=conductivity,
            volume_fraction=volume_fraction,
            target=targets[level][realization],
            filter_radius=recipe.filter_radius,
            terms=recipe.terms,
            start=from_field(waves, volumes, volume_fraction, own),
            options=o.path,
        )
        design, met = choose(path, recipe, max(level, o.floor), o)
        tried = np.array([[d.weight, d.misfit, d.penalty] for d in path.designs.values()])
        return StudyRun(recipe.name, level, realization, path.target, design, met, tried)

    shared = Groups(comm, groups)
    get_logger(__name__, comm).info("%d designs on %d groups of ranks", len(tasks), shared.count)
    runs = shared.run(
        tasks,
        work,
        name="design",
        describe=lambda run: f"{run.recipe}, noise {run.level:g}: misfit {run.design.misfit:.3g}",
    )
    return StabilityStudy(T, names, tuple(o.levels), runs)
