"""Bandwidth of the memory (STREAM triad) and the bytes that the voxel kernels move."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from voxel_images import mask
from voxel_processes import head, row, run

#: Three arrays of 64 MiB leave no cache in play.
LENGTH = 2**23


def triad(length: int = LENGTH, repeats: int = 20) -> dict[str, Any]:
    """Largest bandwidth [B/s] of a = b + s c per rank, all at once; 32 bytes an entry, a fetched too."""
    from mpi4py import MPI

    from fetopo._compile import compiled

    comm = MPI.COMM_WORLD
    module = compiled(
        Path(__file__).with_name("voxel_stream.c"),
        "void triad(double *a, const double *b, const double *c, double s, ptrdiff_t n);",
        name="stream",
        flags=("-O3", "-march=native"),
    )
    a, b, c = np.zeros(length), np.ones(length), np.full(length, 2.0)
    pointers = [module.ffi.cast("double *", x.ctypes.data) for x in (a, b, c)]
    best = np.inf
    for _ in range(repeats):
        comm.Barrier()
        best = min(best, best_of(lambda: module.lib.triad(*pointers, 3.0, length), 1))
    if not np.all(a == 7.0):
        raise RuntimeError("the triad's result is wrong")
    return {"ranks": comm.size, "bandwidths": comm.allgather(32.0 * length / best)}


@dataclass(frozen=True)
class Pass:
    """One pass over a level: bytes per unknown of vectors (a right-hand side), and whether A is read."""

    name: str
    vectors: float
    operator: bool = True


#: Every array that a pass reads or writes, once each: neighbours come from cache. Single precision but for
#: the solution. What is written without having been read is fetched first, and counts twice.
CYCLE = (
    Pass("smooth_first", 12),  # b → y
    Pass("smooth_second", 16),  # y, b → x
    Pass("restrict_residual", 9),  # x, b → b of the next level
    Pass("prolong", 8.5, False),  # x, x of the next level → x
    Pass("smooth_third", 16),  # x, b → y
    Pass("smooth_fourth", 16),  # y, x, b → x
)
KRYLOV = (
    Pass("direction", 12, False),  # x, p → p
    Pass("apply", 12),  # p → y
    Pass("advance", 32, False),  # p, y, b, solution in double → b, solution
)
#: Bytes per unknown of what stands for the matrix.
OPERATORS = {"MASK": 1.0, "FACES": 12.0, "FINE_FACES": 24.0, "BYTES": 1.0, "VALUES": 8.0}


def visits(levels: int) -> list[int]:
    """How often a W-cycle visits each level."""
    return [2**level for level in range(levels)]


def bytes_of(passes: tuple[Pass, ...], operator: float, rhs: int) -> float:
    """Bytes per unknown of passes over a level."""
    return sum(p.vectors * rhs + operator * p.operator for p in passes)


def bytes_per_voxel(kind: str, rhs: int = 1, levels: int = 8, sweeps: int = 1) -> dict[str, float]:
    """Bytes per voxel of one iteration: finest level, coarse levels, conjugate gradients.

    Rough coefficients get more `sweeps` of the smoother on the finest level, before and after the correction.
    """
    fine = bytes_of(CYCLE, OPERATORS[kind], rhs)
    fine += 2 * (sweeps - 1) * bytes_of(CYCLE[4:], OPERATORS[kind], rhs)
    faces = OPERATORS["FACES"]
    first = bytes_of(CYCLE, faces, rhs)
    # A second visit starts from what the first one left: smoothing as after the correction.
    again = first + bytes_of(CYCLE[4:], faces, rhs) - bytes_of(CYCLE[:2], faces, rhs)
    coarse = 0.0
    for level, count in enumerate(visits(levels)):
        if level > 0:
            coarse += count / 2 * (first + again) / 8**level
    return {"finest": fine, "coarse": coarse, "krylov": bytes_of(KRYLOV, OPERATORS[kind], rhs)}


def kernels(
    image: str, data: str, scheme: str, continuous: bool, rhs: int, repeats: int = 5
) -> dict[str, Any]:
    """Seconds of every pass over the finest level, and of a whole iteration, the best of several."""
    from mpi4py import MPI

    from fetopo.transport.voxel import VoxelGrid
    from fetopo.transport.voxel.operators import Operator

    m = mask(image, data)
    grid = VoxelGrid(MPI.COMM_SELF, m.shape)
    operator = Operator(grid, scheme, rhs=rhs, fixed=[(True, True), (False, False), (False, False)])
    operator.assign(np.where(m, 1.0, 1e-3) if continuous else m)
    level, below = operator.hierarchy.levels[:2]
    lib, ffi, struct = level.lib, level.ffi, level.struct
    for name in ("x", "y", "b"):
        level.array(name)[:] = 1e-3
    p = level.blocks.padded(rhs, np.float32)
    u = level.blocks.padded(rhs, np.float64)
    numbers = np.full(rhs, 1e-3)
    out = ffi.new("double[]", rhs)
    few, single, double = (
        ffi.cast(f"{kind} *", x.ctypes.data) for kind, x in (("double", numbers), ("float", p), ("double", u))
    )
    calls = {
        "smooth_first": lambda: lib.smooth_first(struct),
        "smooth_second": lambda: lib.smooth_second(struct),
        "restrict_residual": lambda: lib.restrict_residual(struct, below.struct),
        "prolong": lambda: lib.prolong(struct, below.struct),
        "smooth_third": lambda: lib.smooth_third(struct),
        "smooth_fourth": lambda: lib.smooth_fourth(struct, out),
        "direction": lambda: lib.direction(struct, few, single),
        "apply": lambda: lib.apply(struct, single, out),
        "advance": lambda: lib.advance(struct, few, single, double, out),
        "cycle": lambda: operator.hierarchy.cycle(numbers.copy()),
    }
    before = triad()["bandwidths"][0]
    seconds = {name: best_of(call, repeats) for name, call in calls.items()}
    names = ("MASK", "FACES", "FINE_FACES", "BYTES", "VALUES")
    kind = next(n for n in names if getattr(lib, n) == struct.kind)
    return {
        "seconds": seconds,
        "kind": kind,
        "unknowns": int(np.prod(level.blocks.shape)),
        "levels": len(operator.hierarchy.levels),
        "sweeps": int(struct.sweeps),
        "triad": max(before, triad()["bandwidths"][0]),
    }


def best_of(call: Any, repeats: int) -> float:
    """Least CPU seconds of several calls: wall time would count what others do on the machine."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def table(image: str, data: str, cases: list[tuple[str, bool, int]]) -> None:
    """Kernels of every case (scheme, continuous coefficients, right-hand sides) against the triad."""
    for scheme, continuous, rhs in cases:
        r = run(
            "voxel_bandwidth:kernels", image=image, data=data, scheme=scheme, continuous=continuous, rhs=rhs
        )
        what = "continuous coefficients" if continuous else "mask"
        print(f"\n{image}, {scheme}, {what}, {rhs} right-hand sides; triad {r['triad'] / 1e9:.1f} GB/s")
        head("pass", "bytes per unknown", "ns per unknown", "GB/s", "of the triad, %")
        op, n, total = (
            OPERATORS[r["kind"]],
            r["unknowns"],
            bytes_per_voxel(r["kind"], rhs, r["levels"], r["sweeps"]),
        )
        moved = {p.name: bytes_of((p,), op, rhs) for p in (*CYCLE, *KRYLOV)}
        moved["cycle"] = total["finest"] + total["coarse"]
        moved["iteration"] = moved["cycle"] + total["krylov"]
        seconds = r["seconds"] | {
            "iteration": r["seconds"]["cycle"] + sum(r["seconds"][p.name] for p in KRYLOV)
        }
        for name, each in moved.items():
            rate = each * n / seconds[name]
            row(name, f"{each:.1f}", f"{1e9 * seconds[name] / n:.2f}", f"{rate / 1e9:.1f}",
                f"{100 * rate / r['triad']:.0f}")  # fmt: skip
