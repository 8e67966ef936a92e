"""What the commands share: options, errors that are the user's, output from rank 0."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

ImagePath = Annotated[
    Path,
    typer.Argument(help="Image: .tif, .npy, .npz, .vti, .raw, or a folder of slices.", show_default=False),
]
Phase = Annotated[int, typer.Option(help="Label of the phase to look at.")]
Crop = Annotated[int | None, typer.Option(help="Use only the centred cube of this many voxels.", min=1)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Shape = Annotated[str | None, typer.Option(help="Shape of a .raw image, as 200,200,200.")]
Dtype = Annotated[str | None, typer.Option(help="Data type of a .raw image, as uint8.")]
VoxelSize = Annotated[
    float | None, typer.Option(help="Edge length of a voxel in metres, over that in the file.")
]
DiscretizationOption = Annotated[
    str | None,
    typer.Option(
        "--discretization",
        help="voxel: multigrid on the voxels; mesh: DOLFINx. By default voxel wherever it can.",
        show_default=False,
    ),
]


class InputError(Exception):
    """Something the user gave cannot be used."""


def at_root(comm: Any, work: Callable[[], Any]) -> Any:
    """Do something on rank 0 and give its result to all; an input error there is one everywhere."""
    outcome: tuple[Any, str | None] = (None, None)
    if comm.rank == 0:
        try:
            outcome = work(), None
        except (ValueError, TypeError, OSError, ImportError) as error:
            outcome = None, str(error)
    value, problem = comm.bcast(outcome)
    if problem is not None:
        raise InputError(problem)
    return value


def collective(work: Callable[[], Any]) -> Any:
    """Do something together, where an input error on one rank is one everywhere."""
    try:
        return work()
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise InputError(str(error)) from error


def together(comm: Any, work: Callable[[], Any]) -> Any:
    """Do something on every rank alone; an input error on one is one everywhere."""
    from fetopo._mpi import on_every_rank

    def checked() -> Any:
        with on_every_rank(comm):
            return work()

    return collective(checked)


def see_writable(output: Path) -> None:
    """See that a directory for results is there or can be made.

    Raises:
        ValueError: it is a file, or nothing may be written there.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output: {output} is not a directory")
    parent = next(p for p in (output.absolute(), *output.absolute().parents) if p.exists())
    if not os.access(parent, os.W_OK):
        raise ValueError(f"--output: {parent} cannot be written to")


def parse_shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise ValueError(f"--shape must be integers separated by commas, found {text!r}") from None


def emit(comm: Any, as_json: bool, values: dict[str, Any], text: Callable[[], str]) -> None:
    from fetopo._json import plain

    if comm.rank == 0:
        sys.stdout.write((json.dumps(plain(values), ensure_ascii=False) if as_json else text()) + "\n")
        sys.stdout.flush()


def one_line_each() -> None:
    """Groups of ranks tell when a design is done; what happens within would not say of which it speaks."""
    logging.getLogger("fetopo").setLevel(logging.WARNING)
    logging.getLogger("fetopo.groups").setLevel(logging.INFO)
