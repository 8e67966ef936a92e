"""Which part of a phase connects opposite faces of an image, and which part cannot carry a current.

Voxels are connected through their faces (edges in 2D); the image is not continued beyond its border.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

logger = logging.getLogger(__name__)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Connectivity:
    """How a phase connects the two faces normal to one axis; all counts in voxels.

    Args:
        axis: The axis.
        through: Voxels whose cluster touches both faces: the part that can carry a steady current.
        percolating: Number of voxels in `through`.
        one_face: Voxels whose cluster touches one of the two faces only.
        isolated: Voxels whose cluster touches neither.
        clusters: Number of clusters of the phase.
    """

    axis: int
    through: Mask
    percolating: int
    one_face: int
    isolated: int
    clusters: int

    @property
    def voxels(self) -> int:
        """Voxels of the phase."""
        return self.percolating + self.one_face + self.isolated

    @property
    def percolating_fraction(self) -> float:
        """Share [-] of the phase that connects the two faces; 0 for a phase without voxels."""
        return self.percolating / max(1, self.voxels)


def connectivity(mask: npt.ArrayLike, axes: Sequence[int] | None = None) -> list[Connectivity]:
    """Classify the clusters of a phase along several axes, with one labelling.

    Args:
        mask: Voxels of the phase.
        axes: Axes to test; all when None.

    Raises:
        ValueError: The mask is not boolean, not 2D or 3D, or empty, or an axis does not exist.
    """
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.ndim not in (2, 3) or mask.size == 0:
        raise ValueError(f"mask is {mask.dtype} of shape {mask.shape}: expected 2D or 3D booleans, not empty")
    axes = range(mask.ndim) if axes is None else axes
    for axis in axes:
        if not 0 <= axis < mask.ndim:
            raise ValueError(f"axis is {axis}: expected 0 to {mask.ndim - 1}")
    clusters, count = ndimage.label(mask)
    sizes = np.zeros(count + 1, dtype=np.int64)
    for part in clusters:  # slab by slab: bincount works on a copy of eight bytes a voxel
        sizes += np.bincount(part.ravel(), minlength=count + 1)
    sizes[0] = 0
    found = []
    for axis in axes:
        touched = np.zeros(count + 1, dtype=np.int8)
        for face in (0, -1):
            touched[np.unique(clusters.take(face, axis))] += 1
        touched[0] = 0
        parts = [int(sizes[touched == faces].sum()) for faces in range(3)]
        found.append(Connectivity(axis, (touched == 2)[clusters], parts[2], parts[1], parts[0], count))
    return found


def percolating_parts(mask: npt.ArrayLike, axes: Sequence[int] | None = None) -> list[Mask]:
    """Parts of a phase that connect opposite faces, one mask per axis (see `connectivity`)."""
    return [found.through for found in connectivity(mask, axes)]


def percolating(mask: npt.ArrayLike, axis: int) -> Mask:
    """Part of a phase that connects the two opposite faces normal to `axis` (see `connectivity`)."""
    return connectivity(mask, [axis])[0].through


def percolating_fraction(mask: npt.ArrayLike, axis: int) -> float:
    """Share [-] of a phase that connects the two faces normal to `axis`; 0 for a phase without voxels."""
    return connectivity(mask, [axis])[0].percolating_fraction


def trim(mask: npt.ArrayLike, axis: int) -> tuple[Mask, float]:
    """Phase without the clusters that cannot carry a steady current along `axis`.

    Returns:
        The percolating part, and the share [-] of the phase that was removed (`connectivity` counts more).
    """
    found = connectivity(mask, [axis])[0]
    lost = found.one_face + found.isolated
    logger.info(
        "trim along axis %d removes %.3g of the phase: %d voxels that reach one face, %d that reach neither",
        axis, lost / max(1, found.voxels), found.one_face, found.isolated,
    )  # fmt: skip
    return found.through, lost / max(1, found.voxels)
