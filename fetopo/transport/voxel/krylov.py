"""Conjugate gradients for several right-hand sides at once, preconditioned by one multigrid cycle.

The solution is kept in double precision, directions and residuals in single. The residual is computed anew
from the solution, in double, whenever it has fallen by a factor and before a solution counts as found, so
that single precision costs no accuracy (van der Vorst and Ye 2000, SIAM J. Sci. Comput. 22, 835,
doi:10.1137/S1064827599353865).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.transport.voxel import _kernels
from fetopo.transport.voxel.multigrid import Hierarchy

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: Factor by which the residual falls before it is computed anew,
_RENEW = 1e-4
#: and where good conductors float in poor ones: round-off in them is as large as what holds them. A grain of
#: cast iron at contrast 1e9 took 94 iterations with 1e-4, and takes 7 with this.
_OFTEN = 0.1


class ConjugateGradients:
    """Solver for A u = f on the finest level of a hierarchy.

    Args:
        hierarchy: operator and preconditioner.
        most: iterations after which the solver gives up.
    Attributes:
        iterations: of the last call.
        residuals: norm of the residual relative to that of the right-hand side after each of them, the
            largest of all right-hand sides.
    """

    def __init__(self, hierarchy: Hierarchy, most: int = 200) -> None:
        self.hierarchy, self.most = hierarchy, most
        self.lib, self.ffi = hierarchy.lib, hierarchy.ffi
        self.iterations = 0
        self.residuals: list[float] = []
        finest = hierarchy.finest
        self.p = finest.kept.setdefault("p", finest.blocks.padded(hierarchy.rhs, np.float32))

    def residual(self, u: Array, gradient: Floats | None, source: Array | None) -> Floats:
        """b of the finest level = source − A u − (what the gradient adds); its squares. Collective.

        Fixed potentials are in the ghosts of u.
        """
        finest = self.hierarchy.finest
        finest.exchange_double(u)
        squares = np.zeros(self.hierarchy.rhs)
        self.lib.residual(
            finest.struct,
            self._double(u),
            self._double(gradient),
            self._double(source),
            self._double(squares),
        )
        return finest.blocks.sum(squares)

    def solve(
        self,
        u: Array,
        *,
        gradient: Floats | None = None,
        source: Array | None = None,
        rtol: float = 1e-6,
        reference: Floats | None = None,
        least: float = 0.0,
    ) -> None:
        """Improve u until ‖f − A u‖ ≤ rtol·‖f‖ for every right-hand side. Collective.

        Args:
            u: start, and solution afterwards; shape (rhs, …) with ghosts.
            gradient: per right-hand side the mean gradient of the potential, along periodic axes.
            source: per unknown, integrated over its volume.
            reference: ‖f‖² per right-hand side where u does not start from zero.
            least: ‖f − A u‖² that is small enough whatever f is.
        Raises:
            RuntimeError: no convergence.
        """
        finest, rhs = self.hierarchy.finest, self.hierarchy.rhs
        lib, struct = self.lib, finest.struct
        squares = self.residual(u, gradient, source)
        goal = np.maximum(rtol**2 * (squares if reference is None else reference), least)
        scale = np.where(goal > 0, goal, 1.0) / rtol**2
        renewed, self.residuals, self.iterations = squares.copy(), [], 0
        fall = _OFTEN if self.hierarchy.corrections else _RENEW
        product, before = np.zeros(rhs), np.zeros(rhs)
        curvature, alpha, beta = np.zeros(rhs), np.zeros(rhs), np.zeros(rhs)
        p = _kernels.pointer(self.ffi, "float", self.p)
        while np.any(squares > goal):
            if self.iterations == self.most:
                raise RuntimeError(
                    f"the voxel solver did not reach a relative residual of {rtol:g} in {self.most} "
                    f"iterations (now {float(np.sqrt((squares / scale).max())):.1e})"
                )
            active = squares > goal
            self.hierarchy.cycle(product)
            product[:] = finest.blocks.sum(product)
            beta[:] = np.where(active & (before > 0), product / np.where(before > 0, before, 1.0), 0.0)
            before[:] = product
            lib.direction(struct, self._double(beta), p)
            finest.exchange("p")
            lib.apply(struct, p, self._double(curvature))
            total = finest.blocks.sum(curvature)
            alpha[:] = np.where(active & (total > 0), product / np.where(total > 0, total, 1.0), 0.0)
            lib.advance(struct, self._double(alpha), p, self._double(u), self._double(squares))
            squares = finest.blocks.sum(squares)
            self.iterations += 1
            if not np.any(squares > goal) or np.any(squares < fall**2 * renewed):
                squares = self.residual(u, gradient, source)
                renewed = squares.copy()
            self.residuals.append(float(np.sqrt((squares / scale).max())))

    def _double(self, values: Array | None) -> Any:
        return _kernels.pointer(self.ffi, "double", values)
