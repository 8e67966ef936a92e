"""Each step of the density map alone: what it maps, and that its vjp is the transpose of its derivative."""

import numpy as np
import pytest
from dolfinx import fem

from fetopo._compat import interpolation_points
from fetopo.design.density import DensityMap, HeavisideProjection, HelmholtzFilter, Interpolation
from fetopo.design.initial import cell_positions
from fetopo.design.verification import taylor_test
from fetopo.microstructure.mesh import regular_cell, to_image, voxel_of_cells
from fetopo.transport.materials import ramp, simp
from fetopo.transport.state import owned

pytestmark = pytest.mark.mpi


def graded(comm):
    pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
    from fetopo.microstructure.geometry import inclusion_cell

    return inclusion_cell(comm, [(0.4, 0.5)], 0.3, mesh_size=0.15, interface_size=0.03)


CELLS = {
    "quadrilateral": lambda comm: regular_cell(comm, (9, 7)),
    "triangle": lambda comm: regular_cell(comm, (9, 7), cell_type="triangle"),
    "hexahedron": lambda comm: regular_cell(comm, (5, 4, 3)),
    "tetrahedron": lambda comm: regular_cell(comm, (3, 4, 3), cell_type="tetrahedron"),
    "graded": graded,
}


@pytest.fixture(params=CELLS)
def cell(request, comm):
    return CELLS[request.param](comm)


@pytest.fixture(params=[True, False], ids=["periodic", "open"])
def periodic(request):
    return request.param


def random(comm, size, seed):
    return np.random.default_rng([seed, comm.rank]).uniform(-1, 1, size)


def dot(comm, x, y):
    return comm.allreduce(float(x @ y))


class TestFilter:
    def make(self, cell, periodic, radius=0.3):
        return HelmholtzFilter(cell.mesh, radius, cell=cell if periodic else None)

    def test_vjp_is_the_transpose(self, comm, cell, periodic):
        F = self.make(cell, periodic)
        x, y = (random(comm, F.volumes.size, seed) for seed in (0, 1))
        size = (dot(comm, x, x) * dot(comm, y, y)) ** 0.5
        assert abs(dot(comm, y, F.forward(x)) - dot(comm, F.vjp(y), x)) < 1e-12 * size

    def test_forward_is_no_substitute_for_vjp(self, comm):
        """On a graded mesh the operator is not symmetric; the check above tells them apart."""
        F = self.make(graded(comm), True)
        x, y = (random(comm, F.volumes.size, seed) for seed in (0, 1))
        size = (dot(comm, x, x) * dot(comm, y, y)) ** 0.5
        assert abs(dot(comm, y, F.forward(x)) - dot(comm, F.forward(y), x)) > 1e-6 * size

    def test_constant_stays(self, cell, periodic):
        F = self.make(cell, periodic)
        assert np.abs(F.forward(np.full(F.volumes.size, 0.37)) - 0.37).max(initial=0) < 1e-11

    def test_volume_is_preserved(self, comm, cell, periodic):
        F = self.make(cell, periodic)
        x = random(comm, F.volumes.size, 2)
        assert dot(comm, F.volumes, F.forward(x)) == pytest.approx(dot(comm, F.volumes, x), abs=1e-12)

    def test_volumes(self, comm, cell):
        for radius in (0, 0.1):
            F = HelmholtzFilter(cell.mesh, radius, cell=cell)
            assert comm.allreduce(F.volumes.sum()) == pytest.approx(cell.volume, rel=1e-12)
            assert (F.volumes > 0).all()

    def test_radius_0_is_the_identity(self, comm, cell, periodic):
        F = self.make(cell, periodic, 0)
        x = random(comm, F.volumes.size, 3)
        assert np.array_equal(F.forward(x), x)
        assert np.array_equal(F.vjp(x), x)
        assert F.solvers == []

    def test_smooths(self, comm, cell):
        """A larger radius leaves less variation."""
        norms = []
        for radius in (0.1, 0.3, 1.0):
            F = self.make(cell, True, radius)
            y = F.forward(random(comm, F.volumes.size, 4))
            norms.append(dot(comm, F.volumes, y**2) - dot(comm, F.volumes, y) ** 2 / cell.volume)
        assert norms[0] > norms[1] > norms[2] > 0

    @pytest.mark.parametrize("kind", ["quadrilateral", "triangle"])
    def test_waves_are_damped_as_the_equation_says(self, comm, kind):
        """cos 2πx becomes cos 2πx/(1 + 4π²r²) on a periodic cell, with an error of second order."""
        radius, errors = 0.4, []
        r2 = (radius / (2 * 3**0.5)) ** 2
        for n in (16, 32, 64):
            cell = regular_cell(comm, (n, n), cell_type=kind)
            F = HelmholtzFilter(cell.mesh, radius, cell=cell)
            wave = np.cos(2 * np.pi * cell_positions(cell)[:, 0])
            error = F.forward(wave) - wave / (1 + 4 * np.pi**2 * r2)
            errors.append(dot(comm, F.volumes, error**2) ** 0.5)
        assert np.log2(errors[0] / errors[1]) > 1.8
        assert np.log2(errors[1] / errors[2]) > 1.8

    def test_does_not_depend_on_the_mesh(self, comm):
        """The same step on a coarse and a fine mesh becomes the same smooth field."""
        fields = []
        for n in (32, 64):
            cell = regular_cell(comm, (n, n))
            F = HelmholtzFilter(cell.mesh, 0.3, cell=cell)
            step = (np.abs(cell_positions(cell) - 0.5).max(axis=1) < 0.25).astype(float)
            fields.append(to_image(cell, F.forward(step)))
        coarse, fine = fields
        averaged = fine.reshape(32, 2, 32, 2).mean(axis=(1, 3))
        assert np.abs(coarse - averaged).max() < 5e-3
        assert coarse.max() - coarse.min() > 0.5

    @pytest.mark.parametrize("shape", [(8, 6), (5, 4, 3)])
    def test_periodic_filter_knows_no_boundary(self, comm, shape):
        """Shifting the input shifts the output."""
        cell = regular_cell(comm, shape)
        F = HelmholtzFilter(cell.mesh, 0.5, cell=cell)
        image = np.random.default_rng(0).random(shape)
        index = voxel_of_cells(cell)[: F.volumes.size]
        shift = (3, 2, 1)[: len(shape)]
        axes = tuple(range(len(shape)))
        plain = to_image(cell, F.forward(image[tuple(index.T)]))
        moved = to_image(cell, F.forward(np.roll(image, shift, axes)[tuple(index.T)]))
        assert np.abs(np.roll(plain, shift, axes) - moved).max() < 1e-11

    def test_open_filter_does(self, comm):
        cell = regular_cell(comm, (8, 6))
        x = (voxel_of_cells(cell)[:, 0] == 0).astype(float)
        fields = []
        for c in (cell, None):
            F = HelmholtzFilter(cell.mesh, 0.5, cell=c)
            fields.append(to_image(cell, F.forward(x[: F.volumes.size])))
        assert fields[0][7, 0] == pytest.approx(fields[0][1, 0], abs=1e-11)
        assert fields[1][7, 0] < 0.1 * fields[1][1, 0]

    @pytest.mark.parametrize("radius", [-1.0, np.nan, np.inf])
    def test_refused(self, comm, radius):
        with pytest.raises(ValueError, match=f"found {radius}"):
            HelmholtzFilter(regular_cell(comm, (3, 3)).mesh, radius)


class TestProjection:
    @pytest.mark.parametrize("beta", [0.1, 1.0, 8.0, 64.0])
    @pytest.mark.parametrize("eta", [0.3, 0.5, 0.7])
    def test_shape(self, beta, eta):
        P = HeavisideProjection(beta, eta)
        x = np.linspace(0, 1, 101)
        y = P.forward(x)
        assert y[0] == pytest.approx(0, abs=1e-15)
        assert y[-1] == pytest.approx(1)
        assert (np.diff(y) >= 0).all()

    def test_limits(self):
        x = np.linspace(0, 1, 11)
        assert np.allclose(HeavisideProjection(1e-4).forward(x), x, atol=1e-6)
        assert np.allclose(HeavisideProjection(1e3).forward(x), (x > 0.5) + 0.5 * (x == 0.5))

    @pytest.mark.parametrize("beta", [1.0, 8.0, 64.0])
    @pytest.mark.parametrize("eta", [0.3, 0.5])
    def test_vjp(self, beta, eta):
        """Against a difference quotient of fourth order."""
        P = HeavisideProjection(beta, eta)
        x, h = np.linspace(0.02, 0.98, 49), 1e-4
        y = [P.forward(x + s * h) for s in (-2, -1, 1, 2)]
        slope = (y[0] - 8 * y[1] + 8 * y[2] - y[3]) / (12 * h)
        P.forward(x)
        assert P.vjp(np.full(49, 3.0)) == pytest.approx(3 * slope, rel=1e-6, abs=1e-6)

    def test_taylor(self, comm):
        P = HeavisideProjection(8.0)
        # Above the threshold, where the projection is concave: second order terms do not cancel.
        m, weights = 0.7 + 0.2 * random(comm, 50, 0), 1.5 + random(comm, 50, 1)
        J = lambda m: comm.allreduce(float(weights @ P.forward(m)))
        J(m)
        assert taylor_test(J, m, P.vjp(weights), comm=comm).rate > 1.9

    def test_follows_beta(self):
        P = HeavisideProjection(1.0)
        before = P.forward(np.array([0.7]))
        P.beta = 16.0
        assert P.forward(np.array([0.7])) > before

    @pytest.mark.parametrize(
        ("beta", "eta"), [(0, 0.5), (-1, 0.5), (np.inf, 0.5), (1, 0), (1, 1), (np.nan, 0.5)]
    )
    def test_refused(self, beta, eta):
        with pytest.raises(ValueError, match=f"found β = {beta} and η = {eta}"):
            HeavisideProjection(beta, eta)


@pytest.mark.parametrize("law", [simp, ramp])
class TestInterpolation:
    def test_forward_is_the_ufl_form(self, comm, law):
        cell = regular_cell(comm, (5, 4))
        density = DensityMap(cell.mesh)
        density.forward(0.5 + 0.5 * random(comm, owned(density.rho).size, 0))
        kappa = Interpolation(cell.mesh, 0.01, 2.0, 3.0, law)
        Q = density.rho.function_space
        f = fem.Function(Q)
        expression = fem.Expression(kappa.ufl(density.rho), interpolation_points(Q))
        for penalty in (3.0, 1.0, 4.5):
            kappa.penalty = penalty
            assert kappa.penalty == penalty
            f.interpolate(expression)
            assert kappa.forward(owned(density.rho)) == pytest.approx(owned(f), rel=1e-13)

    @pytest.mark.parametrize("penalty", [1.0, 3.0])
    def test_vjp(self, comm, law, penalty):
        kappa = Interpolation(regular_cell(comm, (3, 3)).mesh, 0.01, 2.0, penalty, law)
        rho = np.linspace(0.01, 1, 30)
        kappa.forward(rho)
        if law is simp:
            slope = 1.99 * penalty * rho ** (penalty - 1)
        else:
            slope = 1.99 * (1 + penalty) / (1 + penalty * (1 - rho)) ** 2
        assert kappa.vjp(np.full(30, 2.0)) == pytest.approx(2 * slope, rel=1e-13)

    def test_vjp_of_a_law_of_ones_own(self, comm, law):
        """By a complex step what is known for the laws that come with the package."""
        mesh, rho = regular_cell(comm, (3, 3)).mesh, np.linspace(0.01, 1, 30)
        own, known = (Interpolation(mesh, 0.01, 2.0, 2.5, f) for f in (lambda *a: law(*a), law))
        for kappa in (own, known):
            kappa.forward(rho)
        assert own.vjp(np.full(30, 2.0)) == pytest.approx(known.vjp(np.full(30, 2.0)), rel=1e-13)

    @pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 1), (-1, 1), (1, np.inf), (np.nan, 1)])
    def test_refused(self, comm, law, low, high):
        with pytest.raises(ValueError, match=f"found {low} and {high}"):
            Interpolation(regular_cell(comm, (3, 3)).mesh, low, high, law=law)

    def test_falling(self, comm, law):
        """Where ρ = 0 conducts, the law is that of 1 − ρ: the penalty stays on the conductor."""
        cell = regular_cell(comm, (3, 3))
        rising, falling = (Interpolation(cell.mesh, *c, 2.5, law) for c in ((0.01, 2.0), (2.0, 0.01)))
        rho, dual = np.linspace(0.01, 0.99, 30), np.linspace(1, 2, 30)
        assert falling.forward(rho) == pytest.approx(rising.forward(1 - rho), rel=1e-14)
        assert falling.vjp(dual) == pytest.approx(-rising.vjp(dual), rel=1e-14)
        assert np.ptp(dual) > 0
        density = DensityMap(cell.mesh)
        density.forward(np.full(owned(density.rho).size, 0.3))
        f = fem.Function(density.rho.function_space)
        f.interpolate(fem.Expression(falling.ufl(density.rho), interpolation_points(f.function_space)))
        assert owned(f) == pytest.approx(rising.forward(np.full(owned(f).size, 0.7)), rel=1e-13)


class TestMap:
    def test_taylor_through_all_steps(self, comm, cell):
        F, P = HelmholtzFilter(cell.mesh, 0.3, cell=cell), HeavisideProjection(6.0)
        density = DensityMap(cell.mesh, F, P)
        m = 0.7 + 0.2 * random(comm, F.volumes.size, 0)
        weights = 1.5 + random(comm, m.size, 1)
        J = lambda m: comm.allreduce(float(weights @ density.forward(m)))
        J(m)
        assert taylor_test(J, m, density.vjp(weights), comm=comm).rate > 1.9

    def test_sets_the_density_with_ghosts(self, comm):
        cell = regular_cell(comm, (6, 6))
        density = DensityMap(cell.mesh)
        index = voxel_of_cells(cell)
        n = owned(density.rho).size
        density.forward(index[:n, 0] + 0.1 * index[:n, 1])
        dofs = density.rho.function_space.dofmap.list.reshape(-1)
        assert density.rho.x.array[dofs] == pytest.approx(index[:, 0] + 0.1 * index[:, 1])

    def test_without_steps(self, comm):
        density = DensityMap(regular_cell(comm, (4, 4)).mesh)
        x = random(comm, owned(density.rho).size, 0)
        assert np.array_equal(density.forward(x), x)
        assert np.array_equal(density.vjp(x), x)
