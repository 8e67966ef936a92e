"""A run on the terminal: one line per iteration, on standard error of rank 0."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from fetopo.design.problem import DesignProblem, Record

_HEAD = (
    f"{'iteration':>9}  {'stage':>5}  {'β':>5}  {{objective:>12}}  {'worst constraint':>20}  "
    f"{'change':>7}  {'grey':>6}  {'solver':>6}  {'time':>7}  {'at most':>7}"
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

    def __call__(self, record: Record, problem: DesignProblem) -> None:
        if self.stream is None:
            return
        options = problem.options
        if record.iteration == 1:
            self.stream.write(_HEAD.format(objective=self.name) + "\n")
        stages = len(options.stages)
        worst = max(record.constraints.items(), key=lambda item: item[1], default=("", 0.0))
        self.stream.write(
            f"{record.iteration:9d}  {record.stage + 1:>3}/{stages}  {record.beta:5g}  "
            f"{self.transform(record.objective):12.6g}  {worst[0]:>11} {worst[1]:+.1e}  "
            f"{record.change:7.4f}  {record.grey:6.3f}  {record.solver_iterations:6d}  "
            f"{_clock(record.seconds)}  {_clock(self._left(record, problem))}\n"
        )
        self.stream.flush()

    @staticmethod
    def _left(record: Record, problem: DesignProblem) -> float:
        """Time left if no stage ends before its last allowed iteration."""
        o = problem.options
        last = len(o.stages) - 1
        done = sum(1 for r in problem.history if r.stage == record.stage)
        allowed = o.final_iterations if record.stage == last else o.stage_iterations
        left = allowed - done
        if record.stage < last:
            left += (last - 1 - record.stage) * o.stage_iterations + o.final_iterations
        return record.seconds / record.iteration * max(left, 0)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:4d}:{rest:02d}"
