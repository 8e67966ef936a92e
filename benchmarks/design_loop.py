"""What continuation by need and loose solves save: iterations, Krylov iterations and where the designs end.

    docker/run python3 benchmarks/design_loop.py

Isotropic cells of conductivities 1 : 100, half and half, on voxels and on meshes with an iterative solver.
"""

from __future__ import annotations

import argparse

from mpi4py import MPI

from fetopo.design.cell import CellDesign, design_cell
from fetopo.design.inexact import InexactSolves
from fetopo.design.problem import LoopOptions, Stage
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.voxel import VoxelGrid

#: Kind, voxels per axis, filter radius.
CASES = (("voxel", (64, 64), 0.08), ("voxel", (32, 32, 32), 0.15), ("mesh", (16, 16, 16), 0.3))
FIXED = tuple(Stage(3.0, 2.0**i) for i in range(7))
RUNS = {
    "β = 1, 2, 4, … 64": LoopOptions(stages=FIXED),
    "by need": LoopOptions(),
    "by need, loose solves": LoopOptions(inexact=InexactSolves()),
}


def run(kind: str, shape: tuple[int, ...], radius: float, options: LoopOptions) -> CellDesign:
    """One design."""
    comm = MPI.COMM_WORLD
    cell = (
        VoxelGrid(comm, shape, 1 / shape[0], periodic=True) if kind == "voxel" else regular_cell(comm, shape)
    )
    return design_cell(
        cell,
        conductivity=(0.01, 1.0),
        volume_fraction=0.5,
        filter_radius=radius,
        options=options,
        refine=1,
    )


def main() -> None:
    """Print the table of docs/design.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cases", type=int, nargs="*", default=range(len(CASES)), help="numbers of the cases"
    )
    say = print if MPI.COMM_WORLD.rank == 0 else lambda *_: None
    say("| cell | run | iterations | of the state solver | objective | grey | of the bound, crisp |")
    say("|---|---|---|---|---|---|---|")
    for number in parser.parse_args().cases:
        kind, shape, radius = CASES[number]
        for name, options in RUNS.items():
            design = run(kind, shape, radius, options)
            result = design.result
            spent = sum(r.iterations_of["state"] for r in result.history)
            size = "×".join(map(str, shape))
            say(
                f"| {size} {kind} | {name} | {len(result.history)} | {spent} | {result.objective:.5f} "
                f"| {100 * result.grey_level:.2f} % | {100 * (design.bound_fraction or 0):.2f} % |"
            )


if __name__ == "__main__":
    main()
