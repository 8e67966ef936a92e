"""One line of a design's history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Record:
    """One line of the history.

    Attributes:
        iteration: counted from 1, over all stages.
        stage: index of the continuation stage; `penalty` and `beta` are its values.
        objective: value at the design the step started from; of several the largest.
        constraints: scaled violation by name; not positive where a constraint holds.
        change: largest change of a variable in the step.
        grey: 4ρ(1−ρ), mean over the volume: 0 for a crisp design.
        solver_iterations: Krylov iterations of the step.
        seconds: since the start of the run.
        iterations_of: Krylov iterations of the step by solver.
        objectives: values of all objectives, where there are several.
        bound_fraction: fraction of a theoretical bound that the objective is, where there is one.
        tolerance: of the state solver, where it follows the design.
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
    iterations_of: dict[str, int] = field(default_factory=dict)
    objectives: tuple[float, ...] = ()
    bound_fraction: float | None = None
    tolerance: float | None = None

    def row(self) -> dict[str, Any]:
        """Flat dictionary, for a table; what there is none of is left out."""
        flat = asdict(self)
        flat |= {f"constraint_{name}": value for name, value in flat.pop("constraints").items()}
        flat |= {f"iterations_{name}": value for name, value in flat.pop("iterations_of").items()}
        flat |= {f"objective_{i}": value for i, value in enumerate(flat.pop("objectives"), 1)}
        return {name: value for name, value in flat.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """A record from what `dataclasses.asdict` made of it, also by way of JSON."""
        known = {f.name for f in fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        return cls(**(kept | {"objectives": tuple(kept.get("objectives", ()))}))
