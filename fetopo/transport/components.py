"""Connected components of the degrees of freedom of a space, across ranks and across periodic faces."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fetopo.transport.periodic import to_ghosts


def label_components(V: Any) -> tuple[int, npt.NDArray[np.int64]]:
    """Number the parts of a space whose degrees of freedom are linked through cells.

    Each rank labels its own part; only the links between parts of different ranks travel.

    Args:
        V: scalar space; a periodic one links what its faces identify.
    Returns:
        Number of components, and the component of each local degree of freedom. Component 0 is the largest.
    """
    comm, imap = V.mesh.comm, V.dofmap.index_map
    size = imap.size_local + imap.num_ghosts
    cells = V.dofmap.list
    rows = np.repeat(np.arange(cells.shape[0]), cells.shape[1])
    graph = coo_matrix((np.ones(rows.size, dtype=np.int8), (rows, cells.reshape(-1))), (cells.shape[0], size))
    # Two degrees of freedom are linked if a cell has both: a bipartite graph of cells and dofs.
    bipartite = coo_matrix(
        (graph.data, (graph.row, graph.col + cells.shape[0])), shape=(cells.shape[0] + size,) * 2
    )
    found, labels = connected_components(bipartite, directed=False)
    local = labels[cells.shape[0] :]

    counts = comm.allgather(int(found))
    offset = int(sum(counts[: comm.rank]))
    seen_by_owner = to_ghosts(imap, local[: imap.size_local] + offset)
    links = np.unique(np.column_stack([local + offset, seen_by_owner])[imap.size_local :], axis=0)
    every = np.vstack(comm.allgather(links))
    total = sum(counts)
    joined = coo_matrix((np.ones(len(every)), (every[:, 0], every[:, 1])), shape=(total, total))
    _, merged = connected_components(joined, directed=False)

    mine = merged[local + offset]
    sizes = np.bincount(mine[: imap.size_local], minlength=int(merged.max(initial=0)) + 1)
    comm.Allreduce(sizes.copy(), sizes)
    # Cells of their own without owned dofs anywhere leave empty labels behind; the largest comes first.
    rank_by_size = np.empty(sizes.size, dtype=np.int64)
    rank_by_size[np.argsort(-sizes, kind="stable")] = np.arange(sizes.size)
    return int((sizes > 0).sum()), rank_by_size[mine]


def pin_islands(V: Any) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """What makes a pure Neumann or periodic problem on V solvable.

    Returns:
        One degree of freedom of every component but the largest, to be fixed, on its owner and on every
        rank that has it as a ghost (both sum into its row), and the indicator of the largest component over
        local degrees of freedom, which spans the remaining null space.
    """
    count, component = label_components(V)
    indicator = (component == 0).astype(float)
    if count == 1:
        return np.zeros(0, dtype=np.int32), indicator
    comm, imap = V.mesh.comm, V.dofmap.index_map
    first = np.full(count, np.iinfo(np.int64).max)
    own = component[: imap.size_local]
    np.minimum.at(first, own, np.arange(imap.size_local) + int(imap.local_range[0]))
    lowest = np.empty_like(first)
    comm.Allreduce(first, lowest, op=MPI.MIN)
    numbers = imap.local_to_global(np.arange(component.size, dtype=np.int32))
    return np.flatnonzero(np.isin(numbers, lowest[1:])).astype(np.int32), indicator
