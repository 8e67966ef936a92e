"""Connected components of the degrees of freedom of a space, across ranks and across periodic faces."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import la
from mpi4py import MPI
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fetopo.transport.periodic import to_ghosts


def label_components(
    V: Any,
    cells: npt.NDArray[np.int32] | None = None,
    links: npt.NDArray[np.int32] | None = None,
) -> tuple[int, npt.NDArray[np.int64]]:
    """Number the parts of a space whose degrees of freedom are linked through cells.

    Each rank labels its own part; only the links between parts of different ranks travel.

    Args:
        V: scalar space; a periodic one links what its faces identify.
        cells: local cells through which to link; default all.
        links: further pairs of local degrees of freedom that belong together, shape (n, 2).
    Returns:
        Number of components, and the component of each local degree of freedom, −1 for those of none of the
        cells. Component 0 is the largest.
    """
    comm, imap = V.mesh.comm, V.dofmap.index_map
    size = imap.size_local + imap.num_ghosts
    dofs = V.dofmap.list if cells is None else V.dofmap.list[cells]
    rows = np.repeat(np.arange(dofs.shape[0]), dofs.shape[1])
    # Two degrees of freedom are linked if a cell has both: a bipartite graph of cells and dofs.
    ends = [np.column_stack([rows, dofs.reshape(-1) + dofs.shape[0]])]
    if links is not None:
        ends.append(links + dofs.shape[0])
    pairs = np.vstack(ends)
    graph = coo_matrix(
        (np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), (dofs.shape[0] + size,) * 2
    )
    _, labels = connected_components(graph, directed=False)
    touched = np.zeros(size, dtype=bool)
    touched[dofs] = True
    active = on_every_copy(V, touched)
    kept, compressed = np.unique(labels[dofs.shape[0] :][active], return_inverse=True)
    local = np.full(size, -1, dtype=np.int64)
    local[active] = compressed.reshape(-1)

    counts = comm.allgather(len(kept))
    offset = int(sum(counts[: comm.rank]))
    numbered = np.where(active, local + offset, -1)
    seen_by_owner = to_ghosts(imap, numbered[: imap.size_local])
    ghosts = np.flatnonzero(active[imap.size_local :]) + imap.size_local
    between = np.unique(np.column_stack([numbered, seen_by_owner])[ghosts], axis=0)
    every = np.vstack(comm.allgather(between))
    total = sum(counts)
    joined = coo_matrix((np.ones(len(every)), (every[:, 0], every[:, 1])), shape=(total, total))
    merged = connected_components(joined, directed=False)[1] if total else np.zeros(0, dtype=np.int64)

    mine = np.full(size, -1, dtype=np.int64)
    mine[active] = merged[numbered[active]]
    own = mine[: imap.size_local]
    sizes = np.bincount(own[own >= 0], minlength=int(merged.max(initial=0)) + 1)
    comm.Allreduce(sizes.copy(), sizes)
    # Cells of their own without owned dofs anywhere leave empty labels behind; the largest comes first.
    rank_by_size = np.empty(sizes.size, dtype=np.int64)
    rank_by_size[np.argsort(-sizes, kind="stable")] = np.arange(sizes.size)
    mine[active] = rank_by_size[mine[active]]
    return int((sizes > 0).sum()), mine


def on_every_copy(V: Any, marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Local degrees of freedom marked on any rank that has them."""
    vector = la.vector(V.dofmap.index_map, dtype=np.float64)
    vector.array[:] = marked
    vector.scatter_reverse(la.InsertMode.add)
    vector.scatter_forward()
    return vector.array > 0.5


def lowest_numbers(V: Any, count: int, component: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Smallest global number among the degrees of freedom of each component, shape (count,)."""
    imap = V.dofmap.index_map
    first = np.full(count, np.iinfo(np.int64).max)
    own = component[: imap.size_local]
    inside = np.flatnonzero(own >= 0)
    np.minimum.at(first, own[inside], inside + int(imap.local_range[0]))
    lowest = np.empty_like(first)
    V.mesh.comm.Allreduce(first, lowest, op=MPI.MIN)
    return lowest


def pin_islands(
    V: Any,
    cells: npt.NDArray[np.int32] | None = None,
    links: npt.NDArray[np.int32] | None = None,
    fixed: npt.NDArray[np.int32] | None = None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64] | None, int]:
    """What makes a conduction problem on V solvable.

    Args:
        V: scalar space.
        cells, links: of :func:`label_components`; degrees of freedom of no such cell are fixed.
        fixed: local degrees of freedom that boundary conditions fix, on every rank that has them.
    Returns:
        Degrees of freedom to be fixed, on their owner and on every rank that has them as a ghost (both sum
        into their rows): one of every component without a fixed one, but not of the largest component if
        none is fixed anywhere. Then the indicator of that component over local degrees of freedom, which
        spans the remaining null space, or None if there is none; and how many components were pinned.
    """
    comm, imap = V.mesh.comm, V.dofmap.index_map
    count, component = label_components(V, cells, links)
    held = np.zeros(count, dtype=np.int64)
    if fixed is not None:
        of_fixed = component[fixed]
        held[of_fixed[of_fixed >= 0]] = 1
    comm.Allreduce(held.copy(), held)
    free = np.flatnonzero(held == 0)
    indicator = None
    if fixed is None and count:
        indicator, free = (component == 0).astype(float), free[1:]
    numbers = imap.local_to_global(np.arange(component.size, dtype=np.int32))
    pinned = np.isin(numbers, lowest_numbers(V, count, component)[free]) | (component < 0)
    return np.flatnonzero(pinned).astype(np.int32), indicator, len(free)
