"""Cells from geometry: packings of discs and balls, and users' own Gmsh models, meshed along the interfaces."""

from fetopo.microstructure.geometry.inclusions import INCLUSION, MATRIX, inclusion_cell

__all__ = ["INCLUSION", "MATRIX", "inclusion_cell"]
