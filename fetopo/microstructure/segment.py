"""Grey image to phases: filter, threshold, remove speckle; every step says what it changed.

Phase k of a segmented image holds the grey values t_k ≤ v < t_{k+1} between ascending thresholds, with
t_0 = −∞ and t_n = ∞: labels 0, 1, … from dark to bright.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fetopo.microstructure.image import GreyImage, Image

logger = logging.getLogger(__name__)

BINS = 256
"""Bins of the histogram, for grey values that are not integers within a range of that many."""


@dataclass(frozen=True)
class Step:
    """What one step of a segmentation changed.

    Args:
        name: The step and its parameter.
        changed: Voxels whose label it changed; all of them for the first, which gives the labels.
        before: Volume fraction [-] of every label before the step; empty for the first.
        after: Volume fraction [-] of every label after it.
    """

    name: str
    changed: int
    before: dict[int, float]
    after: dict[int, float]

    def __str__(self) -> str:
        labels = sorted(self.before | self.after)
        shares = (f"{k}: {self.before.get(k, 0.0):.5f} → {self.after.get(k, 0.0):.5f}" for k in labels)
        return f"{self.name}: {self.changed} voxels changed; fractions {', '.join(shares)}"


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Segmented image with the thresholds used and the steps that led to it."""

    image: Image
    thresholds: tuple[float, ...]
    steps: tuple[Step, ...]


def segment(
    grey: GreyImage,
    *,
    thresholds: Sequence[float] | None = None,
    phases: int = 2,
    median: int = 1,
    majority: int = 1,
    smallest: int = 1,
) -> Segmentation:
    """Segment a grey image: median filter, thresholds, majority filter, removal of small islands.

    Args:
        grey: Grey image, 2D or 3D.
        thresholds: Where one phase ends and the next begins, ascending; by Otsu's criterion when None.
        phases: Number of phases that Otsu's criterion separates; not used with given thresholds.
        median: Odd side in voxels of the box of the median filter of grey values; 1 does nothing.
        majority: Odd side in voxels of the box of the majority filter of labels; 1 does nothing.
        smallest: Islands of fewer voxels are removed; 1 does nothing.

    Returns:
        The image, the thresholds, and what each step changed. The step of the median filter counts the voxels
        that the same thresholds put into another phase without it.

    Raises:
        ValueError: The image has a single grey value where phases are to be told apart, thresholds do not
            ascend or leave a phase without voxels, a box is even, or all islands are small.
    """
    for name, value in (("median", median), ("majority", majority)):
        _check_side(name, value, grey.shape)
    _check_smallest(smallest, grey.values.size)
    if thresholds is not None:
        _check_thresholds(thresholds)
    values = grey.values if median == 1 else ndimage.median_filter(grey.values, size=median, mode="nearest")
    if thresholds is None:
        thresholds = otsu(GreyImage(values), phases)
    raw = threshold(grey, thresholds)
    steps = [_step(f"thresholds {', '.join(f'{t:g}' for t in thresholds)}", None, raw)]
    image = raw
    if median > 1:
        image = threshold(GreyImage(values, grey.voxel_size), thresholds)
        steps.append(_step(f"median of {median}", raw, image))
    for amount, filtered in ((majority, majority_filter), (smallest, remove_islands)):
        if amount > 1:
            image, step = filtered(image, amount)
            steps.append(step)
    return Segmentation(image, tuple(float(t) for t in thresholds), tuple(steps))


def otsu(grey: GreyImage, phases: int = 2, bins: int = BINS) -> tuple[float, ...]:
    """Thresholds that maximise the variance between the phases, Σ_k φ_k (μ_k − μ)².

    Args:
        grey: Grey image.
        phases: Number of phases, at least two.
        bins: Bins of the histogram; integers within a range of so many get one bin each.

    Returns:
        `phases` − 1 ascending grey values.

    Raises:
        ValueError: Fewer different grey values than phases.

    Source: N. Otsu 1979, doi:10.1109/TSMC.1979.4310076; P.-S. Liao et al. 2001 (several thresholds).
    """
    if phases < 2:
        raise ValueError(f"phases is {phases}: expected at least 2 to be told apart")
    values = grey.values
    low, high = values.min().item(), values.max().item()
    whole = values.dtype.kind in "iu" and high - low < bins
    edges = np.arange(low, high + 2) if whole else np.linspace(low, high, bins + 1)
    counts = np.zeros(edges.size - 1, dtype=np.int64)
    if high > low:
        for part in values:  # slab by slab: histograms work on copies of eight bytes a voxel
            counts += (
                np.bincount(part.ravel().astype(np.int64) - low, minlength=counts.size)
                if whole
                else np.histogram(part, bins=edges)[0]
            )
    different = int(np.count_nonzero(counts)) if high > low else 1
    if different < phases:
        raise ValueError(
            f"grey image has {different} different values between {low:g} and {high:g}: expected at least "
            f"{phases}, one per phase"
        )
    return tuple(float(edges[k]) for k in _partition(counts, phases))


def _partition(counts: npt.NDArray[np.int64], phases: int) -> list[int]:
    """First bin of every phase but the lowest in the best partition, by dynamic programming over the phases.

    Exact, and of cost phases × bins². (scikit-image's threshold_multiotsu tries all partitions and gives the
    two lowest bins the same grey value, which moves the threshold of histograms with few values.)
    """
    number = np.concatenate([[0.0], np.cumsum(counts)])
    moment = np.concatenate([[0.0], np.cumsum(counts * np.arange(counts.size))])
    size = number[None, :] - number[:, None]  # [i, j] is of the bins i to j − 1
    score = np.full(size.shape, -np.inf)
    np.divide((moment[None, :] - moment[:, None]) ** 2, size, out=score, where=size > 0)
    best, origins = score[0], []
    for _ in range(phases - 1):
        total = best[:, None] + score
        origins.append(total.argmax(axis=0))
        best = total.max(axis=0)
    firsts = [counts.size]
    for origin in reversed(origins):
        firsts.insert(0, int(origin[firsts[0]]))
    return firsts[:-1]


def threshold(grey: GreyImage, thresholds: Sequence[float]) -> Image:
    """Image of the phases between ascending thresholds: label k where t_k ≤ v < t_{k+1}.

    Raises:
        ValueError: Thresholds that do not ascend, or a phase without voxels.
    """
    _check_thresholds(thresholds)
    labels = np.zeros(grey.shape, dtype=np.uint8)
    for t in thresholds:
        labels += grey.values >= t
    image = Image(labels, grey.voxel_size)
    empty = [k for k in range(len(thresholds) + 1) if k not in image.phases]
    if empty:
        raise ValueError(
            f"thresholds {', '.join(f'{t:g}' for t in thresholds)} leave phase {empty[0]} without voxels: "
            f"expected values above {grey.values.min():g} and up to {grey.values.max():g} that part them all"
        )
    return image


def majority_filter(image: Image, side: int = 3) -> tuple[Image, Step]:
    """Give every voxel the most frequent label in a box around it; a tie leaves it as it is.

    Args:
        image: Labelled image.
        side: Odd side of the box in voxels; beyond the border the outermost voxels are repeated.

    Returns:
        The image and what was changed.
    """
    _check_side("majority", side, image.shape)
    best = np.zeros(image.shape, dtype=np.int32)
    labels = np.array(image.labels)
    for label in image.phases:
        own = image.labels == label
        votes = own.astype(np.int32)
        for axis in range(image.dim):
            votes = ndimage.correlate1d(votes, np.ones(side, dtype=np.int32), axis, mode="nearest")
        votes = 2 * votes + own  # half a vote more for the label a voxel has
        better = votes > best
        best[better] = votes[better]
        labels[better] = label
    result = Image(labels, image.voxel_size)
    return result, _step(f"majority of {side}", image, result)


def remove_islands(image: Image, smallest: int) -> tuple[Image, Step]:
    """Remove the clusters of every phase that have fewer than `smallest` voxels.

    Clusters are connected through faces (edges in 2D). Their voxels are filled from the border inwards, each
    with the label most frequent among its face neighbours (of equally frequent ones the smallest).

    Returns:
        The image and what was changed.

    Raises:
        ValueError: No cluster is as large as that.
    """
    _check_smallest(smallest, image.labels.size)
    phases = np.array(list(image.phases))
    index = np.full([n + 2 for n in image.shape], -1, dtype=np.int16)  # −1 is what is not known
    inner = index[(slice(1, -1),) * image.dim]
    for k, label in enumerate(phases):
        clusters, count = ndimage.label(image.labels == label)
        large = np.zeros(count + 1, dtype=np.int64)
        for part in clusters:
            large += np.bincount(part.ravel(), minlength=count + 1)
        keep = large >= smallest
        keep[0] = False
        inner[keep[clusters]] = k
    if not (inner >= 0).any():
        raise ValueError(f"every cluster has fewer than {smallest} voxels: expected one that is larger")
    flat = index.ravel()
    border = np.full(index.shape, True)
    border[(slice(1, -1),) * image.dim] = False
    todo = np.flatnonzero((index < 0) & ~border)
    del border
    steps = [s // index.itemsize * sign for s in index.strides for sign in (-1, 1)]
    while todo.size:
        votes = np.zeros((todo.size, phases.size + 1), dtype=np.int8)  # the last column takes the −1
        for step in steps:
            votes[np.arange(todo.size), flat[todo + step]] += 1
        known = votes[:, :-1].any(axis=1)
        flat[todo[known]] = votes[known, :-1].argmax(axis=1)
        todo = todo[~known]
    result = Image(phases.astype(image.labels.dtype)[inner], image.voxel_size)
    return result, _step(f"islands below {smallest}", image, result)


def _step(name: str, before: Image | None, after: Image) -> Step:
    changed = after.labels.size if before is None else int(np.count_nonzero(before.labels != after.labels))
    step = Step(name, changed, {} if before is None else before.phases, after.phases)
    logger.info("%s", step)
    return step


def _check_side(name: str, side: int, shape: Sequence[int]) -> None:
    if side < 1 or side % 2 == 0 or (side > 1 and side > min(shape)):
        raise ValueError(f"{name} is {side}: expected an odd number of voxels, at most {min(shape)}")


def _check_smallest(smallest: int, size: int) -> None:
    if not 1 <= smallest <= size:
        raise ValueError(f"smallest is {smallest}: expected 1 to {size} voxels")


def _check_thresholds(thresholds: Sequence[float]) -> None:
    found = np.asarray(thresholds, dtype=float)
    if found.ndim != 1 or not 0 < found.size < 255 or not np.isfinite(found).all():
        raise ValueError(f"thresholds are {thresholds}: expected one or more finite grey values")
    if any(a >= b for a, b in pairwise(found)):
        raise ValueError(f"thresholds are {thresholds}: expected ascending grey values")
