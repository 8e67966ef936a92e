"""Designs that stand an etching error: one design under several errors, all of them designed together.

    x ─ … ─ filter ─▶ x̃ ┬─ projection at ½ ───────▶ ρ    as drawn
                         ├─ projection at ½ + Δη ──▶ ρₑ   etched by δ too much
                         └─ projection at ½ − Δη ──▶ ρ_d  etched by δ too little

Source: Wang, Lazarov and Sigmund (2011), Struct. Multidisc. Optim. 43, 767, doi:10.1007/s00158-010-0602-y.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import integrate

from fetopo._mpi import require
from fetopo.design.adjoint import Functional, pull_back
from fetopo.design.combination import Combination
from fetopo.design.density import DensityMap, HeavisideProjection
from fetopo.design.filters import ConvolutionFilter
from fetopo.design.initial import random_field
from fetopo.design.problem import Constraint, DesignProblem
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.voxel import VoxelGrid

Array = npt.NDArray[np.float64]

#: Largest error, over the radius of the filter: its threshold is 0.98.
_LARGEST = 0.9


def etched_threshold(error: float | Array, radius: float) -> Array:
    """Threshold that moves a straight interface by a length, for the Helmholtz filter.

    η = ½ + ½ sign(δ) (1 − exp(−2√3 |δ|/R))

    Beside an edge of the design variables, 1 on one side and 0 on the other, the filtered field is
    1 − ½ exp(−s/r) at the depth s, with r = R/(2√3): it has this value where s = δ.

    Args:
        error: δ, positive where the phase with ρ = 1 is etched away, in the unit of the radius; one length
            or one per cell.
        radius: R of the filter.
    Raises:
        ValueError: an error that is not finite, or larger than the filter can hold, 0.9 R.
    """
    delta, radius = np.asarray(error, dtype=float), float(radius)
    largest = float(np.max(np.abs(delta), initial=0.0))
    if not largest <= _LARGEST * radius:
        raise ValueError(
            f"an etching error of {largest:g} needs a filter radius of at least {largest / _LARGEST:g}, "
            f"found {radius:g}"
        )
    size = -0.5 * np.expm1(-2 * 3**0.5 * np.abs(delta) / radius) if radius > 0 else np.zeros(delta.shape)
    return np.asarray(0.5 + np.sign(delta) * size)


def _cone(radius: float, dim: int) -> tuple[Array, Array]:
    """Depths up to R beside a straight edge, and how far above ½ the average with cone weights is there."""
    t = np.linspace(0.0, 1.0, 801)
    if dim == 2:
        y = np.sqrt(1 - t**2)
        weight = y - t**2 * np.arcsinh(y / np.maximum(t, 1e-12))
    else:
        weight = 1 / 3 - t**2 + 2 / 3 * t**3
    above = integrate.cumulative_trapezoid(weight, t, initial=0.0)
    return t * radius, 0.5 * above / above[-1]


def thresholds(model: Any, error: float | Array) -> Array:
    """Threshold of an etching error for the filter of a model, as :func:`etched_threshold`.

    Raises:
        ValueError: an error that the filter cannot hold, or a number of values that is not that of the
            cells; on every rank.
    """
    comm, delta = model.density.comm, np.asarray(error, dtype=float)
    count = model.volumes.size
    message = f"an error is one length or one per owned cell ({count}), found shape {delta.shape}"
    require(comm, delta.shape in ((), (count,)), message)
    radius = float(model.filter.radius)
    found, problem = np.asarray(delta), ""
    try:
        found = etched_threshold(delta, radius)
    except ValueError as wrong:
        problem = str(wrong)
    require(comm, not problem, problem)
    if isinstance(model.filter, ConvolutionFilter):
        depth, above = _cone(radius, model.dim)
        found = 0.5 + np.sign(delta) * np.interp(np.abs(delta), depth, above)
        require(comm, bool(np.all(np.abs(found - 0.5) < 0.5)), f"the error reaches the radius {radius:g}")
    return np.asarray(found)


def varying_error(cell: UnitCell | VoxelGrid, error: float, *, seed: int = 0, waves: int = 1) -> Array:
    """An etching error that varies over the cell: a smooth periodic random field between −δ and δ.

    Args:
        cell: the cell; in a domain that is not periodic the field still is.
        error: δ, the largest absolute value.
        seed, waves: see :func:`fetopo.design.initial.random_field`.
    Returns:
        One length per owned cell, for :class:`Realizations`. Collective.
    """
    values = random_field(cell, seed=seed, waves=waves)
    comm = cell.blocks.comm if isinstance(cell, VoxelGrid) else cell.mesh.comm
    largest = max(comm.allgather(float(np.abs(values).max(initial=0.0))))
    return np.asarray(error / largest * values)


class Realized:
    """A functional of one realisation, as a functional of the design they share.

    Args:
        functional: made on the density of the realisation.
        density: of the design as drawn.
        step: number of the step that gives x̃.
        realisation: from x̃ to the density of the realisation.
    """

    def __init__(
        self, functional: Functional, density: DensityMap, step: int, realisation: DensityMap
    ) -> None:
        self.functional, self.states, self.comm = functional, functional.states, functional.comm
        self.rho, self._step, self._realisation = density.rho, step, realisation

    def value(self) -> float:
        """Of the realisation."""
        return float(self.functional.value())

    def correction(self) -> float:
        """As that of the functional, where it has one."""
        own = getattr(self.functional, "correction", None)
        return 0.0 if own is None else float(own())

    @property
    def guesses(self) -> list[Array]:
        """Those of the functional."""
        return list(getattr(self.functional, "guesses", []))

    def derivative(self) -> Array:
        """There is none by the density as drawn.

        Raises:
            TypeError: always; :func:`fetopo.design.adjoint.pull_back` knows the way.
        """
        raise TypeError("a realisation has a density of its own: use design_derivative")

    def design_derivative(self, density: DensityMap) -> Array:
        """dJ/dm, through the projection of the realisation and the filter. Collective."""
        inner = pull_back(self.functional, self._realisation)
        return density.vjp(np.zeros(density.values.shape), {self._step: inner})


class Realizations:
    """A design under several etching errors.

    Each realisation is a copy of the model with a projection and a density of its own, on which states and
    functionals are made as on the model; filter, symmetry and passive regions are shared. What is
    passive is not etched.

    Args:
        model: a `CellModel`, or a `HeatModel` with a filter and a projection.
        errors: lengths, positive where the phase with ρ = 1 is etched away; one number per realisation, or
            one number per owned cell. Error 0 is the model itself.
    Attributes:
        models: the model under each error.
        projections: of all of them and the design as drawn, for the continuation.
        about: errors, for a checkpoint to compare.
    Raises:
        ValueError: no error, a model without projection or filter, an error that the filter cannot hold.
    Source: Wang, Lazarov and Sigmund (2011), doi:10.1007/s00158-010-0602-y; thresholds that vary: Schevenels,
    Lazarov and Sigmund (2011), Comput. Methods Appl. Mech. Eng. 200, 3613, doi:10.1016/j.cma.2011.08.006.
    """

    def __init__(self, model: Any, errors: Sequence[float | Array]) -> None:
        steps = list(model.density.steps)
        if not errors:
            raise ValueError("a robust design needs at least one error, found none")
        if model.projection is None or model.filter not in steps:
            raise ValueError("a robust design needs a filter and a projection, whose threshold is the error")
        place = steps.index(model.projection)
        self.model, self._step = model, place - 1
        self.projections: list[HeavisideProjection] = [model.projection]
        self.models: list[Any] = []
        for error in errors:
            eta = thresholds(model, error)
            if not max(model.density.comm.allgather(bool(np.any(error)))):
                self.models.append(model)
                continue
            projection = HeavisideProjection(model.projection.beta, eta)
            one = copy.copy(model)
            one.projection = projection
            one.density = DensityMap(model.density.domain, projection, *steps[place + 1 :])
            model.density.followers.append((self._step, one.density))
            self.projections.append(projection)
            self.models.append(one)
        self.about = {"errors": [self._described(error) for error in errors]}

    def _described(self, error: float | Array) -> list[float]:
        """Mean and root mean square of an error over the cell. Collective."""
        delta = np.broadcast_to(np.asarray(error, dtype=float), self.model.volumes.shape)
        moments = [self.model.fraction(delta), self.model.fraction(delta**2) ** 0.5]
        return [float(f"{moment:.6g}") for moment in moments]

    def each(self, make: Callable[[Any], Functional]) -> list[Functional]:
        """A functional under every error, in their order.

        Args:
            make: from a model to the functional, e.g.
                `lambda one: one.tensor_functional(one.state((0.01, 1.0)), mean_resistivity)`.
        """
        found: list[Functional] = []
        for one in self.models:
            functional = make(one)
            if one is not self.model:
                functional = Realized(functional, self.model.density, self._step, one.density)
            found.append(functional)
        return found

    def problem(self, objective: Any, constraints: Sequence[Constraint], **arguments: Any) -> DesignProblem:
        """The design problem of all realisations; arguments of :class:`DesignProblem`.

        Args:
            objective: a functional, or a sequence of them, of which the largest is minimized: the worst case.
            constraints: what must hold.
            arguments: e.g. `options`.
        """
        return DesignProblem(
            self.model.density,
            objective,
            constraints,
            volumes=self.model.volumes,
            projections=self.projections,
            interpolations=self.model.interpolations,
            solvers=self.model.solvers,
            **arguments,
        )


def spread(functionals: Sequence[Functional], middle: int) -> Combination:
    """(max Jᵢ − min Jᵢ)/|J_middle|: by how much a value differs between realisations.

    Args:
        functionals: one value under every error.
        middle: number of that of the design as drawn.
    Raises:
        ValueError: fewer than two functionals, or no such number.
    """
    if not 0 <= middle < len(functionals) or len(functionals) < 2:
        raise ValueError(
            f"a spread needs two values and the middle one, found {len(functionals)} and {middle}"
        )

    def slopes(J: Array) -> Array:
        wide, size = float(np.ptp(J)), abs(float(J[middle]))
        found = np.zeros(J.size)
        found[int(np.argmax(J))] += 1 / size
        found[int(np.argmin(J))] -= 1 / size
        found[middle] -= np.sign(J[middle]) * wide / size**2
        return found

    return Combination(functionals, lambda J: float(np.ptp(J) / abs(J[middle])), slopes)


def mean_and_deviation(functionals: Sequence[Functional], weight: float) -> Combination:
    """mean(J) + w std(J) over the realisations.

    Args:
        functionals: one value under every error.
        weight: w ≥ 0.
    Raises:
        ValueError: a weight that is negative or not finite.
    """
    if not 0 <= weight < np.inf:
        raise ValueError(f"the weight of a deviation must not be negative, found {weight}")

    def slopes(J: Array) -> Array:
        deviation, n = float(np.std(J)), J.size
        if deviation <= 1e-12 * float(np.max(np.abs(J))):
            # All alike: the deviation has no slope there.
            return np.full(n, 1 / n)
        return np.asarray(1 / n + weight * (J - J.mean()) / (n * deviation))

    return Combination(functionals, lambda J: float(J.mean() + weight * J.std()), slopes)
