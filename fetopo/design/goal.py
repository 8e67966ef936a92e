"""What a periodic cell is designed for, and whether any structure can be that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fetopo.design import functionals
from fetopo.transport.bounds import exists, hashin_shtrikman, wiener

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Goal:
    """What a cell is designed for: one of `isotropic`, `along` a direction, or a `target` tensor.

    Attributes:
        kind: "isotropic" (most conductive in every direction), "along" or "target".
        direction: for "along", a vector of length d.
        target: for "target", a symmetric d×d tensor.
    """

    kind: str = "isotropic"
    direction: tuple[float, ...] | None = None
    target: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        needed = {"isotropic": None, "along": self.direction, "target": self.target}
        if self.kind not in needed:
            raise ValueError(f"a goal is one of {', '.join(needed)}, found {self.kind!r}")
        if self.kind != "isotropic" and needed[self.kind] is None:
            raise ValueError(
                f"a goal of kind {self.kind!r} needs its {'direction' if self.kind == 'along' else 'target'}"
            )

    def function(self) -> functionals.TensorFunction:
        """The function of the tensor to minimize."""
        if self.kind == "along":
            assert self.direction is not None
            return functionals.resistivity_along(self.direction)
        if self.kind == "target":
            return functionals.distance_to(np.array(self.target))
        return functionals.mean_resistivity

    def reached(self, D: Array) -> float:
        """What was asked for: conductivity in all or one direction, or relative distance to the target."""
        if self.kind == "along":
            n = np.asarray(self.direction, dtype=float) / np.linalg.norm(self.direction)  # type: ignore[arg-type]
            return float(n @ D @ n)
        if self.kind == "target":
            T = np.array(self.target)
            return float(np.linalg.norm(D - T) / np.linalg.norm(T))
        eigenvalues = np.linalg.eigvalsh(D)
        return 0.0 if eigenvalues.min() <= 0 else float(D.shape[0] / np.sum(1 / eigenvalues))

    def bound(self, volume_fraction: float, conductivity: tuple[float, float], dim: int) -> float | None:
        """The most that any structure can reach; None for a target."""
        fractions = (1 - volume_fraction, volume_fraction)
        if self.kind == "along":
            return wiener(fractions, conductivity)[1]
        return hashin_shtrikman(fractions, conductivity, dim)[1] if self.kind == "isotropic" else None


def check_design(dim: int, conductivity: tuple[float, float], volume_fraction: float, goal: Goal) -> None:
    """Raise ValueError, with one sentence, if no structure can be what is asked for."""
    low, high = conductivity
    if not (0 <= low < high < np.inf):
        raise ValueError(f"conductivity must be two numbers with 0 <= first < second, found [{low}, {high}]")
    if not 0 < volume_fraction < 1:
        raise ValueError(f"volume_fraction must lie between 0 and 1, found {volume_fraction}")
    if goal.direction is not None and len(goal.direction) != dim:
        raise ValueError(f"the direction must have {dim} components, found {list(goal.direction)}")
    if goal.target is not None:
        T = np.array(goal.target, dtype=float)
        if T.shape != (dim, dim):
            raise ValueError(f"the target must be a {dim}×{dim} tensor, found {T.tolist()}")
        answer = exists(T, (1 - volume_fraction, volume_fraction), conductivity)
        if not answer.ok:
            raise ValueError(
                f"no structure of volume fraction {volume_fraction:g} has this tensor: {answer.reason}"
            )
