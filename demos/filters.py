# # Why a design needs a filter
#
# A design on a mesh can cheat in two ways. Conducting elements that touch at their corners only, as the black
# squares of a checkerboard do, share a node there: to bilinear elements they are connected, although next to
# nothing flows through a corner. The optimizer finds that, and covers the cell with checkerboards that seem
# to conduct better than any material can. And as nothing says how fine a structure may be, a finer mesh gets
# a finer structure: the answer depends on the mesh, not on the question.
#
# This demo asks for a two-dimensional cell, half of it a hundred times as conductive as the other half, that
# conducts well in every direction, on two meshes: without a filter, and with one.
#
#     python3 demos/filters.py
#     mpirun -n 2 python3 demos/filters.py

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.design.crisp import threshold, verify_voxels
from fetopo.design.functionals import mean_resistivity
from fetopo.design.initial import random_field
from fetopo.design.model import CellModel
from fetopo.design.problem import Constraint, DesignProblem, LoopOptions, Stage
from fetopo.microstructure.mesh import regular_cell, voxel_of_cells
from fetopo.plot import draw_plane
from fetopo.transport.bounds import hashin_shtrikman
from fetopo.transport.voxel import VoxelGrid

comm = MPI.COMM_WORLD
parser = argparse.ArgumentParser(
    description="Checkerboards and mesh dependence, and the filters against them."
)
parser.add_argument("--cells", type=int, default=24, help="elements along an edge of the coarse mesh")
parser.add_argument("--output", type=Path, default=Path("results") / "filters")
arguments = parser.parse_args()

KAPPA, FRACTION, RADIUS = (0.01, 1.0), 0.5, 0.12
_, BOUND = hashin_shtrikman((1 - FRACTION, FRACTION), KAPPA, 2)


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## Two measures
#
# Of the vertices of the grid, how many have a checkerboard around them? And how long is the interface between
# the materials, in edges of the cell?


def checkerboard(image):
    right, above, across = (np.roll(image, shift, (0, 1)) for shift in ((-1, 0), (0, -1), (-1, -1)))
    return float(np.mean((image == across) & (right == above) & (image != right)))


def interface(image):
    return float(sum(np.count_nonzero(image != np.roll(image, 1, axis)) for axis in (0, 1)) / len(image))


# ## One design
#
# Every run starts from the same smooth random field with a little noise, and goes the same way from grey to
# crisp. On a mesh elements are bilinear and the density is constant in each. The crisp design is then judged
# apart from the mesh that it was made on: every square is split in 64, and what the structure exactly
# conducts is enclosed between a lower and an upper bound.

STAGES = (Stage(2.0, 1.0), *(Stage(3.0, beta) for beta in (1.0, 4.0, 16.0, 64.0)))
OPTIONS = LoopOptions(stages=STAGES, stage_iterations=25, final_iterations=25)


def design(n, radius, kind="mesh", filter="helmholtz"):
    grid = VoxelGrid(comm, (n, n), 1 / n, periodic=True)
    cell = regular_cell(comm, (n, n)) if kind == "mesh" else grid
    model = CellModel(cell, radius, filter=filter)
    state = model.state(KAPPA)
    problem = DesignProblem(
        model.density,
        model.tensor_functional(state, mean_resistivity),
        [Constraint("volume", model.mean_density(), FRACTION)],
        volumes=model.volumes,
        projections=[model.projection],
        interpolations=model.interpolations,
        options=OPTIONS,
    )
    noise = np.random.default_rng(0).uniform(-0.05, 0.05, (n, n))
    field = random_field(cell, seed=1)
    largest = comm.allreduce(float(np.abs(field).max(initial=0)), op=MPI.MAX)
    if kind == "mesh":
        noise = noise[tuple(voxel_of_cells(cell)[: field.size].T)]
    else:
        noise = grid.take(noise).reshape(-1)
    result = problem.run(model.start(0.5 + 0.1 * field / largest + noise, FRACTION))
    crisp = threshold(result.rho, model.volumes, model.density.comm)
    image = model.image(crisp).astype(int)
    upper, lower, _ = verify_voxels(grid, grid.take(image).astype(float).reshape(-1), KAPPA, 8)
    exact = tuple(2 / np.trace(np.linalg.inv(D)) for D in (lower, upper))
    return {"image": image, "claimed": 1 / result.objective, "exact": exact}


# ## Without a filter and with one, on two meshes
#
# No structure of these materials conducts better in every direction than the bound of Hashin and Shtrikman.
# Without a filter the elements say otherwise.

coarse, fine = arguments.cells, 2 * arguments.cells
say(f"bound of Hashin and Shtrikman: {BOUND:.4f}\n")
say("                                       claimed  exactly            checkerboard  interface")
runs = {}
for name, n, *options in (
    ("no filter", coarse, 0.0),
    ("no filter", fine, 0.0),
    ("Helmholtz filter", coarse, RADIUS),
    ("Helmholtz filter", fine, RADIUS),
    ("on voxels, Helmholtz", fine, RADIUS, "voxels"),
    ("on voxels, cone weights", fine, RADIUS, "voxels", "convolution"),
):
    run = runs[name, n] = design(n, *options)
    run["board"], run["length"] = checkerboard(run["image"]), interface(run["image"])
    low, high = run["exact"]
    say(
        f"{name:25}  {n:3d} × {n:<3d}   {run['claimed']:.4f}   {low:.4f} to {high:.4f}   "
        f"{100 * run['board']:5.1f} %       {run['length']:.2f}"
    )

# Without the filter the interface doubles with the mesh; with it both meshes have the same structure. On
# voxels the state is solved by finite volumes, to which squares that touch at corners are not connected, and
# the filter may be the screened Poisson equation or an average with cone weights: both end at the same.

if comm.rank == 0:
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(10, 7.4), layout="constrained")
    panels = figure.subplots(2, 3).T.reshape(-1)
    order = list(runs)
    for panel, key in zip(panels, [order[0], order[2], order[1], order[3], order[4], order[5]], strict=True):
        run = runs[key]
        draw_plane(panel, run["image"], (1.0, 1.0), cmap=ListedColormap(["#f2efe6", "#1f4e79"]))
        panel.set(xlabel="", ylabel="")
        panel.set_title(f"{key[0]}, {key[1]} × {key[1]}\nclaimed {run['claimed']:.3f}, "
                        f"exactly {run['exact'][0]:.3f} to {run['exact'][1]:.3f}", fontsize=10)  # fmt: skip
        panel.set_xticks([])
        panel.set_yticks([])
    figure.suptitle(f"Conductivity of a cell, {KAPPA[0]} : {KAPPA[1]:g}, half of each (bound {BOUND:.3f})")
    figure.savefig(arguments.output / "filters.png", dpi=120)
say(f"\nwritten to {arguments.output}: filters.png")

# ## What must hold

without = [runs["no filter", n] for n in (coarse, fine)]
filtered = [run for key, run in runs.items() if key[0] != "no filter"]
meshes = [runs["Helmholtz filter", n] for n in (coarse, fine)]
for run in without:
    assert run["board"] > 0.5, "no checkerboards without a filter"
    assert run["claimed"] > 1.1 * BOUND, "the elements are not deceived"
    assert run["exact"][1] < 0.8 * BOUND, "a checkerboard conducts"
for run in filtered:
    assert run["board"] < 0.005, "checkerboards in spite of the filter"
    assert 0.95 * BOUND < run["exact"][0] <= run["exact"][1] * (1 + 1e-6), "a poor design"
    assert run["exact"][1] < BOUND, "above a bound that nothing can exceed"
    assert abs(run["claimed"] / run["exact"][1] - 1) < 0.03, "the mesh deceives"
assert without[1]["length"] > 1.7 * without[0]["length"], "the interface does not follow the mesh"
assert abs(meshes[1]["length"] / meshes[0]["length"] - 1) < 0.1, "the design depends on the mesh"
