# # A battery electrode: measured, and designed better
#
# The pores of a battery electrode hold the electrolyte, and ions have to find their way through them. How
# well they do is the effective diffusivity of the pore space relative to the free electrolyte, D_eff/D₀, or,
# what says the same, the tortuosity factor τ = ε D₀/D_eff with the porosity ε.
#
# This demo takes a 3D image of an electrode, measures both, and then asks: with the same porosity, how well
# could ions move in all directions if the structure were ours to choose? It designs a periodic cell, turns
# it into a crisp structure, solves that again on a finer mesh, and compares with the bound of Hashin and
# Shtrikman, which no isotropic structure can exceed.
#
#     python3 demos/electrode.py                      the image that ships with fetopo
#     mpirun -n 2 python3 demos/electrode.py IMAGE    any labelled image, on two cores

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo import plot
from fetopo.design.cell import Goal, design_cell
from fetopo.io import shown_objective, write_design
from fetopo.microstructure.image import read
from fetopo.microstructure.mesh import regular_cell
from fetopo.progress import Progress
from fetopo.transport.tortuosity import tortuosity

comm = MPI.COMM_WORLD
here = Path(__file__).resolve().parent

parser = argparse.ArgumentParser(description="Measure an electrode image and design a better structure.")
parser.add_argument("image", nargs="?", type=Path, default=here.parent / "meshes" / "electrode_64.tif")
parser.add_argument("--pore", type=int, default=0, help="label of the pore (default 0)")
parser.add_argument("--crop", type=int, default=100, help="voxels along an edge of the centred cube measured")
parser.add_argument("--cells", type=int, default=32, help="voxels along an edge of the designed cell")
parser.add_argument("--output", type=Path, default=Path("results") / "electrode")
arguments = parser.parse_args()


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## The image
#
# Labels tell the phases apart: 0 pore, 1 active material, 2 binder in the images used here. Voxels of the
# whole image count for the porosity; a centred cube is enough to measure transport in about a minute.

image = read(arguments.image)
names = {arguments.pore: "pore"}
fractions = ", ".join(f"{names.get(k, f'solid {k}')} {v:.4f}" for k, v in image.phases.items())
say(f"{arguments.image.name}: {' × '.join(map(str, image.shape))} voxels, volume fractions: {fractions}")

sample = image.crop(min(arguments.crop, *image.shape))
pore = sample.mask(arguments.pore)
porosity = float(pore.mean())
edges = [n * h for n, h in zip(sample.shape, sample.voxel_size, strict=True)]

# ## How well ions move in it
#
# Concentrations 1 and 0 on two opposite faces, no flux through the other four, one trilinear element per
# voxel. Such elements give an upper bound of what the voxel geometry exactly has; it is close where pores
# are many voxels wide.

measured = tortuosity(comm, pore, voxel_size=sample.voxel_size)
say(f"\ncentred {' × '.join(map(str, sample.shape))} voxels: porosity {porosity:.4f}")
say("axis  D_eff/D₀   τ        Bruggeman exponent   connected pore")
for m in measured:
    exponent = float("nan") if m.bruggeman_exponent is None else m.bruggeman_exponent
    say(
        f"{m.axis:4d}  {m.relative_diffusivity:.5f}    {m.tortuosity_factor:<7.4f}  {exponent:<19.3f}  "
        f"{100 * m.percolating_fraction:.1f} %"
    )
mean = float(np.mean([m.relative_diffusivity for m in measured]))

# ## A better structure with the same porosity
#
# Free electrolyte has diffusivity 1, the solid none. The design may put pore and solid anywhere in a
# periodic cell as long as pores take no more than the porosity just measured; the goal is the largest
# diffusivity in every direction at once.

goal = Goal("isotropic")
cell = regular_cell(comm, (arguments.cells,) * 3, [min(edges)] * 3)
name, transform = shown_objective(goal)
say(f"\ndesigning a periodic cell of {arguments.cells}³ voxels, porosity {porosity:.4f}")
design = design_cell(
    cell,
    conductivity=(0.0, 1.0),
    volume_fraction=porosity,
    filter_radius=3.2 / arguments.cells * min(edges),
    goal=goal,
    callbacks=[Progress(comm, name="D_eff/D₀", transform=transform)],
)

# ## Side by side
#
# What counts is the crisp structure, solved again with every voxel split in eight and the solid left out of
# the mesh altogether.

bound = float(design.bound or 0)
bars = [("image, " + "xyz"[m.axis], m.relative_diffusivity) for m in measured] + [("design", design.verified)]
say(f"\n{'':22}  porosity  D_eff/D₀  τ       of the bound")


def row(label: str, eps: float, D: float) -> str:
    return f"{label:22}  {eps:.4f}    {D:.5f}   {eps / D:<6.3f}  {100 * D / bound:.1f} %"


for m in measured:
    say(row(f"image, axis {m.axis}", porosity, m.relative_diffusivity))
say(row("design, every axis", design.volume_fraction, design.verified))
say(row("Hashin–Shtrikman bound", porosity, bound))
say(f"\nions move {design.verified / mean:.2f} times as well as in the image")

write_design(arguments.output, design, goal, title=f"Electrode, porosity {porosity:.3f}")
if comm.rank == 0:
    assert design.labels is not None
    plot.save_comparison(
        arguments.output / "comparison.png",
        [("pores of the image", pore, edges), ("pores of the design", design.labels, cell.lengths)],
        bars,
        bound,
        quantity="effective diffusivity D_eff/D₀",
        title=f"Electrode at porosity {porosity:.3f}",
    )
say(f"written to {arguments.output}: comparison.png, density.png, flux.png, convergence.png, result.json, …")

# The solid of this design is a set of separate grains: where electrons have to pass through the solid as
# well, both transports must be asked for together.

# ## What must hold

spread = np.abs(np.diag(design.verified_tensor) / design.verified - 1).max()
assert design.verified > mean, "the design conducts worse than the image"
assert design.verified <= bound * (1 + 1e-6), "above a bound that nothing can exceed"
assert abs(design.volume_fraction - porosity) < 0.01, "another porosity than asked for"
assert spread < 0.05, "not alike along the three axes"
assert max(m.flux_imbalance for m in measured) < 1e-4, "flux in and flux out differ"
