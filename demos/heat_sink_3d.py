# # A heat spreader for two chips
#
# Two chips sit on top of a block, one of them works at a time, and a fan cools a strip between them from
# below. A fifth of the block may be a good conductor, the rest conducts a hundred times worse. Whichever chip
# works should stay cool: two load cases, of which the mean counts, with convection where the heat leaves.
#
#     python3 demos/heat_sink_3d.py
#     mpirun -n 2 python3 demos/heat_sink_3d.py --cells 48

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo import plot
from fetopo.design.density import HeavisideProjection
from fetopo.design.heat import OPTIONS, Convection, HeatModel, Inflow
from fetopo.design.problem import Constraint
from fetopo.design.temperature import PeakTemperature, WeightedSum
from fetopo.figure import new_figure
from fetopo.microstructure.mesh import regular_cell, to_image

comm = MPI.COMM_WORLD
parser = argparse.ArgumentParser(description="A heat spreader in three dimensions, for two load cases.")
parser.add_argument("--cells", type=int, default=24, help="divisions of the long edge, a multiple of 8")
parser.add_argument("--iterations", type=int, default=15, help="most iterations of a stage (default 15)")
parser.add_argument("--output", type=Path, default=Path("results") / "heat_sink_3d")
arguments = parser.parse_args()
n, fraction = arguments.cells, 0.2
if n % 8:
    parser.error(f"--cells must be a multiple of 8, so that the chips end at nodes, found {n}")


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## Domain and loads
#
# A block of 1 × ½ × ¼. Each chip is a square of edge ¼ on the top; its heat, 1 in all, enters there.

lengths = [1.0, 0.5, 0.25]
cell = regular_cell(comm, (n, n // 2, n // 4), lengths)
model = HeatModel(cell, (0.01, 1.0), 2.5 / n, projection=HeavisideProjection())


def chip(start: float):
    """Marker of a chip on the top that begins at x = start."""

    def where(x):
        top = np.isclose(x[2], lengths[2])
        along, across = np.abs(x[0] - start - 0.125), np.abs(x[1] - 0.25)
        return top & (along < 0.125 + 1e-9) & (across < 0.125 + 1e-9)

    return where


strip = Convection(50.0, lambda x: np.isclose(x[2], 0) & (np.abs(x[0] - 0.5) < 0.125 + 1e-9))
states = [model.load(inflow=[Inflow(16.0, chip(start))], convection=[strip]) for start in (0.125, 0.625)]
objective = WeightedSum([model.compliance(state) for state in states], [0.5, 0.5])
peaks = [PeakTemperature(model, state, exponent=40.0) for state in states]

# ## Certificate, design, crisp structure

certificate = model.certificate(states, fraction, weights=[0.5, 0.5])
say(f"{n} × {n // 2} × {n // 4} voxels, volume fraction {fraction}")
say(f"mean temperature of the working chip: no design of such voxels is below {certificate.bound:.4f}")

problem = model.problem(
    objective,
    [Constraint("volume", model.mean_density(), fraction)],
    options=replace(OPTIONS, stage_iterations=arguments.iterations, final_iterations=20),
)
start = np.full(model.volumes.size, fraction)
uniform, *_ = problem.evaluate(start, gradients=False)
result = problem.run(start)
crisp, structure, used = model.crisp(objective)
gap = crisp / certificate.bound_at(used) - 1
say(f"{len(result.history)} iterations: density {result.objective:.4f}, {100 * result.grey_level:.1f} % grey")
say(f"crisp, volume {used:.4f}: {crisp:.4f}, at most {100 * gap:.1f} % above the best")
say(
    "temperature of the hottest places with either chip (p-norm): "
    + ", ".join(f"{peak.value():.4f}" for peak in peaks)
)

# The mean does not see a single hot corner, where a voxel below the edge of a chip was cut off: a constraint
# on `PeakTemperature` would.

# ## Picture

image = to_image(cell, structure)
if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(7.2, 4.6)
    axes = figure.subplots()
    picture = plot.render_volume(image, lengths, size=(1500, 1100), color="#b5651d")
    # Without the empty margins.
    inside = [np.flatnonzero((picture < 255).any(axis=(axis, 2))) for axis in (1, 0)]
    axes.imshow(picture[inside[0][0] : inside[0][-1], inside[1][0] : inside[1][-1]])
    axes.set_axis_off()
    axes.set_title(f"good conductor: {crisp:.3f}, at most {100 * gap:.0f} % above the best", fontsize=10)
    figure.savefig(arguments.output / "heat_sink_3d.png", dpi=150)
say(f"written to {arguments.output / 'heat_sink_3d.png'}")

# ## What must hold

assert certificate.relaxed_gap <= 1e-3, "the bound is not within 0.1 % of the best one"
assert certificate.bound <= result.objective, "below a bound that nothing can beat"
assert result.grey_level < 0.01, "mixtures are left"
assert crisp < 0.6 * uniform, "little better than the first design"
# Voxels that are alike by symmetry, four of them, are cut together.
step = max(5e-3, 4 / np.prod(cell.grid))
assert abs(used - fraction) < step, "another volume than asked for"
assert gap < 0.5, "far from the bound"
