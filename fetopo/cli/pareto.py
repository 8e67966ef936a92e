"""fetopo pareto: the front of two or three transports of a case."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fetopo.cli._common import InputError, Json, at_root, collective, emit, one_line_each, see_writable


def pareto(
    case: Annotated[Path, typer.Argument(help="Case file, TOML.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Directory for the results.", show_default=False)],
    points: Annotated[int, typer.Option(help="Points of the front, one design each.", min=2)] = 9,
    method: Annotated[
        str,
        typer.Option(
            help="chebyshev: all transports together, in changing proportions. "
            "epsilon: one of them, above floors of the others."
        ),
    ] = "chebyshev",
    groups: Annotated[
        int | None,
        typer.Option(help="Groups of ranks, each on points of its own; by default one per rank.", min=1),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Keep the points that are complete in the directory, and do the others.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace a front that is already there.")] = False,
    pictures: Annotated[bool, typer.Option(help="Draw PNG pictures, of the front and of each point.")] = True,
    as_json: Json = False,
) -> None:
    """What two or three transports through a cell can have together: one design per point of the front."""
    from mpi4py import MPI

    from fetopo.front_io import front_report, front_summary, write_front
    from fetopo.pareto_run import run_front

    comm = MPI.COMM_WORLD
    one_line_each()
    problem, start = at_root(comm, lambda: _prepare(case, output, points, method, resume, overwrite))
    found = collective(
        lambda: run_front(
            problem,
            comm,
            output,
            points=points,
            method=method,  # type: ignore[arg-type]
            groups=groups,
            resume=resume,
            start=start,
            pictures=pictures,
        )
    )
    if not found.front.found:
        raise InputError(f"every point failed, the first one: {found.front.points[0].message}")
    write_front(comm, output, found, title=problem.title, picture=pictures)
    emit(comm, as_json, front_summary(found), lambda: front_report(found, output))


def _prepare(
    path: Path, output: Path, points: int, method: str, resume: bool, overwrite: bool
) -> tuple[Any, Any]:
    """Read the case, and see that there is such a front and that it can be written, before any work."""
    from fetopo.case import CaseError, read_case, start_from_image
    from fetopo.design.pareto import METHODS, lattice
    from fetopo.pareto_run import MANIFEST, FrontError, check_front

    case = read_case(path)
    if method not in METHODS:
        raise CaseError(f"--method must be {' or '.join(METHODS)}, found {method!r}")
    try:
        check_front(case, method)
        lattice(len(case.objective.transports), points)
    except FrontError as error:
        raise CaseError(f"{path}: {error}") from None
    except ValueError as error:
        raise CaseError(f"--points: {error}") from None
    see_writable(output)
    if (output / MANIFEST).exists() and not (resume or overwrite):
        raise CaseError(
            f"--output: {output} holds a front; go on with --resume or start again with --overwrite"
        )
    return case, start_from_image(case, path)
