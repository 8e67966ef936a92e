"""What the voxel benchmarks solve, called in processes of their own: a through feature, a periodic cell."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from voxel_images import coefficient, mask
from voxel_processes import cost

#: Solved first, so that kernels are loaded before the clock starts.
SMALL = 16


def through_feature(
    image: str, axis: int, data: str, scheme: str = "finite volumes", rtol: float = 1e-6
) -> dict[str, Any]:
    """Fixed potential on two faces of the mask, from the mask, isolated parts included, to the value."""
    from mpi4py import MPI

    from fetopo.transport.voxel import VoxelGrid, through

    comm = MPI.COMM_WORLD

    def solve(m: np.ndarray) -> Any:
        grid = VoxelGrid(comm, m.shape)
        return through(grid, grid.take(m), axis, scheme=scheme, rtol=rtol)

    solve(mask(f"field@{SMALL}"))
    m = mask(image, data)
    with cost(comm) as spent:
        found = solve(m)
    return {
        "value": float(found.conductivity),
        "lower": float(found.lower_bound) if scheme == "finite volumes" else None,
        "iterations": int(np.max(found.iterations)),
        "porosity": float(m.mean()),
        "voxels": m.size,
        "cost": spent.of_all(comm),
    }


def cell(
    image: str, data: str, scheme: str = "finite volumes", contrast: float = 1e3, rtol: float = 1e-6
) -> dict[str, Any]:
    """All directions of a periodic cell: phases 1 and `contrast`; `smooth`, `white`: continuous."""
    from mpi4py import MPI

    from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid

    comm = MPI.COMM_WORLD

    def solve(kappa: np.ndarray) -> Any:
        grid = VoxelGrid(comm, kappa.shape, periodic=True)
        problem = VoxelCellProblem(grid, scheme=scheme, rtol=rtol)
        problem.assign(grid.take(kappa))
        problem.solve()
        return problem

    kind, _, side = image.partition("@")
    if kind in ("white", "smooth"):
        # log κ runs from 0 to log(contrast)
        kappa = contrast ** coefficient({"white": "noise", "smooth": "field"}[kind], int(side)).astype(float)
    else:
        kappa = np.where(mask(image, data), contrast, 1.0)
    solve(np.ones((SMALL,) * kappa.ndim))
    with cost(comm) as spent:
        problem = solve(kappa)
    return {
        "value": np.asarray(problem.tensor).tolist(),
        "iterations": int(np.max(problem.iterations)),
        "voxels": kappa.size,
        "cost": spent.of_all(comm),
    }


def iterations(
    images: list[str], data: str, scheme: str, contrasts: list[float], rtol: float
) -> list[list[int | None]]:
    """Iterations of every image (rows) at every contrast (columns); None where the solver gave up."""

    def one(image: str, contrast: float) -> int | None:
        try:
            return int(cell(image, data, scheme, contrast, rtol)["iterations"])
        except RuntimeError:
            return None

    return [[one(i, c) for c in contrasts] for i in images]


def message(n: int = 8, repeats: int = 200) -> float:
    """Seconds of one message of a halo exchange between two ranks here, nearly all of it software."""
    from mpi4py import MPI

    from fetopo.transport.voxel import VoxelGrid

    comm = MPI.COMM_WORLD
    blocks = VoxelGrid(comm, (comm.size * n, n, n)).blocks
    values = blocks.padded(1, np.float32)
    best = np.inf
    for _ in range(repeats):
        comm.Barrier()
        start = time.perf_counter()
        blocks.exchange(values)
        best = min(best, time.perf_counter() - start)
    return float(comm.allreduce(best, op=MPI.MAX)) / 2  # one message up, one down


def kernels() -> float:
    """CPU seconds until the kernels are there, the compiler's included: compiled, or loaded."""
    from fetopo.transport.voxel import _kernels

    def spent() -> float:
        return sum(os.times()[:4])

    start = spent()
    _kernels.multigrid()
    _kernels.energy()
    _kernels.clusters()
    return spent() - start
