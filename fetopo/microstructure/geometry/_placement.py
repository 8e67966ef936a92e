"""Where balls and their periodic images lie in a box: what reaches into it, what barely touches it."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fetopo.microstructure.generate.packing import near_pairs, separation, wrapped

Field = npt.NDArray[np.float64]


class Balls(NamedTuple):
    """Discs or balls of a periodic cell: centres (n, d), radii (n,), edges of the cell (d,), in metres."""

    centers: Field
    radii: Field
    lengths: Field


class Gaps(NamedTuple):
    """Narrow places of the matrix: where, how wide, and the radius with which they widen sideways.

    At a distance s from its middle a gap is width + s²/(2 radius) wide.
    """

    at: Field
    width: Field
    radius: Field


def images(balls: Balls, origin: Field) -> tuple[npt.NDArray[np.intp], Field]:
    """Index and centre of every periodic image that reaches into the box from `origin`."""
    found, where = [], []
    centers = origin + wrapped(balls.centers - origin, balls.lengths)
    for shift in itertools.product((-1, 0, 1), repeat=len(origin)):
        at = centers + np.array(shift) * balls.lengths
        outside = np.linalg.norm(at - np.clip(at, origin, origin + balls.lengths), axis=1)
        reaching = np.flatnonzero(outside < balls.radii * (1 - 1e-9))
        found.append(reaching)
        where.append(at[reaching])
    return np.concatenate(found), np.vstack(where)


def clearance(balls: Balls, origins: Field) -> Field:
    """How far each box is from having a ball tangent to a face, an edge or a corner, over the ball's radius.

    Args:
        balls: the balls of the periodic cell.
        origins: lower corners of boxes, shape (m, d).
    Returns:
        Smallest |distance − R|/R over all balls, faces, edges and corners, shape (m,).
    """
    smallest = np.full(len(origins), np.inf)
    axes = range(origins.shape[1])
    for k, origin in enumerate(origins):
        x = np.mod(balls.centers - origin, balls.lengths)
        squared = np.minimum(x, balls.lengths - x) ** 2
        for count in range(1, len(axes) + 1):
            for some in itertools.combinations(axes, count):
                distance = np.sqrt(squared[:, some].sum(axis=1))
                smallest[k] = min(smallest[k], float(np.min(np.abs(distance / balls.radii - 1))))
    return smallest


def clear_origins(balls: Balls, count: int) -> tuple[Field, Field]:
    """The boxes of largest clearance among candidates, best first, and their clearances.

    Along one axis a face is tangent to a ball at c ± R: the candidates are the middles of the widest
    intervals between these 2n points. All combinations over the axes are compared.
    """
    per_axis = []
    most = 12 if len(balls.lengths) == 3 else 40
    for axis, length in enumerate(balls.lengths):
        c = balls.centers[:, axis]
        critical = np.unique(np.mod(np.concatenate([c - balls.radii, c + balls.radii]), length))
        following = np.append(critical[1:], critical[0] + length)
        widest = np.argsort(critical - following, kind="stable")[:most]
        per_axis.append(np.mod(0.5 * (critical + following)[widest], length))
    candidates = np.stack(np.meshgrid(*per_axis, indexing="ij"), axis=-1).reshape(-1, len(balls.lengths))
    free = clearance(balls, candidates)
    # Of boxes as good as each other those come first that move least.
    moved = np.linalg.norm(np.minimum(candidates, balls.lengths - candidates), axis=1)
    order = np.lexsort((moved, -free.round(6)))[:count]
    return candidates[order], free[order]


def gaps(balls: Balls, origin: Field, width: float) -> Gaps:
    """Gaps narrower than `width` between two balls, and between a ball and a face of the box, with images."""
    dim = len(origin)
    at: list[Field] = []
    wide: list[float] = []
    radius: list[float] = []
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=dim))) * balls.lengths
    i, j = near_pairs(balls.centers, balls.radii, balls.lengths, width)
    between = separation(balls.centers, i, j, balls.lengths)
    distance = np.linalg.norm(between, axis=1)
    for a, b, vector, far in zip(i, j, between, distance, strict=True):
        gap = far - balls.radii[a] - balls.radii[b]
        if gap < 0:
            continue
        middle = balls.centers[b] + vector / far * (balls.radii[b] + gap / 2)
        at.extend(middle + shifts)
        wide.extend([gap] * len(shifts))
        radius.extend([balls.radii[a] * balls.radii[b] / (balls.radii[a] + balls.radii[b])] * len(shifts))
    which, where = images(Balls(balls.centers, balls.radii * (1 + 1e-6) + width, balls.lengths), origin)
    for k, ball in enumerate(which):
        center = np.array(where[k])
        for axis in range(dim):
            for plane in (origin[axis], origin[axis] + balls.lengths[axis]):
                gap = abs(abs(center[axis] - plane) - balls.radii[ball])
                if gap < width:
                    foot = center.copy()
                    foot[axis] = plane
                    at.append(foot)
                    wide.append(gap)
                    radius.append(balls.radii[ball])
    return Gaps(np.array(at).reshape(-1, dim), np.array(wide), np.array(radius))


def ball_volumes(balls: Balls) -> Field:
    unit = math.pi if len(balls.lengths) == 2 else 4 / 3 * math.pi
    return unit * balls.radii ** len(balls.lengths)
