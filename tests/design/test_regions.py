"""Passive regions: how they are named, that the design ends there, and a design with them."""

import numpy as np
import pytest

from fetopo.design.adjoint import MeanDensity, ReducedFunctional
from fetopo.design.density import DensityMap, HeavisideProjection, chain
from fetopo.design.filters import HelmholtzFilter, VoxelFilter
from fetopo.design.functionals import mean_resistivity
from fetopo.design.initial import cell_positions
from fetopo.design.model import CellModel
from fetopo.design.problem import Constraint, DesignProblem, LoopOptions, Stage
from fetopo.design.regions import PassiveRegions, mask_of, midpoints, passive_regions
from fetopo.design.symmetry import Symmetry
from fetopo.design.verification import taylor_test
from fetopo.microstructure.mesh import regular_cell, to_image, voxel_cell
from fetopo.transport.voxel import VoxelGrid

pytestmark = pytest.mark.mpi

SHAPE = (8, 6)
LEFT = lambda x: x[0] < 0.25
TOP = lambda x: x[1] > 0.6


def domains(comm):
    return regular_cell(comm, SHAPE), VoxelGrid(comm, SHAPE, 1 / 8, periodic=True)


def image_of(domain, values):
    values = np.asarray(values, dtype=float)
    if isinstance(domain, VoxelGrid):
        return domain.gather(values.reshape(domain.own_shape))
    return to_image(domain, values)


class TestMask:
    def test_positions_and_masks(self, comm):
        expected = np.zeros(SHAPE)
        expected[:2] = 1
        for domain in domains(comm):
            found = mask_of(domain, LEFT)
            assert np.array_equal(image_of(domain, found), expected)
            assert np.array_equal(mask_of(domain, found), found)
            assert np.array_equal(mask_of(domain, expected.astype(bool)), found)
            assert midpoints(domain).shape == (3, found.size)

    def test_bare_mesh(self, comm):
        cell = regular_cell(comm, SHAPE)
        assert np.array_equal(mask_of(cell.mesh, LEFT), mask_of(cell, LEFT))
        left = mask_of(cell.mesh, 1, cell.cell_tags)
        assert left.all()

    def test_tags(self, comm):
        labels = np.zeros((6, 4), dtype=int)
        labels[1:3], labels[3:, 2] = 1, 5
        cell = voxel_cell(comm, labels)
        assert np.array_equal(to_image(cell, mask_of(cell, 1).astype(float)), labels == 1)
        assert np.array_equal(to_image(cell, mask_of(cell, [1, 5]).astype(float)), labels > 0)

    def test_names(self, comm):
        pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
        from fetopo.microstructure.geometry import inclusion_cell

        cell = inclusion_cell(comm, [(0.5, 0.5)], 0.3, mesh_size=0.1)
        name, tag = next(iter(cell.phases.items()))
        found = mask_of(cell, name)
        assert np.array_equal(found, mask_of(cell, tag))
        assert 0 < comm.allreduce(int(found.sum())) < comm.allreduce(found.size)

    def test_refused(self, comm):
        cell, grid = domains(comm)
        with pytest.raises(ValueError, match=r"shape \(2, 3\): expected .* or the whole grid \(8, 6\)"):
            mask_of(grid, np.ones((2, 3), dtype=bool))
        with pytest.raises(ValueError, match="a marker must return one boolean per position"):
            mask_of(cell, lambda x: True)
        with pytest.raises(ValueError, match="no cell has the tag 7"):
            mask_of(cell, 7)
        with pytest.raises(ValueError, match="needs tags of the cells, found 1"):
            mask_of(grid, 1)
        with pytest.raises(ValueError, match="no phase 'pore'"):
            mask_of(cell, "pore")
        assert comm.allreduce(1) == comm.size


class TestPassive:
    def test_exactly_0_and_1(self, comm):
        """Also beside a filter and with a soft projection; variables there count for nothing."""
        for domain in domains(comm):
            passive = PassiveRegions(domain, solid=LEFT, void=TOP_RIGHT)
            mesh = domain if isinstance(domain, VoxelGrid) else domain.mesh
            F = VoxelFilter(domain, 0.4) if isinstance(domain, VoxelGrid) else HelmholtzFilter(mesh, 0.4)
            density = DensityMap(mesh, *chain(F, HeavisideProjection(2.0), passive=passive))
            x = cell_positions(domain)
            m = 0.5 + 0.3 * np.sin(x @ [7.0, 5.0])
            rho = density.forward(m).copy()
            image, solid, void = (image_of(domain, v) for v in (rho, passive.solid, passive.void))
            assert np.array_equal(image == 1, solid == 1)
            assert np.array_equal(image == 0, void == 1)
            other = np.where(passive.solid | passive.void, 0.123, m)
            assert density.forward(other) == pytest.approx(rho, abs=1e-10)
            dual = density.vjp(np.ones(m.size))
            assert not dual[passive.solid | passive.void].any()
            # A neighbour of the solid sees it.
            density.forward(np.zeros(m.size))
            assert image_of(domain, density.values)[2, 0] > image_of(domain, density.values)[4, 0] > 0

    def test_taylor_and_volume(self, comm):
        for domain in domains(comm):
            model = CellModel(domain, 0.3, passive={"solid": LEFT, "void": TOP_RIGHT})
            model.projection.beta = 3.0
            x = cell_positions(domain)
            m = 0.6 + 0.2 * np.sin(x @ [7.0, 5.0])
            dm = 0.25 + 0.75 * np.sin(x @ [37.0, 91.0])
            volume = ReducedFunctional(model.mean_density(), model.density)
            resistivity = model.tensor_functional(model.state((0.01, 1.0)), mean_resistivity)
            for reduced in (volume, ReducedFunctional(resistivity, model.density)):
                reduced(m)
                test = taylor_test(reduced, m, reduced.derivative(), dm, comm=model.density.comm, step=1e-2)
                assert test.rate > 1.9
            image = model.image(model.density.values)
            assert volume(m) == pytest.approx(image.mean())
            assert isinstance(volume.functional, MeanDensity)

    def test_nothing_given(self, comm):
        domain = regular_cell(comm, SHAPE)
        assert passive_regions(domain, None) is None
        given = PassiveRegions(domain, solid=LEFT)
        assert passive_regions(domain, given) is given
        assert not passive_regions(domain, {"solid": LEFT}).void.any()

    def test_refused(self, comm):
        for domain in domains(comm):
            with pytest.raises(ValueError, match="overlap in 2 cells"):
                PassiveRegions(domain, solid=LEFT, void=TOP)
            with pytest.raises(ValueError, match="leave no cell to design"):
                PassiveRegions(domain, solid=LEFT, void=lambda x: x[0] > 0.25)
            with pytest.raises(ValueError, match="found 'pore'"):
                passive_regions(domain, {"pore": LEFT})
            with pytest.raises(ValueError, match="the passive solid is not as symmetric as 'x' asks for"):
                CellModel(domain, 0.3, passive={"solid": LEFT}, symmetry="x")
            assert Symmetry(domain, "y").check(PassiveRegions(domain, solid=LEFT).solid, "it") is None


TOP_RIGHT = lambda x: (x[1] > 0.6) & (x[0] > 0.5)


@pytest.mark.parametrize("kind", ["mesh", "voxels"])
def test_design_around_a_core(comm, kind):
    """A core of the poor material and a bar of the good one: both are in the crisp design."""
    n = 24
    domain = regular_cell(comm, (n, n)) if kind == "mesh" else VoxelGrid(comm, (n, n), 1 / n, periodic=True)
    core = lambda x: np.maximum(abs(x[0] - 0.3), abs(x[1] - 0.3)) < 0.12
    bar = lambda x: abs(x[1] - 0.8) < 0.05
    model = CellModel(domain, 0.12, passive={"solid": bar, "void": core})
    state = model.state((0.01, 1.0))
    problem = DesignProblem(
        model.density,
        model.tensor_functional(state, mean_resistivity),
        [Constraint("volume", model.mean_density(), 0.5)],
        volumes=model.volumes,
        projections=[model.projection],
        interpolations=model.interpolations,
        options=LoopOptions(stages=tuple(Stage(3.0, b) for b in (1.0, 4.0, 16.0, 64.0)), stage_iterations=12),
    )
    result = problem.run(model.start("inclusions", 0.5))
    image = model.image(result.rho)
    solid, void = (model.image(np.asarray(v, dtype=float)) for v in (model.passive.solid, model.passive.void))
    assert solid.sum() == 2 * n
    assert void.sum() > 20
    assert (image[solid == 1] == 1).all()
    assert (image[void == 1] == 0).all()
    assert result.constraints["volume"] < 2e-3
    assert result.grey_level < 0.05
    assert 1 / result.objective > 0.28
