"""Boundaries of the Helmholtz filters, and the average with cone weights."""

import numpy as np
import pytest
from scipy import ndimage

from fetopo.design.filters import ConvolutionFilter, HelmholtzFilter, VoxelFilter
from fetopo.design.initial import cell_positions
from fetopo.microstructure.mesh import regular_cell, to_image
from fetopo.transport.voxel import ScreenedPoisson, VoxelGrid

pytestmark = pytest.mark.mpi

R = 0.4
LENGTH = R / (2 * 3**0.5)

#: Shape, voxel size, periodic axes.
GRIDS = {
    "periodic": ((9, 8), (0.2, 0.15), True),
    "closed": ((8, 9), (0.2, 0.15), False),
    "mixed": ((6, 5, 8), (0.2, 0.25, 0.15), (True, False, False)),
}


@pytest.fixture(params=GRIDS)
def grid(request, comm):
    return VoxelGrid(comm, *GRIDS[request.param])


def rough(grid, k=1.0):
    return np.sin(k * (1 + cell_positions(grid) @ np.array([37.0, 91.0, 53.0])[: grid.dim]))


def whole(grid, values):
    return grid.gather(values.reshape(grid.own_shape))


def cone(grid, radius):
    """The weights of Bruns and Tortorelli between all pairs of voxels, by brute force."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")).reshape(grid.dim, -1).T
    h, n = np.array(grid.voxel_size), np.array(grid.shape)
    W = np.zeros((len(index),) * 2)
    images = [range(-2, 3) if wraps else (0,) for wraps in grid.periodic]
    for shift in np.stack(np.meshgrid(*images, indexing="ij")).reshape(grid.dim, -1).T:
        apart = index[:, None] - index[None] + shift * n
        W += np.maximum(0, radius - np.linalg.norm(apart * h, axis=2))
    return W


class TestConvolution:
    @pytest.mark.parametrize("radius", [0.26, 0.5, 1.9])
    def test_is_the_sum_it_says(self, grid, radius):
        """Also with a radius longer than the cell."""
        F, x = ConvolutionFilter(grid, radius), rough(grid)
        W = cone(grid, radius)
        expected = (W @ whole(grid, x).reshape(-1)) / W.sum(axis=1)
        assert whole(grid, F.forward(x)).reshape(-1) == pytest.approx(expected, abs=1e-13)
        back = W.T @ (whole(grid, x).reshape(-1) / W.sum(axis=1))
        assert whole(grid, F.vjp(x)).reshape(-1) == pytest.approx(back, abs=1e-13)

    def test_transpose(self, grid):
        F = ConvolutionFilter(grid, 0.5)
        x, y = rough(grid), rough(grid, 1.7) ** 3
        forward, back = (grid.sum(float(v)) for v in (y @ F.forward(x), F.vjp(y) @ x))
        assert forward == pytest.approx(back, rel=1e-12)
        if not all(grid.periodic):
            assert forward != pytest.approx(grid.sum(float(F.forward(y) @ x)), rel=1e-6)

    def test_keeps_constants(self, grid):
        F = ConvolutionFilter(grid, 0.5)
        assert F.forward(np.full(F.volumes.size, 0.37)) == pytest.approx(0.37, abs=1e-14)
        if all(grid.periodic):
            assert grid.sum(F.forward(rough(grid)).sum()) == pytest.approx(grid.sum(rough(grid).sum()))
        assert grid.sum(F.volumes.sum()) == pytest.approx(grid.volume)

    def test_beside_ndimage(self, comm):
        """On a periodic grid it is a convolution with wrapped ends."""
        grid = VoxelGrid(comm, (12, 10), 1.0, periodic=True)
        x = rough(grid)
        i, j = np.mgrid[-3:4, -3:4]
        weights = np.maximum(0, 3.5 - np.hypot(i, j))
        expected = ndimage.convolve(whole(grid, x), weights / weights.sum(), mode="wrap")
        assert whole(grid, ConvolutionFilter(grid, 3.5).forward(x)) == pytest.approx(expected, abs=1e-13)

    @pytest.mark.parametrize("radius", [0.0, 0.1])
    def test_nothing_to_average(self, grid, radius):
        F, x = ConvolutionFilter(grid, radius), rough(grid)
        for y in (F.forward(x), F.vjp(x)):
            assert np.array_equal(y, x)
            assert y is not x
        assert F.solvers == []

    def test_beside_the_helmholtz_filter(self, comm):
        """Both with the same R: as much spread, an edge of the same width (within a third)."""
        grid = VoxelGrid(comm, (64, 4), 1 / 64, periodic=True)
        step = (np.abs(cell_positions(grid)[:, 0] - 0.5) < 0.25).astype(float)
        slopes = []
        for F in (ConvolutionFilter(grid, 0.2), VoxelFilter(grid, 0.2)):
            y = whole(grid, F.forward(step))[:, 0]
            assert y[15:17].mean() == pytest.approx(0.5, abs=0.02)
            slopes.append(np.abs(np.diff(y)).max())
        assert 0.5 < slopes[0] / slopes[1] < 1.5

    @pytest.mark.parametrize("radius", [-1.0, np.nan])
    def test_refused(self, grid, radius):
        with pytest.raises(ValueError, match=f"non-negative and finite, found {radius}"):
            ConvolutionFilter(grid, radius)


def half_line(x, b, length=LENGTH):
    """Solution of the filter's equation for x = 1 on a long interval, near the end at 0."""
    return 1 - b / (b + length) * np.exp(-x / length)


class TestRobin:
    @pytest.mark.parametrize("b", [None, 0.3 * LENGTH, 4 * LENGTH])
    def test_solves_the_equation(self, comm, b):
        """x = 1 on a strip: an exponential layer at the ends, with the default ½ there; second order."""
        errors = {"mesh": [], "voxels": []}
        for n in (160, 320):
            cell = regular_cell(comm, (n, 2), (3.0, 0.2))
            where = lambda x: np.isclose(x[0], 0) | np.isclose(x[0], 3)
            F = HelmholtzFilter(cell.mesh, R, boundary="robin", boundary_length=b, boundary_where=where)
            mesh = to_image(cell, F.forward(np.ones(F.volumes.size)))[:, 0]
            grid = VoxelGrid(comm, (n, 4), (3 / n, 0.05), (False, True))
            G = VoxelFilter(grid, R, boundary="robin", boundary_length=b)
            voxels = whole(grid, G.forward(np.ones(G.volumes.size)))[:, 0]
            x = (np.arange(n) + 0.5) * 3 / n
            exact = half_line(np.minimum(x, 3 - x), b or LENGTH)
            for name, values in (("mesh", mesh), ("voxels", voxels)):
                errors[name].append(np.abs(values - exact).max())
        for found in errors.values():
            assert found[0] < 3e-3
            assert np.log2(found[0] / found[1]) > 1.7

    def test_is_void_without_end(self, comm):
        """With the default length the walls are where a longer strip with void beyond has them."""
        h = 0.02
        inner, outer = (VoxelGrid(comm, (n, 4), h, (False, True)) for n in (50, 250))
        inside = (np.abs(cell_positions(outer)[:, 0] - 0.5) < 0.1).astype(float)
        long = whole(outer, VoxelFilter(outer, R).forward(inside))[100:150]
        F = VoxelFilter(inner, R, boundary="robin")
        short = whole(inner, F.forward(np.ones(F.volumes.size)))
        assert np.abs(short - long).max() < 2e-3
        assert short.min() < 0.6

    def test_transpose_on_a_mesh(self, comm):
        pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
        from fetopo.microstructure.geometry import inclusion_cell

        cell = inclusion_cell(comm, [(0.4, 0.5)], 0.3, mesh_size=0.15, interface_size=0.03)
        F = HelmholtzFilter(cell.mesh, R, boundary="robin")
        x, y = (np.sin((1 + k + cell_positions(cell) @ np.array([37.0, 91.0])) ** 2) for k in (0, 1))
        forward, back, wrong = (
            comm.allreduce(float(v)) for v in (y @ F.forward(x), F.vjp(y) @ x, F.forward(y) @ x)
        )
        assert forward == pytest.approx(back, rel=1e-10)
        assert forward != pytest.approx(wrong, rel=1e-4)

    def test_transpose_on_voxels(self, grid):
        if all(grid.periodic):
            return
        F = VoxelFilter(grid, R, boundary="robin")
        x, y = rough(grid), rough(grid, 1.7) ** 3
        forward, back = (grid.sum(float(v)) for v in (y @ F.forward(x), F.vjp(y) @ x))
        assert forward == pytest.approx(back, rel=1e-7)

    def test_where(self, comm):
        """Facets that are left out carry no flux."""
        cell = regular_cell(comm, (30, 3), (3.0, 0.3))
        F = HelmholtzFilter(cell.mesh, R, boundary="robin", boundary_where=lambda x: np.isclose(x[0], 0))
        values = to_image(cell, F.forward(np.ones(F.volumes.size)))
        assert values[0] == pytest.approx(0.6, abs=0.07)
        assert values[-1] == pytest.approx(1.0, abs=1e-4)

    def test_radius_0(self, comm):
        grid = VoxelGrid(comm, (4, 4))
        for F in (
            VoxelFilter(grid, 0.0, boundary="robin"),
            HelmholtzFilter(regular_cell(comm, (4, 4)).mesh, 0.0, boundary="robin"),
        ):
            x = np.ones(F.volumes.size)
            assert np.array_equal(F.forward(x), x)

    def test_refused(self, comm):
        cell, grid = regular_cell(comm, (3, 3)), VoxelGrid(comm, (4, 4))
        with pytest.raises(ValueError, match="found 'dirichlet'"):
            HelmholtzFilter(cell.mesh, R, boundary="dirichlet")
        with pytest.raises(ValueError, match="periodic cell has no boundary"):
            HelmholtzFilter(cell.mesh, R, cell=cell, boundary="robin")
        with pytest.raises(ValueError, match="periodic cell has no boundary"):
            VoxelFilter(VoxelGrid(comm, (4, 4), periodic=True), R, boundary="robin")
        with pytest.raises(ValueError, match=r"positive and finite, found -1\.0"):
            VoxelFilter(grid, R, boundary="robin", boundary_length=-1.0)
        with pytest.raises(ValueError, match=r"only a Robin boundary has a length, found 0\.1"):
            VoxelFilter(grid, R, boundary_length=0.1)
        with pytest.raises(ValueError, match=r"must not be negative, found -0\.1"):
            ScreenedPoisson(grid, 1.0, wall_length=-0.1)


class TestClosedGrid:
    def test_walls_are_mirrors(self, comm):
        """No flux: the same as a periodic grid that holds the mirror image too."""
        closed = VoxelGrid(comm, (8, 9), (0.2, 0.15))
        double = VoxelGrid(comm, (16, 18), (0.2, 0.15), periodic=True)
        image = whole(closed, rough(closed))
        mirrored = np.concatenate([image, image[::-1]])
        mirrored = np.concatenate([mirrored, mirrored[:, ::-1]], axis=1)
        expected = whole(double, VoxelFilter(double, R).forward(double.take(mirrored).reshape(-1)))[:8, :9]
        assert whole(closed, VoxelFilter(closed, R).forward(rough(closed))) == pytest.approx(
            expected, abs=1e-8
        )

    def test_keeps_volume(self, grid):
        F = VoxelFilter(grid, R)
        assert grid.sum(F.forward(rough(grid)).sum()) == pytest.approx(grid.sum(rough(grid).sum()), rel=1e-8)


def test_same_on_one_rank(comm, alone):
    for name in GRIDS:
        for make in (
            lambda g: ConvolutionFilter(g, 0.5),
            lambda g: VoxelFilter(g, R, boundary="neumann" if all(g.periodic) else "robin"),
        ):
            here, there = (VoxelGrid(c, *GRIDS[name]) for c in (comm, alone))
            found = [whole(g, make(g).forward(rough(g))) for g in (here, there)]
            assert np.abs(found[0] - found[1]).max() < 1e-8
