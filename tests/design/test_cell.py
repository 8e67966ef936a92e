"""Designs of periodic cells against what theory allows, crisp and verified."""

import numpy as np
import pytest

from fetopo.design.cell import Goal, check_design, design_cell, threshold, verify
from fetopo.design.initial import random_field
from fetopo.design.problem import LoopOptions, Stage
from fetopo.microstructure.mesh import regular_cell, voxel_of_cells
from fetopo.transport.bounds import hashin_shtrikman, wiener
from fetopo.transport.homogenization import effective_conductivity

pytestmark = pytest.mark.mpi

CONTRAST = (0.01, 1.0)
QUICK = LoopOptions(stages=tuple(Stage(3.0, beta) for beta in (1.0, 4.0, 16.0, 64.0)), stage_iterations=12)


def checkerboards(labels):
    """Number of 2×2 blocks, also across the seam, whose phases meet in a corner only."""
    a, b = labels.astype(bool), np.roll(labels, -1, 0).astype(bool)
    c, d = np.roll(a, -1, 1), np.roll(b, -1, 1)
    return int(((a == d) & (b == c) & (a != b)).sum())


def design(comm, n=64, **options):
    defaults = {"conductivity": CONTRAST, "volume_fraction": 0.5, "filter_radius": 0.1}
    return design_cell(regular_cell(comm, (n, n)), **defaults | options)


class TestIsotropic:
    @pytest.mark.parametrize("start", ["inclusions", "random"])
    def test_reaches_97_percent_of_the_bound(self, comm, start):
        result = design(comm, start=start)
        bound = hashin_shtrikman((0.5, 0.5), CONTRAST, 2)[1]
        assert result.bound == pytest.approx(bound)
        assert 0.97 <= result.bound_fraction < 1
        assert result.bound_fraction == pytest.approx(result.verified / result.crisp_bound)
        # The harmonic mean of the principal conductivities is what is called reached.
        eigenvalues = np.linalg.eigvalsh(result.verified_tensor)
        assert result.verified == pytest.approx(2 / np.sum(1 / eigenvalues))
        assert eigenvalues[1] / eigenvalues[0] < 1.1
        assert result.result.converged
        assert result.result.grey_level < 0.01
        assert result.volume_fraction == pytest.approx(0.5, abs=2e-3)
        assert checkerboards(result.labels) == 0
        # Crisp and grey tell the same story.
        assert result.verified == pytest.approx(result.reached, rel=0.02)
        assert result.labels.shape == result.density.shape == (64, 64)
        assert set(np.unique(result.labels)) == {0, 1}
        assert comm.allreduce(result.crisp.sum()) == result.labels.sum()
        assert result.voxels.refinement == 2
        assert result.structure.kind == "fitted"

    def test_insulating_phase(self, comm):
        """The finished design is solved without the insulator."""
        result = design(comm, 32, conductivity=(0.0, 1.0), options=QUICK)
        assert result.bound == pytest.approx(1 / 3)
        assert 0.95 <= result.bound_fraction < 1
        fine = np.kron(result.labels, np.ones((2, 2), dtype=np.uint8))
        from fetopo.microstructure.mesh import voxel_cell

        tensor = effective_conductivity(voxel_cell(comm, fine), {0: 0.0, 1: 1.0}).tensor
        assert result.voxels.tensor == pytest.approx(tensor, abs=1e-8)

    def test_on_triangles(self, comm):
        """A mesh that is no grid is verified as it is."""
        pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
        from fetopo.microstructure.geometry import inclusion_cell

        cell = inclusion_cell(comm, [(0.5, 0.5)], 0.3, mesh_size=0.06, interface_size=0.03)
        result = design_cell(
            cell, conductivity=CONTRAST, volume_fraction=0.5, filter_radius=0.15, options=QUICK
        )
        assert result.labels is None
        assert result.density is None
        assert result.voxels is None
        assert result.structure.kind == "tagged"
        assert 0.9 < result.bound_fraction < 1
        assert result.volume_fraction == pytest.approx(0.5, abs=5e-3)

    def test_in_three_dimensions(self, comm):
        cell = regular_cell(comm, (10, 10, 10))
        result = design_cell(
            cell, conductivity=CONTRAST, volume_fraction=0.5, filter_radius=0.3, options=QUICK, refine=1
        )
        assert 0.9 < result.bound_fraction < 1
        assert result.labels.shape == (10, 10, 10)

    def test_unit_of_length(self, comm):
        """A cell of two micrometres becomes what the same cell of side 1 does."""
        results = [
            design_cell(
                regular_cell(comm, (16, 16), (side, side)),
                conductivity=CONTRAST,
                volume_fraction=0.5,
                filter_radius=0.2 * side,
                options=LoopOptions(stages=(Stage(3.0, 8.0),), final_iterations=15),
            )
            for side in (1.0, 2e-6)
        ]
        assert results[1].verified == pytest.approx(results[0].verified, rel=1e-6)
        assert results[1].result.objective == pytest.approx(results[0].result.objective, rel=1e-6)
        assert results[1].volume_fraction == pytest.approx(results[0].volume_fraction, rel=1e-9)

    def test_given_start(self, comm):
        """Values of one's own, here from another field."""
        cell = regular_cell(comm, (24, 24))
        start = 0.5 + 0.4 * np.tanh(random_field(cell, seed=5))
        result = design_cell(
            cell, conductivity=CONTRAST, volume_fraction=0.5, filter_radius=0.15, start=start, options=QUICK
        )
        assert result.bound_fraction > 0.9
        assert start.max(initial=0) <= 0.9  # not changed


class TestCheckerboards:
    def test_filter_prevents_them(self, comm):
        """From noise, the same problem without a filter is full of them: so the count can fail."""
        cell = regular_cell(comm, (24, 24))
        noise = np.random.default_rng(0).uniform(0.4, 0.6, cell.grid)
        owned = cell.mesh.topology.index_map(2).size_local
        counts = {}
        for radius in (0.0, 0.15):
            result = design_cell(
                cell,
                conductivity=CONTRAST,
                volume_fraction=0.5,
                filter_radius=radius,
                start=noise[tuple(voxel_of_cells(cell)[:owned].T)],
                options=QUICK,
            )
            counts[radius] = checkerboards(result.labels)
        assert counts[0.0] > 50
        assert counts[0.15] == 0

    def test_count(self):
        assert checkerboards(np.indices((4, 4)).sum(axis=0) % 2) == 16
        assert checkerboards(np.eye(4, dtype=int)) == 4
        assert checkerboards(np.kron([[0, 1], [0, 1]], np.ones((4, 4), int))) == 0


class TestAlong:
    def test_reaches_99_percent_of_the_arithmetic_mean(self, comm):
        result = design(comm, goal=Goal("along", (1.0, 0.0)))
        assert result.bound == pytest.approx(wiener((0.5, 0.5), CONTRAST)[1])
        assert 0.99 <= result.bound_fraction <= 1 + 1e-9
        assert result.verified == pytest.approx(result.verified_tensor[0, 0])
        assert result.result.converged
        assert checkerboards(result.labels) == 0

    def test_length_of_the_direction_does_not_matter(self):
        D = np.diag([2.0, 1.0])
        assert Goal("along", (3.0, 0.0)).reached(D) == pytest.approx(2.0)
        assert Goal("along", (1.0, 1.0)).reached(D) == pytest.approx(1.5)


class TestTarget:
    def test_is_met(self, comm):
        """Principal conductivities 0.5 and 0.2, the first turned by 30°."""
        target = ((0.425, 0.1299038), (0.1299038, 0.275))
        goal = Goal("target", target=target)
        result = design(comm, 32, goal=goal, volume_fraction=0.6, filter_radius=0.15, refine=1)
        assert result.bound is None
        assert result.bound_fraction is None
        assert result.verified < 0.01
        assert result.result.grey_level < 0.01
        assert result.volume_fraction == pytest.approx(0.6, abs=0.015)
        assert set(result.result.constraints) == {"volume", "least_volume", "grey"}

    @pytest.mark.parametrize(
        ("target", "reason"),
        [
            (((0.35, 0.0), (0.0, 0.35)), "upper trace bound"),
            (((0.025, 0.0), (0.0, 0.025)), "lower trace bound"),
            (((0.6, 0.0), (0.0, 0.1)), "Wiener"),
        ],
    )
    def test_beyond_the_bounds_is_refused_on_every_rank(self, comm, target, reason):
        with pytest.raises(ValueError, match=f"no structure of volume fraction 0.5 .*{reason}"):
            design(comm, 8, goal=Goal("target", target=target))
        assert comm.allreduce(1) == comm.size

    def test_distance(self):
        goal = Goal("target", target=((1.0, 0.0), (0.0, 1.0)))
        assert goal.reached(np.diag([1.0, 2.0])) == pytest.approx(0.5**0.5)


class TestRanks:
    @pytest.mark.parametrize("goal", [None, Goal("along", (1.0, 0.5))])
    def test_same_as_on_one_rank(self, comm, alone, goal):
        here, there = (design(c, 24, filter_radius=0.15, goal=goal, options=QUICK) for c in (comm, alone))
        assert here.result.objective == pytest.approx(there.result.objective, rel=1e-6)
        assert len(here.result.history) == len(there.result.history)
        assert np.abs(here.density - there.density).max() < 1e-4
        assert np.array_equal(here.labels, there.labels)
        assert here.voxels.tensor == pytest.approx(there.voxels.tensor, rel=1e-6, abs=1e-8)
        # The fitted mesh follows the density, which is the same to the tolerance above.
        assert here.verified == pytest.approx(there.verified, rel=1e-4)

    def test_random_start(self, comm, alone):
        here, there = (
            design(c, 24, filter_radius=0.15, start="random", options=QUICK) for c in (comm, alone)
        )
        assert here.result.objective == pytest.approx(there.result.objective, rel=1e-6)


class TestThreshold:
    def test_keeps_the_volume(self, comm):
        rng = np.random.default_rng([0, comm.rank])
        rho, volumes = rng.random(200), rng.uniform(0.5, 1.5, 200)
        crisp = threshold(rho, volumes, comm)
        assert set(np.unique(crisp)) <= {0.0, 1.0}
        wanted, found = comm.allreduce(rho @ volumes), comm.allreduce(crisp @ volumes)
        assert abs(wanted - found) <= 1.5
        ones, zeros = rho[crisp == 1], rho[crisp == 0]
        assert min(comm.allgather(ones.min())) >= max(comm.allgather(zeros.max()))

    def test_crisp_stays(self, comm):
        rho = np.array([0.0, 1.0, 1.0, 0.0])
        assert np.array_equal(threshold(rho, np.ones(4), comm), rho)

    @pytest.mark.parametrize(("value", "expected"), [(0.6, 1.0), (0.4, 0.0), (0.0, 0.0), (1.0, 1.0)])
    def test_equal_densities_go_together(self, comm, value, expected):
        assert (threshold(np.full(5, value), np.ones(5), comm) == expected).all()


class TestVerify:
    def laminate(self, comm, shape=(8, 4)):
        cell = regular_cell(comm, shape)
        n = cell.mesh.topology.index_map(2).size_local
        return cell, (voxel_of_cells(cell)[:n, 0] % 2).astype(float)

    @pytest.mark.parametrize("refine", [1, 2, 3])
    @pytest.mark.parametrize("low", [0.0, 0.01])
    def test_laminate(self, comm, refine, low):
        cell, crisp = self.laminate(comm)
        tensor, labels = verify(cell, crisp, (low, 1.0), refine)
        assert np.abs(tensor - np.diag(wiener((0.5, 0.5), (low, 1.0)))).max() < 1e-8
        assert np.array_equal(labels, np.broadcast_to((np.arange(8) % 2)[:, None], (8, 4)))

    def test_one_material(self, comm):
        cell, crisp = self.laminate(comm)
        assert np.abs(verify(cell, crisp * 0, (0.0, 1.0), 1)[0]).max() == 0
        assert np.abs(verify(cell, crisp * 0 + 1, (0.0, 1.0), 1)[0] - np.eye(2)).max() < 1e-10


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"conductivity": (1.0, 0.5)}, r"0 <= first < second, found \[1.0, 0.5\]"),
            ({"conductivity": (-1.0, 0.5)}, "conductivity must be two numbers"),
            ({"conductivity": (0.0, np.inf)}, "conductivity must be two numbers"),
            ({"volume_fraction": 0.0}, "volume_fraction must lie between 0 and 1, found 0.0"),
            ({"volume_fraction": 1.0}, "found 1.0"),
            ({"volume_fraction": np.nan}, "found nan"),
            ({"filter_radius": -1.0}, "radius must be non-negative"),
            ({"goal": Goal("along", (1.0, 0.0, 0.0))}, "direction must have 2 components"),
            ({"goal": Goal("along", (0.0, 0.0))}, "not zero"),
            ({"goal": Goal("target", target=((1.0,),))}, "target must be a 2×2 tensor"),
            ({"goal": Goal("target", target=((0.3, 0.1), (0.0, 0.3)))}, "symmetric"),
            ({"start": "holes"}, "found 'holes'"),
            ({"start": np.ones(3)}, r"one value per owned cell, found shape \(3,\)"),
        ],
    )
    def test_values(self, comm, options, message):
        with pytest.raises(ValueError, match=message):
            design(comm, 8, **options)

    def test_start_outside_on_one_rank(self, comm):
        cell = regular_cell(comm, (8, 8))
        start = np.full(cell.mesh.topology.index_map(2).size_local, 0.5)
        if comm.rank == comm.size - 1:
            start[0] = 2.0
        with pytest.raises(ValueError, match="between 0 and 1"):
            design_cell(cell, conductivity=CONTRAST, volume_fraction=0.5, filter_radius=0.1, start=start)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("fast",), "one of isotropic, along, target, .*, found 'fast'"),
            (("along",), "needs its direction"),
            (("target",), "needs its target"),
        ],
    )
    def test_goal(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Goal(*arguments)

    def test_attainable_target_passes(self):
        check_design(2, (0.0, 1.0), 0.5, Goal("target", target=((0.2, 0.0), (0.0, 0.2))))
