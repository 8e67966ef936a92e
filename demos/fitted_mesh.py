# # A mesh that follows the structure, not the voxels
#
# Images and designs come as voxels, and a mesh of the voxels is made at once. But its surface is a
# staircase: however fine the voxels are, its area is too large by half on average, every step has a corner
# where the field is singular, and stairs touch where the material does not.
#
# `fitted_cell` makes triangles or tetrahedra that follow the smooth surface behind the voxels, keep the
# volume of the phase, and match on opposite faces, so that the periodic homogenization runs on them. This
# demo shows how much better the answer is where it is known, and a mesh in three dimensions.
#
#     python3 demos/fitted_mesh.py
#     mpirun -n 2 python3 demos/fitted_mesh.py --cells 48

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.figure import new_figure
from fetopo.microstructure import generate
from fetopo.microstructure.mesh import fitted_cell, quality, voxel_cell
from fetopo.plot import render_cells
from fetopo.transport.homogenization import effective_conductivity

comm = MPI.COMM_WORLD

parser = argparse.ArgumentParser(description="Body-fitted meshes from voxels, beside meshes of the voxels.")
parser.add_argument("--cells", type=int, default=40, help="voxels along an edge in 3D (default 40)")
parser.add_argument("--output", type=Path, default=Path("results") / "fitted_mesh")
arguments = parser.parse_args()


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## Where the answer is known
#
# Insulating discs in a square array that fill half of the plane: 0.3246545 (Perrins, McKenzie and McPhedran
# 1979). The same voxels are meshed as they are, and fitted; and the disc as a density that falls off linearly
# across its edge, as a filtered design has it, is fitted too.

exact = 0.3246545
radius = np.sqrt(0.5 / np.pi)
sizes = (16, 32, 64, 128)
errors: dict[str, list[float]] = {"voxels": [], "fitted to voxels": [], "fitted to a density": []}
for n in sizes:
    x = (np.arange(n) + 0.5) / n - 0.5
    r = np.hypot(x[:, None], x)
    labels = (r < radius).astype(int)
    density = np.clip(0.5 + 2 * (radius - r), 0, 1)
    cells = {
        "voxels": voxel_cell(comm, labels, 1 / n, phases=[0]),
        "fitted to voxels": fitted_cell(comm, labels, 1, 1 / n, volume_fraction=0.5, only="matrix"),
        "fitted to a density": fitted_cell(comm, density, None, 1 / n, volume_fraction=0.5, only="matrix"),
    }
    for name, cell in cells.items():
        tag = cell.tags()[0]
        D = effective_conductivity(cell, {tag: 1.0}).tensor
        errors[name].append(abs(float(np.trace(D)) / 2 / exact - 1))
say("relative error of the conductivity      " + "  ".join(f"{n:>4}²   " for n in sizes))
for name, values in errors.items():
    say(f"{name:38}  " + "  ".join(f"{value:.2e}" for value in values))

# ## In three dimensions
#
# A gyroid, 40 % of the volume, a hundred times the better conductor.

image = generate.minimal_surface("gyroid", (arguments.cells,) * 3, volume_fraction=0.4, voxel_size=1e-6)
names = ("matrix", "gyroid")
cell = fitted_cell(comm, image, 1, names=names)
measured, report = quality(cell), cell.report
D = effective_conductivity(cell, {"matrix": 1.0, "gyroid": 100.0}).tensor
stairs = effective_conductivity(voxel_cell(comm, image.labels, image.voxel_size), {0: 1.0, 1: 100.0}).tensor
conductivity = {"fitted": float(np.trace(D)) / 3, "voxels": float(np.trace(stairs)) / 3}
say(
    f"\n{measured.cells} tetrahedra, angles from {measured.smallest_angle:.1f}° "
    f"to {measured.largest_angle:.1f}°"
)
say(f"volume fraction {measured.volume_fractions['gyroid']:.6f}, wanted {report.volume_fraction:.6f}")
say(f"Euler characteristic of the surface {report.euler_characteristic} (genus 5: −8)")
say(f"conductivity {conductivity['fitted']:.3f} fitted, {conductivity['voxels']:.3f} on the voxels")

if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(13.0, 5.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
    whole = fitted_cell(MPI.COMM_SELF, image, 1, names=names)
    middle = 0.5 * whole.lengths
    picture = render_cells(
        whole,
        {"gyroid": "#c98b3c", "matrix": "#dfe6ee"},
        {"matrix": lambda x: x[2] > middle[2]},
    )
    left.imshow(picture)
    left.set_axis_off()
    left.set_title(
        f"gyroid of {arguments.cells}³ voxels: {measured.cells} tetrahedra, "
        f"angles from {measured.smallest_angle:.0f}°"
    )
    for (name, values), marker in zip(errors.items(), "so^", strict=True):
        right.loglog(sizes, values, marker=marker, label=name)
    right.loglog(
        sizes, [errors["fitted to a density"][0] * (sizes[0] / n) ** 2 for n in sizes], "k:", label="order 2"
    )
    right.set_xticks(sizes, [f"{n}" for n in sizes])
    right.minorticks_off()
    right.set_xlabel("voxels along an edge")
    right.set_ylabel("relative error of the conductivity")
    right.set_title("insulating discs, half of the plane")
    right.legend()
    figure.savefig(arguments.output / "fitted_mesh.png", dpi=110)
say(f"\nwritten to {arguments.output}: fitted_mesh.png")

# ## What must hold

order = np.log2(np.array(errors["fitted to a density"][:-1]) / errors["fitted to a density"][1:])
assert (order > 1.5).all(), f"orders {order}: the conductivity does not converge as it should"
assert errors["fitted to voxels"][-1] < 0.5 * errors["voxels"][-1], "the fitted mesh is no better than voxels"
assert measured.smallest_angle > 12, f"there is an angle of {measured.smallest_angle:.1f}°"
assert abs(measured.volume_error) < 1e-12, "the tetrahedra do not fill the cell"
assert report.error < 0.005, "the volume fraction is not kept"
assert report.euler_characteristic == -8, "the surface is not that of a gyroid"
assert abs(conductivity["fitted"] / conductivity["voxels"] - 1) < 0.1, "fitted and voxel mesh are far apart"
