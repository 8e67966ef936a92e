"""Clusters of a phase, block of rows by block of rows: no array of labels as large as the image.

Each block is labelled alone; what two blocks share is the plane where they meet. Labels that touch across it
are one cluster. Under MPI the ranks do the same with their slabs, and only what touches the border of a slab
is told to the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fetopo.microstructure._window import Mask

if TYPE_CHECKING:
    from fetopo.microstructure.slab import Slab

BLOCK = 2**24
"""Voxels that are labelled at once; a label takes four bytes."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Labelling:
    """Clusters of a phase and the faces of the image they touch.

    Args:
        mask: Own rows of the phase.
        cluster: Per label of the blocks, one after the other, the cluster in `size`.
        size: Voxels of each cluster of this rank; of one that meets the border of the slab, those of all
            ranks.
        touched: Per cluster and axis, bit 1 where it touches the first face and bit 2 where the last.
        counted: Whether this rank is the one to count a cluster: true on one of the ranks that share it.
        known: Masks made so far by `select`.
    """

    mask: Mask
    cluster: Ints
    size: Ints
    touched: npt.NDArray[np.uint8]
    counted: npt.NDArray[np.bool_]
    known: dict[bytes, Mask] = field(default_factory=dict)

    def select(self, chosen: npt.NDArray[np.bool_]) -> Mask:
        """Own voxels whose cluster is chosen, read-only. Labels them once more, for a choice not seen yet."""
        key = chosen.tobytes()
        if key in self.known:
            return self.known[key]
        found = np.empty(self.mask.shape, dtype=bool)
        start = 0
        for rows in _blocks(self.mask):
            labels, count = ndimage.label(self.mask[rows])
            found[rows] = np.append(False, chosen[self.cluster[start : start + count]])[labels]
            start += count
        found.flags.writeable = False
        self.known[key] = found
        return found


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
    return Labelling(own.mask, own.cluster, size, where, counted)


def _own(
    mask: Mask, is_first: bool, is_last: bool, periodic: Sequence[bool] = ()
) -> tuple[Labelling, Ints, Ints]:
    """Clusters of the rows at hand, and on the first and the last row the cluster of each voxel, else −1."""
    dim = mask.ndim
    sizes: list[Any] = [np.zeros(0, dtype=np.int64)]
    touched: list[Any] = [np.zeros((0, dim), dtype=np.uint8)]
    links: list[Any] = [np.zeros((0, 2), dtype=np.int64)]
    start = 0
    top = bottom = np.full(mask.shape[1:], -1, dtype=np.int64)
    for rows in _blocks(mask):
        labels, count = ndimage.label(mask[rows])
        size = np.zeros(count + 1, dtype=np.int64)
        for part in labels:  # row by row: bincount works on a copy of eight bytes a voxel
            size += np.bincount(part.ravel(), minlength=count + 1)
        faces = np.zeros((count + 1, dim), dtype=np.uint8)
        for axis in range(dim):
            if axis > 0 or (is_first and rows.start == 0):
                faces[labels.take(0, axis), axis] |= 1
            if axis > 0 or (is_last and rows.stop == len(mask)):
                faces[labels.take(-1, axis), axis] |= 2
        for axis in range(1, dim):
            if any(periodic[axis : axis + 1]):
                ends = [labels.take(end, axis).astype(np.int64) + (start - 1) for end in (0, -1)]
                links.append(_contacts(*(np.where(end >= start, end, -1) for end in ends)))
        sizes.append(size[1:])
        touched.append(faces[1:])
        first = np.where(labels[0] > 0, labels[0] + np.int64(start - 1), -1)
        if rows.start == 0:
            top = first
        else:
            links.append(_contacts(bottom, first))
        bottom = np.where(labels[-1] > 0, labels[-1] + np.int64(start - 1), -1)
        start += count
    if any(periodic[:1]):
        links.append(_contacts(bottom, top))
    count, cluster = _components(np.concatenate(links), start)
    size, faces = _gathered(cluster, count, np.concatenate(sizes), np.concatenate(touched))
    number = np.append(cluster, -1)
    found = Labelling(mask, cluster, size, faces, np.ones(count, dtype=bool))
    return found, number[top], number[bottom]


def _blocks(mask: Mask) -> Iterator[slice]:
    """Rows that are labelled together."""
    thick = max(1, BLOCK // max(1, mask[:1].size))
    for start in range(0, len(mask), thick):
        yield slice(start, min(start + thick, len(mask)))


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
