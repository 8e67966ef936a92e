"""Independent tasks on groups of ranks, each with a communicator of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mpi4py import MPI

_log = logging.getLogger("fetopo.groups")

Task = TypeVar("Task")


@dataclass(frozen=True)
class Failed:
    """A task that ended with an error, in place of its result.

    Attributes:
        message: of the error.
    """

    message: str


class Groups:
    """The ranks of a communicator in groups of neighbours, as even as can be.

    Args:
        comm: all ranks.
        count: number of groups; default one per rank. More than there are ranks are as many as there are.
    Attributes:
        comm: all ranks; `own` is the communicator of this rank's group, `index` its number, `count` how many
            there are.
    Raises:
        ValueError: fewer than one group.
    """

    def __init__(self, comm: MPI.Intracomm, count: int | None = None) -> None:
        if count is not None and count < 1:
            raise ValueError(f"at least one group of ranks is needed, found {count}")
        self.comm = comm
        self.count = min(comm.size if count is None else count, comm.size)
        self.index = comm.rank * self.count // comm.size
        self.own: Any = comm.Split(self.index, comm.rank)

    def run(
        self,
        tasks: Sequence[Task],
        work: Callable[[MPI.Intracomm, int, Task], Any],
        *,
        name: str = "task",
        describe: Callable[[Any], str] = lambda result: "done",
        tolerate: tuple[type[Exception], ...] = (),
    ) -> list[Any]:
        """Each task on one group, the first on the first, the second on the second, and around. Collective.

        Which group has a task does not depend on how long the others take, so that a run can be repeated.

        Args:
            tasks: the same on every rank.
            work: called with the group's communicator, the number of the task and the task, on all ranks of
                the group; what it returns on the group's first rank, which must be picklable, counts.
            name: of a task in the log: "start", "point".
            describe: from a result to what the log says of it.
            tolerate: errors that end a task and not the run. They must occur on all ranks of the group, as
                those of this package do.
        Returns:
            One result per task on every rank, :class:`Failed` where one ended with a tolerated error.
        """
        found: dict[int, Any] = {}
        for number, task in enumerate(tasks):
            if number % self.count != self.index:
                continue
            try:
                result = work(self.own, number, task)
                text = describe(result) if self.own.rank == 0 else ""
            except tolerate as error:
                result, text = Failed(str(error)), f"failed: {error}"
            if self.own.rank == 0:
                found[number] = result
                _log.info("%s %d of %d: %s", name, number + 1, len(tasks), text)
        everywhere = [item for part in self.comm.allgather(list(found.items())) for item in part]
        return [result for _, result in sorted(everywhere, key=lambda item: item[0])]
