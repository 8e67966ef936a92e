"""Local fields against laminates, dilute discs, derivatives of the effective tensor; energy balance."""

import json

import numpy as np
import pytest
from mpi4py import MPI

from fetopo.microstructure.geometry import inclusion_cell
from fetopo.microstructure.mesh import regular_cell, voxel_cell
from fetopo.transport._distribution import Spread
from fetopo.transport.fields import local_fields
from fetopo.transport.homogenization import CellProblem, conductivity_field, effective_conductivity
from fetopo.transport.tortuosity import tortuosity

pytestmark = pytest.mark.mpi

K = {0: 1.0, 1: 30.0, 2: 0.2}


def layers(shape):
    return np.broadcast_to((np.arange(shape[0]) % 4 == 0).reshape(-1, *[1] * (len(shape) - 1)), shape) * 1


def random_image(shape=(10, 9), seed=2):
    return np.random.default_rng(seed).integers(0, 3, shape)


class TestLaminate:
    """A quarter of k = 20 and three of k = 1."""

    @pytest.mark.parametrize("shape", [(8, 3), (8, 2, 2)])
    def test_across(self, comm, shape):
        result = effective_conductivity(voxel_cell(comm, layers(shape)), {0: 1.0, 1: 20.0})
        fields = local_fields(result, 0)
        h = 1 / (0.75 + 0.25 / 20)
        for tag, f, k in ((0, 0.75, 1.0), (1, 0.25, 20.0)):
            phase = fields.phases[tag]
            assert phase.volume_fraction == pytest.approx(f)
            assert phase.dissipation == pytest.approx(f * h / k, rel=1e-8)
            assert phase.field.mean == pytest.approx(h / k, rel=1e-8)
            assert phase.field.maximum == pytest.approx(h / k, rel=1e-8)
            assert list(phase.field.percentiles.values()) == pytest.approx([h / k] * 7, rel=1e-8)
            assert phase.field.variance < 1e-14
            assert phase.flux.mean == pytest.approx(1, rel=1e-8)
            assert phase.mean_field == pytest.approx(np.eye(len(shape))[0] * h / k, abs=1e-8)
            assert np.sum(phase.field.density * np.diff(phase.field.edges)) == pytest.approx(1)
        assert fields.macroscopic_energy == pytest.approx(h, rel=1e-9)
        assert fields.mean_flux[0] == pytest.approx(h, rel=1e-9)
        # The worst percent lies in the poor phase, where the dissipation is uniform.
        assert fields.worst_dissipation == pytest.approx(0.01 * h, rel=1e-6)
        image = fields.image("field")
        assert image.shape == shape
        assert image[0].flat[0] == pytest.approx(h / 20, rel=1e-8)
        assert image[1].flat[0] == pytest.approx(h, rel=1e-8)

    def test_along(self, comm):
        fields = local_fields(
            effective_conductivity(voxel_cell(comm, layers((8, 3))), {0: 1.0, 1: 20.0}), [0.0, 5.0]
        )
        a = 0.75 + 5.0
        assert fields.macroscopic_energy == pytest.approx(25 * a)
        for tag, k in ((0, 1.0), (1, 20.0)):
            assert fields.phases[tag].field.mean == pytest.approx(1)
            assert fields.phases[tag].flux.mean == pytest.approx(k / a)
            assert fields.phases[tag].mean_field == pytest.approx([0, 1], abs=1e-9)
        assert fields.worst_dissipation == pytest.approx(0.01 * 20 / a, rel=1e-6)


@pytest.mark.parametrize("k", [0.1, 10.0])
def test_dilute_disc(comm, k):
    """Uniform inside: 2/(1 + k), over 1 − fβ for the others of the array, β = (k − 1)/(k + 1)."""
    f = 0.03
    cell = inclusion_cell(comm, centers=[[0.5, 0.5]], radii=(f / np.pi) ** 0.5, mesh_size=0.02)
    fields = local_fields(effective_conductivity(cell, {"matrix": 1.0, "inclusion": k}, degree=2), 1)
    inside = fields.phases["inclusion"]
    expected = 2 / (1 + k) / (1 - f * (k - 1) / (k + 1))
    assert inside.field.mean == pytest.approx(expected, rel=3e-3)
    assert inside.mean_field == pytest.approx([0, expected], rel=3e-3, abs=1e-3)
    assert inside.field.variance**0.5 < 0.02 * expected
    # On the rim of a poor disc the field is up to 2/(1 + k), of a good one 2k/(1 + k).
    rim = 2 * max(k, 1) / (1 + k)
    assert fields.phases["matrix"].field.maximum == pytest.approx(rim, rel=0.08)


class TestDerivative:
    """f⟨|∇u|²⟩ in a phase is the derivative of the effective conductivity with respect to its own."""

    @pytest.mark.parametrize(("shape", "degree"), [((9, 8), 1), ((7, 6), 2), ((5, 4, 3), 1)])
    def test_second_moments(self, comm, shape, degree):
        cell = voxel_cell(comm, random_image(shape))
        E = np.arange(1.0, len(shape) + 1)
        E /= np.linalg.norm(E)
        tight = {"ksp_rtol": 1e-12}
        fields = local_fields(effective_conductivity(cell, K, degree=degree, petsc_options=tight), E)

        def energy(values):
            return E @ effective_conductivity(cell, values, degree=degree, petsc_options=tight).tensor @ E

        for tag, phase in fields.phases.items():
            step = 1e-4 * K[tag]
            slope = (energy(K | {tag: K[tag] + step}) - energy(K | {tag: K[tag] - step})) / (2 * step)
            assert phase.volume_fraction * phase.field.mean_square == pytest.approx(slope, rel=1e-6)
            assert phase.dissipation == pytest.approx(slope * K[tag] / fields.local_energy, rel=1e-6)
            assert phase.field.variance == pytest.approx(phase.field.mean_square - phase.field.mean**2)


class TestEnergy:
    @pytest.mark.parametrize("shape", [(10, 9), (6, 5, 4)])
    @pytest.mark.parametrize("insulator", [False, True])
    @pytest.mark.parametrize("degree", [1, 2])
    def test_periodic(self, comm, shape, insulator, degree):
        values = K | ({2: 0.0} if insulator else {})
        result = effective_conductivity(voxel_cell(comm, random_image(shape)), values, degree=degree)
        fields = local_fields(result, 1)
        assert fields.hill_mandel_error < 1e-8
        assert fields.macroscopic_energy == pytest.approx(result.tensor[1, 1], rel=1e-8)
        assert sum(p.dissipation for p in fields.phases.values()) == pytest.approx(1)
        assert sum(p.volume_fraction for p in fields.phases.values()) < 1 + 1e-12
        assert set(fields.phases) == ({0, 1} if insulator else {0, 1, 2})
        assert fields.worst_dissipation > 0.01
        volume = result.problem.cell.volume
        assert fields.image("dissipation").sum() / volume == pytest.approx(1, rel=1e-8)

    @pytest.mark.parametrize("kind", ["triangle", "tetrahedron"])
    def test_simplices_and_tensors(self, comm, kind):
        d = 2 if kind == "triangle" else 3
        cell = regular_cell(comm, (4,) * d, cell_type=kind)
        A = np.diag([1.0, 4.0, 2.0])[:d, :d] + 0.5
        problem = CellProblem(cell, conductivity_field(cell, {1: A}))
        problem.solve()
        fields = local_fields(problem, np.ones(d))
        assert fields.hill_mandel_error < 1e-9
        assert fields.macroscopic_energy == pytest.approx(A.sum())
        assert fields.phases[1].field.mean == pytest.approx(1)

    def test_wrong_corrector_shows(self, comm):
        """The balance is a test of the solution, not an identity."""
        result = effective_conductivity(voxel_cell(comm, random_image((12, 12))), K)
        assert local_fields(result).hill_mandel_error < 1e-9
        result.problem.correctors[0].x.array[:] *= 0.99
        assert local_fields(result).hill_mandel_error > 1e-3
        assert local_fields(result, 1).hill_mandel_error < 1e-9

    def test_curved_cells(self, comm):
        cell = inclusion_cell(comm, centers=[[0.5, 0.5]], radii=0.3, mesh_size=0.1)
        fields = local_fields(effective_conductivity(cell, {"matrix": 1.0, "inclusion": 0.0}, degree=2))
        assert fields.hill_mandel_error < 1e-8
        assert set(fields.phases) == {"matrix"}
        # The flux has to go round: twice the mean beside an insulating disc, and more between neighbours.
        assert fields.phases["matrix"].flux.maximum > 2


class TestThroughFeature:
    def test_straight_channel(self, comm):
        mask = np.zeros((6, 5), dtype=bool)
        mask[:, 1:3] = True
        (result,) = tortuosity(comm, mask, [0], solution=True)
        fields = local_fields(result)
        (phase,) = fields.phases.values()
        assert phase.field.mean == pytest.approx(1)
        assert phase.flux.mean == pytest.approx(1 / 0.4)
        assert phase.dissipation == pytest.approx(1)
        assert fields.worst_dissipation == pytest.approx(0.01)
        assert fields.macroscopic_energy * 36 == pytest.approx(0.4)

    @pytest.mark.parametrize("shape", [(20, 18), (8, 7, 6)])
    def test_energy(self, comm, shape):
        mask = np.random.default_rng(1).random(shape) < 0.75
        for result in tortuosity(comm, mask, petsc_options={"ksp_rtol": 1e-11}, solution=True):
            fields = local_fields(result)
            length = shape[result.axis]
            assert fields.hill_mandel_error < 1e-9
            assert fields.local_energy * length**2 == pytest.approx(result.relative_diffusivity, rel=1e-9)
            assert fields.worst_dissipation > 0.01

    def test_neck_dissipates_most(self, comm):
        """Two chambers and a long neck: flux, drop and dissipation in it by conservation."""
        mask = np.zeros((60, 21), dtype=bool)
        mask[:20] = mask[40:] = True
        mask[20:40, 10] = True
        (result,) = tortuosity(comm, mask, [0], petsc_options={"ksp_rtol": 1e-11}, solution=True)
        fields = local_fields(result, worst=20 / mask.sum())
        # All of the flux, 21 voxels wide, goes through one.
        amplification = 21 * result.relative_diffusivity
        image = fields.image("field")
        assert image[22:38, 10] == pytest.approx(amplification, rel=1e-3)
        assert fields.image("flux")[22:38, 10] == pytest.approx(21, rel=1e-3)
        image = fields.image("dissipation")
        assert image[22:38, 10] == pytest.approx(21 * amplification, rel=1e-3)
        assert image[20:40, 10].sum() / image.sum() > 0.84
        assert fields.worst_dissipation == pytest.approx(image[20:40, 10].sum() / image.sum(), rel=0.02)
        assert image[~mask].max() == 0

    def test_nothing_percolates(self, comm):
        mask = np.zeros((4, 4), dtype=bool)
        mask[0] = True
        (result,) = tortuosity(comm, mask, [0], solution=True)
        with pytest.raises(ValueError, match="axis 0: nothing flows"):
            local_fields(result)


class TestRanks:
    @pytest.mark.parametrize("shape", [(10, 9), (6, 5, 4)])
    def test_same_on_one_rank(self, comm, alone, shape):
        here, there = (
            local_fields(effective_conductivity(voxel_cell(c, random_image(shape)), K), 1)
            for c in (comm, alone)
        )
        assert here.worst_dissipation == pytest.approx(there.worst_dissipation, rel=1e-8)
        for tag in K:
            for name in ("field", "flux"):
                a, b = getattr(here.phases[tag], name), getattr(there.phases[tag], name)
                assert a.mean == pytest.approx(b.mean, rel=1e-8)
                assert a.variance == pytest.approx(b.variance, rel=1e-7)
                assert a.maximum == pytest.approx(b.maximum, rel=1e-7)
                assert list(a.percentiles.values()) == pytest.approx(list(b.percentiles.values()), rel=1e-6)
        assert here.image("flux") == pytest.approx(there.image("flux"), rel=1e-6)

    def test_quantiles_of_spread_values(self, comm):
        """Against a plain sort of all values."""
        rng = np.random.default_rng(0)
        values, weights = rng.lognormal(size=500), rng.uniform(0.5, 2, 500)
        mine = np.arange(500) % comm.size == comm.rank
        spread = Spread(comm, values[mine], weights[mine])
        order = np.argsort(values)
        cumulative = np.cumsum(weights[order]) / weights.sum()
        shares = [0.0, 0.01, 0.5, 0.9, 1.0]
        expected = values[order][np.searchsorted(cumulative, np.array(shares) - 1e-12)]
        assert (spread.quantiles(shares) == expected).all()
        top = order[-50:]
        share = weights[top].sum() / weights.sum()
        found = spread.share_of_largest(share)
        assert found == pytest.approx((weights[top] @ values[top]) / (weights @ values), rel=1e-9)

    def test_rank_without_values(self, comm):
        values = np.array([3.0, 1.0, 2.0]) if comm.rank == 0 else np.zeros(0)
        spread = Spread(comm, values, np.ones_like(values))
        assert spread.quantiles([0.3, 0.5, 1.0]).tolist() == [1, 2, 3]
        assert spread.distribution([50], np.array([0.0, 1.5, 2.5])).density.sum() > 0


def test_report(comm):
    fields = local_fields(effective_conductivity(voxel_cell(comm, random_image()), K))
    values = json.loads(json.dumps(fields.to_dict()))
    assert set(values["phases"]) == {"0", "1", "2"}
    assert values["phases"]["1"]["field"]["mean"] == fields.phases[1].field.mean
    if comm.rank == 0:
        for quantity in ("field", "flux"):
            assert len(fields.plot(quantity=quantity).patches) == 3
    with pytest.raises(ValueError, match="no map 'heat'"):
        fields.image("heat")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((2,), {}, "axis from 0 to 1 or 2 numbers, found 2"),
        (([1.0, 2.0, 3.0],), {}, "or 2 numbers, not all zero"),
        (([0.0, 0.0],), {}, "not all zero"),
        ((0,), {"worst": 0.0}, r"worst must lie between 0 and 1, found 0\.0"),
        ((0,), {"percentiles": [101]}, "between 0 and 100"),
        ((0,), {"bins": 0}, "bins must be positive"),
    ],
)
def test_refused(comm, arguments, options, message):
    result = effective_conductivity(voxel_cell(comm, layers((4, 3))), {0: 1.0, 1: 20.0})
    with pytest.raises(ValueError, match=message):
        local_fields(result, *arguments, **options)


def test_nothing_flows(comm):
    """An insulating layer right across."""
    result = effective_conductivity(voxel_cell(comm, layers((8, 3))), {0: 1.0, 1: 0.0})
    with pytest.raises(ValueError, match="nothing flows"):
        local_fields(result, 0)
    assert local_fields(result, 1).phases[0].field.mean == pytest.approx(1)
    assert MPI.COMM_WORLD.allreduce(1) == comm.size


@pytest.mark.parametrize("boundary", ["linear", "uniform_flux"])
@pytest.mark.parametrize("shape", [(10, 9), (5, 4, 6)])
def test_other_conditions_balance_too(comm, shape, boundary):
    """Hill and Mandel: linear potentials and uniform fluxes do macroscopic work alone."""
    cell = voxel_cell(comm, random_image(shape))
    result = effective_conductivity(cell, K, boundary=boundary, petsc_options={"ksp_rtol": 1e-12})
    E = np.arange(1.0, len(shape) + 1)
    fields = local_fields(result, E)
    assert fields.hill_mandel_error < 1e-8
    assert fields.mean_flux == pytest.approx(result.tensor @ E, rel=1e-8)
    assert fields.macroscopic_energy == pytest.approx(E @ result.tensor @ E, rel=1e-8)
    assert sum(phase.dissipation for phase in fields.phases.values()) == pytest.approx(1)
    assert len(local_fields(result, 0).phases) == 3
