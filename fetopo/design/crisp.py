"""The crisp structure of a design: cut at the wanted volume, solved again with its conductivities."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from dolfinx import fem
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo.design.model import CellModel
from fetopo.microstructure.mesh import UnitCell, to_image, voxel_cell
from fetopo.transport.homogenization import effective_conductivity
from fetopo.transport.state import owned
from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]

#: Krylov tolerance of both solutions of the crisp structure on voxels.
VERIFY_TOLERANCE = 1e-8


@dataclass(frozen=True)
class VoxelStructure:
    """The crisp structure as voxels.

    Attributes:
        labels: 1 where the better material is, as an array of the grid.
        volume_fraction: of the better material.
        tensor: effective tensor by elements: an upper bound of what the structure of voxels exactly has.
        lower_bound: guaranteed lower bound on a grid of voxels; None on a mesh.
        refinement: each voxel was split this many times along every axis for that.
    """

    labels: Labels
    volume_fraction: float
    tensor: Array
    lower_bound: Array | None
    refinement: int


def voxel_structure(
    model: CellModel, crisp: Array, conductivity: tuple[float, float], refine: int
) -> VoxelStructure | None:
    """The crisp structure of a model's grid as voxels, solved again; None where its cell is no grid."""
    lower = None
    if isinstance(model.cell, VoxelGrid):
        tensor, lower, labels = verify_voxels(model.cell, crisp, conductivity, refine)
    elif model.cell.grid is None:
        return None
    else:
        tensor, found = verify(model.cell, crisp, conductivity, refine)
        assert found is not None
        labels = found
    return VoxelStructure(labels, model.fraction(crisp), tensor, lower, refine)


def threshold(rho: Array, volumes: Array, comm: MPI.Comm) -> Array:
    """0 or 1 per cell, cut where the volume comes closest to that of the density."""
    wanted = float(comm.allreduce(float(rho @ volumes)))
    low, high = 0.0, 1.0 + 1e-12
    for _ in range(60):
        middle = 0.5 * (low + high)
        if comm.allreduce(float(volumes[rho >= middle].sum())) > wanted:
            low = middle
        else:
            high = middle
    # Cells of equal density cross the threshold together: take the nearer side.
    excess = [abs(comm.allreduce(float(volumes[rho >= t].sum())) - wanted) for t in (low, high)]
    return (rho >= (low if excess[0] < excess[1] else high)).astype(float)


def verify(
    cell: UnitCell, crisp: Array, conductivity: tuple[float, float], refine: int
) -> tuple[Array, Labels | None]:
    """Effective tensor of a crisp structure with its true conductivities, and its labels where it is a grid.

    Grid cells are meshed again with every voxel split `refine` times per axis; other meshes are used as
    they are, tagged with the structure.
    """
    comm, labels = cell.mesh.comm, None
    if cell.grid is not None:
        labels = np.rint(to_image(cell, crisp)).astype(np.uint8)
        fine = np.kron(labels, np.ones((refine,) * cell.dim, dtype=np.uint8))
        solved = voxel_cell(comm, fine, tuple(cell.lengths / cell.grid / refine))
    else:
        Q_values = _with_ghosts(cell, crisp)
        here = np.arange(Q_values.size, dtype=np.int32)
        tags = dmesh.meshtags(cell.mesh, cell.dim, here, np.rint(Q_values).astype(np.int32))
        solved = replace(cell, cell_tags=tags, phases={})
    present = solved.tags()
    values = {tag: conductivity[tag] for tag in present}
    if not any(values.values()):
        return np.zeros((cell.dim, cell.dim)), labels
    return effective_conductivity(solved, values).tensor, labels


def _with_ghosts(cell: UnitCell, values: Array) -> Array:
    f = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
    owned(f)[:] = values
    f.x.scatter_forward()
    return f.x.array[f.function_space.dofmap.list.reshape(-1)]


def verify_voxels(
    grid: VoxelGrid, crisp: Array, conductivity: tuple[float, float], refine: int
) -> tuple[Array, Array, Labels]:
    """Upper and lower bound of the effective tensor of a crisp structure of voxels, and its labels.

    Every voxel is split `refine` times per axis. Trilinear elements give the upper bound, the fluxes of
    finite volumes the lower one: what the structure of cubes or squares exactly has lies between them.
    """
    labels = np.rint(grid.gather(crisp.reshape(grid.own_shape))).astype(np.uint8)
    size = tuple(float(h) / refine for h in grid.voxel_size)
    fine = VoxelGrid(grid.comm, tuple(n * refine for n in grid.shape), size, periodic=True)
    place = np.ix_(*(np.arange(s.start, s.stop) // refine for s in fine.own))
    split, table = np.ascontiguousarray(labels[place]), np.array(conductivity, dtype=float)
    if not any(value for label, value in enumerate(conductivity) if (labels == label).any()):
        return np.zeros((grid.dim, grid.dim)), np.zeros((grid.dim, grid.dim)), labels
    problem = VoxelCellProblem(fine, scheme="elements", rtol=VERIFY_TOLERANCE)
    problem.assign(split, table)
    problem.solve()
    upper = np.array(problem.tensor)
    # Its memory goes before the other discretization takes its own.
    del problem
    problem = VoxelCellProblem(fine, scheme="finite volumes", rtol=VERIFY_TOLERANCE)
    problem.assign(split, table)
    problem.solve()
    return upper, np.array(problem.lower_bound()), labels
