"""Is a design the only one? Structures from several starts, and which of them are really different."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo._mpi import on_every_rank, require
from fetopo.design.goal import Goal
from fetopo.microstructure.descriptors import Statistics, align, grouped, statistics

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """The structure that a design from one start ended with.

    Attributes:
        number: of the start, from 1.
        start: its name.
        labels: 1 where the better material is, on the grid of the cell.
        tensor: effective tensor of the meshed structure, best estimate.
        value: the goal's number, see :meth:`fetopo.design.goal.Goal.reached`.
        interval: between which two values the number of the meshed structure lies for certain; None for an
            end that is not known.
        conductivity: trace of the tensor over d, and `conductivity_interval` what it lies in for certain.
        bound_fraction: value relative to the bound for the structure's volume fraction; None for a target.
        volume_fraction: of the better material in the meshed structure.
        converged, iterations, grey_level: of the run.
        shapes: by material, "good" and "poor", parts, percolation and smallest feature.
        interface: area (2D length) of the interface per volume, None where the mesh is not fitted to it.
    """

    number: int
    start: str
    labels: npt.NDArray[np.uint8]
    tensor: Array
    value: float
    interval: tuple[float | None, float | None]
    conductivity: float
    conductivity_interval: tuple[float | None, float | None]
    bound_fraction: float | None
    volume_fraction: float
    converged: bool
    iterations: int
    grey_level: float
    shapes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    interface: float | None = None


@dataclass(frozen=True)
class Sameness:
    """When two structures count as the same one.

    They do if they lie on each other once moved, or if nothing that depends on no position tells them apart:
    two pieces of one random medium are the same material.

    Attributes:
        tolerance: relative difference of the goal's number, or distance to a target, up to which structures
            have the same property.
        overlap: largest :attr:`fetopo.microstructure.descriptors.Alignment.distance` of structures that are
            the same up to translation, reflection and rotation.
        statistics: largest difference of S₂ and of the lineal paths of structures with the same phase
            statistics, see :class:`fetopo.microstructure.descriptors.StatisticsDifference`; the numbers of
            parts and of axes along which they percolate must be equal too.
    Raises:
        ValueError: a number outside (0, 1).
    """

    tolerance: float = 0.01
    overlap: float = 0.25
    statistics: float = 0.03

    def __post_init__(self) -> None:
        for name in ("tolerance", "overlap", "statistics"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie between 0 and 1, found {value}")


@dataclass(frozen=True)
class StartsResult:
    """What designs from several starts came to.

    Attributes:
        goal: what all were designed for.
        outcomes: in the order of their numbers, those that failed left out.
        failed: number and name of a start that ended with an error, and the error.
        same: when two count as the same.
        reaching: indices into `outcomes` of those with the same property, the best first.
        families: the same indices, one list per distinct structure.
        overlap: distance of each pair when they lie on each other best, n×n in the order of `outcomes`.
        two_point, lineal_path: difference of S₂ and of the lineal paths of each pair.
        statistics: of each outcome.
    """

    goal: Goal
    outcomes: tuple[Outcome, ...]
    failed: tuple[tuple[int, str, str], ...]
    same: Sameness
    reaching: tuple[int, ...]
    families: tuple[tuple[int, ...], ...]
    overlap: Array
    two_point: Array
    lineal_path: Array
    statistics: tuple[Statistics, ...]

    @property
    def distinct(self) -> int:
        """How many different structures have the same property."""
        return len(self.families)

    @property
    def order(self) -> list[int]:
        """Indices of all outcomes: family by family, then those that do not reach the property."""
        inside = [index for family in self.families for index in family]
        rest = [i for i in _best_first(self.goal, self.outcomes) if i not in inside]
        return inside + rest

    def family_of(self, index: int) -> int | None:
        """Number of an outcome's family, from 0; None where it does not reach the property."""
        return next((k for k, family in enumerate(self.families) if index in family), None)


def guaranteed(
    goal: Goal, lower: npt.ArrayLike | None, upper: npt.ArrayLike | None
) -> tuple[float | None, float | None]:
    """Between which two values the goal's number lies, for a tensor between two others, L ≤ D ≤ U.

    A conductivity grows with D. The distance to a target T is within ‖H‖ of that of the middle M, with
    H = (U − L)/2: from −H ≤ D − M ≤ H follows tr (H − (D − M))(H + (D − M)) ≥ 0, so that ‖D − M‖ ≤ ‖H‖.

    Args:
        goal: what was asked for, of one transport.
        lower, upper: bounds of the tensor in the sense of quadratic forms; None where there is none.
    """
    if goal.kind == "function":
        return None, None
    L, U = (None if bound is None else np.asarray(bound, dtype=float) for bound in (lower, upper))
    if goal.kind != "target":
        return None if L is None else goal.reached(L), None if U is None else goal.reached(U)
    if L is None or U is None:
        return None, None
    middle = goal.reached(0.5 * (L + U))
    reach = 0.5 * float(np.linalg.norm(U - L) / np.linalg.norm(np.array(goal.target)))
    return max(0.0, middle - reach), middle + reach


def compare(
    outcomes: Sequence[Outcome],
    goal: Goal,
    voxel_size: Sequence[float],
    *,
    same: Sameness | None = None,
    failed: Sequence[tuple[int, str, str]] = (),
    comm: Any = None,
) -> StartsResult:
    """Which structures reach the same property, and which of those are different. Collective over `comm`.

    Args:
        outcomes: of the designs, the same on every rank.
        goal: of all of them.
        voxel_size: sides of a voxel of the labels [m].
        same: when two count as the same.
        failed: passed on to the result.
        comm: ranks that share the comparisons out; default none.
    Raises:
        ValueError: no outcome, or structures of different shapes.
    """
    same = same or Sameness()
    shapes = sorted({o.labels.shape for o in outcomes})
    if len(shapes) != 1:
        found = f"shapes {shapes}" if shapes else "none"
        raise ValueError(f"structures of one shape are needed, found {found}")
    masks = [o.labels == 1 for o in outcomes]
    n, sides = len(masks), tuple(float(h) for h in voxel_size)
    about = _shared(comm, range(n), lambda i: statistics(masks[i], sides))
    pairs = list(itertools.combinations(range(n), 2))

    def between(pair: tuple[int, int]) -> tuple[float, float, float]:
        i, j = pair
        fixed = _fixed(goal, outcomes[i].tensor)
        difference = about[i].difference(about[j])
        moved = align(masks[i], masks[j], sides, tensor=fixed)
        return moved.distance, difference.two_point, difference.lineal_path

    tables = np.zeros((3, n, n))
    for (i, j), values in zip(pairs, _shared(comm, pairs, between), strict=True):
        tables[:, i, j] = tables[:, j, i] = values
    overlap, two_point, lineal = tables
    reaching = [i for i in _best_first(goal, outcomes) if _reaches(goal, outcomes, i, same.tolerance)]

    def alike(i: int, j: int) -> bool:
        a, b = reaching[i], reaching[j]
        topology = about[a].difference(about[b]).same_topology
        statistical = max(two_point[a, b], lineal[a, b]) <= same.statistics and topology
        return bool(overlap[a, b] <= same.overlap or statistical)

    families = [[reaching[k] for k in family] for family in grouped(len(reaching), alike)]
    return StartsResult(
        goal,
        tuple(outcomes),
        tuple(failed),
        same,
        tuple(reaching),
        tuple(tuple(family) for family in families),
        overlap,
        two_point,
        lineal,
        tuple(about),
    )


def _shared(comm: Any, tasks: Sequence[Any], work: Any) -> list[Any]:
    """Results of independent tasks, done by the ranks in turn."""
    if comm is None:
        return [work(task) for task in tasks]
    with on_every_rank(comm):
        mine = {k: work(tasks[k]) for k in range(comm.rank, len(tasks), comm.size)}
    found = {k: result for part in comm.allgather(mine) for k, result in part.items()}
    require(comm, len(found) == len(tasks), "ranks disagree on what to compare", RuntimeError)
    return [found[k] for k in range(len(tasks))]


def _smaller_is_better(goal: Goal) -> bool:
    return goal.kind in ("target", "function")


def _best_first(goal: Goal, outcomes: Sequence[Outcome]) -> list[int]:
    sign = 1 if _smaller_is_better(goal) else -1
    return sorted(range(len(outcomes)), key=lambda i: (sign * outcomes[i].value, outcomes[i].number))


def _reaches(goal: Goal, outcomes: Sequence[Outcome], index: int, tolerance: float) -> bool:
    """Whether an outcome has the target, or what the best one has."""
    value = outcomes[index].value
    if goal.kind == "target":
        return value <= tolerance
    best = outcomes[_best_first(goal, outcomes)[0]].value
    return abs(value - best) <= tolerance * abs(best)


def _fixed(goal: Goal, tensor: Array) -> Array | None:
    """A tensor that only motions leave as it is which leave the goal's number too; None where all do."""
    if goal.kind == "target":
        return np.array(goal.target, dtype=float)
    if goal.kind == "along":
        n = np.asarray(goal.direction, dtype=float)
        return np.outer(n, n)
    # What a function of one's own does with another tensor is not known.
    return tensor if goal.kind == "function" else None
