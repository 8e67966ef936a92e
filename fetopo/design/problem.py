"""The loop: continuation, optimizer step, stopping test, history."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._mpi import require
from fetopo.design.adjoint import Functional, pull_back
from fetopo.design.density import DensityMap
from fetopo.design.mma import MMA, MMAOptions

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stage:
    """One step of the continuation: penalty of the interpolation and sharpness of the projection."""

    penalty: float
    beta: float


#: From a convex-like problem to a crisp design.
DEFAULT_STAGES = tuple(Stage(3.0, beta) for beta in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0))


@dataclass(frozen=True)
class LoopOptions:
    """When a stage of the continuation is over.

    Attributes:
        stages: the continuation, in order.
        stage_iterations: most iterations of one stage.
        final_iterations: most iterations of the last one.
        objective_tolerance: a stage has converged when the objective varies by less than this, relative to
            its value, over `window` iterations and the constraints hold,
        change_tolerance: or when no variable moves by more than this.
        window: see there.
        feasibility: largest violation of a scaled constraint that counts as holding.
        mma: constants of the optimizer.
    """

    stages: tuple[Stage, ...] = DEFAULT_STAGES
    stage_iterations: int = 30
    final_iterations: int = 100
    objective_tolerance: float = 1e-3
    change_tolerance: float = 1e-2
    window: int = 5
    feasibility: float = 1e-3
    mma: MMAOptions = field(default_factory=MMAOptions)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("the continuation needs at least one stage")
        for name in ("stage_iterations", "final_iterations", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")


@dataclass(frozen=True)
class Constraint:
    """value ≤ bound, or value ≥ bound, passed to the optimizer as value/bound − 1 ≤ 0 or 1 − value/bound ≤ 0.

    Attributes:
        name: for the history.
        functional: what is constrained.
        bound: positive number.
        sense: "at most" or "at least".
    Raises:
        ValueError: a bound that is not positive, or another sense.
    """

    name: str
    functional: Functional
    bound: float
    sense: str = "at most"

    @property
    def sign(self) -> float:
        return 1.0 if self.sense == "at most" else -1.0

    def __post_init__(self) -> None:
        if self.sense not in ("at most", "at least"):
            raise ValueError(f"a constraint holds 'at most' or 'at least', found {self.sense!r}")
        if not (np.isfinite(self.bound) and self.bound > 0):
            raise ValueError(f"the bound of constraint {self.name!r} must be positive, found {self.bound}")


@dataclass(frozen=True)
class Record:
    """One line of the history.

    Attributes:
        iteration: counted from 1, over all stages.
        stage: index of the continuation stage; `penalty` and `beta` are its values.
        objective: value at the design the step started from.
        constraints: scaled violation by name; not positive where a constraint holds.
        change: largest change of a variable in the step.
        grey: 4ρ(1−ρ), mean over the volume: 0 for a crisp design.
        solver_iterations: Krylov iterations of the step.
        seconds: since the start of the run.
    """

    iteration: int
    stage: int
    penalty: float
    beta: float
    objective: float
    constraints: dict[str, float]
    change: float
    grey: float
    solver_iterations: int
    seconds: float

    def row(self) -> dict[str, float]:
        """Flat dictionary, for a table."""
        flat = asdict(self)
        flat |= {f"constraint_{name}": value for name, value in flat.pop("constraints").items()}
        return flat


Callback = Callable[[Record, "DesignProblem"], None]


@dataclass(frozen=True)
class DesignResult:
    """Outcome of :meth:`DesignProblem.run`.

    Attributes:
        m: this rank's design variables; `rho` the physical densities they give.
        objective, constraints: values at `m`, constraints scaled as in the history.
        converged: whether the stopping test fired in the last stage.
        grey_level: 4ρ(1−ρ), mean over the volume.
        history: one record per iteration.
    """

    m: Array
    rho: Array
    objective: float
    constraints: dict[str, float]
    converged: bool
    grey_level: float
    history: list[Record]


class DesignProblem:
    """Minimize a functional of a density under constraints.

    Args:
        density: design variable to density.
        objective: what to minimize; scaled by its first value.
        constraints: what must hold.
        volumes: volumes of this rank's cells.
        projections, interpolations: objects whose `beta` and `penalty` the continuation sets.
        solvers: linear solvers whose iterations are counted.
        options: see :class:`LoopOptions`.
        callbacks: called after every iteration on every rank.
    """

    def __init__(
        self,
        density: DensityMap,
        objective: Functional,
        constraints: Sequence[Constraint],
        *,
        volumes: Array,
        projections: Sequence[Any] = (),
        interpolations: Sequence[Any] = (),
        solvers: Sequence[Any] = (),
        options: LoopOptions | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.density, self.objective, self.constraints = density, objective, list(constraints)
        self.comm, self.volumes = density.comm, volumes
        self.projections, self.interpolations = list(projections), list(interpolations)
        self.solvers, self.options = list(solvers), options or LoopOptions()
        self.callbacks = list(callbacks)
        #: Records of the present or last run.
        self.history: list[Record] = []
        self._total_volume = float(self.comm.allreduce(float(volumes.sum())))

    def evaluate(self, m: Array, *, gradients: bool = True) -> tuple[float, Array, Array, Array]:
        """Objective, its gradient, scaled constraints and their gradients at m; each state is solved once."""
        self.density.forward(m)
        functionals = [self.objective, *(c.functional for c in self.constraints)]
        states = {id(s): s for f in functionals for s in f.states}
        for state in states.values():
            state.solve()
        value = self.objective.value()
        g = np.array([c.sign * (c.functional.value() / c.bound - 1) for c in self.constraints])
        if not gradients:
            return value, np.zeros(0), g, np.zeros((0, 0))
        gradient = pull_back(self.objective, self.density)
        rows = [pull_back(c.functional, self.density) * (c.sign / c.bound) for c in self.constraints]
        return value, gradient, g, np.array(rows).reshape(len(rows), m.size)

    def grey_level(self) -> float:
        """4ρ(1−ρ), mean over the volume."""
        rho = self.density.values
        return (
            float(self.comm.allreduce(float(np.sum(4 * rho * (1 - rho) * self.volumes)))) / self._total_volume
        )

    def set_stage(self, stage: Stage) -> None:
        """Set the penalty and the sharpness of a stage."""
        for projection in self.projections:
            projection.beta = stage.beta
        for interpolation in self.interpolations:
            interpolation.penalty = stage.penalty

    def run(self, m: Array) -> DesignResult:
        """Optimize from m, values in [0, 1].

        Raises:
            ValueError: a start outside [0, 1], on every rank.
            RuntimeError: a linear solver did not converge.
        """
        o = self.options
        inside = bool(np.all((m >= 0) & (m <= 1)))
        require(self.comm, inside, "the initial design must lie between 0 and 1")
        start, scale, converged = time.perf_counter(), 0.0, False
        history = self.history
        history.clear()
        for index, stage in enumerate(o.stages):
            self.set_stage(stage)
            last = index == len(o.stages) - 1
            optimizer = MMA(self.comm, np.zeros(m.size), np.ones(m.size), o.mma)
            objectives: list[float] = []
            for _ in range(o.final_iterations if last else o.stage_iterations):
                before = sum(s.iterations for s in self.solvers)
                value, gradient, g, jacobian = self.evaluate(m)
                scale = scale or abs(value) or 1.0
                grey = self.grey_level()
                new: Array = optimizer.step(m, gradient * (1 / scale), g, jacobian)
                change = float(self.comm.allreduce(float(np.abs(new - m).max(initial=0.0)), op=MPI.MAX))
                m = new
                objectives.append(value)
                record = Record(
                    len(history) + 1,
                    index,
                    stage.penalty,
                    stage.beta,
                    value,
                    {c.name: float(v) for c, v in zip(self.constraints, g, strict=True)},
                    change,
                    grey,
                    sum(s.iterations for s in self.solvers) - before,
                    time.perf_counter() - start,
                )
                history.append(record)
                for callback in self.callbacks:
                    callback(record, self)
                if self._settled(objectives, g, change, scale):
                    converged = last
                    break
        value, _, g, _ = self.evaluate(m, gradients=False)
        final = {c.name: float(v) for c, v in zip(self.constraints, g, strict=True)}
        return DesignResult(
            m,
            self.density.values.copy(),
            value,
            final,
            converged,
            self.grey_level(),
            list(history),
        )

    def _settled(self, objectives: list[float], g: Array, change: float, scale: float) -> bool:
        o = self.options
        if np.any(g > o.feasibility):
            return False
        if change < o.change_tolerance:
            return True
        recent = objectives[-o.window - 1 :]
        # An objective that tends to zero is measured against where it started.
        size = abs(recent[-1]) + 1e-4 * scale
        return len(recent) > o.window and max(recent) - min(recent) < o.objective_tolerance * size
