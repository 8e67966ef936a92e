# # Lithium in one electrode particle
#
# How fast can a particle of active material be filled? Models of batteries answer for a sphere. Particles in
# an image are no spheres: this demo cuts one out, meshes it along its surface, and lets lithium diffuse in,
#
# ∂c/∂t = ∇·(D∇c),
#
# first with the surface kept full (c = 1), then with a constant current. Both are set beside two spheres: the
# one with the same volume per surface, R = 3V/S, which a model would take, since every body starts to fill
# like (2/√π) (S/V) √(Dt); and the one with the same volume, which of all bodies of that volume fills slowest
# at any time (Luttinger 1973, J. Math. Phys. 14, 586).
#
#     python3 demos/particle_diffusion.py                    a generated agglomerate
#     mpirun -n 2 python3 demos/particle_diffusion.py IMAGE  the largest particle that an image holds whole

import argparse
from pathlib import Path

import numpy as np
import ufl
from dolfinx import fem
from mpi4py import MPI
from scipy import ndimage
from scipy.interpolate import griddata

from fetopo.figure import new_figure
from fetopo.microstructure import generate
from fetopo.microstructure.image import read
from fetopo.microstructure.mesh import fitted_cell
from fetopo.transport.relaxation import fit_uptake
from fetopo.transport.series import sphere_uptake
from fetopo.transport.state import global_sum, owned
from fetopo.transport.timestep import TimeOptions
from fetopo.transport.transient import Fixed, Inflow, TransientDiffusion

comm = MPI.COMM_WORLD

parser = argparse.ArgumentParser(description="Diffusion into one particle of an electrode image.")
parser.add_argument("image", nargs="?", type=Path, help="labelled image; default: generated particles")
parser.add_argument("--phase", type=int, default=1, help="label of the particles (default 1)")
parser.add_argument("--crop", type=int, default=100, help="voxels along an edge of the centred cube taken")
parser.add_argument("--cells", type=int, default=48, help="voxels along an edge of the generated image")
parser.add_argument("--mesh-size", type=float, default=2.0, help="in voxels (default 2)")
parser.add_argument("--diffusivity", type=float, default=1e-15, help="of lithium in the solid, m²/s")
parser.add_argument("--rate", type=float, default=2.0, help="of charge: fillings per hour (default 2)")
parser.add_argument("--output", type=Path, default=Path("results") / "particle_diffusion")
arguments = parser.parse_args()


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## One particle
#
# The largest cluster that the image holds as a whole, with a rim of three voxels around it. The default is
# an agglomerate of overlapping spheres of 1.2 µm, as secondary particles of primary ones are.

if arguments.image is None:
    voxel = 12e-6 / arguments.cells
    image = generate.overlapping_spheres(
        (arguments.cells,) * 3, volume_fraction=0.14, radius=1.2e-6, voxel_size=voxel, seed=9
    )
else:
    image = read(arguments.image)
    image = image.crop(min(arguments.crop, *image.shape))

clusters, count = ndimage.label(image.mask(arguments.phase))
for axis in range(image.labels.ndim):
    for end in (0, -1):
        clusters[np.isin(clusters, np.unique(np.take(clusters, end, axis)))] = 0
sizes = np.bincount(clusters.ravel(), minlength=count + 1)
sizes[0] = 0
if not sizes.any():
    raise SystemExit("no particle of this phase lies within the image: all are cut by its faces")
(box,) = ndimage.find_objects((clusters == sizes.argmax()).astype(int))
particle = np.pad((clusters == sizes.argmax())[box], 3).astype(np.uint8)

size = image.voxel_size[0]
cell = fitted_cell(
    comm,
    particle,
    1,
    image.voxel_size,
    periodic=False,
    mesh_size=arguments.mesh_size * size,
    names=("rest", "particle"),
    only="particle",
)
one = fem.Constant(cell.mesh, 1.0)
volume = global_sum(fem.form(one * ufl.dx(cell.mesh)))
surface = global_sum(fem.form(one * ufl.ds(cell.mesh)))
radius = 3 * volume / surface
ball = (3 * volume / (4 * np.pi)) ** (1 / 3)
D = arguments.diffusivity
slow = radius**2 / D
say(f"particle {sizes.argmax()} of {count}: {particle.sum()} voxels of {size * 1e6:.3g} µm")
say(f"volume {volume * 1e18:.2f} µm³, surface {surface * 1e12:.2f} µm², R = 3V/S = {radius * 1e6:.3f} µm")
say(f"radius of the sphere of equal volume {ball * 1e6:.3f} µm")

# ## The surface kept full
#
# The uptake M(t)/M∞ beside the sphere's series. The steps follow the error; what comes in through the surface
# is what the mass grows by, step for step.

shown = [0.01 * slow, 0.05 * slow, 0.2 * slow]
snapshots = []
full = TransientDiffusion(cell, D, [Fixed(1.0)], degree=2)
at = full.V.tabulate_dof_coordinates()[: owned(full.c).size]
places = comm.gather(at)


def keep(t: float, c: fem.Function) -> None:
    values = comm.gather(owned(c).copy())
    if comm.rank == 0:
        snapshots.append((t, np.concatenate(values)))


steps = full.run(2 * slow, options=TimeOptions(rtol=1e-4), times=shown, observe=keep)
time = np.array([s.time for s in steps])
uptake = np.array([s.mass for s in steps]) / volume
sphere, slowest = (sphere_uptake(D * time / r**2) for r in (radius, ball))
leak = max(abs(s.imbalance) for s in steps) / volume
fitted = [s.time > 1e-3 * slow for s in steps]
apparent, rest = fit_uptake(time[fitted], uptake[fitted], radius, sphere_uptake)
half = [float(np.interp(0.5, curve, time)) for curve in (uptake, sphere, slowest)]
most = [float(np.interp(0.95, curve, time)) for curve in (uptake, sphere, slowest)]
say(f"\n{len(steps)} steps, {full.matrices} matrices, mass kept to {leak:.1e} of what the particle holds")
say("              particle   sphere, R = 3V/S   sphere of equal volume")
say(f"half full   {half[0]:8.1f} s         {half[1]:8.1f} s               {half[2]:8.1f} s")
say(f"95 % full   {most[0]:8.1f} s         {most[1]:8.1f} s               {most[2]:8.1f} s")
say(f"diffusivity that the sphere's series would read off this curve: {apparent / D:.3f} D (rest {rest:.1e})")

# ## A constant current
#
# The same inflow per surface everywhere, until the surface is full on average. What the particle has taken by
# then is the capacity at this rate; in the sphere the surface is ahead of the mean by jR/(5D).

j = arguments.rate / 3600 * volume / surface
charge = TransientDiffusion(cell, D, [Inflow(j)], degree=2)
mean_at_surface = fem.form(charge.c / surface * ufl.ds(cell.mesh))
curve = [(0.0, 0.0)]
charge.run(
    0.95 * 3600 / arguments.rate,
    callback=lambda step, problem: curve.append((step.mass / volume, global_sum(mean_at_surface))),
)
state, skin = np.array(curve).T
ahead = float(skin[-1] - state[-1])
ahead_sphere = j * radius / (5 * D)
say(f"\n{arguments.rate:g} fillings per hour: the surface is ahead of the mean by {ahead:.4f}")
say(f"(sphere {ahead_sphere:.4f}): capacity {1 - ahead:.3f} ({1 - ahead_sphere:.3f})")

# ## A picture

if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(12.0, 6.6)
    grid = figure.add_gridspec(2, 6)
    points = np.concatenate(places)
    middle = int(particle.sum(axis=(0, 1)).argmax())
    x, y = (size * (np.arange(n) + 0.5) for n in particle.shape[:2])
    X, Y = np.meshgrid(x, y, indexing="ij")
    plane = np.column_stack([X.ravel(), Y.ravel(), np.full(X.size, size * (middle + 0.5))])
    extent = (0, particle.shape[0] * size * 1e6, 0, particle.shape[1] * size * 1e6)
    panels = []
    for k, (t, values) in enumerate(snapshots):
        panels.append(figure.add_subplot(grid[0, 2 * k : 2 * k + 2]))
        c = griddata(points, values, plane).reshape(X.shape)
        c[particle[:, :, middle] == 0] = np.nan
        drawn = panels[k].imshow(c.T, origin="lower", extent=extent, vmin=0, vmax=1, cmap="viridis")
        panels[k].set_title(f"t = {t:.0f} s, {np.interp(t, time, uptake):.0%} full")
        panels[k].set_xlabel("x (µm)")
    panels[0].set_ylabel("y (µm)")
    figure.colorbar(drawn, ax=panels, label="concentration c (-)", shrink=0.8)
    left, right = figure.add_subplot(grid[1, :3]), figure.add_subplot(grid[1, 3:])
    # Before this the surface layer is thinner than an element.
    late = time > 2e-3 * slow
    root = np.sqrt(time[late])
    left.plot(root, uptake[late], label="particle")
    left.plot(root, sphere[late], "--", label="sphere, R = 3V/S")
    left.plot(root, slowest[late], ":", label="sphere of equal volume")
    left.set_xlabel("√t (√s)")
    left.set_ylabel("uptake M/M∞ (-)")
    left.set_title("surface kept full")
    right.plot(state, skin, label="particle, mean of the surface")
    right.plot([0, 1], [ahead_sphere, 1 + ahead_sphere], "--", label="sphere, after its start")
    right.axhline(1.0, color="grey", linewidth=0.8)
    right.set_xlabel("mean concentration (-)")
    right.set_ylabel("concentration at the surface (-)")
    right.set_title(f"{arguments.rate:g} fillings per hour")
    for axes in (left, right):
        axes.legend()
    figure.savefig(arguments.output / "particle_diffusion.png", dpi=110)
say(f"\nwritten to {arguments.output}: particle_diffusion.png")

# ## What must hold

early = (time > 1e-2 * slow) & (time < 5e-2 * slow)
assert leak < 1e-9, "mass is not conserved"
assert np.all(np.diff(uptake) > -1e-6), "the particle loses what it took"
assert np.abs(uptake / sphere - 1)[early].max() < 0.15, "the particle does not start like its sphere"
assert np.all(uptake > slowest - 1e-3), "a body fills more slowly than the sphere of its volume"
assert 0.5 < ahead / ahead_sphere < 5, "the current is not carried as in a body of this size"
assert abs(state[-1] - 0.95) < 1e-6, "what went in is not what the current brought"
