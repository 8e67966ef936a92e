"""Clusters of a mask from its runs along the last axis, in C: twelve bytes a run, and no array of labels."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo._compile import compiled
from fetopo.microstructure._window import Mask

SOURCE = Path(__file__).with_name("_runs.c")
_FUNCTIONS = """
int find_runs(runs *s);
void wrap_runs(runs *s, int axis);
int64_t number_clusters(runs *s);
void measure(const runs *s, int64_t *size, uint8_t *touched);
void plane(const runs *s, int64_t place, int64_t *clusters);
void select_clusters(const runs *s, const uint8_t *chosen, uint8_t *mask);
"""


@cache
def kernel() -> Any:
    """The compiled module, with `ffi` and `lib`.

    Raises:
        RuntimeError: No C compiler, or it refuses the source.
    """
    structure = re.search(r"typedef struct \{.*?\} runs;", SOURCE.read_text(encoding="utf-8"), re.DOTALL)
    assert structure is not None
    return compiled(SOURCE, structure[0] + _FUNCTIONS, name="runs")


class Runs:
    """The runs of a mask and their clusters, which are numbered from 0 in the order of their first voxels.

    Args:
        mask: Voxels of the phase, 2D or 3D; not kept.
        periodic: Per axis, whether voxels on opposite faces touch; none when empty.
        room: Runs for which there is room at first.

    Raises:
        ValueError: The mask has 2³¹ runs or more.
    """

    def __init__(self, mask: Mask, periodic: tuple[bool, ...] = (), room: int = 2**16) -> None:
        self.shape = mask.shape
        compact = np.ascontiguousarray(mask).view(np.uint8)
        shape = (mask.shape[0], 1, mask.shape[1]) if mask.ndim == 2 else mask.shape
        if shape[2] >= 2**31:
            raise ValueError(f"mask has shape {mask.shape}: expected fewer than 2³¹ voxels along an axis")
        self._ffi, self._lib = kernel().ffi, kernel().lib
        s = self._state = self._ffi.new("runs *")
        s.shape = shape
        rows, most = shape[0] * shape[1], (shape[2] + 1) // 2
        self._first = np.zeros(rows + 1, dtype=np.int64)
        s.first = self._pointer(self._first, "int64_t")
        self._arrays = np.empty((3, 0), dtype=np.int32)
        s.mask = self._pointer(compact, "uint8_t")
        self._make_room(max(room, most))
        while not self._lib.find_runs(s):
            # As many for each row to come as for those done so far, and some more.
            expected = int(1.1 * s.used / max(1, s.rows) * rows)
            self._make_room(max(s.used + s.used // 2, expected) + most)
        s.mask = self._ffi.NULL
        for axis in range(mask.ndim):
            if any(periodic[axis : axis + 1]) and rows:
                self._lib.wrap_runs(s, 2 if axis + 1 == mask.ndim else axis)
        #: Number of clusters.
        self.count = int(self._lib.number_clusters(s))
        if s.room > 2 * s.used:
            self._make_room(s.used)

    def _pointer(self, array: npt.NDArray[Any], kind: str) -> Any:
        return self._ffi.cast(f"{kind} *", array.ctypes.data)

    def _make_room(self, room: int) -> None:
        s = self._state
        if s.used >= 2**31 - s.shape[2]:
            raise ValueError(f"mask of shape {self.shape} has 2³¹ runs or more: use more ranks")
        old, self._arrays = self._arrays, np.empty((3, min(room, 2**31 - 1)), dtype=np.int32)
        self._arrays[:, : s.used] = old[:, : s.used]
        s.begin, s.end, s.parent = (self._pointer(part, "int32_t") for part in self._arrays)
        s.room = self._arrays.shape[1]

    def measure(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Voxels of each cluster; per axis bit 1 where it is on the first plane, bit 2 where on the last."""
        size = np.zeros(self.count, dtype=np.int64)
        touched = np.zeros((self.count, 3), dtype=np.uint8)
        self._lib.measure(self._state, self._pointer(size, "int64_t"), self._pointer(touched, "uint8_t"))
        return size, touched if len(self.shape) == 3 else touched[:, ::2]

    def plane(self, place: int) -> npt.NDArray[np.int64]:
        """Cluster of each voxel of a plane normal to axis 0; −1 outside of the phase."""
        clusters = np.full(self.shape[1:], -1, dtype=np.int64)
        if self.shape[0]:
            self._lib.plane(self._state, place % self.shape[0], self._pointer(clusters, "int64_t"))
        return clusters

    def select(self, chosen: npt.NDArray[np.bool_]) -> Mask:
        """Voxels whose cluster is chosen."""
        found = np.zeros(self.shape, dtype=bool)
        chosen = np.ascontiguousarray(chosen, dtype=bool)
        self._lib.select_clusters(
            self._state, self._pointer(chosen, "uint8_t"), self._pointer(found, "uint8_t")
        )
        return found
