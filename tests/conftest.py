"""One test run on several ranks: rank 0 speaks, all ranks agree on every outcome, none waits for ever."""

import os
import sys
import time
from collections.abc import Iterator

import pytest

try:
    from mpi4py import MPI
except ImportError:  # tests/docker runs where nothing else is installed
    MPI = None  # type: ignore[assignment]

#: Seconds that a rank whose test failed waits for the others to finish the same test.
GRACE = float(os.environ.get("FETOPO_TEST_GRACE", "30"))
#: Seconds that a rank whose test passed waits for them.
PATIENCE = 300.0

_ranks = MPI.COMM_WORLD.Dup() if MPI is not None and MPI.COMM_WORLD.size > 1 else None


@pytest.fixture(scope="session")
def comm():
    """The communicator of the run."""
    return MPI.COMM_WORLD


@pytest.fixture(scope="session")
def alone():
    """The communicator of this rank alone, for a serial result to compare with."""
    return MPI.COMM_SELF


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if _ranks is not None and _ranks.rank > 0:
        reporter = config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter._tw._file = open(os.devnull, "w")  # noqa: SIM115


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`-m mpi` replaces the `not slow` of pyproject.toml; slow tests still run only where they are named."""
    expression = config.option.markexpr
    if not expression or "slow" in expression:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """A phase of a test failed if it failed on any rank."""
    report = yield
    if _ranks is None:
        return report
    mine = report.longreprtext if report.failed else ""
    _wait_for_all(f"{item.nodeid} ({report.when})", mine)
    texts = _ranks.allgather(mine)
    failed = [rank for rank, text in enumerate(texts) if text]
    if failed:
        report.outcome = "failed"
        if hasattr(report, "wasxfail"):
            del report.wasxfail
        report.longrepr = "\n".join(f"on rank {rank}:\n{texts[rank]}" for rank in failed)
    return report


def _wait_for_all(what: str, failure: str) -> None:
    """Return when every rank is here; end the whole run where one fails to come."""
    request = _ranks.Ibarrier()
    end = time.monotonic() + (GRACE if failure else PATIENCE)
    while not request.Test():
        if time.monotonic() > end:
            out = sys.__stderr__
            out.write(
                f"\nrank {_ranks.rank} waited in vain for the other ranks at the end of {what}\n{failure}\n"
            )
            out.flush()
            MPI.COMM_WORLD.Abort(1)
        time.sleep(0.001)
