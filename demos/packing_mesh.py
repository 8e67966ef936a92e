# # Balls in a box: meshes that follow the interfaces
#
# A generated packing becomes a mesh of tetrahedra whose facets lie along the balls, whose opposite sides
# match facet by facet, and whose phases have their exact volumes. First a case with a published answer: balls
# on a simple cubic lattice that do not conduct. Then a random packing, with balls cut by the faces, edges and
# corners of the box.
#
#     python3 demos/packing_mesh.py
#     mpirun -n 2 python3 demos/packing_mesh.py --size 0.15

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI
from scipy.interpolate import PchipInterpolator

from fetopo.figure import new_figure
from fetopo.microstructure import generate
from fetopo.microstructure.geometry import inclusion_cell
from fetopo.microstructure.mesh import write_mesh, write_surface, write_xdmf
from fetopo.microstructure.mesh.files import gather
from fetopo.transport.bounds import hashin_shtrikman
from fetopo.transport.homogenization import effective_conductivity

comm = MPI.COMM_WORLD

parser = argparse.ArgumentParser(description="Packings of balls meshed along their interfaces.")
parser.add_argument("--size", type=float, default=0.1, help="edge length of the cells (box: 1)")
parser.add_argument("--contrast", type=float, default=100.0, help="conductivity of the balls of the packing")
parser.add_argument("--output", type=Path, default=Path("results") / "packing_mesh")
arguments = parser.parse_args()


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## A cubic array of insulating balls
#
# Rayleigh's multipole method gives the conductivity of such an array to as many digits as one likes (Rayleigh
# 1892; McPhedran and McKenzie 1978, doi:10.1098/rspa.1978.0031). Straight cells with linear elements are
# compared with curved ones with quadratic elements.

REFERENCE = {0.1: 0.8571119, 0.2: 0.7267030, 0.3: 0.6056612, 0.4: 0.4901099}  # matrix 1, balls 0

say("φ     multipoles straight, linear   curved, quadratic")
errors = []
for phi, exact in REFERENCE.items():
    packing = generate.regular_array("sc", volume_fraction=phi, cell_length=1.0)
    found = []
    for order in (1, 2):
        cell = inclusion_cell(comm, packing, mesh_size=arguments.size, phases="ball", order=order)
        result = effective_conductivity(cell, {"matrix": 1.0, "ball": 0.0}, degree=order)
        found.append(float(np.trace(result.tensor)) / 3)
    errors.append([value / exact - 1 for value in found])
    say(f"{phi:.1f}   {exact:.5f}    {found[0]:.5f}            {found[1]:.5f}")

# ## A random packing

radius = (0.4 / 30 / (4 / 3 * np.pi)) ** (1 / 3)
packing = generate.dense_packing((1.0, 1.0, 1.0), volume_fraction=0.4, radius=radius, seed=2)
cell = inclusion_cell(comm, packing, mesh_size=arguments.size, phases="ball")
tensor = effective_conductivity(cell, {"matrix": 1.0, "ball": arguments.contrast}).tensor
low, high = hashin_shtrikman([0.6, 0.4], [1.0, arguments.contrast], 3)
mean = float(np.trace(tensor)) / 3
say(f"\n{len(packing.radii)} balls at 40 %, {arguments.contrast:g} times as conductive as the matrix:")
say(f"{low:.4f} (Hashin–Shtrikman) < {mean:.4f} < {high:.4f}")
say(f"the box starts at {cell.lower.round(3).tolist()}")

mesh = gather(cell)
if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
comm.Barrier()
write_mesh(arguments.output / "packing.msh", cell)
write_xdmf(arguments.output / "packing.xdmf", cell)
write_surface(arguments.output / "balls.stl", cell, "ball", scale=10.0)  # a cube of one centimetre

# ## The mesh, cut open
#
# The cells whose middle lies below the cut, seen from above: balls in orange, the matrix in blue.

share = np.nan
if comm.rank == 0:
    assert mesh is not None
    points, cells, tags = mesh
    corners = points[cells]
    volumes = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])) / 6
    share = volumes[tags == cell.tag("ball")].sum() / volumes.sum()
    say(f"volume of the balls in the mesh: {share:.8f}")

    figure = new_figure(13.0, 6.2)
    left = figure.add_subplot(1, 2, 1, projection="3d")
    middle = corners.mean(axis=1)
    faces = np.concatenate([cells[:, some] for some in ([1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2])])
    owner = np.tile(np.arange(len(cells)), 4)
    shown = (tags[owner] == cell.tag("ball")) | (middle[owner, 2] < cell.lower[2] + 0.35)
    faces, owner = faces[shown], owner[shown]
    _, group, times = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True, return_counts=True)
    outer = times[group.reshape(-1)] == 1
    triangles, kinds = points[faces[outer]], tags[owner[outer]]
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    inward = middle[owner[outer]] - triangles.mean(axis=1)
    normal *= -np.sign(np.einsum("ij,ij->i", normal, inward))[:, None]
    light = 0.55 + 0.45 * np.clip(normal @ (np.array([0.4, -0.6, 0.7]) / 1.005), 0, 1)
    colour = np.where(kinds[:, None] == cell.tag("ball"), [0.95, 0.55, 0.2], [0.45, 0.65, 0.9])
    left.add_collection3d(
        Poly3DCollection(triangles, facecolors=colour * light[:, None], edgecolors="k", linewidths=0.08)
    )
    for axis, (a, b) in zip("xyz", zip(cell.lower, cell.upper, strict=True), strict=True):
        getattr(left, f"set_{axis}lim")(a, b)
        getattr(left, f"set_{axis}label")(axis)
    left.set_box_aspect((1, 1, 1))
    left.view_init(28, -62)
    left.set_title(f"{len(packing.radii)} balls at 40 %, {len(cells):,} tetrahedra")
    right = figure.add_subplot(1, 2, 2)
    phi, exact = np.array([0.0, *REFERENCE]), np.array([1.0, *REFERENCE.values()])
    fine = np.linspace(0, 0.4)
    right.plot(fine, PchipInterpolator(phi, exact)(fine), "k-", label="Rayleigh's multipoles")
    for k, (name, marker) in enumerate((("straight, linear", "s"), ("curved, quadratic", "o"))):
        right.plot(phi[1:], exact[1:] * (1 + np.array(errors)[:, k]), marker, fillstyle="none", label=name)
    right.set_xlabel("volume fraction of the balls (-)")
    right.set_ylabel("effective conductivity, matrix = 1 (-)")
    right.set_title("insulating balls on a cubic lattice")
    right.legend()
    figure.savefig(arguments.output / "packing_mesh.png", dpi=110)
say(f"\nwritten to {arguments.output}: packing_mesh.png, packing.msh, packing.xdmf, balls.stl")

# ## What must hold

share = comm.bcast(share)
assert abs(share / 0.4 - 1) < 1e-6, "the balls have another volume in the mesh"
assert low < mean < high, "the packing is outside of the bounds"
for linear, quadratic in errors:
    assert -1e-3 < linear < 0.4 * arguments.size, "linear elements are off (they bound from above)"
    assert abs(quadratic) < 5e-4 * (arguments.size / 0.1) ** 3, (
        "quadratic elements do not meet the multipole method"
    )
