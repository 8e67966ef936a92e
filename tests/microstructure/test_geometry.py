"""Body-fitted cells: volumes, periodic faces, sizes, inclusions that cross the faces."""

import numpy as np
import pytest
import ufl
from dolfinx import fem

gmsh = pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")

from dolfinx import mesh as dmesh  # noqa: E402

from fetopo.microstructure.generate import dense_packing, regular_array  # noqa: E402
from fetopo.microstructure.geometry import (  # noqa: E402
    INCLUSION,
    MATRIX,
    _meshing,
    inclusion_cell,
)
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


BALL = 4 / 3 * np.pi
RADIUS = (0.4 / 30 / BALL) ** (1 / 3)  # of 30 balls at 40 %


def check_faces_alike(cell):
    """Every facet on a face of the box has its copy across, corner by corner; serial."""
    mesh, fdim = cell.mesh, cell.dim - 1
    mesh.topology.create_connectivity(fdim, cell.dim)
    outer = dmesh.exterior_facet_indices(mesh.topology)
    nodes = dmesh.entities_to_geometry(mesh, fdim, outer)
    corners = mesh.geometry.x[nodes][:, :, : cell.dim]
    seen = 0
    for axis in range(cell.dim):
        found = []
        for plane, shift in ((cell.lower, 0.0), (cell.upper, cell.lengths[axis])):
            on = np.abs(corners[:, :, axis] - plane[axis]).max(axis=1) < 1e-12 * cell.lengths.max()
            x = (corners[on] - shift * np.eye(cell.dim)[axis] - cell.lower) / cell.lengths.max()
            seen += len(x)
            found.append(sorted(tuple(sorted(map(tuple, facet))) for facet in np.round(x, 8) + 0.0))
        assert found[0] == found[1]
    assert seen == len(outer)


class TestVolumes:
    """Facets cut off up to a tenth of a ball; the phases have their volume nevertheless."""

    @pytest.mark.parametrize("order", [1, 2])
    @pytest.mark.parametrize("center", [(0.5, 0.5), (0.0, 0.0), (0.9, 0.3), (0.25, -0.1)])
    def test_disc(self, comm, center, order):
        cell = inclusion_cell(comm, [center], 0.3, mesh_size=0.1, order=order)
        assert volume(cell, INCLUSION) == pytest.approx(np.pi * 0.09, rel=1e-6)
        assert volume(cell, MATRIX) == pytest.approx(1 - np.pi * 0.09, rel=1e-6)

    @pytest.mark.parametrize("order", [1, 2])
    @pytest.mark.parametrize("center", [(0.5, 0.5, 0.5), (1.0, 0.4, 0.0), (0.0, 0.0, 0.0)])
    def test_ball(self, comm, center, order):
        cell = inclusion_cell(comm, [center], 0.35, mesh_size=0.2, order=order)
        assert volume(cell, INCLUSION) == pytest.approx(BALL * 0.35**3, rel=1e-6)
        assert volume(cell, MATRIX) == pytest.approx(1 - BALL * 0.35**3, rel=1e-6)

    def test_overlapping_discs_count_once(self, comm):
        r, d = 0.2, 0.2
        cell = inclusion_cell(comm, [(0.4, 0.5), (0.4 + d, 0.5)], r, mesh_size=0.05)
        lens = 2 * r**2 * np.arccos(d / (2 * r)) - d / 2 * np.sqrt(4 * r**2 - d**2)
        assert volume(cell, INCLUSION) == pytest.approx(2 * np.pi * r**2 - lens, rel=1e-6)

    def test_overlapping_balls_count_once(self, comm):
        r, d = 0.3, 0.4
        cell = inclusion_cell(comm, [(0.3, 0.5, 0.9), (0.3 + d, 0.5, 0.9)], r, mesh_size=0.15)
        lens = np.pi * (2 * r - d) ** 2 * (d**2 + 4 * d * r) / (12 * d)
        assert volume(cell, INCLUSION) == pytest.approx(2 * BALL * r**3 - lens, rel=1e-5)

    def test_several_radii_on_a_rectangle(self, comm):
        cell = inclusion_cell(comm, [(0.0, 0.0), (1.0, 0.5)], [0.3, 0.2], mesh_size=0.1, lengths=(2.0, 1.0))
        assert np.allclose(cell.lengths, [2, 1])
        assert volume(cell, INCLUSION) == pytest.approx(np.pi * (0.09 + 0.04), rel=1e-6)
        assert volume(cell, MATRIX) + volume(cell, INCLUSION) == pytest.approx(2, rel=1e-12)

    def test_small_disc_in_a_coarse_mesh(self, comm):
        cell = inclusion_cell(comm, [(0.3, 0.3), (0.7, 0.7)], [0.2, 0.01], mesh_size=0.2, phases=["a", "b"])
        assert volume(cell, cell.tag("b")) == pytest.approx(np.pi * 1e-4, rel=1e-6)


class TestPhases:
    def test_names_and_interfaces(self, comm):
        """Tags follow the order of appearance; facet tags tell the faces of the box and the interfaces."""
        centers = [(0.0, 0.5, 0.5), (0.5, 0.0, 0.0), (0.5, 0.5, 0.5)]
        cell = inclusion_cell(
            comm, centers, [0.2, 0.25, 0.22], phases=["b", "a", "b"], matrix="pore", mesh_size=0.15
        )
        assert cell.phases == {"pore": 1, "b": 2, "a": 3}
        assert cell.tags() == [1, 2, 3]
        assert volume(cell, 2) == pytest.approx(BALL * (0.2**3 + 0.22**3), rel=1e-6)
        assert volume(cell, 3) == pytest.approx(BALL * 0.25**3, rel=1e-6)
        assert list(cell.facets) == ["x-", "x+", "y-", "y+", "z-", "z+", "pore|b", "pore|a"]
        ds = ufl.Measure("ds", domain=cell.mesh, subdomain_data=cell.facet_tags)
        dS = ufl.Measure("dS", domain=cell.mesh, subdomain_data=cell.facet_tags)
        one = fem.Constant(cell.mesh, 1.0)
        for name in ("x-", "x+", "y-", "y+", "z-", "z+"):
            assert global_sum(fem.form(one * ds(cell.facets[name]))) == pytest.approx(1, rel=1e-9)
        if comm.size == 1:  # a mesh without shared cells has no dS between ranks
            area = global_sum(fem.form(one * dS(cell.facets["pore|a"])))
            assert area == pytest.approx(4 * np.pi * 0.25**2, rel=0.05)

    def test_packings_of_micrometres(self, comm):
        """Generated packings are some micrometres wide, below the tolerances of the geometry kernel."""
        packing = regular_array("bcc", volume_fraction=0.5, cell_length=1e-6)
        cell = inclusion_cell(comm, packing, mesh_size=0.2e-6, phases="particle")
        assert np.allclose(cell.lengths, 1e-6, rtol=1e-12)
        assert volume(cell, cell.tag("particle")) == pytest.approx(0.5e-18, rel=1e-6)
        periodic_space(fem.functionspace(cell.mesh, ("Lagrange", 1)), cell.lower, cell.upper)

    @pytest.mark.parametrize(("kind", "limit"), [("hexagonal", 0.9069), ("sc", 0.5235), ("fcc", 0.7404)])
    def test_arrays_that_almost_touch(self, comm, kind, limit):
        cell = inclusion_cell(comm, regular_array(kind, volume_fraction=0.995 * limit), mesh_size=0.2e-6)
        phi = volume(cell, INCLUSION) / cell.volume
        assert phi == pytest.approx(0.995 * limit, rel=1e-5)

    def test_a_matrix_in_parts_is_told(self, comm, caplog):
        inclusion_cell(comm, [(0.0, 0.0), (0.5, 0.5)], 0.36, mesh_size=0.1)
        if comm.rank == 0:
            assert "the matrix falls into 2 parts that are not connected" in caplog.text
        caplog.clear()
        inclusion_cell(comm, [(0.0, 0.5)], 0.4, mesh_size=0.1)
        assert not caplog.text


class TestPlaceOfTheBox:
    def test_ball_that_just_touches_a_face(self, comm):
        """The box moves, the ball does not."""
        cell = inclusion_cell(comm, [(0.5, 0.5, 0.3)], 0.3, mesh_size=0.2)
        assert not np.allclose(cell.lower, 0)
        assert np.allclose(cell.lengths, 1)
        assert volume(cell, INCLUSION) == pytest.approx(BALL * 0.3**3, rel=1e-6)
        check = dmesh.compute_midpoints(cell.mesh, 3, cell.cell_tags.find(INCLUSION))
        off = check - (0.5, 0.5, 0.3)
        assert np.linalg.norm(off - np.rint(off), axis=1).max(initial=0) < 0.3

    def test_is_kept_where_it_was_asked_for(self, comm):
        ball = [(0.5, 0.5, 0.3)]
        cell = inclusion_cell(comm, ball, 0.3, mesh_size=0.2, origin=(0.3, -0.4, 0.2))
        assert np.allclose(cell.lower, (0.3, -0.4, 0.2))
        assert volume(cell, INCLUSION) == pytest.approx(BALL * 0.3**3, rel=1e-6)
        with pytest.raises(RuntimeError, match="just touches a face"):
            inclusion_cell(comm, ball, 0.3, mesh_size=0.2, origin=(0, 0, 0))

    def test_another_is_tried_where_gmsh_fails(self, comm, monkeypatch, caplog):
        caplog.set_level("INFO")
        real, calls = _meshing.generate, []

        def failing(*arguments):
            real(*arguments)
            calls.append(1)
            if len(calls) < 3:
                raise RuntimeError("no luck")

        monkeypatch.setattr(_meshing, "generate", failing)
        cell = inclusion_cell(comm, [(0.5, 0.5, 0.2), (0.1, 0.2, 0.7)], 0.2, mesh_size=0.2)
        if comm.rank == 0:
            assert len(calls) == 3
            assert "box 2 of 4, algorithms (6, 1): no luck" in caplog.text
        assert volume(cell, INCLUSION) == pytest.approx(2 * BALL * 0.2**3, rel=1e-6)
        assert not np.allclose(cell.lower, 0)

    def test_stays_at_the_origin_where_nothing_is_tangent(self, comm):
        assert np.array_equal(inclusion_cell(comm, [(0.5, 0.5)], 0.3, mesh_size=0.2).lower, (0, 0))


@pytest.mark.parametrize("order", [1, 2])
def test_thirty_balls_at_forty_percent(alone, order):
    """They cross faces, edges and corners; volumes within 1e-6, not 10 % off; every facet has its partner."""
    packing = dense_packing((1, 1, 1), volume_fraction=0.4, radius=RADIUS, seed=2)
    assert len(packing.radii) == 30
    cell = inclusion_cell(alone, packing, mesh_size=0.2, order=order)
    assert volume(cell, INCLUSION) == pytest.approx(0.4, rel=1e-6)
    assert volume(cell, MATRIX) == pytest.approx(0.6, rel=1e-6)
    check_faces_alike(cell)
    periodic_space(fem.functionspace(cell.mesh, ("Lagrange", order)), cell.lower, cell.upper)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [23, 50, *range(100, 110)])  # two that Gmsh fails on at the first box
def test_packings_mesh_whatever_the_seed(alone, seed):
    packing = dense_packing((1, 1, 1), volume_fraction=0.4, radius=RADIUS, seed=seed)
    cell = inclusion_cell(alone, packing, mesh_size=0.1)
    assert volume(cell, INCLUSION) == pytest.approx(0.4, rel=1e-6)
    check_faces_alike(cell)


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

    @pytest.mark.parametrize("order", [1, 2])
    def test_facet_by_facet(self, alone, order):
        centers = [(0.9, 0.25, 0.5), (0.4, 0.75, 0.02)]
        check_faces_alike(inclusion_cell(alone, centers, [0.3, 0.2], mesh_size=0.15, order=order))
        check_faces_alike(inclusion_cell(alone, [(0.95, 0.5)], 0.2, mesh_size=0.1, order=order))

    @pytest.mark.parametrize("order", [1, 2])
    def test_interface_follows_the_disc(self, comm, order):
        """All nodes are equally far out: where a polygon of that area has its corners, or on the circle."""
        cell = inclusion_cell(comm, [(0.5, 0.5)], 0.3, mesh_size=0.08, order=order)
        mesh, tags = cell.mesh, cell.cell_tags
        mesh.topology.create_connectivity(0, 2)
        touching = [
            set(dmesh.compute_incident_entities(mesh.topology, tags.find(tag), 2, 0).tolist())
            for tag in (MATRIX, INCLUSION)
        ]
        vertices = np.array(sorted(touching[0] & touching[1]), dtype=np.int32)
        x = mesh.geometry.x[dmesh.entities_to_geometry(mesh, 0, vertices).reshape(-1)]
        sides = round(2 * np.pi * 0.3 / 0.08)
        out = np.sqrt(2 * np.pi / sides / np.sin(2 * np.pi / sides)) if order == 1 else 1.0
        assert np.allclose(np.linalg.norm(x[:, :2] - 0.5, axis=1), 0.3 * out, rtol=1e-4)


class TestSizes:
    def test_graded(self, comm):
        cell = inclusion_cell(comm, [(0.5, 0.5)], 0.3, mesh_size=0.1, interface_size=0.02)
        low, high = edge_lengths(cell, comm)
        assert low < 0.022
        assert 0.06 < high < 0.2

    def test_narrow_gap(self, comm):
        centers = [(0.3, 0.5), (0.705, 0.5)]
        low, _ = edge_lengths(inclusion_cell(comm, centers, 0.2, mesh_size=0.1), comm)
        assert 0.01 < low < 0.03
        low, _ = edge_lengths(inclusion_cell(comm, centers, 0.2, mesh_size=0.1, gap_size=0.005), comm)
        assert 0.002 < low < 0.008

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


@pytest.mark.parametrize("center", [(0.5, 0.5), (0.0, 0.0), (0.5, 0.3)])
def test_disc_that_just_touches_is_fine(comm, center):
    radius = 0.3 if 0.3 in center else 0.5
    cell = inclusion_cell(comm, [center], radius, mesh_size=0.05)
    assert volume(cell, INCLUSION) == pytest.approx(np.pi * radius**2, rel=1e-6)


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
        ([(0.5, 0.5)], 0.1, {"mesh_size": 0.1, "gap_size": 0.2}, "gap_size is 0.2"),
        ([(0.5, 0.5)], -0.1, {"mesh_size": 0.1}, r"radii must be positive.*found \[-0\.1\]"),
        ([(0.5, 0.5)], [np.nan], {"mesh_size": 0.1}, r"found \[nan\]"),
        ([(0.5, 0.5)], [0.1, 0.1], {"mesh_size": 0.1}, r"one number or 1, found shape \(2,\)"),
        ([(0.5, 0.5)], None, {"mesh_size": 0.1}, "radii are missing"),
        ([(0.5, 0.5)], 0.1, {"mesh_size": np.nan}, "mesh sizes must be positive"),
        ([(0.5, 0.5)], 0.1, {"mesh_size": 0.1, "order": 3}, "order is 3"),
        ([(0.5, 0.5)], 0.1, {"mesh_size": 0.1, "origin": (0, 0, 0)}, "expected 2 finite numbers"),
        (
            [(0.5, 0.5)],
            0.1,
            {"mesh_size": 0.1, "phases": ["a", "b"]},
            "2 names: expected one, or one for each",
        ),
        ([(0.5, 0.5)], 0.1, {"mesh_size": 0.1, "phases": "matrix"}, "names that differ"),
        ([(0.4, 0.5), (0.6, 0.5)], 0.2, {"mesh_size": 0.1, "overlap": False}, "overlap by 0.5 of the sum"),
        ([(0.4, 0.5), (0.6, 0.5)], 0.2, {"mesh_size": 0.1, "phases": ["a", "b"]}, "different phases overlap"),
        (regular_array("square", volume_fraction=0.3), 0.2, {"mesh_size": 0.1}, "expected none beside it"),
    ],
)
def test_refused(comm, centers, radius, options, message):
    with pytest.raises(ValueError, match=message):
        inclusion_cell(comm, centers, radius, **options)
