"""A smallest length of both phases, as constraints on the shape of the filtered field."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fetopo.design.cellwise import GridGradient, NodalField
from fetopo.design.density import DensityMap, HeavisideProjection
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.quadrature import measure
from fetopo.transport.state import assemble_dual, global_sum, owned
from fetopo.transport.voxel import VoxelGrid

Array = npt.NDArray[np.float64]

#: Mean square by which the filtered field may miss the threshold where a feature is thinnest.
TOLERANCE = 1e-5

#: Decay c of the weight with the squared slope, over R²: the skeleton that is looked at is then about R/10
#: wide on any mesh, and the flanks of features count next to nothing.
DECAY = 8.0

#: Sharpness of the projection from which on the constraint acts: before, there are no features to measure.
FROM_BETA = 8.0

#: Sharpness from which on the tolerance is what was asked for; before it is larger by (64/β)⁴. A constraint
#: that is suddenly far from being kept would be kept by a design without the phase.
FULL_BETA = 64.0


def eroded_threshold(length: float, radius: float) -> float:
    """What the filtered field reaches in the middle of a strip of a given width.

    η = 1 − ½/cosh(√3 b/R) for a strip that the projection at ½ makes b wide, with the Helmholtz filter of
    radius R in one dimension.

    Args:
        length: b, in the unit of the radius.
        radius: R of the filter.
    Raises:
        ValueError: a length that the filter cannot tell from any larger one: above 1.5 R.
    """
    if not (np.isfinite(length) and length > 0):
        raise ValueError(f"the smallest length must be positive, found {length}")
    if not length <= 1.5 * radius:
        raise ValueError(
            f"a smallest length of {length:g} needs a filter radius of at least {length / 1.5:g}, "
            f"found {radius:g}"
        )
    return float(1 - 0.5 / np.cosh(3**0.5 * length / radius))


class LengthScale:
    """How far the features of one phase are from a smallest width: at most 1 where all keep it.

    v = √((g + δ)/(t + δ)),  g = 1/|Y| ∫ ρ exp(−c |∇x̃|²) min(x̃ − η, 0)² dx for the phase with ρ = 1, and the
    same in 1 − ρ and 1 − x̃ for the other.

    The integral looks at the skeleton of the features, where the filtered field x̃ has no slope: there it is
    above η if the feature is wide enough (:func:`eroded_threshold`). It acts once the projection is sharp;
    before it is 0.

    Args:
        density: the density; one of its steps is `filter`.
        filter: the filter step, with its `radius`.
        projection: the projection; its `beta` says when the constraint acts.
        cell: cell, grid of voxels, or a mesh that is not periodic.
        volumes: volumes of this rank's cells.
        length: smallest width, in the unit of the cell.
        phase: 1 or 0, the density of the phase.
        tolerance: t at the end of the continuation, see `FULL_BETA`; δ is a hundredth of it.
        from_beta: sharpness from which on it acts.
        volume: |Y|; default the sum of the volumes.
    Raises:
        ValueError: a length that is too large for the filter, or a filter that is no step of the density.
    Source: Zhou, Lazarov, Wang and Sigmund (2015), Comput. Methods Appl. Mech. Eng. 293, 266,
    doi:10.1016/j.cma.2015.05.003, where c grows with the number of cells to a radius. The root is ours: it
    keeps the constraint of order one.
    """

    states = ()

    def __init__(
        self,
        density: DensityMap,
        filter: Any,
        projection: HeavisideProjection,
        cell: UnitCell | VoxelGrid | Any,
        volumes: Array,
        length: float,
        *,
        phase: Literal[0, 1] = 1,
        tolerance: float = TOLERANCE,
        from_beta: float = FROM_BETA,
        volume: float | None = None,
    ) -> None:
        self.eta = eroded_threshold(length, filter.radius)
        if filter not in density.steps:
            raise ValueError("the filter is no step of the density")
        self.density, self.comm, self.rho = density, density.comm, density.rho
        self.projection, self.phase = projection, phase
        self.tolerance, self.from_beta = float(tolerance), float(from_beta)
        self._step = density.steps.index(filter)
        total = float(self.comm.allreduce(float(volumes.sum()))) if volume is None else float(volume)
        self._share = 1 / total
        self._decay = DECAY * filter.radius**2
        self._grid = cell if isinstance(cell, VoxelGrid) else None
        if isinstance(cell, VoxelGrid):
            self._gradient = GridGradient(cell)
            self._share *= float(np.prod(cell.voxel_size))
            return
        box = cell if isinstance(cell, UnitCell) else None
        mesh = cell if box is None else box.mesh
        self._nodal = NodalField(mesh, box)
        smooth = self._nodal.field
        x: Any = self._nodal.cells
        rho: Any = density.rho
        if phase == 0:
            x, rho = 1 - x, 1 - rho
        c, eta = fem.Constant(mesh, self._decay), fem.Constant(mesh, self.eta)
        below = ufl.conditional(ufl.lt(x, eta), (x - eta) ** 2, 0.0)
        J = rho * ufl.exp(-c * ufl.inner(ufl.grad(smooth), ufl.grad(smooth))) * below * measure(mesh, 2, box)
        self._value = fem.form(J)
        self._by_density = fem.form(ufl.derivative(J, density.rho))
        self._by_cells = fem.form(ufl.derivative(J, self._nodal.cells))
        self._by_nodes = fem.form(ufl.derivative(J, smooth))

    @property
    def active(self) -> bool:
        """Whether the projection is sharp enough."""
        return self.projection.beta >= self.from_beta

    def violation(self) -> float:
        """g at the present density, whether it acts or not. Collective."""
        field = self.density.inner[self._step]
        if self._grid is None:
            self._nodal.forward(field)
            return global_sum(self._value) * self._share
        rho, weight, below, _ = self._on_voxels(field)
        return float(self._grid.sum(float(np.sum(rho * weight * below**2)))) * self._share

    def _on_voxels(self, field: Array) -> tuple[Array, Array, Array, list[Array]]:
        shape = self._grid.own_shape  # type: ignore[union-attr]
        x, rho = field.reshape(shape), self.density.values.reshape(shape)
        slopes = self._gradient.central(field)
        weight = np.exp(-self._decay * sum(s**2 for s in slopes))
        if self.phase == 0:
            x, rho = 1 - x, 1 - rho
        return rho, weight, np.minimum(x - self.eta, 0.0), slopes

    def _allowed(self) -> float:
        """t at the present sharpness of the projection."""
        return self.tolerance * max(1.0, FULL_BETA / self.projection.beta) ** 4

    def _root(self, g: float) -> float:
        allowed = self._allowed()
        small = 0.01 * allowed
        return float(np.sqrt((g + small) / (allowed + small)))

    def value(self) -> float:
        """v at the present density: at most 1 where every feature is wide enough. Collective."""
        return self._root(self.violation()) if self.active else 0.0

    def derivative(self) -> Array:
        """There is none by the density alone.

        Raises:
            TypeError: always; :func:`fetopo.design.adjoint.pull_back` knows the way.
        """
        raise TypeError("a length scale depends on the filtered field too: use design_derivative")

    def design_derivative(self, density: DensityMap) -> Array:
        """dv/dm, through the density and through the filtered field. Collective."""
        if not self.active:
            return np.zeros(density.inner[0].shape)
        field = self.density.inner[self._step]
        v = self._root(self.violation())
        factor = 0.5 / (v * 1.01 * self._allowed()) * self._share
        if self._grid is None:
            by_density = owned(assemble_dual(self._by_density)) * factor
            inner = owned(assemble_dual(self._by_cells)) * factor
            inner = inner + self._nodal.vjp(owned(assemble_dual(self._by_nodes)) * factor)
            return density.vjp(by_density, {self._step: inner})
        sign = -1.0 if self.phase == 0 else 1.0
        rho, weight, below, slopes = self._on_voxels(field)
        by_density = sign * factor * weight * below**2
        inner = sign * factor * 2 * rho * weight * below
        for axis, slope in enumerate(slopes):
            # The transpose of a central difference is its negative.
            dual = -2 * self._decay * factor * rho * weight * below**2 * slope
            inner = inner - self._gradient.central(dual)[axis]
        return density.vjp(by_density.reshape(-1), {self._step: inner.reshape(-1)})
