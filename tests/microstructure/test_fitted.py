"""Body-fitted meshes of images: clean interfaces, volumes kept, faces alike, the same on all ranks."""

from pathlib import Path

import numpy as np
import pytest

from fetopo._compat import geometry_dofmap
from fetopo.design.cell import design_cell
from fetopo.design.problem import LoopOptions
from fetopo.microstructure import generate
from fetopo.microstructure.image import GreyImage, Image, read
from fetopo.microstructure.mesh import fitted_cell, quality, regular_cell, voxel_cell
from fetopo.microstructure.mesh._cut import Cut, fraction_above
from fetopo.microstructure.mesh._lattice import Lattice, volumes
from fetopo.transport.homogenization import effective_conductivity

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def arrays(cell):
    """Nodes, cells and tags of a mesh that is whole on this rank."""
    mesh = cell.mesh
    return mesh.geometry.x[:, : cell.dim], np.asarray(geometry_dofmap(mesh)), cell.cell_tags.values


def identify(cell, x, periodic):
    """Number of each node, the same for nodes that periodicity makes one; compared exactly."""
    place = np.where(np.broadcast_to(periodic, (cell.dim,)) & (x == cell.upper), 0.0, x)
    return np.unique(place, axis=0, return_inverse=True)[1].reshape(-1)


def faces_of(cells):
    k = cells.shape[1]
    return np.stack([np.delete(cells, i, axis=1) for i in range(k)], axis=1)


def interface(cell, periodic):
    """Facets between the phases by node numbers, found from the cells of the mesh alone."""
    x, cells, tags = arrays(cell)
    number = identify(cell, x, periodic)
    faces = np.sort(number[faces_of(cells)], axis=2).reshape(-1, cell.dim)
    owner = np.repeat(tags, cell.dim + 1)
    unique, group, count = np.unique(faces, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    assert count.max() == 2
    both = np.bincount(group, weights=owner == 1) * np.bincount(group, weights=owner == 2) > 0
    return x, number, unique[both]


def check_manifold(cell, periodic):
    """Two facets at each edge, one on a face without a partner; one fan of facets at each node."""
    x, number, facets = interface(cell, periodic)
    walls = ~np.broadcast_to(periodic, (cell.dim,))
    outer = np.zeros(number.max() + 1, dtype=bool)
    outer[number] = (((x == 0) | (x == cell.upper)) & walls).any(axis=1)
    if cell.dim == 2:
        nodes, count = np.unique(facets, return_counts=True)
        assert np.array_equal(count, np.where(outer[nodes], 1, 2))
        return len(nodes) - len(facets)
    sides = np.concatenate([facets[:, [0, 1]], facets[:, [0, 2]], facets[:, [1, 2]]])
    edges, count = np.unique(sides, axis=0, return_counts=True)
    assert set(count.tolist()) <= {1, 2}
    assert outer[edges[count == 1]].all()
    # Around a node the opposite sides of its facets make one path or one ring.
    links = {}
    for a, b, c in facets.tolist():
        for node, side in ((a, (b, c)), (b, (a, c)), (c, (a, b))):
            links.setdefault(node, []).append(side)
    for node, ring in links.items():
        reached, left = {ring[0][0]}, list(ring)
        while True:
            touching = [side for side in left if reached & set(side)]
            if not touching:
                break
            reached.update(*touching)
            left = [side for side in left if side not in touching]
        assert not left, f"two sheets touch at node {node}"
    return len(links) - len(edges) + len(facets)


def check_faces(cell, axes):
    """Facets on opposite faces: the same nodes but for one coordinate, bit by bit."""
    x, cells, _ = arrays(cell)
    faces = faces_of(cells).reshape(-1, cell.dim)
    for axis in axes:
        found = []
        for plane in (0.0, cell.upper[axis]):
            on = faces[(x[faces][:, :, axis] == plane).all(axis=1)]
            corners = np.delete(x[on], axis, axis=2)
            rows = [sorted(map(tuple, facet)) for facet in corners.tolist()]
            found.append(sorted(rows))
        assert len(found[0]) >= 3
        assert found[0] == found[1]


def check_mesh(cell, periodic, angle):
    """What every mesh must be; returns the Euler characteristic of its interface."""
    measured = quality(cell)
    assert abs(measured.volume_error) < 1e-12
    assert measured.smallest_volume > 0
    assert measured.smallest_angle > angle
    wanted = cell.report.volume_fraction
    fractions = list(measured.volume_fractions.values())
    assert fractions == pytest.approx([1 - wanted, wanted], rel=1e-5)
    assert cell.report.error < 1e-5
    check_faces(cell, np.flatnonzero(np.broadcast_to(periodic, (cell.dim,))))
    euler = check_manifold(cell, periodic)
    assert euler == cell.report.euler_characteristic
    return euler


def ball(shape, radius, center=0.5):
    """Voxels whose distance to a periodic ball's centre is below the radius, in units of the first edge."""
    axes = [(np.arange(n) + 0.5) / shape[0] for n in shape]
    grid = np.meshgrid(*axes, indexing="ij")
    length = np.array(shape) / shape[0]
    away = [(g - center + a / 2) % a - a / 2 for g, a in zip(grid, length, strict=True)]
    return sum(a**2 for a in away) < radius**2


def gyroid_density(n):
    """A density whose level ½ is the level set 0 that approximates the minimal surface."""
    t = 2 * np.pi * (np.arange(n) + 0.5) / n
    f = generate.surfaces.LEVEL_SETS["gyroid"](t[:, None, None], t[None, :, None], t[None, None, :])
    return 0.5 + f / 6


class TestClean:
    def test_disc_across_the_corners(self, alone):
        cell = fitted_cell(alone, ball((30, 30), 0.3, 0.0), 1)
        assert check_mesh(cell, True, 20.0) == 0
        assert cell.phases == {"matrix": 1, "inclusion": 2}

    def test_ball(self, alone):
        """One closed surface: V − E + F = 2."""
        assert check_mesh(fitted_cell(alone, ball((20, 20, 20), 0.35), 1), True, 20.0) == 2

    def test_ball_across_the_corners_of_a_slab(self, alone):
        cell = fitted_cell(alone, ball((24, 24, 18), 0.3, 0.0), 1, voxel_size=1e-6)
        assert check_mesh(cell, True, 15.0) == 2
        assert np.allclose(cell.lengths, [24e-6, 24e-6, 18e-6])

    def test_gyroid(self, alone):
        """The surface of one cubic cell has genus 5, V − E + F = −8."""
        image = generate.minimal_surface("gyroid", (24,) * 3, volume_fraction=0.4)
        assert check_mesh(fitted_cell(alone, image, 1), True, 15.0) == -8

    def test_schwarz_p(self, alone):
        image = generate.minimal_surface("schwarz_p", (24,) * 3, volume_fraction=0.5)
        assert check_mesh(fitted_cell(alone, image, 1), True, 15.0) == -4

    @pytest.mark.parametrize("periodic", [True, False, (True, False, True)])
    def test_gaussian_field(self, alone, periodic):
        image = generate.gaussian_field((30,) * 3, volume_fraction=0.35, correlation_length=5e-6, seed=1)
        check_mesh(fitted_cell(alone, image, 1, periodic=periodic), periodic, 8.0)

    @pytest.mark.parametrize("periodic", [True, False])
    @pytest.mark.parametrize("shape", [(40, 36), (14, 12, 13)])
    def test_noise(self, alone, shape, periodic):
        """The worst there is: every voxel by the toss of a coin."""
        labels = np.random.default_rng(2).integers(0, 2, shape)
        check_mesh(fitted_cell(alone, labels, 1, periodic=periodic), periodic, 3.0)

    def test_layer_that_ends_at_the_faces(self, alone):
        """The interface lies in the seam of the periodic cell and stays there."""
        labels = np.zeros((16, 12, 12), dtype=int)
        labels[:8] = 1
        cell = fitted_cell(alone, labels, 1)
        assert check_mesh(cell, True, 30.0) == 0
        D = effective_conductivity(cell, {"matrix": 1.0, "inclusion": 9.0}).tensor
        assert np.allclose(D, np.diag([1.8, 5.0, 5.0]), atol=1e-4)

    def test_voxels_of_unequal_sides(self, alone):
        cell = fitted_cell(alone, ball((24, 24), 0.3), 1, (1e-6, 2e-6))
        assert check_mesh(cell, True, 15.0) == 0
        assert np.allclose(cell.lengths, [24e-6, 48e-6])

    @pytest.mark.parametrize("name", ["nmc_electrode.tif", "ketton_carbonate.tif"])
    def test_real_image(self, alone, name):
        if not (DATA / name).exists():
            pytest.skip(f"real image {name} is not in ../shared/data")
        image = read(DATA / name, crop=32, voxel_size=1e-6)
        check_mesh(fitted_cell(alone, image, 0, periodic=False), False, 6.0)


class TestPinches:
    def test_phase_of_one_node(self, alone):
        """Snapping the only node inside would leave nothing of the phase."""
        labels = np.zeros((9, 9), dtype=int)
        labels[4, 4] = 1
        for smoothing in (0.0, 0.6):
            cell = fitted_cell(alone, labels, 1, smoothing=smoothing, mesh_size=1.8)
            assert check_mesh(cell, True, 3.0) == 0

    def test_snapping_pinches_and_is_taken_back(self, alone, monkeypatch):
        """Without the check of the interface this image gives sheets that touch."""
        labels = np.random.default_rng(2).integers(0, 2, (14, 12, 13))
        assert fitted_cell(alone, labels, 1).report.released > 0
        monkeypatch.setattr(Cut, "release_pinched", lambda self: (0, self.divide()))
        with pytest.raises(AssertionError):
            check_manifold(fitted_cell(alone, labels, 1), True)

    @pytest.mark.parametrize("shape", [(20, 20), (12, 12, 12)])
    def test_islands_of_the_size_of_a_cell(self, alone, shape):
        """Snapping eats some of them: the level is chosen again until the volume is right."""
        labels = (np.random.default_rng(5).random(shape) < 0.05).astype(int)
        cell = fitted_cell(alone, labels, 1, smoothing=0.5)
        check_manifold(cell, True)
        found = quality(cell).volume_fractions["inclusion"]
        assert found == pytest.approx(labels.mean(), rel=5e-3)


class TestDensity:
    @pytest.mark.parametrize("fraction", [0.3, 0.5])
    def test_gyroid_by_fraction(self, alone, fraction):
        cell = fitted_cell(alone, gyroid_density(20), volume_fraction=fraction)
        assert quality(cell).volume_fractions["inclusion"] == pytest.approx(fraction, rel=1e-5)
        assert check_mesh(cell, True, 15.0) == -8
        # Area of the level set 0 in a unit cell: 3.0915 for the minimal surface, which it approximates.
        if fraction == 0.5:
            assert cell.report.area / 20**2 == pytest.approx(3.0915, rel=0.015)

    def test_level_one_half_is_second_order(self, alone):
        """A ball given by a linear ramp across its surface: volume and area converge."""
        errors = []
        for n in (16, 32):
            x = (np.arange(n) + 0.5) / n - 0.5
            r = np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2 + x**2)
            cell = fitted_cell(alone, np.clip(0.5 + (0.35 - r) * 2, 0, 1), voxel_size=1 / n)
            fraction = quality(cell).volume_fractions["inclusion"]
            errors.append(
                [fraction / (4 / 3 * np.pi * 0.35**3) - 1, cell.report.area / (4 * np.pi * 0.35**2) - 1]
            )
        errors = np.abs(errors)
        assert (errors[0] < 0.03).all()
        assert (errors[1] < errors[0] / 3).all()

    def test_grey_image(self, alone):
        image = GreyImage(ball((16, 16), 0.3).astype(float), (1e-6, 1e-6))
        cell = fitted_cell(alone, image, smoothing=0.7)
        assert np.allclose(cell.lengths, 16e-6)
        assert check_mesh(cell, True, 15.0) == 0

    @pytest.mark.mpi
    def test_design(self, comm):
        """The crisp structure of a design and the mesh that follows its density conduct alike."""
        options = LoopOptions(stage_iterations=10, final_iterations=20)
        design = design_cell(
            regular_cell(comm, (24, 24)),
            conductivity=(0.01, 1.0),
            volume_fraction=0.5,
            filter_radius=0.12,
            options=options,
        )
        cell = fitted_cell(
            comm,
            design.density,
            voxel_size=1 / 24,
            volume_fraction=design.volume_fraction,
            names=("poor", "good"),
        )
        assert quality(cell).volume_fractions["good"] == pytest.approx(design.volume_fraction, rel=1e-5)
        D = effective_conductivity(cell, {"poor": 0.01, "good": 1.0}).tensor
        assert np.trace(D) == pytest.approx(np.trace(design.verified_tensor), rel=0.03)


class TestConductivity:
    def test_insulating_discs(self, alone):
        """Square array at area fraction ½: 0.3246545 (Perrins, McKenzie and McPhedran 1979), order 2."""
        errors = []
        radius = np.sqrt(0.5 / np.pi)
        for n in (24, 48):
            x = (np.arange(n) + 0.5) / n - 0.5
            r = np.hypot(x[:, None], x)
            density = np.clip(0.5 + (radius - r) * 2, 0, 1)
            cell = fitted_cell(alone, density, voxel_size=1 / n, volume_fraction=0.5, only="matrix")
            D = effective_conductivity(cell, {"matrix": 1.0}).tensor
            errors.append(np.trace(D) / 2 / 0.3246545 - 1)
        assert 0 < errors[1] < errors[0] / 3
        assert errors[1] < 2e-3

    @pytest.mark.parametrize(("p", "q"), [(1, 1), (2, 1)])
    def test_oblique_laminate(self, alone, p, q):
        """Layers half and half across the direction (p, q): the harmonic and the arithmetic mean, turned."""
        n = 48
        x = (np.arange(n) + 0.5) / n
        density = 0.5 + 0.5 * np.sin(2 * np.pi * (p * x[:, None] + q * x))
        cell = fitted_cell(alone, density, volume_fraction=0.5)
        D = effective_conductivity(cell, {"matrix": 1.0, "inclusion": 10.0}).tensor
        n_, t = np.array([p, q]) / np.hypot(p, q), np.array([-q, p]) / np.hypot(p, q)
        exact = 2 / (1 + 0.1) * np.outer(n_, n_) + 5.5 * np.outer(t, t)
        assert np.allclose(D, exact, rtol=0, atol=0.01)

    def test_voxels_of_a_ball(self, alone):
        """Maxwell's formula holds beyond the third order in φ; a mesh of the voxels errs three times more."""
        labels = ball((24,) * 3, 0.3)
        phi, beta = labels.mean(), 9 / 12
        exact = (1 + 2 * beta * phi) / (1 - beta * phi)
        D = effective_conductivity(fitted_cell(alone, labels, 1), {"matrix": 1.0, "inclusion": 10.0}).tensor
        error = np.trace(D) / 3 / exact - 1
        assert 0 < error < 0.007
        voxels = voxel_cell(alone, labels.astype(int))
        assert np.trace(effective_conductivity(voxels, {0: 1.0, 1: 10.0}).tensor) / 3 / exact - 1 > 3 * error


@pytest.mark.mpi
class TestRanks:
    @pytest.mark.parametrize("shape", [(20, 20), (14, 14, 14)])
    def test_same_as_on_one_rank(self, comm, alone, shape):
        image = Image(ball(shape, 0.35, 0.1).astype(int), (1e-6,))
        cells = [fitted_cell(c, image, 1) for c in (comm, alone)]
        one, other = (quality(cell) for cell in cells)
        assert one.cells == other.cells
        assert one.volume_fractions == pytest.approx(other.volume_fractions, rel=1e-12)
        assert one.smallest_angle == pytest.approx(other.smallest_angle)
        assert one.angle_percentiles == other.angle_percentiles
        assert one.mean_radius_ratio == pytest.approx(other.mean_radius_ratio)
        assert cells[0].report == cells[1].report
        D = [effective_conductivity(cell, {"matrix": 1.0, "inclusion": 10.0}).tensor for cell in cells]
        assert np.allclose(D[0], D[1], rtol=1e-7)

    def test_one_phase(self, comm):
        labels = ball((20, 20), 0.35)
        whole = fitted_cell(comm, labels, 1, names=("solid", "pore"))
        for name in ("solid", "pore"):
            part = fitted_cell(comm, labels, 1, names=("solid", "pore"), only=name)
            assert not part.complete
            assert part.tags() == [whole.phases[name]]
            assert part.phases == {name: whole.phases[name]}
            fraction = quality(part).volume_fractions[name]
            assert fraction == pytest.approx(quality(whole).volume_fractions[name], rel=1e-12)
            assert part.volume == whole.volume

    @pytest.mark.parametrize(
        ("image", "options", "message"),
        [
            (np.zeros((8, 8), int), {"phase": 1}, "phase 1: expected labels of the image, 0"),
            (np.zeros((8, 8), int), {"phase": 0}, "phase 0 is all of the image: expected two phases"),
            (ball((8, 8), 0.3), {}, "phase is None: expected labels of the image, 0, 1"),
            (np.zeros((8, 0), int), {"phase": 0}, "empty|0"),
            (np.zeros(8, int), {"phase": 0}, "2D or 3D|2 or 3"),
            (np.full((8, 8), np.nan), {}, "NaN"),
            (np.full((8, 8), 0.3), {}, "0.3 everywhere"),
            (np.eye(8) * 255, {}, "between 0 and 255: expected 0 to 1"),
            (np.eye(8), {"phase": 1}, "phase is 1, of a density"),
            (ball((8, 8), 0.3), {"phase": 1, "voxel_size": 0.0}, "voxel_size is 0.0|voxel_size is"),
            (ball((8, 8), 0.3), {"phase": 1, "voxel_size": (1.0, -1.0)}, "positive"),
            (ball((8, 8), 0.3), {"phase": 1, "mesh_size": -1.0}, "mesh_size is -1.0"),
            (ball((8, 8), 0.3), {"phase": 1, "mesh_size": 5.0}, "at most 2.66667, a third of the shortest"),
            (ball((8, 8), 0.3), {"phase": 1, "smoothing": -1.0}, "smoothing is -1.0"),
            (ball((8, 8), 0.3), {"phase": 1, "volume_fraction": 1.0}, "volume_fraction is 1.0"),
            (ball((8, 8), 0.3), {"phase": 1, "periodic": (True,) * 3}, "expected one answer or 2"),
            (ball((8, 8), 0.3), {"phase": 1, "names": ("a", "a")}, "two names"),
            (ball((8, 8), 0.3), {"phase": 1, "only": "pore"}, "only is 'pore'"),
            (0.4 * np.eye(8), {}, "cannot show the phase .*none crosses 0.5"),
        ],
    )
    def test_refused(self, comm, image, options, message):
        with pytest.raises(ValueError, match=message):
            fitted_cell(comm, image, **options)

    def test_phase_too_small_for_the_mesh(self, comm):
        labels = np.zeros((60, 60), dtype=int)
        labels[31, 31] = 1
        with pytest.raises(ValueError, match=r"mesh_size 6 m cannot show the phase"):
            fitted_cell(comm, labels, 1, mesh_size=6.0)


class TestParts:
    @pytest.mark.parametrize("dim", [2, 3])
    def test_fraction_above(self, dim):
        """Against points drawn in the simplex."""
        rng = np.random.default_rng(0)
        weights = rng.dirichlet(np.ones(dim + 1), 100_000)
        values = np.sort(rng.normal(size=(20, dim + 1)), axis=1)[:, ::-1]
        drawn = (weights @ values.T > 0).mean(axis=0)
        assert np.allclose(fraction_above(values), drawn, atol=0.01)

    @pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5)])
    def test_lattice_fills_the_box(self, shape):
        lengths = np.arange(1.0, len(shape) + 1)
        mesh, _ = Lattice(shape, lengths, [True, False, True][: len(shape)]).build()
        size = volumes(mesh.nodes(), mesh.cells)
        assert size.min() > 0
        assert size.sum() == pytest.approx(lengths.prod(), rel=1e-14)
