"""fetopo rve: how large a sample of an image must be for a property."""

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


def rve(
    image: ImagePath,
    of: Annotated[str, typer.Option("--property", help="porosity or diffusivity.")] = "porosity",
    phase: Phase = 0,
    axis: Annotated[int, typer.Option(help="Direction of the diffusivity.", min=0, max=2)] = 0,
    sizes: Annotated[
        str | None, typer.Option(help="Edges of the windows in voxels, as 8,16,32.", show_default=False)
    ] = None,
    error: Annotated[float, typer.Option(help="Relative error wanted.")] = 0.05,
    confidence: Annotated[float, typer.Option(help="Confidence wanted.")] = 0.95,
    limit: Annotated[int | None, typer.Option(help="At most so many windows of each size.", min=2)] = None,
    discretization: DiscretizationOption = None,
    crop: Crop = None,
    shape: Shape = None,
    dtype: Dtype = None,
    voxel_size: VoxelSize = None,
    as_json: Json = False,
) -> None:
    """Size of a sample whose property is within an error of the mean, from windows of growing size.

    Windows lie side by side; the ranks of mpirun share them. Lengths are in metres. The default sizes divide
    the smallest edge of the image by 8, 6, 4, 3 and 2.
    """
    from mpi4py import MPI

    from fetopo.microstructure.image import read_slabs
    from fetopo.transport.discretization import check_discretization
    from fetopo.transport.properties import through_diffusivity, volume_fraction
    from fetopo.transport.rve import window_study

    comm = MPI.COMM_WORLD
    if of not in ("porosity", "diffusivity"):
        raise InputError(f"--property must be porosity or diffusivity, found {of!r}")

    def study() -> Any:
        check_discretization(discretization)
        volume = None if shape is None else parse_shape(shape)
        slab = read_slabs(comm, image, crop=crop, voxel_size=voxel_size, shape=volume, dtype=dtype)
        mask = slab.mask(phase)
        if axis >= slab.dim:
            raise ValueError(f"--axis must be at most {slab.dim - 1}, found {axis}")
        which = (
            volume_fraction(1)
            if of == "porosity"
            else through_diffusivity(1, axis, voxel_size=slab.voxel_size, discretization=discretization)
        )
        windows = _sizes(sizes, min(slab.shape))
        found = window_study(comm, mask, which, windows, limit=limit)
        f = mask.count() / mask.size
        fit = found.fit(confidence=confidence, point_variance=f * (1 - f) if of == "porosity" else None)
        return found, fit, found.size_for(error, confidence, fit=fit)

    found, fit, size = collective(study)
    values = found.to_dict() | {
        "property": of,
        "phase": phase,
        "exponent": fit.exponent,
        "exponent_interval": fit.interval,
        "integral_range": fit.integral_range,
        "integral_range_interval": fit.integral_range_interval,
        "size": size,
    }

    def text() -> str:
        rows = ["voxels   windows   mean       standard deviation"]
        for n, samples in zip(found.sizes, found.scalars, strict=True):
            rows.append(f"{n:6d}   {len(samples):7d}   {samples.mean():.5f}    {samples.std(ddof=1):.5f}")
        beyond = ", more than was studied" if size.extrapolated else ""
        rows.append(f"variance ∝ volume^−{fit.exponent:.3f} ({fit.interval[0]:.3f} to {fit.interval[1]:.3f})")
        rows.append(
            f"{100 * error:g} % error at {100 * confidence:g} % confidence: {size.voxels} voxels, "
            f"{size.length:.4g} m, set by the {size.limited_by}{beyond}"
        )
        return "\n".join([f"{image.name}: {of} of phase {phase}", *rows])

    emit(comm, as_json, values, text)


def _sizes(text: str | None, edge: int) -> list[int]:
    if text is None:
        return sorted({edge // n for n in (8, 6, 4, 3, 2)} - {0, 1})
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--sizes must be integers separated by commas, found {text!r}") from None
