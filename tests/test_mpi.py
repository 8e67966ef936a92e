"""What every rank must agree on, tried on several ranks and in runs of their own that end badly."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fetopo import _mpi

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.mpi
class TestRequire:
    def test_passes_where_all_agree(self, comm):
        _mpi.require(comm, True, "never shown")

    def test_raises_on_every_rank_with_the_message_of_the_failing_one(self, comm):
        last = comm.size - 1
        with pytest.raises(ValueError, match=f"^bad value on rank {last}$"):
            _mpi.require(comm, comm.rank != last, f"bad value on rank {comm.rank}")

    def test_lowest_failing_rank_speaks(self, comm):
        with pytest.raises(ValueError, match=r"^rank 0$"):
            _mpi.require(comm, False, f"rank {comm.rank}")

    def test_kind_of_error(self, comm):
        with pytest.raises(TypeError):
            _mpi.require(comm, False, "no", TypeError)


class Odd(Exception):
    """Cannot be rebuilt from its message."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fail_on(comm, rank, error):
    """What a caller does: work of one rank that ends in an error."""
    with _mpi.on_every_rank(comm):
        if comm.rank == rank:
            raise error


@pytest.mark.mpi
class TestOnEveryRank:
    def test_nothing_happens_without_an_error(self, comm):
        with _mpi.on_every_rank(comm):
            pass

    @pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, KeyError])
    def test_same_kind_and_message(self, comm, kind):
        last = comm.size - 1
        with pytest.raises(kind, match=f"rank {last} failed"):
            fail_on(comm, last, kind(f"rank {last} failed"))

    def test_exception_that_cannot_travel(self, comm):
        with pytest.raises(Odd if comm.rank == 0 else RuntimeError, match="this and that"):
            fail_on(comm, 0, Odd("this", "that"))

    def test_ranks_are_in_step_afterwards(self, comm):
        with pytest.raises(ValueError):
            fail_on(comm, 0, ValueError("once"))
        assert comm.allreduce(1) == comm.size


@pytest.mark.mpi
def test_logger_speaks_on_rank_0_only(comm, caplog):
    with caplog.at_level("INFO", logger="fetopo.test"):
        _mpi.get_logger("fetopo.test", comm).info("hello")
    assert len(caplog.records) == (1 if comm.rank == 0 else 0)


def test_excepthook_is_installed_once():
    hook = sys.excepthook
    _mpi.install_excepthook()
    _mpi.install_excepthook()
    assert sys.excepthook is hook or getattr(sys.excepthook, "_fetopo_aborts", False)
    again = sys.excepthook
    _mpi.install_excepthook()
    assert sys.excepthook is again


def launch(ranks: int, *arguments: str, timeout: float = 60) -> tuple[subprocess.CompletedProcess, float]:
    """A run of its own on several ranks, and how long it took."""
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed")
    if "OMPI_COMM_WORLD_SIZE" in os.environ or "PMI_RANK" in os.environ:
        pytest.skip("inside an MPI run no other can be started")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": path, "FETOPO_TEST_GRACE": "2"}
    extra = ["--oversubscribe"] if "Open MPI" in _version() else []
    start = time.monotonic()
    run = subprocess.run(
        ["mpirun", *extra, "-n", str(ranks), sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        check=False,
    )
    return run, time.monotonic() - start


def _version() -> str:
    return subprocess.run(["mpirun", "--version"], capture_output=True, text=True, check=False).stdout


FAILING = """
import fetopo
from mpi4py import MPI
comm = MPI.COMM_WORLD
if comm.rank == {rank}:
    raise ValueError("the reason is this")
comm.Barrier()
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_exception_on_one_rank_ends_the_run(rank):
    run, seconds = launch(2, "-c", FAILING.format(rank=rank))
    assert run.returncode != 0
    assert "ValueError: the reason is this" in run.stderr
    assert f"rank {rank} failed" in run.stderr
    assert seconds < 30


def test_exception_inside_the_package_ends_the_run():
    """The same where the other rank waits in the package's own collective call."""
    code = (
        "from mpi4py import MPI\n"
        "from fetopo.microstructure.mesh import regular_cell\n"
        "comm = MPI.COMM_WORLD\n"
        "regular_cell(comm, (4, -comm.rank or 4))\n"
    )
    run, _ = launch(2, "-c", code)
    assert run.returncode != 0
    assert "shape must be 2 or 3 positive integers, found (4, -1)" in run.stderr


def test_normal_end_has_exit_code_0():
    run, _ = launch(2, "-c", "import fetopo; from mpi4py import MPI; MPI.COMM_WORLD.Barrier()")
    assert run.returncode == 0, run.stderr


PYTEST = """
import pytest
from mpi4py import MPI
comm = MPI.COMM_WORLD

@pytest.mark.mpi
def test_it():
    {body}

@pytest.mark.mpi
def test_after():
    assert comm.allreduce(1) == comm.size
"""


def run_tests(directory: Path, body: str) -> tuple[subprocess.CompletedProcess, float]:
    (directory / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (directory / "test_some.py").write_text(PYTEST.format(body=body))
    (directory / "pytest.ini").write_text("[pytest]\nmarkers =\n    mpi: several ranks\n")
    return launch(
        2,
        "-m",
        "pytest",
        "-q",
        "--color=no",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(directory),
        str(directory),
    )


class TestOfTheTests:
    """The conftest of this directory, on two ranks."""

    def test_passing(self, tmp_path):
        run, _ = run_tests(tmp_path, "pass")
        assert run.returncode == 0, run.stdout + run.stderr
        assert run.stdout.count("2 passed") == 1

    def test_failure_on_one_rank_fails_the_run(self, tmp_path):
        run, _ = run_tests(tmp_path, "assert comm.rank == 0, 'only here'")
        assert run.returncode != 0
        assert "on rank 1" in run.stdout
        assert "only here" in run.stdout
        assert "1 failed, 1 passed" in run.stdout

    def test_failure_before_a_collective_call_ends_the_run(self, tmp_path):
        run, seconds = run_tests(tmp_path, "assert comm.rank == 0, 'only here'\n    comm.Barrier()")
        assert run.returncode != 0
        assert "rank 1 waited in vain" in run.stderr
        assert "only here" in run.stderr
        assert seconds < 30
