"""Meshes of unit cells and of voxel images, distributed over MPI ranks, with one cell tag per phase."""

from fetopo.microstructure.mesh.cell import UnitCell, regular_cell, select_phases
from fetopo.microstructure.mesh.voxels import to_image, voxel_cell, voxel_of_cells

__all__ = ["UnitCell", "regular_cell", "select_phases", "to_image", "voxel_cell", "voxel_of_cells"]
