"""Tasks on groups of ranks."""

import pytest

from fetopo._groups import Failed, Groups

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("count", [None, 1, 2, 7])
def test_every_task_is_done_once_and_in_order(comm, count):
    groups = Groups(comm, count)
    assert groups.count == min(comm.size if count is None else count, comm.size)
    sizes = groups.run(range(5), lambda own, number, task: (number, task, own.allreduce(1)))
    assert [s[:2] for s in sizes] == [(i, i) for i in range(5)]
    # No rank is left out, and groups differ by one rank at most.
    members = comm.allgather(groups.index)
    counts = [members.count(i) for i in range(groups.count)]
    assert sum(counts) == comm.size
    assert max(counts) - min(counts) <= 1
    assert [s[2] for s in sizes] == [counts[i % groups.count] for i in range(5)]


def test_a_failed_task_does_not_end_the_others(comm):
    def work(own, number, task):
        if task == 2:
            raise RuntimeError("no convergence")
        return task

    found = Groups(comm).run([1, 2, 3], work, tolerate=(RuntimeError,))
    assert found == [1, Failed("no convergence"), 3]


def test_at_least_one_group(comm):
    with pytest.raises(ValueError, match="at least one group of ranks is needed, found 0"):
        Groups(comm, 0)
