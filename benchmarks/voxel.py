"""The voxel discretization beside other codes, and how it grows: the figures of docs/voxel.md.

    python3 benchmarks/voxel.py peers nmc@200 bentheimer@200     beside PoreSpy and TauFactor
    python3 benchmarks/voxel.py volume                           TauFactor's 500³ test volume, three axes
    python3 benchmarks/voxel.py growth                           10⁶ to 10⁸ voxels
    python3 benchmarks/voxel.py iterations [ketton …]            sizes, contrasts, images, schemes
    python3 benchmarks/voxel.py ranks                            1, 2 and 3 ranks
    python3 benchmarks/voxel.py bandwidth                        bytes moved, beside the STREAM triad
    python3 benchmarks/voxel.py model                            10² to 10⁴ ranks, modelled
    python3 benchmarks/voxel.py heat                             a design iteration beside pyMOTO
    python3 benchmarks/voxel.py kernels                          what compiling costs

Every measurement is a process of its own with one thread; seconds run from the mask to the value, imports
and reading apart. The peers are optional: install them into a directory outside the checkout
(`pip install --target DIRECTORY porespy taufactor pymoto`), show it with FETOPO_MOUNT and name it in
PYTHONPATH. Images are read from ../shared/data or `--data`; what is not there is left out with a sentence.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import voxel_bandwidth
import voxel_heat
import voxel_model
import voxel_peers
import voxel_scaling
from voxel_images import DATA, available
from voxel_processes import run


def peers(a: argparse.Namespace) -> None:
    codes = a.codes.split(";") if a.codes else list(voxel_peers.CODES)
    for image in a.images or ["nmc@200", "nmc@100", "bentheimer@200"]:
        if available(image, a.data):
            voxel_peers.table(image, a.axis, a.data, codes, a.repeats, a.timeout)
        else:
            print(f"{image}: the file is not there")


def volume(a: argparse.Namespace) -> None:
    voxel_scaling.volume(a.images[0] if a.images else "joss", a.data, a.ranks or [1, 2])


def growth(a: argparse.Namespace) -> None:
    for scheme in a.schemes or voxel_scaling.SCHEMES:
        voxel_scaling.growth(
            a.images or [f"{kind}@{n}" for kind in ("bentheimer", "field") for n in (100, 215, 464)],
            a.data,
            scheme,
        )


def iterations(a: argparse.Namespace) -> None:
    schemes = a.schemes or list(voxel_scaling.SCHEMES)
    voxel_scaling.robustness(a.sides, a.data, schemes, only=a.images)


def ranks(a: argparse.Namespace) -> None:
    voxel_scaling.ranks(a.images[0] if a.images else "nmc@200", a.data, a.ranks or [1, 2, 3])


def bandwidth(a: argparse.Namespace) -> None:
    for size in a.ranks or [1, 2]:
        found = run("voxel_bandwidth:triad", ranks=size)
        each = " + ".join(f"{b / 1e9:.1f}" for b in found["bandwidths"])
        print(f"STREAM triad, {size} rank{'s' * (size > 1)} at once: {each} GB/s")
    cases = [
        ("finite volumes", False, 1),
        ("finite volumes", True, 3),
        ("elements", False, 1),
        ("elements", True, 3),
    ]
    voxel_bandwidth.table(a.images[0] if a.images else "bentheimer@256", a.data, cases)


def model(a: argparse.Namespace) -> None:
    seconds, share, directions = a.seconds_per_voxel, 0.8, 3
    if seconds is None:
        image = a.images[0] if a.images else "field@128"
        r = run("voxel_bandwidth:kernels", image=image, data=a.data, scheme="finite volumes",
                continuous=True, rhs=directions)  # fmt: skip
        spent = r["seconds"]
        whole = spent["cycle"] + sum(spent[p.name] for p in voxel_bandwidth.KRYLOV)
        seconds, share = whole / r["unknowns"], spent["cycle"] / whole
        print(f"Measured on one rank: {image}, continuous coefficients, {directions} directions at once.")
    software = run("voxel_cases:message", ranks=2) if a.software is None else a.software
    solver = voxel_model.Solver(seconds, share, value_bytes=4 * directions)
    for each in (0.0, software):
        voxel_model.table(solver, voxel_model.Machine(a.latency, a.bandwidth, each))


def heat(a: argparse.Namespace) -> None:
    voxel_heat.table(a.sides[0] if a.sides != SIDES else 32)


def kernels(a: argparse.Namespace) -> None:
    run("voxel_cases:kernels")
    fresh, kept = (run("voxel_cases:kernels", fresh=f) for f in (True, False))
    print(f"Kernels: {fresh:.1f} CPU s to compile at the first use on a machine, {kept:.2f} s to load later.")


PARTS = {f.__name__: f for f in (peers, volume, growth, iterations, ranks, bandwidth, model, heat, kernels)}
SIDES = [32, 64, 128, 256]


def numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("images", nargs="*", help="nmc, nmc@200, field@64, …")
    parser.add_argument("--data", default=str(DATA), help="folder of the images")
    parser.add_argument("--axis", type=int, default=0)
    parser.add_argument("--codes", help="of peers: names of the table's rows, with ; between")
    parser.add_argument("--repeats", type=int, default=1, help="of peers: runs of each code, the best counts")
    parser.add_argument("--timeout", type=float, help="seconds after which a code is left out")
    parser.add_argument("--ranks", type=numbers, help="1,2,3")
    parser.add_argument("--sides", type=numbers, default=SIDES, help="of iterations and heat: 32,64,128,256")
    parser.add_argument("--schemes", type=lambda t: t.split(","), help="finite volumes,elements")
    parser.add_argument("--latency", type=float, default=2e-6, help="of a message [s]")
    parser.add_argument("--bandwidth", type=float, default=10e9, help="of a message [B/s]")
    parser.add_argument("--software", type=float, help="of a message [s], model's second table; measured")
    parser.add_argument("--seconds-per-voxel", type=float, help="of an iteration; measured")
    arguments = parser.parse_args(argv)
    PARTS[arguments.part](arguments)


if __name__ == "__main__":
    main()
