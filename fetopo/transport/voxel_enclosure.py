"""Bounds of the effective conductivity of a cell whose mesh is a grid of voxels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fetopo.microstructure.connectivity import percolating
from fetopo.microstructure.mesh import UnitCell, to_image
from fetopo.microstructure.slab import Slab
from fetopo.transport.grid import grid_of
from fetopo.transport.grid_elements import solve_elements
from fetopo.transport.grid_flux import solve_flux
from fetopo.transport.homogenization import effective_conductivity
from fetopo.transport.state import PetscOptions

Bounds = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]


def voxel_bounds(
    cell: UnitCell, values: Mapping[int, float], axis: int | None, petsc_options: PetscOptions | None
) -> Bounds:
    """Lower bound, upper bound and imbalance of a cell of voxels.

    Args:
        cell: a cell with a grid; voxels without a cell of the mesh are insulators.
        values: conductivity of each tag.
        axis: None for the periodic cell, else the direction of transport between two faces.
        petsc_options: options of the Krylov solver.
    Raises:
        ValueError: nothing connects the faces along `axis`.
    """
    comm, h = cell.mesh.comm, cell.lengths / np.array(cell.grid)
    here = np.zeros(cell.cell_tags.indices.size)
    owned = cell.mesh.topology.index_map(cell.dim).size_local
    here[cell.cell_tags.indices] = [values[tag] for tag in cell.cell_tags.values.tolist()]
    kappa = to_image(cell, here[:owned])
    if axis is None:
        upper = effective_conductivity(cell, dict(values), petsc_options=petsc_options).tensor
        grid = grid_of(Slab.share(comm, kappa), h, [True] * cell.dim)
        flux = solve_flux(grid, None, petsc_options, pinned=_one_of_each(kappa > 0))
        return flux.lower_bound(), upper, float(flux.imbalance.max())
    through = percolating(kappa > 0, axis)
    if not through.any():
        raise ValueError(f"nothing that conducts connects the faces of axis {axis}")
    grid = grid_of(Slab.share(comm, np.where(through, kappa, 0.0)), h, [False] * cell.dim)
    upper = np.array([[solve_elements(grid, axis, petsc_options).conductivity]])
    flux = solve_flux(grid, axis, petsc_options)
    return np.minimum(flux.lower_bound(), upper), upper, float(flux.imbalance.max())


def _one_of_each(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """One voxel of each region of a periodic image, if there is more than one region."""
    labels, count = ndimage.label(mask)
    rows, columns = [np.arange(count + 1)], [np.arange(count + 1)]
    for axis in range(mask.ndim):
        low, high = labels.take(0, axis), labels.take(-1, axis)
        met = (low > 0) & (high > 0)
        rows.append(low[met])
        columns.append(high[met])
    links = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(links[0].size, dtype=np.int8), links), shape=(count + 1,) * 2)
    number, region = connected_components(graph, directed=False)
    if number <= 2:  # the rest is one
        return np.zeros(0, dtype=np.int64)
    flat = np.flatnonzero(mask)
    _, first = np.unique(region[labels.reshape(-1)[flat]], return_index=True)
    return np.asarray(flat[first])
