"""Potentials on a voxel grid: fixed faces, sources; and energies, fluxes, derivatives that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo.transport.voxel import _kernels
from fetopo.transport.voxel.grid import VoxelGrid
from fetopo.transport.voxel.krylov import ConjugateGradients
from fetopo.transport.voxel.operators import Fixed, Operator, Scheme

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_INNER = (slice(None), *(slice(1, -1),) * 3)


@dataclass(frozen=True, eq=False)
class Fluxes:
    """Fluxes of finite volumes, linear along each axis in each voxel; one per right-hand side.

    Attributes:
        mean: Σ over voxels of flux density · volume, shape (3, rhs).
        complementary: Σ of density·density/κ · volume for each pair, shape (rhs, rhs).
        imbalance: Σ |net flux out of a voxel − source|, shape (rhs,).
        energy: Σ over faces of transmissibility · step · step, as :meth:`State.energy`.
        planes: flux of the first potential through each plane of faces normal to an axis.
    """

    mean: Floats
    complementary: Floats
    imbalance: Floats
    energy: Floats
    planes: Floats


class State:
    """Potentials of one operator, one per right-hand side, in units where a voxel's longest edge is 1.

    Args:
        grid, scheme, rhs, fixed, double: see :class:`Operator`.
        values: potential at fixed faces, by (axis, side) with side 0 or 1; default 0. The axes are those of
            the grid.
    Attributes:
        u: potentials with ghosts, shape (rhs, …).
        gradient: per right-hand side the step of the mean potential over a voxel along each of three axes.
        source: per unknown with ghosts, integrated over its volume, or None.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        scheme: Scheme = "finite volumes",
        *,
        rhs: int = 1,
        fixed: Fixed | None = None,
        values: Mapping[tuple[int, int], float] | None = None,
        double: bool = False,
        shift: float = 0.0,
    ) -> None:
        self.operator = Operator(grid, scheme, rhs=rhs, fixed=fixed, double=double, shift=shift)
        self.grid, self.scheme, self.rhs = grid, scheme, rhs
        flat = 3 - grid.dim
        self.values = {(a + flat, s): float(v) for (a, s), v in (values or {}).items()}
        self.level = self.operator.level
        self.u = self.operator.blocks.padded(rhs, np.float64)
        self.gradient: Floats | None = None
        self.source: Array | None = None
        #: Residual, squared, that is small enough whatever the load is.
        self.least = 0.0
        self.solver = ConjugateGradients(self.operator.hierarchy)

    @property
    def iterations(self) -> int:
        """Iterations of the last solve."""
        return self.solver.iterations

    def assign(self, kappa: Array, table: Floats | None = None) -> None:
        """Set the conductivities, see :meth:`Operator.assign`. Collective."""
        self.operator.assign(kappa, table)

    def solve(self, rtol: float, start: Array | None = None) -> None:
        """Solve from the potentials there are, or from others. Collective.

        Args:
            rtol: residual relative to the load.
            start: own potentials, of a shape that broadcasts, where `u` is zero so far.
        Raises:
            RuntimeError: no convergence.
        """
        reference = None
        if start is not None:
            self._ghosts(for_solver=True)
            reference = self.solver.residual(self.u, self.gradient, self.source)
            # The kernels for masks count on zeros where nothing conducts.
            there = self.conducting() if self.scheme == "finite volumes" else 1.0
            # Nothing conducts at the fixed faces: the solution is zero, wherever one starts.
            there = there if reference.any() else 0.0
            np.multiply(start, there, out=self.u[_INNER])
        elif self._started():
            # The tolerance is relative to the load, not to what a good start leaves of it.
            start, self.u = self.u, np.zeros_like(self.u)
            self._ghosts(for_solver=True)
            reference = self.solver.residual(self.u, self.gradient, self.source)
            self.u = start
        self._ghosts(for_solver=True)
        self.solver.solve(
            self.u,
            gradient=self.gradient,
            source=self.source,
            rtol=rtol,
            reference=reference,
            least=self.least,
        )
        self._ghosts(for_solver=False)

    def _started(self) -> bool:
        return bool(self.operator.blocks.comm.allreduce(bool(self.u[_INNER].any()), op=MPI.LOR))

    def _ghosts(self, *, for_solver: bool) -> None:
        """Potentials of fixed faces into the ghosts beyond them."""
        struct = self.level.struct
        # The code of a mask counts a fixed face twice, being half as far: so does the potential beyond it.
        double = for_solver and struct.kind == self.level.lib.MASK
        for axis in range(3):
            for side, here in ((0, struct.low[axis]), (1, struct.high[axis])):
                first, last = self.operator.voxels.ends(axis)
                fixed = self.operator.fixed[axis][side] and (last if side else first)
                if here or fixed:
                    ghost = np.moveaxis(self.u, axis + 1, 1)[:, -side]
                    ghost[:] = self.values.get((axis, side), 0.0) * (2 if double else 1)
        self.level.exchange_double(self.u)
        for axis in range(3 - self.grid.dim):
            view = np.moveaxis(self.u, axis + 1, 1)
            view[:, 0] = view[:, -1] = view[:, 1]

    # ---- what follows

    def _pass(self, values: Array | None) -> Any:
        return _kernels.pointer(_kernels.energy().ffi, "double", values)

    @property
    def _struct(self) -> Any:
        """The level's structure for the other compiled module."""
        ffi = _kernels.energy().ffi
        return ffi.cast("level *", int(self.level.ffi.cast("uintptr_t", self.level.struct)))

    def energy(self) -> Floats:
        """Σ over the grid of ∫κ ∇u_q·∇u_r for each pair of right-hand sides, shape (rhs, rhs). Collective."""
        out = np.zeros((self.rhs, self.rhs))
        lib = _kernels.energy().lib
        if self.scheme == "finite volumes":
            lib.volumes_energy(self._struct, self._pass(self.u), self._pass(self.gradient), self._pass(out))
        else:
            lib.elements_energy(
                self._struct, self._pass(self.u), self._pass(self.gradient), self._pass(None), -1,
                self._pass(out), self._pass(None), self._pass(None),
            )  # fmt: skip
        return self.operator.blocks.sum(out)

    def derivative(self, weight: Floats) -> Array:
        """Σ weight_qr ∂energy_qr/∂κ of every own voxel, the potentials held.

        For potentials that solve the problem with fixed loads this is the whole derivative, because the
        energy is stationary. Shape of the conductivities.
        """
        operator = self.operator
        parts = self.level.struct.parts
        out = np.zeros((parts, *operator.voxels.own_shape))
        weight = np.ascontiguousarray(weight, dtype=float)
        lib = _kernels.energy().lib
        if self.scheme == "finite volumes":
            lib.volumes_derivative(
                self._struct,
                self._pass(self.u),
                self._pass(self.gradient),
                self._pass(weight),
                self._pass(out),
            )
        else:
            energy = np.zeros((self.rhs, self.rhs))
            lib.elements_energy(
                self._struct, self._pass(self.u), self._pass(self.gradient), self._pass(weight), -1,
                self._pass(energy), self._pass(None), self._pass(out),
            )  # fmt: skip
        if parts == 1:
            return np.asarray(out[0].reshape(self.grid.own_shape))
        return np.asarray(out[3 - self.grid.dim :].reshape(self.grid.dim, *self.grid.own_shape))

    def layers(self, axis: int) -> Floats:
        """Elements: flux of the first potential along an axis of the grid through each layer. Collective."""
        axis += 3 - self.grid.dim
        own = np.zeros(self.operator.voxels.own_shape[axis])
        energy = np.zeros((self.rhs, self.rhs))
        _kernels.energy().lib.elements_energy(
            self._struct, self._pass(self.u), self._pass(self.gradient), self._pass(None), axis,
            self._pass(energy), self._pass(own), self._pass(None),
        )  # fmt: skip
        full = np.zeros(self.operator.voxels.shape[axis])
        full[self.operator.voxels.own[axis]] = own
        return self.operator.blocks.sum(full)

    def fluxes(self, axis: int = -1) -> Fluxes:
        """Finite volumes: fluxes read as Raviart–Thomas fields, in one pass. Collective.

        Args:
            axis: of the grid, for `Fluxes.planes`.
        """
        struct, operator, square = self.level.struct, self.operator, (self.rhs, self.rhs)
        axis = axis + 3 - self.grid.dim if axis >= 0 else -1
        mean, net = np.zeros((3, self.rhs)), np.zeros(self.rhs)
        energy, faces = np.zeros(square), np.zeros(square)
        own = np.zeros(struct.n[max(axis, 0)] + 1)
        _kernels.energy().lib.volumes_flux(
            self._struct, self._pass(self.u), self._pass(self.gradient), self._pass(self.source), axis,
            self._pass(mean), self._pass(energy), self._pass(net), self._pass(faces), self._pass(own),
        )  # fmt: skip
        planes = np.zeros(operator.voxels.shape[max(axis, 0)] + 1)
        start = operator.voxels.own[max(axis, 0)].start
        planes[start + 1 : start + own.size] = own[1:]
        if start == 0:
            planes[0] = own[0]
        total = operator.blocks.sum
        return Fluxes(
            total(mean * operator.sides[:, None]), total(energy), total(net), total(faces), total(planes)
        )

    def spread(self) -> Floats:
        """Largest less smallest potential of each right-hand side where something conducts. Collective."""
        own = self.u[_INNER]
        if self.scheme == "finite volumes":
            own = np.where(self.conducting(), own, np.nan)
        own = own.reshape(self.rhs, -1)
        high = np.fmax.reduce(own, axis=1, initial=-np.inf)
        low = np.fmin.reduce(own, axis=1, initial=np.inf)
        both = np.array([high, -low])
        self.operator.blocks.comm.Allreduce(MPI.IN_PLACE, both, op=MPI.MAX)
        return np.asarray(both[0] + both[1])

    def conducting(self) -> Array:
        """Own voxels that conduct (finite volumes), three axes."""
        kept, struct, lib = self.level.kept, self.level.struct, self.level.lib
        inner = (0, *(slice(1, -1),) * 3)
        if struct.kind == lib.MASK:
            return np.asarray(kept["code"][inner] != 0)
        if struct.label != self.level.ffi.NULL:
            labels = kept["label"][inner]
            return np.asarray(labels != 0 if struct.binary else kept["table"][labels] > 0)
        return np.asarray(kept["kappa0"][inner] > 0)
