"""fetopo homogenize: effective conductivity tensor of an image or a mesh, and its bounds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from fetopo.cli._common import Crop, Dtype, Json, Shape, VoxelSize, collective, emit, parse_shape


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
    crop: Crop = None,
    shape: Shape = None,
    dtype: Dtype = None,
    voxel_size: VoxelSize = None,
    as_json: Json = False,
) -> None:
    """Effective conductivity tensor of a cell, beside the Wiener and Hashin–Shtrikman bounds.

    Images have one element per voxel: the tensor is an upper bound of the voxel geometry's exact one. Tensors
    are d×d in the order of the axes.
    """
    from mpi4py import MPI

    from fetopo.transport.bounds import hashin_shtrikman, wiener
    from fetopo.transport.homogenization import effective_conductivity

    comm = MPI.COMM_WORLD
    values = collective(lambda: _conductivities(conductivity))

    def solve() -> Any:
        cell = _cell(comm, path, crop=crop, shape=shape, dtype=dtype, voxel_size=voxel_size)
        result = effective_conductivity(cell, values, boundary=boundary, degree=degree)
        return cell, result, _fractions(cell)

    cell, result, fractions = collective(solve)
    by_tag = {cell.tag(phase): value for phase, value in values.items()}
    f, k = list(fractions.values()), [by_tag[tag] for tag in fractions]
    bounds = {"wiener": wiener(f, k), "hashin_shtrikman": hashin_shtrikman(f, k, cell.dim)}
    names = {tag: name for name, tag in cell.phases.items()}
    output = {
        "effective_tensor": result.tensor,
        "bounds": bounds,
        "volume_fractions": {names.get(tag, tag): share for tag, share in fractions.items()},
        "conductivity": {names.get(tag, tag): by_tag[tag] for tag in fractions},
        "conventions": {
            "boundary": boundary,
            "degree": degree,
            "elements": "one per voxel" if cell.grid is not None else "those of the mesh",
            "bounds": "of an isotropic mixture (hashin_shtrikman), of any (wiener)",
        },
    }

    def text() -> str:
        from fetopo.report import tensor_lines

        shares = ", ".join(f"{name} {share:.4f}" for name, share in output["volume_fractions"].items())
        rows = [f"{path.name}: volume fractions {shares}", "effective conductivity"]
        rows += tensor_lines(result.tensor)
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


def _cell(
    comm: Any, path: Path, *, crop: int | None, shape: str | None, dtype: str | None, voxel_size: float | None
) -> Any:
    from fetopo.microstructure.image import SUFFIXES, read_slabs
    from fetopo.microstructure.mesh import read_mesh, voxel_cell

    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        sizes = None if shape is None else parse_shape(shape)
        slab = read_slabs(comm, path, crop=crop, voxel_size=voxel_size, shape=sizes, dtype=dtype)
        return voxel_cell(comm, slab)
    for name, value in (("crop", crop), ("shape", shape), ("dtype", dtype), ("voxel-size", voxel_size)):
        if value is not None:
            raise ValueError(f"--{name} is for images; {path.name} is read as a mesh")
    return read_mesh(comm, path)


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
