"""meshio's meshes: cells of one type, and the phases in its many ways of naming them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo._paths import replacing
from fetopo.microstructure.mesh._nodes import TYPES, Gathered, meshio_type, nodes_of
from fetopo.microstructure.mesh.cell import UnitCell

#: Cell types of a dimension, with those that are known but cannot be used.
_OF_DIMENSION = {
    3: ("tetra", "hexahedron", "wedge", "pyramid"),
    2: ("triangle", "quad"),
}
#: Arrays of cell data in which phases are looked for.
_ARRAYS = ("phase", "gmsh:physical", "medit:ref", "cell_tags")
#: An array of zeros and ones by this prefix and the name of a phase marks its cells.
MARK = "phase:"


def library() -> Any:
    try:
        import meshio
    except ImportError as error:
        raise ImportError("mesh files need meshio: install meshio") from error
    return meshio


def read(path: Path, name: str | None) -> tuple[Any, Any, Any, str, dict[str, int]]:
    """Nodes (n, d), cells in VTK's order of nodes, their tags, their type, names of the tags."""
    meshio = library()
    try:
        mesh = meshio.read(path)
    except (Exception, SystemExit) as error:  # meshio ends the process where it knows no reader
        raise ValueError(f"meshio cannot read it: {str(error).strip() or type(error).__name__}") from error
    kinds = [block.type for block in mesh.cells]
    for wanted in (3, 2):
        chosen = [k for k, kind in enumerate(kinds) if kind.rstrip("0123456789") in _OF_DIMENSION[wanted]]
        if chosen:
            break
    else:
        raise ValueError(
            f"no triangles, quadrilaterals, tetrahedra or hexahedra, found {kinds or 'no cells'}"
        )
    of_dim = sorted({kinds[k] for k in chosen})
    if len(of_dim) > 1 or of_dim[0] not in TYPES:
        raise ValueError(f"cells of type {', '.join(of_dim)}: expected one of {', '.join(TYPES)}")
    cells = np.vstack([mesh.cells[k].data for k in chosen]).astype(np.int64)
    tags, phases = _phases(mesh, chosen, wanted, name)

    points = np.asarray(mesh.points, dtype=float)
    if not np.isfinite(points).all():
        raise ValueError("nodes hold NaN or infinity: expected finite coordinates")
    # Nodes of other cells would be left without an owner.
    used, cells = np.unique(cells, return_inverse=True)
    cells = cells.reshape(-1, nodes_of(of_dim[0]))
    points = points[used]
    if wanted == 2 and points.shape[1] == 3 and np.abs(points[:, 2]).max() > 1e-9 * np.ptp(points):
        raise ValueError("a surface in space: expected triangles or quadrilaterals in the plane z = 0")
    return np.ascontiguousarray(points[:, :wanted]), cells, tags, of_dim[0], phases


def _phases(
    mesh: Any, chosen: Sequence[int], dim: int, name: str | None
) -> tuple[npt.NDArray[np.int32], dict[str, int]]:
    data = {key: np.concatenate([blocks[k] for k in chosen]) for key, blocks in mesh.cell_data.items()}
    if name is not None and name not in data:
        raise ValueError(f"no cell data {name!r}, found {', '.join(data) or 'none'}")
    found = name or next((key for key in _ARRAYS if key in data), None)
    marks = {key[len(MARK) :]: np.flatnonzero(data[key]) for key in data if key.startswith(MARK)}
    if found is not None:
        values = data[found]
        if values.ndim != 1 or not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise ValueError(f"cell data {found!r} is not one whole number per cell")
        tags = values.astype(np.int32)
        phases = {key: int(tag) for key, (tag, d) in mesh.field_data.items() if d == dim}
        for key, cells in marks.items():
            own = np.unique(tags[cells])
            if len(own) == 1:
                phases[key] = int(own[0])
        present = set(tags.tolist())
        return tags, {key: tag for key, tag in phases.items() if tag in present}
    sets = {
        key: np.concatenate(_offset(mesh, blocks, chosen))
        for key, blocks in mesh.cell_sets.items()
        if not key.startswith("gmsh:")
    } or marks
    sets = {key: cells for key, cells in sets.items() if len(cells)}
    count = sum(len(mesh.cells[k].data) for k in chosen)
    tags = np.zeros(count, dtype=np.int32)
    times = np.zeros(count, dtype=np.int64)
    for tag, cells in enumerate(sets.values(), start=1):
        tags[cells.astype(np.int64)] = tag
        times[cells.astype(np.int64)] += 1
    if not sets:
        return np.ones(count, dtype=np.int32), {}
    if (times != 1).any():
        raise ValueError(
            f"{int((times == 0).sum())} cells are in no set and {int((times > 1).sum())} in several of "
            f"{', '.join(sets)}: expected each in one, or name the cell data that holds the phase"
        )
    return tags, {key: tag for tag, key in enumerate(sets, start=1)}


def _offset(mesh: Any, blocks: Sequence[Any], chosen: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """Cells of a set, counted through all chosen blocks."""
    found: list[npt.NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    first = 0
    for k in chosen:
        if blocks[k] is not None:
            found.append(np.asarray(blocks[k], dtype=np.int64) + first)
        first += len(mesh.cells[k].data)
    return found


def write(path: Path, gathered: Gathered, cell: UnitCell, scale: float) -> None:
    meshio = library()
    points, cells, tags = gathered
    kind = meshio_type(cell)
    points = points * scale
    names = {name: tag for name, tag in cell.phases.items() if (tags == tag).any()}
    suffix, options = path.suffix.lower(), {}
    if suffix not in meshio.extension_to_filetypes:
        raise ValueError(f"{path}: meshio writes no {path.suffix!r}, expected for example .msh, .vtu or .inp")
    blocks: dict[str, Any] = {"cell_data": {"phase": [tags]}}
    if suffix == ".msh":
        options = {"file_format": "gmsh22", "binary": True}
        values = [tags.astype(np.int32)]
        blocks = {"cell_data": {"gmsh:physical": values, "gmsh:geometrical": values}}
        blocks["field_data"] = {name: np.array([tag, cell.dim]) for name, tag in names.items()}
    elif suffix == ".inp":
        unnamed = {f"phase_{tag}": int(tag) for tag in np.unique(tags) if tag not in names.values()}
        sets = {name: [np.flatnonzero(tags == tag)] for name, tag in {**names, **unnamed}.items()}
        options, blocks = {"file_format": "abaqus"}, {"cell_sets": sets}
    else:
        for name, tag in names.items():
            blocks["cell_data"][MARK + name] = [(tags == tag).astype(np.int32)]
    # Formats of 3D only, and ParaView, want a third coordinate.
    points = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
    with replacing(path) as part:
        try:
            meshio.write(part, meshio.Mesh(points, [(kind, cells)], **blocks), **options)
        except (Exception, SystemExit) as error:
            raise ValueError(f"{path}: meshio cannot write it: {error}") from error
