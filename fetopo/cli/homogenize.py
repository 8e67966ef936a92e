"""fetopo homogenize: effective conductivity tensor of an image or a mesh, and its bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fetopo.cli._common import (
    Crop,
    DiscretizationOption,
    Dtype,
    Json,
    Shape,
    VoxelSize,
    collective,
    emit,
    parse_shape,
)


def homogenize(
    path: Annotated[
        Path,
        typer.Argument(
            help="Image (.tif, .npy, .npz, .vti, .raw, folder of slices) or mesh (.msh, .vtu, .xdmf, …).",
            metavar="IMAGE|MESH",
            show_default=False,
        ),
    ],
    conductivity: Annotated[
        list[str],
        typer.Option(
            help="LABEL=VALUE, once for each phase: its label (in meshes also its name) and a number. 0 is "
            "an exact insulator, inf a perfect conductor.",
            metavar="LABEL=VALUE",
            show_default=False,
        ),
    ],
    boundary: Annotated[
        str, typer.Option(help="Conditions on the faces: periodic, linear, uniform_flux or mixed.")
    ] = "periodic",
    degree: Annotated[int, typer.Option(help="Polynomial degree.", min=1, max=4)] = 1,
    discretization: DiscretizationOption = None,
    crop: Crop = None,
    shape: Shape = None,
    dtype: Dtype = None,
    voxel_size: VoxelSize = None,
    as_json: Json = False,
) -> None:
    """Effective conductivity tensor of a cell, beside the Wiener and Hashin–Shtrikman bounds.

    Images have one element per voxel. The exact tensor of their periodic voxel geometry lies between
    lower_bound, from finite volumes, and upper_bound, the effective tensor by elements; what is not known is
    null. Tensors are d×d in the order of the axes.
    """
    from mpi4py import MPI

    from fetopo.microstructure.image import SUFFIXES
    from fetopo.transport.bounds import hashin_shtrikman, wiener

    comm = MPI.COMM_WORLD
    is_image = path.is_dir() or path.suffix.lower() in SUFFIXES
    source = _Source(comm, path, crop, shape, dtype, voxel_size)
    ask: dict[str, Any] = {"discretization": discretization, "boundary": boundary, "degree": degree}

    def solve() -> dict[str, Any]:
        return (_of_image if is_image else _of_mesh)(source, _conductivities(conductivity), ask)

    found = collective(solve)
    fractions, conducts = found["volume_fractions"], found["conductivity"]
    f, k = list(fractions.values()), [conducts[phase] for phase in fractions]
    dim = len(found["effective_tensor"])
    bounds = {"wiener": wiener(f, k), "hashin_shtrikman": hashin_shtrikman(f, k, dim)}
    found["conventions"]["bounds"] = "of an isotropic mixture (hashin_shtrikman), of any (wiener)"
    output = found | {"bounds": bounds}

    def text() -> str:
        from fetopo.report import tensor_lines

        shares = ", ".join(f"{name} {share:.4f}" for name, share in output["volume_fractions"].items())
        rows = [f"{path.name}: volume fractions {shares}", "effective conductivity"]
        rows += tensor_lines(output["effective_tensor"])
        if output["lower_bound"] is not None:
            rows += ["lower bound of the exact one", *tensor_lines(output["lower_bound"])]
        rows += [
            f"{name:<26}{low:12.6g}  {high:12.6g}"
            for name, (low, high) in (
                ("Wiener bounds", bounds["wiener"]),
                ("Hashin–Shtrikman bounds", bounds["hashin_shtrikman"]),
            )
        ]
        return "\n".join(rows)

    emit(comm, as_json, output, text)


def _conductivities(entries: list[str]) -> dict[int | str, float]:
    values: dict[int | str, float] = {}
    for entry in entries:
        label, separator, number = entry.rpartition("=")
        label = label.strip()
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not separator or not label or math.isnan(value):
            raise ValueError(f"--conductivity must be LABEL=VALUE with a number, found {entry!r}")
        key: int | str = int(label) if label.lstrip("-").isdigit() else label
        if key in values:
            raise ValueError(f"--conductivity names phase {label} twice")
        values[key] = value
    return values


@dataclass(frozen=True)
class _Source:
    """What is read, and the options of reading."""

    comm: Any
    path: Path
    crop: int | None
    shape: str | None
    dtype: str | None
    voxel_size: float | None


def _of_image(source: _Source, values: dict[int | str, float], ask: dict[str, Any]) -> dict[str, Any]:
    from fetopo.microstructure.image import read_slabs
    from fetopo.transport.homogenization import image_conductivity

    sizes = None if source.shape is None else parse_shape(source.shape)
    options: dict[str, Any] = {"crop": source.crop, "voxel_size": source.voxel_size, "dtype": source.dtype}
    slab = read_slabs(source.comm, source.path, shape=sizes, **options)
    result = image_conductivity(source.comm, slab, values, **ask)
    return {
        "effective_tensor": result.tensor,
        "lower_bound": result.lower_bound,
        "upper_bound": result.upper_bound,
        "volume_fractions": dict(result.volume_fractions),
        "conductivity": {label: values[label] for label in result.volume_fractions},
        "conventions": dict(result.conventions),
    }


def _of_mesh(source: _Source, values: dict[int | str, float], ask: dict[str, Any]) -> dict[str, Any]:
    from fetopo.microstructure.mesh import read_mesh
    from fetopo.transport.discretization import check_discretization
    from fetopo.transport.homogenization import effective_conductivity

    name = source.path.name
    for option in ("crop", "shape", "dtype", "voxel_size"):
        if getattr(source, option) is not None:
            raise ValueError(f"--{option.replace('_', '-')} is for images; {name} is read as a mesh")
    check_discretization(ask["discretization"])
    if ask["discretization"] == "voxel":
        raise ValueError(f"--discretization voxel is for images; {name} is read as a mesh")
    cell = read_mesh(source.comm, source.path)
    ask = {key: value for key, value in ask.items() if key != "discretization"}
    result = effective_conductivity(cell, values, **ask)
    names = {tag: name for name, tag in cell.phases.items()}
    by_tag = {cell.tag(phase): value for phase, value in values.items()}
    fractions = _fractions(cell)
    elements = "one per voxel" if cell.grid is not None else "those of the mesh"
    return {
        "effective_tensor": result.tensor,
        "lower_bound": None,
        "upper_bound": None,
        "volume_fractions": {names.get(tag, tag): share for tag, share in fractions.items()},
        "conductivity": {names.get(tag, tag): by_tag[tag] for tag in fractions},
        "conventions": {"discretization": "mesh", **ask, "elements": elements},
    }


def _fractions(cell: Any) -> dict[int, float]:
    """Share of the box that each phase takes, by tag."""
    import numpy as np
    import ufl
    from dolfinx import fem

    from fetopo.transport.state import assemble_dual, owned

    Q = fem.functionspace(cell.mesh, ("DG", 0))
    volumes = owned(assemble_dual(fem.form(ufl.TestFunction(Q) * ufl.dx)))
    dofs = Q.dofmap.list.reshape(-1)
    found = {}
    for tag in cell.tags():
        cells = dofs[cell.cell_tags.find(tag)]
        found[tag] = float(cell.mesh.comm.allreduce(float(volumes[cells[cells < volumes.size]].sum())))
    total = float(np.sum(list(found.values())))
    return {tag: volume / total for tag, volume in found.items()}
