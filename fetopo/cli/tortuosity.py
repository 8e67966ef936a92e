"""fetopo tortuosity: through-feature diffusivity of a phase."""

from __future__ import annotations

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
    collective,
    emit,
    parse_shape,
)


def tortuosity(
    image: ImagePath,
    phase: Phase = 0,
    axis: Annotated[str, typer.Option(help="0, 1, 2 or all.")] = "all",
    crop: Crop = None,
    sides: Annotated[str, typer.Option(help="The other faces: 'no flux' or 'periodic'.")] = "no flux",
    method: Annotated[
        str, typer.Option(help="interval (both schemes), 'finite volumes' or elements.")
    ] = "interval",
    discretization: DiscretizationOption = None,
    shape: Shape = None,
    dtype: Dtype = None,
    voxel_size: VoxelSize = None,
    as_json: Json = False,
) -> None:
    """Effective diffusivity and tortuosity factor of a phase, along each axis.

    Fixed concentrations on two opposite faces, no flux through the others or periodic ones. The exact value
    of the voxel geometry lies between lower_bound, from finite volumes, and upper_bound, from trilinear
    elements; relative_diffusivity is that of the elements, or of finite volumes if only these are solved.
    Lists have one entry per axis, named in "axes"; what a method does not give is null.
    """
    from mpi4py import MPI

    from fetopo.microstructure.image import read_slabs
    from fetopo.transport.tortuosity import METHODS
    from fetopo.transport.tortuosity import tortuosity as solve

    comm = MPI.COMM_WORLD

    def load() -> Any:
        # Every rank reads its own rows: the image may be larger than the memory of one.
        sizes = None if shape is None else parse_shape(shape)
        slab = read_slabs(comm, image, crop=crop, voxel_size=voxel_size, shape=sizes, dtype=dtype)
        if sides not in ("no flux", "periodic"):
            raise ValueError(f"--sides must be 'no flux' or 'periodic', found {sides!r}")
        if method not in METHODS:
            raise ValueError(f"--method must be one of {', '.join(METHODS)}, found {method!r}")
        return _axes(axis, slab.dim), slab.mask(phase)

    axes, mask = collective(load)
    chosen: dict[str, Any] = {"sides": sides, "method": method, "discretization": discretization}
    try:
        results = solve(comm, mask, axes, **chosen)
    except ValueError as error:
        raise InputError(str(error)) from error
    values = {
        "axes": [r.axis for r in results],
        "porosity": results[0].porosity,
        "percolating_fraction": [r.percolating_fraction for r in results],
        "relative_diffusivity": [r.relative_diffusivity for r in results],
        "lower_bound": [r.lower_bound for r in results],
        "upper_bound": [r.upper_bound for r in results],
        "best_estimate": [r.best_estimate for r in results],
        "finite_volumes": [r.finite_volumes for r in results],
        "tortuosity_factor": [r.tortuosity_factor for r in results],
        "bruggeman_exponent": [r.bruggeman_exponent for r in results],
        "percolating_porosity": [r.percolating_porosity for r in results],
        "isolated_voxels": [r.isolated_voxels for r in results],
        "flux_imbalance": [r.flux_imbalance for r in results],
        "conventions": dict(results[0].conventions),
    }

    def text() -> str:
        head = f"{image.name}: phase {phase}, porosity {results[0].porosity:.4f}, sides {sides}"
        rows = ["axis   D/D₀      exact value in       estimate  τ         α       percolating"]
        for r in results:
            exponent = "–" if r.bruggeman_exponent is None else f"{r.bruggeman_exponent:.3f}"
            low, high, best = (
                f"{'–':<7}" if value is None else f"{value:.5f}"
                for value in (r.lower_bound, r.upper_bound, r.best_estimate)
            )
            rows.append(
                f"{r.axis:4d}   {r.relative_diffusivity:.5f}   [{low}, {high}]   {best}   "
                f"{r.tortuosity_factor:<8.4f}  {exponent:<6}  {r.percolating_fraction:.4f}"
            )
        return "\n".join([head, *rows])

    emit(comm, as_json, values, text)


def _axes(text: str, dim: int) -> list[int]:
    if text == "all":
        return list(range(dim))
    if text not in [str(a) for a in range(dim)]:
        raise ValueError(f"--axis must be {', '.join(str(a) for a in range(dim))} or all, found {text!r}")
    return [int(text)]
