"""What makes one design of many preferred: distance to a prior, roughness, length of the interface.

Each is a functional of the density that is added to the objective with a weight. They have no unit, so that a
weight means the same on every cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fetopo._mpi import require
from fetopo.design.adjoint import Functional
from fetopo.design.cellwise import GridGradient, NodalField
from fetopo.design.combination import weighted_sum
from fetopo.design.density import DensityMap
from fetopo.design.interface import InterfaceArea
from fetopo.design.model import CellModel
from fetopo.microstructure.mesh import UnitCell, voxel_of_cells
from fetopo.transport.quadrature import measure
from fetopo.transport.state import assemble_dual, global_sum, owned
from fetopo.transport.voxel import VoxelGrid

Array = npt.NDArray[np.float64]

Kind = Literal["tikhonov", "smoothness", "total-variation"]
KINDS: tuple[Kind, ...] = ("tikhonov", "smoothness", "total-variation")


def _number(density: DensityMap, filter: Any) -> int:
    """Which step of a density its filter is."""
    if filter not in density.steps:
        raise ValueError("the filter is no step of the density")
    return density.steps.index(filter)


class PriorDistance:
    """Tikhonov's functional, half the mean square of the distance to a field that is known before.

    R = 1/(2|Y|) ∫ (f − f₀)² dx with f = ρ, the density, or f = x̃, the field before the projection

    Of two crisp densities it is half the share in which they differ, and its derivative says nothing of where
    their interfaces lie. A prior that is smooth, for the filtered field, moves interfaces: where x̃₀ is near
    the threshold a change costs little.

    Args:
        density: the density.
        volumes: volumes of this rank's cells.
        volume: |Y|.
        prior: f₀ of this rank's cells.
        filter: the filter step, for f = x̃; None for f = ρ.
    Raises:
        ValueError: a filter that is no step of the density.
    Source: Engl, Hanke and Neubauer, Regularization of Inverse Problems (1996), chapters 5 and 10.
    """

    states = ()

    def __init__(
        self, density: DensityMap, volumes: Array, volume: float, prior: Array, filter: Any | None = None
    ) -> None:
        self.density, self.comm, self.rho = density, density.comm, density.rho
        self._share, self.prior = volumes / volume, np.asarray(prior, dtype=float)
        self._step = None if filter is None else _number(density, filter)

    def _difference(self) -> Array:
        values = self.density.values if self._step is None else self.density.inner[self._step]
        return values - self.prior

    def value(self) -> float:
        """R at the present density. Collective."""
        return 0.5 * float(self.comm.allreduce(float(self._share @ self._difference() ** 2)))

    def derivative(self) -> Array:
        """dR/dρ as a dual vector over owned cells.

        Raises:
            TypeError: of the filtered field there is none; :func:`fetopo.design.adjoint.pull_back` knows the
                way.
        """
        if self._step is not None:
            raise TypeError("a distance of the filtered field has no derivative by the density alone")
        return np.asarray(self._share * self._difference())

    def design_derivative(self, density: DensityMap) -> Array:
        """dR/dm, through the density or through the filtered field. Collective."""
        if self._step is None:
            return density.vjp(self.derivative())
        return density.vjp(np.zeros_like(density.values), {self._step: self._share * self._difference()})


class Roughness:
    """Tikhonov's functional of the slope, half the mean square of the slope of the filtered field.

    R = L²/(2|Y|) ∫ |∇x̃|² dx. Not of the density: that jumps, and its slopes belong to the grid.

    On a mesh ∇x̃ is that of the continuous field through the means at the nodes, on voxels that at their
    corners.

    Args:
        density: the density; one of its steps is `filter`.
        filter: the filter step.
        cell: cell or grid of voxels.
        volume: |Y|.
        length: L, in the unit of the cell.
    Raises:
        ValueError: a filter that is no step of the density.
    """

    states = ()

    def __init__(
        self, density: DensityMap, filter: Any, cell: UnitCell | VoxelGrid, volume: float, length: float
    ) -> None:
        self.density, self.comm, self.rho = density, density.comm, density.rho
        self._step = _number(density, filter)
        self._share = length**2 / volume
        self._grid = cell if isinstance(cell, VoxelGrid) else None
        if isinstance(cell, VoxelGrid):
            self._gradient = GridGradient(cell)
            self._share *= float(np.prod(cell.voxel_size))
            return
        self._nodal = NodalField(cell.mesh, cell)
        x = self._nodal.field
        J = 0.5 * ufl.inner(ufl.grad(x), ufl.grad(x)) * measure(cell.mesh, 2, cell)
        self._value, self._derivative = fem.form(J), fem.form(ufl.derivative(J, x))

    def value(self) -> float:
        """R at the present density. Collective."""
        field = self.density.inner[self._step]
        if self._grid is not None:
            squares = sum(float(np.sum(part**2)) for part in self._gradient.corners(field))
            return 0.5 * self._share * float(self._grid.sum(squares))
        self._nodal.forward(field)
        return global_sum(self._value) * self._share

    def derivative(self) -> Array:
        """There is none by the density alone.

        Raises:
            TypeError: always; :func:`fetopo.design.adjoint.pull_back` knows the way.
        """
        raise TypeError("roughness depends on the filtered field: use design_derivative")

    def design_derivative(self, density: DensityMap) -> Array:
        """dR/dm through the filtered field. Collective."""
        field = density.inner[self._step]
        if self._grid is not None:
            parts = [self._share * part for part in self._gradient.corners(field)]
            dual: Array = self._gradient.corners_transposed(parts).reshape(-1)
        else:
            self._nodal.forward(field)
            dual = self._nodal.vjp(owned(assemble_dual(self._derivative))) * self._share
        return density.vjp(np.zeros_like(density.values), {self._step: dual})


@dataclass(frozen=True)
class Regularization:
    """A functional that is added to the objective of a design.

    Attributes:
        kind: "tikhonov", :class:`PriorDistance`; "smoothness", :class:`Roughness`; "total-variation",
            the length or area of the interface per volume of the cell, times `length`
            (:class:`fetopo.design.interface.InterfaceArea`).
        weight: factor before it; 0 leaves it out.
        prior: density that a Tikhonov term draws to: a number, an array over the whole grid, or one value per
            owned cell.
        on: whether a Tikhonov term compares the "density" with it or the filtered "field".
        length: that makes the other two numbers without a unit; default that of an edge of a cube or square
            of the cell's volume.
    Raises:
        ValueError: another kind, a negative weight, a Tikhonov term without prior, or a prior for others.
    """

    kind: Kind
    weight: float = 1.0
    prior: npt.ArrayLike | None = None
    on: Literal["density", "field"] = "density"
    length: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a regularization is one of {', '.join(KINDS)}, found {self.kind!r}")
        if not 0 <= self.weight < np.inf:
            raise ValueError(
                f"the weight of a regularization must be finite and not negative, found {self.weight}"
            )
        if (self.prior is None) == (self.kind == "tikhonov"):
            need = "needs a" if self.prior is None else "has no"
            raise ValueError(f"a regularization of kind {self.kind!r} {need} prior")
        if self.length is not None and not 0 < self.length < np.inf:
            raise ValueError(f"the length of a regularization must be positive, found {self.length}")

    @property
    def described(self) -> str:
        """Kind and weight, for a checkpoint."""
        length = "" if self.length is None else f", length {self.length:g}"
        return f"{self.kind}, weight {self.weight:g}{length}"

    def build(self, model: CellModel) -> Functional:
        """The functional on a model, without its weight. Collective.

        Raises:
            ValueError: a prior of another shape, or with values outside [0, 1]; on every rank.
        """
        length = self.length or model.volume ** (1 / model.dim)
        if self.kind == "tikhonov":
            filter = model.filter if self.on == "field" else None
            return PriorDistance(model.density, model.volumes, model.volume, self._own_prior(model), filter)
        if self.kind == "smoothness":
            return Roughness(model.density, model.filter, model.cell, model.volume, length)
        area = InterfaceArea(model.density, model.cell, model.volumes, model.volume)
        return weighted_sum([area], [length])

    def _own_prior(self, model: CellModel) -> Array:
        values = np.asarray(self.prior, dtype=float)
        n, cell = model.volumes.size, model.cell
        grid = cell.shape if isinstance(cell, VoxelGrid) else cell.grid
        whole = grid is not None and values.shape == tuple(grid)
        known = whole or values.shape in ((), (n,))
        shape = "" if grid is None else f" or the whole grid {tuple(grid)}"
        require(
            model.comm,
            known,
            f"a prior has shape {values.shape}: expected a number, one value per owned cell ({n},){shape}",
        )
        inside = bool(np.all((values >= 0) & (values <= 1)))
        require(model.comm, inside, "a prior must lie between 0 and 1")
        if not whole:
            return np.broadcast_to(values, (n,)).copy()
        if isinstance(cell, VoxelGrid):
            return np.array(cell.take(values)).reshape(-1)
        return np.asarray(values[tuple(voxel_of_cells(cell)[:n].T)])


def regularized(
    objective: Functional | list[Functional], terms: Sequence[Regularization], model: CellModel
) -> Functional | list[Functional]:
    """Objective + Σ wᵢ Rᵢ; the objective itself where no term has a weight. Collective.

    Raises:
        ValueError: several objectives, of which the largest is minimized.
    """
    terms = [term for term in terms if term.weight > 0]
    if not terms:
        return objective
    if isinstance(objective, list):
        raise ValueError(f"a regularization is added to one objective, found {len(objective)}")
    parts = [objective, *(term.build(model) for term in terms)]
    return weighted_sum(parts, [1.0, *(term.weight for term in terms)])


def scaled(terms: Sequence[Regularization], weight: float) -> list[Regularization]:
    """The same terms with their weights times a common one."""
    return [replace(term, weight=weight * term.weight) for term in terms]
