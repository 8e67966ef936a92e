"""What a periodic cell is designed for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from fetopo.design import functionals
from fetopo.transport.bounds import hashin_shtrikman, wiener

Array = npt.NDArray[np.float64]

#: Name of the transport that `conductivity` describes, beside further ones.
MAIN = "main"

KINDS = ("isotropic", "along", "target", "tortuosity", "bruggeman", "function")


@dataclass(frozen=True)
class Goal:
    """What a cell is designed for.

    | kind | the design |
    |---|---|
    | "isotropic" | conducts best in every direction at once |
    | "along" | conducts best in one `direction` |
    | "target" | has the effective tensor `target` |
    | "tortuosity" | has τ = ε k/D least, along `direction` or in all; or equal to `value` in all |
    | "bruggeman" | has α in D = k ε^α least likewise, or equal to `value` |
    | "function" | has the least `minimize`(D), a function that takes and returns UFL |

    ε and k are volume fraction and conductivity of the better material. With several `transports` the
    smallest of their conductivities relative to their bounds is made as large as can be.

    Attributes:
        kind: one of the above.
        direction: for "along", a vector of length d.
        target: for "target", a symmetric d×d tensor.
        value: for "tortuosity" and "bruggeman".
        minimize: for "function".
        transports: names; "main" is that of the conductivities of the design itself.
        weights: by which the bounds of the transports are multiplied before they are compared; default 1.
        combine: "smaller" for the smallest, "sum" for the weighted harmonic mean.
        asked: "tortuosity" or "bruggeman" where the goal was that; set by :meth:`resolved`.
    """

    kind: str = "isotropic"
    direction: tuple[float, ...] | None = None
    target: tuple[tuple[float, ...], ...] | None = None
    value: float | None = None
    minimize: functionals.TensorFunction | None = None
    transports: tuple[str, ...] = (MAIN,)
    weights: tuple[float, ...] | None = None
    combine: Literal["smaller", "sum"] = "smaller"
    asked: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a goal is one of {', '.join(KINDS)}, found {self.kind!r}")
        needed = {"along": "direction", "target": "target", "function": "minimize"}
        what = needed.get(self.kind)
        if what is not None and getattr(self, what) is None:
            raise ValueError(f"a goal of kind {self.kind!r} needs its {what}")
        if self.value is not None and not np.isfinite(self.value):
            raise ValueError(f"the value of a goal must be finite, found {self.value}")
        if self.value is not None and self.direction is not None:
            raise ValueError(
                "a value is met in every direction alike, found a direction too; give a target tensor instead"
            )
        if not self.transports or len(set(self.transports)) < len(self.transports):
            raise ValueError(f"transports must be different names, found {list(self.transports)}")
        if self.several and (self.kind in ("target", "function") or self.value is not None):
            raise ValueError(
                f"several transports can be maximized, not brought to a target: found {self.kind!r}"
            )
        if self.combine not in ("smaller", "sum"):
            raise ValueError(f"transports combine by 'smaller' or 'sum', found {self.combine!r}")
        if self.weights is not None and not (
            len(self.weights) == len(self.transports) and all(0 < w < np.inf for w in self.weights)
        ):
            raise ValueError(
                f"one positive weight per transport is needed, found {list(self.weights)} "
                f"for {list(self.transports)}"
            )

    @property
    def several(self) -> bool:
        """Whether several transports are asked for at once."""
        return len(self.transports) > 1

    @property
    def shares(self) -> tuple[float, ...]:
        """Weight of each transport."""
        return self.weights or (1.0,) * len(self.transports)

    def resolved(self, dim: int, volume_fraction: float, conductivity: tuple[float, float]) -> Goal:
        """The same in terms of the effective tensor: tortuosity and Bruggeman exponent become conductivities.

        Raises:
            ValueError: a tortuosity that is not positive.
        """
        if self.kind not in ("tortuosity", "bruggeman"):
            return self
        if self.value is None:
            return replace(self, kind="isotropic" if self.direction is None else "along", asked=self.kind)
        k, value = max(conductivity), self.value
        if self.kind == "tortuosity" and value <= 0:
            raise ValueError(f"a tortuosity factor must be positive, found {value:g}")
        D = k * (volume_fraction / value if self.kind == "tortuosity" else volume_fraction**value)
        rows = tuple(tuple(D * float(i == j) for j in range(dim)) for i in range(dim))
        return replace(self, kind="target", target=rows, asked=self.kind)

    def function(self) -> functionals.TensorFunction:
        """The function of the tensor to minimize."""
        if self.kind == "along":
            assert self.direction is not None
            return functionals.resistivity_along(self.direction)
        if self.kind == "target":
            return functionals.distance_to(np.array(self.target))
        if self.kind == "function":
            assert self.minimize is not None
            return self.minimize
        return functionals.mean_resistivity

    def reached(self, D: Array) -> float:
        """What was asked for: conductivity in all or one direction, or relative distance to the target.

        Not for a function of one's own, whose value is the objective.
        """
        if self.kind == "along":
            n = np.asarray(self.direction, dtype=float) / np.linalg.norm(self.direction)  # type: ignore[arg-type]
            return float(n @ D @ n)
        if self.kind == "target":
            T = np.array(self.target)
            return float(np.linalg.norm(D - T) / np.linalg.norm(T))
        eigenvalues = np.linalg.eigvalsh(D)
        return 0.0 if eigenvalues.min() <= 0 else float(D.shape[0] / np.sum(1 / eigenvalues))

    def bound(self, volume_fraction: float, conductivity: tuple[float, float], dim: int) -> float | None:
        """The most that any structure can reach in one transport; None for a target or a function."""
        fractions = (1 - volume_fraction, volume_fraction)
        if self.kind == "along":
            return wiener(fractions, conductivity)[1]
        return hashin_shtrikman(fractions, conductivity, dim)[1] if self.kind == "isotropic" else None

    def together(self, shares: Array) -> float:
        """One number for several transports, from the share of its bound that each reaches."""
        weighted = np.asarray(shares, dtype=float) / self.shares
        if self.combine == "smaller":
            return float(weighted.min())
        w = np.array(self.shares)
        return 0.0 if weighted.min() <= 0 else float(w.sum() / np.sum(w / np.asarray(shares)))
