"""The command line: `fetopo characterize`, `tortuosity`, `homogenize`, `rve`, `design`, `pareto`.

Also under mpirun. Results go to standard output (with --json as one JSON object), progress and messages to
standard error, both from rank 0. Exit code 2 for input that cannot be used, on every rank.
"""

from __future__ import annotations

import logging
import os
import sys

import typer

from fetopo.cli._common import InputError
from fetopo.cli.characterize import characterize
from fetopo.cli.design import design
from fetopo.cli.homogenize import homogenize
from fetopo.cli.pareto import pareto
from fetopo.cli.rve import rve
from fetopo.cli.tortuosity import tortuosity

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Inverse design and characterization of microstructures. On several cores: mpirun -n N fetopo …",
)

for command in (characterize, tortuosity, homogenize, rve, design, pareto):
    app.command()(command)


def main() -> None:
    """Entry point of the console script."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    logging.basicConfig(
        level=logging.INFO if comm.rank == 0 else logging.CRITICAL, format="%(message)s", stream=sys.stderr
    )
    for noisy in ("matplotlib", "tifffile", "FFCx", "UFL", "UFL_LEGACY", "PIL"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if comm.rank > 0:
        # The same command line is wrong on every rank: one says so.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        # The exit code of --help and the like, None from a command.
        code = app(standalone_mode=False) or 0
    except InputError as error:
        if comm.rank == 0:
            sys.stderr.write(f"fetopo: {error}\n")
        code = 2
    except typer.Exit as stop:
        code = stop.exit_code
    except typer.Abort:
        code = 130
    except Exception as error:
        # Errors of the command line itself (unknown option, missing argument) know how to show themselves.
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        if comm.rank == 0:
            error.show(file=sys.stderr)
        code = error.exit_code
    sys.stderr.flush()
    sys.exit(code)
