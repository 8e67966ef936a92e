"""fetopo design: a periodic cell with a wanted property, from a case file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fetopo.cli._common import InputError, Json, at_root, emit, see_writable

#: Directory of the checkpoints in that of the results.
CHECKPOINT = "checkpoint"


def design(
    case: Annotated[Path, typer.Argument(help="Case file, TOML.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Directory for the results.", show_default=False)],
    overwrite: Annotated[bool, typer.Option(help="Replace a result that is already there.")] = False,
    resume: Annotated[
        bool, typer.Option(help="Go on from the last checkpoint of a run that did not end.")
    ] = False,
    checkpoint_every: Annotated[
        int, typer.Option(help="Iterations between two checkpoints; 0 writes none.", min=0)
    ] = 10,
    pictures: Annotated[bool, typer.Option(help="Draw PNG pictures.")] = True,
    starts: Annotated[
        int | None,
        typer.Option(
            help="Design from so many starts and tell how many different structures have the property.",
            min=1,
            show_default=False,
        ),
    ] = None,
    groups: Annotated[
        int | None,
        typer.Option(
            help="With --starts: groups of ranks, each on a start of its own; default one per rank.",
            min=1,
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Design a periodic cell with a wanted effective conductivity."""
    from mpi4py import MPI

    # Before rank 0 works alone: importing DOLFINx starts PETSc, which all ranks do together.
    from fetopo.case_run import run_case
    from fetopo.design.checkpoint import Checkpoint, CheckpointError
    from fetopo.io import shown_objective, summary, write_design
    from fetopo.progress import Progress

    comm = MPI.COMM_WORLD
    if starts is not None:
        from fetopo.cli._starts import design_starts

        design_starts(
            comm, case, output, starts, groups=groups, overwrite=overwrite, resume=resume,
            checkpoint_every=checkpoint_every, pictures=pictures, as_json=as_json,
        )  # fmt: skip
        return
    if groups is not None:
        raise InputError("--groups goes with --starts")
    problem, start = at_root(comm, lambda: _prepare(case, output, overwrite, resume))
    goal = problem.goal()
    name, transform = shown_objective(goal)
    try:
        result = run_case(
            problem,
            comm,
            start=start,
            callbacks=[Progress(comm, name=name.removeprefix("effective "), transform=transform)],
            checkpoint=Checkpoint(output / CHECKPOINT, every=checkpoint_every, resume=resume),
        )
    except CheckpointError as error:
        raise InputError(f"--resume: {error}") from None
    write_design(output, result, goal, title=problem.title, pictures=pictures)
    values = summary(result, goal)

    def text() -> str:
        from fetopo.report import design_report

        return design_report(result, goal, output)

    emit(comm, as_json, values, text)


def _prepare(path: Path, output: Path, overwrite: bool, resume: bool) -> tuple[Any, Any]:
    """Read the case and what it names, and see that the output can be written, before any work."""
    from fetopo.case import CaseError, read_case, start_from_image
    from fetopo.design.checkpoint import exists

    case = read_case(path)
    see_writable(output)
    if (output / "result.json").exists() and not overwrite:
        raise CaseError(
            f"--output: {output} already holds a result; name another directory or add --overwrite"
        )
    if not (resume or overwrite) and exists(output / CHECKPOINT):
        raise CaseError(
            f"--output: {output} holds a run that did not end; "
            "go on with --resume or start again with --overwrite"
        )
    return case, start_from_image(case, path)
