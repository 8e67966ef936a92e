"""Body-fitted cells: volumes, periodic faces, sizes, inclusions that cross the faces."""

import numpy as np
import pytest
import ufl
from dolfinx import fem

gmsh = pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")

from dolfinx import mesh as dmesh  # noqa: E402

from fetopo.microstructure.geometry import INCLUSION, MATRIX, inclusion_cell  # noqa: E402
from fetopo.transport.periodic import periodic_space  # noqa: E402
from fetopo.transport.state import global_sum  # noqa: E402

pytestmark = pytest.mark.mpi


def volume(cell, tag):
    dx = ufl.Measure("dx", domain=cell.mesh, subdomain_data=cell.cell_tags)
    return global_sum(fem.form(fem.Constant(cell.mesh, 1.0) * dx(tag)))


def edge_lengths(cell, comm):
    """All edge lengths of local cells, smallest and largest over all ranks."""
    tdim = cell.mesh.topology.dim
    cell.mesh.topology.create_connectivity(1, tdim)
    cell.mesh.topology.create_connectivity(tdim, 1)
    n = cell.mesh.topology.index_map(1).size_local
    h = cell.mesh.h(1, np.arange(n, dtype=np.int32))
    return min(comm.allgather(h.min())), max(comm.allgather(h.max()))


class TestVolumes:
    @pytest.mark.parametrize(
        ("center", "size"), [((0.5, 0.5), 0.05), ((0.0, 0.0), 0.05), ((0.9, 0.3), 0.05), ((0.25, -0.1), 0.05)]
    )
    def test_disc(self, comm, center, size):
        cell = inclusion_cell(comm, [center], 0.3, mesh_size=size)
        assert volume(cell, MATRIX) + volume(cell, INCLUSION) == pytest.approx(1, rel=1e-12)
        # An inscribed polygon of n sides has the disc's area times sin(2π/n)/(2π/n).
        assert volume(cell, INCLUSION) == pytest.approx(np.pi * 0.09, rel=6e-3)
        assert volume(cell, INCLUSION) < np.pi * 0.09

    @pytest.mark.parametrize("center", [(0.5, 0.5, 0.5), (1.0, 0.4, 0.0)])
    def test_ball(self, comm, center):
        cell = inclusion_cell(comm, [center], 0.35, mesh_size=0.12)
        assert volume(cell, MATRIX) + volume(cell, INCLUSION) == pytest.approx(1, rel=1e-12)
        assert volume(cell, INCLUSION) == pytest.approx(4 / 3 * np.pi * 0.35**3, rel=0.06)

    def test_overlapping_discs_count_once(self, comm):
        r, d = 0.2, 0.2
        cell = inclusion_cell(comm, [(0.4, 0.5), (0.4 + d, 0.5)], r, mesh_size=0.03)
        lens = 2 * r**2 * np.arccos(d / (2 * r)) - d / 2 * np.sqrt(4 * r**2 - d**2)
        assert volume(cell, INCLUSION) == pytest.approx(2 * np.pi * r**2 - lens, rel=6e-3)

    def test_several_radii_on_a_rectangle(self, comm):
        cell = inclusion_cell(comm, [(0.0, 0.0), (1.0, 0.5)], [0.3, 0.2], mesh_size=0.05, lengths=(2.0, 1.0))
        assert np.allclose(cell.lengths, [2, 1])
        assert volume(cell, INCLUSION) == pytest.approx(np.pi * (0.09 + 0.04), rel=1e-2)
        assert volume(cell, MATRIX) + volume(cell, INCLUSION) == pytest.approx(2, rel=1e-12)


class TestPeriodicFaces:
    @pytest.mark.parametrize(
        ("centers", "radius", "size"),
        [
            ([(0.5, 0.5)], 0.3, 0.07),
            ([(0.0, 0.0)], 0.3, 0.07),
            ([(0.95, 0.5), (0.3, 0.02)], 0.2, 0.07),
            ([(0.5, 0.5, 0.5)], 0.3, 0.2),
            ([(0.0, 0.0, 0.0), (0.5, 0.5, 0.5)], 0.35, 0.2),
            ([(0.9, 0.25, 0.5)], 0.3, 0.2),
        ],
    )
    def test_opposite_faces_are_meshed_alike(self, comm, centers, radius, size):
        cell = inclusion_cell(comm, centers, radius, mesh_size=size)
        for degree in (1, 2):
            V = fem.functionspace(cell.mesh, ("Lagrange", degree))
            periodic_space(V, cell.lower, cell.upper)  # raises where they are not

    def test_interface_follows_the_disc(self, comm):
        """Every vertex of the interface lies on the circle."""
        cell = inclusion_cell(comm, [(0.5, 0.5)], 0.3, mesh_size=0.08)
        mesh, tags = cell.mesh, cell.cell_tags
        mesh.topology.create_connectivity(0, 2)
        touching = [
            set(dmesh.compute_incident_entities(mesh.topology, tags.find(tag), 2, 0).tolist())
            for tag in (MATRIX, INCLUSION)
        ]
        vertices = np.array(sorted(touching[0] & touching[1]), dtype=np.int32)
        x = mesh.geometry.x[dmesh.entities_to_geometry(mesh, 0, vertices).reshape(-1)]
        assert np.allclose(np.linalg.norm(x[:, :2] - 0.5, axis=1), 0.3, atol=1e-9)


class TestSizes:
    def test_graded(self, comm):
        cell = inclusion_cell(comm, [(0.5, 0.5)], 0.3, mesh_size=0.1, interface_size=0.02)
        low, high = edge_lengths(cell, comm)
        assert low < 0.022
        assert 0.06 < high < 0.2

    def test_uniform(self, comm):
        low, high = edge_lengths(inclusion_cell(comm, [(0.5, 0.5)], 0.3, mesh_size=0.05), comm)
        assert low > 0.02
        assert high < 0.09

    def test_session_that_is_open_is_left_open(self, comm):
        """A caller's own Gmsh session survives, and sizes do not carry over from one cell to the next."""
        gmsh.initialize(interruptible=False)
        try:
            gmsh.option.setNumber("General.Terminal", 0)
            gmsh.model.add("mine")
            inclusion_cell(comm, [(0.5, 0.5)], 0.3, mesh_size=0.1)
            graded = inclusion_cell(comm, [(0.5, 0.5)], 0.3, mesh_size=0.1, interface_size=0.02)
            assert gmsh.isInitialized()
            assert "mine" in gmsh.model.list()
            assert "fetopo" not in gmsh.model.list()
        finally:
            gmsh.finalize()
        assert edge_lengths(graded, comm)[0] < 0.022

    def test_session_is_closed_after_an_error(self, comm):
        grid = [(x, y) for x in (0.0, 0.5) for y in (0.0, 0.5)]
        with pytest.raises(ValueError, match="fill the whole cell"):
            inclusion_cell(comm, grid, 0.5, mesh_size=0.1)
        assert not gmsh.isInitialized()


def test_ball_that_just_touches_a_face_is_refused_with_a_hint(comm):
    """Gmsh sees one point more on this face than on the one across."""
    with pytest.raises(RuntimeError, match="just touches a face"):
        inclusion_cell(comm, [(0.5, 0.5, 0.3)], 0.3, mesh_size=0.2)
    inclusion_cell(comm, [(0.5, 0.5, 0.31)], 0.3, mesh_size=0.2)


@pytest.mark.parametrize("center", [(0.5, 0.5), (0.0, 0.0), (0.5, 0.3)])
def test_disc_that_just_touches_is_fine(comm, center):
    radius = 0.3 if 0.3 in center else 0.5
    cell = inclusion_cell(comm, [center], radius, mesh_size=0.05)
    assert volume(cell, INCLUSION) == pytest.approx(np.pi * radius**2, rel=6e-3)


@pytest.mark.parametrize(
    ("centers", "radius", "options", "message"),
    [
        ([(0.5,)], 0.1, {"mesh_size": 0.1}, "2D or 3D, found shape"),
        ([(0.5, np.nan)], 0.1, {"mesh_size": 0.1}, "finite points"),
        ([(0.5, 0.5)], 0.0, {"mesh_size": 0.1}, "radii must be positive"),
        ([(0.5, 0.5)], 0.6, {"mesh_size": 0.1}, r"at most half an edge \(0\.5\), found \[0\.6\]"),
        ([(0.5, 0.5)], 0.6, {"mesh_size": 0.1, "lengths": (2, 1)}, r"half an edge \(0\.5\)"),
        ([(0.5, 0.5)], 0.1, {"mesh_size": 0.1, "lengths": (1, 1, 1)}, "lengths must be 2"),
        ([(0.5, 0.5)], 0.1, {"mesh_size": 0.0}, "mesh sizes must be positive"),
        ([(0.5, 0.5)], 0.1, {"mesh_size": 0.1, "interface_size": 0.2}, "found 0.1 and 0.2"),
    ],
)
def test_refused(comm, centers, radius, options, message):
    with pytest.raises(ValueError, match=message):
        inclusion_cell(comm, centers, radius, **options)
