"""A case file's design from several starts, each on a group of ranks and in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._groups import Failed, Groups
from fetopo._json import plain
from fetopo._mpi import on_every_rank
from fetopo.case import Case, CaseError
from fetopo.case_run import run_case
from fetopo.design.checkpoint import Checkpoint, CheckpointError, exists
from fetopo.design.goal import Goal
from fetopo.design.starts import Start, starts
from fetopo.design.uniqueness import Outcome, Sameness, StartsResult, compare, guaranteed
from fetopo.io import write_design, write_json
from fetopo.microstructure.image import read as read_image
from fetopo.report_starts import outcome_line, write_starts

Array = npt.NDArray[np.float64]

#: Directory of the checkpoints in the folder of a start.
CHECKPOINT = "checkpoint"

#: What the folder of a start is of; written before its design begins.
ABOUT = "start.json"


def resolved_goal(case: Case) -> Goal:
    """The goal of a case in terms of the effective tensor."""
    return case.goal().resolved(case.dim, case.material.volume_fraction, case.conductivity)


def case_starts(
    case: Case, count: int, *, first: Array | None = None, images: Mapping[str, Array] | None = None
) -> list[Start]:
    """Where the designs of a case begin: first as it says, then as :func:`fetopo.design.starts.starts` does.

    Args:
        case: what to design.
        count: how many.
        first: density from the image that the case starts from, if it does.
        images: see :func:`fetopo.design.starts.starts`.
    """
    s = case.start
    if first is not None:
        head = Start(f"image {s.image}", lambda: first)
    else:
        head = Start(s.field if s.field == "inclusions" else f"{s.field}, seed {s.seed}", lambda: s.field)
    return starts(
        case.cell.shape,
        case.lengths,
        case.material.volume_fraction,
        count,
        first=head,
        images=images,
        shortest=case.filter_radius,
        seed=s.seed,
    )


def folder(directory: Path, number: int) -> Path:
    """Where the design of a start is, numbered from 1."""
    return directory / f"start-{number:02d}"


def about(case: Case, start: Start) -> dict[str, Any]:
    """What a folder has to be of, so that its result need not be found again."""
    # Another image among those to start from only makes more starts.
    known = case.model_dump(exclude={"title": True, "start": {"images"}})
    return dict(plain({"start": start.name, "case": known}))


def mismatch(case: Case, begin: Sequence[Start], directory: Path) -> str | None:
    """What is wrong with folders that hold the design of another case or start; None if nothing is."""
    for number, start in enumerate(begin, 1):
        path = folder(directory, number) / ABOUT
        if path.exists() and json.loads(path.read_text(encoding="utf-8")) != about(case, start):
            return (
                f"--resume: {path.parent} is of another case or another start; "
                "name another directory or start again with --overwrite"
            )
    return None


def run_starts(
    case: Case,
    comm: MPI.Intracomm,
    begin: Sequence[Start],
    directory: Path,
    *,
    groups: int | None = None,
    resume: bool = False,
    checkpoint_every: int = 10,
    pictures: bool = True,
    same: Sameness | None = None,
) -> StartsResult:
    """Design a case from several starts and tell which structures are different. Collective.

    Each start is designed by one group of ranks in a folder of its own, start-01, …, which then holds what
    `fetopo design` writes. A start that ends with a RuntimeError does not end the others.

    Args:
        case: what to design.
        comm: all ranks.
        begin: first designs, see :func:`case_starts`.
        directory: for the folders, `starts.json`, `starts.csv` and `starts.png`; made if it is not there.
        groups: of ranks; default one per rank.
        resume: take over what complete folders hold and go on from the checkpoints in the others.
        checkpoint_every: iterations between two checkpoints of a start; 0 writes none.
        pictures: whether to draw.
        same: when two structures count as the same.
    Raises:
        RuntimeError: no start led to a design.
        CaseError: with `resume`, a folder of another case or start.
    """
    goal, title = resolved_goal(case), case.title
    wrong = None
    with on_every_rank(comm):
        if comm.rank == 0:
            directory.mkdir(parents=True, exist_ok=True)
            wrong = mismatch(case, begin, directory) if resume else None
    wrong = comm.bcast(wrong)
    if wrong is not None:
        raise CaseError(wrong)

    def design(own: MPI.Intracomm, index: int, start: Start) -> Outcome | None:
        place = folder(directory, index + 1)
        if not (resume and own.bcast(_complete(place))):
            with on_every_rank(own):
                if own.rank == 0:
                    place.mkdir(exist_ok=True)
                    for old in ("result.json", "design.tif"):
                        (place / old).unlink(missing_ok=True)
                    write_json(place / ABOUT, about(case, start))
            again = resume and own.bcast(exists(place / CHECKPOINT))
            checkpoint = Checkpoint(place / CHECKPOINT, every=checkpoint_every, resume=again)
            found = run_case(case, own, start=start.make(), checkpoint=checkpoint)
            write_design(place, found, goal, title=title or start.name, pictures=pictures)
        return read_outcome(place, index + 1, start.name, case) if own.rank == 0 else None

    found = Groups(comm, groups).run(
        begin,
        design,
        name="start",
        describe=lambda outcome: f"{outcome.start}: {outcome_line(outcome, goal)}",
        tolerate=(RuntimeError, CheckpointError),
    )
    failed = [
        (number, begin[number - 1].name, outcome.message)
        for number, outcome in enumerate(found, 1)
        if isinstance(outcome, Failed)
    ]
    outcomes = [outcome for outcome in found if not isinstance(outcome, Failed)]
    if not outcomes:
        raise RuntimeError(f"none of {len(begin)} starts led to a design; the first: {failed[0][2]}")
    result = compare(outcomes, goal, case.voxel_size, same=same, failed=failed, comm=comm)
    with on_every_rank(comm):
        if comm.rank == 0:
            write_starts(directory, result, case.lengths, title=title, pictures=pictures)
    return result


def _complete(place: Path) -> bool:
    """Whether a folder holds a whole result."""
    return all((place / name).is_file() for name in (ABOUT, "result.json", "design.tif"))


def read_outcome(place: Path, number: int, start: str, case: Case) -> Outcome:
    """What `fetopo design` wrote to a folder, as an outcome.

    Args:
        place: the folder.
        number, start: of the start.
        case: what was designed.
    """
    goal = resolved_goal(case)
    values = json.loads((place / "result.json").read_text(encoding="utf-8"))
    labels = read_image(place / "design.tif").labels.astype(np.uint8)
    verified = values["verified"]
    D = np.array(verified["effective_tensor"], dtype=float)
    L, U = (None if verified[k] is None else np.array(verified[k]) for k in ("lower_bound", "upper_bound"))
    # Of several transports each has bounds of its own; only the lower one is known together.
    interval = (verified["at_least"], None) if goal.several else guaranteed(goal, L, U)
    area = verified["interface_area"]
    return Outcome(
        number,
        start,
        labels,
        D,
        float(verified["reached"]),
        interval,
        _mean(D) or 0.0,
        (_mean(L), _mean(U)),
        values["bound_fraction"],
        float(verified["volume_fraction"]),
        bool(values["converged"]),
        int(values["iterations"]),
        float(values["grey_level"]),
        {name: verified[name] for name in ("good", "poor") if verified[name] is not None},
        None if area is None else float(area) / float(np.prod(case.lengths)),
    )


def _mean(tensor: Array | None) -> float | None:
    return None if tensor is None else float(np.trace(tensor)) / len(tensor)
