"""Designs for one target along weights of a regularization, each from the design at a larger weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.design.combination import weighted_sum
from fetopo.design.crisp import threshold
from fetopo.design.formulation import formulate, make_task
from fetopo.design.goal import Goal
from fetopo.design.grey import GreyLevel
from fetopo.design.model import CellModel
from fetopo.design.problem import Constraint, DesignProblem, DesignResult, LoopOptions, Stage
from fetopo.design.regularization import Regularization, regularized, scaled
from fetopo.design.target import CorrectionOptions, correct_target
from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid

Array = npt.NDArray[np.float64]

_FIRST = LoopOptions(
    stages=tuple(Stage(3.0, 2.0**k) for k in range(7)), stage_iterations=15, final_iterations=25
)
# From a soft projection again, sharpened by factors of four at most: where it begins sharp, or sharpens in
# two steps, the design before is nearly frozen or torn, and round-off decides which misfit a weight has.
_NEXT = LoopOptions(
    stages=tuple(Stage(3.0, b) for b in (2.0, 8.0, 32.0, 64.0)), stage_iterations=12, final_iterations=25
)


@dataclass(frozen=True)
class PathOptions:
    """How the designs of a path are made.

    Attributes:
        first: of the design from the start; also of a design without weight.
        next: of each further one.
        correction: of a design without weight, so that its crisp structure meets the target.
    """

    first: LoopOptions = field(default_factory=lambda: _FIRST)
    next: LoopOptions = field(default_factory=lambda: _NEXT)
    correction: CorrectionOptions = field(
        default_factory=lambda: CorrectionOptions(rounds=4, iterations=15, tolerance=5e-3)
    )


@dataclass(frozen=True)
class PathDesign:
    """The design at one weight.

    Attributes:
        weight: α.
        labels: the crisp structure, 1 where the better material is, on every rank.
        tensor: of the crisp structure, on the voxels of the design.
        misfit: ‖Dᶜ − D*‖/‖D*‖.
        penalty: Σ wᵢ Rᵢ of the density, without α.
        grey_level: of the density.
        iterations: of the optimizer.
    """

    weight: float
    labels: npt.NDArray[np.uint8]
    tensor: Array
    misfit: float
    penalty: float
    grey_level: float
    iterations: int


class WeightPath:
    """Designs with a target tensor and a regularization, min ‖D − D*‖²/‖D*‖² + α Σ wᵢ Rᵢ, for several α.

    The design at the largest α begins at the start, each other at that of the next larger α before: from
    where the regularization decides alone to where the target does. What is measured is the crisp structure,
    on the voxels of the design and with the scheme that the optimizer uses. With α = 0 the design begins at
    the start.

    Args:
        grid: periodic grid of voxels.
        conductivity: of the poorer and the better material.
        volume_fraction: of the better one.
        target: D*.
        filter_radius: in the unit of the grid.
        terms: the regularization, with relative weights wᵢ.
        start: this rank's first design variables.
        options: see there.
    Raises:
        ValueError: a target that no structure has, or a grid that is not periodic.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        *,
        conductivity: tuple[float, float],
        volume_fraction: float,
        target: npt.ArrayLike,
        filter_radius: float,
        terms: Sequence[Regularization],
        start: Array,
        options: PathOptions | None = None,
    ) -> None:
        self.target = np.asarray(target, dtype=float)
        self.terms, self.start, self.options = list(terms), start, options or PathOptions()
        rows: Any = self.target.tolist()
        goal = Goal("target", target=tuple(map(tuple, rows)))
        task = make_task(grid.dim, conductivity, volume_fraction, filter_radius, goal)
        self.model = CellModel(grid, filter_radius, filter="convolution")
        self._asked = formulate(self.model, task)
        self._grey = GreyLevel(self.model.density, self.model.volumes, self.model.volume)
        self._penalty = None
        if self.terms:
            parts = [term.build(self.model) for term in self.terms]
            self._penalty = weighted_sum(parts, [term.weight for term in self.terms])
        self._conductivity = np.array(conductivity, dtype=float)
        self._crisp = VoxelCellProblem(grid, rtol=1e-8)
        self._variables: dict[float, Array] = {}
        #: Designs by weight.
        self.designs: dict[float, PathDesign] = {}

    def at(self, weight: float) -> PathDesign:
        """The design at α, made once. Collective.

        Raises:
            RuntimeError: a linear solver did not converge.
        """
        if weight in self.designs:
            return self.designs[weight]
        larger = [known for known in self._variables if known > weight > 0]
        m = self._variables[min(larger)] if larger else self.start
        asked: Any = self._asked
        model, o = self.model, self.options
        run = DesignProblem(
            model.density,
            regularized(asked.objective, scaled(self.terms, weight), model),
            [*asked.constraints, Constraint("grey", self._grey, 1.0)],
            volumes=model.volumes,
            projections=[model.projection, self._grey],
            interpolations=model.interpolations,
            solvers=model.solvers,
            options=o.next if larger else o.first,
        )
        result = run.run(m)
        if run.objective is asked.objective:
            result = correct_target(run, result, self.target, asked.objective, self._measure, o.correction)
        self._variables[weight] = result.m
        self.designs[weight] = found = self._found(weight, result)
        return found

    def _labels(self, result: DesignResult) -> npt.NDArray[np.uint8]:
        """The own block of the crisp structure."""
        crisp = threshold(result.rho, self.model.volumes, self.model.density.comm)
        return crisp.astype(np.uint8).reshape(self._crisp.grid.own_shape)

    def _measure(self, result: DesignResult) -> Array:
        self._crisp.assign(self._labels(result), self._conductivity)
        self._crisp.solve()
        return np.array(self._crisp.tensor)

    def _found(self, weight: float, result: DesignResult) -> PathDesign:
        tensor = self._measure(result)
        # Of the design that is returned, which a correction may not have seen last.
        self.model.density.forward(result.m)
        penalty = 0.0 if self._penalty is None else self._penalty.value()
        T = self.target
        return PathDesign(
            weight,
            self._crisp.grid.gather(self._labels(result)),
            tensor,
            float(np.linalg.norm(tensor - T) / np.linalg.norm(T)),
            penalty,
            result.grey_level,
            len(result.history),
        )
