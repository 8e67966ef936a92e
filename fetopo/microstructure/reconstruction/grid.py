"""Targets on the lags and lengths of a cell, checked: what is compared, and with which weight."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from fetopo.microstructure.descriptors import ChordLengths, LinealPath
from fetopo.microstructure.descriptors._common import Counts, Field
from fetopo.microstructure.reconstruction.checks import (
    check_chords,
    check_correlation,
    check_path,
)
from fetopo.microstructure.reconstruction.targets import (
    LineTarget,
    Target,
    TwoPointTarget,
    evaluated,
)


@dataclass(frozen=True, eq=False)
class Rows:
    """Two-point values that are compared: each the mean over some lags.

    Args:
        lags: Lag vectors in voxels, one of each pair ±h, sorted by row.
        first: Where the lags of each row begin, and their number at the end.
        target: S₂ wanted per row [-].
        weight: Weight of (S₂ − S₂*)² per row [-].
        length: Mean length of the lags of each row [m].
    """

    lags: Counts
    first: Counts
    target: Field
    weight: Field
    length: Field


@dataclass(frozen=True, eq=False)
class Block:
    """Lineal path and chords of one phase along one axis: wanted and weights, for 0 … n voxels.

    The weight is 0 where nothing is wanted.
    """

    axis: int
    phase: int
    path: Field
    path_weight: Field
    chord: Field
    chord_weight: Field


def rows_of(
    targets: Sequence[Target], shape: tuple[int, ...], sides: tuple[float, ...], fraction: float
) -> Rows:
    """All two-point targets on the lags of a cell.

    Raises:
        ValueError: S₂ does not start at φ, leaves its bounds or breaks the triangle inequality; or it is
            not known at a single lag.
    """
    parts = [
        _rows(target, shape, sides, fraction) for target in targets if isinstance(target, TwoPointTarget)
    ]
    starts = np.cumsum([0, *(part.first[-1] for part in parts)])
    return Rows(
        np.concatenate([part.lags for part in parts] or [np.zeros((0, len(shape)), dtype=np.int64)]),
        np.concatenate([part.first[:-1] + s for part, s in zip(parts, starts, strict=False)] + [starts[-1:]]),
        *(
            np.concatenate([getattr(part, name) for part in parts] or [np.zeros(0)])
            for name in ("target", "weight", "length")
        ),
    )


def _rows(target: TwoPointTarget, shape: tuple[int, ...], sides: tuple[float, ...], fraction: float) -> Rows:
    step, edge = min(sides), min(n * h for n, h in zip(shape, sides, strict=True))
    reach = edge / 4.0 if target.reach is None else target.reach
    if not step <= reach <= edge / 2.0:
        raise ValueError(
            f"reach is {reach:g} m: expected {step:g} (a voxel) to {edge / 2.0:g} (half of the cell)"
        )
    lags = _half_lags(shape, sides, reach * (1.0 + 1e-9), target.lags)
    if target.lags == "all":
        lags = _thinned(lags, np.linalg.norm(lags * sides, axis=1) / step, target.maximal_lags)
    origin = float(target.values(np.zeros((1, len(shape))))[0])
    if math.isnan(origin):  # given per axis
        origin = fraction
    values = target.values(np.asarray(lags * sides, dtype=np.float64))
    known = np.isfinite(values)
    lags, values = lags[known], values[known]
    if not lags.size:
        raise ValueError(
            f"S₂ is not known at any lag up to {reach:g} m: expected a target that reaches further"
        )
    values = check_correlation(target, lags, values, origin, fraction, shape, sides)
    away = np.linalg.norm(lags * sides, axis=1)
    shell = (away / step + 0.5).astype(np.int64)
    order = np.lexsort((away, shell)) if target.lags == "radial" else np.lexsort((away,))
    lags, values, shell = lags[order], values[order], shell[order]
    length: Field = np.asarray(away[order])
    if target.lags == "radial":
        first = np.append(np.flatnonzero(np.diff(shell, prepend=-1)), shell.size)
        size = np.diff(first)
        values = np.asarray(np.add.reduceat(values, first[:-1]) / size)
        length = np.asarray(np.add.reduceat(length, first[:-1]) / size)
        share = np.ones(size.size)
    else:
        first = np.arange(shell.size + 1)
        share = 1.0 / np.bincount(shell)[shell]
    variance = float(share @ (values - fraction**2) ** 2) + (fraction - fraction**2) ** 2
    weight: Field = np.asarray(target.weight * share / variance)
    return Rows(lags, first, values, weight, length)


def _half_lags(shape: tuple[int, ...], sides: tuple[float, ...], reach: float, which: str) -> Counts:
    """Lag vectors up to a length, in voxels, without 0 and one of each pair ±h."""
    dim = len(shape)
    if which in ("all", "radial"):
        limits = [min(int(reach / h), n // 2) for n, h in zip(shape, sides, strict=True)]
        grid = np.meshgrid(*(np.arange(-m, m + 1) for m in limits), indexing="ij")
        lags: Counts = np.stack(grid, axis=-1).reshape(-1, dim)
        lags = lags[len(lags) // 2 + 1 :]  # the first half mirrors the second
    else:
        steps = [np.array(s) for s in product((-1, 0, 1), repeat=dim) if any(s)]
        steps = steps[len(steps) // 2 :]
        if which == "axes":
            steps = [s for s in steps if np.count_nonzero(s) == 1]
        lines = [np.outer(np.arange(1, 1 + int(reach / np.linalg.norm(s * sides))), s) for s in steps]
        lags = np.concatenate(lines)
    return np.asarray(lags[np.linalg.norm(lags * sides, axis=1) <= reach], dtype=np.int64)


def _thinned(lags: Counts, length: Field, most: int) -> Counts:
    """At most about so many lags, as many in each shell where it has them, always the same ones."""
    shell = (length + 0.5).astype(np.int64)
    if lags.shape[0] <= most:
        return lags
    sizes = np.bincount(shell)
    sizes = sizes[sizes > 0]
    each = next(k for k in range(1, most + 1) if np.minimum(sizes, k + 1).sum() > most)
    order = np.random.default_rng(0).permutation(len(lags))
    order = order[np.argsort(shell[order], kind="stable")]
    rank = np.arange(len(lags)) - np.searchsorted(shell[order], shell[order])
    return lags[np.sort(order[rank < each])]


def blocks_of(
    targets: Sequence[Target], shape: tuple[int, ...], sides: tuple[float, ...], fraction: float
) -> list[Block]:
    """All targets along lines on the lengths of a cell.

    Raises:
        ValueError: A path does not start at φ, grows or is not convex; a chord density is negative or empty;
            an axis is not there; the voxels differ.
    """
    blocks: dict[tuple[int, int], Block] = {}
    for target in targets:
        if not isinstance(target, LineTarget):
            continue
        missing = [axis for axis in target.source if axis >= len(shape)]
        if missing:
            raise ValueError(f"{target.kind} is given for axis {missing[0]}: expected 0 to {len(shape) - 1}")
        share = fraction if target.phase else 1.0 - fraction
        norm, written = 0.0, []
        for axis, (n, side) in enumerate(zip(shape, sides, strict=True)):
            source = target.along(axis)
            if source is None:
                continue
            zeros = (np.zeros(n + 1) for _ in range(4))
            block = blocks.setdefault((axis, target.phase), Block(axis, target.phase, *zeros))
            path = target.kind == "lineal path"
            wanted, weight = (block.path, block.path_weight) if path else (block.chord, block.chord_weight)
            if weight.any():
                raise ValueError(
                    f"two targets for the {target.kind} of phase {target.phase} along axis {axis}"
                )
            reach = n * side / 2.0 if target.reach is None else target.reach
            if not side <= reach <= n * side:
                raise ValueError(
                    f"reach is {reach:g} m: expected {side:g} (a voxel) to {n * side:g} (the cell)"
                )
            count = min(n, int(reach / side * (1.0 + 1e-9)) + 1)
            values = _path(source, side, count, share) if path else _chords(source, side, n, share)[:count]
            norm += float(values @ values)
            wanted[: values.size] = values
            weight[int(path) : values.size] = target.weight  # L(0) is the volume fraction
            written.append(weight)
        for weight in written:
            weight /= norm
    return list(blocks.values())


def _path(source: Any, side: float, count: int, fraction: float) -> Field:
    """L at 0, 1, … voxels, as far as it is known."""
    length: Field = side * np.arange(float(count))
    if isinstance(source, LinealPath):
        values = np.interp(length, source.r * (1.0 + 1e-12), source.value, right=math.nan)
        values = values[np.isfinite(values)]
    else:
        values = evaluated(source, length, "L")
    check_path(values, side, fraction)
    return values


def _chords(source: Any, side: float, n: int, fraction: float) -> Field:
    """Chords of more than 0, 1, … voxels, per voxel of the cell."""
    if isinstance(source, ChordLengths):
        if not math.isclose(source.length[0], side, rel_tol=1e-6):
            raise ValueError(
                f"chords are whole multiples of {source.length[0]:g} m: expected {side:g}, as the voxel is"
            )
        density = source.count.astype(float)
    else:
        density = evaluated(source, side * np.arange(1.0, n), "density of chord lengths")
    check_chords(density, side)
    share = density / density.sum()
    longer = np.append(np.cumsum(share[::-1])[::-1], 0.0)
    return np.asarray(longer * fraction / (share @ np.arange(1.0, share.size + 1.0)))
