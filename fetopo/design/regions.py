"""Parts of a design that are given: passive solid and void, by positions, masks or tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import mesh as dmesh

from fetopo._mpi import require
from fetopo.microstructure.mesh import UnitCell, voxel_of_cells
from fetopo.transport.voxel import VoxelGrid

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: What names a region: a marker on positions, a mask, or tags of cells (numbers, or names of phases).
Region = Callable[[Array], Any] | npt.ArrayLike | int | str | Sequence[int] | Sequence[str]


def mesh_of(domain: Any) -> Any:
    """The mesh of a cell, or the mesh itself."""
    return domain.mesh if isinstance(domain, UnitCell) else domain


def comm_of(domain: Any) -> Any:
    """Communicator of a grid of voxels, a cell or a mesh."""
    return domain.comm if isinstance(domain, VoxelGrid) else mesh_of(domain).comm


def midpoints(domain: Any) -> Array:
    """Midpoints of the owned cells or voxels, shape (3, n), in the unit of the domain."""
    if isinstance(domain, VoxelGrid):
        axes = [
            (np.arange(s.start, s.stop) + 0.5) * h for s, h in zip(domain.own, domain.voxel_size, strict=True)
        ]
        points = np.zeros((3, int(np.prod(domain.own_shape))))
        points[: domain.dim] = [x.reshape(-1) for x in np.meshgrid(*axes, indexing="ij")]
        return points
    mesh = mesh_of(domain)
    tdim = mesh.topology.dim
    here = np.arange(mesh.topology.index_map(tdim).size_local, dtype=np.int32)
    return np.ascontiguousarray(dmesh.compute_midpoints(mesh, tdim, here).T)


def mask_of(domain: Any, region: Region, cell_tags: Any = None) -> Mask:
    """Which owned cells or voxels belong to a region. Collective.

    Args:
        domain: a mesh, a cell or a grid of voxels.
        region: marker that takes positions (3, n), here the midpoints of cells, and returns n booleans; or
            booleans, one per owned cell, or on a grid of voxels or a cell of them one per voxel of the
            whole grid; or a tag or several, or names of phases.
        cell_tags: tags of a mesh; a cell has its own.
    Returns:
        Booleans, shape (owned cells,).
    Raises:
        ValueError: another shape, tags where there are none or that no cell has; on every rank.
    """
    comm, points = comm_of(domain), midpoints(domain)
    n = points.shape[1]
    if callable(region):
        found = np.asarray(region(points))
        message = f"a marker must return one boolean per position, found shape {found.shape} for {n}"
        require(comm, found.shape == (n,), message)
        return found.astype(bool)
    values = np.asarray(region)
    if values.dtype == bool:
        grid = domain.shape if isinstance(domain, VoxelGrid) else getattr(domain, "grid", None)
        known = values.shape == (n,) or (grid is not None and values.shape == tuple(grid))
        whole = "" if grid is None else f" or the whole grid {tuple(grid)}"
        require(
            comm, known, f"a mask has shape {values.shape}: expected one value per owned cell ({n},){whole}"
        )
        if values.shape == (n,):
            return values.copy()
        if isinstance(domain, VoxelGrid):
            return np.asarray(domain.take(values)).reshape(-1)
        return np.asarray(values[tuple(voxel_of_cells(domain)[:n].T)])
    if cell_tags is None:
        cell_tags = getattr(domain, "cell_tags", None)
    require(comm, cell_tags is not None, f"a region by tags needs tags of the cells, found {region}")
    wanted: Any = np.atleast_1d(values).tolist()
    numbers = [domain.tag(tag) if isinstance(domain, UnitCell) else int(tag) for tag in wanted]
    result = np.zeros(n, dtype=bool)
    for number in numbers:
        cells = cell_tags.find(number)
        require(comm, bool(comm.allreduce(cells.size)), f"no cell has the tag {number}")
        result[cells[cells < n]] = True
    return result


class PassiveRegions:
    """Cells whose density is given, 1 in the solid and 0 in the void, whatever the design variables are.

    ρ = 1 in the solid, 0 in the void, x elsewhere

    Args:
        domain: a mesh, a cell or a grid of voxels.
        solid, void: regions as :func:`mask_of` takes them; None is empty.
        cell_tags: tags of a mesh; a cell has its own.
    Attributes:
        solid, void: booleans per owned cell.
    Raises:
        ValueError: as :func:`mask_of`; regions that overlap, or that leave nothing to design.
    """

    def __init__(
        self, domain: Any, solid: Region | None = None, void: Region | None = None, cell_tags: Any = None
    ) -> None:
        nothing = np.zeros(midpoints(domain).shape[1], dtype=bool)
        self.solid, self.void = (
            nothing if region is None else mask_of(domain, region, cell_tags) for region in (solid, void)
        )
        both = int((self.solid & self.void).sum())
        free = int((~self.solid & ~self.void).sum())
        # On a small grid of voxels every rank has them all.
        comm = domain.blocks.comm if isinstance(domain, VoxelGrid) else comm_of(domain)
        both, free = (int(comm.allreduce(n)) for n in (both, free))
        if both:
            raise ValueError(f"passive solid and passive void overlap in {both} cells")
        if not free:
            raise ValueError("the passive regions leave no cell to design")

    def forward(self, x: Array) -> Array:
        """The values with those of the regions in their place."""
        return np.where(self.solid, 1.0, np.where(self.void, 0.0, x))

    def vjp(self, dual: Array) -> Array:
        """Pull a derivative back: zero in the regions."""
        return np.where(self.solid | self.void, 0.0, dual)


def passive_regions(
    domain: Any, given: PassiveRegions | Mapping[str, Region] | None, cell_tags: Any = None
) -> PassiveRegions | None:
    """Passive regions from a mapping with the keys "solid" and "void", or as they are.

    Raises:
        ValueError: another key, or as :class:`PassiveRegions`.
    """
    if given is None or isinstance(given, PassiveRegions):
        return given
    unknown = sorted(set(given) - {"solid", "void"})
    if unknown:
        raise ValueError(f"passive regions are 'solid' and 'void', found {unknown[0]!r}")
    return PassiveRegions(domain, given.get("solid"), given.get("void"), cell_tags)
