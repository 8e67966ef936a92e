"""Iterations that depend neither on size nor on contrast, nor on ranks and threads."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from fetopo.transport.voxel import ScreenedPoisson, VoxelCellProblem, VoxelGrid, through
from fetopo.transport.voxel.level import Level

SCHEMES = ("finite volumes", "elements")


def blobs(shape, share, seed=0, width=2.0):
    """A periodic two-phase medium of smooth blobs."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), width, mode="wrap")
    return field > np.quantile(field, 1 - share)


def iterations(comm, kappa, scheme, rtol=1e-6):
    problem = VoxelCellProblem(VoxelGrid(comm, kappa.shape, periodic=True), scheme, rtol)
    problem.assign(problem.grid.take(kappa))
    problem.solve()
    return problem.iterations, problem.tensor


@pytest.mark.mpi
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("contrast", [1.0, 10.0, 1e3, 1e6, 1e9])
def test_contrast(comm, scheme, contrast):
    for shape, share in (((32, 32, 32), 0.3), ((33, 27, 30), 0.5), ((96, 80), 0.5)):
        mask = blobs(shape, share)
        for kappa in (np.where(mask, 1.0, 1 / contrast), np.where(mask, 1.0, contrast)):
            assert iterations(comm, kappa, scheme)[0] <= 20


@pytest.mark.parametrize("scheme", SCHEMES)
def test_size(comm, scheme):
    found = [iterations(comm, np.where(blobs((n,) * 3, 0.4), 1.0, 0.0), scheme)[0] for n in (16, 32, 64)]
    assert max(found) <= 13


@pytest.mark.mpi
@pytest.mark.parametrize("scheme", SCHEMES)
def test_specks(comm, scheme):
    """Specks of a good conductor, two of them in one aggregate: what single corrections are there for."""
    rng = np.random.default_rng(3)
    specks = ndimage.binary_dilation(rng.random((32, 32, 32)) < 0.01)
    for contrast in (1e2, 1e4, 1e6):
        assert iterations(comm, np.where(specks, 1.0, 1 / contrast), scheme)[0] <= 22


@pytest.mark.parametrize("scheme", SCHEMES)
def test_flat_voxels_and_layers(comm, scheme):
    """Axes that couple weakly are not coarsened before the others have caught up."""
    mask = blobs((32, 32, 32), 0.5)
    for sides in ((1.0, 1.0, 10.0), (0.1, 1.0, 10.0)):
        problem = VoxelCellProblem(VoxelGrid(comm, mask.shape, sides, True), scheme, 1e-6)
        problem.assign(problem.grid.take(np.where(mask, 1.0, 0.01)))
        problem.solve()
        assert problem.iterations <= 25
    tensor = np.stack([np.where(mask, 1.0, 0.1) * k for k in (1.0, 1e-2, 1e2)])
    problem = VoxelCellProblem(VoxelGrid(comm, mask.shape, periodic=True), scheme, 1e-6)
    problem.assign(np.stack([problem.grid.take(part) for part in tensor]))
    problem.solve()
    assert problem.iterations <= 25


@pytest.mark.mpi
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(40, 36, 28), (45, 50), (20, 20, 20)])
def test_ranks_agree(comm, alone, scheme, shape):
    """Same iterations, give or take one, and the same values; specks across borders of blocks included."""
    mask = blobs(shape, 0.5, seed=1, width=1.0)
    field = ndimage.uniform_filter(np.random.default_rng(0).random(shape), 2)
    for kappa in (np.where(mask, 1.0, 1e-4), np.where(mask, 1.0, 0.0), 10.0 ** (-3 * field)):
        together, D = iterations(comm, kappa, scheme, 1e-8)
        single, D1 = iterations(alone, kappa, scheme, 1e-8)
        assert abs(together - single) <= 1
        # Where nothing percolates the tensor is zero, but for round-off.
        assert np.abs(D - D1).max() <= 1e-8 * max(np.abs(D1).max(), 1e-3 * kappa.mean())
    grid, grid1 = VoxelGrid(comm, shape), VoxelGrid(alone, shape)
    found = through(grid, grid.take(mask), 0, scheme, rtol=1e-8)
    single = through(grid1, grid1.take(mask), 0, scheme, rtol=1e-8)
    assert abs(found.iterations - single.iterations) <= 1
    assert found.conductivity == pytest.approx(single.conductivity, rel=1e-8)
    assert np.allclose(found.layer_flux, single.layer_flux, rtol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_any_tolerance(alone, scheme):
    """Vectors in single precision do not limit what is reached."""
    mask = blobs((24, 24, 24), 0.5)
    loose = iterations(alone, np.where(mask, 1.0, 0.01), scheme, 1e-4)
    tight = iterations(alone, np.where(mask, 1.0, 0.01), scheme, 1e-12)
    assert tight[0] > loose[0]
    # The energy's error is of the order of the residual's square.
    assert 1e-14 < np.abs(loose[1] - tight[1]).max() < 1e-6


def test_no_convergence_is_an_error(alone):
    problem = VoxelCellProblem(VoxelGrid(alone, (16, 16, 16), periodic=True))
    problem.assign(np.where(blobs((16, 16, 16), 0.5), 1.0, 1e-3))
    problem.state.solver.most = 2
    with pytest.raises(RuntimeError, match="in 2 iterations"):
        problem.solve()


def test_starts_from_the_last_solution(alone):
    kappa = np.where(blobs((24, 24, 24), 0.5), 1.0, 1e-2)
    problem = VoxelCellProblem(VoxelGrid(alone, kappa.shape, periodic=True), rtol=1e-8)
    problem.assign(kappa)
    problem.solve()
    first = problem.iterations
    problem.assign(kappa * (1 + 1e-4 * np.random.default_rng(0).random(kappa.shape)))
    problem.solve()
    assert problem.iterations < first


def test_threads_change_nothing():
    """Sums go plane by plane, whoever computes them."""
    code = (
        "import numpy as np; from mpi4py import MPI\n"
        "from fetopo.transport.voxel import VoxelGrid, through\n"
        "m = np.random.default_rng(0).random((32, 32, 32)) < 0.7; g = VoxelGrid(MPI.COMM_WORLD, m.shape)\n"
        "for s in ('finite volumes', 'elements'): print(through(g, m, 0, s).conductivity.hex())"
    )
    results = []
    for threads in ("1", "3"):
        environment = os.environ | {"OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        results.append(done.stdout)
    assert results[0] == results[1]


@pytest.mark.mpi
def test_screened_poisson(comm):
    """Against Fourier: the discrete symbol is known."""
    shape, length = (24, 20, 16), 0.13
    sides = (0.1, 0.05, 0.1)
    f = np.random.default_rng(2).random(shape)
    grid = VoxelGrid(comm, shape, sides, periodic=True)
    found = grid.gather(ScreenedPoisson(grid, length, rtol=1e-12).solve(grid.take(f)))
    symbol = 1.0 + sum(
        length**2 * (2 - 2 * np.cos(2 * np.pi * k)) / h**2
        for k, h in zip(np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij"), sides, strict=True)
    )
    expected = np.fft.ifftn(np.fft.fftn(f) / symbol).real
    assert np.abs(found - expected).max() < 1e-10
    with pytest.raises(ValueError, match="must be positive"):
        ScreenedPoisson(grid, 0.0)


def test_coarse_levels_keep_their_arrays(alone, monkeypatch):
    """A design assigns new conductivities hundreds of times."""
    problem = VoxelCellProblem(VoxelGrid(alone, (32, 32, 32), periodic=True))
    problem.assign(np.ones((32, 32, 32)))
    made = []
    plain = Level.__init__
    monkeypatch.setattr(Level, "__init__", lambda self, *a: (made.append(1), plain(self, *a))[1])
    problem.assign(np.full((32, 32, 32), 2.0))
    assert not made
