"""Regular arrays of discs and spheres: finite elements beside Rayleigh's multipole method, with times.

    docker/run python3 benchmarks/arrays.py            all arrays
    docker/run python3 benchmarks/arrays.py square sc  some

One row per array and fraction: triangles or tetrahedra, seconds to mesh, and for each conductivity of the
inclusions (0, 10, 1000, infinite) the largest relative error of the diagonal and the seconds to solve.
"""

import sys
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.microstructure.generate import regular_array
from fetopo.microstructure.geometry import accurate_sizes, inclusion_cell
from fetopo.transport.homogenization import effective_conductivity

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "transport"))
from multipole import effective

CONDUCTIVITIES = (0.0, 10.0, 1000.0, np.inf)
FRACTIONS = {
    "square": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
    "hexagonal": (0.1, 0.3, 0.5, 0.7, 0.8),
    "sc": (0.1, 0.2, 0.3, 0.4, 0.5),
    "bcc": (0.1, 0.2, 0.3, 0.4, 0.5),
    "fcc": (0.1, 0.2, 0.3, 0.4, 0.5),
}


def row(kind: str, fraction: float) -> tuple[int, float, list[tuple[float, float]]]:
    """Cells, seconds to mesh, and error and seconds for each conductivity."""
    comm = MPI.COMM_WORLD
    packing = regular_array(kind, volume_fraction=fraction, cell_length=1.0)
    begin = time.perf_counter()
    cell = inclusion_cell(comm, packing, **accurate_sizes(packing))
    meshing = time.perf_counter() - begin
    found = []
    for k in CONDUCTIVITIES:
        begin = time.perf_counter()
        D = effective_conductivity(cell, {"matrix": 1.0, "inclusion": k}, degree=2).tensor
        error = float(np.abs(np.diag(D) / effective(kind, fraction, k) - 1).max())
        found.append((error, time.perf_counter() - begin))
    return cell.mesh.topology.index_map(cell.dim).size_global, meshing, found


def main() -> None:
    say = print if MPI.COMM_WORLD.rank == 0 else (lambda *_, **__: None)
    say("| array | f | cells | meshing, s | k = 0 | k = 10 | k = 1000 | k = ∞ |")
    say("|---|---|---|---|---|---|---|---|")
    for kind in sys.argv[1:] or FRACTIONS:
        for fraction in FRACTIONS[kind]:
            cells, meshing, found = row(kind, fraction)
            values = " | ".join(f"{error:.1e} ({seconds:.1f} s)" for error, seconds in found)
            say(f"| {kind} | {fraction} | {cells} | {meshing:.1f} | {values} |", flush=True)


if __name__ == "__main__":
    main()
