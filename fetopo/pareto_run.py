"""The front of a case's transports: one design per point, each in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._json import plain
from fetopo._mpi import on_every_rank, require
from fetopo._paths import replacing
from fetopo.case import Case
from fetopo.case_run import run_case
from fetopo.design.cell import CellDesign
from fetopo.design.constraints import LeastConductivity, Specification
from fetopo.design.existence import Pair
from fetopo.design.formulation import make_task
from fetopo.design.front_bounds import front_bounds
from fetopo.design.goal import MAIN, Goal
from fetopo.design.initial import from_field, start_field
from fetopo.design.pareto import Front, Method, Request, Solved, front
from fetopo.io import write_design, write_json
from fetopo.microstructure.mesh import to_image
from fetopo.transport.voxel import VoxelGrid

Array = npt.NDArray[np.float64]

#: File of a point's folder that is written last, and that of the design that neighbours start from.
POINT, VARIABLES = "point.json", "variables.npy"

#: What a front of a directory is of, written first.
MANIFEST = "manifest.json"

#: Weight of an objective that does not count.
_NOTHING = 1e-6


class FrontError(ValueError):
    """A front that cannot be made; the message is one sentence."""


@dataclass(frozen=True)
class CaseFront:
    """The front of a case.

    Attributes:
        front: its points; `about` of each holds what point.json does.
        names: transports that are the objectives.
        method: "chebyshev" or "epsilon".
        goal: whether conductivities in every direction or along one are meant.
        pairs: conductivities of the transports.
        fractions: least and largest volume fraction that the constraints allow.
        dim: 2 or 3.
    """

    front: Front
    names: tuple[str, ...]
    method: str
    goal: Goal
    pairs: tuple[Pair, ...]
    fractions: tuple[float, float]
    dim: int

    @cached_property
    def bounds(self) -> dict[tuple[int, int], Array]:
        """For each two objectives the curve beyond which no structure lies, see :func:`front_bounds`."""
        return {
            (i, j): front_bounds(self.goal, self.pairs[i], self.pairs[j], self.fractions, self.dim)
            for i, j in combinations(range(len(self.names)), 2)
        }

    def share_of_limit(self, values: Sequence[float]) -> float | None:
        """How far from the origin two objectives are, relative to the bounds; None for three."""
        return None if len(self.names) > 2 else share_along_ray(self.bounds[0, 1], values)


def share_along_ray(curve: Array, values: Sequence[float]) -> float:
    """Distance of a point from the origin relative to that of a falling curve in the same direction.

    Args:
        curve: pairs, the first number rising, the second falling; it goes on straight down and to the left.
        values: two numbers.
    """
    x, y = values
    side = x * curve[:, 1] - y * curve[:, 0]
    crossing = np.flatnonzero((side[:-1] >= 0) & (side[1:] < 0))
    if crossing.size == 0:
        return float(max(x / curve[-1, 0], y / curve[0, 1]))
    i = int(crossing[0])
    t = side[i] / (side[i] - side[i + 1])
    at = curve[i] + t * (curve[i + 1] - curve[i])
    return float(np.hypot(x, y) / np.hypot(*at))


def folder_of(directory: Path, number: int) -> Path:
    """Where a point is kept."""
    return directory / f"point_{number:03d}"


def check_front(case: Case, method: str) -> None:
    """See that a case has two or three transports to trade off.

    Raises:
        FrontError: it has not, or a constraint that the method sets itself.
    """
    names, key = case.objective.transports, "objective.transports"
    if len(names) not in (2, 3):
        raise FrontError(f"{key}: a front is one of two or three transports, found {list(names)}")
    if case.objective.maximize is None:
        raise FrontError(f"objective.maximize: a front needs it, found {case.objective.key}")
    direction = case.goal().direction
    for spec in case.constraints() if method == "epsilon" else ():
        if isinstance(spec, LeastConductivity) and spec.transport in names and spec.along == direction:
            raise FrontError(
                f"constraint: the method 'epsilon' sets the floor of {spec.transport!r} itself; leave it out "
                "or take the method 'chebyshev'"
            )


def run_front(
    case: Case,
    comm: MPI.Intracomm,
    output: Path | str,
    *,
    points: int = 9,
    method: Method = "chebyshev",
    groups: int | None = None,
    resume: bool = False,
    start: Array | None = None,
    pictures: bool = False,
) -> CaseFront:
    """Find the front of a case's transports, one folder per point. Collective.

    Args:
        case: its objective names two or three transports.
        comm: all ranks.
        output: directory; a point NNN is in point_NNN as :func:`fetopo.io.write_design` leaves a design, with
            point.json, what it was asked for and has, written last, and variables.npy, where others start.
        points, method, groups: see :func:`fetopo.design.pareto.front`.
        resume: take points that are complete there as they are. Points can be added to a front.
        start: density where the anchors start; default what the case names.
        pictures: whether to draw those of each point.
    Raises:
        FrontError: no such front, or a directory of another one.
    """
    directory = Path(output)
    check_front(case, method)
    names = tuple(case.objective.transports)
    known = {MAIN: case.conductivity, **case.transports}
    task = make_task(
        case.dim, case.conductivity, case.material.volume_fraction, case.filter_radius, case.goal(),
        case.transports, case.constraints(),
    )  # fmt: skip
    _open(comm, directory, {"case": plain(case.model_dump(mode="json")), "method": method}, resume)
    runner = _Runner(case, directory, names, task.goal, known, resume, start, pictures)
    found = front(comm, runner, len(names), points, method=method, groups=groups)
    pairs = tuple(known[name] for name in names)
    return CaseFront(found, names, method, task.goal, pairs, task.setting.fractions, case.dim)


def _open(comm: MPI.Intracomm, directory: Path, manifest: dict[str, Any], resume: bool) -> None:
    """Write what a directory is for, or see that it is for the same."""
    problem = ""
    with on_every_rank(comm):
        if comm.rank == 0:
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / MANIFEST
            if resume and path.exists():
                problem = _difference(json.loads(path.read_text(encoding="utf-8")), manifest)
            else:
                for stale in directory.glob(f"point_*/{POINT}"):
                    stale.unlink()
                write_json(path, manifest)
    message = f"{directory} holds the front of another case: {problem}"
    require(comm, not problem, message, FrontError)


def _difference(old: Any, new: Any, where: str = "") -> str:
    """The first key in which two manifests differ, in words; empty where they agree."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*new, *(k for k in old if k not in new)]:
            found = _difference(old.get(key), new.get(key), f"{where}.{key}".removeprefix(".case."))
            if found:
                return found
        return ""
    return "" if old == new else f"{where.removeprefix('.')} was {old}, now it is {new}"


@dataclass(frozen=True)
class _Runner:
    """One point: from a request to a finished design in its folder."""

    case: Case
    directory: Path
    names: tuple[str, ...]
    goal: Goal
    known: Mapping[str, Pair]
    resume: bool
    start: Array | None
    pictures: bool

    def __call__(self, comm: MPI.Intracomm, request: Request, start: Array | None) -> Solved:
        folder = folder_of(self.directory, request.number)
        if self.resume:
            with on_every_rank(comm):
                done = _read(folder, request) if comm.rank == 0 else None
            done = comm.bcast(done)
            if done is not None:
                return done
        goal, floors = self.asked(request)
        if start is None:
            start = self.start if self.start is not None else self.first(request)
        design = run_case(
            self.case, comm, start=start, goal=goal,
            constraints=[*self.case.constraints(), *floors],
        )  # fmt: skip
        solved = self.solved(design)
        write_design(folder, design, goal, title=f"point {request.number}", pictures=self.pictures)
        with on_every_rank(comm):
            if comm.rank == 0:
                with replacing(folder / VARIABLES) as part:
                    np.save(part, solved.design)
                write_json(
                    folder / POINT, {"request": asdict(request), "values": solved.values, **solved.about}
                )
        return solved

    def first(self, request: Request) -> Array:
        """Where an anchor starts: the field of the case, with the materials exchanged for a transport that
        prefers the other one. Best for each is what encloses islands of the material that conducts it worse.
        """
        case, name = self.case, self.names[request.maximize or 0]
        grid = VoxelGrid(MPI.COMM_SELF, case.cell.shape, case.voxel_size, periodic=True)
        field, f = start_field(grid, case.start.field, case.start.seed), case.material.volume_fraction
        exchanged = self.known[name][0] > self.known[name][1]
        density = from_field(field, np.ones(field.size), 1 - f if exchanged else f, grid.comm)
        return (1 - density if exchanged else density).reshape(grid.shape)

    def asked(self, request: Request) -> tuple[Goal, list[Specification]]:
        """Goal and floors of a request."""
        weights = [_NOTHING] * len(self.names)
        if request.maximize is None:
            for i, name in enumerate(self.names):
                bound = self.goal.bound(self.case.material.volume_fraction, self.known[name], self.case.dim)
                weights[i] = request.wanted[i] / (bound or 1.0)
        else:
            weights[request.maximize] = 1.0
        scaled = tuple(float(w / max(weights)) for w in weights)
        goal = Goal(self.goal.kind, self.goal.direction, transports=self.names, weights=scaled)
        floors: list[Specification] = [
            LeastConductivity(floor, name, self.goal.direction)
            for name, floor in zip(self.names, request.floors, strict=True)
            if floor is not None
        ]
        return goal, floors

    def solved(self, design: CellDesign) -> Solved:
        """What the crisp structure has, on its fitted mesh. Collective."""
        values = tuple(float(design.transports[name].verified) for name in self.names)
        bounds = [design.transports[name].bound for name in self.names]
        result = design.result
        about = {
            "of_bound": [v / b if b else None for v, b in zip(values, bounds, strict=True)],
            "volume_fraction": design.volume_fraction,
            "grey_level": result.grey_level,
            "iterations": len(result.history),
            "converged": result.converged,
            "violation": max([0.0, *result.constraints.values()]),
        }
        return Solved(values, _on_grid(design, result.m), plain(about))


def _on_grid(design: CellDesign, values: Array) -> Array:
    """Values of this rank's cells as an array over the grid. Collective."""
    cell = design.cell
    if isinstance(cell, VoxelGrid):
        return np.asarray(cell.gather(values.reshape(cell.own_shape)))
    return to_image(cell, values)


def _read(folder: Path, request: Request) -> Solved | None:
    """A finished point, if it was asked for the same."""
    try:
        content = json.loads((folder / POINT).read_text(encoding="utf-8"))
        design = np.load(folder / VARIABLES)
    except (OSError, ValueError):
        return None
    asked = plain(asdict(request))
    if content.pop("request") != asked:
        return None
    return Solved(tuple(content.pop("values")), design, content)
