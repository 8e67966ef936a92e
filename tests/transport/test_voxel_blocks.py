"""Blocks of a grid on any number of ranks: every voxel once, the right neighbours, and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetopo.microstructure.slab import Slab
from fetopo.transport.voxel import VoxelGrid
from fetopo.transport.voxel.blocks import Blocks, partition

pytestmark = pytest.mark.mpi


@given(st.tuples(*(st.integers(1, 200),) * 3), st.integers(1, 48))
@settings(max_examples=200, deadline=None)
def test_partition_is_even_and_on_borders_of_aggregates(shape, size):
    found = partition(shape, size)
    if found is None:
        return
    assert np.prod([len(b) - 1 for b in found]) == size
    for n, borders in zip(shape, found, strict=True):
        width = np.diff(borders)
        assert borders[0] == 0
        assert borders[-1] == n
        if len(width) > 1:
            mean = n / len(width)
            assert width.min() >= 4
            assert width.max() <= max(1.1 * mean, mean + 1)


def test_large_blocks_meet_where_coarse_aggregates_do():
    assert partition((500, 500, 500), 2) == [[0, 256, 500], [0, 500], [0, 500]]
    borders = partition((512, 512, 512), 8)
    assert borders == [[0, 256, 512]] * 3


@pytest.mark.parametrize("shape", [(13, 9), (12, 8, 10), (16, 16, 16), (3, 2, 2)])
@pytest.mark.parametrize("periodic", [False, True])
def test_ghosts_are_the_neighbours(comm, shape, periodic):
    grid = VoxelGrid(comm, shape, periodic=periodic)
    numbers = np.arange(grid.size, dtype=np.int64).reshape(shape)
    own = grid.take(numbers)
    assert np.array_equal(grid.gather(own), numbers)
    slab = grid.to_slab(own)
    assert np.array_equal(np.concatenate(comm.allgather(slab.values)), numbers)
    assert np.array_equal(grid.take(Slab.share(comm, numbers)), own)
    assert grid.alone or comm.allreduce(own.size) == grid.size

    blocks = grid.blocks
    padded = blocks.padded(2, np.float64)
    padded[:, 1:-1, 1:-1, 1:-1] = own.reshape(blocks.own_shape)
    padded[1] *= -1
    blocks.exchange(padded)
    expected = np.pad(numbers.reshape(blocks.shape), 1, mode="wrap")
    inside = tuple(slice(s.start, s.stop + 2) for s in blocks.own)
    expected = expected[inside]
    for axis in range(3):
        first, last = blocks.ends(axis)
        for side, end in ((0, first), (-1, last)):
            layer = np.moveaxis(padded[0], axis, 0)[side]
            if blocks.parts[axis] > 1 and (not end or blocks.periodic[axis]):
                wanted = np.moveaxis(expected, axis, 0)[side]
                inner = tuple(slice(1, -1) for _ in range(2))
                assert np.array_equal(layer[inner], wanted[inner])
            else:
                assert not layer[1:-1, 1:-1].any()
    assert np.array_equal(padded[1], -padded[0])


def test_aggregates_across_ranks_are_refused():
    blocks = Blocks(type("Comm", (), {"rank": 0, "size": 2})(), ((0, 6, 10), (0, 8), (0, 8)), (False,) * 3)
    assert blocks.coarse((2, 2, 2)).bounds == ((0, 3, 5), (0, 4), (0, 4))
    assert blocks.coarse((2, 2, 2)).coarse((2, 2, 2)) is None
    assert blocks.coarse((2, 2, 2)).coarse((1, 2, 2)).bounds == ((0, 3, 5), (0, 2), (0, 2))


def test_wrong_input(comm):
    with pytest.raises(ValueError, match="two or three positive"):
        VoxelGrid(comm, (4, 0))
    with pytest.raises(ValueError, match="one value or 2"):
        VoxelGrid(comm, (4, 4), periodic=(True, True, True))
    with pytest.raises(ValueError, match="expected \\(4, 4\\)"):
        VoxelGrid(comm, (4, 4)).take(np.zeros((3, 4)))
