# # An inverse problem that is ill-posed: existence, uniqueness, stability
#
# A problem is well-posed, said Hadamard, if a solution exists, if it is unique, and if it changes little
# where the data do. Which structure has a wanted conductivity tensor is a problem that fails in all three:
# some tensors no structure has, others many have, and which of these one finds depends on the start and on
# the last digits of what was asked for. The first is told by bounds before anything is solved. The other two
# are cured by saying what one wants beside the tensor: here, a structure near one that is known.
#
#     python3 demos/ill_posed.py
#     mpirun -n 2 python3 demos/ill_posed.py --levels 5 --recipes none,tikhonov

import argparse
import logging
from pathlib import Path

import numpy as np
from mpi4py import MPI
from scipy import ndimage

from fetopo._groups import Groups
from fetopo.design.initial import from_field, inclusion_field, random_field
from fetopo.design.regularization import Regularization
from fetopo.design.stability import Recipe, StudyOptions, stability_study
from fetopo.design.weight_path import WeightPath
from fetopo.figure import new_figure
from fetopo.microstructure.descriptors import families
from fetopo.transport.bounds import exists, trace_bounds, wiener
from fetopo.transport.voxel import VoxelGrid

comm = MPI.COMM_WORLD
NAMES = ("none", "same-start", "filter", "total-variation", "tikhonov")

parser = argparse.ArgumentParser(description="Existence, uniqueness and stability of inverse designs.")
parser.add_argument("--cells", type=int, default=32, help="voxels along an edge (default 32)")
parser.add_argument("--starts", type=int, default=6, help="random starts for the same target (default 6)")
parser.add_argument("--levels", default="1,2,5", help="noise on the target, per cent (default 1,2,5)")
parser.add_argument("--realizations", type=int, default=4, help="noisy targets at each level (default 4)")
parser.add_argument("--recipes", default=",".join(NAMES), help=f"which of {', '.join(NAMES)} (default all)")
parser.add_argument("--output", type=Path, default=Path("results") / "ill_posed")
arguments = parser.parse_args()
logging.basicConfig(level=logging.INFO if comm.rank == 0 else logging.ERROR, format="%(message)s")
logging.getLogger("fetopo.design.target").setLevel(logging.WARNING)


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## Existence
#
# Two materials of conductivities 0.1 and 1, half of the volume each. Every effective tensor of such mixtures
# has eigenvalues in a lens between the bounds of Wiener and of Tartar, Lurie and Cherkaev. A target outside
# is refused, with the nearest that exists.

K, f = (0.1, 1.0), 0.5
outside = np.array([[0.50, 0.0], [0.0, 0.40]])
answer = exists(outside, (1 - f, f), K)
nearest = answer.nearest
assert nearest is not None
say(f"existence: diag(0.5, 0.4) is refused: {answer.reason}")
say(f"the nearest that exists is diag({nearest[0, 0]:.4f}, {nearest[1, 1]:.4f})")

# ## Uniqueness
#
# One target inside, several random starts. Structures that are the same up to translation, reflection and
# rotation make one family. Each structure is cut to voxels and solved again.

T = np.array([[0.36, 0.03], [0.03, 0.28]])
n = arguments.cells
materials = {"conductivity": K, "volume_fraction": f}


def path_on(own: MPI.Intracomm, target: np.ndarray, seed: int | None) -> WeightPath:
    """Design without regularization, from a random start or from an inclusion."""
    grid = VoxelGrid(own, (n, n), 1 / n, periodic=True)
    field = inclusion_field(grid) if seed is None else random_field(grid, seed=seed, waves=3)
    start = from_field(field, np.full(field.size, 1 / n**2), f, own)
    return WeightPath(grid, target=target, filter_radius=2 / n, terms=(), start=start, **materials)


designs = Groups(comm).run(
    range(100, 100 + arguments.starts),
    lambda own, number, seed: path_on(own, T, seed).at(0.0),
    name="start",
    describe=lambda design: f"{100 * design.misfit:.2f} % from the target",
)
good = sorted((d for d in designs if d.misfit < 0.02), key=lambda d: d.misfit)
found = families([d.labels == 1 for d in good], tensor=T)
say(
    f"\nuniqueness: {len(good)} of {len(designs)} starts within 2 % of the target, "
    f"{len(found)} different structures"
)

# ## Stability
#
# The target with noise of a few per cent. What is known beside it: a structure that was made for another
# target, blurred a little to make the prior of a Tikhonov term. Its own tensor is too far away to pass for an
# answer at any of these levels. The weight is the largest whose misfit the noise explains (discrepancy
# principle, τ = 1.1), and it is chosen anew for each noisy target.

known = path_on(comm, np.array([[0.31, 0.0], [0.0, 0.34]]), None).at(0.0)
apart = float(np.linalg.norm(known.tensor - T) / np.linalg.norm(T))
say(f"\nstability: the structure that is known is {100 * apart:.1f} % from the target")
prior = ndimage.gaussian_filter(known.labels.astype(float), 1.5, mode="wrap")
recipes = {
    "none": Recipe("none", 2 / n),
    "same-start": Recipe("none, same start", 2 / n, start="same"),
    "filter": Recipe("filter, 1.5 × the radius", 3 / n),
    "total-variation": Recipe("total variation", 2 / n, (Regularization("total-variation", 0.1),)),
    "tikhonov": Recipe("Tikhonov", 2 / n, (Regularization("tikhonov", 1.0, prior, "field"),)),
}
levels = tuple(float(level) / 100 for level in arguments.levels.split(","))
study = stability_study(
    comm,
    (n, n),
    T,
    [recipes[name] for name in arguments.recipes.split(",")],
    options=StudyOptions(levels=levels, realizations=arguments.realizations),
    **materials,
)
say(f"\n{study.table()}")

# ## One figure

if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(12.0, 9.0)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    left, right = top.subfigures(1, 2, width_ratios=(1, 1.25))
    axes = left.subplots()
    fractions = (1 - f, f)
    low, high = wiener(fractions, K)
    a, b = np.meshgrid(*[np.linspace(low, high, 401)[1:-1]] * 2)
    limits = trace_bounds(fractions, K, 2)
    inside = (1 / (a - K[0]) + 1 / (b - K[0]) <= limits[0]) & (1 / (K[1] - a) + 1 / (K[1] - b) <= limits[1])
    axes.contourf(a, b, inside.astype(float), levels=[0.5, 1.5], colors=["#c8d9ea"])
    axes.plot(*np.diag(outside), "rx", label="refused")
    axes.plot(*np.diag(nearest), "ro", mfc="none", label="nearest that exists")
    axes.plot(*np.linalg.eigvalsh(T)[::-1], "k*", label="target below")
    axes.set(xlabel="first eigenvalue of the tensor (–)", ylabel="second eigenvalue (–)", xlim=(low, 0.58))
    axes.set_ylim(low, 0.58)
    axes.set_aspect("equal")
    axes.legend(loc="upper right", fontsize=8)
    left.suptitle("Existence: tensors that some structure has")

    def picture(axes, labels, title):
        axes.imshow(np.tile(labels.T, (2, 2)), origin="lower", cmap="Blues", vmin=-0.3, vmax=1.2)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(title, fontsize=9)

    shown = [good[family[0]] for family in found][:6]
    grid_of_axes = np.atleast_1d(right.subplots(2, 3)).ravel()
    for axes in grid_of_axes[len(shown) :]:
        axes.set_visible(False)
    for axes, design in zip(grid_of_axes, shown, strict=False):
        picture(axes, design.labels, f"{100 * design.misfit:.2f} % off")
    right.suptitle("Uniqueness: one target, different structures (2 × 2 cells)")

    left, right = bottom.subfigures(1, 2, width_ratios=(1, 1.25))
    axes = left.subplots()
    for recipe in study.recipes:
        rows = sorted((r for r in study.rows() if r["recipe"] == recipe), key=lambda r: r["noise"])
        x = [100 * r["noise"] for r in rows]
        middle = np.array([r["distance"] for r in rows])
        reach = np.array([[r["distance_min"], r["distance_max"]] for r in rows]).T
        axes.errorbar(x, middle, np.abs(reach - middle), fmt="o-", capsize=3, label=recipe)
    axes.set(xlabel="noise on the target (%)", ylabel="distance between structures (1: unrelated)")
    # Room for the legend above all bars.
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])
    axes.legend(loc="upper center", ncols=2, fontsize=8)
    left.suptitle("Stability: noise in, structure out")
    first, last = study.recipes[0], study.recipes[-1]
    columns = min(arguments.realizations, 4)
    cells = right.subplots(2, columns)
    for row, recipe in zip(cells, (first, last), strict=True):
        for axes, run in zip(row, study.of(recipe, levels[-1]), strict=False):
            picture(axes, run.design.labels, f"{100 * run.design.misfit:.2f} % off")
        row[0].set_ylabel(recipe)
    right.suptitle(
        f"Four targets with {100 * levels[-1]:g} % of noise each" if columns == 4 else "Noisy targets"
    )
    figure.savefig(arguments.output / "ill_posed.png", dpi=110)
say(f"\nwritten to {arguments.output}: ill_posed.png")

# ## What must hold

assert not answer.ok
assert exists(nearest, (1 - f, f), K).ok, "the nearest does not exist itself"
assert len(found) >= 2, "all starts ended in the same structure"
assert apart > 1.1 * max(levels), "the structure that is known would pass for an answer"
if {"none", "tikhonov"} <= set(arguments.recipes.split(",")):
    for level in levels:
        free, tied = (float(study.distances(name, level).mean()) for name in ("none", "Tikhonov"))
        assert tied < free / 3, f"noise {level:g}: distance {tied:.3f} with a prior, {free:.3f} without"
