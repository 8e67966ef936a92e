# # A battery electrode: ions and electrons at once
#
# In a battery electrode ions move through the pores and electrons through the solid. A structure that is best
# for one closes the other out: around the best conductor of electrons the pores are a set of separate holes.
# What structure serves both?
#
# This demo designs a periodic cell, half pore, half solid, whose smaller conductivity is as large as can be,
# each relative to the bound of Hashin and Shtrikman, which neither could exceed even if it were alone. The
# design is cut to a crisp structure and solved again for both, and both phases are shown to be connected.
#
# For equal volumes Schwarz' P surface is known to be good at this: on both sides of it the space is connected
# alike (Torquato, Hyun and Donev 2002, doi:10.1103/PhysRevLett.89.266601).
#
#     python3 demos/electrode_tradeoff.py
#     mpirun -n 2 python3 demos/electrode_tradeoff.py --cells 48

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo import plot
from fetopo.design.cell import Goal, design_cell
from fetopo.io import shown_objective, write_design
from fetopo.microstructure.descriptors import clusters
from fetopo.microstructure.generate import minimal_surface
from fetopo.progress import Progress
from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid

comm = MPI.COMM_WORLD

parser = argparse.ArgumentParser(description="A structure through which ions and electrons pass alike.")
parser.add_argument("--cells", type=int, default=24, help="voxels along an edge (default 24)")
parser.add_argument("--solid", type=float, default=0.5, help="volume fraction of the solid (default 0.5)")
parser.add_argument("--output", type=Path, default=Path("results") / "electrode_tradeoff")
arguments = parser.parse_args()


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## Two transports, one structure
#
# The solid conducts electrons and no ions, the electrolyte in the pores ions and no electrons: the same two
# materials, with the conductivities the other way round. The goal names both transports; each is divided by
# its bound, and the smaller of the two shares is maximized. The volume fraction is held, not only limited:
# more of one phase always helps one and harms the other.

n, solid = arguments.cells, arguments.solid
grid = VoxelGrid(comm, (n, n, n), 1 / n, periodic=True)
goal = Goal("isotropic", transports=("main", "ions"))
name, transform = shown_objective(goal)
say(f"designing a periodic cell of {n}³ voxels, solid {solid:g}, pore {1 - solid:g}")
design = design_cell(
    grid,
    conductivity=(0.0, 1.0),
    transports={"ions": (1.0, 0.0)},
    volume_fraction=solid,
    filter_radius=0.2,
    goal=goal,
    callbacks=[Progress(comm, name=name, transform=transform)],
)
electrons, ions = design.transports["main"], design.transports["ions"]

# ## For comparison: the best for one alone, and Schwarz' surface
#
# The same optimizer without the ions finds a structure near the bound, and leaves the ions nothing. The cell
# of Schwarz' P surface is solved on voxels as fine as those on which the design was verified.

single = design_cell(grid, conductivity=(0.0, 1.0), volume_fraction=solid, filter_radius=0.2, refine=1)
assert single.labels is not None
assert design.labels is not None


def both(structure: np.ndarray) -> tuple[float, float]:
    """Electrons through 1 and ions through 0, mean over the axes, by elements."""
    fine = VoxelGrid(comm, structure.shape, 1 / len(structure), periodic=True)
    found = []
    for table in ((0.0, 1.0), (1.0, 0.0)):
        problem = VoxelCellProblem(fine, scheme="elements")
        problem.assign(fine.take(structure), np.array(table))
        problem.solve()
        found.append(float(np.trace(problem.tensor)) / 3)
    return found[0], found[1]


def doubled(labels: np.ndarray) -> np.ndarray:
    return np.kron(labels, np.ones((2, 2, 2), dtype=np.uint8))


surface = minimal_surface("schwarz_p", (2 * n,) * 3, volume_fraction=solid)
rows = {
    "best for electrons": both(doubled(single.labels)),
    "Schwarz P": both(surface.mask(1).astype(np.uint8)),
    "design for both": both(doubled(design.labels)),
}
assert electrons.bound is not None
assert ions.bound is not None
say(f"\n{'':20}  electrons   ions      smaller share of its bound")
for label, (e, i) in rows.items():
    share = min(e / electrons.bound, i / ions.bound)
    say(f"{label:20}  {e:.4f}      {i:.4f}    {100 * share:.1f} %")
say(f"{'bound, each alone':20}  {electrons.bound:.4f}      {ions.bound:.4f}")

# ## Connected?

parts = {"solid": design.labels == 1, "pore": design.labels == 0}
found = {phase: clusters(mask, grid.voxel_size, periodic=True) for phase, mask in parts.items()}
say()
for phase, c in found.items():
    say(f"{phase}: {100 * c.largest_fraction:.1f} % in one piece, which goes through along all axes")

write_design(arguments.output, design, goal, title="Ions and electrons")
if comm.rank == 0:
    edges = [1.0] * 3
    plot.save_comparison(
        arguments.output / "tradeoff.png",
        [
            ("solid", np.tile(parts["solid"], (2, 2, 2)), [2.0] * 3),
            ("pore", np.tile(parts["pore"], (2, 2, 2)), [2.0] * 3),
        ],
        [
            ("best for\nelectrons", min(rows["best for electrons"])),
            ("Schwarz P", min(rows["Schwarz P"])),
            ("design\nfor both", min(rows["design for both"])),
        ],
        min(electrons.bound, ions.bound),
        quantity="smaller of the two conductivities",
        title="Ions through the pore, electrons through the solid",
    )
say(f"written to {arguments.output}: tradeoff.png, density.png, convergence.png, design.tif, result.json, …")

# ## What must hold

assert design.verified > 0.75, "the smaller share is far from the bound"
assert design.verified <= 1, "above a bound that nothing can exceed"
assert min(rows["best for electrons"]) < 0.1 * min(rows["design for both"]), "there was no trade-off"
assert abs(design.volume_fraction - solid) < 0.02, "another volume fraction than asked for"
for phase, c in found.items():
    assert c.largest_fraction > 0.95, f"the {phase} is in pieces"
    assert min(c.percolating_fraction) > 0.95, f"the {phase} does not connect the cell with its copies"
