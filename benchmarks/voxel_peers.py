"""Effective diffusivity beside PoreSpy and TauFactor: same image, one process each, one thread."""

from __future__ import annotations

from typing import Any

import numpy as np
from voxel_images import mask
from voxel_processes import MIB, Failed, cost, head, row, run

#: Name in the table: function here and its arguments. The peers with their tolerances, and tight ones.
CODES: dict[str, tuple[str, dict[str, Any]]] = {
    "fetopo, finite volumes, rtol 1e-5": ("ours", {"rtol": 1e-5}),
    "fetopo, finite volumes, rtol 1e-6": ("ours", {"rtol": 1e-6}),
    "fetopo, tortuosity, finite volumes": ("analysis", {"method": "finite volumes"}),
    "fetopo, tortuosity, interval": ("analysis", {"method": "interval"}),
    "PoreSpy": ("porespy", {"ftol": None}),
    "PoreSpy, ftol 1e-4": ("porespy", {"ftol": 1e-4}),
    "TauFactor": ("taufactor", {"conv_crit": None}),
    "TauFactor, conv_crit 1e-4": ("taufactor", {"conv_crit": 1e-4}),
}
#: Largest relative difference of a peer from our finite volumes. TauFactor stops where the flux through its
#: layers differs by 1e-2 (its default) and its value by less; PoreSpy fixes the potential in the first voxel.
AGREEMENT = 6e-3
#: Small image that a code solves first, so that what it compiles is compiled before the clock starts.
WARM_UP = "field@16"


def ours(image: str, axis: int, data: str, rtol: float) -> dict[str, Any]:
    """The solver alone: finite volumes with their lower bound; what does not percolate needs no removal."""
    from mpi4py import MPI

    from fetopo.transport.voxel import VoxelGrid, through

    def solve(m: np.ndarray) -> dict[str, Any]:
        grid = VoxelGrid(MPI.COMM_SELF, m.shape)
        found = through(grid, grid.take(m), axis, rtol=rtol)
        return {
            "value": float(found.conductivity),
            "lower": float(found.lower_bound),
            "iterations": int(found.iterations),
            # What TauFactor stops at: largest less smallest flux through the planes, relative to the mean.
            "mismatch": float(np.ptp(found.layer_flux) / np.mean(found.layer_flux)),
        }

    return timed(solve, image, data)


def analysis(image: str, axis: int, data: str, method: str) -> dict[str, Any]:
    """What a user calls: percolating part and clusters, then one scheme or both."""
    from mpi4py import MPI

    from fetopo.transport.tortuosity import tortuosity

    def solve(m: np.ndarray) -> dict[str, Any]:
        (found,) = tortuosity(MPI.COMM_SELF, m, [axis], method=method)
        value = found.finite_volumes
        known = {"lower": found.lower_bound, "upper": found.upper_bound}
        return {"value": value} | {k: v for k, v in known.items() if v is not None}

    return timed(solve, image, data)


def porespy(image: str, axis: int, data: str, ftol: float | None) -> dict[str, Any]:
    """PoreSpy: algebraic multigrid on the network of voxels."""
    import porespy as ps

    ps.settings.tqdm["disable"] = True
    more = {} if ftol is None else {"ftol": ftol}

    def solve(m: np.ndarray) -> dict[str, Any]:
        found = ps.simulations.tortuosity_fd(im=m, axis=axis, **more)
        return {"value": float(found.effective_porosity / found.tortuosity)}

    return timed(solve, image, data) | {"version": ps.__version__}


def taufactor(image: str, axis: int, data: str, conv_crit: float | None) -> dict[str, Any]:
    """TauFactor: successive over-relaxation."""
    from importlib.metadata import version

    import taufactor as tau
    import torch

    torch.set_num_threads(1)
    more = {} if conv_crit is None else {"conv_crit": conv_crit, "iter_limit": 100_000}

    def solve(m: np.ndarray) -> dict[str, Any]:
        solver = tau.Solver(np.moveaxis(m, axis, 0).astype(np.uint8), device="cpu")
        solver.solve(verbose=False, **more)
        return {"value": float(np.asarray(solver.D_eff).reshape(-1)[0]), "iterations": int(solver.iter)}

    return timed(solve, image, data) | {"version": version("taufactor")}


def timed(solve: Any, image: str, data: str) -> dict[str, Any]:
    """Solve the small image, then the one asked for; what both cost."""
    small, m = mask(WARM_UP), mask(image, data)
    with cost() as first:
        solve(small)
    with cost() as spent:
        found = solve(m)
    return found | {"cost": vars(spent), "first": first.cpu, "porosity": float(m.mean()), "voxels": m.size}


def check(image: str, results: dict[str, dict[str, Any]]) -> None:
    """All values agree, or nothing is printed.

    Raises:
        SystemExit: A value differs, or an interval is out of order.
    """
    found = results.get("fetopo, tortuosity, interval")
    if found and not found["value"] <= found["lower"] <= found["upper"]:
        raise SystemExit(f"{image}: the interval is out of order: {found}")
    reference = next((r for n, r in results.items() if n.startswith("fetopo")), None)
    reference = reference or next(r for n, r in results.items() if "1e-4" in n)
    for name, result in results.items():
        if not abs(result["value"] / reference["value"] - 1) <= AGREEMENT:
            raise SystemExit(f"{image}: {name} has {result['value']}, not {reference['value']}")


def collect(
    image: str, axis: int, data: str, codes: list[str], repeats: int, timeout: float | None
) -> dict[str, dict[str, Any]]:
    """Run every code, one after the other and all over again; of each keep the quickest run."""
    results: dict[str, dict[str, Any]] = {}
    out: set[str] = set()
    for _ in range(repeats):
        for name in codes:
            if name in out:
                continue
            function, arguments = CODES[name]
            case = {"image": image, "axis": axis, "data": data} | arguments
            try:
                found = run(f"voxel_peers:{function}", timeout=timeout, **case)
            except Failed as error:
                print(f"{name} left out. {error}")
                out.add(name)
                continue
            if "absent" in found:
                print(f"{name} left out: {found['absent']} is not installed.")
                out.add(name)
            elif name not in results or found["cost"]["cpu"] < results[name]["cost"]["cpu"]:
                results[name] = found
    return {name: results[name] for name in codes if name in results}


def table(
    image: str, axis: int, data: str, codes: list[str], repeats: int = 1, timeout: float | None = None
) -> dict[str, Any]:
    """Run the codes on one image and print their table."""
    results = collect(image, axis, data, codes, repeats, timeout)
    if not results:
        return results
    check(image, results)
    some = next(iter(results.values()))
    print(
        f"\n{image}, axis {axis}, porosity {some['porosity']:.5f}, {some['voxels']:.3g} voxels;"
        f" best of {repeats}"
    )
    columns = (
        "lower bound",
        "upper bound",
        "flux mismatch",
        "CPU s",
        "first call, 16³",
        "peak MiB",
        "bytes per voxel",
    )
    head("code", "D_eff/D₀", *columns)
    for name, r in results.items():
        known = [
            f"{r[k]:{f}}" if k in r else ""
            for k, f in (("lower", ".6f"), ("upper", ".6f"), ("mismatch", ".0e"))
        ]
        spent = r["cost"]
        row(
            f"{name} ({r['version']})" if "version" in r else name,
            f"{r['value']:.6f}",
            *known,
            f"{spent['cpu']:.2f}",
            f"{r['first']:.2f}",
            f"{spent['peak'] / MIB:.0f}",
            f"{(spent['peak'] - spent['before']) / r['voxels']:.0f}",
        )
    ratios(results)
    return results


def ratios(results: dict[str, dict[str, Any]]) -> None:
    """How many times less CPU than the fastest peer, and how much less memory."""
    mine = {n: r["cost"] for n, r in results.items() if n.startswith("fetopo")}
    peers = [r["cost"] for n, r in results.items() if not n.startswith("fetopo")]
    for name, spent in mine.items():
        if peers:
            cpu, peak = min(p["cpu"] for p in peers), min(p["peak"] for p in peers)
            print(f"\n{name}: {cpu / spent['cpu']:.1f} times less CPU than the fastest peer, "
                  f"{peak / spent['peak']:.2f} times less memory than the smallest.")  # fmt: skip
