"""Cells from geometry, meshed along the interfaces: packings of discs and balls, users' own Gmsh models."""

from fetopo.microstructure.geometry.inclusions import INCLUSION, MATRIX, inclusion_cell
from fetopo.microstructure.geometry.models import gmsh_cell
from fetopo.microstructure.geometry.sizes import accurate_sizes

__all__ = ["INCLUSION", "MATRIX", "accurate_sizes", "gmsh_cell", "inclusion_cell"]
