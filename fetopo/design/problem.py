"""The loop: continuation, optimizer step, stopping test, history."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._mpi import require
from fetopo.design.adjoint import Functional, pull_back
from fetopo.design.continuation import Continuation, GivenStages, Schedule, Stage
from fetopo.design.density import DensityMap
from fetopo.design.history import Record
from fetopo.design.inexact import InexactSolves, SolveAccuracy
from fetopo.design.mma import MMAOptions
from fetopo.design.optimizers import Optimizer, make_optimizer

if TYPE_CHECKING:
    from fetopo.design.checkpoint import Checkpoint

__all__ = [
    "Callback", "Constraint", "Continuation", "DesignProblem", "DesignResult", "InexactSolves", "LoopOptions",
    "LoopState", "Record", "Stage",
]  # fmt: skip

Array = npt.NDArray[np.float64]

#: Options of optimizers that limit how far a variable goes in a step.
_LENGTHS = ("move", "asyinit", "asymin")


@dataclass(frozen=True)
class LoopOptions:
    """How a run goes on, and when it ends.

    Attributes:
        stages: the continuation as a list of stages; default: by need, as `continuation` says.
        continuation: rule for the next stage, where no list is given.
        stage_iterations: most iterations of one stage.
        final_iterations: most iterations of the last one.
        objective_tolerance: a stage has converged when the objective varies by less than this, relative to
            its value, over `window` iterations and the constraints hold,
        change_tolerance: or when no variable moves by more than this.
        window: see there.
        feasibility: largest violation of a scaled constraint that counts as holding.
        optimizer: by name, see :func:`fetopo.design.optimizers.make_optimizer`.
        optimizer_options: its constants; default for "mma": `mma`.
        mma: constants of the method of moving asymptotes.
        full_steps: sharpness up to which steps are as long as the optimizer allows. Beyond, its limits are
            multiplied by full_steps/β, and so is `change_tolerance`: a projection turns over within ~ 1/β,
            and longer steps tear what is thin.
        inexact: solve loosely while the design moves much; default: as the states are set.
    Raises:
        ValueError: no stage, or a count below 1.
    """

    stages: tuple[Stage, ...] | None = None
    continuation: Continuation = field(default_factory=Continuation)
    stage_iterations: int = 30
    final_iterations: int = 100
    objective_tolerance: float = 1e-3
    change_tolerance: float = 1e-2
    window: int = 5
    feasibility: float = 1e-3
    optimizer: str = "mma"
    optimizer_options: Any = None
    mma: MMAOptions = field(default_factory=MMAOptions)
    full_steps: float = np.inf
    inexact: InexactSolves | None = None

    def __post_init__(self) -> None:
        if self.stages is not None:
            GivenStages(self.stages)
        for name in ("stage_iterations", "final_iterations", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if not self.full_steps > 0:
            raise ValueError(f"full_steps must be positive, found {self.full_steps}")

    @property
    def schedule(self) -> Schedule:
        """Which stage follows which."""
        return self.continuation if self.stages is None else GivenStages(self.stages)

    def shortening(self, stage: Stage) -> float:
        """What the lengths of steps in a stage are multiplied by."""
        return min(1.0, self.full_steps / stage.beta)

    def make_optimizer(self, comm: MPI.Comm, n: int, stage: Stage) -> Optimizer:
        """The optimizer of a stage for n own variables between 0 and 1."""
        given = self.optimizer_options
        if given is None and self.optimizer == "mma":
            given = self.mma
        made: Any = make_optimizer(self.optimizer, comm, np.zeros(n), np.ones(n), given)
        factor, options = self.shortening(stage), made.options
        if factor < 1:
            lengths = {k: factor * getattr(options, k) for k in _LENGTHS if hasattr(options, k)}
            made.options = replace(options, **lengths)
        return cast(Optimizer, made)


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


Callback = Callable[[Record, "DesignProblem"], None]


@dataclass(frozen=True)
class DesignResult:
    """Outcome of :meth:`DesignProblem.run`.

    Attributes:
        m: this rank's design variables; `rho` the physical densities they give.
        objective, constraints: values at `m`, constraints scaled as in the history; of several objectives
            the largest.
        converged: whether the stopping test fired in the last stage.
        grey_level: 4ρ(1−ρ), mean over the volume.
        history: one record per iteration.
        objectives: all of them, where there are several.
    """

    m: Array
    rho: Array
    objective: float
    constraints: dict[str, float]
    converged: bool
    grey_level: float
    history: list[Record]
    objectives: tuple[float, ...] = ()


@dataclass
class LoopState:
    """All that a run goes on from, beside the optimizer and the history.

    Attributes:
        m: this rank's design variables.
        stage, index: the present stage, and how many were before it.
        done: iterations of this stage.
        recent: last objectives of this stage.
        scale: what objectives are divided by.
        seconds: how long the run has taken.
        finished, converged: whether it is over, and whether by the stopping test.
    """

    m: Array
    stage: Stage
    index: int = 0
    done: int = 0
    recent: list[float] = field(default_factory=list)
    scale: float = 0.0
    seconds: float = 0.0
    finished: bool = False
    converged: bool = False


class DesignProblem:
    """Minimize a functional of a density, or the largest of several, under constraints.

    Args:
        density: design variable to density.
        objective: what to minimize, scaled by its first value; of a sequence, the largest.
        constraints: what must hold.
        volumes: volumes of this rank's cells.
        projections, interpolations: objects whose `beta` and `penalty` the continuation sets.
        solvers: linear solvers whose `iterations` are counted, by name or in order.
        options: see :class:`LoopOptions`.
        callbacks: called after every iteration on every rank.
        bound_fraction: from the objective to the fraction of a theoretical bound, for the history.
    Raises:
        ValueError: an empty sequence of objectives.
    """

    def __init__(
        self,
        density: DensityMap,
        objective: Functional | Sequence[Functional],
        constraints: Sequence[Constraint],
        *,
        volumes: Array,
        projections: Sequence[Any] = (),
        interpolations: Sequence[Any] = (),
        solvers: Sequence[Any] | Mapping[str, Any] = (),
        options: LoopOptions | None = None,
        callbacks: Sequence[Callback] = (),
        bound_fraction: Callable[[float], float] | None = None,
    ) -> None:
        self.density, self.objective, self.constraints = density, objective, list(constraints)
        self.comm, self.volumes = density.comm, volumes
        self.projections, self.interpolations = list(projections), list(interpolations)
        self.solvers, self.options = _named(solvers), options or LoopOptions()
        self.callbacks, self.bound_fraction = list(callbacks), bound_fraction
        #: Records of the present or last run.
        self.history: list[Record] = []
        self._total_volume = float(self.comm.allreduce(float(volumes.sum())))
        if not self.objectives:
            raise ValueError("a design needs at least one objective, found none")

    @property
    def objectives(self) -> list[Functional]:
        """The objective, or all of them."""
        return list(self.objective) if isinstance(self.objective, Sequence) else [self.objective]

    @property
    def functionals(self) -> list[Functional]:
        """Objectives and what is constrained."""
        return [*self.objectives, *(c.functional for c in self.constraints)]

    @property
    def states(self) -> list[Any]:
        """The state problems, each once."""
        return list({id(s): s for f in self.functionals for s in f.states}.values())

    def evaluate(self, m: Array, *, gradients: bool = True) -> tuple[Any, Array, Array, Array]:
        """Objective, its gradient, scaled constraints and their gradients at m; each state is solved once.

        Returns:
            f₀ and df₀ of shape (n,), for a sequence of k objectives of shapes (k,) and (k, n); g of shape
            (m,); dg of shape (m, n).
        """
        self.density.forward(m)
        for state in self.states:
            state.solve()
        functionals = self.functionals
        values = np.array([f.value() for f in functionals])
        duals = [pull_back(f, self.density) for f in functionals] if gradients else []
        if gradients and self.options.inexact is not None:
            # The adjoint, known now, tells what the residual of the state does to the value.
            values += [f.correction() if hasattr(f, "correction") else 0.0 for f in functionals]
        k, single = len(self.objectives), not isinstance(self.objective, Sequence)
        g = np.array([c.sign * (v / c.bound - 1) for c, v in zip(self.constraints, values[k:], strict=True)])
        value = float(values[0]) if single else values[:k]
        if not gradients:
            return value, np.zeros(0), g, np.zeros((0, 0))
        rows = [dual * (c.sign / c.bound) for c, dual in zip(self.constraints, duals[k:], strict=True)]
        gradient = duals[0] if single else np.array(duals[:k])
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

    def run(self, m: Array, checkpoint: Checkpoint | None = None) -> DesignResult:
        """Optimize from m, values in [0, 1].

        Args:
            m: this rank's design variables to start from.
            checkpoint: where and how often to write what a run goes on from, and whether to go on from there.
        Raises:
            ValueError: a start outside [0, 1], a checkpoint of another problem, or loose solves for an
                optimizer that compares values; on every rank.
            RuntimeError: a linear solver did not converge.
        """
        o = self.options
        inside = bool(np.all((m >= 0) & (m <= 1)))
        require(self.comm, inside, "the initial design must lie between 0 and 1")
        start = time.perf_counter()
        state = LoopState(m, o.schedule.first())
        optimizer = o.make_optimizer(self.comm, m.size, state.stage)
        if o.inexact is not None and optimizer.needs_evaluate:
            raise ValueError(f"the optimizer {o.optimizer!r} compares values: its solves cannot be loose")
        accuracy = SolveAccuracy(o.inexact, self.states)
        self.history.clear()
        if checkpoint is not None:
            checkpoint.open(self, state, optimizer, accuracy)
            start -= state.seconds
            remembered, optimizer = optimizer.state(), o.make_optimizer(self.comm, m.size, state.stage)
            optimizer.restore(remembered)
        self.set_stage(state.stage)
        try:
            while not state.finished:
                record = self._iterate(state, optimizer, accuracy, start)
                for callback in self.callbacks:
                    callback(record, self)
                if self._stage_over(state, record, accuracy):
                    optimizer = o.make_optimizer(self.comm, m.size, state.stage)
                state.seconds = time.perf_counter() - start
                if checkpoint is not None:
                    checkpoint.tick(self, state, optimizer, accuracy)
        finally:
            accuracy.restore()
        return self._result(state)

    def _iterate(
        self, state: LoopState, optimizer: Optimizer, accuracy: SolveAccuracy, start: float
    ) -> Record:
        """One step of the optimizer."""
        before = {name: int(s.iterations) for name, s in self.solvers.items()}
        tolerance = accuracy.apply()
        value, gradient, g, jacobian = self.evaluate(state.m)
        largest = float(np.max(value))
        scale = state.scale = state.scale or float(np.max(np.abs(value))) or 1.0
        grey = self.grey_level()

        def elsewhere(x: Array) -> tuple[Any, Array]:
            there, _, constraints, _ = self.evaluate(x, gradients=False)
            return there / scale, constraints

        new = optimizer.step(
            state.m, value / scale, gradient * (1 / scale), g, jacobian,
            elsewhere if optimizer.needs_evaluate else None,
        )  # fmt: skip
        moved = np.abs(new - state.m)
        change = float(self.comm.allreduce(float(moved.max(initial=0.0)), op=MPI.MAX))
        total, count = self.comm.allreduce(np.array([float(moved.sum()), float(moved.size)]))
        accuracy.moved(float(total / max(count, 1.0)))
        state.m = new
        state.done += 1
        state.recent = [*state.recent[-self.options.window :], largest]
        used = {name: int(s.iterations) - before[name] for name, s in self.solvers.items()}
        record = Record(
            iteration=len(self.history) + 1,
            stage=state.index,
            penalty=state.stage.penalty,
            beta=state.stage.beta,
            objective=largest,
            constraints={c.name: float(v) for c, v in zip(self.constraints, g, strict=True)},
            change=change,
            grey=grey,
            solver_iterations=sum(used.values()),
            seconds=time.perf_counter() - start,
            iterations_of=used,
            objectives=tuple(map(float, value)) if isinstance(self.objective, Sequence) else (),
            bound_fraction=None if self.bound_fraction is None else float(self.bound_fraction(largest)),
            tolerance=tolerance,
        )
        self.history.append(record)
        return record

    def _stage_over(self, state: LoopState, record: Record, accuracy: SolveAccuracy) -> bool:
        """Whether another stage begins; sets it, or the end of the run."""
        o = self.options
        settled = self._settled(state, record)
        if not settled and state.done < min(o.stage_iterations, o.final_iterations):
            return False
        # The stage ends with the design after the step.
        self.density.forward(state.m)
        following = o.schedule.after(state.index, state.stage, self.grey_level())
        if following is None:
            if settled and accuracy.tighten():
                return False
            state.finished = settled or state.done >= o.final_iterations
            state.converged = settled
            return False
        if not settled and state.done < o.stage_iterations:
            return False
        state.stage, state.index, state.done, state.recent = following, state.index + 1, 0, []
        accuracy.restart()
        self.set_stage(following)
        return True

    def _settled(self, state: LoopState, record: Record) -> bool:
        o = self.options
        if any(v > o.feasibility for v in record.constraints.values()):
            return False
        if record.change < o.change_tolerance * o.shortening(state.stage):
            return True
        recent = state.recent
        # An objective that tends to zero is measured against where it started.
        size = abs(recent[-1]) + 1e-4 * state.scale
        return len(recent) > o.window and max(recent) - min(recent) < o.objective_tolerance * size

    def _result(self, state: LoopState) -> DesignResult:
        value, _, g, _ = self.evaluate(state.m, gradients=False)
        return DesignResult(
            state.m,
            self.density.values.copy(),
            float(np.max(value)),
            {c.name: float(v) for c, v in zip(self.constraints, g, strict=True)},
            state.converged,
            self.grey_level(),
            list(self.history),
            tuple(map(float, value)) if isinstance(self.objective, Sequence) else (),
        )


def _named(solvers: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """Solvers by name: their own, numbered where several share it."""
    if isinstance(solvers, Mapping):
        return dict(solvers)
    named: dict[str, Any] = {}
    for solver in solvers:
        name = getattr(solver, "name", "") or "solver"
        same = sum(1 for known in named if known.split(" ")[0] == name)
        named[f"{name} {same + 1}" if same else name] = solver
    return named
