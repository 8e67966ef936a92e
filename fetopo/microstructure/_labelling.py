"""Clusters of a phase, of a whole image or of slabs.

Under MPI each rank labels its own rows, and only what touches the border of a slab is told to the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fetopo.microstructure._runs import Runs
from fetopo.microstructure._window import Mask

if TYPE_CHECKING:
    from fetopo.microstructure.slab import Slab

BLOCK = 2**16
"""Runs of voxels for which there is room at first; more is made where it is needed."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Labelling:
    """Clusters of a phase and the faces of the image they touch.

    Args:
        runs: Own rows of the phase and the cluster of each voxel.
        size: Voxels of each cluster of this rank; of one that meets the border of the slab, those of all
            ranks.
        touched: Per cluster and axis, bit 1 where it touches the first face and bit 2 where the last.
        counted: Whether this rank is the one to count a cluster: true on one of the ranks that share it.
        known: Masks made so far by `select`.
    """

    runs: Runs
    size: Ints
    touched: npt.NDArray[np.uint8]
    counted: npt.NDArray[np.bool_]
    known: dict[bytes, Mask] = field(default_factory=dict)

    def select(self, chosen: npt.NDArray[np.bool_]) -> Mask:
        """Own voxels whose cluster is chosen, read-only."""
        key = chosen.tobytes()
        if key not in self.known:
            found = self.runs.select(chosen)
            found.flags.writeable = False
            self.known[key] = found
        return self.known[key]


def label_mask(mask: Mask, periodic: Sequence[bool] = ()) -> Labelling:
    """Clusters of the phase of an image, or of a slab's own rows.

    Args:
        periodic: per axis, whether voxels on opposite faces touch; none when empty.
    """
    return _own(mask, True, True, periodic)[0]


def label_slab(slab: Slab, periodic: Sequence[bool] = ()) -> Labelling:
    """Clusters of a phase that is spread over ranks (see `label_mask`). Collective."""
    comm = slab.comm
    ends = slab.first == 0, slab.first + len(slab.values) == slab.shape[0]
    own, top, bottom = _own(slab.values, *ends, (False, *periodic[1:]))
    # Of the clusters here, those that meet another slab, by numbers over all ranks.
    shared: Ints = np.unique(np.concatenate([top[top >= 0], bottom[bottom >= 0]]))
    offset = sum(comm.allgather(shared.size)[: comm.rank])
    number = np.full(own.size.size + 1, -1, dtype=np.int64)
    number[shared] = offset + np.arange(shared.size)
    planes = np.stack([number[top], number[bottom]])[: 2 * len(slab.values)]
    above, _ = slab.neighbours(planes)
    links = np.zeros((0, 2), dtype=np.int64) if above is None else _contacts(above, planes[0])
    if any(periodic[:1]):
        # The ranks with the first and the last row tell their planes.
        told = slab.comm.allgather(
            (planes[0] if len(planes) and ends[0] else None, planes[1] if len(planes) and ends[1] else None)
        )
        low = next(one for one, _ in told if one is not None)
        high = [other for _, other in told if other is not None][-1]
        links = np.concatenate([links, _contacts(high, low)])
    tables = comm.allgather((own.size[shared], own.touched[shared], links))
    sizes = np.concatenate([table[0] for table in tables])
    touched = np.concatenate([table[1] for table in tables])
    every = np.concatenate([table[2] for table in tables])
    count, merged = _components(every, sizes.size)
    total, faces = _gathered(merged, count, sizes, touched)
    _, first = np.unique(merged, return_index=True)
    mine = merged[offset : offset + shared.size]
    size, where, counted = own.size.copy(), own.touched.copy(), own.counted.copy()
    size[shared], where[shared] = total[mine], faces[mine]
    counted[shared] = first[mine] == offset + np.arange(shared.size)
    return Labelling(own.runs, size, where, counted)


def _own(
    mask: Mask, is_first: bool, is_last: bool, periodic: Sequence[bool] = ()
) -> tuple[Labelling, Ints, Ints]:
    """Clusters of the rows at hand, and on the first and the last row the cluster of each voxel, else −1."""
    runs = Runs(mask, tuple(periodic), BLOCK)
    size, touched = runs.measure()
    touched[:, 0] &= (1 if is_first else 0) | (2 if is_last else 0)
    found = Labelling(runs, size, touched, np.ones(runs.count, dtype=bool))
    return found, runs.plane(0), runs.plane(-1)


def _contacts(one: Ints, other: Ints) -> Ints:
    """Pairs of labels that meet between two planes, each pair once; −1 is no label."""
    met = (one >= 0) & (other >= 0)
    return np.asarray(np.unique(np.stack([one[met], other[met]], axis=1), axis=0))


def _components(links: Ints, count: int) -> tuple[int, Ints]:
    """Number of connected components of `count` nodes, and the component of each."""
    graph = coo_matrix((np.ones(len(links), dtype=np.int8), (links[:, 0], links[:, 1])), (count, count))
    if count == 0:
        return 0, np.zeros(0, dtype=np.int64)
    found, component = connected_components(graph, directed=False)
    return int(found), component.astype(np.int64)


def _gathered(
    component: Ints, count: int, sizes: Ints, touched: npt.NDArray[np.uint8]
) -> tuple[Ints, npt.NDArray[np.uint8]]:
    """Sizes and faces of components from those of their parts."""
    size, faces = np.zeros(count, dtype=np.int64), np.zeros((count, touched.shape[1]), dtype=np.uint8)
    np.add.at(size, component, sizes)
    np.bitwise_or.at(faces, component, touched)
    return size, faces
