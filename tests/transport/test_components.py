"""Connected components across ranks and periodic faces, against a count on the image itself."""

import itertools

import numpy as np
import pytest
from dolfinx import fem
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fetopo.microstructure.mesh import voxel_cell
from fetopo.transport.components import label_components, pin_islands
from fetopo.transport.periodic import periodic_space

pytestmark = pytest.mark.mpi


def components_of_image(mask):
    """Number of regions whose voxels share at least a corner, periodically."""
    numbers = np.full(mask.shape, -1)
    numbers[mask] = np.arange(mask.sum())
    pairs = []
    for shift in itertools.product((-1, 0, 1), repeat=mask.ndim):
        across = np.roll(numbers, shift, tuple(range(mask.ndim)))
        both = (numbers >= 0) & (across >= 0)
        pairs.append(np.column_stack([numbers[both], across[both]]))
    i, j = np.vstack(pairs).T
    return connected_components(coo_matrix((np.ones(i.size), (i, j)), shape=(mask.sum(),) * 2))[0]


def space(comm, mask, periodic=True):
    cell = voxel_cell(comm, mask.astype(np.uint8), phases=[1])
    V = fem.functionspace(cell.mesh, ("Lagrange", 1))
    return periodic_space(V, cell.lower, cell.upper, complete=cell.complete) if periodic else V


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("shape", "share"), [((24, 20), 0.25), ((10, 9, 8), 0.05), ((12, 4), 0.15)])
def test_same_number_as_in_the_image(comm, shape, share, seed):
    mask = np.random.default_rng(seed).random(shape) < share
    count, component = label_components(space(comm, mask))
    assert count == components_of_image(mask)
    assert max(comm.allgather(int(component.max(initial=0)))) == count - 1


def test_one_component(comm):
    count, component = label_components(space(comm, np.ones((6, 6), dtype=bool)))
    assert count == 1
    assert not component.any()


def test_seam_joins_only_periodic_spaces(comm):
    mask = np.zeros((12, 4), dtype=bool)
    mask[[0, 1, 10, 11]] = True
    assert label_components(space(comm, mask))[0] == 1
    assert label_components(space(comm, mask, periodic=False))[0] == 2


def test_spiral_through_all_ranks(comm):
    """A path that winds through the whole image is one component, however the mesh is divided."""
    mask = np.zeros((41, 21), dtype=bool)
    mask[::2, :20] = True
    mask[1::4, 19] = True
    mask[3::4, 0] = True
    mask[:, 20] = mask[40, :] = False
    assert label_components(space(comm, mask, periodic=False))[0] == 1
    mask[21, 19] = False
    mask[21 + 2, 0] = mask[20, 0]
    cut = components_of_image(mask)
    assert label_components(space(comm, mask))[0] == cut


def test_largest_comes_first(comm):
    mask = np.zeros((12, 12), dtype=bool)
    mask[1, 1] = mask[9:11, 1] = True
    mask[4:7, 4:8] = True
    V = space(comm, mask)
    count, component = label_components(V)
    assert count == 3
    owned = V.dofmap.index_map.size_local
    sizes = comm.allreduce(np.bincount(component[:owned], minlength=3))
    assert sizes.tolist() == [20, 6, 4]


def test_one_dof_of_every_island_is_pinned(comm):
    mask = np.zeros((12, 12), dtype=bool)
    mask[1, 1] = mask[9:11, 1] = True
    mask[4:7, 4:8] = True
    V = space(comm, mask)
    pinned, indicator, _ = pin_islands(V)
    _, component = label_components(V)
    imap = V.dofmap.index_map
    owned = imap.size_local
    mine = pinned[pinned < owned]
    assert sorted(itertools.chain(*comm.allgather(component[mine].tolist()))) == [1, 2]
    # Ranks that have it as a ghost must fix it too.
    chosen = np.concatenate(comm.allgather(imap.local_to_global(mine)))
    everything = imap.local_to_global(np.arange(component.size, dtype=np.int32))
    assert set(everything[pinned]) == set(chosen) & set(everything)
    assert comm.allreduce(indicator[:owned].sum()) == 20
    assert not indicator[pinned].any()


def test_nothing_is_pinned_without_islands(comm):
    pinned, indicator, _ = pin_islands(space(comm, np.ones((4, 4), dtype=bool)))
    assert comm.allreduce(pinned.size) == 0
    assert (indicator == 1).all()
