"""Designs of cells on grids of voxels: beside those on meshes, crisp and enclosed, on any number of ranks."""

import numpy as np
import pytest

from fetopo.design.cell import Goal, design_cell
from fetopo.design.crisp import verify_voxels
from fetopo.design.initial import random_field
from fetopo.design.problem import LoopOptions, Stage
from fetopo.io import flux_image, summary, write_design
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.bounds import hashin_shtrikman, wiener
from fetopo.transport.voxel import VoxelGrid

pytestmark = pytest.mark.mpi

CONTRAST = (0.01, 1.0)
QUICK = LoopOptions(stages=tuple(Stage(3.0, beta) for beta in (1.0, 4.0, 16.0, 64.0)), stage_iterations=12)


def voxels(comm, shape, side=1.0):
    return VoxelGrid(comm, shape, side / max(shape), periodic=True)


def design(comm, shape=(32, 32), **options):
    defaults = {"conductivity": CONTRAST, "volume_fraction": 0.5, "filter_radius": 0.15, "options": QUICK}
    return design_cell(voxels(comm, shape), **defaults | options)


def check_interval(result):
    """Lower bound ≤ what elements say ≤ what theory allows, of the voxels and of the fitted mesh."""
    found = result.structure
    for upper, lower in (
        (result.voxels.tensor, result.voxels.lower_bound),
        (found.tensor, found.lower_bound),
        (found.upper_bound, found.tensor),
    ):
        assert np.linalg.eigvalsh(upper - lower).min() > -1e-6
    if result.bound is not None:
        assert 0 < result.verified_at_least <= result.verified * (1 + 1e-6)
        assert result.verified <= result.crisp_bound * (1 + 1e-3)


class TestDesign:
    def test_beside_a_mesh(self, comm):
        """The same case twice: as close to the bound, with much the same number of iterations."""
        options = {"conductivity": CONTRAST, "volume_fraction": 0.5, "filter_radius": 0.1}
        here = design_cell(voxels(comm, (48, 48)), **options)
        there = design_cell(regular_cell(comm, (48, 48)), **options)
        assert here.bound == there.bound == pytest.approx(hashin_shtrikman((0.5, 0.5), CONTRAST, 2)[1])
        assert here.bound_fraction > 0.97
        assert here.bound_fraction == pytest.approx(there.bound_fraction, abs=0.01)
        assert here.result.converged
        assert here.result.grey_level < 0.01
        assert here.volume_fraction == pytest.approx(0.5, abs=2e-3)
        assert here.verified == pytest.approx(here.reached, rel=0.03)
        assert here.labels.shape == here.density.shape == (48, 48)
        assert here.cell.sum(here.crisp.sum()) == here.labels.sum()
        assert (here.discretization, there.discretization) == ("voxel", "mesh")
        assert there.voxels.lower_bound is None
        check_interval(here)
        assert here.verified_at_least > 0.97 * here.verified

    def test_in_three_dimensions(self, comm):
        result = design(comm, (10, 10, 10), filter_radius=0.3, refine=1)
        assert 0.9 < result.bound_fraction < 1
        assert result.labels.shape == (10, 10, 10)
        check_interval(result)

    def test_insulating_phase(self, comm):
        result = design(comm, conductivity=(0.0, 1.0))
        assert result.bound == pytest.approx(1 / 3)
        assert 0.95 <= result.bound_fraction < 1
        check_interval(result)

    def test_along(self, comm):
        result = design(comm, goal=Goal("along", (1.0, 0.0)))
        assert 0.99 <= result.bound_fraction <= 1 + 1e-6
        check_interval(result)

    def test_target(self, comm):
        """Principal conductivities 0.5 and 0.2, the first turned by 30°."""
        goal = Goal("target", target=((0.425, 0.1299038), (0.1299038, 0.275)))
        # On 32² voxels three ranks end 1.2 % off: no room is left between grey and crisp.
        result = design(
            comm, (48, 48), goal=goal, volume_fraction=0.6, filter_radius=0.1, refine=1, options=LoopOptions()
        )
        assert result.bound is None
        assert result.verified_at_least is None
        assert result.verified < 0.01
        assert result.result.grey_level < 0.01
        check_interval(result)

    def test_boxes_and_units(self, comm):
        """A cell that is no square, in micrometres, with a start of one's own."""
        results = []
        for side in (1.0, 2e-6):
            grid = voxels(comm, (12, 18), side)
            start = 0.5 + 0.4 * np.tanh(random_field(grid, seed=5))
            results.append(
                design_cell(
                    grid,
                    conductivity=CONTRAST,
                    volume_fraction=0.4,
                    filter_radius=0.2 * side,
                    start=start,
                    options=LoopOptions(stages=(Stage(3.0, 8.0),), final_iterations=15),
                )
            )
        assert results[1].verified == pytest.approx(results[0].verified, rel=1e-6)
        assert results[1].result.objective == pytest.approx(results[0].result.objective, rel=1e-6)
        assert start.max(initial=0) <= 0.9  # not changed

    @pytest.mark.parametrize("goal", [None, Goal("along", (1.0, 0.5))])
    @pytest.mark.parametrize("start", ["inclusions", "random"])
    def test_same_as_on_one_rank(self, comm, alone, goal, start):
        here, there = (design(c, (24, 24), goal=goal, start=start) for c in (comm, alone))
        assert len(here.result.history) == len(there.result.history)
        assert here.result.objective == pytest.approx(there.result.objective, rel=1e-6)
        assert np.abs(here.density - there.density).max() < 1e-4
        assert np.array_equal(here.labels, there.labels)
        assert here.voxels.tensor == pytest.approx(there.voxels.tensor, rel=1e-6, abs=1e-8)
        # The fitted mesh follows the density, which is the same to the tolerance above.
        assert here.verified == pytest.approx(there.verified, rel=1e-4)


class TestVerify:
    @pytest.mark.parametrize("refine", [1, 2, 3])
    @pytest.mark.parametrize("low", [0.0, 0.01])
    @pytest.mark.parametrize("shape", [(8, 4), (6, 4, 3)])
    def test_laminate_has_no_gap(self, comm, refine, low, shape):
        grid = voxels(comm, shape)
        image = np.broadcast_to((np.arange(shape[0]) % 2).reshape(-1, *[1] * (len(shape) - 1)), shape)
        crisp = np.array(grid.take(image), dtype=float).reshape(-1)
        upper, lower, labels = verify_voxels(grid, crisp, (low, 1.0), refine)
        across, along = wiener((0.5, 0.5), (low, 1.0))
        expected = np.diag([across, *[along] * (len(shape) - 1)])
        assert np.abs(upper - expected).max() < 1e-6
        assert np.abs(lower - expected).max() < 1e-6
        assert np.array_equal(labels, image)

    def test_one_material(self, comm):
        grid = voxels(comm, (6, 4))
        ones = np.ones(int(np.prod(grid.own_shape)))
        for tensor in verify_voxels(grid, 0 * ones, (0.0, 1.0), 2)[:2]:
            assert np.abs(tensor).max() == 0
        for tensor in verify_voxels(grid, ones, (0.0, 1.0), 2)[:2]:
            assert np.abs(tensor - np.eye(2)).max() < 1e-9


class TestRefused:
    def test_walls(self, comm):
        grid = VoxelGrid(comm, (4, 4), 0.25, periodic=(True, False))
        with pytest.raises(ValueError, match="periodic along every axis"):
            design_cell(grid, conductivity=CONTRAST, volume_fraction=0.5, filter_radius=0.1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"petsc_options": {"ksp_rtol": 1e-4}}, "without PETSc, found options {'ksp_rtol': 0.0001}"),
            ({"conductivity": (1.0, 0.5)}, "0 <= first < second"),
            ({"filter_radius": -1.0}, "radius must be non-negative"),
            ({"start": np.ones(3)}, r"one value per owned cell, found shape \(3,\)"),
            ({"start": "holes"}, "found 'holes'"),
            ({"goal": Goal("target", target=((0.35, 0.0), (0.0, 0.35)))}, "upper trace bound"),
        ],
    )
    def test_values(self, comm, options, message):
        with pytest.raises(ValueError, match=message):
            design(comm, (8, 8), **options)
        assert comm.allreduce(1) == comm.size


def shared_path(comm, tmp_path):
    return comm.bcast(tmp_path)


class TestFiles:
    def test_written(self, comm, tmp_path):
        folder = shared_path(comm, tmp_path) / "out"
        result = design(comm, (12, 8), options=LoopOptions(stages=(Stage(3.0, 8.0),), final_iterations=5))
        write_design(folder, result, Goal(), pictures=False)
        comm.barrier()
        names = {path.name for path in folder.iterdir()}
        assert names == {
            "result.json", "history.csv", "design.tif", "design.vti",
            "structure.msh", "structure.xdmf", "structure.h5",
        }  # fmt: skip
        written = summary(result, Goal())
        assert written["discretization"] == "voxel"
        assert written["verified"]["at_least"] == result.verified_at_least
        assert np.array_equal(written["verified"]["lower_bound"], result.verified_lower_bound)
        comm.barrier()

    def test_flux(self, comm):
        """Its mean is the first column of the tensor."""
        result = design(comm, (12, 8), options=LoopOptions(stages=(Stage(3.0, 8.0),), final_iterations=5))
        for axis in range(2):
            flux = flux_image(result, axis)
            assert flux.shape == (12, 8, 2)
            assert flux.mean(axis=(0, 1)) == pytest.approx(result.tensor[:, axis], abs=1e-6)
