"""What every rank must agree on: errors, checks, who writes the log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpi4py import MPI


def install_excepthook() -> None:
    """End the whole run when an exception leaves the main program of one rank.

    Without it the other ranks wait for ever in their next collective call. Does nothing on one rank,
    in an interactive session, and until mpi4py has been imported. Installing it twice is harmless.
    """
    previous = sys.excepthook
    if getattr(previous, "_fetopo_aborts", False):
        return

    def abort(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        previous(kind, value, trace)
        mpi = sys.modules.get("mpi4py.MPI")
        if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized() or mpi.COMM_WORLD.size == 1:
            return
        sys.stderr.write(f"fetopo: rank {mpi.COMM_WORLD.rank} failed, the run ends on all ranks\n")
        sys.stderr.flush()
        sys.stdout.flush()
        mpi.COMM_WORLD.Abort(1)

    abort._fetopo_aborts = True  # type: ignore[attr-defined]
    sys.excepthook = abort


def require(comm: MPI.Comm, ok: bool, message: str, error: type[Exception] = ValueError) -> None:
    """Raise `error` on every rank if `ok` is false on any of them.

    The message is that of the lowest rank where the check failed. Collective.
    """
    messages = comm.allgather(None if ok else message)
    for text in messages:
        if text is not None:
            raise error(text)


@contextmanager
def on_every_rank(comm: MPI.Comm) -> Iterator[None]:
    """Raise on every rank what was raised on one of them in the body.

    For work that one rank does alone (reading a file, building a Gmsh model) before a collective call.
    The body must not contain collective calls.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    failures = comm.allgather(failure if failure is None else _portable(failure))
    if failure is not None:
        raise failure
    for other in failures:
        if other is not None:
            raise other


def _portable(error: Exception) -> Exception:
    """The same kind of exception if it can be rebuilt elsewhere from its message, else RuntimeError."""
    try:
        clone = type(error)(str(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return clone if type(error).__module__ == "builtins" else RuntimeError(str(error))


def get_logger(name: str, comm: MPI.Comm | None = None) -> logging.Logger:
    """The logger `name` on rank 0 of `comm`, a silent one elsewhere."""
    logger = logging.getLogger(name)
    if comm is None or comm.rank == 0:
        return logger
    silent = logging.getLogger(f"{name}.other_ranks")
    silent.addHandler(logging.NullHandler())
    silent.propagate = False
    return silent
