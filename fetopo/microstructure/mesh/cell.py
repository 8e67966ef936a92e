"""A box-shaped piece of material and its mesh, distributed over MPI ranks, with one cell tag per phase."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo._compat import create_submesh

_REGULAR = {
    "triangle": (2, dmesh.CellType.triangle),
    "quadrilateral": (2, dmesh.CellType.quadrilateral),
    "tetrahedron": (3, dmesh.CellType.tetrahedron),
    "hexahedron": (3, dmesh.CellType.hexahedron),
}


@dataclass(frozen=True)
class UnitCell:
    """A box-shaped piece of material with its mesh.

    Attributes:
        mesh: the mesh, of the whole box or of some of its phases.
        cell_tags: phase of each cell.
        lower, upper: corners of the box, shape (d,), in metres. Averages are over this box.
        phases: names of the tags, where they have any.
        complete: whether the mesh fills the box.
        grid: voxels per axis where every cell of the mesh is one voxel of a regular grid, else None.
        facet_tags: faces of the box and interfaces, where the mesh came with such tags, else None.
        facets: names of the facet tags.
    """

    mesh: Any
    cell_tags: Any
    lower: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]
    phases: Mapping[str, int] = field(default_factory=dict)
    complete: bool = True
    grid: tuple[int, ...] | None = None
    facet_tags: Any = None
    facets: Mapping[str, int] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        return len(self.lower)

    @property
    def lengths(self) -> npt.NDArray[np.float64]:
        return self.upper - self.lower

    @property
    def volume(self) -> float:
        """Volume of the box (not of the mesh, which may leave phases out)."""
        return float(np.prod(self.lengths))

    def tag(self, phase: int | str) -> int:
        """Tag of a phase given by name or tag.

        Raises:
            ValueError: the cell has no phase of that name.
        """
        if isinstance(phase, str):
            if phase not in self.phases:
                raise ValueError(
                    f"no phase {phase!r}; this cell has {', '.join(self.phases) or 'unnamed tags'}"
                )
            return self.phases[phase]
        return int(phase)

    def tags(self) -> list[int]:
        """Tags present on any rank, sorted. Collective."""
        found = self.mesh.comm.allgather(np.unique(self.cell_tags.values).tolist())
        return sorted({int(tag) for part in found for tag in part})


def regular_cell(
    comm: MPI.Intracomm,
    shape: Sequence[int],
    lengths: Sequence[float] | None = None,
    cell_type: str | None = None,
) -> UnitCell:
    """A box meshed regularly; every cell has tag 1.

    Args:
        comm: communicator to distribute the mesh over.
        shape: divisions per axis, (nx, ny) or (nx, ny, nz).
        lengths: edge lengths in metres; default: the longest is 1 and divisions are cubes.
        cell_type: "quadrilateral" (default in 2D), "triangle", "hexahedron" (default in 3D) or "tetrahedron".
    Raises:
        ValueError: counts or lengths that are not positive, or a cell type of another dimension.
    """
    dim = len(shape)
    if dim not in (2, 3) or any(int(n) != n or n < 1 for n in shape):
        raise ValueError(f"shape must be 2 or 3 positive integers, found {tuple(shape)}")
    lengths = [n / max(shape) for n in shape] if lengths is None else [float(a) for a in lengths]
    if len(lengths) != dim or not all(np.isfinite(a) and a > 0 for a in lengths):
        raise ValueError(f"lengths must be {dim} positive numbers, found {lengths}")
    cell_type = cell_type or ("quadrilateral" if dim == 2 else "hexahedron")
    if cell_type not in _REGULAR or _REGULAR[cell_type][0] != dim:
        raise ValueError(f"no cell type {cell_type!r} in {dim}D; choose from {_names(dim)}")
    create = dmesh.create_rectangle if dim == 2 else dmesh.create_box
    kind = _REGULAR[cell_type][1]
    mesh = create(comm, [np.zeros(dim), np.array(lengths)], [int(n) for n in shape], cell_type=kind)
    grid = tuple(int(n) for n in shape) if cell_type in ("quadrilateral", "hexahedron") else None
    return UnitCell(mesh, _tag_all(mesh, 1), np.zeros(dim), np.array(lengths), {}, True, grid)


def select_phases(cell: UnitCell, phases: Iterable[int | str]) -> UnitCell:
    """The part of a cell that is made of some phases, as a cell with the same box.

    Raises:
        ValueError: a phase that is not there, on every rank.
    """
    wanted = sorted({cell.tag(p) for p in phases})
    present = cell.tags()
    if not wanted or not set(wanted) <= set(present):
        raise ValueError(f"phases {wanted} are not all in the cell, which has tags {present}")
    if wanted == present:
        return cell
    tdim = cell.mesh.topology.dim
    imap = cell.mesh.topology.index_map(tdim)
    tags = np.zeros(imap.size_local + imap.num_ghosts, dtype=np.int32)
    tags[cell.cell_tags.indices] = cell.cell_tags.values
    chosen = np.flatnonzero(np.isin(tags, wanted)).astype(np.int32)
    mesh, parent = create_submesh(cell.mesh, chosen)
    values = tags[parent].astype(np.int32)
    sub_tags = dmesh.meshtags(mesh, tdim, np.arange(values.size, dtype=np.int32), values)
    names = {name: tag for name, tag in cell.phases.items() if tag in wanted}
    return UnitCell(mesh, sub_tags, cell.lower, cell.upper, names, False, cell.grid)


def _tag_all(mesh: Any, tag: int) -> Any:
    imap = mesh.topology.index_map(mesh.topology.dim)
    here = np.arange(imap.size_local + imap.num_ghosts, dtype=np.int32)
    return dmesh.meshtags(mesh, mesh.topology.dim, here, np.full(here.size, tag, dtype=np.int32))


def _names(dim: int) -> str:
    return ", ".join(name for name, (d, _) in _REGULAR.items() if d == dim)
