"""Matrices assembled from arrays against DOLFINx's, and what the two discretizations share under MPI."""

import numpy as np
import pytest
import ufl
from dolfinx import fem

from fetopo.microstructure.connectivity import connectivity
from fetopo.microstructure.mesh import voxel_cell
from fetopo.microstructure.slab import Slab
from fetopo.transport.grid import grid_of, number, pad
from fetopo.transport.grid_elements import solve_elements
from fetopo.transport.grid_flux import solve_flux
from fetopo.transport.homogenization import conductivity_field
from fetopo.transport.state import LinearSolver, assemble_dual, global_sum, zero_on_boundary

pytestmark = pytest.mark.mpi
TIGHT = {"ksp_rtol": 1e-12}


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
    solver = LinearSolver(k * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, bcs, petsc_options=TIGHT)
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
def test_same_as_a_mesh(comm, shape, sides, contrast):
    mask = noise(shape, 0.75, 2)
    kappa = np.where(mask, np.where(noise(shape, 0.5, 3), contrast, 1.0), 0.0)
    for axis in range(len(shape)):
        through = connectivity(mask, [axis])[0].through
        k = np.where(through, kappa, 0.0)
        grid = grid_of(Slab.share(comm, k), sides, [False] * len(shape))
        found = solve_elements(grid, axis, TIGHT)
        assert found.conductivity == pytest.approx(on_a_mesh(comm, k, sides, axis), rel=1e-10)
        assert np.allclose(found.layer_flux, found.conductivity, rtol=1e-8)


@pytest.mark.parametrize("periodic", [(False, True, True), (False, False, True)])
def test_periodic_sides_do_not_depend_on_the_origin(comm, periodic):
    mask = noise((8, 7, 6), 0.9, 5)
    values = []
    for shift in (0, 3):
        moved = np.roll(mask, [shift if p else 0 for p in periodic], axis=(0, 1, 2))
        through = connectivity(moved, [0], periodic=periodic)[0].through
        grid = grid_of(Slab.share(comm, through), (1.0, 1.0, 1.0), periodic)
        flux = solve_flux(grid, 0, TIGHT)
        values.append((solve_elements(grid, 0, TIGHT).conductivity, flux.mean[0, 0], flux.energy[0, 0]))
    assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_periodic_along_the_slabs(comm):
    """Axis 0, along which the image is distributed, periodic: transport along axis 1."""
    mask = noise((8, 6, 5), 0.85, 6)
    periodic = (True, False, True)
    here = Slab.share(comm, mask)
    found = connectivity(here, [1], periodic=periodic)[0]
    grid = grid_of(here.like(found.through), (1.0, 1.0, 1.0), periodic)
    turned = np.ascontiguousarray(mask.transpose(1, 0, 2))
    part = connectivity(turned, [0], periodic=(False, True, True))[0]
    other = grid_of(Slab.share(comm, part.through), (1.0, 1.0, 1.0), (False, True, True))
    assert found.percolating == part.percolating
    for solve in (solve_elements, solve_flux):
        a, b = solve(grid, 1, TIGHT), solve(other, 0, TIGHT)
        if solve is solve_flux:
            assert a.mean[0, 0] == pytest.approx(b.mean[0, 0], rel=1e-9)
        else:
            assert a.conductivity == pytest.approx(b.conductivity, rel=1e-9)


def test_flux_is_in_balance(comm):
    """The same amount goes through every plane, and what is missing is what `imbalance` says."""
    through = connectivity(noise((9, 8, 7), 0.7, 1), [0])[0].through
    grid = grid_of(Slab.share(comm, through), (1.0, 2.0, 1.5), (False,) * 3)
    for rtol, limit in ((1e-12, 1e-9), (1e-2, 0.1)):
        found = solve_flux(grid, 0, {"ksp_rtol": rtol})
        assert np.ptp(found.plane_flux[0]) <= found.imbalance[0] * 1.01
        assert found.imbalance[0] < limit
    assert found.imbalance[0] > 1e-6


def test_neighbours_and_numbers(comm):
    values = np.arange(24.0).reshape(6, 4)
    slab = Slab.share(comm, values)
    rows = slice(slab.first, slab.first + len(slab.values) + 2)
    whole = np.pad(values, 1, mode="wrap")
    assert np.array_equal(pad(comm, slab.values, (True, True), 0), whole[rows])
    closed = np.pad(values, ((1, 1), (0, 0)), constant_values=-1)
    closed = np.pad(closed, ((0, 0), (1, 1)), mode="wrap")
    assert np.array_equal(pad(comm, slab.values, (False, True), -1), closed[rows])
    used = values % 3 != 0
    numbers, own, total = number(comm, Slab.share(comm, used).values, (False, False))
    expected = np.full((8, 6), -1)
    expected[1:-1, 1:-1][used] = np.arange(16)
    assert np.array_equal(numbers, expected[rows])
    assert (total, comm.allreduce(own)) == (16, 16)
