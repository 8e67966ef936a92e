"""Area of the interface and smallest lengths: known shapes, Taylor tests, the same on any number of ranks."""

import numpy as np
import pytest

from fetopo.design.adjoint import ReducedFunctional, pull_back
from fetopo.design.cellwise import GridGradient, NodalField
from fetopo.design.combination import weighted_sum
from fetopo.design.initial import cell_positions, random_field
from fetopo.design.interface import InterfaceArea
from fetopo.design.length_scale import LengthScale, eroded_threshold
from fetopo.design.model import CellModel
from fetopo.design.verification import taylor_test
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.voxel import VoxelGrid

pytestmark = pytest.mark.mpi


def graded(comm):
    pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
    from fetopo.microstructure.geometry import inclusion_cell

    return inclusion_cell(comm, [(0.4, 0.5)], 0.3, mesh_size=0.2, interface_size=0.05)


#: Not of volume 1 where that is possible, so that no factor hides.
CELLS = {
    "quadrilateral": lambda comm: regular_cell(comm, (8, 6)),
    "triangle": lambda comm: regular_cell(comm, (8, 8), (1.0, 1.5), "triangle"),
    "hexahedron": lambda comm: regular_cell(comm, (4, 4, 3)),
    "graded": graded,
    "voxels": lambda comm: VoxelGrid(comm, (8, 6), (0.2, 0.15), periodic=True),
    "voxels 3D": lambda comm: VoxelGrid(comm, (6, 4, 5), (0.2, 0.25, 0.15), periodic=True),
}


@pytest.fixture(params=CELLS)
def cell(request, comm):
    return CELLS[request.param](comm)


def start(cell):
    return 0.5 + 0.3 * np.tanh(random_field(cell, seed=3))


def rate(functional, model, step=1e-4):
    reduced = ReducedFunctional(functional, model.density)
    dm = 0.25 + 0.75 * np.sin(cell_positions(model.cell) @ np.array([37.0, 91.0, 53.0])[: model.dim])
    m = start(model.cell)
    reduced(m)
    return taylor_test(reduced, m, reduced.derivative(), dm, comm=reduced.comm, step=step).rate


def length_scale(model, length, **options):
    return LengthScale(
        model.density, model.filter, model.projection, model.cell, model.volumes, length, **options
    )


class TestTaylor:
    def test_interface(self, cell):
        model = CellModel(cell, 0.3)
        model.projection.beta = 4.0
        functional = InterfaceArea(model.density, cell, model.volumes, cell.volume)
        # The filter on voxels is solved to 1e-10: at 1e-5 that would be seen beside the second order.
        step = 1e-3 if isinstance(cell, VoxelGrid) else 1e-4
        assert rate(functional, model, step) > 1.9

    @pytest.mark.parametrize("phase", [0, 1])
    def test_length_scale(self, cell, phase):
        model = CellModel(cell, 0.3)
        model.projection.beta = 8.0
        functional = length_scale(model, 0.3, phase=phase, tolerance=1e-7)
        model.density.forward(start(cell))
        assert functional.value() > 1
        assert rate(functional, model) > 1.9

    def test_sum_with_a_length_scale(self, comm):
        """A combination takes every part's own way back."""
        model = CellModel(CELLS["voxels"](comm), 0.3)
        model.projection.beta = 8.0
        both = weighted_sum([length_scale(model, 0.3), model.mean_density()], (1.0, 10.0))
        assert rate(both, model) > 1.9

    def test_without_the_filtered_field(self, comm):
        """The part through the filtered field is needed."""
        model = CellModel(CELLS["voxels"](comm), 0.3)
        model.projection.beta = 8.0
        functional = length_scale(model, 0.3)
        vjp = model.density.vjp
        model.density.vjp = lambda dual, inner=None: vjp(dual)
        assert rate(functional, model, 1e-5) < 1.5


class TestTransposes:
    def test_corners(self, comm):
        for name in ("voxels", "voxels 3D"):
            grid = CELLS[name](comm)
            gradient = GridGradient(grid)
            x = start(grid).reshape(grid.own_shape)
            y = [np.cos((a + 1) * x) for a in range(grid.dim)]
            there = grid.sum(float(sum((a * b).sum() for a, b in zip(gradient.corners(x), y, strict=True))))
            back = grid.sum(float((gradient.corners_transposed(y) * x).sum()))
            assert there == pytest.approx(back, rel=1e-12)
            for axis in range(grid.dim):
                one = grid.sum(float((gradient.central(x)[axis] * y[0]).sum()))
                other = grid.sum(float((gradient.central(y[0])[axis] * x).sum()))
                assert one == pytest.approx(-other, rel=1e-9)

    def test_nodes(self, comm):
        cell = graded(comm)
        nodal = NodalField(cell.mesh, cell)
        x = start(cell)
        nodal.forward(np.ones_like(x))
        assert nodal.field.x.array == pytest.approx(np.ones(nodal.field.x.array.size))
        nodal.forward(x)
        size = nodal.field.function_space.dofmap.index_map.size_local
        values = nodal.field.x.array[:size].copy()
        there = comm.allreduce(float(values @ values))
        back = comm.allreduce(float(nodal.vjp(values) @ x))
        assert there == pytest.approx(back, rel=1e-12)


class TestInterface:
    @pytest.mark.parametrize("kind", ["mesh", "voxel"])
    @pytest.mark.parametrize("shape", ["disc", "layers", "diagonal"])
    def test_length_of_a_known_interface(self, comm, kind, shape):
        """Crisp images: a disc, layers along an axis and at 45 degrees, which staircases would lengthen."""
        n = 64
        grid = VoxelGrid(comm, (n, n), 2 / n, periodic=True)
        cell = grid if kind == "voxel" else regular_cell(comm, (n, n), (2.0, 2.0))
        x = cell_positions(cell) * 2
        inside, length = {
            "disc": (np.linalg.norm(x - 1, axis=1) < 0.6, 2 * np.pi * 0.6),
            "layers": (x[:, 0] % 1 < 0.5, 8.0),
            "diagonal": (x.sum(axis=1) % 2 < 1.0, 4 * 2**0.5),
        }[shape]
        model = CellModel(cell, 0.0)
        model.density.steps = ()
        model.density.forward(inside.astype(float))
        found = InterfaceArea(model.density, cell, model.volumes, cell.volume).value() * 4.0
        assert found == pytest.approx(length, rel=0.06)

    def test_ball(self, comm):
        n = 24
        grid = VoxelGrid(comm, (n, n, n), 1 / n, periodic=True)
        model = CellModel(grid, 0.0)
        model.density.steps = ()
        model.density.forward((np.linalg.norm(cell_positions(grid) - 0.5, axis=1) < 0.35).astype(float))
        found = InterfaceArea(model.density, grid, model.volumes).value()
        assert found == pytest.approx(4 * np.pi * 0.35**2, rel=0.1)


class TestLengthScale:
    @pytest.mark.parametrize("kind", ["mesh", "voxel"])
    @pytest.mark.parametrize("phase", [0, 1])
    def test_strips(self, comm, kind, phase):
        """A strip that is wide enough keeps the constraint, one that is too thin does not."""
        n, radius, wanted = 160, 0.2, 0.2
        shape = (n, 4)
        grid = VoxelGrid(comm, shape, 1 / n, periodic=True)
        cell = grid if kind == "voxel" else regular_cell(comm, shape, (1.0, 4 / n))
        model = CellModel(cell, radius)
        model.projection.beta = 64.0
        functional = length_scale(model, wanted, phase=phase)
        x = cell_positions(cell)[:, 0]
        found = {}
        for blueprint in (0.24, 0.14):
            m = (np.abs(x - 0.5) < blueprint / 2).astype(float)
            rho = model.density.forward(m if phase else 1 - m)
            mean = model.fraction(rho)
            found[mean if phase else 1 - mean] = functional.value()
        thin, wide = sorted(found)
        assert wide == pytest.approx(0.24, abs=0.02)
        assert thin < 0.13
        assert found[wide] < 1 < 5 < found[thin]

    def test_threshold(self, comm):
        """The projection at ½ makes of the blueprint's strip one of the wanted width, with that peak."""
        n, radius, length = 400, 0.25, 0.2
        r = radius / (2 * 3**0.5)
        blueprint = -2 * r * np.log(0.5 / np.cosh(length / (2 * r)))
        model = CellModel(VoxelGrid(comm, (n, 4), 3 / n, periodic=True), radius)
        x = 3 * cell_positions(model.cell)[:, 0]
        half, edge = blueprint / 2, 3 / n
        # Exact share of each voxel.
        m = np.clip((half - np.abs(x - 1.5)) / edge + 0.5, 0, 1)
        filtered = model.filter.forward(m)
        peak = max(comm.allgather(filtered.max()))
        assert peak == pytest.approx(eroded_threshold(length, radius), abs=2e-3)
        width = model.fraction((filtered > 0.5).astype(float)) * 3
        assert width == pytest.approx(length, abs=2 * edge)

    def test_acts_once_the_projection_is_sharp(self, comm):
        model = CellModel(CELLS["voxels"](comm), 0.3)
        functional = length_scale(model, 0.3, tolerance=1e-9)
        model.density.forward(start(model.cell))
        assert functional.value() == 0
        assert not pull_back(functional, model.density).any()
        assert functional.violation() > 0
        model.projection.beta = 8.0
        model.density.forward(start(model.cell))
        before = functional.value()
        assert before > 1
        model.projection.beta = 16.0
        assert functional.value() > 2 * before  # the tolerance falls, here at the same density

    def test_refused(self, comm):
        model = CellModel(CELLS["voxels"](comm), 0.2)
        with pytest.raises(ValueError, match=r"length of 0\.4 needs a filter radius of at least 0\.26"):
            length_scale(model, 0.4)
        with pytest.raises(ValueError, match="must be positive, found -1"):
            length_scale(model, -1.0)
        other = CellModel(CELLS["voxels"](comm), 0.2)
        with pytest.raises(ValueError, match="no step of the density"):
            LengthScale(model.density, other.filter, model.projection, model.cell, model.volumes, 0.1)


@pytest.mark.parametrize("name", ["quadrilateral", "voxels", "voxels 3D"])
def test_same_on_one_rank(comm, alone, name):
    found = []
    for c in (comm, alone):
        model = CellModel(CELLS[name](c), 0.3)
        model.projection.beta = 8.0
        model.density.forward(start(model.cell))
        row = []
        for f in (InterfaceArea(model.density, model.cell, model.volumes), length_scale(model, 0.3)):
            gradient = pull_back(f, model.density)
            total = model.density.comm.allreduce(np.array([gradient.sum(), gradient @ gradient]))
            row += [f.value(), *total]
        found.append(row)
    assert found[0] == pytest.approx(found[1], rel=1e-7)
