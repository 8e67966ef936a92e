"""Conduction on regular grids without mesh and matrix: finite volumes and trilinear elements on voxels.

The second discretization beside DOLFINx's, for images and cells of voxels. Unknowns are distributed over MPI
ranks in blocks; conjugate gradients with a multigrid cycle in single precision take about ten iterations at
any size and contrast.
"""

from fetopo.transport.voxel.cell import VoxelCellProblem
from fetopo.transport.voxel.grid import VoxelGrid
from fetopo.transport.voxel.screened import ScreenedPoisson
from fetopo.transport.voxel.state import State
from fetopo.transport.voxel.through import Through, through

__all__ = ["ScreenedPoisson", "State", "Through", "VoxelCellProblem", "VoxelGrid", "through"]
