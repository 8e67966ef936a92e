"""Regularization: known values, Taylor tests on any number of ranks, and what it does to a design."""

import numpy as np
import pytest

from fetopo.design.adjoint import ReducedFunctional
from fetopo.design.cell import Goal, design_cell
from fetopo.design.initial import cell_positions, random_field
from fetopo.design.interface import InterfaceArea
from fetopo.design.model import CellModel
from fetopo.design.problem import LoopOptions, Stage
from fetopo.design.regularization import Regularization, Roughness, regularized, scaled
from fetopo.design.verification import taylor_test
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.voxel import VoxelGrid

pytestmark = pytest.mark.mpi

CELLS = {
    "quadrilateral": lambda comm: regular_cell(comm, (8, 6)),
    "triangle": lambda comm: regular_cell(comm, (8, 8), (1.0, 1.5), "triangle"),
    "voxels": lambda comm: VoxelGrid(comm, (8, 6), (0.2, 0.15), periodic=True),
    "voxels 3D": lambda comm: VoxelGrid(comm, (6, 4, 5), (0.2, 0.25, 0.15), periodic=True),
}
TERMS = {
    "density": Regularization("tikhonov", 2.0, 0.3),
    "field": Regularization("tikhonov", 2.0, 0.3, "field"),
    "smoothness": Regularization("smoothness", 2.0),
    "total-variation": Regularization("total-variation", 2.0),
}


def start(cell):
    return 0.5 + 0.3 * np.tanh(random_field(cell, seed=3))


def plain(cell):
    """A model whose density is its design variable."""
    model = CellModel(cell, 0.0)
    model.density.steps = [model.filter]
    return model


@pytest.fixture(params=CELLS)
def cell(request, comm):
    return CELLS[request.param](comm)


@pytest.mark.parametrize("name", TERMS)
def test_taylor(cell, name):
    """Added to another functional, with its weight, through the filter and the projection."""
    model = CellModel(cell, 0.3)
    model.projection.beta = 4.0
    functional = regularized(model.mean_density(), [TERMS[name]], model)
    reduced = ReducedFunctional(functional, model.density)
    dm = 0.25 + 0.75 * np.sin(cell_positions(cell) @ np.array([37.0, 91.0, 53.0])[: cell.dim])
    m = start(cell)
    value = reduced(m)
    assert value > model.mean_density().value()
    assert taylor_test(reduced, m, reduced.derivative(), dm, comm=reduced.comm, step=1e-3).rate > 1.9


class TestValues:
    def test_distance_to_a_structure(self, comm):
        """Half the share in which two crisp densities differ; the prior is an array over the whole grid."""
        grid = VoxelGrid(comm, (6, 4), 0.5, periodic=True)
        prior = np.zeros((6, 4))
        prior[:3] = 1
        model = plain(grid)
        model.density.forward(np.asarray(grid.take(np.roll(prior, 1, 0))).reshape(-1))
        for on in ("density", "field"):
            found = Regularization("tikhonov", 5.0, prior, on).build(model).value()
            assert found == pytest.approx(0.5 * 8 / 24)
        mesh = regular_cell(comm, (6, 4))
        model = plain(mesh)
        model.density.forward((cell_positions(mesh)[:, 0] < 0.5).astype(float))
        assert Regularization("tikhonov", 1.0, prior).build(model).value() == pytest.approx(0.0)

    @pytest.mark.parametrize("kind", ["mesh", "voxel"])
    def test_roughness_of_a_wave(self, comm, kind):
        """½ L² times the mean of (2πa/ℓ)² cos²: box of 2 × 1, wave along x."""
        n, a, length = 64, 0.3, 0.5
        grid = VoxelGrid(comm, (n, n // 2), 2 / n, periodic=True)
        cell = grid if kind == "voxel" else regular_cell(comm, (n, n // 2), (2.0, 1.0))
        model = plain(cell)
        model.density.forward(0.5 + a * np.sin(2 * np.pi * cell_positions(cell)[:, 0]))
        found = Regularization("smoothness", length=length).build(model).value()
        assert found == pytest.approx(0.25 * (length * np.pi * a) ** 2, rel=0.01)

    def test_total_variation_is_the_interface_without_a_unit(self, comm):
        """Layers: two interfaces of length 1 m in a cell of 2 m × 1 m, times its edge √2 m."""
        cell = VoxelGrid(comm, (32, 16), 1 / 16, periodic=True)
        model = plain(cell)
        model.density.forward((cell_positions(cell)[:, 0] < 0.5).astype(float))
        found = Regularization("total-variation").build(model).value()
        area = InterfaceArea(model.density, cell, model.volumes).value()
        assert found == pytest.approx(2**0.5 * area)
        assert found == pytest.approx(2**0.5, rel=0.02)

    def test_weights(self, comm):
        model = CellModel(CELLS["voxels"](comm), 0.3)
        model.density.forward(start(model.cell))
        alone = model.mean_density()
        term = TERMS["density"]
        together = regularized(alone, scaled([term], 3.0), model)
        assert together.value() == pytest.approx(alone.value() + 6 * term.build(model).value())
        assert regularized(alone, scaled([term], 0.0), model) is alone


@pytest.mark.slow
def test_a_design_keeps_to_its_prior(comm):
    """Layers are far from an isotropic target; where the prior weighs more, they stay."""
    n = 16
    grid = VoxelGrid(comm, (n, n), 1 / n, periodic=True)
    prior = 0.5 + 0.4 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)[:, None] * np.ones(n)
    options = LoopOptions(
        stages=tuple(Stage(3.0, b) for b in (1.0, 4.0, 16.0, 64.0)), stage_iterations=10, final_iterations=15
    )
    design = design_cell(
        grid, conductivity=(0.1, 1.0), volume_fraction=0.5, filter_radius=0.15, refine=1, options=options,
        goal=Goal("target", target=((0.33, 0.0), (0.0, 0.33))),
        regularization=[Regularization("tikhonov", 100.0, prior, "field")],
    )  # fmt: skip
    assert np.mean(design.labels != (prior > 0.5)) < 0.1
    assert design.verified > 0.3
    # The objective is the regularized one, and no correction drove the design to the target.
    assert design.result.objective > design.reached**2


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("ridge",), "one of tikhonov, smoothness, total-variation, found 'ridge'"),
            (("tikhonov",), "'tikhonov' needs a prior"),
            (("smoothness", 1.0, 0.5), "'smoothness' has no prior"),
            (("smoothness", -1.0), "finite and not negative, found -1"),
        ],
    )
    def test_specification(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Regularization(*arguments)

    def test_length(self):
        with pytest.raises(ValueError, match="length of a regularization must be positive, found 0"):
            Regularization("smoothness", length=0.0)

    def test_on_a_model(self, comm):
        model = CellModel(CELLS["voxels"](comm), 0.3)
        with pytest.raises(ValueError, match=r"a prior has shape \(3,\)"):
            Regularization("tikhonov", 1.0, np.zeros(3)).build(model)
        with pytest.raises(ValueError, match="a prior must lie between 0 and 1"):
            Regularization("tikhonov", 1.0, 2.0).build(model)
        with pytest.raises(ValueError, match="added to one objective, found 2"):
            regularized([model.mean_density()] * 2, [TERMS["density"]], model)
        with pytest.raises(ValueError, match="the filter is no step of the density"):
            Roughness(model.density, None, model.cell, 1.0, 1.0)
        with pytest.raises(TypeError, match="use design_derivative"):
            TERMS["smoothness"].build(model).derivative()
