"""Meshes of unit cells and of voxel images, distributed over MPI ranks, with one cell tag per phase."""

from fetopo.microstructure.mesh.cell import UnitCell, regular_cell, select_phases
from fetopo.microstructure.mesh.fitted import FitReport, FittedCell, fitted_cell
from fetopo.microstructure.mesh.quality import MeshQuality, quality
from fetopo.microstructure.mesh.voxels import to_image, voxel_cell, voxel_of_cells

__all__ = [
    "FitReport", "FittedCell", "MeshQuality", "UnitCell", "fitted_cell", "quality", "regular_cell",
    "select_phases", "to_image", "voxel_cell", "voxel_of_cells",
]  # fmt: skip
