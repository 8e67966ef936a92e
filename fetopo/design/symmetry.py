"""Symmetric designs: the mean over all mirror images of a cell, as the first step of a density map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._mpi import require
from fetopo.design.exchange import Exchange, exchange_of_cells, exchange_of_voxels
from fetopo.design.regions import mesh_of, midpoints
from fetopo.transport.periodic import match_points
from fetopo.transport.voxel import VoxelGrid

Array = npt.NDArray[np.float64]

_AXES = "xyz"
#: Distance below which coordinates are the same, relative to the box.
_SAME = 1e-6


def _parse(kind: str, dim: int) -> tuple[list[int], bool]:
    """Axes of reflection, and whether axes may change places."""
    if kind in ("square", "cubic"):
        if (kind == "square") != (dim == 2):
            raise ValueError(f"the symmetry {kind!r} does not belong to {dim} dimensions")
        return list(range(dim)), True
    axes = [_AXES.find(letter) for letter in kind]
    if not kind or len(set(kind)) < len(kind) or not all(0 <= axis < dim for axis in axes):
        raise ValueError(
            f"a symmetry in {dim} dimensions is made of the letters {_AXES[:dim]!r}, "
            f"or is {'square' if dim == 2 else 'cubic'!r}: found {kind!r}"
        )
    return axes, False


class Symmetry:
    """The symmetric part of a field: each cell gets the mean over its mirror images.

    x_s = E N⁻¹ Eᵀ x with E from orbits (cells that are images of each other) to cells and N their sizes: a
    projection, and its own transpose.

    On a grid of voxels images are found by index, on a mesh by the position of midpoints; values travel by
    one exchange each way, planned once, and nothing is gathered.

    Args:
        domain: a mesh, a cell or a grid of voxels.
        kind: axes along which to reflect about the middle of the box around the domain, "x", "xy", …;
            "square" (2D) or "cubic" (3D) for all of them with axes changing places.
    Attributes:
        orbits: number of independent values.
    Raises:
        ValueError: another kind, axes that change places and differ in length or voxels, a mesh that is not
            symmetric; on every rank.
    """

    def __init__(self, domain: Any, kind: str) -> None:
        self.kind = kind
        if isinstance(domain, VoxelGrid):
            self._exchange = _of_grid(domain, *_parse(kind, domain.dim))
        else:
            self._exchange = _of_mesh(domain, kind)
        sizes = self._exchange.transpose(np.ones(self._exchange.size))
        self.orbits = int(self._exchange.comm.allreduce(int(np.count_nonzero(sizes))))
        self._sizes = np.maximum(sizes, 1.0)

    def forward(self, x: Array) -> Array:
        """Mean over the images of each cell. Collective."""
        return self._exchange.forward(self._exchange.transpose(x) / self._sizes)

    def vjp(self, dual: Array) -> Array:
        """Pull a derivative back: the same map. Collective."""
        return self.forward(dual)

    def check(self, mask: npt.NDArray[Any], what: str) -> None:
        """Raise unless a region is symmetric. Collective.

        Raises:
            ValueError: cells of the region have images outside it.
        """
        values = mask.astype(float)
        wrong = int(np.count_nonzero(np.abs(self.forward(values) - values) > 1e-9))
        wrong = int(self._exchange.comm.allreduce(wrong))
        if wrong:
            raise ValueError(f"{what} is not as symmetric as {self.kind!r} asks for: {wrong} cells differ")


def _of_grid(grid: VoxelGrid, axes: list[int], permute: bool) -> Exchange:
    if permute and (len(set(grid.shape)) > 1 or np.ptp(grid.voxel_size) > _SAME * max(grid.voxel_size)):
        raise ValueError(
            f"axes that change places need the same voxels: found {grid.shape} of edges {grid.voxel_size}"
        )
    own = np.meshgrid(*[np.arange(s.start, s.stop) for s in grid.own], indexing="ij")
    index = np.stack([i.reshape(-1) for i in own], axis=1)
    for axis in axes:
        index[:, axis] = np.minimum(index[:, axis], grid.shape[axis] - 1 - index[:, axis])
    if permute:
        index.sort(axis=1)
    return exchange_of_voxels(grid, index)


def _of_mesh(domain: Any, kind: str) -> Exchange:
    mesh = mesh_of(domain)
    comm, tdim, gdim = mesh.comm, mesh.topology.dim, mesh.geometry.dim
    axes, permute = _parse(kind, gdim)
    x = mesh.geometry.x[:, :gdim]
    lower, upper = np.empty(gdim), np.empty(gdim)
    comm.Allreduce(x.min(axis=0, initial=np.inf), lower, op=MPI.MIN)
    comm.Allreduce(x.max(axis=0, initial=-np.inf), upper, op=MPI.MAX)
    lengths = upper - lower
    if permute and np.ptp(lengths) > _SAME * lengths.max():
        raise ValueError(f"axes that change places need the same length: found {lengths.tolist()}")
    centred = (midpoints(domain)[:gdim].T - 0.5 * (lower + upper)) / lengths
    centred[:, axes] = np.abs(centred[:, axes])
    # How many images a cell has: those on a plane of reflection are their own.
    expected = 2 ** np.count_nonzero(centred[:, axes] > _SAME, axis=1)
    if permute:
        centred.sort(axis=1)
        equal = np.count_nonzero(np.diff(centred, axis=1) < _SAME, axis=1)
        places = {2: [2, 1], 3: [6, 3, 1]}[gdim]
        expected = expected * np.array(places)[equal]
    imap = mesh.topology.index_map(tdim)
    numbers = int(imap.local_range[0]) + np.arange(imap.size_local, dtype=np.int64)
    leaders, found = match_points(comm, centred, numbers)
    lonely = int(comm.allreduce(int(np.count_nonzero(found != expected))))
    require(comm, not lonely, f"the mesh is not symmetric ({kind!r}): {lonely} cells have no mirror image")
    return exchange_of_cells(comm, imap, leaders)
