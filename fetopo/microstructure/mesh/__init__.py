"""Meshes of unit cells and of voxel images, distributed over MPI ranks, with one cell tag per phase."""

from fetopo.microstructure.mesh.cell import UnitCell, regular_cell, select_phases
from fetopo.microstructure.mesh.files import read_mesh, write_mesh
from fetopo.microstructure.mesh.fitted import FitReport, FittedCell, fitted_cell
from fetopo.microstructure.mesh.paraview import write_vtx, write_xdmf
from fetopo.microstructure.mesh.quality import MeshQuality, quality
from fetopo.microstructure.mesh.surface import write_surface
from fetopo.microstructure.mesh.voxels import to_image, voxel_cell, voxel_of_cells

__all__ = [
    "FitReport", "FittedCell", "MeshQuality", "UnitCell", "fitted_cell", "quality", "read_mesh",
    "regular_cell", "select_phases", "to_image", "voxel_cell", "voxel_of_cells", "write_mesh",
    "write_surface", "write_vtx", "write_xdmf",
]  # fmt: skip
