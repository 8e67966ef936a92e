# # The same S₂, another material
#
# The two-point correlation S₂(r) is the first statistic one asks of a microstructure. It does not determine
# it. At volume fraction ½ the negative of an image has the same S₂, lag by lag, because
# P(x and x + h not in the phase) = 1 − 2φ + S₂(h) = S₂(h). Yet discs that overlap at random and the voids
# between them are different materials: the voids are what is left, long and cornered; the discs are round.
#
# This demo shows what tells them apart: the lineal path L(r), the cluster function C₂(r), and what matters in
# the end, the effective conductivity when one or the other conducts a hundred times better.
#
#     python3 demos/same_s2.py
#     mpirun -n 2 python3 demos/same_s2.py --cells 192

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.figure import new_figure
from fetopo.microstructure import generate
from fetopo.microstructure.descriptors import mean_lineal_path, two_point_cluster, two_point_map
from fetopo.microstructure.mesh import voxel_cell
from fetopo.transport.homogenization import effective_conductivity

comm = MPI.COMM_WORLD

parser = argparse.ArgumentParser(description="An image and its negative: the same S₂, different materials.")
parser.add_argument("--cells", type=int, default=128, help="voxels along an edge (default 128)")
parser.add_argument("--contrast", type=float, default=100.0, help="conductivity of the good phase")
parser.add_argument("--output", type=Path, default=Path("results") / "same_s2")
arguments = parser.parse_args()


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## An image and its negative
#
# Overlapping discs of six voxels radius (one micrometre a voxel) in a periodic cell, half of the area.

image = generate.overlapping_spheres(
    (arguments.cells,) * 2, volume_fraction=0.5, radius=6e-6, voxel_size=1e-6, seed=3
)
phases = {"discs": image.mask(1), "voids": image.mask(0)}

# ## What cannot tell them apart, and what can

maps = {name: two_point_map(mask, 1e-6, periodic=True) for name, mask in phases.items()}
paths = {name: mean_lineal_path(mask, 1e-6, periodic=True) for name, mask in phases.items()}
clusters = {name: two_point_cluster(mask, 1e-6, periodic=True) for name, mask in phases.items()}
difference = float(np.abs(maps["discs"].value - maps["voids"].value).max())
say(f"largest difference of the two S₂ over all {maps['discs'].value.size} lags: {difference:.1e}")

# ## The effective conductivity

cell = voxel_cell(comm, image.labels, image.voxel_size)
good = arguments.contrast
conductivity = {
    "discs": effective_conductivity(cell, {0: 1.0, 1: good}).tensor,
    "voids": effective_conductivity(cell, {0: good, 1: 1.0}).tensor,
}
mean = {name: float(np.trace(tensor)) / 2 for name, tensor in conductivity.items()}
at = 12  # voxels: one diameter of the discs
say(f"\nphase    φ        L({at} µm)   C₂({at} µm)   S₂({at} µm)   effective conductivity")
for name, mask in phases.items():
    line = clusters[name].value[at] + clusters[name].blocked[at]
    say(
        f"{name:7}  {mask.mean():.4f}   {paths[name].value[at]:.5f}    {clusters[name].value[at]:.5f}     "
        f"{line:.5f}     {mean[name]:.4f}"
    )

# In two dimensions the two are bound to each other: exchanging the phases and turning by a right angle maps
# fields to currents, so that D(discs) R D(voids) Rᵀ = κ₁κ₂ I (Keller).

turn = np.array([[0.0, -1.0], [1.0, 0.0]])
keller = conductivity["discs"] @ turn @ conductivity["voids"] @ turn.T / good

if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(12.0, 7.4)
    axes = figure.subplots(2, 3)
    for k, (name, mask) in enumerate(phases.items()):
        axes[0, k].imshow(mask.T, origin="lower", cmap="Blues", extent=(0, mask.shape[0], 0, mask.shape[1]))
        axes[0, k].set_title(f"{name}: φ = {mask.mean():.3f}")
        axes[0, k].set_xlabel("x (µm)")
        axes[0, k].set_ylabel("y (µm)")
    for name, style in (("discs", "-"), ("voids", "--")):
        maps[name].along(0).plot(axes[0, 2], label=name, linestyle=style)
        paths[name].plot(axes[1, 0], label=name, linestyle=style)
        clusters[name].plot(axes[1, 1], label=name, linestyle=style)
    for a in (axes[0, 2], axes[1, 0], axes[1, 1]):
        a.legend()
    axes[0, 2].set_title("the same S₂")
    axes[1, 0].set_title("another lineal path")
    axes[1, 1].set_title("other clusters")
    drawn = axes[1, 2].bar(list(mean), list(mean.values()), color=["#1f77b4", "#ff7f0e"])
    axes[1, 2].bar_label(drawn, fmt="%.2f")
    axes[1, 2].set_ylabel("effective conductivity, the other phase = 1 (-)")
    axes[1, 2].set_title(f"another conductivity, contrast {good:g}")
    figure.savefig(arguments.output / "same_s2.png", dpi=110)
say(f"\nwritten to {arguments.output}: same_s2.png")

# ## What must hold

assert difference < 1e-13, "S₂ of an image and its negative differ"
assert paths["voids"].value[at] > 1.1 * paths["discs"].value[at], "the lineal paths are alike"
assert abs(clusters["voids"].value[at] - clusters["discs"].value[at]) > 0.02, "the clusters are alike"
assert max(mean.values()) > 1.3 * min(mean.values()), "the conductivities are alike"
if good <= 100.0:
    # Elements bound both tensors from above: the product lies above the identity, by their error.
    assert 0.99 < np.trace(keller) / 2 < 1.6, (
        "Keller's theorem does not hold within the error of the elements"
    )
