# # A heat sink that stands etching
#
# The heat sink of `heat_sink.py` is a tree, and its twigs are as thin as the filter lets them be. Made by
# etching, every edge of it ends a little off: etch too long and each branch loses that much on either side.
# The twigs go first, and what hung on them is cut off from the sink.
#
# The demo designs two sinks with the same amount of metal. The nominal one is the best as drawn. For the
# robust one three versions are solved in every iteration, etched too much, as drawn and etched too little,
# and the worst of them is made as good as can be. Then both are put to the test without any projection: the
# interface is moved by a length, what is left is meshed along its interface, and solved.
#
#     python3 demos/robust_heat_sink.py
#     mpirun -n 2 python3 demos/robust_heat_sink.py --cells 40

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.design.crisp import threshold
from fetopo.design.density import HeavisideProjection
from fetopo.design.etching import heat_solver, relative_spread, structure_of, under_errors
from fetopo.design.heat import Fixed, HeatModel
from fetopo.design.loads import LoadCase
from fetopo.design.problem import Constraint, Continuation, LoopOptions
from fetopo.design.robust import Realizations, etched_threshold
from fetopo.figure import new_figure, plain_ticks
from fetopo.microstructure.mesh import regular_cell

comm = MPI.COMM_WORLD
parser = argparse.ArgumentParser(description="Volume to point, nominal and robust to etching.")
parser.add_argument(
    "--cells", type=int, default=60, help="divisions of an edge, a multiple of 20 (default 60)"
)
parser.add_argument("--radius", type=float, default=3.0, help="of the filter, in divisions (default 3)")
parser.add_argument("--error", type=float, default=1.0, help="of the etching, in divisions (default 1)")
parser.add_argument("--iterations", type=int, default=20, help="most iterations of a stage (default 20)")
parser.add_argument("--output", type=Path, default=Path("results") / "robust_heat_sink")
arguments = parser.parse_args()
n, fraction, conductivity = arguments.cells, 0.3, (3e-3, 1.0)
if n % 20:
    parser.error(f"--cells must be a multiple of 20, so that the sink ends at nodes, found {n}")
error, radius = arguments.error / n, arguments.radius / n


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## The problem
#
# Unit square, heat source 1, conductivity 1 or 0.003, 30 % of the area metal. The sink, temperature 0, is the
# middle tenth of the left edge. C = ∫ f T, the mean temperature, is to be small.

cell = regular_cell(comm, (n, n))
sink = Fixed(0.0, lambda x: np.isclose(x[0], 0) & (np.abs(x[1] - 0.5) < 0.05 + 1e-9))
options = LoopOptions(
    continuation=Continuation(penalties=(1.0, 2.0, 3.0), max_beta=64.0),
    stage_iterations=arguments.iterations,
    final_iterations=2 * arguments.iterations,
)
factors = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)

# ## The designs
#
# An error is a length, positive where metal is etched away. The projection takes it over as another
# threshold on the filtered density. The volume is that of the structure as drawn, for both designs.

say(f"{n}² cells, filter radius {radius:.4f}, etching error {error:.4f}: threshold ½ ± "
    f"{float(etched_threshold(error, radius)) - 0.5:.3f}")  # fmt: skip


def designed(name: str, errors: tuple[float, ...]):
    """A design for the worst of some errors; its interface, and what it is worth under the errors tested."""
    model = HeatModel(cell, conductivity, radius, projection=HeavisideProjection())
    made = Realizations(model, errors)
    compliance = made.each(lambda one: one.compliance(one.load(1.0, fixed=[sink])))
    problem = made.problem(
        compliance, [Constraint("volume", model.mean_density(), fraction)], options=options
    )
    result = problem.run(np.full(model.volumes.size, fraction))
    crisp = threshold(result.rho, model.volumes, comm)
    interface = structure_of(model, result.m, result.rho, crisp)
    found = under_errors(
        comm, interface, [f * error for f in factors],
        heat_solver(conductivity, LoadCase(1.0, fixed=[sink])), 0.5 / n,
    )  # fmt: skip
    say(
        f"{name}: {len(result.history)} iterations, {100 * result.grey_level:.1f} % grey, "
        f"C by projections {', '.join(f'{c:.3f}' for c in result.objectives)}"
    )
    return interface, found


nominal, of_nominal = designed("nominal", (0.0,))
robust, of_robust = designed("robust", (error, 0.0, -error))

# ## The table
#
# Errors are moved interfaces, not thresholds. Spread: largest less smallest C among the errors up to a size,
# relative to C as drawn. The smallest features are measured by opening and closing the structure as drawn.

say("\n               nominal            robust")
say("error       volume      C      volume      C")
for f, a, b in zip(factors, of_nominal, of_robust, strict=True):
    say(
        f"{f:+4.1f} × δ    {a.volume_fraction:.3f}  {a.value:8.4f}    {b.volume_fraction:.3f}  {b.value:8.4f}"
    )
spreads = []
for f in (0.5, 1.0, 1.5):
    a, b = (relative_spread(found, f * error) for found in (of_nominal, of_robust))
    spreads.append((a, b))
    say(f"spread up to {f:.1f} × δ  {100 * a:7.1f} %  {100 * b:14.1f} %   {a / b:.1f} times smaller")
drawn = [found[factors.index(0.0)].value for found in (of_nominal, of_robust)]
cost = drawn[1] / drawn[0] - 1
say(f"cost of the robust design as drawn: C is {100 * cost:.1f} % larger")
features = [[one.smallest_feature(phase) for phase in (1, 0)] for one in (nominal, robust)]
for name, (metal, gap) in zip(("nominal", "robust"), features, strict=True):
    say(f"{name}: thinnest metal {metal / error:.1f} × δ, thinnest gap {gap / error:.1f} × δ")

# ## Picture

if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(14.0, 6.6)
    axes = figure.subplot_mosaic("abcg;defg", width_ratios=(1, 1, 1, 1.3))
    places = iter("abcdef")
    for name, one, found in (("nominal", nominal, of_nominal), ("robust", robust, of_robust)):
        for f, what in ((-1.0, "etched too little"), (0.0, "as drawn"), (1.0, "etched too much")):
            axis = axes[next(places)]
            axis.imshow(
                one.etched(f * error).T, origin="lower", extent=(0, 1, 0, 1), cmap="Blues", vmin=0, vmax=1.2
            )
            axis.plot([0, 0], [0.45, 0.55], color="#d62728", linewidth=4, clip_on=False)
            axis.set_title(f"{name}, {what}: C = {found[factors.index(f)].value:.3f}", fontsize=10)
            axis.set_xticks([])
            axis.set_yticks([])
    for name, found, color in (("nominal", of_nominal, "#c98b3c"), ("robust", of_robust, "#1f4e79")):
        axes["g"].plot(factors, [one.value for one in found], "o-", color=color, label=name)
    axes["g"].axvspan(-1, 1, color="black", alpha=0.06, linewidth=0)
    axes["g"].set(xlabel="etching error / δ (positive: metal lost)", ylabel="C = ∫ f T", yscale="log")
    axes["g"].set_title("moved interface, meshed and solved;\nshaded: the assumed error", fontsize=10)
    axes["g"].legend()
    plain_ticks(axes["g"].yaxis)
    figure.savefig(arguments.output / "robust_heat_sink.png", dpi=130)
say(f"written to {arguments.output / 'robust_heat_sink.png'}; the sink is red")

# ## What must hold

assert spreads[1][0] > 3 * spreads[1][1], "the spread under the assumed error is not three times smaller"
assert of_robust[factors.index(1.0)].value < of_nominal[factors.index(1.0)].value, "etched, nominal is better"
assert 0 < cost < spreads[1][0] - spreads[1][1], "the robust design costs more than it saves"
assert abs(of_robust[3].volume_fraction - of_nominal[3].volume_fraction) < 0.01, "another amount of metal"
assert features[1][0] > 2 * error, "metal thinner than what an error takes away"
