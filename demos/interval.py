# # A property with an error bar
#
# A finite element result says nothing of its own error. Two of them do: a continuous potential bounds the
# effective conductivity from above, a flux in balance from below, and whatever the exact value is, it lies
# between. The distance of the two, cell by cell, tells where the mesh is too coarse.
#
# The checkerboard is the hard case. Where four squares meet the field is singular, the more the larger the
# contrast, and uniform meshes converge slowly. Its effective conductivity is known, √(k₁k₂) (Keller 1964,
# doi:10.1063/1.1704146), so that every interval can be checked.
#
#     python3 demos/interval.py
#     mpirun -n 2 python3 demos/interval.py --contrast 100 --width 0.02

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo.figure import new_figure
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.adaptive import enclose_adaptively
from fetopo.transport.enclosure import enclose

comm = MPI.COMM_WORLD

parser = argparse.ArgumentParser(description="Guaranteed intervals on uniform and on adapted meshes.")
parser.add_argument("--contrast", type=float, default=10.0, help="conductivity of the good squares")
parser.add_argument("--width", type=float, default=5e-3, help="relative width to stop at")
parser.add_argument("--output", type=Path, default=Path("results") / "interval")
arguments = parser.parse_args()


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## A checkerboard of triangles


def checkerboard(n):
    cell = regular_cell(comm, (n, n), (1.0, 1.0), "triangle")
    index = cell.cell_tags.indices
    x = dmesh.compute_midpoints(cell.mesh, 2, index)
    tags = np.where((x[:, 0] < 0.5) ^ (x[:, 1] < 0.5), 2, 1).astype(np.int32)
    return replace(cell, cell_tags=dmesh.meshtags(cell.mesh, 2, index, tags))


values = {1: 1.0, 2: arguments.contrast}
exact = float(np.sqrt(arguments.contrast))

# ## Uniform meshes

say("triangles   lower     upper     estimate  relative width")


def line(cells, found):
    low, high, best = (m[0, 0] for m in (found.lower_bound, found.upper_bound, found.best_estimate))
    say(f"{cells:9d}   {low:.5f}   {high:.5f}   {best:.5f}   {found.width:.2e}")


uniform = []
for n in (8, 16, 32, 64):
    found = enclose(checkerboard(n), values)
    uniform.append((2 * n * n, found))
    line(2 * n * n, found)

# ## Meshes refined where the gap is

say("refined where the two bounds differ:")
steps = enclose_adaptively(
    checkerboard(8), values, width=arguments.width, callback=lambda step: line(step.cells, step.enclosure)
)
say(f"exact: {exact:.5f}")


def order(pairs):
    """Exponent of the width in the number of cells, over the second half."""
    half = pairs[len(pairs) // 2 :]
    cells, widths = np.array([(c, e.width) for c, e in half]).T
    return float(np.polyfit(np.log(cells), np.log(widths), 1)[0])


adapted = [(step.cells, step.enclosure) for step in steps]
say(f"width ~ N^{order(uniform):.2f} on uniform, N^{order(adapted):.2f} on adapted meshes")

# ## A picture
#
# Left the width against the number of triangles, right the interval and what it closes on.

if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    for name, pairs, style in (("uniform", uniform, "o-"), ("adapted", adapted, "s-")):
        cells = [c for c, _ in pairs]
        left.loglog(cells, [e.width for _, e in pairs], style, label=f"{name}, order {order(pairs):.2f}")
        low = [e.lower_bound[0, 0] for _, e in pairs]
        high = [e.upper_bound[0, 0] for _, e in pairs]
        right.fill_between(cells, low, high, alpha=0.35, label=name)
    left.set_xlabel("triangles")
    left.set_ylabel("relative width of the interval")
    left.legend()
    right.axhline(exact, color="black", linewidth=1, label=f"exact, {exact:.4f}")
    right.set_xscale("log")
    right.set_xlabel("triangles")
    right.set_ylabel("effective conductivity, poor squares = 1")
    right.legend()
    figure.savefig(arguments.output / "interval.png", dpi=110)
say(f"\nwritten to {arguments.output}: interval.png")

# ## What must hold

every = [e for _, e in uniform + adapted]
assert all(e.contains(exact * np.eye(2)) for e in every), "an interval does not hold the exact value"
assert steps[-1].enclosure.width <= arguments.width, "the interval is not as narrow as asked for"
assert order(adapted) < -0.8, "refinement does not regain the rate of smooth fields"
assert order(uniform) > -0.5, "uniform meshes do better than the singular corner lets them"
