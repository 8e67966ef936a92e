# # How large must the sample be?
#
# A property measured on a small piece of a material scatters from piece to piece, and the border of the
# piece may shift its mean. This demo cuts an image of an electrode into windows of growing size, computes
# porosity and pore diffusivity in each, and states the size of the sample whose value is within 5 % of the
# mean, at 95 % confidence. For large windows the variance falls as D²A/V; A, the integral range, is the
# volume over which the structure forgets itself. Windows that are hardly larger than that follow a slower
# power V^−γ: the demo fits γ to all sizes, and beside it states what follows if the largest two already fall
# as 1/V.
#
#     python3 demos/rve.py
#     mpirun -n 2 python3 demos/rve.py your_image.tif --phase 0 --sizes 16,24,32,48

import argparse
import json
import math
from pathlib import Path

from mpi4py import MPI

from fetopo.figure import new_figure
from fetopo.microstructure.image import read
from fetopo.transport.properties import effective, through_diffusivity, volume_fraction
from fetopo.transport.rve import window_study

comm = MPI.COMM_WORLD
HERE = Path(__file__).resolve().parent

parser = argparse.ArgumentParser(description="Size of a representative sample of an image.")
parser.add_argument("image", nargs="?", type=Path, default=HERE.parent / "meshes" / "electrode_64.tif")
parser.add_argument("--phase", type=int, default=0, help="the phase that conducts (default 0)")
parser.add_argument("--crop", type=int, help="use only the centred cube of this many voxels")
parser.add_argument("--sizes", default="12,16,21,32", help="edges of the windows in voxels")
parser.add_argument("--limit", type=int, default=40, help="at most so many windows of each size are solved")
parser.add_argument("--error", type=float, default=0.05, help="relative error wanted (default 0.05)")
parser.add_argument("--output", type=Path, default=Path("results") / "rve")
arguments = parser.parse_args()


def say(text: str = "") -> None:
    if comm.rank == 0:
        print(text, flush=True)


image = read(arguments.image, crop=arguments.crop)
sizes = [int(n) for n in arguments.sizes.split(",")]
porosity = float(image.mask(arguments.phase).mean())
say(f"{arguments.image.name}: {' × '.join(map(str, image.shape))} voxels, porosity {porosity:.4f}")

# ## Three properties of every window
#
# The ranks share the windows. Porosity is cheap: all windows are taken. The diffusivity of the pore is solved
# twice, through the window with closed sides (a window that the pore does not cross counts as 0), and with
# periodic borders, where a pore must meet a pore across the seam to go on.

pore, labels = arguments.phase, {int(label): 0.0 for label in image.phases}
studies = {
    "porosity": window_study(comm, image.labels, volume_fraction(pore), sizes, voxel_size=image.voxel_size),
    "diffusivity, through": window_study(
        comm,
        image.labels,
        through_diffusivity(pore, voxel_size=image.voxel_size),
        sizes,
        voxel_size=image.voxel_size,
        limit=arguments.limit,
    ),
    "diffusivity, periodic": window_study(
        comm,
        image.labels,
        effective(labels | {pore: 1.0}, voxel_size=image.voxel_size),
        sizes,
        voxel_size=image.voxel_size,
        limit=arguments.limit,
    ),
}

# ## The size

answers, fits, asymptotic = {}, {}, {}
for name, study in studies.items():
    variance = porosity * (1 - porosity) if name == "porosity" else None
    fits[name] = fit = study.fit()
    answers[name] = answer = study.size_for(arguments.error, fit=fit)
    last = study.fit(exponent=1.0, point_variance=variance, smallest=study.sizes[-2])
    asymptotic[name] = study.size_for(arguments.error, fit=last)
    say(f"\n{name}\n    voxels   windows   mean      deviation   bias")
    for n, values, bias in zip(study.sizes, study.scalars, study.bias[0], strict=True):
        deviation = values.std(ddof=1)
        say(f"    {n:6d}   {len(values):7d}   {values.mean():.4f}    {deviation:.4f}      {bias:+.3f}")
    say(f"    variance ∝ V^−{fit.exponent:.2f} (95 %: {fit.interval[0]:.2f} to {fit.interval[1]:.2f})")
    if last.integral_range is not None:
        say(f"    integral range: a cube of {1e6 * last.integral_range ** (1 / image.labels.ndim):.2f} µm")
    low, high = (1e6 * edge for edge in answer.interval)
    beyond = ", beyond the windows studied: extrapolated" if answer.extrapolated else ""
    say(
        f"    {100 * arguments.error:g} % error at 95 % confidence: {answer.voxels} voxels = "
        f"{1e6 * answer.length:.1f} µm, set by the {answer.limited_by} (scatter alone: {low:.1f} to "
        f"{high:.1f} µm){beyond}"
    )
    low, high = (1e6 * edge for edge in asymptotic[name].interval)
    say(f"    with V^−1 from the largest two: {asymptotic[name].voxels} voxels ({low:.1f} to {high:.1f} µm)")

if comm.rank == 0:
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = new_figure(11.0, 4.6)
    mean, variance = figure.subplots(1, 2)
    for name, study in studies.items():
        study.plot(mean, "mean", label=name)
        study.plot(variance, fit=fits[name], label=f"{name}: {answers[name].voxels} voxels")
    mean.legend()
    variance.legend(title=f"size for {100 * arguments.error:g} % error")
    figure.savefig(arguments.output / "rve.png", dpi=110)
    text = {
        name: study.to_dict() | {"size": vars(answers[name]), "size_asymptotic": vars(asymptotic[name])}
        for name, study in studies.items()
    }
    (arguments.output / "rve.json").write_text(json.dumps(text, indent=1), encoding="utf-8")
say(f"\nwritten to {arguments.output}: rve.png, rve.json")

# ## What must hold

assert abs(studies["porosity"].means[-1] - porosity) < 0.1 * porosity, "the large windows are no fair sample"
for name, study in studies.items():
    assert not study.failures, f"windows failed: {study.failures[:1]}"
    assert study.variances[-1].max() < study.variances[0].max(), f"{name} does not settle"
    assert math.isfinite(answers[name].length)
    assert answers[name].interval[0] <= answers[name].length * (1 + 1e-12)
# A property of the paths through a structure needs a larger sample than how much of it there is.
assert asymptotic["diffusivity, through"].voxels > asymptotic["porosity"].voxels
