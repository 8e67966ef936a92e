"""Loads of the voxel cell problem in which fluxes of order one cancel to next to nothing."""

import numpy as np
import pytest

from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("scheme", ["finite volumes", "elements"])
@pytest.mark.parametrize("noise", [0.0, 1e-15, 1e-13, 1e-10])
@pytest.mark.parametrize("unit", [1.0, 1e-20])
def test_laminate_that_hardly_varies_along_its_layers(comm, scheme, noise, unit):
    grid = VoxelGrid(comm, (32, 32), (2e-6, 1e-6), periodic=True)
    layers = np.where(np.arange(32) < 16, 1.0, 1e-3)[None, :]
    rough = np.random.default_rng(0).uniform(-1, 1, (32, 32))
    problem = VoxelCellProblem(grid, scheme=scheme, rtol=1e-8)
    # As in a design: from the potentials of another structure.
    for size in (0.5, noise):
        problem.assign(unit * grid.take(layers * (1 + size * rough)))
        problem.solve()
    expected = np.diag([layers.mean(), 1 / np.mean(1 / layers)])
    assert problem.tensor / unit == pytest.approx(expected, rel=1e-6, abs=1e-9)
