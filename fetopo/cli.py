"""The command line: `fetopo characterize`, `fetopo tortuosity`, `fetopo design`, alone and under mpirun.

Results go to standard output (with --json as one JSON object), progress and messages to standard error,
both from rank 0. Exit code 2 for input that cannot be used, on every rank.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Inverse design and characterization of microstructures. On several cores: mpirun -n N fetopo …",
)

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


class _InputError(Exception):
    """Something the user gave cannot be used."""


def main() -> None:
    """Entry point of the console script."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    logging.basicConfig(
        level=logging.INFO if comm.rank == 0 else logging.CRITICAL, format="%(message)s", stream=sys.stderr
    )
    for noisy in ("matplotlib", "tifffile", "FFCx", "UFL", "UFL_LEGACY", "PIL"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if comm.rank > 0:
        # The same command line is wrong on every rank: one says so.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        # The exit code of --help and the like, None from a command.
        code = app(standalone_mode=False) or 0
    except _InputError as error:
        if comm.rank == 0:
            sys.stderr.write(f"fetopo: {error}\n")
        code = 2
    except typer.Exit as stop:
        code = stop.exit_code
    except typer.Abort:
        code = 130
    except Exception as error:
        # Errors of the command line itself (unknown option, missing argument) know how to show themselves.
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        if comm.rank == 0:
            error.show(file=sys.stderr)
        code = error.exit_code
    sys.stderr.flush()
    sys.exit(code)


def _root(comm: Any, work: Callable[[], Any]) -> Any:
    """Do something on rank 0 and give its result to all; an input error there is one everywhere."""
    outcome: tuple[Any, str | None] = (None, None)
    if comm.rank == 0:
        try:
            outcome = work(), None
        except (ValueError, TypeError, OSError) as error:
            outcome = None, str(error)
    value, problem = comm.bcast(outcome)
    if problem is not None:
        raise _InputError(problem)
    return value


def _read(
    comm: Any, path: Path, crop: int | None, shape: str | None, dtype: str | None, voxel_size: float | None
) -> Any:
    """The image on every rank, cropped."""
    from fetopo.microstructure import image

    def work() -> Any:
        sizes = None if shape is None else _shape(shape)
        return image.read(path, crop=crop, voxel_size=voxel_size, shape=sizes, dtype=dtype)

    return _root(comm, work)


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise ValueError(f"--shape must be integers separated by commas, found {text!r}") from None


def _emit(comm: Any, as_json: bool, values: dict[str, Any], text: Callable[[], str]) -> None:
    from fetopo._json import plain

    if comm.rank == 0:
        sys.stdout.write((json.dumps(plain(values), ensure_ascii=False) if as_json else text()) + "\n")
        sys.stdout.flush()


@app.command()
def characterize(
    image: ImagePath,
    phase: Phase = 0,
    voxel_size: VoxelSize = None,
    crop: Crop = None,
    shape: Shape = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Describe a phase of an image: fraction, connectivity, chords, surface, correlation functions."""
    from mpi4py import MPI

    from fetopo.microstructure import descriptors

    comm = MPI.COMM_WORLD
    picture = _read(comm, image, crop, shape, dtype, voxel_size)
    values = _root(comm, lambda: descriptors.characterize(picture, phase))

    def text() -> str:
        size = " × ".join(str(n) for n in values["shape"])
        axes = range(len(values["shape"]))
        lines = [
            f"{image.name}: {size} voxels, phase {phase}",
            "volume fractions      "
            + ", ".join(f"{k}: {v:.4f}" for k, v in values["volume_fractions"].items()),
            f"porosity              {values['porosity']:.4f}",
            "percolating fraction  "
            + "  ".join(f"{values['percolating_fraction'][a]:.4f}" for a in axes)
            + "  along axes "
            + ", ".join(map(str, axes)),
            "mean chord length     " + "  ".join(_length(values["mean_chord_length"][a]) for a in axes),
            f"specific surface      {values['specific_surface']:.4g} 1/m",
        ]
        return "\n".join(lines)

    _emit(comm, as_json, values, text)


def _length(metres: float | None) -> str:
    return "none" if metres is None else f"{metres * 1e6:.3f} µm"


@app.command()
def tortuosity(
    image: ImagePath,
    phase: Phase = 0,
    axis: Annotated[str, typer.Option(help="0, 1, 2 or all.")] = "all",
    crop: Crop = None,
    shape: Shape = None,
    dtype: Dtype = None,
    voxel_size: VoxelSize = None,
    as_json: Json = False,
) -> None:
    """Effective diffusivity and tortuosity factor of a phase, along each axis.

    Fixed concentrations on two opposite faces, no flux through the others; trilinear elements, one per voxel:
    the relative diffusivity is an upper bound of the voxel geometry's exact value. Lists have one entry per
    axis computed, named in "axes".
    """
    from mpi4py import MPI

    from fetopo.transport.tortuosity import tortuosity as solve

    comm = MPI.COMM_WORLD
    picture = _read(comm, image, crop, shape, dtype, voxel_size)
    axes = _root(comm, lambda: _axes(axis, picture.dim))
    mask = _root(comm, lambda: picture.mask(phase))
    results = solve(comm, mask, axes, voxel_size=picture.voxel_size)
    values = {
        "axes": [r.axis for r in results],
        "porosity": results[0].porosity,
        "percolating_fraction": [r.percolating_fraction for r in results],
        "relative_diffusivity": [r.relative_diffusivity for r in results],
        "upper_bound": [r.relative_diffusivity for r in results],
        "tortuosity_factor": [r.tortuosity_factor for r in results],
        "bruggeman_exponent": [r.bruggeman_exponent for r in results],
        "conventions": {
            "porosity": "total",
            "sides": "no flux",
            "potential": "at the face",
            "elements": "trilinear, one per voxel",
        },
    }

    def text() -> str:
        head = f"{image.name}: phase {phase}, porosity {results[0].porosity:.4f}"
        rows = ["axis   D/D₀      τ         α       percolating"]
        for r in results:
            exponent = "–" if r.bruggeman_exponent is None else f"{r.bruggeman_exponent:.3f}"
            rows.append(
                f"{r.axis:4d}   {r.relative_diffusivity:.5f}   {r.tortuosity_factor:<8.4f}  {exponent:<6}  "
                f"{r.percolating_fraction:.4f}"
            )
        return "\n".join([head, *rows])

    _emit(comm, as_json, values, text)


def _axes(text: str, dim: int) -> list[int]:
    if text == "all":
        return list(range(dim))
    if text not in [str(a) for a in range(dim)]:
        raise ValueError(f"--axis must be {', '.join(str(a) for a in range(dim))} or all, found {text!r}")
    return [int(text)]


@app.command()
def design(
    case: Annotated[Path, typer.Argument(help="Case file, TOML.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Directory for the results.", show_default=False)],
    overwrite: Annotated[bool, typer.Option(help="Replace a result that is already there.")] = False,
    pictures: Annotated[bool, typer.Option(help="Draw PNG pictures.")] = True,
    as_json: Json = False,
) -> None:
    """Design a periodic cell with a wanted effective conductivity."""
    from mpi4py import MPI

    # Before rank 0 works alone: importing DOLFINx starts PETSc, which all ranks do together.
    from fetopo.design.cell import design_cell
    from fetopo.io import shown_objective, summary, write_design
    from fetopo.microstructure.mesh import regular_cell, voxel_of_cells
    from fetopo.progress import Progress

    comm = MPI.COMM_WORLD
    problem, start = _root(comm, lambda: _prepare(case, output, overwrite))
    goal = problem.goal()
    cell = regular_cell(comm, problem.cell.shape, problem.lengths)
    first = problem.start.field
    if start is not None:
        owned = cell.mesh.topology.index_map(cell.dim).size_local
        first = start[tuple(voxel_of_cells(cell)[:owned].T)]
    name, transform = shown_objective(goal)
    result = design_cell(
        cell,
        conductivity=problem.conductivity,
        volume_fraction=problem.material.volume_fraction,
        filter_radius=problem.filter_radius,
        goal=goal,
        start=first,
        seed=problem.start.seed,
        law=problem.law(),
        options=problem.options(),
        refine=problem.verify.refine,
        callbacks=[Progress(comm, name=name.removeprefix("effective "), transform=transform)],
    )
    write_design(output, result, goal, title=problem.title, pictures=pictures)
    values = summary(result, goal)

    def text() -> str:
        from fetopo.report import design_report

        return design_report(result, goal, output)

    _emit(comm, as_json, values, text)


def _prepare(path: Path, output: Path, overwrite: bool) -> tuple[Any, Any]:
    """Read the case and what it names, and see that the output can be written, before any work."""
    from fetopo.case import CaseError, read_case, start_from_image

    case = read_case(path)
    if output.exists() and not output.is_dir():
        raise CaseError(f"--output: {output} is not a directory")
    if (output / "result.json").exists() and not overwrite:
        raise CaseError(
            f"--output: {output} already holds a result; name another directory or add --overwrite"
        )
    parent = next(p for p in (output.absolute(), *output.absolute().parents) if p.exists())
    if not os.access(parent, os.W_OK):
        raise CaseError(f"--output: {parent} cannot be written to")
    return case, start_from_image(case, path)


if __name__ == "__main__":
    main()
