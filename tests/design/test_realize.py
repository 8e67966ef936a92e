"""Crisp structures on meshes of their own: property, shape, files."""

import numpy as np
import pytest

from fetopo.design.cell import Goal, design_cell
from fetopo.design.crisp import threshold
from fetopo.design.export import write_structure
from fetopo.design.grey import GreyLevel
from fetopo.design.model import CellModel
from fetopo.design.realize import phase_shape, realize
from fetopo.io import summary
from fetopo.microstructure.mesh import read_mesh, regular_cell
from fetopo.transport.bounds import hashin_shtrikman
from fetopo.transport.voxel import VoxelGrid

pytestmark = pytest.mark.mpi

CONTRAST = (0.01, 1.0)


def cell_of(comm, kind, shape):
    return (
        regular_cell(comm, shape) if kind == "mesh" else VoxelGrid(comm, shape, 1 / max(shape), periodic=True)
    )


def ball(comm, kind, shape, radius):
    """A model whose design is a poor ball in the middle, and that design."""
    from fetopo.design.initial import cell_positions

    cell = cell_of(comm, kind, shape)
    model = CellModel(cell, 4.0 / max(shape))
    x = np.linalg.norm(cell_positions(cell) - 0.5, axis=1)
    m = (x > radius).astype(float)
    model.projection.beta = 64.0
    rho = model.density.forward(m).copy()
    return model, m, rho, threshold(rho, model.volumes, model.density.comm)


class TestRealize:
    @pytest.mark.parametrize("kind", ["mesh", "voxel"])
    def test_insulating_discs(self, comm, kind):
        """Half of the plane in a square array: 0.3246545 (Perrins, McKenzie and McPhedran 1979)."""
        model, m, rho, crisp = ball(comm, kind, (48, 48), np.sqrt(0.5 / np.pi))
        found = realize(model, m, rho, crisp, (0.0, 1.0))
        assert found.kind == "fitted"
        assert found.volume_fraction == pytest.approx(model.fraction(rho), rel=1e-5)
        assert found.tensor[0, 0] == pytest.approx(0.3246545, rel=0.01)
        assert np.linalg.eigvalsh(found.upper_bound - found.lower_bound).min() >= 0
        assert found.lower_bound[0, 0] < found.tensor[0, 0] < found.upper_bound[0, 0]
        assert found.interface_area == pytest.approx(2 * np.pi * np.sqrt(0.5 / np.pi), rel=0.02)
        assert (found.poor.parts, found.poor.islands, found.poor.percolates) == (1, 1, (False, False))
        assert (found.good.parts, found.good.islands, found.good.percolates) == (1, 0, (True, True))
        assert found.poor.smallest_feature == pytest.approx(2 * np.sqrt(0.5 / np.pi), rel=0.1)

    def test_ball(self, comm):
        model, m, rho, crisp = ball(comm, "voxel", (12, 12, 12), 0.35)
        found = realize(model, m, rho, crisp, CONTRAST)
        assert found.volume_fraction == pytest.approx(model.fraction(rho), rel=1e-4)
        # A simple cubic array at this fraction is Maxwell's to much less than a per cent.
        bound = hashin_shtrikman((1 - found.volume_fraction, found.volume_fraction), CONTRAST, 3)[1]
        assert found.tensor[0, 0] == pytest.approx(bound, rel=0.01)
        assert found.lower_bound[0, 0] < bound
        assert found.good.percolates == (True, True, True)
        assert found.poor.islands == 1

    def test_same_on_any_number_of_ranks(self, comm, alone):
        here, there = (
            realize(*ball(c, "mesh", (16, 16), 0.3), CONTRAST, shapes=False) for c in (comm, alone)
        )
        assert here.tensor == pytest.approx(there.tensor, rel=1e-8)
        assert here.lower_bound == pytest.approx(there.lower_bound, rel=1e-6)
        assert here.poor is here.good is None

    def test_where_the_density_says_otherwise(self, comm):
        """A crisp structure that the filtered density does not have is that of the density itself."""
        model, m, rho, _ = ball(comm, "voxel", (24, 24), 0.3)
        other = 1 - rho
        crisp = threshold(other, model.volumes, model.density.comm)
        found = realize(model, m, other, crisp, CONTRAST)
        assert found.volume_fraction == pytest.approx(model.fraction(other), rel=1e-4)
        assert found.good.percolates == (False, False)

    def test_one_material(self, comm):
        model, m, rho, crisp = ball(comm, "voxel", (8, 8), 0.0)
        found = realize(model, m * 0 + 1, rho * 0 + 1, crisp * 0 + 1, (0.0, 2.0))
        assert found.kind == "voxels"
        assert found.tensor == pytest.approx(2 * np.eye(2), abs=1e-6)
        assert found.volume_fraction == pytest.approx(1.0)


class TestShape:
    def test_cross_and_islands(self):
        """Bars along both axes hold four squares apart; a diagonal step percolates nowhere."""
        mask = np.zeros((20, 20), dtype=bool)
        mask[4:10, :] = mask[:, 8:12] = True
        shape = phase_shape(mask, (0.5, 0.5))
        assert (shape.parts, shape.islands, shape.percolates) == (1, 0, (True, True))
        rest = phase_shape(~mask, (0.5, 0.5))
        assert (rest.parts, rest.islands, rest.percolates) == (1, 1, (False, False))
        assert 1.0 <= shape.smallest_feature <= 3.5


class TestGrey:
    @pytest.mark.parametrize("kind", ["mesh", "voxel"])
    def test_derivative(self, comm, kind):
        model, *_ = ball(comm, kind, (8, 8), 0.3)
        grey = GreyLevel(model.density, model.volumes, model.volume)
        grey.beta = 16.0
        assert grey.allowed == pytest.approx(0.032)
        rng = np.random.default_rng(comm.rank if kind == "mesh" else 0)
        rho, step = rng.uniform(0.2, 0.8, model.volumes.size), rng.normal(size=model.volumes.size)
        values = []
        for t in (-1e-5, 1e-5):
            model.density.values[:] = rho + t * step
            values.append(grey.value())
        model.density.values[:] = rho
        slope = model.density.comm.allreduce(float(grey.derivative() @ step))
        assert slope == pytest.approx((values[1] - values[0]) / 2e-5, rel=1e-6)
        model.density.values[:] = 0.5
        assert grey.value() == pytest.approx(1 / 0.032)


def volume_of_stl(path):
    data = path.read_bytes()
    count = int(np.frombuffer(data, "<u4", 1, 80)[0])
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    corners = np.frombuffer(data, record, count, 84)["corners"].astype(float)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    # Watertight: every directed edge has its opposite.
    ids = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)[1].reshape(-1, 3)
    edges = np.concatenate([ids[:, [0, 1]], ids[:, [1, 2]], ids[:, [2, 0]]])
    there = {tuple(e) for e in edges.tolist()}
    assert all((v, u) in there for u, v in there)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


class TestFiles:
    def test_read_back(self, comm, tmp_path):
        folder = comm.bcast(tmp_path)
        model, m, rho, crisp = ball(comm, "voxel", (10, 10, 10), 0.35)
        found = realize(model, m, rho, crisp, CONTRAST)
        paths = write_structure(folder, found, scale=1.0)
        comm.barrier()
        assert [p.name for p in paths] == ["structure.msh", "structure.xdmf", "poor.stl", "good.stl"]
        for path in paths[:2]:
            again = read_mesh(comm, path)
            assert set(again.phases) == {"poor", "good"}
            good = again.phases["good"]
            own = again.mesh.topology.index_map(3).size_local
            count = comm.allreduce(int((again.cell_tags.values[again.cell_tags.indices < own] == good).sum()))
            assert 0 < count < comm.allreduce(own)
        solids = [volume_of_stl(path) for path in paths[2:]]
        assert solids == pytest.approx([1 - found.volume_fraction, found.volume_fraction], rel=1e-4)
        comm.barrier()


class TestTargets:
    def test_summary(self, comm):
        goal = Goal("target", target=turned(0.5, 0.2, 30))
        design = design_cell(
            cell_of(comm, "voxel", (48, 48)), conductivity=CONTRAST, volume_fraction=0.6, filter_radius=0.15,
            goal=goal, refine=1,
        )  # fmt: skip
        assert design.verified < 0.01
        assert design.result.grey_level < 0.01
        assert design.projection_gap < 0.2
        written = summary(design, goal)["verified"]
        T = np.array(goal.target)
        off = np.linalg.norm(np.array(written["effective_tensor"]) - T) / np.linalg.norm(T)
        assert off == pytest.approx(written["reached"])
        assert written["mesh"] == "fitted"
        assert written["voxels"]["voxels_split"] == 1
        # Numbers of iterations go on through the corrections.
        history = design.result.history
        assert [r.iteration for r in history] == list(range(1, len(history) + 1))


class TestTheBound:
    """Crisp, on fitted meshes, at contrast 1:100; the guaranteed value, not only the best estimate."""

    def check(self, design, needed):
        assert design.structure.kind == "fitted"
        assert design.bound_fraction >= needed
        assert needed <= design.verified_at_least / design.crisp_bound < 1
        assert design.result.grey_level < 0.01

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["mesh", "voxel"])
    @pytest.mark.parametrize("fraction", [0.3, 0.5, 0.7])
    def test_in_two_dimensions(self, comm, kind, fraction):
        design = design_cell(
            cell_of(comm, kind, (48, 48)), conductivity=CONTRAST, volume_fraction=fraction,
            filter_radius=0.1, refine=1,
        )  # fmt: skip
        self.check(design, 0.985)

    @pytest.mark.slow
    def test_in_three_dimensions(self, comm):
        design = design_cell(
            cell_of(comm, "voxel", (20, 20, 20)), conductivity=CONTRAST, volume_fraction=0.5,
            filter_radius=0.2, refine=1,
        )  # fmt: skip
        self.check(design, 0.95)
        assert design.structure.poor.percolates == (False, False, False)


def turned(first, second, degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    Q = np.array([[c, -s], [s, c]])
    T = Q @ np.diag([first, second]) @ Q.T
    return tuple(map(tuple, (0.5 * (T + T.T)).tolist()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "fraction", "target"),
    [
        ("voxel", 0.6, turned(0.55, 0.15, 75)),
        ("voxel", 0.5, turned(0.4, 0.15, 30)),
        ("voxel", 0.5, turned(0.3, 0.05, 45)),
        ("mesh", 0.5, turned(0.4, 0.15, 30)),
    ],
)
def test_turned_targets_are_met(comm, kind, fraction, target):
    goal = Goal("target", target=target)
    design = design_cell(
        cell_of(comm, kind, (64, 64) if kind == "voxel" else (48, 48)), conductivity=CONTRAST,
        volume_fraction=fraction, filter_radius=0.1, goal=goal, refine=1,
    )  # fmt: skip
    assert design.verified < 0.01
    assert design.result.converged
    assert design.result.grey_level < 0.01
    assert design.volume_fraction == pytest.approx(fraction, rel=0.015)
