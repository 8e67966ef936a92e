# # Isotropic cells against the Hashin–Shtrikman bound
#
# How well can a mixture of two materials conduct in every direction at once? No structure exceeds the upper
# bound of Hashin and Shtrikman, and in two dimensions cells come very close to it: rounded inclusions of the
# poorer material in a matrix of the better. Here the optimizer finds them, at several volume fractions and a
# contrast of 1 : 100. What counts is the crisp structure: the level set of the design is meshed with
# triangles that follow it, and solved again. The property of that mesh lies in a guaranteed interval.
#
#     python3 demos/isotropic_bound.py                 # 2D, three volume fractions
#     python3 demos/isotropic_bound.py --full          # 2D at 128², five fractions, and 3D at one half
#     mpirun -n 2 python3 demos/isotropic_bound.py

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.design.cell import design_cell
from fetopo.figure import new_figure
from fetopo.transport.bounds import hashin_shtrikman
from fetopo.transport.voxel import VoxelGrid

comm = MPI.COMM_WORLD

parser = argparse.ArgumentParser(description="Isotropic cells against the Hashin–Shtrikman bound.")
parser.add_argument("--cells", type=int, default=48, help="voxels along an edge in 2D (default 48)")
parser.add_argument("--full", action="store_true", help="finer, more fractions, and three dimensions")
parser.add_argument("--output", type=Path, default=Path("results") / "isotropic_bound")
arguments = parser.parse_args()

conductivity = (0.01, 1.0)


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## The designs
#
# The start is the field of one inclusion (in 3D a body-centred pair): among the local optima of this
# problem those with closed inclusions of the poorer material are the good ones. A random start in 3D ends
# with both materials connected, 6 to 12 % below the bound.

n = 128 if arguments.full else arguments.cells
cases = [(2, n, f) for f in ((0.2, 0.3, 0.5, 0.7, 0.8) if arguments.full else (0.3, 0.5, 0.7))]
if arguments.full:
    cases.append((3, 32, 0.5))
say("dim  fraction   bound    best estimate      guaranteed")
designs = []
for dim, cells, fraction in cases:
    grid = VoxelGrid(comm, (cells,) * dim, 1 / cells, periodic=True)
    design = design_cell(
        grid,
        conductivity=conductivity,
        volume_fraction=fraction,
        filter_radius=0.1 if dim == 2 else 0.2,
        refine=1,
    )
    bound, lowest = design.crisp_bound, design.verified_at_least
    assert bound is not None
    assert lowest is not None
    designs.append((dim, fraction, design, design.verified / bound, lowest / bound))
    say(
        f"{dim}    {fraction:.2f}     {bound:.5f}   "
        f"{design.verified:.5f} ({100 * design.verified / bound:.2f} %)  "
        f"{lowest:.5f} ({100 * lowest / bound:.2f} %)"
    )

# ## Pictures

if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    flat = [entry for entry in designs if entry[0] == 2]
    figure = new_figure(4.2 * len(flat), 8.6)
    grid_of_axes = figure.add_gridspec(2, len(flat), height_ratios=(1.0, 1.1))
    for column, (_, fraction, design, share, _) in enumerate(flat):
        axes = figure.add_subplot(grid_of_axes[0, column])
        axes.imshow(np.tile(design.labels.T, (2, 2)), origin="lower", cmap="Blues", vmin=-0.3, vmax=1.2)
        axes.set_axis_off()
        axes.set_title(f"volume fraction {fraction:g}: {100 * share:.2f} % of the bound\n(2 × 2 cells)")
    axes = figure.add_subplot(grid_of_axes[1, :])
    f = np.linspace(0.01, 0.99, 99)
    limits = np.array([hashin_shtrikman((1 - x, x), conductivity, 2) for x in f])
    axes.fill_between(f, limits[:, 0], limits[:, 1], color="0.92", label="between the bounds, 2D")
    axes.plot(f, limits[:, 1], "k-", linewidth=1, label="Hashin–Shtrikman, upper and lower, 2D")
    axes.plot(f, limits[:, 0], "k-", linewidth=1)
    axes.plot(
        [d.volume_fraction for _, _, d, _, _ in flat],
        [d.verified for _, _, d, _, _ in flat],
        "o",
        label="designs, crisp, on fitted meshes",
    )
    axes.set_xlabel("volume fraction of the better material")
    axes.set_ylabel("effective conductivity")
    axes.legend()
    figure.savefig(arguments.output / "isotropic_bound.png", dpi=100)
say(f"\nwritten to {arguments.output}: isotropic_bound.png")

# ## What must hold

for dim, fraction, design, share, guaranteed in designs:
    needed = 0.985 if dim == 2 else 0.95
    assert share >= needed, f"{dim}D, {fraction}: only {share:.4f} of the bound"
    assert guaranteed >= needed, f"{dim}D, {fraction}: only {guaranteed:.4f} of the bound is guaranteed"
    assert guaranteed <= 1 + 1e-9, "above a bound that nothing can exceed"
    assert design.result.grey_level < 0.01, "the design is grey"
    assert design.structure.good is not None
    assert all(design.structure.good.percolates), "the better material is not connected"
