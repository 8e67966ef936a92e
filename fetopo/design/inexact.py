"""State problems solved loosely while the design still moves much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class InexactSolves:
    """Tolerance of the state solvers, tied to the change in the design.

    rtol = min(loosest, max(tight, factor·mean|Δm|)), with `tight` what each state was made with. The last
    stage has settled only once it has with tight solves, and the result is evaluated with them.

    An energy (a function of an effective tensor, compliance) has an error of the order of rtol². The value of
    another functional has one of the order of rtol, of which the loop takes off the part that the adjoint
    knows. Derivatives keep an error of the order of rtol.

    Attributes:
        loosest: tolerance that is never exceeded, below 1.
        factor: tolerance over mean change of a variable.
    Raises:
        ValueError: values out of range.
    """

    loosest: float = 1e-2
    factor: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.loosest < 1:
            raise ValueError(f"loosest must lie between 0 and 1, found {self.loosest}")
        if not 0 < self.factor < np.inf:
            raise ValueError(f"factor must be positive and finite, found {self.factor}")


class SolveAccuracy:
    """The tolerances of a run's states: sets those with an attribute `tolerance`, leaves the others alone.

    Args:
        options: None leaves all as they are.
        states: the state problems.
    """

    def __init__(self, options: InexactSolves | None, states: Sequence[Any]) -> None:
        self.options = options
        self._states = [s for s in states if options is not None and hasattr(s, "tolerance")]
        self._own = [float(s.tolerance) for s in self._states]
        #: Mean change of a variable in the last step; infinite before the first.
        self.movement = np.inf
        #: Whether the last stage has settled, so that it has to be confirmed with tight solves.
        self.tight = False
        #: Tolerance of the last solves that was asked for; the states' own where it is smaller.
        self.wanted = 0.0

    def apply(self) -> float | None:
        """Set the tolerances of the next solves; returns the loosest, None where nothing is set."""
        o = self.options
        if o is None or not self._states:
            return None
        wanted = 0.0 if self.tight else min(o.loosest, o.factor * self.movement)
        self.wanted = wanted
        for state, own in zip(self._states, self._own, strict=True):
            state.tolerance = max(own, wanted)
        return max(wanted, *self._own)

    def moved(self, mean: float) -> None:
        """Take note of a step."""
        self.movement = mean

    def tighten(self) -> bool:
        """Solve tightly from now on; returns whether the last solves were not."""
        loose = any(own < self.wanted for own in self._own)
        self.tight = self.tight or loose
        return loose

    def restart(self) -> None:
        """Another stage: the design moves again."""
        self.movement, self.tight = np.inf, False

    def restore(self) -> None:
        """The tolerances that the states came with."""
        for state, own in zip(self._states, self._own, strict=True):
            state.tolerance = own
