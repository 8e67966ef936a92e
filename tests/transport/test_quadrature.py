"""The cheap measure is exact where it claims to be, and is not used elsewhere."""

import numpy as np
import pytest
import ufl
from dolfinx import fem

from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.quadrature import is_piecewise_constant, measure
from fetopo.transport.state import global_sum

pytestmark = pytest.mark.mpi

SHAPES = {"triangle": (3, 4), "quadrilateral": (3, 4), "tetrahedron": (2, 3, 2), "hexahedron": (2, 3, 2)}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("degree", [1, 2])
def test_products_of_polynomials_are_exact(comm, kind, degree):
    """∫ p² for a random p of the space: polynomial degree 2·degree (per direction on voxels)."""
    cell = regular_cell(comm, SHAPES[kind], cell_type=kind)
    V = fem.functionspace(cell.mesh, ("Lagrange", degree))
    p = fem.Function(V)
    p.interpolate(lambda x: np.cos(3 * x[0]) + x[1] ** 2 + np.sin(5 * x[0] * x[1]))
    exact = global_sum(fem.form(p**2 * ufl.dx(cell.mesh, metadata={"quadrature_degree": 8})))
    cheap = global_sum(fem.form(p**2 * measure(cell.mesh, 2 * degree, cell)))
    assert cheap == pytest.approx(exact, rel=1e-12)


def test_only_affine_cells_get_it(comm):
    degree = {"quadrature_degree": 1}
    quads = regular_cell(comm, (3, 3))
    triangles = regular_cell(comm, (3, 3), cell_type="triangle")
    assert measure(quads.mesh, 1, quads).metadata() == degree
    assert measure(triangles.mesh, 1).metadata() == degree
    # Nothing says that these quadrilaterals are voxels.
    assert measure(quads.mesh, 1).metadata() == {}


@pytest.mark.parametrize("kind", ["triangle", "quadrilateral"])
def test_piecewise_constant(comm, kind):
    mesh = regular_cell(comm, (3, 3), cell_type=kind).mesh
    constant = fem.Constant(mesh, 2.0)
    cellwise = fem.Function(fem.functionspace(mesh, ("DG", 0)))
    tensor = fem.Function(fem.functionspace(mesh, ("DG", 0, (2, 2))))
    nodal = fem.Function(fem.functionspace(mesh, ("Lagrange", 1)))
    x = ufl.SpatialCoordinate(mesh)
    assert is_piecewise_constant(constant * cellwise**3)
    assert is_piecewise_constant(tensor)
    assert not is_piecewise_constant(constant * nodal)
    assert not is_piecewise_constant(cellwise + ufl.sin(x[0]))
    assert not is_piecewise_constant(ufl.conditional(ufl.lt(x[0], 0.5), constant, cellwise))
