"""Mesh sizes with which curved cells of degree 2 give effective conductivities to 1e-4 (2D) and 1e-3 (3D)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.microstructure.generate.packing import Packing, near_pairs, separation
from fetopo.microstructure.geometry._placement import Balls, ball_volumes
from fetopo.microstructure.geometry.inclusions import checked_balls

#: Edges at the interface to the smallest radius, in 2D and 3D; edges away from it are at most so much longer.
_PER_RADIUS, _COARSER = {2: 6.0, 3: 6.0}, 2.0
#: Edges in the narrowest gap to its width, and how much shorter than those at the interface they may become.
_PER_GAP, _SHORTEST = {2: 2.0, 3: 1.0}, {2: 100.0, 3: 8.0}


def accurate_sizes(
    centers: Any,
    radii: float | npt.ArrayLike | None = None,
    *,
    lengths: Sequence[float] | None = None,
    accuracy: float | None = None,
) -> dict[str, Any]:
    """What to give `inclusion_cell` so that an effective conductivity is right to 1e-4 (2D) or 1e-3 (3D).

    Interfaces get 6 edges per radius of the smallest inclusion, gaps between inclusions edges of half
    (3D: all) of the width of the narrowest one, and the cells are curved: with correctors of degree 2,

        cell = inclusion_cell(comm, packing, **accurate_sizes(packing))
        effective_conductivity(cell, {"matrix": 1.0, "inclusion": 10.0}, degree=2)

    meets the multipole values of square and hexagonal arrays of discs up to a fraction of 0.7, and of cubic
    arrays of spheres up to 0.5, for conductivities of the inclusions from zero to infinity
    (docs/verification.md).

    Args:
        centers: points, shape (n, d), in metres; or a packing, which has radii and lengths with it.
        radii: one radius, or n, in metres.
        lengths: edges of the cell; default 1 along every axis.
        accuracy: relative error aimed at, instead of these; sizes go with its cube root in 2D and its square
            root in 3D, as the errors measured do.
    Returns:
        The arguments `mesh_size`, `interface_size`, `gap_size` and `order`.
    Raises:
        ValueError: as `inclusion_cell`, or an accuracy that is not positive.
    """
    if isinstance(centers, Packing):
        centers, radii, lengths = centers.centers, centers.radii, centers.lengths
    if radii is None:
        raise ValueError("radii are missing: expected one number, or one per centre")
    if accuracy is not None and not 0 < accuracy < np.inf:
        raise ValueError(f"accuracy is {accuracy}: expected a positive number")
    balls = checked_balls(centers, radii, lengths)
    dim = len(balls.lengths)
    finer = 1.0
    if accuracy is not None:
        finer = (accuracy / 1e-4) ** (1 / 3) if dim == 2 else (accuracy / 1e-3) ** 0.5
    interface = finer * float(balls.radii.min()) / _PER_RADIUS[dim]
    # An inclusion as large as the cell leaves a matrix that is thinner than its radius.
    share = 1 - min(float(ball_volumes(balls).sum() / np.prod(balls.lengths)), 0.9)
    interface = min(interface, 0.15 * finer * float(balls.lengths.min()) * max(share, 0.3))
    narrowest = _narrowest(balls)
    if dim == 3 and narrowest < interface / 2:
        # Most of the flux between good conductors goes through the surroundings of the narrowest gap.
        interface *= 0.75
    gap = max(narrowest * finer / _PER_GAP[dim], interface / _SHORTEST[dim])
    return {
        "mesh_size": _COARSER * interface,
        "interface_size": interface,
        "gap_size": min(gap, interface),
        "order": 2,
    }


def _narrowest(balls: Balls) -> float:
    """Width of the narrowest gap between two inclusions, periodically; those that overlap have none."""
    widths = [float("inf")]
    for axis in range(len(balls.lengths)):
        # An inclusion and its own image across the cell.
        widths += [float(width) for width in balls.lengths[axis] - 2 * balls.radii]
    reach = float(balls.radii.max())
    i, j = near_pairs(balls.centers, balls.radii, balls.lengths, reach)
    distance = np.linalg.norm(separation(balls.centers, i, j, balls.lengths), axis=1)
    widths += (distance - balls.radii[i] - balls.radii[j]).tolist()
    return min(width for width in widths if width > 0)
