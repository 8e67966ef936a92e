"""Targets on the grid of a cell, checked; and the image with the counts that the compiled kernel keeps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.microstructure.descriptors import ChordLengths, LinealPath
from fetopo.microstructure.descriptors._common import Counts, Field
from fetopo.microstructure.image import Mask
from fetopo.microstructure.reconstruction._kernel import kernel
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


def _rows(
    target: TwoPointTarget, shape: tuple[int, ...], sides: tuple[float, ...], fraction: float
) -> Rows:
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
    values = target.values(lags * sides)
    known = np.isfinite(values)
    lags, values = lags[known], values[known]
    if not lags.size:
        raise ValueError(f"S₂ is not known at any lag up to {reach:g} m: expected a target that reaches further")
    values = check_correlation(target, lags, values, origin, fraction, shape, sides)
    length = np.linalg.norm(lags * sides, axis=1)
    shell = (length / step + 0.5).astype(np.int64)
    order = np.lexsort((length, shell)) if target.lags == "radial" else np.lexsort((length,))
    lags, values, length, shell = lags[order], values[order], length[order], shell[order]
    if target.lags == "radial":
        first = np.append(np.flatnonzero(np.diff(shell, prepend=-1)), shell.size)
        size = np.diff(first)
        values, length = (np.add.reduceat(x, first[:-1]) / size for x in (values, length))
        share = np.ones(size.size)
    else:
        first = np.arange(shell.size + 1)
        share = 1.0 / np.bincount(shell)[shell]
    variance = float(share @ (values - fraction**2) ** 2) + (fraction - fraction**2) ** 2
    return Rows(lags, first, values, target.weight * share / variance, length)


def _half_lags(shape: tuple[int, ...], sides: tuple[float, ...], reach: float, which: str) -> Counts:
    """Lag vectors up to a length, in voxels, without 0 and one of each pair ±h."""
    dim = len(shape)
    if which in ("all", "radial"):
        limits = [min(int(reach / h), n // 2) for n, h in zip(shape, sides, strict=True)]
        grid = np.meshgrid(*(np.arange(-m, m + 1) for m in limits), indexing="ij")
        lags = np.stack(grid, axis=-1).reshape(-1, dim)
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
            wanted, weight = (
                (block.path, block.path_weight) if path else (block.chord, block.chord_weight)
            )
            if weight.any():
                raise ValueError(f"two targets for the {target.kind} of phase {target.phase} along axis {axis}")
            reach = n * side / 2.0 if target.reach is None else target.reach
            if not side <= reach <= n * side:
                raise ValueError(f"reach is {reach:g} m: expected {side:g} (a voxel) to {n * side:g} (the cell)")
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
    length = side * np.arange(count)
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
                f"chords are whole multiples of {source.length[0]:g} m: expected {side:g}, the voxel of the cell"
            )
        density = source.count.astype(float)
    else:
        density = evaluated(source, side * np.arange(1.0, n), "density of chord lengths")
    check_chords(density, side)
    share = density / density.sum()
    longer = np.append(np.cumsum(share[::-1])[::-1], 0.0)
    return np.asarray(longer * fraction / (share @ np.arange(1.0, share.size + 1.0)))


class System:
    """An image and the counts behind its descriptors, in the memory that the kernel works on."""

    def __init__(self, mask: Mask, rows: Rows, blocks: Sequence[Block], seed: int, anywhere: float) -> None:
        self.mask_shape, self.rows, self.blocks = mask.shape, rows, list(blocks)
        self._module = kernel()
        self._state = self._module.ffi.new("annealing *")
        self._kept: dict[str, npt.NDArray[Any]] = {}
        dim = mask.ndim
        lead = (1,) * (3 - dim)
        shape = lead + mask.shape
        halo = [0] * (3 - dim) + [max(1, int(np.abs(rows.lags[:, a]).max(initial=0))) for a in range(dim)]
        cells = np.pad(mask.reshape(shape).astype(np.uint8), [(m, m) for m in halo], mode="wrap")
        stride = [cells.shape[1] * cells.shape[2], cells.shape[2], 1]
        state = self._state
        for a in range(3):
            state.shape[a], state.stride[a], state.halo[a] = shape[a], stride[a], halo[a]
        state.size, state.voxels = mask.size, float(mask.size)
        state.random, state.anywhere = seed, anywhere
        ones, zeros = np.flatnonzero(mask), np.flatnonzero(~mask)
        state.number_of_ones, state.number_of_zeros = ones.size, zeros.size
        state.rows = rows.target.size
        self._give("cells", "uint8_t", cells)
        self._give("ones", "int64_t", ones)
        self._give("zeros", "int64_t", zeros)
        self._give("first", "int64_t", rows.first)
        self._give("offset", "int64_t", rows.lags @ np.array(stride[3 - dim :]))
        counts = pair_counts(mask, rows)
        pairs = np.diff(rows.first) * float(mask.size)
        self._give("count", "int64_t", counts)
        self._give("change", "int64_t", np.zeros_like(counts))
        self._give("share", "double", 1.0 / pairs)
        self._give("row_weight", "double", rows.weight)
        self._give("residual", "double", counts / pairs - rows.target)
        state.blocks = len(self.blocks)
        self._give("axis", "int64_t", np.array([b.axis + 3 - dim for b in self.blocks]))
        self._give("phase", "int64_t", np.array([b.phase for b in self.blocks]))
        runs = [run_counts(mask if b.phase else ~mask, b.axis) for b in self.blocks]
        self._give("begin", "int64_t", np.cumsum([0, *(r.size for r in runs)])[:-1])
        self._give("runs", "int64_t", np.concatenate(runs or [np.zeros(0)]))
        for name in ("path", "path_weight", "chord", "chord_weight"):
            self._give(name, "double", np.concatenate([getattr(b, name) for b in self.blocks] or [np.zeros(0)]))

    def _give(self, name: str, kind: str, values: npt.NDArray[Any]) -> None:
        """Hand an array to the kernel; it lives as long as this object."""
        dtype = {"uint8_t": np.uint8, "int64_t": np.int64, "double": np.float64}[kind]
        self._kept[name] = array = np.array(values, dtype=dtype, order="C", copy=True)
        setattr(self._state, name, self._module.ffi.cast(f"{kind} *", array.ctypes.data))

    @property
    def mask(self) -> Mask:
        """The image as it is now."""
        mask = np.zeros(self._state.size, dtype=bool)
        mask[self._kept["ones"]] = True
        return mask.reshape(self.mask_shape)

    @property
    def energy(self) -> float:
        """Σ of the energies of all targets, from the counts as they are now [-]."""
        lib = self._module.lib
        return float(lib.pair_energy(self._state) + lib.line_energy(self._state))

    @property
    def counts(self) -> tuple[Counts, Counts]:
        """Pairs per row, and runs by length, block after block."""
        return self._kept["count"].copy(), self._kept["runs"].copy()

    def correlation(self) -> Field:
        """S₂ per row [-]."""
        return np.asarray(self._kept["count"] * self._kept["share"])

    def lines(self) -> list[tuple[Field, Field]]:
        """Per block, lineal path [-] and chords longer than 0 … n voxels per voxel [-]."""
        found = []
        for block, begin in zip(self.blocks, self._kept["begin"], strict=True):
            n = self.mask_shape[block.axis]
            runs = self._kept["runs"][begin : begin + n + 1]
            longer = np.append(np.cumsum(runs[n - 1 :: -1])[::-1][1:], [0, 0])
            held = np.cumsum(longer[::-1])[::-1] + runs[n] * n
            found.append((held / self._state.size, longer / self._state.size))
        return found

    def run(
        self, proposals: int, temperature: float, enough: float = 0.0
    ) -> tuple[int, float, float, float, float]:
        """Propose exchanges of two voxels at a temperature; negative takes every one.

        Returns:
            Number taken, energy at the end, lowest energy, sum and number of the increases proposed.
        """
        # Sums of many steps would drift by round-off: every call begins with the residuals of the counts.
        self._kept["residual"][:] = self.correlation() - self.rows.target
        values = np.array([0.0, math.inf, 0.0, 0.0])
        at = self._module.ffi.cast("double *", values.ctypes.data)
        taken = self._module.lib.anneal(self._state, proposals, temperature, enough, at, at + 1, at + 2)
        energy, lowest, rise, rises = (float(v) for v in values)
        return int(taken), energy, min(energy, lowest), rise, rises


def pair_counts(mask: Mask, rows: Rows) -> Counts:
    """#{x: x, x + h in the phase} per row of lags in a periodic cell, from the beginning."""
    spectrum = np.abs(np.fft.rfftn(mask)) ** 2
    counts = np.rint(np.fft.irfftn(spectrum, s=mask.shape, axes=range(mask.ndim))).astype(np.int64)
    found = counts[tuple((rows.lags % mask.shape).T)]
    return np.asarray(np.add.reduceat(found, rows.first[:-1]) if found.size else found)


def run_counts(mask: Mask, axis: int) -> Counts:
    """Runs of 0 … n − 1 voxels along an axis of a periodic cell, and at n the lines wholly in the phase."""
    n = mask.shape[axis]
    lines = np.moveaxis(mask, axis, -1).reshape(-1, n)
    whole = lines.all(axis=1)
    lines = lines[~whole]
    starts = np.argmin(lines, axis=1)
    lines = np.take_along_axis(lines, (np.arange(n) + starts[:, None]) % n, axis=1)  # each begins outside
    bits = np.zeros((len(lines), n + 1), dtype=np.int8)
    bits[:, :n] = lines
    change = np.diff(bits.ravel(), prepend=0)
    length = np.flatnonzero(change == -1) - np.flatnonzero(change == 1)
    counts = np.bincount(length, minlength=n + 1)
    counts[n] = np.count_nonzero(whole)
    return counts
