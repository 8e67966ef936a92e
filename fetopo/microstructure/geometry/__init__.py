"""Cells from geometry: packings of discs and balls, and users' own Gmsh models, meshed along the interfaces."""

from fetopo.microstructure.geometry.inclusions import INCLUSION, MATRIX, inclusion_cell
from fetopo.microstructure.geometry.models import gmsh_cell

__all__ = ["INCLUSION", "MATRIX", "gmsh_cell", "inclusion_cell"]
