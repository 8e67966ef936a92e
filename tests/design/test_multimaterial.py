"""Three materials: shares, derivatives through both fields, volume fractions, a design against its bound."""

import numpy as np
import pytest

from fetopo.design.adjoint import ReducedFunctional
from fetopo.design.functionals import distance_to, mean_resistivity
from fetopo.design.initial import cell_positions
from fetopo.design.model import CellModel
from fetopo.design.multimaterial import MultiMaterialModel
from fetopo.design.nested import NestedInterpolation
from fetopo.design.problem import Constraint, DesignProblem, LoopOptions, Stage
from fetopo.design.verification import taylor_test
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.bounds import hashin_shtrikman, wiener
from fetopo.transport.materials import NAMES, simp
from fetopo.transport.voxel import VoxelGrid

pytestmark = pytest.mark.mpi

KAPPA = (0.02, 0.2, 1.0)


def graded(comm):
    pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
    from fetopo.microstructure.geometry import inclusion_cell

    return inclusion_cell(comm, [(0.4, 0.5)], 0.3, mesh_size=0.2, interface_size=0.05)


DOMAINS = {
    "quadrilateral": lambda comm: regular_cell(comm, (8, 6)),
    "graded": graded,
    "voxels": lambda comm: VoxelGrid(comm, (8, 8), 1 / 8, periodic=True),
    "voxels in 3D": lambda comm: VoxelGrid(comm, (6, 4, 5), (0.2, 0.25, 0.15), periodic=True),
}


@pytest.fixture(params=DOMAINS)
def domain(request, comm):
    return DOMAINS[request.param](comm)


def fields(domain, count=2):
    x = cell_positions(domain) @ np.array([7.0, 5.0, 3.0])[: domain.dim]
    m = np.concatenate([0.6 + 0.2 * np.sin(x + k) for k in range(count)])
    y = cell_positions(domain) @ np.array([37.0, 91.0, 53.0])[: domain.dim]
    return m, np.concatenate([0.25 + 0.75 * np.sin(y + 2 * k) for k in range(count)])


def model_of(domain, beta=3.0, **options):
    model = MultiMaterialModel(domain, 0.3, **options)
    for projection in model.projections:
        projection.beta = beta
    return model


def test_law(domain):
    """κ₀ + ρ₁ᵖ((κ₁ − κ₀) + ρ₂ᵖ(κ₂ − κ₁))."""
    grid = VoxelGrid(domain.comm if isinstance(domain, VoxelGrid) else domain.mesh.comm, (4, 4))
    one, two = np.meshgrid(np.linspace(0, 1, 5), np.linspace(0, 1, 5))
    one, two = one.reshape(-1), two.reshape(-1)
    k0, k1, k2 = KAPPA
    expected = k0 + one**3 * ((k1 - k0) + two**3 * (k2 - k1))
    kappa = NestedInterpolation(grid, KAPPA)
    assert kappa.forward(np.concatenate([one, one * two])) == pytest.approx(expected)
    # Falling: the same with the materials in the other order.
    falling = NestedInterpolation(grid, KAPPA[::-1])
    shares = np.concatenate([one, one * two])
    other = np.concatenate([1 - one * two, 1 - one])
    assert falling.forward(shares) == pytest.approx(kappa.forward(other))
    alike = NestedInterpolation(grid, (0.1, 0.1, 1.0))
    assert alike.forward(shares) == pytest.approx(simp(one * two, 0.1, 1.0))
    assert not np.split(alike.vjp(np.ones(one.size)), 2)[0].any()


@pytest.mark.parametrize("law", NAMES)
def test_taylor(domain, law):
    """Every functional with respect to both fields at once and to each."""
    model = model_of(domain)
    target = 0.3 * np.eye(domain.dim)
    target[0, 1] = target[1, 0] = 0.05
    rising, falling = model.state(KAPPA, law), model.state((1.0, 0.1, 0.1), law)
    functionals = [
        model.tensor_functional(rising, mean_resistivity),
        *(model.fraction_of(k) for k in range(3)),
    ]
    if law == "simp":
        functionals.append(model.tensor_functional(falling, distance_to(target)))
    if isinstance(domain, VoxelGrid):
        rising.problem.rtol = falling.problem.rtol = 1e-10
    m, dm = fields(domain)
    n = m.size // 2
    for J in functionals:
        reduced = ReducedFunctional(J, model.density)
        reduced(m)
        gradient = reduced.derivative()
        for part in (slice(None), slice(0, n), slice(n, None)):
            step = np.zeros(m.size)
            step[part] = dm[part]
            test = taylor_test(reduced, m, gradient, step, comm=model.density.comm, step=4e-3, count=3)
            assert test.rate > 1.9


def test_penalty_follows(domain):
    model = model_of(domain)
    state = model.state(KAPPA)
    J = ReducedFunctional(model.tensor_functional(state, mean_resistivity), model.density)
    m, dm = fields(domain)
    values = []
    for model.interpolations[0].penalty in (1.0, 2.0):
        values.append(J(m))
        test = taylor_test(J, m, J.derivative(), dm, comm=model.density.comm, step=1e-2)
        assert test.rate > 1.9
    assert values[1] > 1.1 * values[0]


def test_two_materials_are_a_cell_model(domain):
    two, plain = model_of(domain, materials=2), CellModel(domain, 0.3)
    plain.projection.beta = 3.0
    m, _ = fields(domain, 1)
    found = []
    for model in (two, plain):
        J = ReducedFunctional(
            model.tensor_functional(model.state((0.02, 1.0)), mean_resistivity), model.density
        )
        volume = two.fraction_of(1) if model is two else plain.mean_density()
        found.append((J(m), J.derivative(), volume.value(), model.density.vjp(volume.derivative())))
    for here, there in zip(*found, strict=True):
        assert here == pytest.approx(there, rel=1e-6, abs=1e-9)


def test_fractions(domain):
    model = model_of(domain)
    m, _ = fields(domain)
    model.density.forward(m)
    f = [model.fraction_of(k).value() for k in range(3)]
    assert sum(f) == pytest.approx(1)
    assert min(f) > 0.05
    one, beyond = np.split(model.density.values, 2)
    volumes = model.cell_volumes
    assert f[1] == pytest.approx(model.density.comm.allreduce(float(volumes @ (one - beyond))) / model.volume)
    start = model.start((0.5, 0.2, 0.3))
    assert start.size == 2 * volumes.size
    means = [
        model.density.comm.allreduce(float(volumes @ part)) / model.volume for part in np.split(start, 2)
    ]
    assert means == pytest.approx([0.5, 0.6], abs=1e-6)


def test_passive(domain):
    """A material may be given in a region, and the symmetry holds for all fields."""
    half = 0.5 * float(domain.lengths[0])
    model = model_of(domain, passive={0: lambda x: x[0] < 0.3 * half, 2: lambda x: x[0] > 1.5 * half})
    m, _ = fields(domain)
    model.density.forward(m)
    x = cell_positions(domain)[:, 0]
    one, beyond = np.split(model.density.values, 2)
    assert not one[x < 0.149].any()
    assert not beyond[x < 0.149].any()
    assert (beyond[x > 0.751] == 1).all()
    labels = model.labels(model.density.values)
    assert (labels[x < 0.149] == 0).all()
    assert (labels[x > 0.751] == 2).all()


#: Quick, and crisp at its end.
OPTIONS = LoopOptions(
    stages=(Stage(2.0, 1.0), *(Stage(3.0, beta) for beta in (1.0, 4.0, 16.0, 64.0))),
    stage_iterations=25,
    final_iterations=40,
)
FRACTIONS = (0.4, 0.3, 0.3)


def design(domain, **options):
    model = MultiMaterialModel(domain, 0.12, **options)
    state = model.state(KAPPA)
    problem = DesignProblem(
        model.density,
        model.tensor_functional(state, mean_resistivity),
        [Constraint(f"material {k}", model.fraction_of(k), FRACTIONS[k]) for k in (1, 2)],
        volumes=model.volumes,
        projections=model.projections,
        interpolations=model.interpolations,
        solvers=model.solvers,
        options=OPTIONS,
    )
    return model, state, problem.run(model.start(FRACTIONS))


@pytest.mark.parametrize("kind", ["mesh", "voxels"])
def test_design(comm, kind):
    """Crisp, both fractions met, near the bound for three materials.

    And beyond what any structure can have where the material in between is replaced by the poorest, so that
    it is used for something.
    """
    n = 32
    domain = regular_cell(comm, (n, n)) if kind == "mesh" else VoxelGrid(comm, (n, n), 1 / n, periodic=True)
    model, state, result = design(domain)
    assert result.grey_level < 0.02
    for k in (1, 2):
        assert abs(result.constraints[f"material {k}"]) < 5e-3
    reached = 1 / result.objective
    upper = hashin_shtrikman(FRACTIONS, KAPPA, 2)[1]
    without = hashin_shtrikman((0.7, 0.3), (KAPPA[0], KAPPA[2]), 2)[1]
    assert 0.9 * upper < reached < 1.01 * upper
    assert reached > 1.2 * without
    assert np.linalg.eigvalsh(state.tensor).max() < wiener(FRACTIONS, KAPPA)[1]
    labels = model.image(model.labels(result.rho).astype(float))
    assert np.bincount(labels.astype(int).reshape(-1), minlength=3) / n**2 == pytest.approx(
        FRACTIONS, abs=0.02
    )


class TestRefused:
    def test_model(self, comm):
        cell, grid = regular_cell(comm, (4, 4)), VoxelGrid(comm, (4, 4), periodic=True)
        with pytest.raises(ValueError, match="at least two materials, found 1"):
            MultiMaterialModel(cell, 0.1, materials=1)
        with pytest.raises(ValueError, match="without PETSc"):
            MultiMaterialModel(grid, 0.1, petsc_options={"ksp_rtol": 1e-3})
        with pytest.raises(ValueError, match="the material must be 0 to 2, found 3"):
            MultiMaterialModel(cell, 0.1, passive={3: lambda x: x[0] < 0.3})
        with pytest.raises(ValueError, match="overlap"):
            MultiMaterialModel(grid, 0.1, passive={0: lambda x: x[0] < 1.0, 1: lambda x: x[0] < 2.0})

    @pytest.mark.parametrize(
        ("kappa", "message"),
        [
            ((0.1, 1.0, 0.5), "must rise or fall"),
            ((0.1, 0.1, 0.1), "must rise or fall"),
            ((0.1, 1.0), "3 materials need as many"),
            ((-0.1, 0.1, np.inf), "positive and finite"),
        ],
    )
    def test_conductivities(self, comm, kappa, message):
        for domain in (regular_cell(comm, (4, 4)), VoxelGrid(comm, (4, 4), periodic=True)):
            with pytest.raises(ValueError, match=message):
                MultiMaterialModel(domain, 0.1).state(kappa)

    def test_fractions(self, comm):
        model = MultiMaterialModel(regular_cell(comm, (4, 4)), 0.1)
        with pytest.raises(ValueError, match=r"found \[0\.5, 0\.5, 0\.0\]"):
            model.start((0.5, 0.5, 0.0))
        with pytest.raises(ValueError, match="the material must be 0 to 2, found 3"):
            model.fraction_of(3)
