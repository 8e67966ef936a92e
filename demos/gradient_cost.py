# # What a gradient costs
#
# How does the mean temperature of a plate change with each of its design variables? Finite differences answer
# with one solve for every variable and one more. The adjoint answers for all of them with at most one: none
# for the compliance, which is its own adjoint, and one for a temperature somewhere else.
#
# The demo measures both on meshes with more and more variables. Finite differences are measured where they
# are feasible, checked against the adjoint there, and extrapolated beyond: their cost is d + 1 solves.
#
#     python3 demos/gradient_cost.py                               10³ and 10⁴ variables
#     python3 demos/gradient_cost.py --edges 32,100,316,1000       10³ to 10⁶

import argparse
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.design.heat import Fixed, HeatModel
from fetopo.figure import new_figure
from fetopo.microstructure.mesh import regular_cell

comm = MPI.COMM_WORLD
parser = argparse.ArgumentParser(description="Cost of a gradient against the number of design variables.")
parser.add_argument(
    "--edges", default="10,32,100", help="divisions of an edge, the variables are their squares"
)
parser.add_argument("--feasible", type=int, default=120, help="most variables for all finite differences")
parser.add_argument("--output", type=Path, default=Path("results") / "gradient_cost")
arguments = parser.parse_args()
edges = [int(text) for text in arguments.edges.split(",")]


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


def seconds(task) -> float:
    """Time of the slowest rank, without what the first call compiles; the better of two."""
    best = np.inf
    for _ in range(2):
        comm.Barrier()
        begin = time.perf_counter()
        task()
        best = min(best, comm.allreduce(time.perf_counter() - begin, op=MPI.MAX))
    return best


# ## Measure
#
# Every solve starts from zero, so that none profits from the one before, and adjoint and temperature from the
# same preconditioner, which is what symmetry gives.

rows, worst = [], 0.0
say("variables   state (s)   compliance  elsewhere   finite differences (s)")
for n in edges:
    model = HeatModel(regular_cell(comm, (n, n)), (1e-2, 1.0))
    state = model.load(1.0, fixed=[Fixed(0.0, lambda x: np.isclose(x[0], 0))])
    compliance = model.compliance(state)
    corner = model.mean_temperature(state, lambda x: (x[0] > 0.7) & (x[1] > 0.7))
    rng = np.random.default_rng([1, comm.rank])
    m = 0.3 + 0.4 * rng.random(model.volumes.size)

    def solve(m=m, model=model, state=state):
        model.density.forward(m)
        state.T.x.array[:] = 0
        state.solve()

    solve()
    state_time = seconds(solve)
    times = []
    for functional in (compliance, corner):
        functional.derivative()
        before = functional.adjoint_solves
        times.append(seconds(functional.derivative))
        solves = (functional.adjoint_solves - before) // 2
        assert solves <= 1, "more than one extra solve for a gradient"
        assert solves == (0 if functional is compliance else 1)
    d = comm.allreduce(m.size)
    if d <= arguments.feasible:
        # All of them, one variable of one rank after the other.
        exact, h = corner.derivative(), 1e-6
        base, begin, error = corner.value(), time.perf_counter(), 0.0
        for rank in range(comm.size):
            for i in range(comm.bcast(m.size, rank)):
                changed = m.copy()
                if comm.rank == rank:
                    changed[i] += h
                solve(changed)
                slope = (corner.value() - base) / h
                if comm.rank == rank:
                    error = max(error, abs(slope - exact[i]))
        differences = comm.allreduce(time.perf_counter() - begin, op=MPI.MAX)
        largest = comm.allreduce(np.abs(exact).max(initial=0), op=MPI.MAX)
        worst = max(worst, comm.allreduce(error, op=MPI.MAX) / largest)
        measured = True
    else:
        differences, measured = (d + 1) * state_time, False
    rows.append((d, state_time, *times, differences, measured))
    note = "measured" if measured else "d + 1 solves"
    say(f"{d:9d}   {state_time:9.4f}   {times[0]:9.4f}   {times[1]:9.4f}   {differences:11.4g}  ({note})")

d, state_time, free, adjoint, differences = np.array([row[:5] for row in rows]).T
measured = np.array([row[5] for row in rows])
last = differences[-1] / (state_time[-1] + adjoint[-1])
solves = 1 + adjoint[-1] / state_time[-1]
say(f"\nwith {d[-1]:.0f} variables a gradient costs {solves:.2f} solves by the adjoint,")
say(f"{d[-1] + 1:.0f} by finite differences: {last:.3g} times as long")
if measured.any():
    say(f"where both were computed they agree to {worst:.1e} of the largest entry")

# ## Picture

if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    relative = differences / state_time
    axes.loglog(d, relative, "--", color="#b5651d", label="finite differences, d + 1 solves")
    axes.loglog(d[measured], relative[measured], "o", color="#b5651d", label="finite differences, measured")
    axes.loglog(d, 1 + adjoint / state_time, "s-", color="#1f4e79", label="adjoint, temperature elsewhere")
    axes.loglog(d, 1 + free / state_time, "^-", color="#5b9bd5", label="adjoint, compliance")
    axes.set(xlabel="design variables", ylabel="cost of value and gradient, in solves", ylim=(0.5, None))
    axes.grid(True, alpha=0.3)
    axes.legend()
    figure.savefig(arguments.output / "gradient_cost.png", dpi=150)
say(f"written to {arguments.output / 'gradient_cost.png'}")

# ## What must hold

assert (adjoint[d > 900] < 3 * state_time[d > 900]).all(), "the adjoint costs more than a few solves"
assert worst < 1e-4, "finite differences and adjoint disagree"
assert last > 10, "no advantage"
