# # Bruggeman's exponent of a porous electrode
#
# Battery models know a porous electrode by one formula, D_eff/D₀ = ε^α, and by one number in it, α = 1.5.
# That number belongs to spheres of all sizes, each much smaller than the next. What do spheres of one size
# have, packed as particles are, or thrown at random so that they overlap?
#
# This demo solves diffusion through the pores of a series of structures, fits α with its confidence interval,
# and puts the tortuosity factor that the formula has, ε^(1−α), beside the one that was computed.
#
#     python3 demos/bruggeman.py
#     mpirun -n 2 python3 demos/bruggeman.py --cells 48

import argparse
import json
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.figure import new_figure
from fetopo.microstructure import generate
from fetopo.transport.bruggeman import CLASSIC, fit_bruggeman
from fetopo.transport.tortuosity import tortuosity

comm = MPI.COMM_WORLD

parser = argparse.ArgumentParser(description="The exponent α in D_eff/D₀ = ε^α of two kinds of structures.")
parser.add_argument("--cells", type=int, default=40, help="voxels along an edge (default 40)")
parser.add_argument("--output", type=Path, default=Path("results") / "bruggeman")
arguments = parser.parse_args()


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


# ## Structures
#
# Spheres of five voxels radius in a cube, hard ones pushed apart until none overlap and ones that overlap at
# random, each at several porosities. The pore is what the spheres leave.

shape, radius = (arguments.cells,) * 3, 5e-6
lengths = (arguments.cells * 1e-6,) * 3
kinds = {
    "packed": lambda ε, seed: generate.dense_packing(
        lengths, volume_fraction=1 - ε, radius=radius, seed=seed
    ).to_image(shape),
    "overlapping": lambda ε, seed: generate.overlapping_spheres(
        shape, volume_fraction=1 - ε, radius=radius, seed=seed
    ),
}
porosities = {"packed": (0.5, 0.6, 0.7, 0.8), "overlapping": (0.3, 0.4, 0.5, 0.65, 0.8)}

# ## Diffusion through the pores
#
# Along every axis of every structure: the mean over the axes is one observation.

results = {}
for kind, make in kinds.items():
    ε, D = [], []
    for number, porosity in enumerate(porosities[kind]):
        found = tortuosity(comm, make(porosity, number).mask(0), method="elements")
        ε.append(found[0].porosity)
        D.append(float(np.mean([r.relative_diffusivity for r in found])))
    results[kind] = fit_bruggeman(ε, D)

# ## The exponent

for kind, fit in results.items():
    low, high = fit.interval
    say(f"\n{kind} spheres: α = {fit.exponent:.3f}, 95 % interval {low:.3f} to {high:.3f}; classic {CLASSIC}")
    say("    porosity   D_eff/D₀   τ computed   τ = ε^(1−α)   τ = ε^(−1/2)")
    for ε, D, τ in zip(fit.porosity, fit.conductivity, fit.tortuosity, strict=True):
        fitted, classic = fit.predict_tortuosity(ε), ε ** (1 - CLASSIC)
        say(f"    {ε:.4f}     {D:.5f}    {τ:.4f}       {fitted:.4f}        {classic:.4f}")
say("\none element per voxel: D_eff is an upper bound, and α a little low")

if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(11.0, 4.6)
    for ax, (kind, fit) in zip(figure.subplots(1, 2), results.items(), strict=True):
        fit.plot(ax)
        ax.set_title(f"{kind} spheres")
    figure.savefig(arguments.output / "bruggeman.png", dpi=110)
    text = json.dumps({kind: fit.to_dict() for kind, fit in results.items()}, indent=1)
    (arguments.output / "bruggeman.json").write_text(text, encoding="utf-8")
say(f"\nwritten to {arguments.output}: bruggeman.png, bruggeman.json")

# ## What must hold

packed, overlapping = results["packed"], results["overlapping"]
assert 1.2 < packed.exponent < 1.7, "packed spheres are far from what they are known for"
assert overlapping.exponent > packed.exponent, "overlapping spheres hinder no more than packed ones"
for fit in results.values():
    assert fit.interval[0] < fit.exponent < fit.interval[1]
    assert fit.interval[1] - fit.interval[0] < 1.0, "the exponent is hardly known"
    assert (fit.conductivity < 2 * fit.porosity / (3 - fit.porosity)).all(), "above Hashin and Shtrikman"
