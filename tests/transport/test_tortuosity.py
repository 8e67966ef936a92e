"""Through-feature transport: cases with a known answer, conventions, a real electrode."""

import logging
import math
from pathlib import Path

import numpy as np
import pytest
from dolfinx import fem

from fetopo.transport.tortuosity import tortuosity

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def porous(shape, share=0.7, seed=0):
    return np.random.default_rng(seed).random(shape) < share


@pytest.mark.mpi
class TestExact:
    @pytest.mark.parametrize("shape", [(6, 5), (5, 4, 3)])
    def test_straight_channel(self, comm, shape):
        mask = np.zeros(shape, dtype=bool)
        mask[:, 1:3] = True
        (result,) = tortuosity(comm, mask, [0])
        assert result.porosity == pytest.approx(mask.mean())
        assert result.relative_diffusivity == pytest.approx(mask.mean(), rel=1e-12)
        assert result.tortuosity_factor == pytest.approx(1, rel=1e-12)
        assert result.bruggeman_exponent == pytest.approx(1, rel=1e-12)
        assert result.percolating_fraction == 1

    @pytest.mark.parametrize("shape", [(4, 4), (3, 4, 5)])
    def test_empty_space(self, comm, shape):
        for result in tortuosity(comm, np.ones(shape)):
            assert result.relative_diffusivity == pytest.approx(1, rel=1e-12)
            assert result.bruggeman_exponent is None

    def test_isolated_pores_count_in_porosity_only(self, comm):
        """τ takes the total porosity: half of the pores here lead nowhere."""
        mask = np.zeros((6, 6), dtype=bool)
        mask[:, 1] = True
        mask[1:4, 3] = mask[1:4, 5] = True
        (result,) = tortuosity(comm, mask, [0])
        assert result.percolating_fraction == pytest.approx(0.5)
        assert result.relative_diffusivity == pytest.approx(1 / 6, rel=1e-12)
        assert result.tortuosity_factor == pytest.approx(2, rel=1e-12)

    def test_corner_is_no_connection(self, comm):
        mask = np.eye(4, dtype=bool)
        (result,) = tortuosity(comm, mask, [0])
        assert result.relative_diffusivity == 0

    def test_sides_are_closed(self, comm):
        """A path that needs the periodic image does not count."""
        mask = np.zeros((6, 6), dtype=bool)
        mask[:3, 0] = mask[3:, 5] = True
        assert tortuosity(comm, mask, [0])[0].relative_diffusivity == 0


@pytest.mark.mpi
def test_nothing_percolates(comm, caplog):
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[:3] = True
    with caplog.at_level(logging.WARNING, logger="fetopo"):
        results = tortuosity(comm, mask)
    assert [r.axis for r in results] == [0, 1, 2]
    first = results[0]
    assert first.relative_diffusivity == 0
    assert math.isinf(first.tortuosity_factor)
    assert math.isinf(first.bruggeman_exponent)
    assert first.percolating_fraction == 0
    assert first.solution is None
    assert results[1].relative_diffusivity == pytest.approx(0.6)
    told = [r.getMessage() for r in caplog.records]
    assert told == (["the phase does not connect the faces of axis 0"] if comm.rank == 0 else [])


@pytest.mark.mpi
class TestRandom:
    def test_flux_balance_and_bounds(self, comm):
        for result in tortuosity(comm, porous((10, 9, 8))):
            assert result.flux_imbalance < 1e-5
            assert 0 < result.relative_diffusivity < result.porosity
            assert result.tortuosity_factor == pytest.approx(result.porosity / result.relative_diffusivity)
            exponent = math.log(result.relative_diffusivity) / math.log(result.porosity)
            assert result.bruggeman_exponent == pytest.approx(exponent)
            assert result.iterations > 0

    def test_same_on_one_rank(self, comm, alone):
        mask = porous((10, 9, 8))
        for here, there in zip(tortuosity(comm, mask), tortuosity(alone, mask), strict=True):
            assert here.relative_diffusivity == pytest.approx(there.relative_diffusivity, rel=1e-8)

    def test_axes_turn_with_the_image(self, comm):
        mask = porous((9, 8, 7))
        order = (2, 0, 1)
        values = [r.relative_diffusivity for r in tortuosity(comm, mask)]
        turned = [r.relative_diffusivity for r in tortuosity(comm, mask.transpose(order))]
        assert turned == pytest.approx([values[a] for a in order], rel=1e-8)

    def test_concentration(self, comm):
        """1 on the first face, 0 on the last, between them inside."""
        (result,) = tortuosity(comm, porous((10, 9)), [1], solution=True)
        c = result.solution
        x = c.function_space.tabulate_dof_coordinates()[:, 1]
        n = c.x.array.size
        assert np.allclose(c.x.array[np.isclose(x[:n], 0)], 1)
        assert np.allclose(c.x.array[np.isclose(x[:n], 9)], 0)
        assert c.x.array.min(initial=1) > -1e-9
        assert c.x.array.max(initial=0) < 1 + 1e-9
        assert isinstance(c, fem.Function)
        assert result.cell.grid == (10, 9)


@pytest.mark.mpi
class TestVoxelSize:
    def test_only_ratios_matter(self, comm):
        mask = porous((8, 7, 6))
        values = [
            tortuosity(comm, mask, [0], voxel_size=size)[0].relative_diffusivity
            for size in (1.0, 1e-6, (3e-6,) * 3)
        ]
        assert values == pytest.approx([values[0]] * 3, rel=1e-8)

    def test_flat_voxels(self, comm):
        """Voxels of 2×1 are pairs of cubes; the finer mesh lowers the energy a little."""
        mask = porous((10, 10), 0.75, seed=4)
        flat = tortuosity(comm, mask, voxel_size=(2.0, 1.0))
        fine = tortuosity(comm, np.repeat(mask, 2, axis=0))
        cubes = tortuosity(comm, mask)
        for axis in (0, 1):
            a, b, c = (r[axis].relative_diffusivity for r in (flat, fine, cubes))
            assert b < a < 1.2 * b
            assert abs(a - b) < abs(c - b)


@pytest.mark.mpi
class TestRefused:
    @pytest.mark.parametrize(
        ("mask", "axes", "message"),
        [
            (np.ones(4), None, "2D or 3D image is needed, found shape"),
            (np.zeros((3, 3)), None, "does not occur"),
            (np.ones((3, 3)), [2], "axis 2 is out of range"),
            (np.ones((3, 3)), [-1], "axis -1 is out of range"),
        ],
    )
    def test_values(self, comm, mask, axes, message):
        with pytest.raises(ValueError, match=message):
            tortuosity(comm, mask, axes)

    def test_voxel_size(self, comm):
        with pytest.raises(ValueError, match=r"voxel_size is -1\.0: expected positive"):
            tortuosity(comm, np.ones((3, 3)), voxel_size=-1.0)

    def test_solver_that_does_not_converge(self, comm):
        options = {"ksp_type": "cg", "pc_type": "none", "ksp_rtol": 1e-12, "ksp_max_it": 2}
        with pytest.raises(RuntimeError, match="without converging"):
            tortuosity(comm, porous((10, 10)), [0], petsc_options=options)


@pytest.mark.slow
def test_real_electrode(comm):
    """Trilinear elements on the centred 100³ of an NMC electrode, total porosity .39366."""
    path = DATA / "nmc_electrode.tif"
    if not path.is_file():
        pytest.skip(f"real image {path.name} is not in ../shared/data")
    from fetopo.microstructure.image import read

    pore = read(path).crop(100).labels == 0
    (result,) = tortuosity(comm, pore, [0])
    assert result.porosity == pytest.approx(0.39366, abs=5e-6)
    assert result.relative_diffusivity == pytest.approx(0.14115, abs=5e-5)
    assert result.flux_imbalance < 1e-5
