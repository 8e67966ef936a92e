"""Transport through voxels against DOLFINx on their mesh, periodic sides, fluxes in balance."""

import numpy as np
import pytest
import ufl
from dolfinx import fem

from fetopo.microstructure.connectivity import connectivity
from fetopo.microstructure.mesh import voxel_cell
from fetopo.transport.homogenization import conductivity_field
from fetopo.transport.state import LinearSolver, assemble_dual, global_sum, zero_on_boundary
from fetopo.transport.voxel import VoxelGrid, through

pytestmark = pytest.mark.mpi
TIGHT = 1e-12


def noise(shape, share, seed):
    return np.random.default_rng(seed).random(shape) < share


def on_a_mesh(comm, kappa, sides, axis):
    """The same elements by DOLFINx: effective conductivity between the two faces."""
    labels = np.zeros(kappa.shape, dtype=np.int32)
    known = np.unique(kappa[kappa > 0])
    for i, value in enumerate(known, start=1):
        labels[kappa == value] = i
    cell = voxel_cell(comm, labels, sides, phases=range(1, known.size + 1))
    k = conductivity_field(cell, dict(enumerate(map(np.asarray, known), start=1)))
    V = fem.functionspace(cell.mesh, ("Lagrange", 1))
    u, v, chi = ufl.TrialFunction(V), ufl.TestFunction(V), fem.Function(V)
    ends = fem.locate_dofs_geometrical(
        V, lambda x: np.isclose(x[axis], 0) | np.isclose(x[axis], cell.upper[axis])
    )
    bcs = [fem.dirichletbc(0.0, ends, V)]
    options = {"ksp_rtol": TIGHT}
    solver = LinearSolver(k * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, bcs, petsc_options=options)
    solver.assemble()
    e = ufl.as_vector([float(i == axis) for i in range(cell.dim)])
    b = assemble_dual(fem.form(-k * ufl.inner(e, ufl.grad(v)) * ufl.dx))
    zero_on_boundary(b, bcs)
    solver.solve(b, chi)
    local = e + ufl.grad(chi)
    return global_sum(fem.form(k * ufl.inner(local, local) * ufl.dx)) / cell.volume


@pytest.mark.parametrize(
    ("shape", "sides"), [((9, 8), (1.0, 1.0)), ((7, 6, 5), (1.0, 1.0, 1.0)), ((6, 7, 5), (1.0, 0.5, 2.0))]
)
@pytest.mark.parametrize("contrast", [1.0, 100.0])
def test_elements_as_on_a_mesh(comm, shape, sides, contrast):
    mask = noise(shape, 0.75, 2)
    kappa = np.where(mask, np.where(noise(shape, 0.5, 3), contrast, 1.0), 0.0)
    grid = VoxelGrid(comm, shape, sides)
    for axis in range(len(shape)):
        k = np.where(connectivity(mask, [axis])[0].through, kappa, 0.0)
        found = through(grid, grid.take(k), axis, "elements", rtol=TIGHT)
        assert found.conductivity == pytest.approx(on_a_mesh(comm, k, sides, axis), rel=1e-10)
        assert np.allclose(found.layer_flux, found.conductivity, rtol=1e-8)
        if contrast == 1.0:
            by_mask = through(grid, grid.take(k > 0), axis, "elements", rtol=TIGHT)
            assert by_mask.conductivity == pytest.approx(found.conductivity, rel=1e-10)


def values_of(grid, kappa, axis):
    own = grid.take(kappa)
    volumes = through(grid, own, axis, "finite volumes", rtol=TIGHT)
    elements = through(grid, own, axis, "elements", rtol=TIGHT)
    return elements.conductivity, volumes.conductivity, volumes.lower_bound


@pytest.mark.parametrize("periodic", [(False, True, True), (False, False, True)])
def test_periodic_sides_do_not_depend_on_the_origin(comm, periodic):
    mask = noise((8, 7, 6), 0.9, 5)
    grid = VoxelGrid(comm, mask.shape, periodic=periodic)
    values = []
    for shift in (0, 3):
        moved = np.roll(mask, [shift if p else 0 for p in periodic], axis=(0, 1, 2))
        values.append(values_of(grid, connectivity(moved, [0], periodic=periodic)[0].through, 0))
    assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_periodic_along_any_axis(comm):
    """Periodic along axis 0 and transport along axis 1, and the same image turned."""
    mask = noise((8, 6, 5), 0.85, 6)
    periodic = (True, False, True)
    here = connectivity(mask, [1], periodic=periodic)[0].through
    turned = np.ascontiguousarray(here.transpose(1, 0, 2))
    one = values_of(VoxelGrid(comm, here.shape, periodic=periodic), here, 1)
    other = values_of(VoxelGrid(comm, turned.shape, periodic=(False, True, True)), turned, 0)
    assert one == pytest.approx(other, rel=1e-9)


def test_flux_is_in_balance(comm):
    """The same amount goes through every plane, and what is missing is what `imbalance` says."""
    mask = connectivity(noise((9, 8, 7), 0.7, 1), [0])[0].through
    grid = VoxelGrid(comm, mask.shape, (1.0, 2.0, 1.5))
    bounds = []
    for rtol, limit in ((1e-12, 1e-9), (1e-2, 0.3)):
        found = through(grid, grid.take(mask), 0, rtol=rtol)
        assert np.ptp(found.layer_flux) <= found.imbalance * 1.01 + 1e-14
        assert found.imbalance < limit
        bounds.append(found.lower_bound)
    assert found.imbalance > 1e-6
    assert bounds[1] <= bounds[0]


def test_worse_will_do_where_it_must(comm):
    """A residual that round-off keeps from being reached: the interval still holds."""
    kappa = np.where(noise((12, 11, 10), 0.4, 0), 1e9, 1.0)
    grid = VoxelGrid(comm, kappa.shape)
    with pytest.raises(RuntimeError, match="did not reach a relative residual of 1e-20"):
        through(grid, grid.take(kappa), 0, rtol=1e-20)
    low = through(grid, grid.take(kappa), 0, rtol=1e-20, worst=1e-4).lower_bound
    high = through(grid, grid.take(kappa), 0, "elements", rtol=1e-20, worst=1e-4).conductivity
    assert 0 < low < high
    assert high == pytest.approx(on_a_mesh(comm, kappa, (1.0,) * 3, 0), rel=1e-4)
