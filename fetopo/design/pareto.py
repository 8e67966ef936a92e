"""Fronts of two or three objectives that pull apart: what to solve, what is dominated, how much is covered.

Objectives are numbers to make large, positive or zero. The points are those of a lattice on the line or
triangle between the anchors, each of which is the best for one objective alone. Every further point is asked
for halfway between two earlier ones, its parents, and starts from the better of them. What a point is asked
for depends on its forebears only: a front of more points contains that of fewer, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._groups import Failed, Groups

Array = npt.NDArray[np.float64]
Method = Literal["chebyshev", "epsilon"]

#: How points are asked for, by name.
METHODS: tuple[Method, ...] = ("chebyshev", "epsilon")

#: An objective whose smallest value at the anchors is more than this share of its largest is halved on a
#: logarithmic scale, another (one that an anchor does not have at all, say) on a linear one.
LOGARITHMIC = 1e-3


def non_dominated(values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Points that no other is better than in one objective and at least as good as in all.

    Args:
        values: n points of k objectives to make large, shape (n, k). Of equal points the first counts.
    Returns:
        A mask, shape (n,). A point with a value that is no number is dominated.
    Raises:
        ValueError: another shape.
    """
    z = _points(values)
    found = np.ones(len(z), dtype=bool)
    for i, point in enumerate(z):
        better = (z >= point).all(axis=1) & (z > point).any(axis=1)
        same = (z[:i] == point).all(axis=1)
        found[i] = not (better.any() or same.any() or np.isnan(point).any())
    return found


def hypervolume(values: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Area or volume of all that the points dominate and that dominates a reference point.

    |∪ᵢ [r, zᵢ]|, exact: a sum of rectangles over the sorted points, in 3D of slabs between their heights.

    Args:
        values: n points of two or three objectives to make large, shape (n, k).
        reference: r, k numbers; points that are not above it in every objective add nothing.
    Raises:
        ValueError: other shapes, or other than two or three objectives.
    Source: Zitzler and Thiele (1998), doi:10.1007/BFb0056872.
    """
    z, r = _points(values), np.asarray(reference, dtype=float)
    if z.shape[1] not in (2, 3) or r.shape != (z.shape[1],):
        raise ValueError(
            "a hypervolume is that of two or three objectives and a reference with as many numbers, "
            f"found {z.shape[1]} and {r.size}"
        )
    z = z[(z > r).all(axis=1)] - r
    if z.shape[1] == 2:
        return _area(z)
    heights = np.unique(z[:, 2])
    steps = np.diff(heights, prepend=0.0)
    return float(sum(step * _area(z[z[:, 2] >= h, :2]) for h, step in zip(heights, steps, strict=True)))


def _area(z: Array) -> float:
    """Area between the origin and the staircase of points in the positive quadrant."""
    area = height = 0.0
    for x, y in z[np.lexsort((-z[:, 1], -z[:, 0]))]:
        area += x * max(y - height, 0.0)
        height = max(height, y)
    return float(area)


def _points(values: npt.ArrayLike) -> Array:
    z = np.asarray(values, dtype=float)
    if z.ndim != 2:
        raise ValueError(f"points need the shape (number, objectives), found {z.shape}")
    return z


@dataclass(frozen=True)
class Request:
    """What one point of a front is asked for.

    Attributes:
        number: of the point, from 0; the first ones are the anchors.
        parents: the points it lies between; none for an anchor.
        position: on the line or triangle between the anchors, shares that sum to 1.
        maximize: the objective to make large, or None for all of them in the proportions `wanted`: the
            smallest of zᵢ/wᵢ is made large (weighted Chebyshev).
        wanted: w, a positive number per objective.
        floors: least value of each objective, None without (ε-constraint).
        start: the parent whose design it starts from, None without.
    """

    number: int
    parents: tuple[int, ...]
    position: tuple[float, ...]
    maximize: int | None = None
    wanted: tuple[float, ...] = ()
    floors: tuple[float | None, ...] = ()
    start: int | None = None


@dataclass(frozen=True)
class Solved:
    """What came of a request.

    Attributes:
        values: of the objectives, as the finished design has them.
        design: what a neighbour can start from; must be picklable. It does not count when two are compared.
        about: anything else worth keeping; must be picklable.
    """

    values: tuple[float, ...]
    design: Any = field(default=None, compare=False)
    about: Any = None


@dataclass(frozen=True)
class Point:
    """A point of a front.

    Attributes:
        request: what was asked for.
        solved: what came of it, None where it failed.
        message: why it failed.
        dominated: whether another point is better.
    """

    request: Request
    solved: Solved | None
    message: str = ""
    dominated: bool = True


@dataclass(frozen=True)
class Front:
    """All points that were asked for, in their order.

    Attributes:
        points: the dominated and the failed ones included.
        reference: that of the hypervolume.
    """

    points: list[Point]
    reference: tuple[float, ...]

    @property
    def found(self) -> list[Point]:
        """Points that did not fail."""
        return [p for p in self.points if p.solved is not None]

    @property
    def best(self) -> list[Point]:
        """Points that no other dominates, sorted by the first objective, the largest first."""
        kept = [p for p in self.found if not p.dominated]
        return sorted(kept, key=lambda p: tuple(-v for v in p.solved.values))  # type: ignore[union-attr]

    @property
    def values(self) -> Array:
        """Objectives of the points that did not fail, shape (n, k)."""
        return np.array([p.solved.values for p in self.found if p.solved is not None])

    @property
    def hypervolume(self) -> float:
        """See :func:`hypervolume`."""
        return hypervolume(self.values, self.reference) if self.found else 0.0

    def first(self, number: int) -> Front:
        """The front of the first points alone, as a run with fewer points finds it."""
        return make_front(self.points[:number], self.reference)


def make_front(points: Sequence[Point], reference: Sequence[float]) -> Front:
    """Mark what is dominated."""
    found = {i: p.solved.values for i, p in enumerate(points) if p.solved is not None}
    kept = non_dominated(list(found.values())) if found else np.zeros(0, dtype=bool)
    best = {i for i, is_best in zip(found, kept, strict=True) if is_best}
    marked = [Point(p.request, p.solved, p.message, i not in best) for i, p in enumerate(points)]
    return Front(marked, tuple(float(r) for r in reference))


def lattice(objectives: int, points: int) -> list[list[tuple[tuple[float, ...], tuple[int, ...]]]]:
    """Points between the anchors level by level: on each the lattice is twice as fine as on that before.

    Args:
        objectives: number of anchors, 2 or 3.
        points: how many in all; the last level is cut off.
    Returns:
        For each level, the first of which are the anchors, position and parents of the new points, in an
        order that spreads them out, so that any number of them does.
    Raises:
        ValueError: other than two or three objectives, or fewer points than anchors.
    """
    if objectives not in (2, 3):
        raise ValueError(f"a front has two or three objectives, found {objectives}")
    if points < objectives:
        raise ValueError(f"a front of {objectives} objectives needs at least as many points, found {points}")
    place = {tuple(int(i == j) for j in range(objectives)): i for i in range(objectives)}
    levels: list[list[tuple[tuple[float, ...], tuple[int, ...]]]]
    levels = [[(tuple(float(v) for v in corner), ()) for corner in place]]
    n = 1
    while len(place) < points:
        n *= 2
        place = {tuple(2 * v for v in at): number for at, number in place.items()}
        fresh = [at for at in _compositions(n, objectives) if at not in place]
        fresh = sorted(fresh, key=lambda at: [_reversed_bits(v, n) for v in at])[: points - len(place)]
        level = []
        older = dict(place)
        for at in fresh:
            # Two numbers are odd: one step either way along the edge between them leads to older points.
            i, j = (k for k, v in enumerate(at) if v % 2)
            ends = (tuple(v + s * (k == i) - s * (k == j) for k, v in enumerate(at)) for s in (1, -1))
            level.append((tuple(v / n for v in at), tuple(sorted(older[end] for end in ends))))
            place[at] = len(place)
        levels.append(level)
    return levels


def _compositions(n: int, parts: int) -> list[tuple[int, ...]]:
    """All ways to write n as an ordered sum of non-negative numbers."""
    if parts == 1:
        return [(n,)]
    return [(v, *rest) for v in range(n + 1) for rest in _compositions(n - v, parts - 1)]


def _reversed_bits(value: int, n: int) -> int:
    """Van der Corput's order of 0 … n, n a power of two."""
    bits = n.bit_length()
    return int(f"{value:0{bits}b}"[::-1], 2)


@dataclass
class _Plan:
    """Requests of a front from what is known of it."""

    objectives: int
    method: Method
    known: list[Point] = field(default_factory=list)

    def stand_in(self, number: int) -> int | None:
        """The point, or where it failed the nearest of its forebears that did not."""
        waiting = [number]
        while waiting:
            at = waiting.pop(0)
            if self.known[at].solved is not None:
                return at
            waiting += self.known[at].request.parents
        return None

    def values(self, number: int) -> Array:
        solved = self.known[number].solved
        assert solved is not None
        return np.array(solved.values, dtype=float)

    def request(self, number: int, position: tuple[float, ...], parents: tuple[int, ...]) -> Request:
        """What a point is asked for.

        Raises:
            ValueError: neither parent nor their forebears have a design.
        """
        if not parents:
            return Request(number, (), position, int(np.argmax(position)), floors=(None,) * self.objectives)
        ends = [end for end in (self.stand_in(p) for p in parents) if end is not None]
        if not ends:
            raise ValueError("the points it lies between have failed")
        scale = _Scale(np.array([self.values(i) for i in range(self.objectives) if self.known[i].solved]))
        first, second = self.values(ends[0]), self.values(ends[-1])
        wanted = tuple(float(v) for v in scale.halfway(first, second))
        none: tuple[float | None, ...] = (None,) * self.objectives
        if self.method == "chebyshev":
            reach = [float(np.min(self.values(end) / wanted)) for end in ends]
            start = ends[int(reach[-1] > reach[0] * (1 + 1e-9))]
            return Request(number, parents, position, None, wanted, none, start)
        # The objective in which the parents differ least is made large: a floor in it would say little.
        # Round-off must not choose between objectives in which they differ alike.
        maximize = int(np.argmin(np.round(scale.difference(first, second), 3)))
        floors = tuple(None if i == maximize else v for i, v in enumerate(wanted))
        met = [
            sum(v >= f for v, f in zip(self.values(e), floors, strict=True) if f is not None) for e in ends
        ]
        return Request(number, parents, position, maximize, wanted, floors, ends[int(met[-1] > met[0])])


class _Scale:
    """Objectives on a logarithmic or linear scale, whichever their values at the anchors call for.

    Args:
        anchors: values at the anchors, one row each.
    """

    def __init__(self, anchors: Array) -> None:
        high, low = anchors.max(axis=0), anchors.min(axis=0)
        self.logarithmic = low > LOGARITHMIC * high
        #: So that every objective wanted is positive.
        self.least = np.maximum(LOGARITHMIC * high, 1e-300)
        self.width = np.maximum(np.abs(self._along(high) - self._along(low)), 1e-300)

    def _along(self, values: Array) -> Array:
        return np.where(self.logarithmic, np.log(np.maximum(values, self.least)), values)

    def halfway(self, first: Array, second: Array) -> Array:
        """The middle between two points."""
        middle = 0.5 * (self._along(first) + self._along(second))
        return np.maximum(
            np.where(self.logarithmic, np.exp(np.where(self.logarithmic, middle, 0.0)), middle), self.least
        )

    def difference(self, first: Array, second: Array) -> Array:
        """How far they are apart in each objective, relative to the anchors."""
        return np.asarray(np.abs(self._along(first) - self._along(second)) / self.width)


def front(
    comm: MPI.Intracomm,
    solve: Callable[[MPI.Intracomm, Request, Any], Solved],
    objectives: int,
    points: int,
    *,
    method: Method = "chebyshev",
    groups: int | None = None,
    reference: Sequence[float] | None = None,
    tolerate: tuple[type[Exception], ...] = (ValueError, RuntimeError),
) -> Front:
    """Find a front: anchors first, then level by level, the points of a level side by side. Collective.

    Args:
        comm: all ranks.
        solve: from the communicator of a group of ranks, a request, and the design to start from (None for
            anchors) to what came of it. What the first rank of the group returns counts.
        objectives: 2 or 3.
        points: how many in all, anchors included.
        method: "chebyshev" makes the objectives large together in wanted proportions, "epsilon" one of them
            above floors of the others.
        groups: number of groups of ranks; default one per rank.
        reference: of the hypervolume; default zeros.
        tolerate: errors of `solve` that end a point and not the run; must occur on all ranks of its group.
    Raises:
        ValueError: other than two or three objectives, fewer points than these, another method or reference.
    """
    levels = lattice(objectives, points)
    if method not in METHODS:
        raise ValueError(f"a front is found by {' or '.join(map(repr, METHODS))}, found {method!r}")
    r = (0.0,) * objectives if reference is None else tuple(float(v) for v in reference)
    if len(r) != objectives:
        raise ValueError(f"the reference needs {objectives} numbers, found {len(r)}")
    shared, plan = Groups(comm, groups), _Plan(objectives, method)

    def work(own: MPI.Intracomm, number: int, task: tuple[int, Any, Any]) -> tuple[Request, Solved]:
        request = plan.request(*task)
        start = None if request.start is None else plan.known[request.start].solved
        return request, solve(own, request, None if start is None else start.design)

    for level in levels:
        first = len(plan.known)
        tasks = [(first + i, *where) for i, where in enumerate(level)]
        results = shared.run(tasks, work, name="point of this level", describe=_described, tolerate=tolerate)
        for (number, position, parents), result in zip(tasks, results, strict=True):
            if isinstance(result, Failed):
                failed = Request(number, parents, position)
                plan.known.append(Point(failed, None, result.message))
            else:
                plan.known.append(Point(*result))
    return make_front(plan.known, r)


def _described(result: tuple[Request, Solved]) -> str:
    values = ", ".join(f"{v:.5g}" for v in result[1].values)
    return f"number {result[0].number} has {values}"
