"""Which part of a phase connects opposite faces of an image, and which part cannot carry a current.

Voxels are connected through their faces (edges in 2D); the image is not continued beyond its border.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fetopo._mpi import get_logger
from fetopo.microstructure._labelling import Labelling, label_mask, label_slab
from fetopo.microstructure._window import Mask
from fetopo.microstructure.slab import Slab


@dataclass(frozen=True, eq=False)
class Connectivity:
    """How a phase connects the two faces normal to one axis; all counts in voxels of the whole image.

    Args:
        axis: The axis.
        percolating: Number of voxels in `through`.
        one_face: Voxels whose cluster touches one of the two faces only.
        isolated: Voxels whose cluster touches neither.
        clusters: Number of clusters of the phase.
        labelling: The clusters of the phase.
    """

    axis: int
    percolating: int
    one_face: int
    isolated: int
    clusters: int
    labelling: Labelling

    @cached_property
    def through(self) -> Mask:
        """Voxels whose cluster touches both faces: the part that can carry a steady current.

        Of an image that is spread over ranks, the rows of this rank.
        """
        return self.labelling.select(self.labelling.touched[:, self.axis] == 3)

    @property
    def voxels(self) -> int:
        """Voxels of the phase."""
        return self.percolating + self.one_face + self.isolated

    @property
    def percolating_fraction(self) -> float:
        """Share [-] of the phase that connects the two faces; 0 for a phase without voxels."""
        return self.percolating / max(1, self.voxels)


def connectivity(
    mask: npt.ArrayLike | Slab, axes: Sequence[int] | None = None, *, periodic: Sequence[bool] = ()
) -> list[Connectivity]:
    """Classify the clusters of a phase along several axes, with one labelling.

    Labels are kept for runs of voxels, so that less memory is needed than for a label per voxel. Of an image
    that is spread over ranks each labels its own rows, and only what touches their border travels; the counts
    are those of the whole image, on every rank. Collective then.

    Args:
        mask: Voxels of the phase, or the slab of it that this rank has.
        axes: Axes to test; all when None.
        periodic: Per axis, whether voxels on opposite faces touch each other; by default on none.

    Raises:
        ValueError: The mask is not boolean, not 2D or 3D, or empty, or an axis does not exist, or `periodic`
            has another length.
    """
    slab = mask if isinstance(mask, Slab) else None
    values = np.asarray(mask.values if isinstance(mask, Slab) else mask)
    shape = values.shape if slab is None else slab.shape
    if values.dtype != np.bool_ or len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"mask is {values.dtype} of shape {shape}: expected 2D or 3D booleans, not empty")
    axes = range(len(shape)) if axes is None else axes
    for axis in axes:
        if not 0 <= axis < len(shape):
            raise ValueError(f"axis is {axis}: expected 0 to {len(shape) - 1}")
    if len(periodic) not in (0, len(shape)):
        raise ValueError(f"periodic is {tuple(periodic)}: expected one value per axis, {len(shape)}")
    found = label_mask(values, periodic) if slab is None else label_slab(slab, periodic)
    faces = np.array([0, 1, 1, 2])[found.touched[found.counted]]
    size = found.size[found.counted]
    counts = [[int(size[faces[:, axis] == n].sum()) for n in range(3)] + [size.size] for axis in axes]
    if slab is not None:
        every = np.array(slab.comm.allgather(counts), dtype=np.int64)
        counts = every.reshape(slab.comm.size, len(counts), 4).sum(axis=0).tolist()
    return [
        Connectivity(axis, through, one_face, isolated, clusters, found)
        for axis, (isolated, one_face, through, clusters) in zip(axes, counts, strict=True)
    ]


def percolating_parts(mask: npt.ArrayLike | Slab, axes: Sequence[int] | None = None) -> list[Mask]:
    """Parts of a phase that connect opposite faces, one mask per axis (see `connectivity`)."""
    return [found.through for found in connectivity(mask, axes)]


def percolating(mask: npt.ArrayLike | Slab, axis: int) -> Mask:
    """Part of a phase that connects the two opposite faces normal to `axis` (see `connectivity`)."""
    return connectivity(mask, [axis])[0].through


def percolating_fraction(mask: npt.ArrayLike | Slab, axis: int) -> float:
    """Share [-] of a phase that connects the two faces normal to `axis`; 0 for a phase without voxels."""
    return connectivity(mask, [axis])[0].percolating_fraction


def trim(mask: npt.ArrayLike | Slab, axis: int) -> tuple[Mask, float]:
    """Phase without the clusters that cannot carry a steady current along `axis`.

    Returns:
        The percolating part, and the share [-] of the phase that was removed (`connectivity` counts more).
    """
    found = connectivity(mask, [axis])[0]
    lost = found.one_face + found.isolated
    get_logger(__name__, mask.comm if isinstance(mask, Slab) else None).info(
        "trim along axis %d removes %.3g of the phase: %d voxels that reach one face, %d that reach neither",
        axis, lost / max(1, found.voxels), found.one_face, found.isolated,
    )  # fmt: skip
    return found.through, lost / max(1, found.voxels)
