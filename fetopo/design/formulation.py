"""From a goal and constraints to the functionals of a design problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.design.adjoint import Functional
from fetopo.design.combination import weighted_sum
from fetopo.design.constraints import Setting, Specification, settle
from fetopo.design.existence import Pair, check_design, most_together
from fetopo.design.goal import MAIN, Goal
from fetopo.design.model import CellModel
from fetopo.design.problem import Constraint
from fetopo.design.tensor import TensorValue
from fetopo.transport import materials

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """What is asked for, checked; nothing is assembled yet.

    Attributes:
        goal: in terms of effective tensors.
        conductivities: of every transport by name, "main" first.
        volume_fraction: of the better material of the main transport.
        constraints: specifications, that on the volume included.
        setting: what they are made from.
    """

    goal: Goal
    conductivities: Mapping[str, Pair]
    volume_fraction: float
    constraints: Sequence[Specification]
    setting: Setting

    @property
    def described(self) -> str:
        """What is minimized, in one line."""
        goal = self.goal
        wanted = goal.target or goal.direction or ""
        also = {name: self.conductivities[name] for name in goal.transports if goal.several}
        more = f" {also} {goal.combine} {goal.shares}" if also else ""
        return f"{goal.kind} {wanted}".strip() + more

    def bound(self, volume_fraction: float | None = None) -> float | None:
        """The most that any structure can reach; None for a target or a function.

        Args:
            volume_fraction: of the structure; default the largest that the constraints allow.
        """
        goal, dim = self.goal, self.setting.dim
        if goal.several:
            f = self.volume_fraction if volume_fraction is None else volume_fraction
            return most_together(goal, self.conductivities, f, dim)
        f = self.setting.fractions[1] if volume_fraction is None else volume_fraction
        return goal.bound(f, self.conductivities[goal.transports[0]], dim)

    def reached(self, tensors: Mapping[str, Array], volume_fraction: float | None = None) -> float:
        """The goal's number for effective tensors by transport.

        With several transports their conductivities relative to the bounds at a volume fraction, by default
        that of the task.
        """
        goal = self.goal
        if not goal.several:
            return goal.reached(tensors[MAIN])
        f = self.volume_fraction if volume_fraction is None else volume_fraction
        found = []
        for name in goal.transports:
            bound = goal.bound(f, self.conductivities[name], self.setting.dim)
            found.append(goal.reached(tensors[name]) / bound if bound else 0.0)
        return goal.together(np.array(found))


def make_task(
    dim: int,
    conductivity: Pair,
    volume_fraction: float,
    filter_radius: float,
    goal: Goal,
    transports: Mapping[str, Pair] | None = None,
    constraints: Sequence[Specification] = (),
) -> Task:
    """Check what is asked for against what exists.

    Raises:
        ValueError: one sentence that says what is wrong, and the nearest that exists.
    """
    further = {name: (float(a), float(b)) for name, (a, b) in (transports or {}).items()}
    main = float(conductivity[0]), float(conductivity[1])
    check_design(dim, main, volume_fraction, goal, further)
    known = {MAIN: main, **further}
    resolved = goal.resolved(dim, volume_fraction, main)
    resolved.function()
    setting = Setting(dim, volume_fraction, filter_radius, known)
    fixed = resolved.kind == "target" or resolved.several
    specs = settle(setting, constraints, fixed=fixed)
    low, high = setting.fractions
    if not low <= volume_fraction <= high:
        raise ValueError(
            f"volume_fraction is {volume_fraction:g}, where the design starts and what bounds belong to; "
            f"the constraints on it allow {low:g} to {high:g}"
        )
    return Task(resolved, known, volume_fraction, specs, setting)


@dataclass(frozen=True)
class Formulation:
    """Functionals of a task on a model.

    Attributes:
        objective: one functional, or several of which the largest is minimized.
        constraints: for the design problem.
        states: of every transport that is solved, by name.
    """

    objective: Functional | list[Functional]
    constraints: list[Constraint]
    states: dict[str, Any]


def virtual_law(rho: Any, low: float, high: float, penalty: Any = 3.0) -> Any:
    """SIMP with twice the penalty: what is grey does not connect, as the threshold may cut it."""
    return materials.simp(rho, low, high, 2 * penalty)


def formulate(model: CellModel, task: Task, law: Callable[..., Any] | str = materials.simp) -> Formulation:
    """States, objective and constraints of a task. Collective.

    Args:
        model: the cell with its density.
        task: what is asked for.
        law: interpolation between the materials.
    """
    made: dict[Pair, Any] = {}
    virtual: dict[Pair, Any] = {}

    def state(which: str | Pair) -> Any:
        if not isinstance(which, str):
            if which not in virtual:
                virtual[which] = model.state(which, virtual_law)
            return virtual[which]
        pair = task.setting.pair(which)
        if pair not in made:
            made[pair] = model.state(pair, law)
        return made[pair]

    goal = task.goal
    task.setting.state = state
    function = goal.function()
    parts = [model.tensor_functional(state(name), function) for name in goal.transports]
    objective: Functional | list[Functional] = parts[0]
    if goal.several:
        bounds = [
            goal.bound(task.volume_fraction, task.conductivities[name], model.dim) or 1.0
            for name in goal.transports
        ]
        weights = [share * bound for share, bound in zip(goal.shares, bounds, strict=True)]
        if goal.combine == "sum":
            objective = weighted_sum(parts, [w / sum(goal.shares) for w in weights])
        else:
            objective = [weighted_sum([part], [w]) for part, w in zip(parts, weights, strict=True)]
    constraints = [c for spec in task.constraints for c in spec.build(model, task.setting)]
    names = [c.name for c in constraints]
    for name in {n for n in names if names.count(n) > 1}:
        raise ValueError(f"two constraints have the name {name!r}: give one of them")
    states = {name: made[pair] for name, pair in task.conductivities.items() if pair in made}
    return Formulation(objective, constraints, states)


def value_of(comm: Any, goal: Goal, D: Array) -> float:
    """A function of one's own at a tensor. Collective."""
    return TensorValue(comm, goal.function(), len(D)).value(D)
