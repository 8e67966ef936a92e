"""An image with the counts behind its descriptors, in the memory that the compiled kernel works on."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.microstructure.descriptors._common import Counts, Field
from fetopo.microstructure.image import Mask
from fetopo.microstructure.reconstruction._kernel import kernel
from fetopo.microstructure.reconstruction.grid import Block, Rows


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
        self._give("begin", "int64_t", np.cumsum([0, *(r.size for r in runs)], dtype=np.int64)[:-1])
        self._give("runs", "int64_t", np.concatenate(runs or [np.zeros(0, dtype=np.int64)]))
        for name in ("path", "path_weight", "chord", "chord_weight"):
            self._give(
                name, "double", np.concatenate([getattr(b, name) for b in self.blocks] or [np.zeros(0)])
            )

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
    lines: Mask = np.moveaxis(mask, axis, -1).reshape(-1, n)
    whole: Mask = np.asarray(lines.all(axis=1))
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
