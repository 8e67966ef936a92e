"""A target tensor met by the crisp structure, not only by the grey density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo._mpi import get_logger
from fetopo.design.continuation import Stage
from fetopo.design.problem import DesignProblem, DesignResult

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CorrectionOptions:
    """How a target is corrected.

    Attributes:
        tolerance: relative distance of the crisp structure's tensor to the target that is good enough.
        rounds: most corrections.
        iterations: most iterations of the optimizer after each.
        move: largest step of a variable in them: small, so that the crisp structure stays what it is.
        patience: rounds without a nearer structure after which it ends.
    """

    tolerance: float = 2e-3
    rounds: int = 10
    iterations: int = 25
    move: float = 0.1
    patience: int = 3


def correct_target(
    run: DesignProblem,
    result: DesignResult,
    target: npt.ArrayLike,
    state: Any,
    function: Any,
    measure: Callable[[DesignResult], Array],
    options: CorrectionOptions | None = None,
) -> DesignResult:
    """Go on with a design until its crisp structure has the target. Collective.

    The tensor D of the density and that of its crisp structure on a mesh of its own, Dᶜ, differ by a few per
    cent: a staircase and smeared interfaces are in one, not in the other. In each round the difference
    Dᶜ − D is measured and added to what the optimizer sees, as ‖D + (Dᶜ − D)₀ − D*‖, and it takes a few more
    steps at the last stage of the continuation. A fixed point has Dᶜ = D*.
    Objectives in the history of these steps are the corrected ones.

    Args:
        run: the problem, as it was run; its options are those of the last run afterwards.
        result: outcome of its run.
        target: D*, d×d.
        state: cell problem of the density, with its `tensor`.
        function: the :class:`fetopo.design.tensor.TensorValue` of the objective; its `shift` is set.
        measure: tensor of the crisp structure of a result.
        options: see there.
    Returns:
        The result whose crisp structure came nearest; its history has all rounds up to the last.
    Raises:
        RuntimeError: a linear solver did not converge.
    """
    o, T = options or CorrectionOptions(), np.asarray(target, dtype=float)
    log = get_logger(__name__, run.comm)
    history, best, nearest, last = list(result.history), result, np.inf, 0
    whole = run.options
    run.options = replace(
        whole,
        stages=(Stage(history[-1].penalty, history[-1].beta),),
        final_iterations=o.iterations,
        change_tolerance=0.1 * whole.change_tolerance,
        mma=replace(whole.mma, move=min(o.move, whole.mma.move), asyinit=min(o.move, whole.mma.asyinit)),
    )
    try:
        for turn in range(o.rounds + 1):
            crisp = measure(result)
            distance = float(np.linalg.norm(crisp - T) / np.linalg.norm(T))
            log.info("correction %d: the crisp structure is %.3g from the target", turn, distance)
            if distance < nearest:
                best, nearest, last = result, distance, turn
            if distance <= o.tolerance or turn == o.rounds or turn - last >= o.patience:
                break
            function.shift = crisp - np.asarray(state.tensor)
            result = run.run(result.m)
            history += [replace(r, iteration=len(history) + r.iteration) for r in result.history]
    finally:
        run.options = whole
    # Density, state and objective are again those of the result.
    function.shift = np.zeros_like(T)
    objective = run.evaluate(best.m, gradients=False)[0]
    met = nearest <= o.tolerance
    return replace(best, history=history, objective=objective, converged=best.converged or met)
