"""CPU seconds of a design iteration on voxels with three directions: filter, solve, derivative, optimizer.

    docker/run python3 benchmarks/voxel_design.py                 32³, 64³ and 128³, about three minutes
    docker/run mpirun -n 2 python3 benchmarks/voxel_design.py     the same on two ranks; seconds of both

Most conductive isotropic cell, contrast 1000, half of the volume, the default continuation cut short:
`--iterations` of each of its seven stages. The median over all of them, and the largest. `--mesh` does the
same on a mesh.
"""

import argparse
import logging
import time
from collections import defaultdict
from typing import Any

import numpy as np
from mpi4py import MPI

from fetopo.design import functionals, problem
from fetopo.design.adjoint import MeanDensity, TensorFunctional
from fetopo.design.density import DensityMap, HeavisideProjection, HelmholtzFilter, Interpolation
from fetopo.design.initial import from_field, start_field
from fetopo.design.mma import MMA
from fetopo.design.model import DESIGN_OPTIONS, VOXEL_TOLERANCE
from fetopo.design.voxels import VoxelFilter, VoxelState, VoxelTensorFunctional
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.homogenization import CellProblem
from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid

comm = MPI.COMM_WORLD
PARTS = ("filter", "solve", "derivative", "optimizer", "rest", "all")


class Clock:
    """CPU seconds of methods, iteration by iteration."""

    def __init__(self) -> None:
        self.now: dict[str, float] = defaultdict(float)
        self.past: list[dict[str, float]] = []
        self.start = time.process_time()

    def watch(self, owner: Any, method: str, part: str) -> None:
        work = getattr(owner, method)

        def timed(*arguments: Any) -> Any:
            start = time.process_time()
            try:
                return work(*arguments)
            finally:
                self.now[part] += time.process_time() - start

        setattr(owner, method, timed)

    def __call__(self, record: Any, run: Any) -> None:
        """After an iteration."""
        end = time.process_time()
        self.now["all"] = end - self.start
        self.now["rest"] = self.now["all"] - sum(self.now[p] for p in PARTS[:4])
        seconds = comm.allreduce(np.array([self.now[p] for p in PARTS]))
        self.past.append(dict(zip(PARTS, seconds, strict=True)) | {"iterations": record.solver_iterations})
        self.now.clear()
        self.start = time.process_time()


def run(n: int, iterations: int, rtol: float, mesh: bool) -> Clock:
    clock, projection = Clock(), HeavisideProjection()
    domain: Any
    state: Any
    filter_: Any
    objective: Any
    if mesh:
        cell = regular_cell(comm, (n,) * 3)
        domain, kappa = cell, Interpolation(cell.mesh, 1e-3, 1.0)
        filter_ = HelmholtzFilter(cell.mesh, 3 / n, cell=cell)
        density = DensityMap(cell.mesh, filter_, projection)
        state = CellProblem(cell, kappa.ufl(density.rho), petsc_options=DESIGN_OPTIONS)
        objective = TensorFunctional(state, functionals.mean_resistivity, density.rho)
        shared = cell.mesh.comm
    else:
        domain = grid = VoxelGrid(comm, (n,) * 3, 1 / n, periodic=True)
        kappa, filter_ = Interpolation(grid, 1e-3, 1.0), VoxelFilter(grid, 3 / n)
        density = DensityMap(grid, filter_, projection)
        state = VoxelState(VoxelCellProblem(grid, rtol=rtol), density, kappa)
        objective = VoxelTensorFunctional(state, functionals.mean_resistivity)
        shared = grid.blocks.comm
    volume = MeanDensity(density, filter_.volumes)
    for owner, method, part in (
        (filter_, "forward", "filter"),
        (filter_, "vjp", "filter"),
        (state, "solve", "solve"),
        (objective, "derivative", "derivative"),
    ):
        clock.watch(owner, method, part)

    loop = problem.DesignProblem(
        density,
        objective,
        [problem.Constraint("volume", volume, 0.5)],
        volumes=filter_.volumes,
        projections=[projection],
        interpolations=[kappa],
        solvers=[state if not mesh else state.solver],
        options=problem.LoopOptions(stage_iterations=iterations, final_iterations=iterations),
        callbacks=[clock],
    )
    m = from_field(start_field(domain, "inclusions"), filter_.volumes, 0.5, shared)
    kept = MMA.step
    clock.watch(MMA, "step", "optimizer")
    try:
        clock.start = time.process_time()
        loop.run(m)
    finally:
        MMA.step = kept  # type: ignore[method-assign]
    return clock


def row(*cells: object) -> None:
    if comm.rank == 0:
        print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--iterations", type=int, default=4, help="of each stage")
    parser.add_argument("--rtol", type=float, default=VOXEL_TOLERANCE, help="relative residual on voxels")
    parser.add_argument("--mesh", action="store_true", help="on a mesh instead")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    row("voxels", *(f"{part}, s" for part in PARTS), "largest, s", "Krylov iterations")
    row(*["---"] * (len(PARTS) + 3))
    for n in arguments.sizes:
        past = run(n, arguments.iterations, arguments.rtol, arguments.mesh).past
        median = {part: float(np.median([p[part] for p in past])) for part in (*PARTS, "iterations")}
        # The first iteration also sets up levels and compiles.
        largest = max(p["all"] for p in past[1:])
        row(f"{n}³", *(f"{median[p]:.3f}" for p in PARTS), f"{largest:.3f}", f"{median['iterations']:.0f}")


main()
