"""What the design loop asks of an optimizer, and how one is chosen by name.

All of them work on distributed variables: every rank holds its own part, and only sums cross ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

Array = npt.NDArray[np.float64]

#: Values of objective (one or several) and constraints at this rank's variables, without gradients.
Evaluate = Callable[[Array], tuple[Any, Array]]


class Optimizer(Protocol):
    """min f₀(x), or min maxₗ f₀ₗ(x), subject to fᵢ(x) ≤ 0, i = 1…m, lower ≤ x ≤ upper, step by step.

    Attributes:
        needs_evaluate: whether :meth:`step` has to be given `evaluate`.
    """

    needs_evaluate: bool

    def step(
        self, x: Array, f0: Any, df0: Array, f: Array, df: Array, evaluate: Evaluate | None = None
    ) -> Array:
        """The next iterate. Collective.

        Args:
            x: this rank's variables, shape (n,).
            f0: value of the objective; shape (k,) to minimize the largest of several.
            df0: gradient of the objective, shape (n,); (k, n) for several.
            f: values of the constraints, shape (m,), the same on every rank.
            df: their gradients, shape (m, n).
            evaluate: x ↦ (f₀, f) at another point. Collective.
        Returns:
            New variables, shape (n,).
        Raises:
            ValueError: on every rank, for values or gradients that are not finite or of another shape.
        """
        ...

    def state(self) -> dict[str, Any]:
        """What it remembers, for a checkpoint: arrays with one value per own variable, and small ones.

        Keys that start with "x_" are distributed, one value per own variable; all others are the same on
        every rank.
        """
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state` as if there had been no interruption."""
        ...


def make_optimizer(name: str, comm: MPI.Comm, lower: Array, upper: Array, options: Any = None) -> Optimizer:
    """An optimizer by its name.

    Args:
        name: "mma", the method of moving asymptotes; "gcmma", its globally convergent kind; "oc", optimality
            criteria, for one constraint that every variable adds to.
        comm: communicator over which the variables are distributed.
        lower, upper: bounds of this rank's variables.
        options: the options of that optimizer, or a mapping of some of them by name.
    Raises:
        ValueError: another name, an option it does not have, bounds out of order.
    """
    # Here, as these modules take their types from this one.
    from fetopo.design.gcmma import GCMMA, GCMMAOptions
    from fetopo.design.mma import MMA, MMAOptions
    from fetopo.design.oc import OC, OCOptions

    known: dict[str, tuple[Any, Any]] = {
        "mma": (MMA, MMAOptions),
        "gcmma": (GCMMA, GCMMAOptions),
        "oc": (OC, OCOptions),
    }
    if name not in known:
        raise ValueError(f"the optimizer must be one of {', '.join(known)}, found {name!r}")
    kind, settings = known[name]
    if options is None or isinstance(options, Mapping):
        unknown = sorted(set(options or ()) - set(settings.__dataclass_fields__))
        if unknown:
            raise ValueError(f"the optimizer {name!r} has no option {unknown[0]!r}")
        options = settings(**(options or {}))
    if not isinstance(options, settings):
        raise ValueError(f"the optimizer {name!r} takes {settings.__name__}, found {type(options).__name__}")
    made: Optimizer = kind(comm, lower, upper, options)
    return made
