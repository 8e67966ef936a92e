"""What is wrong with the crisp structure of a cell: islands, detail too fine, another property."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from fetopo.design.diagnosis import Finding
from fetopo.design.goal import MAIN
from fetopo.design.realize import THIN_SHARE
from fetopo.microstructure.descriptors import label_clusters, percolating_axes
from fetopo.microstructure.image import Mask

if TYPE_CHECKING:
    from fetopo.design.cell import CellDesign

#: Ratio of conductivities from which on a material carries a transport alone.
CARRIES = 50.0

#: Share of a material that may be in islands: crumbs that the cut leaves carry little.
CRUMBS = 0.02

#: Projection gap that is worth a word.
GAP = 0.05


def diagnose_structure(design: CellDesign) -> list[Finding]:
    """What is wrong with a crisp structure; empty where nothing is.

    Islands and features are looked for where the design's cells are a grid.
    """
    found: list[Finding] = []
    if design.labels is not None and 0 < design.labels.mean() < 1:
        pairs = {name: t.conductivity for name, t in design.transports.items()}
        for name, pair in (pairs or {MAIN: design.conductivity}).items():
            found += _disconnected(design, name if pairs else "", pair)
        found += _thin(design)
    if design.projection_gap > GAP:
        found.append(
            Finding(
                "projection gap",
                f"the effective tensor of the crisp structure differs from that of the density by "
                f"{100 * design.projection_gap:.1f} %",
                "let the projection become sharper (max_beta), or take more voxels",
            )
        )
    return found


def _disconnected(design: CellDesign, transport: str, pair: tuple[float, float]) -> list[Finding]:
    """Whether the material that carries a transport is connected where it is asked to be."""
    low, high = min(pair), max(pair)
    if high < CARRIES * low:
        return []
    label = int(pair[1] == high)
    assert design.labels is not None
    mask = design.labels == label
    winds = percolating_axes(mask, periodic=True)
    missing = [axis for axis in _wanted(design) if not winds[:, axis].any()]
    islands = ~winds.any(axis=1)
    labels, count = label_clusters(mask, periodic=True)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    alone = float(sizes[islands].sum() / sizes.sum())
    what = f"the {('poor', 'good')[label]} material"
    if transport:
        what += f", which carries {transport!r},"
    share = f"{100 * mask.mean():.0f} % of the volume"
    advice = "constrain its connectivity, start from a connected field, or give it a larger fraction"
    if missing:
        axes = " and ".join("xyz"[axis] for axis in missing)
        message = f"{what} does not percolate along {axes}: {len(winds)} parts, {share}"
        return [Finding("disconnected", message, advice)]
    if alone > CRUMBS:
        message = f"{100 * alone:.0f} % of {what} ({share}) is in {islands.sum()} islands that carry nothing"
        return [Finding("disconnected", message, advice)]
    return []


def _wanted(design: CellDesign) -> list[int]:
    """Axes along which the design is to conduct."""
    goal, dim = design.goal, design.cell.dim
    if goal.kind == "along" or goal.direction is not None:
        return [axis for axis, d in enumerate(goal.direction or ()) if abs(d) > 1e-12]
    if goal.kind == "target":
        # A target may be one that inclusions have: it is missed by much only where something is cut.
        have, want = np.diag(design.verified_tensor), np.diag(np.array(goal.target))
        return [axis for axis in range(dim) if have[axis] < 0.5 * want[axis]]
    return [] if goal.kind == "function" else list(range(dim))


def _thin(design: CellDesign) -> list[Finding]:
    """Whether much of a material is thinner than two voxels."""
    assert design.labels is not None
    found = []
    for label, name in enumerate(("poor", "good")):
        mask = design.labels == label
        share = 1.0 - float(_opened(mask).sum() / mask.sum())
        if share > THIN_SHARE:
            message = f"{100 * share:.0f} % of the {name} material is thinner than two voxels"
            advice = "take more voxels, a larger filter radius, or constrain the length scale"
            found.append(Finding("thin", message, advice))
    return found


def _opened(mask: Mask) -> Mask:
    """Opening of a periodic mask by blocks of two voxels along each axis.

    Local thickness cannot tell one voxel from two: discs around the middle of a voxel have a diameter of 2.
    """
    axes, corners = tuple(range(mask.ndim)), list(product((0, 1), repeat=mask.ndim))
    whole = np.all([np.roll(mask, [-s for s in shift], axes) for shift in corners], axis=0)
    return np.asarray(np.any([np.roll(whole, shift, axes) for shift in corners], axis=0))
