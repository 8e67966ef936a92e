"""Constraints and goals: Taylor tests of what they build, designs that keep them, what does not exist."""

import numpy as np
import pytest
import ufl
from scipy import ndimage

from fetopo.design.adjoint import ReducedFunctional
from fetopo.design.cell import design_cell
from fetopo.design.constraints import (
    Connected,
    Interface,
    Isotropy,
    LeastConductivity,
    SmallestLength,
    VolumeFraction,
)
from fetopo.design.existence import duality_limit
from fetopo.design.formulation import formulate, make_task
from fetopo.design.goal import Goal
from fetopo.design.initial import cell_positions, random_field
from fetopo.design.model import CellModel
from fetopo.design.problem import LoopOptions, Stage
from fetopo.design.verification import taylor_test
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.bounds import hashin_shtrikman
from fetopo.transport.homogenization import effective_conductivity
from fetopo.transport.voxel import VoxelGrid

pytestmark = pytest.mark.mpi

CONTRAST = (0.01, 1.0)
IONS = {"ions": (1.0, 0.01)}
QUICK = LoopOptions(
    stages=tuple(Stage(3.0, beta) for beta in (1.0, 4.0, 16.0, 64.0)),
    stage_iterations=15,
    final_iterations=30,
)
#: Sharpness doubled from stage to stage, as by default, with fewer iterations.
DOUBLED = LoopOptions(
    stages=tuple(Stage(3.0, 2.0**k) for k in (0, 2, 3, 4, 5, 6)), stage_iterations=15, final_iterations=40
)


def voxels(comm, n=24, dim=2):
    return VoxelGrid(comm, (n,) * dim, 1 / n, periodic=True)


def graded(comm):
    pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
    from fetopo.microstructure.geometry import inclusion_cell

    return inclusion_cell(comm, [(0.4, 0.5)], 0.3, mesh_size=0.2, interface_size=0.05)


CELLS = {
    "uniform": lambda comm: regular_cell(comm, (8, 6)),
    "graded": graded,
    "voxels": lambda comm: VoxelGrid(comm, (8, 6), (0.2, 0.15), periodic=True),
    "voxels 3D": lambda comm: VoxelGrid(comm, (6, 4, 5), (0.2, 0.25, 0.15), periodic=True),
}

SPECIFICATIONS = {
    "volume": VolumeFraction(at_least=0.3, at_most=0.6),
    "isotropy": Isotropy(0.05),
    "floor": LeastConductivity(0.1, "ions"),
    "floor along": LeastConductivity(0.1, along=(1.0, 0.0)),
    "length": SmallestLength(0.2),
    "interface": Interface(at_most=3.0),
    "connected": Connected(0, (0,)),
}


def design(cell, **options):
    defaults = {"conductivity": CONTRAST, "volume_fraction": 0.5, "filter_radius": 0.15, "options": QUICK}
    return design_cell(cell, **defaults | options)


@pytest.mark.parametrize("name", SPECIFICATIONS)
@pytest.mark.parametrize("kind", CELLS)
def test_taylor(comm, kind, name):
    cell, spec = CELLS[kind](comm), SPECIFICATIONS[name]
    if name == "floor along" and cell.dim == 3:
        spec = LeastConductivity(0.1, along=(0.0, 1.0, 1.0))
    model = CellModel(cell, 0.3)
    model.projection.beta = 8.0
    task = make_task(cell.dim, CONTRAST, 0.5, 0.3, Goal(), IONS, [spec])
    found = formulate(model, task).constraints[-1]
    m = 0.5 + 0.3 * np.tanh(random_field(cell, seed=3))
    dm = 0.25 + 0.75 * np.sin(cell_positions(cell) @ np.array([37.0, 91.0, 53.0])[: cell.dim])
    reduced = ReducedFunctional(found.functional, model.density)
    reduced(m)
    assert taylor_test(reduced, m, reduced.derivative(), dm, comm=reduced.comm, step=2e-4).rate > 1.9


@pytest.mark.parametrize("combine", ["smaller", "sum"])
def test_taylor_of_two_transports(comm, combine):
    cell = CELLS["voxels"](comm)
    model = CellModel(cell, 0.3)
    goal = Goal(transports=("main", "ions"), weights=(1.0, 0.5), combine=combine)
    found = formulate(model, make_task(2, CONTRAST, 0.5, 0.3, goal, IONS)).objective
    parts = found if isinstance(found, list) else [found]
    assert len(parts) == (2 if combine == "smaller" else 1)
    m = 0.5 + 0.3 * np.tanh(random_field(cell, seed=3))
    for part in parts:
        reduced = ReducedFunctional(part, model.density)
        reduced(m)
        assert taylor_test(reduced, m, reduced.derivative(), comm=reduced.comm, step=2e-3).rate > 1.9


class TestDesigns:
    """Each constraint changes the design, and the crisp structure has what it asks for."""

    def test_two_transports(self, comm):
        """Along one axis layers serve both; each has the arithmetic mean."""
        result = design(
            voxels(comm, 16),
            goal=Goal("along", (1.0, 0.0), transports=("main", "ions")),
            transports=IONS,
        )
        assert set(result.transports) == {"main", "ions"}
        assert result.bound == 1.0
        assert 0.97 < result.bound_fraction <= 1 + 1e-6
        shares = [t.verified / t.bound for t in result.transports.values()]
        assert result.verified == pytest.approx(min(shares))
        assert result.transports["main"].verified_tensor == pytest.approx(result.verified_tensor)
        assert result.verified_at_least <= result.verified * (1 + 1e-9)

    def test_weights(self, comm):
        """The transport that counts more gets more of its bound."""
        goal = Goal(transports=("main", "ions"), weights=(1.2, 1.0))
        result = design(voxels(comm, 12, 3), filter_radius=0.3, goal=goal, transports=IONS, refine=1)
        tensors = [result.transports[name].tensor for name in ("main", "ions")]
        shares = [goal.reached(D) / hashin_shtrikman((0.5, 0.5), CONTRAST, 3)[1] for D in tensors]
        assert shares[0] / shares[1] == pytest.approx(1.2, abs=0.1)

    @pytest.mark.parametrize("kind", ["mesh", "voxel"])
    def test_floor_on_another_transport(self, comm, kind):
        cell = voxels(comm) if kind == "voxel" else regular_cell(comm, (24, 24))
        floor = LeastConductivity(0.25, "ions", (0.0, 1.0))
        result = design(cell, transports=IONS, goal=Goal("along", (0.0, 1.0)), constraints=[floor])
        alone = design(cell, transports=IONS)
        assert result.transports["ions"].verified_tensor[1, 1] > 0.24
        assert alone.transports["ions"].verified_tensor[1, 1] < 0.15

    def test_isotropy(self, comm):
        """Best along x, but alike in both directions."""
        result = design(voxels(comm), goal=Goal("along", (1.0, 0.0)), constraints=[Isotropy(0.05)])
        D = result.verified_tensor
        assert abs(D[0, 0] / D[1, 1] - 1) < 0.15
        assert design(voxels(comm), goal=Goal("along", (1.0, 0.0))).verified_tensor[1, 1] < 0.1
        assert result.result.constraints["anisotropy"] < 2e-2

    def test_volume_at_least(self, comm):
        result = design(
            voxels(comm, 16), constraints=[VolumeFraction(at_least=0.3, at_most=0.7)], volume_fraction=0.5
        )
        assert result.volume_fraction == pytest.approx(0.7, abs=0.02)
        assert result.bound == pytest.approx(hashin_shtrikman((0.3, 0.7), CONTRAST, 2)[1])

    @pytest.mark.parametrize("kind", ["mesh", "voxel"])
    def test_interface(self, comm, kind):
        """Four holes at the start: free they stay, held they grow together."""
        cell = voxels(comm, 32) if kind == "voxel" else regular_cell(comm, (32, 32))
        x = cell_positions(cell)
        start = 0.5 + 0.4 * np.cos(4 * np.pi * x[:, 0]) * np.cos(4 * np.pi * x[:, 1])
        common = {"filter_radius": 0.1, "start": start}
        free = design(cell, **common)
        held = design(cell, constraints=[Interface(at_most=7.5)], **common)
        assert held.result.constraints["interface"] < 1e-2
        assert edges(free.labels) / 32 > 8.0
        assert edges(held.labels) / 32 < 7.5 * 1.35  # steps of voxels, up to 4/π

    def test_connected(self, comm):
        """The pore of the best conductor is closed; asked to, it opens along one axis."""
        closed = design(voxels(comm))
        opened = design(voxels(comm), constraints=[Connected(0, (0,))])
        assert not percolates(1 - closed.labels, 0)
        assert percolates(1 - opened.labels, 0)
        assert not percolates(1 - opened.labels, 1)

    def test_smallest_length_where_it_is_kept_anyway(self, comm):
        """Then it changes nothing."""
        common = {"volume_fraction": 0.4, "filter_radius": 0.1, "options": DOUBLED}
        free = design(voxels(comm, 32), **common)
        held = design(voxels(comm, 32), constraints=[SmallestLength(0.12)], **common)
        assert held.bound_fraction == pytest.approx(free.bound_fraction, rel=5e-3)
        assert max(held.result.constraints.values()) < 1e-2

    def test_function_of_ones_own(self, comm):
        result = design(
            voxels(comm, 16), goal=Goal("function", minimize=lambda D: 1 / D[0, 0] + 0.2 / D[1, 1])
        )
        D = result.verified_tensor
        assert result.bound is None
        assert result.verified == pytest.approx(1 / D[0, 0] + 0.2 / D[1, 1])
        assert result.reached == pytest.approx(result.result.objective, rel=1e-6)
        assert D[0, 0] > 1.3 * D[1, 1]

    def test_tortuosity_factor(self, comm):
        """τ = ε k/D = 2 at half the volume is the tensor ¼ I, for which targets of tensors answer."""
        result = design(voxels(comm, 16), conductivity=(0.0, 1.0), goal=Goal("tortuosity", value=2.0))
        assert np.array(result.goal.target) == pytest.approx(0.25 * np.eye(2))
        assert result.goal.asked == "tortuosity"
        assert result.bound is None
        D = result.verified_tensor
        assert result.verified == pytest.approx(np.linalg.norm(D - 0.25 * np.eye(2)) / (0.25 * 2**0.5))

    @pytest.mark.parametrize("kind", ["mesh", "voxel"])
    def test_passive_and_symmetric(self, comm, kind):
        """A wall that stays, and a design that is its own mirror image."""
        cell = voxels(comm) if kind == "voxel" else regular_cell(comm, (24, 24))
        wall = {"solid": lambda x: np.abs(x[0] - 0.5) < 0.05}
        result = design(cell, passive=wall, symmetry="xy", law="ramp")
        assert (result.labels[11:13] == 1).all()
        assert np.array_equal(result.labels, result.labels[::-1])
        assert np.array_equal(result.labels, result.labels[:, ::-1])

    def test_no_constraint_without_its_transport(self, comm):
        """A transport that nothing asks for is solved at the end only."""
        result = design(voxels(comm, 12), transports=IONS)
        assert result.transports["ions"].tensor is None
        assert result.transports["ions"].verified_tensor.shape == (2, 2)


def edges(labels):
    """Faces between voxels of different phases, around the cell."""
    return sum(int((labels != np.roll(labels, 1, axis)).sum()) for axis in range(labels.ndim))


def percolates(mask, axis):
    """Whether a phase connects a cell with its copies along an axis: three in a row, none across."""
    tiled = np.concatenate([mask] * 3, axis=axis)
    parts, _ = ndimage.label(tiled)
    first, last = np.take(parts, 0, axis), np.take(parts, -1, axis)
    return bool(set(first[first > 0]) & set(last[last > 0]))


class TestExistence:
    """Refused before anything is solved, on every rank, with the nearest that exists."""

    def task(self, dim=2, goal=None, transports=None, constraints=(), f=0.5, pair=(0.0, 1.0)):
        return make_task(dim, pair, f, 0.1, goal or Goal(), transports, constraints)

    @pytest.mark.parametrize(("dim", "value", "nearest"), [(2, 1.2, 1.5), (3, 1.2, 1.25), (3, 1.0, 1.25)])
    def test_tortuosity(self, dim, value, nearest):
        """Hashin and Shtrikman: τ ≥ (2 + (d−2)… ) — for ε = ½ 1.5 in two dimensions, 1.25 in three."""
        with pytest.raises(
            ValueError, match=rf"tortuosity factor {value:g}: .*nearest that exists is {nearest}"
        ):
            self.task(dim, Goal("tortuosity", value=value))
        self.task(dim, Goal("tortuosity", value=nearest))
        self.task(dim, Goal("tortuosity", value=50.0))

    def test_bruggeman(self):
        nearest = np.log(0.4) / np.log(0.5)
        with pytest.raises(
            ValueError, match=rf"Bruggeman exponent 1\.2: .*nearest that exists is {nearest:.5f}"
        ):
            self.task(3, Goal("bruggeman", value=1.2))
        self.task(3, Goal("bruggeman", value=1.5))
        with pytest.raises(
            ValueError, match=r"exponent 9: .*1\.246\d+ to 3\.239\d+; the nearest that exists is 3\.239"
        ):
            self.task(3, Goal("bruggeman", value=9.0), pair=(0.03, 1.0))

    def test_tensor(self):
        with pytest.raises(ValueError, match=r"the nearest that exists is \[\[0\.3333\d*, 0\], \[0, 0\.3333"):
            self.task(2, Goal("target", target=((0.4, 0.0), (0.0, 0.4))))

    def test_floor(self):
        with pytest.raises(ValueError, match=r"'main' in every direction by 0\.35: .*exists is 0\.333333"):
            self.task(constraints=[LeastConductivity(0.35)])
        self.task(constraints=[LeastConductivity(0.33)])
        self.task(constraints=[LeastConductivity(0.35), VolumeFraction(at_most=0.6)])
        with pytest.raises(ValueError, match=r"'main' along x by 0\.6: .*exists is 0\.5"):
            self.task(constraints=[LeastConductivity(0.6, along=(2.0, 0.0))])
        with pytest.raises(ValueError, match="no transport 'heat'; there are main"):
            self.task(constraints=[LeastConductivity(0.1, "heat")])

    def test_ions_may_have_the_fraction_that_is_left(self):
        with pytest.raises(ValueError, match=r"'ions' along y by 0\.5"):
            self.task(
                transports={"ions": (1.0, 0.0)},
                constraints=[
                    VolumeFraction(at_least=0.55, at_most=0.7),
                    LeastConductivity(0.5, "ions", (0.0, 1.0)),
                ],
                f=0.6,
            )

    def test_two_dimensions_have_one_connected_phase(self):
        goal = Goal(transports=("main", "ions"))
        with pytest.raises(ValueError, match="no structure in two dimensions conducts 'main' and 'ions'"):
            self.task(2, goal, {"ions": (1.0, 0.0)})
        assert self.task(3, goal, {"ions": (1.0, 0.0)}).bound() == 1.0
        self.task(2, Goal("along", (1.0, 0.0), transports=("main", "ions")), {"ions": (1.0, 0.0)})
        with pytest.raises(ValueError, match=r"through phase 1 by 0\.05 and phase 0 by 0\.05"):
            self.task(constraints=[Connected(1), Connected(0)])
        self.task(3, constraints=[Connected(1), Connected(0)])
        self.task(constraints=[Connected(1), Connected(0, (0,))])

    def test_bound_of_both_in_two_dimensions(self, comm):
        """Duality: the product of both conductivities of any image is at most that of the phases."""
        task = self.task(2, Goal(transports=("main", "ions")), IONS, pair=CONTRAST)
        D = hashin_shtrikman((0.5, 0.5), CONTRAST, 2)[1]
        assert task.bound() == pytest.approx(0.1 / D)
        rng = np.random.default_rng(3)
        from fetopo.microstructure.mesh import voxel_cell

        cell = voxel_cell(comm, np.kron(rng.integers(0, 2, (4, 4)), np.ones((4, 4))).astype(np.uint8))
        first, second = (0.02, 1.0), (0.7, 0.05)
        found = []
        for a, b in (first, second):
            D = effective_conductivity(cell, {0: a, 1: b}).tensor
            found.append(2 / np.trace(np.linalg.inv(D)))
        limit = duality_limit(first, second)
        assert limit == pytest.approx(max(0.02 * 0.7, 0.05))
        assert found[0] * found[1] < limit
        assert duality_limit(first, (0.1, 0.2)) == np.inf

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: VolumeFraction(), "at_least, at_most or both, or by equal"),
            (lambda: VolumeFraction(at_most=1.5), "between 0 and 1, found 1.5"),
            (lambda: Isotropy(0.0), "must be positive, found 0.0"),
            (lambda: LeastConductivity(-1.0), "must be positive, found -1"),
            (lambda: LeastConductivity(1.0, along=(0.0, 0.0)), "not zero"),
            (lambda: SmallestLength(np.nan), "must be positive, found nan"),
            (lambda: SmallestLength(0.1, 2), "0 or 1, found 2"),
            (lambda: Interface(), "at_least, at_most or both"),
            (lambda: Connected(2), "0 or 1, found 2"),
            (lambda: Connected(0, share=1.0), "between 0 and 1, found 1.0"),
            (lambda: Goal("tortuosity", (1.0, 0.0), value=2.0), "in every direction alike"),
            (lambda: Goal(transports=("a", "a")), "different names"),
            (lambda: Goal("function"), "needs its minimize"),
            (lambda: Goal("target", target=((1.0,),), transports=("main", "b")), "not brought to a target"),
            (lambda: Goal(weights=(1.0, 2.0)), "one positive weight per transport"),
        ],
    )
    def test_values_refused(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"constraints": [SmallestLength(0.4)]}, "needs a filter radius of at least 0.26"),
            ({"constraints": [Connected(0, (2,))]}, "has axes 0 to 1, found"),
            ({"constraints": [Connected(1, share=0.9)]}, "the most that exists is 0.66"),
            ({"constraints": [VolumeFraction(at_least=0.6)]}, "volume_fraction is 0.5"),
            ({"constraints": [Interface(at_least=3.0, at_most=2.0)]}, "at least 3 and at most 2"),
            ({"transports": {"main": (1.0, 0.0)}}, "'main' has the conductivities of the design"),
            ({"transports": {"ions": (1.0, 1.0)}}, "transport 'ions' must be finite, not negative and diff"),
            ({"goal": Goal(transports=("ions",)), "transports": IONS}, "must name the transport 'main'"),
            ({"goal": Goal(transports=("main", "heat"))}, "no transport 'heat'"),
            ({"goal": Goal("tortuosity", value=-1.0)}, "must be positive, found -1"),
            ({"constraints": [Isotropy(0.1), Isotropy(0.2)]}, "two constraints have the name 'anisotropy'"),
        ],
    )
    def test_refused_by_design_cell(self, comm, options, message):
        with pytest.raises(ValueError, match=message):
            design(voxels(comm, 8), **options)
        assert comm.allreduce(1) == comm.size


def test_same_as_on_one_rank(comm, alone):
    """Length scale, interface, second transport: all that needs neighbours of other ranks."""
    found = []
    for c in (comm, alone):
        result = design(
            voxels(c, 16),
            filter_radius=0.2,
            transports=IONS,
            goal=Goal("along", (1.0, 0.0), transports=("main", "ions")),
            constraints=[
                SmallestLength(0.2),
                Interface(at_most=3.0),
                LeastConductivity(0.05, along=(0.0, 1.0)),
            ],
            options=LoopOptions(
                stages=(Stage(3.0, 4.0), Stage(3.0, 16.0)), stage_iterations=8, final_iterations=8
            ),
        )
        found.append((result.result.objective, result.reached, *result.result.constraints.values()))
    assert found[0] == pytest.approx(found[1], rel=1e-5, abs=1e-6)


def test_user_function_must_be_a_scalar(comm):
    with pytest.raises(ValueError, match=r"must be a scalar, found shape \(2, 2\)"):
        design(voxels(comm, 8), goal=Goal("function", minimize=lambda D: ufl.inv(D)))
