# # A heat sink, and how far it is from the best one possible
#
# A plate is heated everywhere and kept cold only on a tenth of one edge. Some of it may be made of a material
# that conducts a thousand times better than the rest, 40 % of the area. Where should it go, so that the heat
# finds its way out and the plate stays cool? This problem, volume to point, has a tree for an answer, and a
# different tree for every mesh, filter and start. Which of them is good?
#
# The demo designs one and then answers that question: a certificate, computed on the same mesh, bounds what
# any structure with this much of the good conductor can reach.
#
#     python3 demos/heat_sink.py
#     mpirun -n 2 python3 demos/heat_sink.py --cells 160

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.design.density import HeavisideProjection
from fetopo.design.heat import OPTIONS, Fixed, HeatModel
from fetopo.design.problem import Constraint
from fetopo.figure import new_figure
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.state import owned

comm = MPI.COMM_WORLD
parser = argparse.ArgumentParser(
    description="Volume to point: a heat sink and its distance from the optimum."
)
parser.add_argument(
    "--cells", type=int, default=80, help="divisions of an edge, a multiple of 20 (default 80)"
)
parser.add_argument("--radius", type=float, default=3.0, help="of the filter, in divisions (default 3)")
parser.add_argument("--iterations", type=int, default=15, help="most iterations of a stage (default 15)")
parser.add_argument("--output", type=Path, default=Path("results") / "heat_sink")
arguments = parser.parse_args()
n, fraction = arguments.cells, 0.4
if n % 20:
    parser.error(f"--cells must be a multiple of 20, so that the sink ends at nodes, found {n}")


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## The problem
#
# Unit square, heat source 1, conductivity 1 or 0.001. The sink, temperature 0, is the middle tenth of the
# left edge; no heat leaves anywhere else. What is minimized is ∫ f T, the mean temperature.

cell = regular_cell(comm, (n, n), cell_type="triangle")
model = HeatModel(cell, (1e-3, 1.0), arguments.radius / n, projection=HeavisideProjection())
sink = Fixed(0.0, lambda x: np.isclose(x[0], 0) & (np.abs(x[1] - 0.5) < 0.05 + 1e-9))
state = model.load(1.0, fixed=[sink])
mean_temperature = model.compliance(state)

# ## The certificate
#
# Conductivities between the two materials cost nothing extra here, which makes the problem convex: the best
# mixture is found to a tenth of a percent, and a bound below it that holds for every structure whatsoever.

certificate = model.certificate([state], fraction)
say(f"{n}² × 2 triangles, {model.conductivity[0]} to {model.conductivity[1]}, volume fraction {fraction}")
say(
    f"no structure is below {certificate.bound:.5f} "
    f"(best mixture {certificate.relaxed:.5f}, found in {certificate.iterations} iterations)"
)

# ## The design
#
# Mixtures are penalized more and more, then the density is projected to 0 and 1. The good conductor is worth
# having even where it is thin and half there, so that the grey level is limited as well, the more the sharper
# the projection is, to 0.8 % in the end.

problem = model.problem(
    mean_temperature,
    [Constraint("volume", model.mean_density(), fraction)],
    options=replace(OPTIONS, stage_iterations=arguments.iterations, final_iterations=30),
)
result = problem.run(np.full(model.volumes.size, fraction))
crisp, structure, used = model.crisp(mean_temperature)
bound = certificate.bound_at(used)
gap = crisp / bound - 1

say(f"\n{len(result.history)} iterations        ∫ f T    above the bound")
grey, above = 100 * result.grey_level, 100 * certificate.gap(result.objective)
say(f"density, {grey:4.1f} % grey  {result.objective:.5f}  {above:.1f} %")
say(f"crisp, volume {used:.4f}  {crisp:.5f}  {100 * gap:.1f} %")

# The gap is what a better design could gain at most. It is not small, because the bound allows structures far
# finer than the filter does; what it excludes is that something much better has been overlooked.

# ## Picture


def gathered(values: np.ndarray) -> np.ndarray | None:
    """Arrays with one row per cell of this rank, joined on rank 0."""
    parts = comm.gather(values)
    return None if parts is None else np.concatenate(parts)


cells = state.T.function_space.dofmap.list[: structure.size]
corners = gathered(state.T.function_space.tabulate_dof_coordinates()[cells][:, :, :2])
temperature = gathered(state.T.x.array[cells])
shown = [gathered(certificate.density), gathered(structure)]
if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(12.6, 4.6)
    axes = figure.subplots(1, 3)
    x, y = corners.reshape(-1, 2).T
    triangles = np.arange(x.size).reshape(-1, 3)
    for axis, values in zip(axes, shown, strict=False):
        axis.tripcolor(x, y, triangles, facecolors=values, cmap="Blues", vmin=0, vmax=1, rasterized=True)
    axes[0].set_title(f"best mixture: ∫ f T = {certificate.relaxed:.3f}")
    axes[1].set_title(f"design: {crisp:.3f}, at most {100 * gap:.0f} % above the best")
    drawn = axes[2].tripcolor(
        x, y, triangles, temperature.ravel(), cmap="inferno", shading="gouraud", rasterized=True
    )
    axes[2].tricontour(x, y, triangles, temperature.ravel(), 8, colors="white", linewidths=0.5)
    axes[2].set_title("temperature of the design")
    figure.colorbar(drawn, ax=axes[2], shrink=0.8)
    for axis in axes:
        axis.set(aspect="equal", xlim=(0, 1), ylim=(0, 1))
        axis.set_xticks([])
        axis.set_yticks([])
        axis.plot([0, 0], [0.45, 0.55], color="#d62728", linewidth=4, clip_on=False)
    figure.savefig(arguments.output / "heat_sink.png", dpi=150)
say(f"written to {arguments.output / 'heat_sink.png'}; the sink is red")

# ## What must hold

assert certificate.relaxed_gap <= 1e-3, "the bound is not within 0.1 % of the best one"
assert certificate.bound <= result.objective, "below a bound that nothing can beat"
assert result.grey_level < 0.01, "mixtures are left"
assert bound <= crisp, "the crisp structure is below its bound"
assert abs(used - fraction) < 5e-3, "another volume than asked for"
assert gap < 0.6, "far from the bound"
assert owned(state.T).min(initial=0.0) > -1e-9, "colder than the sink"
