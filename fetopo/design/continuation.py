"""Continuation: which penalty and which sharpness of the projection follow when a stage has settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Stage:
    """One step of the continuation: penalty of the interpolation and sharpness of the projection."""

    penalty: float
    beta: float


class Schedule(Protocol):
    """What the loop asks of a continuation."""

    def first(self) -> Stage:
        """The stage to begin with."""
        ...

    def after(self, index: int, stage: Stage, grey: float) -> Stage | None:
        """The stage after one that has settled, or None where that was the last.

        Args:
            index: of the stage that has settled, from 0.
            stage: its values.
            grey: grey level it ended with, mean of 4ρ(1−ρ).
        """
        ...

    def most(self, index: int, stage: Stage) -> int:
        """How many stages can follow at most."""
        ...


@dataclass(frozen=True)
class Continuation:
    """Stages by need: the penalty rises first, then the sharpness, until the design is crisp.

    Each stage lasts until it has settled. Then comes the next penalty; after the last penalty β is multiplied
    by `factor`, until the mean of 4ρ(1−ρ) is below `grey` or β has reached `max_beta`. Interfaces are grey
    over a width ~ R/β, so that the grey level falls about as 1/β.

    Attributes:
        penalties: of the interpolation, rising. Where the first is 1 (compliance) or 0 (RAMP), the problem
            is convex and the start does not matter. Periodic cells start with 3: without a penalty a uniform
            mixture is the best, and what the start says about the structure would be lost.
        beta: sharpness to begin with.
        factor: from one sharpness to the next.
        max_beta: the last sharpness, whatever the grey level then is.
        grey: grey level to reach.
    Raises:
        ValueError: values out of range.
    """

    penalties: tuple[float, ...] = (3.0,)
    beta: float = 1.0
    factor: float = 2.0
    max_beta: float = 128.0
    grey: float = 0.01

    def __post_init__(self) -> None:
        rising = bool(self.penalties) and self.penalties[0] >= 0 and np.all(np.diff(self.penalties) > 0)
        if not (rising and np.isfinite(self.penalties).all()):
            raise ValueError(
                f"the penalties must be rising and not negative, at least one, found {list(self.penalties)}"
            )
        if not 0 < self.beta <= self.max_beta < np.inf:
            raise ValueError(
                f"the sharpness must be positive and at most max_beta, found {self.beta} and {self.max_beta}"
            )
        if not 1 < self.factor < np.inf:
            raise ValueError(f"factor must exceed 1, found {self.factor}")
        if not 0 <= self.grey < 1:
            raise ValueError(f"grey must be at least 0 and below 1, found {self.grey}")

    def first(self) -> Stage:
        """The first penalty with the first sharpness."""
        return Stage(float(self.penalties[0]), float(self.beta))

    def after(self, index: int, stage: Stage, grey: float) -> Stage | None:
        """The next penalty, then the next sharpness, unless the design is crisp."""
        higher = [p for p in self.penalties if p > stage.penalty]
        if higher:
            return Stage(float(higher[0]), stage.beta)
        if grey < self.grey or stage.beta >= self.max_beta:
            return None
        return Stage(stage.penalty, float(min(self.factor * stage.beta, self.max_beta)))

    def most(self, index: int, stage: Stage) -> int:
        """How many stages can follow at most."""
        sharper = np.ceil(np.log(self.max_beta / stage.beta) / np.log(self.factor) - 1e-9)
        return sum(p > stage.penalty for p in self.penalties) + int(sharper)


@dataclass(frozen=True)
class GivenStages:
    """Stages as they are given, whatever the grey level.

    Raises:
        ValueError: no stage.
    """

    stages: Sequence[Stage]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("the continuation needs at least one stage")

    def first(self) -> Stage:
        """The first of them."""
        return self.stages[0]

    def after(self, index: int, stage: Stage, grey: float) -> Stage | None:
        """The next of them."""
        return self.stages[index + 1] if self.most(index, stage) else None

    def most(self, index: int, stage: Stage) -> int:
        """How many follow."""
        return len(self.stages) - 1 - index
