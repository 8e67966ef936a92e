"""Effective tensors of voxel cells: against DOLFINx, closed forms, bounds; derivatives by Taylor's test."""

import numpy as np
import pytest

from fetopo.microstructure.mesh import voxel_cell
from fetopo.transport.homogenization import effective_conductivity
from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid

pytestmark = pytest.mark.mpi
SCHEMES = ("finite volumes", "elements")


def solved(comm, kappa, scheme, size=1.0, rtol=1e-10, table=None):
    d = kappa.ndim if kappa.ndim <= 3 and (kappa.shape[0] > 3 or kappa.ndim == 2) else kappa.ndim - 1
    tensor = kappa.ndim == d + 1
    problem = VoxelCellProblem(VoxelGrid(comm, kappa.shape[int(tensor) :], size, True), scheme, rtol)
    take = problem.grid.take
    problem.assign(np.stack([take(part) for part in kappa]) if tensor else take(kappa), table)
    problem.solve()
    return problem


@pytest.mark.parametrize(("shape", "size"), [((12, 10), (1.0, 0.7)), ((8, 10, 9), (2e-6, 1e-6, 1.5e-6))])
def test_elements_are_those_of_dolfinx(comm, shape, size):
    labels = np.random.default_rng(1).integers(0, 3, shape).astype(np.uint8)
    values = {0: 0.3, 1: 129.0, 2: 80.4}
    cell = voxel_cell(comm, labels, size)
    expected = effective_conductivity(cell, values, petsc_options={"ksp_rtol": 1e-12}).tensor
    by_label = solved(comm, labels, "elements", size, table=np.array([values[i] for i in range(3)]))
    by_number = solved(comm, np.vectorize(values.get)(labels), "elements", size)
    for found in (by_label, by_number):
        assert np.abs(found.tensor - expected).max() < 1e-9 * np.abs(expected).max()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_laminates_are_exact(comm, scheme):
    kappa = np.ones((8, 6, 10))
    kappa[:, :, 3:7] = 20.0
    D = solved(comm, kappa, scheme).tensor
    across, along = 1 / np.mean(1 / kappa[0, 0]), kappa.mean()
    assert np.allclose(D, np.diag([along, along, across]), rtol=1e-7, atol=1e-7)
    # The layers as a diagonal tensor: each direction sees its own conductivity.
    tensor = np.stack([kappa, 2 * kappa, 3 * kappa])
    D = solved(comm, tensor, scheme).tensor
    assert np.allclose(D, np.diag([along, 2 * along, 3 * across]), rtol=1e-7, atol=1e-7)


def test_unit_of_the_conductivity_does_not_matter(comm):
    kappa = np.random.default_rng(0).uniform(0.1, 1, (12, 12, 12))
    one, other = (solved(comm, kappa * unit, "finite volumes") for unit in (1.0, 1e-30))
    assert np.allclose(one.tensor, other.tensor * 1e30, rtol=1e-10)
    assert np.allclose(one.lower_bound(), other.lower_bound() * 1e30, rtol=1e-10)


@pytest.mark.parametrize("contrast", [0.0, 1e-3, 0.3])
def test_interval(comm, contrast):
    """Lower bound ≤ upper bound as quadratic forms, both narrower on split voxels."""
    mask = np.random.default_rng(4).random((8, 8, 8)) < 0.6
    last = None
    for split in (1, 2, 3):
        kappa = np.where(np.kron(mask, np.ones((split,) * 3)) > 0, 1.0, contrast)
        upper = solved(comm, kappa, "elements").tensor
        volumes = solved(comm, kappa, "finite volumes")
        lower = volumes.lower_bound()
        assert np.linalg.eigvalsh(upper - lower).min() > 0
        # Raviart–Thomas fields have less energy than the two-point rule takes them to have.
        assert np.linalg.eigvalsh(lower - volumes.tensor).min() > -1e-9
        if last is not None:
            assert np.linalg.eigvalsh(last[0] - upper).min() > -1e-9
            assert np.trace(lower - last[1]) > 0
        last = upper, lower


def test_lower_bound_holds_with_a_bad_solver(comm):
    """What is left unbalanced is taken off, and it is not a little."""
    kappa = np.where(np.random.default_rng(4).random((10, 10, 10)) < 0.6, 1.0, 0.01)
    good = solved(comm, kappa, "finite volumes", rtol=1e-10).lower_bound()
    bad = solved(comm, kappa, "finite volumes", rtol=1e-3)
    assert np.linalg.eigvalsh(good - bad.lower_bound()).min() > 0
    assert bad.imbalance > 1e-4
    with pytest.raises(ValueError, match="needs the scheme"):
        solved(comm, kappa, "elements", rtol=1e-3).lower_bound()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("shape", "size"), [((10, 9), (1.0, 0.6)), ((8, 9, 10), (1.0, 2.0, 1.5))])
@pytest.mark.parametrize("tensor", [False, True])
def test_derivative(comm, scheme, shape, size, tensor):
    rng = np.random.default_rng(7)
    d = len(shape)
    full = (d, *shape) if tensor else shape
    kappa, direction = 10 ** rng.uniform(-2, 1, full), rng.normal(size=full)
    direction *= kappa  # keeps every conductivity positive
    weight = rng.normal(size=(d, d))
    grid = VoxelGrid(comm, shape, size, periodic=True)
    own = (lambda x: np.stack([grid.take(part) for part in x])) if tensor else grid.take
    problem = VoxelCellProblem(grid, scheme, rtol=1e-12)

    def value(x):
        problem.assign(own(x))
        problem.solve()
        return float(np.sum(weight * problem.tensor))

    J0 = value(kappa)
    slope = float(grid.sum(np.sum(problem.derivative(weight) * own(direction))))
    steps = [0.04 / 2**k for k in range(4)]
    rest = np.abs([value(kappa + e * direction) - J0 - e * slope for e in steps])
    assert np.log2(rest[:-1] / rest[1:]).min() > 1.9
    # The sum over all voxels is the tensor itself, which is of degree one in the conductivities.
    value(kappa)
    total = grid.sum(np.sum(problem.derivative(weight) * own(kappa)))
    assert total == pytest.approx(float(np.sum(weight * problem.tensor)), rel=1e-6)


def test_derivative_where_there_is_none_to_lose(comm):
    """An insulating voxel beside a conductor: its derivative is that of its first bit of conductivity."""
    kappa = np.ones((6, 6, 6))
    kappa[2:4, 2:4, 2:4] = 0.0
    problem = solved(comm, kappa, "elements", rtol=1e-11)
    own = problem.grid.take
    slope = float(problem.grid.sum(np.sum(problem.derivative(np.eye(3)) * own(kappa == 0))))
    step = 1e-5
    problem.assign(own(np.where(kappa == 0, step, kappa)))
    before = problem.tensor.trace()
    problem.solve()
    assert slope > 0
    assert (problem.tensor.trace() - before) / step == pytest.approx(slope, rel=1e-2)


def test_wrong_input(comm):
    with pytest.raises(ValueError, match="periodic along all axes"):
        VoxelCellProblem(VoxelGrid(comm, (8, 8), periodic=(True, False)))
    problem = VoxelCellProblem(VoxelGrid(comm, (8, 8), periodic=True))
    for bad in (-1.0, np.nan, np.inf):
        values = np.ones((8, 8))
        values[3, 3] = bad
        with pytest.raises(ValueError, match="finite and not negative"):
            problem.assign(problem.grid.take(values))
