"""The voxel solver over images of 10⁶ to 10⁸ voxels, over contrasts and sizes, and over ranks."""

from __future__ import annotations

import numpy as np
from voxel_images import FILES, SIDES, available
from voxel_processes import GIB, Failed, head, row, run

SCHEMES = ("finite volumes", "elements")
#: The published values of τ = ε D₀/D_eff of TauFactor's test volume, over-converged, per axis.
JOSS = (4.2431, 1.1513, 1.3905)
CONTRASTS = (1.0, 1e1, 1e3, 1e6, 1e9)


def volume(image: str, data: str, ranks: list[int]) -> None:
    """A large image in all axes on each number of ranks; τ with the total porosity."""
    columns = ("CPU s", "busiest rank, CPU s", "wall s", "peak GiB", "bytes per voxel")
    head("ranks", "axis", "τ", "published", "iterations", *columns)
    totals: dict[int, dict[str, float]] = {}
    for size in ranks:
        total = totals[size] = dict.fromkeys(("cpu", "busiest", "wall", "peak"), 0.0)
        for axis in range(3):
            r = run("voxel_cases:through_feature", ranks=size, image=image, axis=axis, data=data)
            spent = r["cost"]
            for k in total:
                total[k] = max(total[k], spent[k]) if k == "peak" else total[k] + spent[k]
            known = f"{JOSS[axis]:.4f}" if image == "joss" else ""
            tau, each = r["porosity"] / r["value"], (spent["peak"] - spent["before"]) / r["voxels"]
            row(size, axis, f"{tau:.4f}", known, r["iterations"], *shown(spent), f"{each:.1f}")
        row(size, "all", "", "", "", *shown(total), "")
    faster(totals)


def shown(spent: dict[str, float]) -> list[str]:
    """CPU, busiest rank, wall time and memory as the tables have them."""
    return [*(f"{spent[k]:.1f}" for k in ("cpu", "busiest", "wall")), f"{spent['peak'] / GIB:.2f}"]


def faster(totals: dict[int, dict[str, float]]) -> None:
    """How much sooner several ranks end. Where others use the machine, wall times tell about them."""
    first, *others = totals
    for size in others:
        wall, busiest = (totals[first][k] / totals[size][k] for k in ("wall", "busiest"))
        print(f"\n{size} ranks: {wall:.2f} times faster than {first} by wall time, {busiest:.2f} by CPU.")


def growth(images: list[str], data: str, scheme: str) -> None:
    """Time and memory per voxel from small to large images."""
    print(f"\nGrowth, axis 0, {scheme}")
    head(
        "image",
        "voxels",
        "value",
        "iterations",
        "CPU s",
        "µs per voxel",
        "ns per voxel and iteration",
        "bytes per voxel",
    )
    for image in images:
        if not available(image, data):
            print(f"{image}: the file is not there")
            continue
        r = run("voxel_cases:through_feature", image=image, axis=0, data=data, scheme=scheme)
        spent, n = r["cost"], r["voxels"]
        row(image, f"{n:.3g}", f"{r['value']:.6f}", r["iterations"], f"{spent['cpu']:.2f}",
            f"{1e6 * spent['cpu'] / n:.3f}", f"{1e9 * spent['cpu'] / n / max(r['iterations'], 1):.1f}",
            f"{(spent['peak'] - spent['before']) / n:.1f}")  # fmt: skip


def robustness(
    sides: list[int], data: str, schemes: list[str], rtol: float = 1e-6, only: list[str] | None = None
) -> float:
    """Iterations over size and contrast, every image as a two-phase cell; returns the largest count.

    White noise and a smooth field are continuous: log κ from 0 to log(contrast).
    """
    worst = 0.0
    for scheme in schemes:
        print(f"\nIterations to {rtol:g}, periodic cell, three directions at once, {scheme}")
        head("image", "side", *(f"contrast {c:g}" for c in CONTRASTS))
        kinds = only or [*(k for k in FILES if available(k, data)), "white", "smooth"]
        for kind in kinds:
            for side in sides:
                if side > SIDES.get(kind, side):
                    continue
                image = f"{kind}@{side}"
                (found,) = run("voxel_cases:iterations", images=[image], data=data, scheme=scheme,
                               contrasts=list(CONTRASTS), rtol=rtol)  # fmt: skip
                row(kind, side, *("gave up" if f is None else f for f in found))
                worst = max([worst, *(np.inf if f is None else f for f in found)])
    print(f"\nThe most: {worst:.0f}")
    return worst


def ranks(image: str, data: str, sizes: list[int]) -> None:
    """Time, iterations and values on several ranks: a through feature and a cell, both schemes."""
    head("case", "scheme", "ranks", "busiest rank, CPU s", "wall s", "iterations", "value", "difference")
    for case in ("through_feature", "cell"):
        for scheme in SCHEMES:
            first, totals = 0.0, {}
            for size in sizes:
                arguments = {"image": image, "data": data, "scheme": scheme}
                if case == "through_feature":
                    arguments["axis"] = 0
                try:
                    r = run(f"voxel_cases:{case}", ranks=size, **arguments)
                except Failed as error:
                    print(error)
                    continue
                value = float(np.atleast_2d(r["value"])[0, 0])
                first = first or value
                totals[size] = spent = r["cost"]
                row(case.replace("_", " "), scheme, size, f"{spent['busiest']:.2f}", f"{spent['wall']:.2f}",
                    r["iterations"], f"{value:.8g}", f"{value / first - 1:.0e}")  # fmt: skip
