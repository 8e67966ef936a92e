"""What is wrong with a run or a design, in words: where it is stuck, and what to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fetopo._mpi import get_logger
from fetopo.design.grey import GreyLevel
from fetopo.design.history import Record
from fetopo.design.problem import Constraint, DesignProblem, DesignResult, Stage

Array = npt.NDArray[np.float64]

#: Grey level, mean of 4ρ(1−ρ), that a finished design is not to exceed.
GREY_LIMIT = 0.01

#: Violation of a constraint, relative to its bound, that is worth a word.
VIOLATED = 5e-3

#: Iterations over which a constraint has to stay where it is, for a run to be called stuck.
PATIENCE = 20


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        kind: "grey", "constraint", "not settled", "disconnected", "projection gap" or "thin".
        message: what was found, with numbers.
        advice: what to change.
    """

    kind: str
    message: str
    advice: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}; {self.advice}"


def diagnose(result: DesignResult, problem: DesignProblem) -> list[Finding]:
    """Why a run did not end as it should; empty where it did. Collective.

    Args:
        result: what :meth:`fetopo.design.problem.DesignProblem.run` gave.
        problem: the problem, at the stage where the run ended. Where a constraint is violated, it is
            evaluated once more for the gradients.
    """
    found = _opposed(result, problem) if _broken(result.constraints, problem) else []
    found += _grey(result.grey_level, result.history[-1], problem)
    if not result.converged:
        found += _unsettled(result.history, problem)
    return found


class Watch:
    """Callback that logs once, while a run goes on, what it is plainly stuck at.

    A constraint that is violated by more than 5 % and comes no nearer over `patience` iterations, or an
    objective that stands still in the last stage while the density is grey.

    Args:
        patience: see there.
    Attributes:
        findings: what has been said.
    Raises:
        ValueError: a patience below 2.
    """

    def __init__(self, patience: int = PATIENCE) -> None:
        if patience < 2:
            raise ValueError(f"patience must be at least 2, found {patience}")
        self.patience = patience
        self.findings: list[Finding] = []
        self._said: set[str] = set()

    def __call__(self, record: Record, problem: DesignProblem) -> None:
        history = problem.history
        recent = history[-self.patience :]
        if len(recent) == self.patience:
            for constraint, _ in _broken(record.constraints, problem, 0.05):
                values = [r.constraints[constraint.name] for r in recent]
                if min(values) > 0.05 and values[-1] > 0.95 * max(values):
                    self._say(problem, constraint.name, _violated(constraint, history, values[-1]))
        stage = [r for r in history if r.stage == record.stage]
        last = problem.options.schedule.most(record.stage, Stage(record.penalty, record.beta)) == 0
        if last and len(stage) > problem.options.window and record.grey > 5 * GREY_LIMIT:
            values = [r.objective for r in stage[-problem.options.window - 1 :]]
            if max(values) - min(values) < problem.options.objective_tolerance * abs(values[-1]):
                for finding in _grey(record.grey, record, problem):
                    self._say(problem, "grey level", finding)

    def _say(self, problem: DesignProblem, what: str, finding: Finding) -> None:
        if what not in self._said:
            self._said.add(what)
            self.findings.append(finding)
            get_logger(__name__, problem.comm).warning("the run is stuck, %s", finding)


def _broken(
    values: dict[str, float], problem: DesignProblem, least: float = VIOLATED
) -> list[tuple[Constraint, float]]:
    """Constraints violated by more than `least`; the limit of the grey level is a matter of its own."""
    limit = max(least, problem.options.feasibility)
    return [
        (c, values[c.name])
        for c in problem.constraints
        if values[c.name] > limit and not isinstance(c.functional, GreyLevel)
    ]


def _violated(
    constraint: Constraint, history: Sequence[Record], violation: float, opposed: str = ""
) -> Finding:
    """A constraint that does not hold: how far, since when, how near the run came, what is in its way."""

    def value(v: float) -> str:
        return f"{constraint.bound * (1 + constraint.sign * v):.4g}"

    values = np.array([r.constraints[constraint.name] for r in history])
    held = np.flatnonzero(values <= VIOLATED)
    since = history[held[-1] + 1].iteration if held.size and held[-1] + 1 < len(history) else 1
    best = int(np.argmin(np.maximum(values, 0.0)))
    nearest = "which it had met before" if held.size else f"at best {value(float(values[best]))}"
    message = (
        f"{constraint.name!r} is {value(violation)}, asked for {constraint.sense} {constraint.bound:.4g} "
        f"({100 * violation:.1f} % off since iteration {since}, {nearest})"
    )
    earlier = values[max(len(values) - 10, 0)]
    if opposed:
        return Finding("constraint", f"{message}, opposed by {opposed}", "loosen one of them")
    if violation < 0.9 * earlier:
        return Finding("constraint", f"{message}, still coming nearer", "allow more iterations")
    loose = "raise" if constraint.sense == "at most" else "lower"
    advice = f"{loose} the bound towards {value(violation)}, or give it more room in the other requirements"
    return Finding("constraint", message, advice)


def _opposed(result: DesignResult, problem: DesignProblem) -> list[Finding]:
    """Violated constraints, each with those at their limit whose gradients point against its own."""
    _, _, g, rows = problem.evaluate(result.m)
    sizes = problem.comm.allreduce(rows @ rows.T)
    length = np.sqrt(np.maximum(np.diag(sizes), 1e-300))
    cosine = sizes / np.outer(length, length)
    found = []
    for constraint, violation in _broken(result.constraints, problem):
        i = problem.constraints.index(constraint)
        against = [
            f"{other.name!r} (at its limit, cosine of the gradients {cosine[i, j]:.2f})"
            for j, other in enumerate(problem.constraints)
            if j != i and g[j] > -0.01 and cosine[i, j] < -0.1
        ]
        found.append(_violated(constraint, result.history, violation, " and ".join(against)))
    return found


def _grey(grey: float, last: Record, problem: DesignProblem) -> list[Finding]:
    if grey <= GREY_LIMIT:
        return []
    message = (
        f"grey level {100 * grey:.1f} %, more than {100 * GREY_LIMIT:g} %, "
        f"at penalty {last.penalty:g} and β = {last.beta:g}"
    )
    if not problem.projections:
        return [Finding("grey", message, "give the density a projection")]
    advice = [f"let β rise beyond {last.beta:g} (max_beta)"]
    if last.penalty < 3:
        advice.append("raise the penalty to 3 or more")
    if last.beta >= 64:
        # Sharp already: what is grey is thinner than the filter lets be.
        advice.append("take a filter radius of fewer voxels, or a grey limit as a constraint")
    return [Finding("grey", message, " and ".join(advice))]


def _unsettled(history: Sequence[Record], problem: DesignProblem) -> list[Finding]:
    """The objective at the iteration limit."""
    o = problem.options
    values = np.array([r.objective for r in history if r.stage == history[-1].stage])[-o.window - 1 :]
    if len(values) < 3:
        advice = "allow more iterations (final_iterations)"
        return [Finding("not settled", f"the last stage had {len(values)} iterations", advice)]
    steps = np.diff(values) / max(abs(float(values[-1])), 1e-300)
    if np.ptp(values) < o.objective_tolerance * abs(values[-1]):
        return []
    turns = np.mean(steps[1:] * steps[:-1] < 0)
    if turns > 0.5:
        message = f"the objective oscillates by {100 * np.abs(steps).mean():.2g} % per iteration"
        return [Finding("not settled", message, "shorten the move limit (mma.move)")]
    word = "falls" if steps.mean() < 0 else "rises"
    message = f"the objective still {word} by {100 * abs(steps.mean()):.2g} % per iteration"
    return [Finding("not settled", message, "allow more iterations (final_iterations)")]
