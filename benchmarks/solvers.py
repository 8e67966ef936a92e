"""Iterations and time of the linear solvers over contrast and size, for docs/solvers.md.

    docker/run python3 benchmarks/solvers.py                 all tables, about two minutes
    docker/run mpirun -n 2 python3 benchmarks/solvers.py     the same on two ranks

Correctors of a periodic cell of white noise, half of the voxels (or of what cells lie in them) conducting
`contrast` times as well, to a relative residual of 1e-10. CPU seconds of the second assembly and solve.
"""

import argparse
import logging
import time

import numpy as np
from dolfinx import fem
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo.microstructure.mesh import regular_cell
from fetopo.transport import solvers
from fetopo.transport.homogenization import CellProblem

comm = MPI.COMM_WORLD
DIRECT, MULTIGRID = {1: 10**9, 2: 10**9, 3: 10**9}, {1: 0, 2: 0, 3: 0}


def problem(kind: str, degree: int, n: int, contrast: float) -> CellProblem:
    dim = 2 if kind in ("triangle", "quadrilateral") else 3
    cell = regular_cell(comm, (n,) * dim, cell_type=kind)
    Q = fem.functionspace(cell.mesh, ("DG", 0))
    kappa = fem.Function(Q)
    imap = cell.mesh.topology.index_map(dim)
    here = np.arange(imap.size_local + imap.num_ghosts, dtype=np.int32)
    middle = dmesh.compute_midpoints(cell.mesh, dim, here)[:, :dim]
    good = np.random.default_rng(0).random((n,) * dim) < 0.5
    kappa.x.array[Q.dofmap.list.reshape(-1)] = np.where(good[tuple((middle * n).astype(int).T)], contrast, 1)
    return CellProblem(cell, kappa, degree=degree)


def measured(kind: str, degree: int, n: int, contrast: float) -> tuple[int, str, float, str]:
    """Unknowns, iterations per direction, seconds, and a star for each attempt that stalled."""
    p = problem(kind, degree, n, contrast)
    p.solve()
    iterations = p.solver.iterations / p.cell.dim
    for chi in p.correctors:
        chi.x.array[:] = 0.0
    start = time.process_time()
    p.solve()
    seconds = time.process_time() - start
    return p.solver.A.getSize()[0], f"{iterations:.0f}", seconds, "*" * p.solver._index


def row(*cells: object) -> None:
    if comm.rank == 0:
        print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--small", action="store_true", help="smallest sizes only")
    parser.add_argument("--times", action="store_true", help="the second table only")
    arguments = parser.parse_args()
    small = arguments.small
    logging.disable(logging.WARNING)

    if not arguments.times:
        iterations(small)
        row()
    times(small)


def iterations(small: bool) -> None:
    """Iterations of multigrid over contrast and size."""
    contrasts = (1e1, 1e3, 1e6, 1e9)
    row("cells", "degree", "unknowns", *(f"contrast {c:g}" for c in contrasts))
    row(*["---"] * 7)
    solvers.DIRECT_BELOW = MULTIGRID
    sizes = {
        ("quadrilateral", 1): (64, 256),
        ("quadrilateral", 2): (32, 128),
        ("triangle", 1): (64, 256),
        ("triangle", 2): (32, 128),
        ("hexahedron", 1): (16, 32),
        ("hexahedron", 2): (8, 16),
        ("tetrahedron", 1): (16, 32),
        ("tetrahedron", 2): (8, 16),
    }
    for (kind, degree), several in sizes.items():
        for n in several[:1] if small else several:
            found = [measured(kind, degree, n, c) for c in contrasts]
            row(kind, degree, found[0][0], *(f"{f[1]}{f[3]}" for f in found))


def times(small: bool) -> None:
    """Factors beside multigrid."""
    row("cells", "degree", "unknowns", "factors, s", "multigrid, s")
    row(*["---"] * 5)
    sizes = {
        ("quadrilateral", 1): (64, 128, 256),
        ("quadrilateral", 2): (32, 64, 128),
        ("hexahedron", 1): (12, 16, 24),
        ("hexahedron", 2): (6, 8, 12),
    }
    for (kind, degree), several in sizes.items():
        for n in several[:1] if small else several:
            found = []
            for solvers.DIRECT_BELOW in (DIRECT, MULTIGRID):
                unknowns, _, seconds, _ = measured(kind, degree, n, 1e3)
                found.append(seconds)
            row(kind, degree, unknowns, *(f"{t:.3f}" for t in found))


main()
