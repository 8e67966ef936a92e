"""fetopo characterize: what a phase of an image looks like."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fetopo.cli._common import (
    Crop,
    DiscretizationOption,
    Dtype,
    ImagePath,
    InputError,
    Json,
    Phase,
    Shape,
    VoxelSize,
    emit,
    parse_shape,
    together,
)

LONG = 2**22
"""Voxels from which on the work takes seconds, and is told of on the way."""
PICTURES = (".png", ".pdf", ".svg")


def characterize(
    image: ImagePath,
    phase: Phase = 0,
    voxel_size: VoxelSize = None,
    crop: Crop = None,
    shape: Shape = None,
    dtype: Dtype = None,
    pores: Annotated[
        bool | None,
        typer.Option(
            "--pores/--no-pores", help="Pore sizes by local thickness; by default up to 8 million voxels."
        ),
    ] = None,
    cluster_function: Annotated[
        bool, typer.Option("--cluster-function", help="The two-point cluster function C₂ too.")
    ] = False,
    cross: Annotated[bool, typer.Option("--cross", help="Correlations between all phases too.")] = False,
    transport: Annotated[
        bool, typer.Option("--transport", help="Through-feature diffusivity and tortuosity factor too.")
    ] = False,
    discretization: DiscretizationOption = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw a page of slices and curves (.png, .pdf, .svg).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe a phase of an image: fraction, clusters, chords, surface, correlations, pore sizes.

    Under mpirun the ranks share the descriptors out.
    """
    from mpi4py import MPI

    from fetopo.microstructure import descriptors
    from fetopo.microstructure.descriptors.page import lines, save_page
    from fetopo.microstructure.image import read
    from fetopo.transport.discretization import check_discretization

    comm = MPI.COMM_WORLD

    def load() -> Any:
        if figure is not None:
            _check_figure(figure)
        if discretization is not None and not transport:
            raise ValueError(f"--discretization {discretization} is for --transport")
        check_discretization(discretization)
        sizes = None if shape is None else parse_shape(shape)
        picture = read(image, crop=crop, voxel_size=voxel_size, shape=sizes, dtype=dtype)
        picture.mask(phase)
        return picture

    picture = together(comm, load)
    shown = _Shown() if comm.rank == 0 and picture.labels.size >= LONG else None
    try:
        found = descriptors.summarize(
            picture,
            phase,
            pores=pores,
            cluster_function=cluster_function,
            cross=cross,
            comm=comm,
            progress=shown,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    flow = _transport(comm, picture, phase, discretization) if transport else []
    if figure is not None and comm.rank == 0:
        save_page(figure, picture, phase, found, f"{image.name}, phase {phase}")

    def text() -> str:
        size = " × ".join(str(n) for n in found.shape)
        sides = " × ".join(f"{h * 1e6:.4g}" for h in dict.fromkeys(found.voxel_size))
        head = f"{image.name}: {size} voxels of {sides} µm, phase {phase}"
        missing = [] if found.pore_sizes is not None or pores is False else _without_pores(picture)
        rows = [f"D/D₀ and τ, axis {r.axis}      {_interval(r)}   {r.tortuosity_factor:.4f}" for r in flow]
        return "\n".join([head, *lines(found), *missing, *rows])

    values = found.to_dict() if comm.rank == 0 else {}
    if transport:
        keys = ("relative_diffusivity", "lower_bound", "upper_bound", "best_estimate", "tortuosity_factor")
        values |= {key: [getattr(r, key) for r in flow] for key in keys}
    emit(comm, as_json, values, text)


def _transport(comm: Any, picture: Any, phase: int, discretization: Any) -> list[Any]:
    """Through-feature diffusivities of the phase along all axes."""
    from fetopo.transport.tortuosity import tortuosity

    mask = picture.mask(phase)
    return tortuosity(comm, mask, voxel_size=picture.voxel_size, discretization=discretization)


def _interval(r: Any) -> str:
    """The diffusivity and what it is known to lie between."""
    low = "" if r.lower_bound is None else f"{r.lower_bound:.5f} ≤ "
    return f"{low}{r.relative_diffusivity:.5f}"


def _without_pores(picture: Any) -> list[str]:
    """Why there are no pore sizes."""
    from fetopo.microstructure.descriptors.summary import PORES_SIZE

    if picture.labels.size <= PORES_SIZE:
        return []
    return [f"local thickness         not found for more than {PORES_SIZE} voxels unless asked: --pores"]


def _check_figure(path: Path) -> None:
    """See that a picture can be written, before anything is computed."""
    if path.suffix.lower() not in PICTURES:
        raise ValueError(f"--figure: {path} has suffix {path.suffix!r}, expected {', '.join(PICTURES)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"--figure: {path} is not a file in a directory that exists")
    from fetopo.figure import new_figure

    try:
        new_figure()
    except ImportError as error:
        raise ValueError(f"--figure: {error}") from error


class _Shown:
    """What is being computed, on standard error: a line that changes, or several in a file."""

    def __init__(self) -> None:
        self.start, self.live = time.monotonic(), sys.stderr.isatty()

    def __call__(self, name: str, done: int, total: int) -> None:
        line = f"{time.monotonic() - self.start:6.1f} s  {done}/{total}  {name}"
        if self.live:
            sys.stderr.write("\r\033[K" + ("" if done == total else line))
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()
