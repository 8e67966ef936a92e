"""A run on the terminal: one line per iteration, on standard error of rank 0."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from fetopo.design.problem import DesignProblem, Record, Stage

_HEAD = (
    f"{'iteration':>9}  {'stage':>5}  {'penalty':>7}  {'β':>4}  {{objective:>12}}  {{bound}}"
    f"{'worst constraint':>20}  {'change':>7}  {'grey':>6}  {'solver':>6}  {'time':>7}  {'at most':>7}"
)


class Progress:
    """Callback that prints the history as it grows.

    Args:
        comm: communicator of the run; only rank 0 prints.
        stream: where to; default standard error.
        transform: from objective to the number shown, with its name.
    """

    def __init__(
        self, comm: Any, stream: TextIO | None = None, *, name: str = "objective", transform: Any = None
    ) -> None:
        self.stream = (stream or sys.stderr) if comm.rank == 0 else None
        self.name, self.transform = name, transform or (lambda value: value)
        self._begun = False

    def __call__(self, record: Record, problem: DesignProblem) -> None:
        if self.stream is None:
            return
        bounded = record.bound_fraction is not None
        if record.iteration == 1 or not self._begun:
            bound = f"{'of bound':>8}  " if bounded else ""
            self.stream.write(_HEAD.format(objective=self.name, bound=bound) + "\n")
            self._begun = True
        worst = max(record.constraints.items(), key=lambda item: item[1], default=("", 0.0))
        fraction = f"{100 * (record.bound_fraction or 0.0):7.2f}%  " if bounded else ""
        self.stream.write(
            f"{record.iteration:9d}  {record.stage + 1:5d}  {record.penalty:7g}  {record.beta:4g}  "
            f"{self.transform(record.objective):12.6g}  {fraction}{worst[0]:>11.11} {worst[1]:+.1e}  "
            f"{record.change:7.4f}  {_percent(record.grey)}  {record.solver_iterations:6d}  "
            f"{_clock(record.seconds)}  {_clock(self._left(record, problem))}\n"
        )
        self.stream.flush()

    @staticmethod
    def _left(record: Record, problem: DesignProblem) -> float:
        """Time left if no stage ends before its last allowed iteration."""
        o = problem.options
        more = o.schedule.most(record.stage, Stage(record.penalty, record.beta))
        done = sum(1 for r in problem.history if r.stage == record.stage)
        left = (o.stage_iterations if more else o.final_iterations) - done
        if more:
            left += (more - 1) * o.stage_iterations + o.final_iterations
        return record.seconds / record.iteration * max(left, 0)


def _percent(grey: float) -> str:
    return f"{100 * grey:5.2f}%" if grey < 0.1 else f"{100 * grey:5.1f}%"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:4d}:{rest:02d}"
