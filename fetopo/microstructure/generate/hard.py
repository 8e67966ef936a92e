"""Random packings of hard discs and spheres: thrown in one after another, or relaxed until none overlap."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from fetopo.microstructure.generate._cell import Field, ball_volume, check_fraction
from fetopo.microstructure.generate.packing import (
    Packing,
    cell_lengths,
    largest_overlap,
    near_pairs,
    separation,
    wrapped,
)

logger = logging.getLogger(__name__)

Radius = float | Callable[[np.random.Generator, int], npt.ArrayLike]
"""A mean radius [m], or a function of a random generator and a number that draws as many radii [m]."""

DENSEST = {2: math.pi / math.sqrt(12.0), 3: math.pi / math.sqrt(18.0)}
"""Largest fraction of equal discs and spheres."""

MARGIN = (
    5e-4  # by which spheres are inflated while they relax, so that they end with a gap instead of an overlap
)
BATCH = 20_000
MOST_BOXES = 2_000_000


def random_sequential_addition(
    lengths: Sequence[float],
    *,
    volume_fraction: float,
    radius: Radius,
    radius_spread: float = 0.0,
    seed: int,
    attempts: int = 3_000_000,
) -> Packing:
    """Hard discs (2D) or spheres (3D) thrown in at random one after another, kept where they overlap none.

    Equal discs jam at the fraction 0.547, equal spheres at 0.384; others are placed largest first. Points are
    drawn only from boxes that the spheres do not yet close, split when few draws succeed: the law is that of
    draws from the whole cell, and a jammed cell is recognised as such.

    Args:
        lengths: Edges of the cell [m], 2 or 3.
        volume_fraction: Fraction of the spheres [-]; met exactly, by one factor on all radii.
        radius: Mean radius [m], or a function (generator, n) that draws n radii [m]; none above a quarter of
            the cell.
        radius_spread: Standard deviation over mean of log-normal radii [-], cut at 0.4 and 2 means.
        seed: Seed of the random numbers.
        attempts: Draws allowed in all, rounded up to batches of 20,000 or fewer.

    Returns:
        The packing.

    Raises:
        ValueError: A value out of range; or the fraction cannot be placed, and the one reached.

    Source:
        Zhang, Torquato, Phys. Rev. E 88, 053312 (2013), doi:10.1103/PhysRevE.88.053312.
    """
    edges, rng, radii = _start(lengths, volume_fraction, radius, radius_spread, seed, attempts)
    radii = np.sort(radii)[::-1]
    centers = np.empty((radii.size, edges.size))
    number = used = 0

    def placed() -> int:
        return number

    for points, drawn in _open_points(rng, edges, centers, radii, placed):
        used += drawn
        for point in points:
            gap = centers[:number] - point
            gap -= edges * np.rint(gap / edges)
            if ((gap**2).sum(axis=1) >= (radii[:number] + radii[number]) ** 2).all():
                centers[number] = point
                number += 1
                if number == radii.size:
                    logger.info("%d spheres placed in %d draws from the open boxes", number, used)
                    return Packing(centers, radii, tuple(edges))
        if used >= attempts:
            break
    reached = ball_volume(edges.size) * float(np.sum(radii[:number] ** edges.size)) / float(np.prod(edges))
    why = f"{attempts} attempts" if used >= attempts else "no room is left"
    raise ValueError(
        f"volume_fraction is {volume_fraction}: random sequential addition reached {reached:.4f} "
        f"({number} of {radii.size} spheres, {why}); expected a fraction below jamming "
        f"(equal {'discs 0.547' if edges.size == 2 else 'spheres 0.384'}), or use dense_packing"
    )


def dense_packing(
    lengths: Sequence[float],
    *,
    volume_fraction: float,
    radius: Radius,
    radius_spread: float = 0.0,
    seed: int,
    attempts: int = 20,
) -> Packing:
    """Hard discs (2D) or spheres (3D) packed up to random close packing: overlaps relaxed away.

    From random points the energy Σ ½(1 − |c_i − c_j|/(R_i + R_j))² over overlapping pairs is minimised to
    zero by L-BFGS. A start that jams before is shaken (a fifth of a radius) and relaxed again.
    Equal spheres reach about 0.64, discs of two or more sizes 0.84; equal discs crystallise on the way and go
    beyond. Relaxed spheres are 0.05 % in radius short of contact.

    Args:
        lengths: Edges of the cell [m], 2 or 3.
        volume_fraction: Fraction of the spheres [-]; met exactly, by one factor on all radii.
        radius: Mean radius [m], or a function (generator, n) that draws n radii [m]; none above a quarter of
            the cell.
        radius_spread: Standard deviation over mean of log-normal radii [-], cut at 0.4 and 2 means.
        seed: Seed of the random numbers.
        attempts: Relaxations allowed.

    Returns:
        The packing.

    Raises:
        ValueError: A value out of range; or overlaps remain, and the fraction reached without.

    Source:
        O'Hern, Silbert, Liu, Nagel, Phys. Rev. E 68, 011306 (2003), doi:10.1103/PhysRevE.68.011306.
    """
    edges, rng, radii = _start(lengths, volume_fraction, radius, radius_spread, seed, attempts)
    dim = edges.size
    if np.ptp(radii) == 0.0 and volume_fraction > DENSEST[dim]:
        raise ValueError(
            f"volume_fraction is {volume_fraction}: expected at most {DENSEST[dim]:.4f}, the densest "
            f"packing of equal {'discs' if dim == 2 else 'spheres'}"
        )
    centers = rng.random((radii.size, dim)) * edges
    reached = 0.0
    for attempt in range(attempts):
        centers = _relaxed(centers, radii * (1.0 + MARGIN), edges)
        overlap = largest_overlap(centers, radii, edges)
        if overlap == 0.0:
            logger.info("%d spheres without overlap after %d relaxations", radii.size, attempt + 1)
            return Packing(centers, radii, tuple(edges))
        reached = max(reached, volume_fraction * (1.0 - overlap) ** dim)
        centers = centers + 0.2 * radii[:, None] * rng.standard_normal(centers.shape)
    raise ValueError(
        f"volume_fraction is {volume_fraction}: dense packing reached {reached:.4f} without overlap in "
        f"{attempts} attempts; expected a fraction below random close packing (equal spheres 0.64, unequal "
        "discs 0.84), or allow more attempts"
    )


def _start(
    lengths: Sequence[float], fraction: float, radius: Radius, spread: float, seed: int, attempts: int
) -> tuple[Field, np.random.Generator, Field]:
    """Checked cell, generator, and radii whose volumes sum to the fraction of the cell."""
    edges = np.array(cell_lengths(lengths))
    check_fraction("volume_fraction", fraction)
    if not 0.0 <= spread <= 0.6:
        raise ValueError(f"radius_spread is {spread}: expected 0 to 0.6")
    if attempts < 1:
        raise ValueError(f"attempts is {attempts}: expected 1 or more")
    if callable(radius):
        if spread:
            raise ValueError(f"radius_spread is {spread} beside a function for the radii: expected 0")
        draw = radius
    else:
        if not 0.0 < radius <= edges.min() / 4.0 * (1 + 1e-9):
            raise ValueError(
                f"radius is {radius:g} m: expected above 0 to {edges.min() / 4.0:g} (a quarter of the cell)"
            )
        draw = _log_normal(float(radius), spread)
    rng = np.random.default_rng(seed)
    dim, volume = edges.size, fraction * float(np.prod(edges))
    radii: Field = np.empty(0)
    filled: Field = np.zeros(1)
    while filled[-1] < volume:
        drawn = np.asarray(draw(rng, 64), dtype=float)
        if drawn.shape != (64,) or not (np.isfinite(drawn).all() and (drawn > 0.0).all()):
            raise ValueError(f"radius drew {drawn}: expected 64 positive finite radii")
        if radii.size + 64 > 10_000_000:
            raise ValueError(f"radius drew a mean of {drawn.mean():g} m: expected fewer than 10⁷ spheres")
        radii = np.append(radii, drawn)
        filled = np.append(filled, filled[-1] + np.cumsum(ball_volume(dim) * drawn**dim))
    number = max(1, int(np.argmin(np.abs(filled - volume))))
    radii = radii[:number] * (volume / filled[number]) ** (1.0 / dim)
    if 4.0 * radii.max() > edges.min() * (1.0 + 1e-9):
        raise ValueError(
            f"radius is {radii.max():g} m for the largest of {number} spheres: expected at most "
            f"{edges.min() / 4.0:g} (a quarter of the cell)"
        )
    return edges, rng, radii


def _log_normal(mean: float, spread: float) -> Callable[[np.random.Generator, int], Field]:
    sigma = math.sqrt(math.log1p(spread**2))

    def draw(rng: np.random.Generator, number: int) -> Field:
        return mean * np.clip(np.exp(sigma * rng.standard_normal(number) - 0.5 * sigma**2), 0.4, 2.0)

    return draw


def _open_points(
    rng: np.random.Generator, edges: Field, centers: Field, radii: Field, placed: Callable[[], int]
) -> Iterator[tuple[Field, int]]:
    """Points at R_i + R_min or more from every sphere placed, and how many were drawn; ends with the room."""
    smallest, dim = float(radii.min()), edges.size
    split = np.maximum(1, np.ceil(edges / (2.0 * smallest))).astype(int)
    box = edges / split
    corners = np.stack(np.meshgrid(*map(np.arange, split), indexing="ij"), axis=-1).reshape(-1, dim) * box
    children = np.stack(np.meshgrid(*[[0.0, 0.5]] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    while len(corners):
        before = placed()
        drawn = min(BATCH, 1000 + 2 * len(corners))
        points = corners[rng.integers(len(corners), size=drawn)] + box * rng.random((drawn, dim))
        points = points[~_closed(wrapped(points, edges), centers[:before], radii[:before] + smallest, edges)]
        yield points, drawn
        if placed() - before > drawn // 100:
            continue
        if len(corners) * len(children) <= MOST_BOXES:
            corners = (corners[:, None] + children * box).reshape(-1, dim)
            box = box / 2.0
        reach = radii[: placed()] + smallest - float(np.sqrt((box**2).sum())) / 2.0
        middle = wrapped(corners + box / 2.0, edges)
        corners = corners[~_closed(middle, centers[: placed()], reach, edges)]


def _closed(points: Field, centers: Field, reach: Field, edges: Field) -> npt.NDArray[np.bool_]:
    """Points within the reach of a centre (periodic)."""
    inside = np.zeros(len(points), dtype=bool)
    kept = reach > 0.0
    if len(points) and kept.any():
        found = cKDTree(points, boxsize=edges).query_ball_point(centers[kept], reach[kept])
        inside[np.concatenate([np.asarray(near, dtype=np.intp) for near in found])] = True
    return inside


def _relaxed(centers: Field, radii: Field, edges: Field) -> Field:
    """Centres at the nearest minimum of the overlap energy, or where overlaps are within the margin."""
    dim, unit = edges.size, float(radii.mean())
    skin = 0.3 * unit
    start = pairs = None
    worst = math.inf

    def energy(flat: Field) -> tuple[float, Field]:
        nonlocal start, pairs, worst
        x = flat.reshape(-1, dim) * unit
        if start is None or ((x - start) ** 2).sum(axis=1).max() > (skin / 2.0) ** 2:
            start, pairs = x.copy(), near_pairs(x, radii, edges, skin)
        i, j = pairs
        gap = separation(x, i, j, edges)
        distance = np.sqrt((gap**2).sum(axis=1))
        contact = radii[i] + radii[j]
        hit = np.flatnonzero(distance < contact)
        i, j, gap, contact = i[hit], j[hit], gap[hit], contact[hit]
        distance = np.maximum(distance[hit], 1e-12 * unit)
        overlap = 1.0 - distance / contact
        worst = float(overlap.max(initial=0.0))
        force = (overlap / contact / distance * unit)[:, None] * gap
        gradient = np.stack([np.bincount(j, f, len(x)) - np.bincount(i, f, len(x)) for f in force.T], axis=1)
        return 0.5 * float(overlap @ overlap), gradient.ravel()

    def stop(_: Field) -> None:
        if worst < 0.9 * MARGIN:
            raise StopIteration

    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 0.0, "gtol": 1e-9, "maxcor": 20}
    found = minimize(
        energy, centers.ravel() / unit, jac=True, method="L-BFGS-B", callback=stop, options=options
    )
    return wrapped(found.x.reshape(-1, dim) * unit, edges)
