"""PETSc's optimizers for smooth functions within bounds, on distributed variables.

For problems without constraints other than bounds (an inversion, a design whose volume is a penalty) these
quasi-Newton methods take the curvature of the function into account, which MMA does not. They choose their
points themselves: there is no step that the design loop could ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from petsc4py import PETSc

from fetopo._mpi import require

Array = npt.NDArray[np.float64]

#: Methods that need no more than gradients and keep bounds: quasi-Newton with a line search in a set of free
#: variables, limited-memory quasi-Newton, conjugate gradients.
METHODS = ("bqnls", "blmvm", "bncg")
#: They end where the projected gradient is this part of the first one. PETSc's other test, against the value
#: of the function, is of no use where that tends to zero.
DEFAULTS: Mapping[str, Any] = {
    "tao_type": "bqnls", "tao_gttol": 1e-6, "tao_grtol": 0.0, "tao_gatol": 0.0, "tao_max_it": 500,
}  # fmt: skip

#: Value with which a method is made to stop: below any other, so that its line search takes it.
_STOP = -1e300


@dataclass(frozen=True)
class TaoResult:
    """Outcome of :func:`minimize`.

    Attributes:
        x: this rank's variables.
        value: of the function there.
        gradient_norm: of the projected gradient there, over all ranks.
        iterations: of the method.
        evaluations: of the function, each with its gradient.
        converged: whether a tolerance was reached; `reason` is PETSc's number for how it ended.
    """

    x: Array
    value: float
    gradient_norm: float
    iterations: int
    evaluations: int
    converged: bool
    reason: int


def minimize(
    comm: MPI.Comm,
    function: Callable[[Array], tuple[float, Array]],
    x: Array,
    lower: Array,
    upper: Array,
    *,
    petsc_options: Mapping[str, Any] | None = None,
    petsc_options_prefix: str = "fetopo_",
) -> TaoResult:
    """min f(x), lower ≤ x ≤ upper, by a method of PETSc's TAO. Collective.

    Args:
        comm: communicator over which the variables are distributed.
        function: x ↦ (f, ∂f/∂x) for this rank's variables, f the same on every rank. Collective.
        x: where to start, shape (n,).
        lower, upper: bounds, shape (n,); may be infinite.
        petsc_options: options without prefix, laid over `DEFAULTS`, such as {"tao_type": "blmvm"}.
        petsc_options_prefix: prefix under which the command line can change them.
    Raises:
        ValueError: on every rank, for shapes that differ, bounds out of order, a start that is not finite, a
            method not in `METHODS`, and where the function or its gradient is not finite.
    Source: Balay et al., PETSc/TAO Users Manual, https://petsc.org/release/manual/tao.
    """
    x, lower, upper = (np.asarray(v, dtype=float) for v in (x, lower, upper))
    same = x.ndim == 1 and x.shape == lower.shape == upper.shape
    message = f"start and bounds need one shape, found {x.shape}, {lower.shape} and {upper.shape}"
    require(comm, same, message)
    require(comm, bool((lower <= upper).all()), "a lower bound must not exceed its upper bound")
    require(comm, bool(np.isfinite(x).all()), "the start must be finite")
    settings = {**DEFAULTS, **(petsc_options or {})}
    if settings["tao_type"] not in METHODS:
        raise ValueError(f"tao_type must be one of {', '.join(METHODS)}, found {settings['tao_type']!r}")
    evaluations = 0
    failures: list[Exception] = []

    def evaluate(_tao: Any, at: Any, gradient: Any) -> float:
        nonlocal evaluations
        evaluations += 1
        try:
            if failures:
                raise failures[0]
            value, slope = function(at.getArray(readonly=True).copy())
            require(
                comm,
                bool(np.isfinite(value) and np.isfinite(slope).all()),
                "the optimizer was given a value or gradient that is not finite",
            )
        except Exception as error:
            # An exception must not pass through PETSc, which may end the process: the method is made to stop
            # at a value that any line search accepts and a gradient of zero.
            failures.append(error)
            tao.setConvergedReason(PETSc.TAO.Reason.DIVERGED_USER)
            value, slope = _STOP, np.zeros(x.size)
        gradient.setArray(slope)
        return float(value)

    vectors = [
        PETSc.Vec().createWithArray(v.copy(), comm=comm) for v in (np.clip(x, lower, upper), lower, upper)
    ]
    solution, low, high = vectors
    # PETSc takes numbers beyond this for infinite.
    for vector, sign in ((low, -1), (high, 1)):
        array = vector.getArray()
        array[np.isinf(array)] = sign * PETSc.INFINITY
    tao = PETSc.TAO().create(comm)
    database = PETSc.Options()
    # What the command line says wins.
    added = [key for key in settings if not database.hasName(petsc_options_prefix + key)]
    try:
        tao.setOptionsPrefix(petsc_options_prefix)
        for key in added:
            database[petsc_options_prefix + key] = settings[key]
        tao.setObjectiveGradient(evaluate, solution.duplicate())
        tao.setVariableBounds((low, high))
        tao.setSolution(solution)
        tao.setFromOptions()
        tao.solve()
        if failures:
            raise failures[0]
        reason = int(tao.getConvergedReason())
        iterations, value, norm, *_ = tao.getSolutionStatus()
        return TaoResult(
            solution.getArray(readonly=True).copy(),
            float(value),
            float(norm),
            int(iterations),
            evaluations,
            reason > 0,
            reason,
        )
    finally:
        for key in added:
            database.delValue(petsc_options_prefix + key)
        for thing in (tao, *vectors):
            thing.destroy()
