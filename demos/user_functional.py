# # A functional of your own
#
# A chip makes heat in one part of a plate, one side of the plate is kept cool, and a sensor in another part
# must not get warm. Where should a given amount of metal go? fetopo has no functional for a sensor's
# temperature. This demo writes one in a line of UFL, checks its derivative, and optimizes with it.
#
#     python3 demos/user_functional.py
#     mpirun -n 2 python3 demos/user_functional.py --cells 80

import argparse
from pathlib import Path

import numpy as np
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo.design.adjoint import MeanDensity, ReducedFunctional, form_functional
from fetopo.design.combination import weighted_sum
from fetopo.design.density import DensityMap, HeavisideProjection, HelmholtzFilter, Interpolation
from fetopo.design.problem import Constraint, DesignProblem, LoopOptions, Stage
from fetopo.design.verification import taylor_test
from fetopo.figure import new_figure
from fetopo.microstructure.mesh import regular_cell, to_image
from fetopo.progress import Progress
from fetopo.transport.state import LinearState, owned

comm = MPI.COMM_WORLD

parser = argparse.ArgumentParser(description="Design with a functional of one's own.")
parser.add_argument("--cells", type=int, default=40, help="elements along an edge (default 40)")
parser.add_argument("--output", type=Path, default=Path("results") / "user_functional")
arguments = parser.parse_args()


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## The state
#
# −∇·κ(ρ)∇u = q, with u = 0 on the left side and no flux through the others. The density ρ comes from the
# design variable by a filter and a projection, the conductivity κ from ρ by SIMP: metal conducts a hundred
# times better than the plate.

plate = regular_cell(comm, (arguments.cells, arguments.cells))
mesh = plate.mesh
filter_, projection = HelmholtzFilter(mesh, 0.08), HeavisideProjection()
density = DensityMap(mesh, filter_, projection)
kappa = Interpolation(mesh, 0.01, 1.0)

V = fem.functionspace(mesh, ("Lagrange", 1))
u, v, x = fem.Function(V, name="temperature"), ufl.TestFunction(V), ufl.SpatialCoordinate(mesh)


def box(left: float, right: float, low: float, high: float):
    """1 inside a box, else 0."""
    inside = ufl.And(ufl.And(x[0] > left, x[0] < right), ufl.And(x[1] > low, x[1] < high))
    return ufl.conditional(inside, 1.0, 0.0)


chip, sensor = box(0.4, 0.6, 0.6, 0.8), box(0.75, 0.95, 0.2, 0.4)
F = kappa.ufl(density.rho) * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx - chip * v * ufl.dx
left = dmesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[0], 0.0))
cold = fem.dirichletbc(0.0, fem.locate_dofs_topological(V, 1, left), V)
state = LinearState(F, u, [cold])

# ## The functionals
#
# A functional is a function of the state, the density and the volume measure that returns a form. Derivatives
# of forms are UFL's business, the adjoint problem fetopo's: nothing else has to be written. Functionals
# combine: here the temperature of the sensor, and a tenth of that of the chip.

area = 0.04
warmth = form_functional(lambda u, rho, dx: sensor * u / area * dx, state, density.rho)
heat = form_functional(lambda u, rho, dx: chip * u / area * dx, state, density.rho)
objective = weighted_sum([warmth, heat], [1.0, 0.1])

# ## Is the derivative right?
#
# |J(m + h dm) − J(m) − h dJ/dm·dm| must fall with h², through filter, projection, material and state.

reduced = ReducedFunctional(objective, density)
m = np.full(filter_.volumes.size, 0.4)
reduced(m)
check = taylor_test(reduced, m, reduced.derivative(), comm=comm)
say("step       first order   remainder")
for h, first, second in zip(check.steps, check.first, check.second, strict=True):
    say(f"{h:.2e}   {first:.3e}     {second:.3e}")
say(f"rate of the remainder: {check.rate:.3f}\n")

# ## The design
#
# At most 40 % metal. The state is solved once for both functionals.

problem = DesignProblem(
    density,
    objective,
    [Constraint("metal", MeanDensity(density, filter_.volumes), 0.4)],
    volumes=filter_.volumes,
    projections=[projection],
    interpolations=[kappa],
    solvers=[state.solver, *filter_.solvers],
    options=LoopOptions(
        stages=tuple(Stage(3.0, beta) for beta in (1.0, 4.0, 16.0, 64.0)), stage_iterations=25
    ),
    callbacks=[Progress(comm)],
)
before = {"sensor": warmth.value(), "chip": heat.value()}
result = problem.run(m)
after = {"sensor": warmth.value(), "chip": heat.value()}
say("\nmean temperature   spread evenly   designed")
for name in before:
    say(f"{name:17}  {before[name]:.4f}          {after[name]:.4f}")

# ## Picture

Q = fem.functionspace(mesh, ("DG", 0))
means = fem.assemble_vector(fem.form(u * ufl.TestFunction(Q) * ufl.dx))
metal = to_image(plate, result.rho)
temperature = to_image(plate, owned(means) / filter_.volumes)
if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(10.0, 4.6)
    for axes, image, title, colors in zip(
        figure.subplots(1, 2),
        (metal, temperature),
        ("metal", "temperature"),
        ("Greys", "inferno"),
        strict=True,
    ):
        shown = axes.imshow(image.T, origin="lower", extent=(0, 1, 0, 1), cmap=colors)
        figure.colorbar(shown, ax=axes, shrink=0.8)
        for name, (a, b), color in (("chip", (0.4, 0.6), "#d04040"), ("sensor", (0.75, 0.2), "#3080d0")):
            corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]) * 0.2 + (a, b)
            axes.plot(*corners.T, color=color, linewidth=1.5)
            axes.text(a + 0.1, b + 0.21, name, ha="center", color=color)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(arguments.output / "user_functional.png", dpi=110)
say(f"\nwritten to {arguments.output}: user_functional.png")

# ## What must hold

assert check.rate > 1.9, "the derivative does not belong to the functional"
assert after["sensor"] < 0.3 * before["sensor"], "the sensor is hardly cooler"
assert result.constraints["metal"] < 1e-3, "more metal than there is"
assert result.grey_level < 0.05, "the design is not crisp"
