"""The finest level: finite volumes or trilinear elements on voxels, from their conductivities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from fetopo.transport.voxel import _kernels
from fetopo.transport.voxel.blocks import Blocks
from fetopo.transport.voxel.grid import VoxelGrid
from fetopo.transport.voxel.level import Level
from fetopo.transport.voxel.multigrid import Hierarchy

Array = npt.NDArray[Any]
Scheme = Literal["finite volumes", "elements"]
#: Per axis, whether the potential is fixed at the first and at the last face.
Fixed = Sequence[tuple[bool, bool]]

SCHEMES = ("finite volumes", "elements")

#: A face is an interface if the conductivity on one side is below this share of that on the other,
_JUMP = 0.05
#: and a structure is rough if more than this share of all faces are: 0.01 to 0.05 on tomographic images of
#: pores, 0.11 on an image with noise of single voxels, which took half as many iterations again.
_ROUGH = 0.07
#: From here on a second sweep is worth its cost, but for masks, which take ten iterations without it.
_UNEVEN = 0.04


def sides_of(grid: VoxelGrid) -> npt.NDArray[np.float64]:
    """Edge lengths of a voxel relative to the longest, three axes; 1 along the one that a 2D grid lacks."""
    h = np.array(grid.voxel_size)
    return np.concatenate([np.ones(3 - grid.dim), h / h.max()])


class Operator:
    """−∇·κ∇u on the voxels of a grid, by finite volumes or by elements, with its multigrid hierarchy.

    Finite volumes: one unknown per voxel, flux t(u₁ − u₂) through a face, t = area/distance times the
    harmonic mean of both sides; a fixed potential is at the face, half a voxel away. Elements: one trilinear
    (in 2D bilinear) element per voxel, unknowns are nodes. Lengths are relative to a voxel's longest edge.

    Args:
        grid: the voxels; an axis that is not periodic is closed unless its potential is fixed.
        scheme: "finite volumes" or "elements".
        rhs: right-hand sides that are solved at once.
        fixed: per axis, whether the potential is fixed at the first and the last face.
        shift: added to the operator for each unknown (finite volumes).
        double: whether faces keep double precision.
    Raises:
        ValueError: another scheme, or a fixed potential on a periodic axis.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        scheme: Scheme = "finite volumes",
        *,
        rhs: int = 1,
        fixed: Fixed | None = None,
        shift: float = 0.0,
        double: bool = False,
    ) -> None:
        if scheme not in SCHEMES:
            raise ValueError(f"scheme is {scheme!r}: expected {' or '.join(SCHEMES)}")
        given = [(False, False)] * grid.dim if fixed is None else [(bool(a), bool(b)) for a, b in fixed]
        if any(wraps and any(ends) for wraps, ends in zip(grid.periodic, given, strict=True)):
            raise ValueError("a potential cannot be fixed at the faces of a periodic axis")
        self.grid, self.scheme, self.rhs, self.double = grid, scheme, rhs, double
        self.fixed = [(False, False)] * (3 - grid.dim) + given
        self.sides = sides_of(grid)
        self.voxels = grid.blocks
        self.blocks = self._unknowns()
        singular = shift == 0 and not any(any(ends) for ends in self.fixed)
        self.hierarchy = Hierarchy(self.blocks, rhs, singular)
        self.level: Level = self.hierarchy.finest
        struct = self.level.struct
        struct.shift = shift
        for axis in range(3):
            first, last = self.voxels.ends(axis)
            struct.voxels[axis] = self.voxels.own_shape[axis]
            struct.low[axis] = self.fixed[axis][0] and first
            struct.high[axis] = self.fixed[axis][1] and last
            flat = axis < 3 - grid.dim
            h = self.sides[axis]
            struct.weight[axis] = 0.0 if flat else float(np.prod(self.sides)) / h**2
            struct.offset[axis] = int(self.fixed[axis][0])
            # The axis that a 2D grid lacks: one layer of nodes between two copies of the same voxel.
            struct.stiffness[axis] = 0.0 if flat else 1 / h
            struct.diagonal[axis] = 0.5 if flat else h / 3
            struct.coupling[axis] = 0.0 if flat else h / 6
        if scheme == "elements":
            struct.radius = self._radius()
        self.level.work()

    @property
    def _flat(self) -> int:
        return 3 - self.grid.dim

    def _unknowns(self) -> Blocks:
        if self.scheme == "finite volumes":
            return self.voxels
        shape = []
        for axis, n in enumerate(self.voxels.shape):
            if axis < self._flat or self.voxels.periodic[axis]:
                shape.append(n)
            else:
                shape.append(n + 1 - sum(self.fixed[axis]))
        return self.voxels.like(shape)

    def _radius(self) -> float:
        """Largest eigenvalue of an element's matrix relative to its diagonal: it bounds that of D⁻¹A."""
        s = self.level.struct
        matrices = []
        for axis in range(3):
            parts = [
                np.array([[s.diagonal[b], s.coupling[b]], [s.coupling[b], s.diagonal[b]]]) for b in range(3)
            ]
            parts[axis] = s.stiffness[axis] * np.array([[1.0, -1.0], [-1.0, 1.0]])
            matrices.append(np.kron(np.kron(parts[0], parts[1]), parts[2]))
        worst = 0.0
        for K in [sum(matrices)] if s.parts == 1 else [*matrices, sum(matrices)]:
            D = np.diag(np.maximum(np.diag(K), 1e-300))
            worst = max(worst, float(eigh(K, D, eigvals_only=True).max()))
        return worst

    def assign(self, kappa: Array, table: npt.NDArray[np.float64] | None = None) -> None:
        """Set the conductivities and build the hierarchy. Collective.

        Args:
            kappa: own block: booleans (1 or an exact insulator), bytes that index `table`, or numbers, also
                (d, …) for a diagonal tensor.
            table: conductivity of each label, up to 256.
        """
        voxels = self.grid.own_shape
        kappa = np.asarray(kappa)
        tensor = kappa.shape == (self.grid.dim, *voxels) and kappa.shape != voxels
        if not tensor and kappa.shape != voxels:
            raise ValueError(f"conductivities have shape {kappa.shape}: expected this rank's {voxels}")
        struct, level = self.level.struct, self.level
        if kappa.dtype == bool or table is not None:
            self._labels(kappa, table)
        else:
            self._numbers(kappa, tensor)
        if self.scheme == "finite volumes" and struct.kind != level.lib.MASK:
            member = "fine_face0" if self.double else "face0"
            if member not in level.kept:
                level.faces(self.double)
            struct.kind = level.lib.FINE_FACES if self.double else level.lib.FACES
            level.lib.faces(struct)
        struct.sweeps = self._sweeps()
        self.hierarchy.build()

    def _sweeps(self) -> int:
        """Sweeps of the finest smoother: more where interfaces are so dense that aggregates straddle them."""
        found = self.voxels.sum(np.array([self.level.lib.interfaces(self.level.struct, _JUMP)]))
        share = float(found[0]) / (3 * np.prod(self.voxels.shape, dtype=float))
        if share > _ROUGH:
            return 3
        mask = self.level.struct.kind == self.level.lib.MASK or self.level.struct.binary
        if share < _UNEVEN or (mask and self.scheme == "finite volumes"):
            return 1
        return 2 if mask or self.scheme == "finite volumes" else 3

    def _padded(self, kappa: Array, dtype: Any) -> Array:
        """A voxel array with its ghosts, zero beyond faces that are not periodic."""
        full = self.voxels.padded(1, dtype)
        full[0, 1:-1, 1:-1, 1:-1] = kappa.reshape(self.voxels.own_shape)
        self.voxels.complete(full)
        if self.scheme == "elements":
            # The axis that a 2D grid lacks has the same voxel on both sides.
            for axis in range(self._flat):
                view = np.moveaxis(full[0], axis, 0)
                view[0], view[-1] = view[-2], view[1]
        return full

    def _labels(self, kappa: Array, table: npt.NDArray[np.float64] | None) -> None:
        struct, level = self.level.struct, self.level
        struct.parts = 1
        struct.binary = table is None
        if table is not None:
            level.give("table", "double", np.concatenate([table, np.zeros(256 - len(table))]).astype(float))
        labels = self._padded(kappa, np.uint8)
        if self.scheme == "elements":
            level.give("label", "uint8_t", labels)
            struct.kind = level.lib.BYTES
            return
        # Two bits count the open half faces along an axis: 3 is the most, four would need a third.
        codes = table is None and all(
            not any(ends) or n > 1 for ends, n in zip(self.fixed, self.voxels.shape, strict=True)
        )
        if codes and struct.shift == 0:
            struct.kind = level.lib.MASK
            code = level.give("code", "uint8_t", self.voxels.padded(1, np.uint8))
            level.lib.encode(struct, _kernels.pointer(level.ffi, "uint8_t", labels))
            self.voxels.complete(code)
            return
        level.give("label", "uint8_t", labels)
        struct.kind = level.lib.FACES

    def _numbers(self, kappa: Array, tensor: bool) -> None:
        struct, level = self.level.struct, self.level
        struct.label = level.ffi.NULL
        struct.parts = 3 if tensor else 1
        struct.kind = level.lib.VALUES if self.scheme == "elements" else level.lib.FACES
        parts = [kappa] if not tensor else [kappa[0]] * self._flat + list(kappa)
        for axis, part in enumerate(parts):
            level.give("kappa", "double", self._padded(np.asarray(part, dtype=float), np.float64), axis)
        if self.scheme == "elements":
            struct.radius = self._radius()
