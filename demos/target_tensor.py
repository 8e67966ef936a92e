# # A structure with a wanted conductivity tensor
#
# The target has principal conductivities 0.55 and 0.15 along axes turned by 75°, at a volume fraction of
# 0.6 and a contrast of 1 : 100: well inside of what such mixtures can be (a target outside is refused).
#
# Where a target is met, nothing tells the optimizer to prefer a crisp density to a grey one, so a limit on
# the grey level tightens with the sharpness of the projection. And what is wanted is a property of the crisp
# structure: in a few rounds the difference between its tensor, on a mesh that follows its interface, and the
# tensor of the density is measured, and the design goes on towards the corrected target.
#
#     python3 demos/target_tensor.py
#     mpirun -n 2 python3 demos/target_tensor.py --cells 96

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.design.cell import Goal, design_cell
from fetopo.design.export import write_structure
from fetopo.figure import new_figure
from fetopo.transport.voxel import VoxelGrid

comm = MPI.COMM_WORLD

parser = argparse.ArgumentParser(description="A structure with a wanted conductivity tensor.")
parser.add_argument("--cells", type=int, default=64, help="voxels along an edge (default 64)")
parser.add_argument("--output", type=Path, default=Path("results") / "target_tensor")
arguments = parser.parse_args()


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## The target

angle = np.deg2rad(75.0)
Q = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
T = Q @ np.diag([0.55, 0.15]) @ Q.T
T = 0.5 * (T + T.T)
grid = VoxelGrid(comm, (arguments.cells,) * 2, 1 / arguments.cells, periodic=True)
options = {"conductivity": (0.01, 1.0), "volume_fraction": 0.6, "filter_radius": 0.1, "refine": 1}

# Outside of what is possible: refused before anything is solved, in a sentence that says why.

refusal = ""
try:
    design_cell(grid, goal=Goal("target", target=((0.6, 0.0), (0.0, 0.5))), **options)
except ValueError as error:
    refusal = str(error)
say(f"diag(0.6, 0.5) is refused: {refusal}")

# ## The design

design = design_cell(grid, goal=Goal("target", target=tuple(map(tuple, T.tolist()))), **options)
structure, result = design.structure, design.result
with np.printoptions(precision=5, suppress=True):
    say(f"\ntarget\n{T}\ncrisp structure, best estimate\n{structure.tensor}")
    say(f"guaranteed between\n{structure.lower_bound}\nand\n{structure.upper_bound}")
say(f"\n{100 * design.verified:.2f} % from the target, grey level {100 * result.grey_level:.2f} %")
say(f"the tensor of the density differs from that of the structure by {100 * design.projection_gap:.1f} %")
for name, shape in (("poor", structure.poor), ("good", structure.good)):
    assert shape is not None
    say(
        f"{name}: {shape.parts} part(s), percolates {shape.percolates}, features {shape.smallest_feature:.3f}"
    )

# ## Files and a picture

if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
comm.barrier()
write_structure(arguments.output, structure)
if comm.rank == 0:
    figure = new_figure(12.0, 5.4)
    left, right = figure.subplots(1, 2)
    left.imshow(np.tile(design.labels.T, (2, 2)), origin="lower", cmap="Blues", vmin=-0.3, vmax=1.2)
    left.set_axis_off()
    left.set_title(f"2 × 2 cells, {100 * design.verified:.2f} % from the target")
    # Conductivity along a direction, n·Dn, as a curve around the origin.
    t = np.linspace(0, 2 * np.pi, 361)
    directions = np.stack([np.cos(t), np.sin(t)])
    for tensor, style, label in (
        (T, "k-", "target"),
        (structure.tensor, "C0--", "crisp structure"),
        (design.tensor, "C1:", "density"),
    ):
        along = np.einsum("it,ij,jt->t", directions, tensor, directions)
        right.plot(*(along * directions), style, label=label)
    right.set_aspect("equal")
    right.set_title("conductivity along each direction")
    right.legend()
    figure.savefig(arguments.output / "target_tensor.png", dpi=100)
say(f"\nwritten to {arguments.output}: target_tensor.png, structure.msh, structure.xdmf")

# ## What must hold

assert "no structure of volume fraction 0.6" in refusal, "an impossible target was not refused"
assert design.verified < 0.01, f"{100 * design.verified:.2f} % from the target"
assert result.grey_level < 0.01, "the design is grey"
assert structure.lower_bound is not None
assert np.linalg.eigvalsh(structure.upper_bound - structure.lower_bound).min() > 0, "no interval"
