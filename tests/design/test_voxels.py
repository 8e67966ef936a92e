"""Filter, tensor functionals and mean density on grids of voxels: Taylor tests, known solutions, ranks."""

import itertools

import numpy as np
import pytest

from fetopo.design import functionals
from fetopo.design.adjoint import MeanDensity, ReducedFunctional
from fetopo.design.density import DensityMap, HeavisideProjection, HelmholtzFilter, Interpolation
from fetopo.design.initial import cell_positions, from_field, random_field, start_field
from fetopo.design.model import CellModel
from fetopo.design.problem import Constraint, DesignProblem, LoopOptions, Stage
from fetopo.design.verification import taylor_test
from fetopo.design.voxels import VoxelFilter, VoxelState, VoxelTensorFunctional
from fetopo.microstructure.mesh import regular_cell, to_image
from fetopo.transport.materials import ramp, simp
from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid

pytestmark = pytest.mark.mpi

#: Not of volume 1 and with voxels that are no cubes, so that no factor hides.
GRIDS = {"2D": ((8, 6), (0.2, 0.15)), "3D": ((6, 4, 5), (0.2, 0.25, 0.15))}


@pytest.fixture(params=GRIDS)
def grid(request, comm):
    shape, size = GRIDS[request.param]
    return VoxelGrid(comm, shape, size, periodic=True)


def start(grid):
    """A design that varies, away from 0 and 1."""
    return 0.5 + 0.3 * np.tanh(random_field(grid, seed=3))


def direction(grid):
    """Rough, the same on any number of ranks, and more up than down: second order terms do not cancel."""
    return 0.25 + 0.75 * np.sin(cell_positions(grid) @ np.array([37.0, 91.0, 53.0])[: grid.dim])


def rate(reduced, grid):
    m = start(grid)
    reduced(m)
    return taylor_test(reduced, m, reduced.derivative(), direction(grid), comm=reduced.comm, step=2e-3).rate


def steps(grid, radius, beta):
    return [VoxelFilter(grid, radius), *([] if beta is None else [HeavisideProjection(beta)])]


def chain(grid, function, *, radius=0.4, beta=4.0, law=simp, scheme="finite volumes"):
    """The whole way from the design variable to the value."""
    density = DensityMap(grid, *steps(grid, radius, beta))
    kappa = Interpolation(grid, 0.01, 1.0, 3.0, law)
    state = VoxelState(VoxelCellProblem(grid, scheme=scheme, rtol=1e-11), density, kappa)
    return ReducedFunctional(VoxelTensorFunctional(state, function), density)


def tensor_functions(d):
    target = np.diag(np.linspace(0.2, 0.4, d))
    target[0, 1] = target[1, 0] = 0.05
    return {
        "mean_resistivity": functionals.mean_resistivity,
        "resistivity_along": functionals.resistivity_along((1.0, 2.0, -0.5)[:d]),
        "distance_to": functionals.distance_to(target),
        "off_diagonal": lambda D: D[0, 1],
    }


class TestTaylor:
    @pytest.mark.parametrize("scheme", ["finite volumes", "elements"])
    @pytest.mark.parametrize("name", list(tensor_functions(2)))
    def test_functions_of_the_tensor(self, grid, name, scheme):
        assert rate(chain(grid, tensor_functions(grid.dim)[name], scheme=scheme), grid) > 1.9

    @pytest.mark.parametrize("law", [simp, ramp])
    @pytest.mark.parametrize(("radius", "beta"), list(itertools.product((0.0, 0.4), (None, 4.0))))
    def test_every_way_to_the_density(self, grid, law, radius, beta):
        reduced = chain(grid, functionals.mean_resistivity, radius=radius, beta=beta, law=law)
        assert rate(reduced, grid) > 1.9

    def test_a_wrong_derivative_is_seen(self, grid):
        reduced = chain(grid, functionals.mean_resistivity)
        reduced.density.vjp = lambda dual: dual
        assert rate(reduced, grid) < 1.5

    def test_mean_density(self, grid):
        filter_ = VoxelFilter(grid, 0.3)
        density = DensityMap(grid, filter_, HeavisideProjection(4.0))
        assert rate(ReducedFunctional(MeanDensity(density, filter_.volumes), density), grid) > 1.9


class TestMeanDensity:
    def test_on_voxels(self, grid):
        filter_ = VoxelFilter(grid, 0.0)
        density = DensityMap(grid)
        density.forward(start(grid))
        mean = MeanDensity(density, filter_.volumes)
        image = grid.gather(density.values.reshape(grid.own_shape))
        assert mean.value() == pytest.approx(image.mean(), rel=1e-13)
        assert grid.sum(mean.derivative().sum()) == pytest.approx(1.0)
        assert MeanDensity(density, filter_.volumes, 2 * grid.volume).value() == pytest.approx(
            image.mean() / 2
        )

    def test_on_a_mesh(self, comm):
        cell = regular_cell(comm, (6, 5), (3.0, 1.0), "triangle")
        filter_, density = HelmholtzFilter(cell.mesh, 0.0), DensityMap(cell.mesh)
        density.forward(start(cell))
        expected = comm.allreduce(float(filter_.volumes @ density.values)) / 3.0
        assert MeanDensity(density, filter_.volumes).value() == pytest.approx(expected, rel=1e-13)


class TestFilter:
    def test_keeps_constants_and_volume(self, grid):
        F = VoxelFilter(grid, 0.5)
        ones = np.ones(F.volumes.size)
        assert F.forward(ones) == pytest.approx(ones, rel=1e-10)
        x = direction(grid)
        before, after = (grid.sum(float(F.volumes @ v)) for v in (x, F.forward(x)))
        assert after == pytest.approx(before, rel=1e-10)
        assert grid.sum(F.volumes.sum()) == pytest.approx(grid.volume)

    def test_solves_the_equation(self, grid):
        """A wave is an eigenvector: (1 + r² Σ 4 sin²(πk/n)/h²) x̃ = x."""
        radius, n, h = 0.4, np.array(grid.shape), np.array(grid.voxel_size)
        for k in ((1, 0, 0), (0, 1, 2), (2, 1, 1)):
            wave = np.array(k[: grid.dim])
            x = np.cos(2 * np.pi * (cell_positions(grid) @ wave) + 0.3)
            factor = 1 + radius**2 / 12 * np.sum(4 * np.sin(np.pi * wave / n) ** 2 / h**2)
            assert VoxelFilter(grid, radius).forward(x) == pytest.approx(x / factor, abs=1e-7)

    def test_transpose(self, grid):
        F = VoxelFilter(grid, 0.4)
        x, y = direction(grid), start(grid) ** 3
        forward, back = (grid.sum(float(v)) for v in (y @ F.forward(x), F.vjp(y) @ x))
        assert forward == pytest.approx(back, rel=1e-9)

    def test_stays_between_0_and_1(self, grid):
        x = (direction(grid) > 0.3).astype(float)
        for radius in (0.05, 0.4, 3.0):
            filtered = VoxelFilter(grid, radius).forward(x)
            assert filtered.min(initial=0) >= -1e-9
            assert filtered.max(initial=0) <= 1 + 1e-9

    def test_no_radius(self, grid):
        F, x = VoxelFilter(grid, 0.0), start(grid)
        assert np.array_equal(F.forward(x), x)
        assert F.forward(x) is not x
        assert F.solvers == []

    def test_tends_to_the_filter_on_a_mesh(self, comm):
        """Of second order in the size of the voxels."""
        differences = []
        for n in (16, 32, 64):
            grid, cell = VoxelGrid(comm, (n, n), 1 / n, periodic=True), regular_cell(comm, (n, n))
            here, there = (random_field(c, seed=2) for c in (grid, cell))
            voxel = grid.gather(VoxelFilter(grid, 0.5).forward(here).reshape(grid.own_shape))
            mesh = to_image(cell, HelmholtzFilter(cell.mesh, 0.5, cell=cell).forward(there))
            differences.append(np.abs(voxel - mesh).max())
        assert differences[0] < 0.02 * (here.max() - here.min())
        assert np.log2(differences[0] / differences[1]) > 1.8
        assert np.log2(differences[1] / differences[2]) > 1.8

    def test_unit_of_length(self, comm):
        results = [
            VoxelFilter(VoxelGrid(comm, (8, 8), scale / 8, periodic=True), 0.3 * scale).forward(
                start(VoxelGrid(comm, (8, 8), scale / 8, periodic=True))
            )
            for scale in (1.0, 3e-6)
        ]
        assert results[0] == pytest.approx(results[1], rel=1e-9)

    @pytest.mark.parametrize("radius", [-1.0, np.nan, np.inf])
    def test_radius_refused(self, grid, radius):
        with pytest.raises(ValueError, match=f"non-negative and finite, found {radius}"):
            VoxelFilter(grid, radius)

    def test_walls_refused(self, comm):
        with pytest.raises(ValueError, match="periodic along every axis"):
            CellModel(VoxelGrid(comm, (4, 4), 1.0, periodic=(True, False)), 1.0)


class TestPieces:
    def test_starts_are_those_of_the_mesh(self, comm):
        for shape, name in itertools.product(((16, 12), (6, 5, 4)), ("inclusions", "random")):
            grid = VoxelGrid(comm, shape, 1 / max(shape), periodic=True)
            cell = regular_cell(comm, shape)
            here = from_field(start_field(grid, name), VoxelFilter(grid, 0.0).volumes, 0.4, comm)
            there = from_field(start_field(cell, name), HelmholtzFilter(cell.mesh, 0.0).volumes, 0.4, comm)
            image = grid.gather(here.reshape(grid.own_shape))
            assert np.abs(image - to_image(cell, there)).max() < 1e-9

    def test_no_ufl(self, grid):
        with pytest.raises(TypeError, match="no UFL"):
            Interpolation(grid, 0.01, 1.0).ufl(0.5)
        kappa = Interpolation(grid, 0.01, 1.0)
        kappa.penalty = 2.0
        assert kappa.forward(np.array([0.5])) == pytest.approx([0.01 + 0.99 * 0.25])
        assert DensityMap(grid).rho is None

    def test_functional_without_its_density_map(self, grid):
        functional = chain(grid, functionals.mean_resistivity).functional
        with pytest.raises(ValueError, match="needs its density map"):
            ReducedFunctional(functional)

    def test_same_on_one_rank(self, comm, alone):
        shape, size = GRIDS["3D"]
        results = []
        for c in (comm, alone):
            grid = VoxelGrid(c, shape, size, periodic=True)
            reduced = chain(grid, functionals.mean_resistivity)
            value = reduced(start(grid))
            results.append((value, grid.gather(reduced.derivative().reshape(grid.own_shape))))
        assert results[0][0] == pytest.approx(results[1][0], rel=1e-9)
        assert results[0][1] == pytest.approx(results[1][1], rel=1e-6, abs=1e-9)


class TestFields:
    def test_flux_of_a_symmetric_cell(self, comm):
        """Conductivity even about a voxel: so is the flux along the gradient, the one across it is odd."""
        grid = VoxelGrid(comm, (12, 8), (0.1, 0.2), periodic=True)
        density = DensityMap(grid)
        x = np.minimum(np.arange(12), 12 - np.arange(12))[:, None] * 0.1
        y = np.minimum(np.arange(8), 8 - np.arange(8))[None, :] * 0.2
        density.forward(grid.take(np.where(np.hypot(x, y) < 0.5, 0.9, 0.2)).reshape(-1))
        state = VoxelState(VoxelCellProblem(grid), density, Interpolation(grid, 0.01, 1.0))
        state.solve()
        for axis in range(2):
            flux = state.flux(axis)
            mirrored = np.roll(np.flip(flux, axis), 1, axis)
            assert mirrored[..., axis] == pytest.approx(flux[..., axis], abs=1e-6)
            assert mirrored[..., 1 - axis] == pytest.approx(-flux[..., 1 - axis], abs=1e-6)
            assert flux.mean(axis=(0, 1)) == pytest.approx(state.tensor[:, axis], abs=1e-6)
            # Where only one material is around, it is κ times the slope of the potential.
            potential = state.correctors()[axis]
            slope = (potential[1, 0] - potential[-1, 0]) / 0.2, (potential[0, 1] - potential[0, -1]) / 0.4
            kappa = 0.01 + 0.99 * 0.9**3
            assert flux[0, 0] == pytest.approx(kappa * (np.array(slope) + np.eye(2)[axis]), abs=1e-6)


class TestLoop:
    def test_a_problem_of_ones_own(self, comm):
        """One state serves objective and constraint: best along x with a least conductivity along y."""
        grid = VoxelGrid(comm, (16, 16), 1 / 16, periodic=True)
        filter_, projection = VoxelFilter(grid, 0.2), HeavisideProjection()
        density = DensityMap(grid, filter_, projection)
        kappa = Interpolation(grid, 0.01, 1.0)
        state = VoxelState(VoxelCellProblem(grid), density, kappa)
        solves = []
        solve = state.solve
        state.solve = lambda: solves.append(1) or solve()
        objective = VoxelTensorFunctional(state, functionals.resistivity_along((1.0, 0.0)))
        across = VoxelTensorFunctional(state, lambda D: D[1, 1])
        problem = DesignProblem(
            density,
            objective,
            [
                Constraint("volume", MeanDensity(density, filter_.volumes), 0.5),
                Constraint("across", across, 0.2, "at least"),
            ],
            volumes=filter_.volumes,
            projections=[projection],
            interpolations=[kappa],
            solvers=[state, *filter_.solvers],
            options=LoopOptions(
                stages=(Stage(3.0, 1.0), Stage(3.0, 8.0)), stage_iterations=20, final_iterations=60
            ),
        )
        m = from_field(start_field(grid, "inclusions"), filter_.volumes, 0.5, comm)
        result = problem.run(m)
        assert len(solves) == len(result.history) + 1
        assert max(result.constraints.values()) < 2e-3
        assert state.tensor[1, 1] > 0.199
        assert 1 / result.objective > 0.33
        assert all(record.solver_iterations > 0 for record in result.history)
        assert result.grey_level == pytest.approx(problem.grey_level())
        assert result.rho.shape == result.m.shape == filter_.volumes.shape
