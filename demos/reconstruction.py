# # A microstructure from its statistics
#
# Given the two-point correlation S₂ of the particles of an electrode, what does a material with that S₂ look
# like? Media that have it are found by exchanging pairs of voxels of a random image until its S₂ agrees
# (Yeong, Torquato 1998). They are not the electrode: S₂ knows nothing of what is connected. With the lineal
# paths L of both phases asked for as well, the effective conductivity, which nobody asked for, comes nearer
# on average, but not all the way: segments do not see either how the particles touch.
#
#     python3 demos/reconstruction.py
#     python3 demos/reconstruction.py ../shared/data/nmc_electrode.tif --crop 128 --phase 1 --cells 128
#
# Every rank of a parallel run finds the same images; the conductivities are computed together.

import argparse
import logging
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.figure import new_figure
from fetopo.microstructure import generate
from fetopo.microstructure.descriptors import lineal_path, mean_lineal_path, two_point_map
from fetopo.microstructure.image import Image, read
from fetopo.microstructure.mesh import voxel_cell
from fetopo.microstructure.reconstruction import Annealing, match_lineal_path, reconstruct, targets_from
from fetopo.transport.homogenization import effective_conductivity

comm = MPI.COMM_WORLD
shipped = Path(__file__).resolve().parents[1] / "meshes" / "electrode_64.tif"

parser = argparse.ArgumentParser(description="Reconstruct a section of an image from its descriptors.")
parser.add_argument("image", type=Path, nargs="?", default=shipped, help="three-dimensional image")
parser.add_argument("--phase", type=int, default=1, help="label of the phase that is described (default 1)")
parser.add_argument("--crop", type=int, help="side of the centred cube that is used, in voxels")
parser.add_argument("--cells", type=int, default=96, help="voxels along an edge of the cells (default 96)")
parser.add_argument("--seeds", type=int, default=6, help="media found per list of targets (default 6)")
parser.add_argument("--contrast", type=float, default=100.0, help="conductivity of the phase over the rest")
parser.add_argument("--tolerance", type=float, default=6e-4, help="energy at which a medium is good enough")
parser.add_argument("--output", type=Path, default=Path("results") / "reconstruction")
parser.add_argument("--verbose", action="store_true", help="show every step of the annealing")
arguments = parser.parse_args()
logging.basicConfig(
    level=logging.INFO if arguments.verbose and comm.rank == 0 else logging.WARNING, format="%(message)s"
)


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## The section
#
# The middle section of an image, not periodic. Its statistics are those of the pairs and segments inside it.
# Where the image is missing, an electrode is generated.

if arguments.image.is_file():
    volume = read(arguments.image, crop=arguments.crop)
else:
    volume = generate.electrode((64,) * 3, porosity=0.4, particle_radius=6e-6, voxel_size=1e-6, seed=1)
section = Image(volume.labels[volume.shape[0] // 2] == arguments.phase, volume.voxel_size[1:])
side, fraction = section.voxel_size, section.phases[1]
masks = {1: section.mask(1), 0: section.mask(0)}
say(f"section of {section.shape[0]} × {section.shape[1]} voxels, φ = {fraction:.4f}")

# ## Two lists of targets
#
# S₂ is compared for lags in all directions up to a quarter of the cell, L along both axes up to half of it.

s2 = targets_from(section, 1)
paths = [
    match_lineal_path({axis: lineal_path(mask, side, axis) for axis in (0, 1)}, phase=phase)
    for phase, mask in masks.items()
]
found = {
    name: [
        reconstruct(
            (arguments.cells,) * 2,
            targets,
            voxel_size=side,
            seed=seed,
            options=Annealing(tolerance=arguments.tolerance),
        )
        for seed in range(1, arguments.seeds + 1)
    ]
    for name, targets in {"S₂": s2, "S₂ and L": [*s2, *paths]}.items()
}

# ## What was asked for

wanted = {phase: mean_lineal_path(mask, side) for phase, mask in masks.items()}
reach = min(arguments.cells, *section.shape) // 2


def path_error(medium: Image) -> float:
    """Largest error of L, averaged over the axes, of both phases."""
    here = {phase: mean_lineal_path(medium.mask(phase), side, periodic=True) for phase in wanted}
    return max(float(np.abs(here[p].value[:reach] - wanted[p].value[:reach]).max()) for p in wanted)


errors = {name: np.mean([path_error(result.image) for result in results]) for name, results in found.items()}
say("\ntargets    seed   ended by    energy    sweeps   error of S₂   error of L")
for name, results in found.items():
    for seed, result in enumerate(results, start=1):
        say(
            f"{name:9} {seed:5d}   {result.ended:10}  {result.energy:.2e} {result.history[-1].sweep:6.0f}"
            f"     {result.reached[0].error:.4f}        {path_error(result.image):.4f}"
        )

# ## What was not
#
# The section is made periodic by its mirror images, so that no phase ends at a seam.


def conductivity(medium: Image) -> float:
    """Mean of the effective conductivity over directions, the rest conducting 1."""
    cell = voxel_cell(comm, medium.labels, medium.voxel_size)
    tensor = effective_conductivity(cell, {0: 1.0, 1: arguments.contrast}).tensor
    return float(np.trace(tensor)) / 2


mirrored = Image(np.pad(section.labels, [(0, n) for n in section.shape], mode="symmetric"), side)
exact = conductivity(mirrored)
reached = {
    name: np.array([conductivity(result.image) for result in results]) for name, results in found.items()
}
say(f"\neffective conductivity, the phase {arguments.contrast:g} times the rest")
say(f"section     {exact:.2f}")
for name, values in reached.items():
    say(f"{name:9}  {values.mean():.2f} (standard deviation {values.std(ddof=1):.2f})")

if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(13.0, 7.6)
    axes = figure.subplots(2, 3)
    pictures = {"section": section, **{name: results[0].image for name, results in found.items()}}
    styles = {
        "section": {"color": "black"},
        "S₂": {"color": "C1", "linestyle": "--"},
        "S₂ and L": {"color": "C0", "linestyle": "-."},
    }
    for ax, (name, picture) in zip(axes[0], pictures.items(), strict=True):
        ax.imshow(picture.labels.T, origin="lower", cmap="Blues")
        value = exact if name == "section" else reached[name][0]
        ax.set_title(f"{name}: conductivity {value:.1f}")
        ax.set_xlabel("axis 0 (voxels)")
        ax.set_ylabel("axis 1 (voxels)")
        periodic = name != "section"
        mask = picture.mask(1)
        two_point_map(mask, side, periodic).along(0).plot(axes[1, 0], label=name, **styles[name])
        mean_lineal_path(mask, side, periodic).plot(axes[1, 1], label=name, **styles[name])
        if periodic:
            history = found[name][0].history
            axes[1, 2].semilogy(
                [step.sweep for step in history],
                [step.energy for step in history],
                label=name,
                **styles[name],
            )
    axes[1, 0].set_title("S₂ along axis 0")
    axes[1, 1].set_title("lineal path, mean over the axes")
    axes[1, 1].set_yscale("log")
    axes[1, 1].set_ylim(1e-3, 1)
    axes[1, 2].axhline(arguments.tolerance, color="black", linestyle=":", linewidth=1)
    axes[1, 2].set_title("annealing")
    axes[1, 2].set_xlabel("proposals per voxel (-)")
    axes[1, 2].set_ylabel("energy, tolerance dotted (-)")
    for ax in axes[1]:
        ax.legend()
    figure.savefig(arguments.output / "reconstruction.png", dpi=110)
say(f"\nwritten to {arguments.output}: reconstruction.png")

# ## What must hold

for name, results in found.items():
    for result in results:
        assert result.converged, f"{name}: {result.ended} at an energy of {result.energy:.1e}"
        voxels = int(np.count_nonzero(result.image.labels))
        assert abs(voxels - fraction * result.image.labels.size) <= 0.5 + 1e-6, "not the volume fraction"
        assert result.reached[0].error < 0.03, f"{name}: S₂ is off by {result.reached[0].error:.3f}"
assert errors["S₂ and L"] < 0.5 * errors["S₂"], "asking for L did not bring L nearer"
mean = {name: float(values.mean()) for name, values in reached.items()}
assert mean["S₂"] > 1.3 * exact, "S₂ alone gives the conductivity of the section"
if arguments.seeds >= 6:  # one medium alone may deviate by more than the difference
    errors_of_mean = [values.std(ddof=1) / np.sqrt(values.size) for values in reached.values()]
    gain = abs(mean["S₂"] - exact) - abs(mean["S₂ and L"] - exact)
    assert gain > 2.0 * float(np.linalg.norm(errors_of_mean)), "L did not bring the conductivity nearer"
