"""One measurement, one process: CPU seconds, wall time and peak memory of a function in its own process.

The parent names the function as `module:function` with arguments that JSON can carry. The child, this file
run as a script, imports the module, calls the function and prints what it returns. Peak memory is the largest
resident set after the clock was started (VmHWM, reset there), the interpreter, imports and image included.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MARK = "measured: "
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
MIB, GIB = 2**20, 2**30


@dataclass
class Cost:
    """CPU seconds, wall seconds, peak resident bytes and the resident bytes before the clock was started."""

    cpu: float = 0.0
    wall: float = 0.0
    peak: float = 0.0
    before: float = 0.0

    def of_all(self, comm: Any) -> dict[str, float]:
        """The same for all ranks: sums, the longest wall time, and the CPU seconds of the `busiest`."""
        every = [self] if comm is None else comm.allgather(self)
        found = {k: sum(getattr(e, k) for e in every) for k in ("cpu", "peak", "before")}
        return found | {"wall": max(e.wall for e in every), "busiest": max(e.cpu for e in every)}


def resident(field: str) -> float:
    """`VmRSS` or `VmHWM` [B] of this process; the largest resident set where /proc does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return 1024.0 * int(line.split()[1])
    except OSError:
        pass
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextmanager
def cost(comm: Any = None) -> Iterator[Cost]:
    """Measure what the block costs. Ranks start together."""
    found = Cost(before=resident("VmRSS"))
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, without that of reading
    if comm is not None:
        comm.Barrier()
    wall, cpu = time.perf_counter(), time.process_time()
    yield found
    found.cpu, found.wall = time.process_time() - cpu, time.perf_counter() - wall
    found.peak = resident("VmHWM")


class Failed(RuntimeError):
    """A child that ended with an error or ran out of time."""


def run(
    function: str, *, ranks: int = 1, timeout: float | None = None, fresh: bool = False, **arguments: Any
) -> Any:
    """Call `module:function` in processes of its own and return what it returns on the first rank.

    Args:
        function: what to call.
        ranks: processes; more than one start under mpirun.
        timeout: seconds after which the child is ended.
        fresh: with an empty cache of compiled kernels.
        arguments: of the function.
    Returns:
        What JSON makes of the function's result; {"absent": module} where it could not be imported.
    Raises:
        Failed: The child failed or took too long.
    """
    command = [sys.executable, str(Path(__file__).resolve()), function, json.dumps(arguments)]
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "-n", str(ranks), *command]
    environment = os.environ | dict.fromkeys(THREADS, "1")
    with tempfile.TemporaryDirectory() as folder:
        if fresh:
            # DOLFINx keeps what it compiles in a directory of its own, which stays.
            environment["XDG_CACHE_HOME"] = folder
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{function} {arguments}: no result after {timeout:.0f} s") from None
    if done.returncode != 0:
        raise Failed(f"{function} {arguments} failed:\n{done.stderr[-2000:]}")
    # The peers print lines of their own too.
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith(MARK))[len(MARK) :])


def child(function: str, arguments: str) -> None:
    """Call the function and print its result on the first rank."""
    warnings.simplefilter("ignore")
    module, name = function.split(":")
    try:
        found = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("fetopo"):
            raise
        found = {"absent": error.name}
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or mpi.COMM_WORLD.rank == 0:
        print("\n" + MARK + json.dumps(found), flush=True)


def row(*cells: object) -> None:
    """One row of a markdown table."""
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def head(*cells: object) -> None:
    """The head of a markdown table."""
    print()
    row(*cells)
    row(*["---"] * len(cells))


if __name__ == "__main__":
    child(*sys.argv[1:])
