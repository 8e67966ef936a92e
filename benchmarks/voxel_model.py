"""A model of the voxel solver on 10² to 10⁴ ranks: compute, halo exchanges, gathered levels, reductions.

Time of one iteration on P ranks with N voxels in all and n = N / P on each, blocks as cubes:

    t = c n + Σ_{l<G} v_l e [6 (α + s) + 6 w m_l² / β] + v_{G−1} [(α + s) log₂ P + w N_G / β] + v_G c₁ N_G
        + r [2 α log₂ P + s]

c n is compute with all levels, measured on one rank, c₁ the share of it of a multigrid cycle. Level l is
visited v_l = 2^l times (a W-cycle) and exchanges the faces of its block, of side m_l = n^⅓ / 2^l, e times a
visit with w bytes a value. From level G on, the first that has no more than `gather` unknowns in all or whose
aggregates would not fit into a block, every rank has everything, N_G unknowns, after an allgather, and solves
it by itself. r reductions an iteration. α, β: latency and bandwidth of the network; s: software of a message.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from voxel_bandwidth import visits
from voxel_processes import head, row


@dataclass(frozen=True)
class Machine:
    """Latency α [s] and bandwidth β [B/s] of a message, and what software adds to it [s]."""

    latency: float = 2e-6
    bandwidth: float = 10e9
    software: float = 0.0


@dataclass(frozen=True)
class Solver:
    """What an iteration does; see the module's formula."""

    seconds_per_voxel: float  # c, one iteration, all levels
    cycle: float = 0.8  # c₁/c
    iterations: int = 12
    exchanges: float = 4.5  # e: 4 in a first visit of a level, 5 in a second
    value_bytes: int = 4  # w
    gather: int = 8192
    reductions: int = 3  # r

    def levels(self, side: float, ranks: int) -> int:
        """G: levels above the first gathered one."""
        level = 0
        while True:
            level += 1
            if ranks * (side / 2**level) ** 3 <= self.gather or side / 2**level < 1:
                return level


NAMES = ("compute", "halos", "gathering", "gathered levels", "reductions")


def parts(voxels: float, ranks: int, solver: Solver, machine: Machine) -> dict[str, float]:
    """Seconds of one iteration on a number of ranks, by what they are spent on."""
    compute = solver.seconds_per_voxel * voxels / ranks
    if ranks == 1:
        return dict.fromkeys(NAMES, 0.0) | {"compute": compute}
    side, steps = (voxels / ranks) ** (1 / 3), math.log2(ranks)
    alone = solver.levels(side, ranks)
    count = visits(alone + 1)
    message = machine.latency + machine.software
    halos = sum(
        count[level] * solver.exchanges
        * (6 * message + 6 * solver.value_bytes * (side / 2**level) ** 2 / machine.bandwidth)
        for level in range(alone)
    )  # fmt: skip
    gathered = voxels / 8**alone
    gathering = count[alone - 1] * (steps * message + solver.value_bytes * gathered / machine.bandwidth)
    return {
        "compute": compute,
        "halos": halos,
        "gathering": gathering,
        # c₁ counts a voxel with all levels below it: what a cycle costs that begins here.
        "gathered levels": count[alone] * solver.cycle * solver.seconds_per_voxel * gathered,
        "reductions": solver.reductions * (2 * machine.latency * steps + machine.software),
    }


def table(
    solver: Solver, machine: Machine, *, strong: float = 1e9, weak: float = 1e6,
    ranks: tuple[int, ...] = (1, 100, 1000, 10_000),
) -> None:  # fmt: skip
    """Strong scaling of one image and weak scaling of a block per rank, with the assumptions."""
    per_message = f"{1e6 * machine.latency:g} µs, {machine.bandwidth / 1e9:g} GB/s"
    print(
        f"\nAssumed: {per_message} and {1e6 * machine.software:.1f} µs of software a message; cubic blocks;"
        f" {solver.exchanges} halo exchanges a visit of a level, {solver.value_bytes} bytes a value; levels"
        f" of at most {solver.gather} unknowns gathered by all; {solver.reductions} reductions and"
        f" {1e9 * solver.seconds_per_voxel:.3g} ns per voxel an iteration,"
        f" {100 * solver.cycle:.0f} % of it the cycle, measured on one rank;"
        f" {solver.iterations} iterations; every rank has the bandwidth of memory that this one had;"
        " no overlap of messages and compute."
    )
    head("scaling", "voxels", "ranks", "G", "solve, s", *(f"{n}, %" for n in NAMES), "efficiency, %")
    for kind in ("strong", "weak"):
        for p in ranks:
            n = strong if kind == "strong" else weak * p
            found = parts(n, p, solver, machine)
            total = sum(found.values())
            deep = solver.levels((n / p) ** (1 / 3), p) if p > 1 else "–"
            row(kind, f"{n:.0e}", p, deep, f"{solver.iterations * total:.3g}",
                *(f"{100 * found[k] / total:.1f}" for k in NAMES),
                f"{100 * found['compute'] / total:.0f}")  # fmt: skip
