"""Periodic spaces: how many degrees of freedom, what they identify, which meshes they refuse."""

import numpy as np
import pytest
from dolfinx import fem

from fetopo.microstructure.mesh import regular_cell, select_phases, voxel_cell
from fetopo.transport.periodic import periodic_space

pytestmark = pytest.mark.mpi

CELLS = [
    ((6, 4), "quadrilateral"),
    ((6, 4), "triangle"),
    ((4, 3, 2), "hexahedron"),
    ((4, 3, 2), "tetrahedron"),
]


def make(comm, shape, kind, degree=1, lengths=None):
    cell = regular_cell(comm, shape, lengths, kind)
    V = fem.functionspace(cell.mesh, ("Lagrange", degree))
    return cell, V, periodic_space(V, cell.lower, cell.upper)


def everywhere(comm, V, values):
    """Coordinates and values of all degrees of freedom of all ranks, on every rank."""
    n = V.dofmap.index_map.size_local
    x = np.vstack(comm.allgather(V.tabulate_dof_coordinates()[:n]))
    return x, np.concatenate(comm.allgather(values[:n]))


def is_periodic(comm, cell, V, values, tolerance=1e-13):
    x, values = everywhere(comm, V, values)
    place = np.round((x[:, : cell.dim] - cell.lower) / cell.lengths * 1e6).astype(int) % 1_000_000
    _, inverse, counts = np.unique(place, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    low, high = np.full(counts.size, np.inf), np.full(counts.size, -np.inf)
    np.minimum.at(low, inverse, values)
    np.maximum.at(high, inverse, values)
    assert counts.max() > 1
    return (high - low).max() <= tolerance


@pytest.mark.parametrize(("shape", "kind"), CELLS)
@pytest.mark.parametrize("degree", [1, 2])
def test_number_of_degrees_of_freedom(comm, shape, kind, degree):
    _, _, P = make(comm, shape, kind, degree)
    # A lattice with `degree` steps per cell closes on itself.
    assert P.dofmap.index_map.size_global == np.prod(np.array(shape) * degree)


def test_number_on_an_unstructured_mesh(comm):
    """On a torus there are half as many vertices as triangles, and three times as many edges as vertices."""
    pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
    from fetopo.microstructure.geometry import inclusion_cell

    cell = inclusion_cell(comm, [(0.9, 0.2)], 0.3, mesh_size=0.1)
    triangles = cell.mesh.topology.index_map(2).size_global
    for degree, expected in ((1, triangles // 2), (2, 2 * triangles)):
        V = fem.functionspace(cell.mesh, ("Lagrange", degree))
        P = periodic_space(V, cell.lower, cell.upper)
        assert P.dofmap.index_map.size_global == expected


@pytest.mark.parametrize(("shape", "kind"), CELLS)
@pytest.mark.parametrize("degree", [1, 2])
def test_functions_are_periodic(comm, shape, kind, degree):
    cell, V, P = make(comm, shape, kind, degree)
    f, g = fem.Function(P), fem.Function(V)
    first = P.dofmap.index_map.local_range[0]
    size = P.dofmap.index_map.size_local
    f.x.array[:size] = np.sin(1.0 + 37.0 * (first + np.arange(size)))
    f.x.scatter_forward()
    g.interpolate(f)
    assert is_periodic(comm, cell, V, g.x.array)


def test_the_check_can_fail(comm):
    cell, V, _ = make(comm, (6, 4), "quadrilateral")
    g = fem.Function(V)
    g.interpolate(lambda x: x[0])
    assert not is_periodic(comm, cell, V, g.x.array)


@pytest.mark.parametrize(("shape", "kind"), CELLS)
def test_periodic_functions_survive(comm, shape, kind):
    """Interpolating a periodic function into the space and out of it gives back its nodal values."""
    cell, V, P = make(comm, shape, kind)
    wave = lambda x: np.cos(2 * np.pi * x[0] / cell.lengths[0]) * np.sin(2 * np.pi * x[1] / cell.lengths[1])
    f, g, direct = fem.Function(P), fem.Function(V), fem.Function(V)
    f.interpolate(wave)
    f.x.scatter_forward()
    g.interpolate(f)
    direct.interpolate(wave)
    assert np.allclose(g.x.array, direct.x.array, atol=1e-13)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1), (1, 1, 4), (1, 1, 1)])
def test_one_cell_between_the_faces(comm, shape):
    _, _, P = make(comm, shape, None)
    assert P.dofmap.index_map.size_global == np.prod(shape)


def test_small_and_long_cells(comm):
    _, _, P = make(comm, (5, 4, 3), "tetrahedron", lengths=(1e-6, 3e-3, 2e-6))
    assert P.dofmap.index_map.size_global == 60


@pytest.mark.parametrize("kind", ["triangle", "quadrilateral"])
def test_faces_meshed_differently_are_refused_on_every_rank(comm, kind):
    cell = regular_cell(comm, (6, 6), cell_type=kind)
    x = cell.mesh.geometry.x
    upper = np.isclose(x[:, 0], 1.0)
    x[upper, 1] += 0.02 * np.sin(np.pi * x[upper, 1])
    V = fem.functionspace(cell.mesh, ("Lagrange", 1))
    # Five nodes of each of two faces lost their partner; the corners did not move.
    with pytest.raises(ValueError, match="not meshed alike: 10 degrees of freedom"):
        periodic_space(V, cell.lower, cell.upper)
    loose = periodic_space(V, cell.lower, cell.upper, complete=False)
    assert loose.dofmap.index_map.size_global == 36 + 5


def test_one_misplaced_node_is_enough(comm):
    cell = regular_cell(comm, (8, 8), cell_type="triangle")
    x = cell.mesh.geometry.x
    x[np.isclose(x[:, 0], 1.0) & np.isclose(x[:, 1], 0.5), 1] += 1e-4
    V = fem.functionspace(cell.mesh, ("Lagrange", 1))
    with pytest.raises(ValueError, match="2 degrees of freedom"):
        periodic_space(V, cell.lower, cell.upper)


def test_part_of_a_cell(comm):
    """A phase is linked across the seam only where it is on both sides of it."""
    labels = np.zeros((6, 6), dtype=int)
    labels[:, 2] = 1  # a channel along x
    labels[0, 5] = 1  # meets nothing
    part = select_phases(voxel_cell(comm, labels), [1])
    V = fem.functionspace(part.mesh, ("Lagrange", 1))
    P = periodic_space(V, part.lower, part.upper, complete=False)
    assert V.dofmap.index_map.size_global == 14 + 4
    assert P.dofmap.index_map.size_global == 12 + 4
    with pytest.raises(ValueError, match="not meshed alike"):
        periodic_space(V, part.lower, part.upper)


def test_vector_spaces_are_refused(comm):
    cell = regular_cell(comm, (3, 3))
    V = fem.functionspace(cell.mesh, ("Lagrange", 1, (2,)))
    with pytest.raises(NotImplementedError, match="vector-valued"):
        periodic_space(V, cell.lower, cell.upper)
