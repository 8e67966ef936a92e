"""Periodic function spaces: degrees of freedom on opposite faces of a cell are one and the same.

The dofmap itself identifies them, so that forms, assembly, solvers and derivatives need to know nothing
about periodicity, the matrix is smaller than with constraints, and its null space is the constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import la
from mpi4py import MPI

from fetopo._compat import index_map, space_with_dofs

# Coordinates are compared on a grid of this many steps per edge of the cell. Points that fall into
# different steps by round-off are caught by the next shift of the grid.
_STEPS = 1e7
_SHIFTS = (0.1234567, 0.4567891, 0.7891234)


def periodic_space(V: Any, lower: npt.ArrayLike, upper: npt.ArrayLike, *, complete: bool = True) -> Any:
    """The space `V` with the degrees of freedom on opposite faces of a box identified.

    Args:
        V: scalar Lagrange or Crouzeix–Raviart space.
        lower, upper: corners of the cell, shape (d,); every axis is periodic.
        complete: whether each degree of freedom on a face must find a partner. Set it to False on a
            mesh of some phases only, where a pore may end at a solid across the seam.
    Returns:
        A space on the same mesh; functions interpolate to and from `V` cell by cell.
    Raises:
        ValueError: on every rank, if opposite faces are not meshed alike.
        NotImplementedError: for vector-valued spaces.
    """
    if V.dofmap.bs != 1:
        raise NotImplementedError("periodic spaces of vector-valued elements are not supported")
    comm, imap = V.mesh.comm, V.dofmap.index_map
    x = V.tabulate_dof_coordinates()[: imap.size_local]
    renumbered, local, lonely = identify(comm, imap, x, lower, upper)
    if complete and lonely:
        raise ValueError(
            f"opposite faces of the cell are not meshed alike: {lonely} degrees of freedom on its boundary "
            "have no partner on the face across"
        )
    return space_with_dofs(V, renumbered, local[V.dofmap.list])


def identify(
    comm: MPI.Intracomm, imap: Any, points: npt.NDArray, lower: npt.ArrayLike, upper: npt.ArrayLike
) -> tuple[Any, npt.NDArray[np.int32], int]:
    """Make one of all indices whose points lie at the same place of a periodic box. Collective.

    Args:
        imap: index map of what is identified: degrees of freedom, edges.
        points: places of the owned indices, shape (owned, 3).
        lower, upper: corners of the box, shape (d,).
    Returns:
        Index map of those that remain, the new local index of each local index, and how many indices on the
        boundary have no partner.
    """
    owned = imap.size_local
    lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
    x = points[:, : lower.size]
    on_low = np.isclose(x, lower, rtol=0, atol=1e-9 * (upper - lower))
    on_high = np.isclose(x, upper, rtol=0, atol=1e-9 * (upper - lower))
    faces = np.flatnonzero((on_low | on_high).any(axis=1))
    scaled = np.where(on_high | on_low, 0.0, (x - lower) / (upper - lower))[faces]

    first = int(imap.local_range[0])
    master, group = match_points(comm, scaled, first + faces)
    expected = 2 ** (on_low | on_high)[faces].sum(axis=1)
    lonely = int(comm.allreduce(int((group != expected).sum())))
    masters = np.arange(first, first + owned, dtype=np.int64)
    masters[faces] = master
    renumbered, local = _renumber(comm, imap, masters)
    return renumbered, local, lonely


def _exchange(
    comm: MPI.Intracomm, destination: npt.NDArray, rows: npt.NDArray
) -> tuple[npt.NDArray, npt.NDArray]:
    """Send each row to its destination; returns the rows received and how many came from each rank."""
    order = np.argsort(destination, kind="stable")
    counts = np.bincount(destination, minlength=comm.size).astype(np.int32)
    received = np.empty_like(counts)
    comm.Alltoall(counts, received)
    width = rows.shape[1]
    out = np.empty((int(received.sum()), width), dtype=np.int64)
    comm.Alltoallv(
        [np.ascontiguousarray(rows[order], dtype=np.int64), counts * width, MPI.INT64_T],
        [out, received * width, MPI.INT64_T],
    )
    return out, received


def match_points(
    comm: MPI.Intracomm, scaled: npt.NDArray, numbers: npt.NDArray
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each point the smallest number among the points at the same place, and how many those are.

    Points travel to a rank chosen from their coordinates, which compares them and answers.
    """

    def smallest(place: npt.NDArray, size: npt.NDArray, numbers: npt.NDArray) -> npt.NDArray:
        least = np.full(size.size, np.iinfo(np.int64).max)
        np.minimum.at(least, place, numbers)
        return np.column_stack([least[place], size[place]])

    master = np.asarray(numbers, dtype=np.int64).copy()
    group = np.ones(master.size, dtype=np.int64)
    for found, together in _meet(comm, scaled, numbers, smallest):
        better = together > group
        master[better], group[better] = found[better], together[better]
    return master, group


def _meet(
    comm: MPI.Intracomm,
    points: npt.NDArray,
    values: npt.NDArray,
    answer: Callable[[npt.NDArray, npt.NDArray, npt.NDArray], npt.NDArray],
) -> Iterator[npt.NDArray[np.int64]]:
    """Bring points at the same place together, once for each shift of the grid.

    Args:
        comm: communicator.
        points: in units of the cell, shape (n, d).
        values: an integer that travels with each, shape (n,).
        answer: from the place of each point that came, the number of points at each place and the values, the
            columns to send back to each point.
    Yields:
        Those columns for the points of this rank, shape (columns, n).
    """
    for shift in _SHIFTS:
        key = np.floor(points * _STEPS + shift).astype(np.int64)
        key = np.pad(key, ((0, 0), (0, 3 - key.shape[1])))
        mixed = (key * np.array([73856093, 19349663, 83492791])).sum(axis=1)
        destination = np.abs(mixed) % comm.size
        order = np.argsort(destination, kind="stable")
        rows, counts = _exchange(comm, destination, np.column_stack([key, values]))
        _, place, size = np.unique(rows[:, :3], axis=0, return_inverse=True, return_counts=True)
        place = place.reshape(-1)
        source = np.repeat(np.arange(comm.size), counts)
        answers, _ = _exchange(comm, source, answer(place, size, rows[:, 3]))
        sorted_back = np.empty_like(answers)
        sorted_back[order] = answers
        yield sorted_back.T


def _renumber(
    comm: MPI.Intracomm, imap: Any, masters: npt.NDArray[np.int64]
) -> tuple[Any, npt.NDArray[np.int32]]:
    """Index map of the dofs that are their own master, and the new local index of each old one."""
    owned, first = imap.size_local, int(imap.local_range[0])
    kept = masters == np.arange(first, first + owned)
    new_owned = int(kept.sum())
    offset = int(comm.exscan(new_owned) or 0)
    new_number = np.full(owned, -1, dtype=np.int64)
    new_number[kept] = offset + np.arange(new_owned)
    owner = np.full(owned, comm.rank, dtype=np.int64)

    # The master's owner tells its new number.
    starts = np.array(comm.allgather(first), dtype=np.int64)
    gone = np.flatnonzero(~kept)
    holder = np.searchsorted(starts, masters[gone], side="right") - 1
    order = np.argsort(holder, kind="stable")
    asked, counts = _exchange(comm, holder, masters[gone][:, None])
    replies, _ = _exchange(
        comm, np.repeat(np.arange(comm.size), counts), new_number[asked - first].reshape(-1, 1)
    )
    new_number[gone[order]] = replies[:, 0]
    owner[gone] = holder

    # Ghosts learn both from the rank that owns them. Numbers below 2⁵³ survive as float64.
    number_all, owner_all = to_ghosts(imap, new_number), to_ghosts(imap, owner)
    ghost = np.flatnonzero(owner_all != comm.rank)
    ghosts, position = np.unique(number_all[ghost], return_index=True)
    owners = owner_all[ghost][position].astype(np.int32)
    renumbered = index_map(comm, new_owned, ghosts, owners)
    local = np.empty(number_all.size, dtype=np.int32)
    mine = owner_all == comm.rank
    local[mine] = number_all[mine] - offset
    local[ghost] = new_owned + np.searchsorted(ghosts, number_all[ghost])
    return renumbered, local


def to_ghosts(imap: Any, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Integers below 2⁵³ of the owned indices, completed by those that other ranks own."""
    vector = la.vector(imap, dtype=np.float64)
    vector.array[: imap.size_local] = values
    vector.scatter_forward()
    return vector.array.astype(np.int64)


def merged_space(V: Any, masters: npt.NDArray[np.int64]) -> tuple[Any, npt.NDArray[np.int32]]:
    """The space `V` with degrees of freedom identified: each owned one with its master.

    Args:
        V: scalar space.
        masters: global number of the master of each owned degree of freedom; a master is its own.
    Returns:
        The space, and the new local index of each old one.
    """
    renumbered, local = _renumber(V.mesh.comm, V.dofmap.index_map, masters)
    return space_with_dofs(V, renumbered, local[V.dofmap.list]), local


def facet_pairs(
    comm: MPI.Intracomm, midpoints: npt.NDArray, phases: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Phase on the other side of facets.

    Args:
        comm: communicator; every side of a facet is handed in by one rank.
        midpoints: of the facets, shape (n, d), in units of the cell, on periodic faces those of the lower
            one.
        phases: phase of the cell on this side, shape (n,).
    Returns:
        Phase of the cell on the other side, the facet's own where there is none, shape (n,).
    """

    def across(place: npt.NDArray, size: npt.NDArray, phases: npt.NDArray) -> npt.NDArray:
        # Of two sides each has the sum less its own.
        total = np.zeros(size.size, dtype=np.int64)
        np.add.at(total, place, phases)
        return np.column_stack([total[place] - phases, size[place] == 2])

    other = np.asarray(phases, dtype=np.int64).copy()
    found = np.zeros(len(other), dtype=bool)
    for there, paired in _meet(comm, midpoints, phases, across):
        new = (paired == 1) & ~found
        other[new], found[new] = there[new], True
    return other
