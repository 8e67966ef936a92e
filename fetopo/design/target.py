"""A target tensor met by the crisp structure, not only by the grey density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo._mpi import get_logger
from fetopo.design.grey import SHARP
from fetopo.design.problem import DesignProblem, DesignResult, LoopOptions, Stage

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CorrectionOptions:
    """How a target is corrected.

    Attributes:
        tolerance: relative distance of the crisp structure's tensor to the target that is good enough.
        rounds: most corrections.
        iterations: most iterations of the optimizer after each.
        move: largest step of a variable in them: small, so that the crisp structure stays what it is.
        smallest: share of a correction below which it ends.
        accepted: distance up to which the result counts as converged.
    """

    tolerance: float = 3e-3
    rounds: int = 12
    iterations: int = 25
    move: float = 0.1
    smallest: float = 0.1
    accepted: float = 0.01


def correct_target(
    run: DesignProblem,
    result: DesignResult,
    target: npt.ArrayLike,
    of_tensor: Any,
    measure: Callable[[DesignResult], Array],
    options: CorrectionOptions | None = None,
) -> DesignResult:
    """Go on with a design until its crisp structure has the target. Collective.

    The tensor D of the density and that of its crisp structure on a mesh of its own, Dᶜ, differ by a few per
    cent: a staircase and smeared interfaces are in one, not in the other. In each round Dᶜ is measured, its
    distance to the target is added to what the optimizer sees,

        ‖D + s − D*‖,  s ← s + (Dᶜ − D*),

    and it takes a few more steps at the last stage of the continuation. A fixed point has Dᶜ = D*. Where
    necks open or close, Dᶜ jumps: a round that ends farther away is taken back, and the next from there goes
    half as far, with half the step. Objectives in the history of these rounds are the corrected ones.

    Where the objective has further terms R, a regularization, the target is not to be met but weighed against
    them. Then s ← Dᶜ − D, so that the optimizer sees the tensor of the crisp structure, and the best round is
    that with the smallest ‖Dᶜ − D*‖²/‖D*‖² + R.

    Args:
        run: the problem, as it was run; its objective is `of_tensor` or a sum of that and other terms.
        result: outcome of its run.
        target: D*, d×d.
        of_tensor: functional of the tensor in the objective, with its `function`, whose `shift` is set.
        measure: tensor of the crisp structure of a result.
        options: see there.
    Returns:
        The result whose crisp structure came nearest, converged if that is near enough (with further terms:
        if the optimizer saw its tensor as nearly); its history has all rounds up to the last.
    Raises:
        RuntimeError: a linear solver did not converge.
    """
    o, T = options or CorrectionOptions(), np.asarray(target, dtype=float)
    log = get_logger(__name__, run.comm)
    whole, history = run.options, list(result.history)
    # A continuation by need may have ended early: the limit of the grey level is for the sharpness below.
    beta = history[-1].beta if whole.stages is not None else max(history[-1].beta, SHARP)
    last = Stage(history[-1].penalty, beta)
    best, least, shift, share = result, np.inf, np.zeros_like(T), 1.0
    missing, error, function = shift, np.inf, of_tensor.function
    alone, size = run.objective is of_tensor, float(np.linalg.norm(T))
    try:
        for turn in range(o.rounds + 1):
            crisp = measure(result)
            distance = float(np.linalg.norm(crisp - T)) / size
            log.info("correction %d: the crisp structure is %.3g from the target", turn, distance)
            off, worth = crisp - T, distance
            if not alone:
                seen = np.array(of_tensor.state.tensor) + function.shift
                off = crisp - seen
                worth = result.objective + distance**2 - float(np.sum((seen - T) ** 2)) / size**2
            now = float(np.linalg.norm(off)) / size
            if worth < least:
                best, least, error, share = result, worth, now, min(1.0, 2 * share)
                shift, missing = np.array(function.shift), off
            else:
                share *= 0.5
            if now <= o.tolerance or turn == o.rounds or share < o.smallest:
                break
            function.shift = shift + share * missing
            run.options = _short(whole, o, share, last)
            result = run.run(best.m)
            history += [replace(r, iteration=len(history) + r.iteration) for r in result.history]
    finally:
        run.options = whole
    # Density, state and objective are again those of the result.
    function.shift = np.zeros_like(T)
    run.evaluate(best.m, gradients=False)
    objective = float(run.objectives[0].value())
    return replace(best, history=history, objective=objective, converged=error <= o.accepted)


def _short(whole: LoopOptions, o: CorrectionOptions, share: float, last: Stage) -> LoopOptions:
    """The last stage alone, with tight solves and small steps."""
    move = share * min(o.move, whole.mma.move)
    return replace(
        whole,
        stages=(last,),
        final_iterations=o.iterations,
        change_tolerance=0.1 * whole.change_tolerance,
        optimizer="mma",
        optimizer_options=None,
        inexact=None,
        mma=replace(whole.mma, move=move, asyinit=min(move, whole.mma.asyinit)),
    )
