"""Integration with no more points than the integrand needs."""

from __future__ import annotations

from typing import Any

import ufl
from ufl.corealg.traversal import traverse_unique_terminals

from fetopo.microstructure.mesh import UnitCell


def measure(mesh: Any, degree: int, cell: UnitCell | None = None) -> ufl.Measure:
    """Volume measure for integrands of a given polynomial degree per direction.

    On triangles and tetrahedra with straight edges and on voxels the map from the reference cell is affine,
    and `degree` is exact; UFL's own estimate assumes a general map and takes up to eight times the points on
    voxels. Elsewhere that estimate is used.
    """
    simplex = mesh.topology.cell_name() in ("triangle", "tetrahedron")
    straight = mesh.ufl_domain().ufl_coordinate_element().degree == 1
    if straight and (simplex or (cell is not None and cell.grid is not None)):
        return ufl.Measure("dx", domain=mesh, metadata={"quadrature_degree": degree})
    return ufl.Measure("dx", domain=mesh)


def is_piecewise_constant(expression: Any) -> bool:
    """Whether a UFL expression is constant in every cell: made of constants and DG0 coefficients only."""
    for part in traverse_unique_terminals(expression):
        if isinstance(part, ufl.Coefficient) and part.ufl_element().embedded_superdegree > 0:
            return False
        if isinstance(part, ufl.geometry.GeometricQuantity) and not part.is_cellwise_constant():
            return False
    return True
