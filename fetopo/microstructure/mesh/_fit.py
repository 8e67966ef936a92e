"""From a level-set function to the simplices of both phases: level, cut, smoothing, volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from fetopo._json import plain
from fetopo.microstructure.mesh import _interface
from fetopo.microstructure.mesh._cut import SNAP, Cut, Parts, fraction_above
from fetopo.microstructure.mesh._field import Field
from fetopo.microstructure.mesh._lattice import Array, Lattice, volumes
from fetopo.microstructure.mesh._smooth import Smoother

#: Largest relative error of the volume fraction of either phase.
TOLERANCE = 0.005


@dataclass(frozen=True)
class FitReport:
    """What became of an image or density on its way to a mesh.

    Attributes:
        volume_fraction: of the phase, as it was wanted [-].
        meshed_fraction: what the mesh of the whole box has [-].
        error: relative error of the volume fraction, of the phase for which it is larger [-].
        level: of the blurred indicator or density that the interface follows [-].
        facets: edges (2D) or triangles of the interface.
        area: length or area of the interface [m^(d−1)].
        euler_characteristic: of the interface, opposite periodic faces being one [-].
        snapped: lattice nodes moved onto the interface.
        released: snapped nodes put back, because the interface was pinched there or a cell too flat.
    """

    volume_fraction: float
    meshed_fraction: float
    error: float
    level: float
    facets: int
    area: float
    euler_characteristic: int
    snapped: int
    released: int

    def to_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        return plain(self)


def fit(
    field: Field,
    fraction: float | None,
    divisions: list[int],
    upper: Array,
    wraps: list[bool],
    labelled: bool,
) -> tuple[Parts, FitReport]:
    """The mesh of a box, cut along a level of a field.

    Args:
        field: the level-set function.
        fraction: of the box to be above the level; None for level ½ and what is above it.
        divisions: cubes of the lattice along each axis.
        upper: edges of the box.
        wraps: which axes are periodic.
        labelled: whether the field is a blurred indicator.
    """
    size, box = float(np.mean(upper / divisions)), float(np.prod(upper))
    lattice = Lattice(divisions, upper, wraps)
    mesh, integers = lattice.build()
    start, values = mesh.at.copy(), field(mesh.at)
    local, weights = values[mesh.same[mesh.cells]], volumes(mesh.nodes(), mesh.cells)
    level = _level(local, weights, fraction, size)
    wanted = field.fraction_above(level) if fraction is None else fraction
    aim, tries = wanted, 0
    while True:
        if labelled and not 0.05 < level < 0.95:
            raise ValueError(
                f"mesh_size {size:g} m cannot show the phase (it would end at {level:.3f} of the blurred "
                "image): expected a finer mesh or less smoothing"
            )
        cut = Cut(lattice, mesh, integers, values - level, SNAP)
        parts, snapped, released = _cut(cut)
        meshed = _smooth(parts, field, level, size, wanted * box) / box
        error = abs(meshed - wanted) / min(wanted, 1 - wanted)
        if error <= TOLERANCE:
            break
        # Snapping ate islands of the size of a cell, more than a shift of the rest makes up for.
        tries, aim = tries + 1, aim + wanted - meshed
        if tries == 6 or not 0 < aim < 1:
            raise RuntimeError(
                f"the phase fills {meshed:.6f} of the mesh, not {wanted:.6f}: "
                f"expected a smaller mesh_size than {size:g} m"
            )
        mesh.at[:] = start
        level = _level(local, weights, aim, size)
    x = parts.mesh.nodes()
    report = FitReport(
        wanted,
        meshed,
        error,
        level,
        len(parts.facets),
        float(np.linalg.norm(_interface.area_vectors(x, parts.facets), axis=1).sum()),
        _interface.euler_characteristic(parts.mesh.same[parts.facets]),
        snapped,
        released,
    )
    return parts, report


def _cut(cut: Cut) -> tuple[Parts, int, int]:
    """The divided mesh, how many nodes were snapped, how many of them put back."""
    cut.snap_nodes()
    snapped = int(cut.snapped.sum())
    released = cut.release_poor()
    pinched, parts = cut.release_pinched()
    return parts, snapped, released + pinched


def _smooth(parts: Parts, field: Field, level: float, size: float, volume: float) -> float:
    """Move the nodes near the interface; returns the volume of the phase, as near to `volume` as can be."""

    def excess(x: Array) -> Array:
        return field(x) - level

    smoother, probe = Smoother(parts), 0.5 * float(field.voxel.min())
    for _ in range(4):
        smoother.relax(excess, size, probe)
    worst = Smoother(parts, worst=True)
    for _ in range(8):
        worst.relax(excess, size, probe, power=8.0, free_worst=True)
    return smoother.meet_volume(volume, 1e-7, size)


def _level(local: Array, weights: Array, fraction: float | None, size: float) -> float:
    """½, or the level above which the piecewise linear function fills a fraction of the box."""
    level = 0.5
    low, high = float(local.min()), float(local.max())
    local = np.sort(local, axis=1)[:, ::-1]
    weights = weights / weights.sum()

    def above(c: float) -> float:
        return float(fraction_above(local - c) @ weights)

    margin = 0.01 * (high - low)
    if fraction is None:
        if low + margin < level < high - margin:
            return level
        found = f"values between {low:.3g} and {high:.3g} at the nodes of the lattice: none crosses {level}"
    else:
        ends = above(high - margin), above(low + margin)
        if ends[0] < fraction < ends[1]:
            level = brentq(
                lambda c: above(c) - fraction, low + margin, high - margin, xtol=1e-6 * (high - low)
            )
            return float(level)
        found = f"levels of the blurred image fill {ends[0]:.3g} to {ends[1]:.3g}, not {fraction:.3g}"
    raise ValueError(
        f"mesh_size {size:g} m cannot show the phase ({found}): expected a finer mesh or less smoothing"
    )
