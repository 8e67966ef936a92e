"""The voxel solver over images of 10⁶ to 10⁸ voxels, over contrasts and sizes, and over ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
from voxel_images import FILES, SIDES, available
from voxel_processes import GIB, Failed, head, row, run

SCHEMES = ("finite volumes", "elements")
#: The published values of τ = ε D₀/D_eff of TauFactor's test volume, over-converged, per axis.
JOSS = (4.2431, 1.1513, 1.3905)
CONTRASTS = (1.0, 1e1, 1e3, 1e6, 1e9)


def volume(image: str, data: str, ranks: list[int]) -> None:
    """A large image in all axes on each number of ranks; τ with the total porosity."""
    voxels = 0
    head("ranks", "axis", "τ", "published", "iterations", "CPU s", "wall s", "peak GiB", "bytes per voxel")
    walls = {}
    for size in ranks:
        total: dict[str, float] = {"cpu": 0.0, "wall": 0.0, "peak": 0.0}
        for axis in range(3):
            r = run("voxel_cases:through_feature", ranks=size, image=image, axis=axis, data=data)
            spent, voxels = r["cost"], r["voxels"]
            known = f"{JOSS[axis]:.4f}" if image == "joss" else ""
            row(size, axis, f"{r['porosity'] / r['value']:.4f}", known, r["iterations"],
                f"{spent['cpu']:.1f}", f"{spent['wall']:.1f}", f"{spent['peak'] / GIB:.2f}",
                f"{(spent['peak'] - spent['before']) / voxels:.1f}")  # fmt: skip
            total = {k: max(v, spent[k]) if k == "peak" else v + spent[k] for k, v in total.items()}
        row(
            size,
            "all",
            "",
            "",
            "",
            f"{total['cpu']:.1f}",
            f"{total['wall']:.1f}",
            f"{total['peak'] / GIB:.2f}",
            "",
        )
        walls[size] = total["wall"]
    for size in ranks[1:]:
        print(f"\n{size} ranks: {walls[ranks[0]] / walls[size]:.2f} times faster than {ranks[0]}.")


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
    sides: list[int], data: str, contrasts: tuple[float, ...] = CONTRASTS, rtol: float = 1e-6
) -> int:
    """Iterations over size and contrast, every image as a two-phase cell; returns the largest count.

    White noise and a smooth field are continuous: log κ from 0 to log(contrast).
    """
    worst = 0
    for scheme in SCHEMES:
        print(f"\nIterations to {rtol:g}, periodic cell, three directions at once, {scheme}")
        head("image", "side", *(f"contrast {c:g}" for c in contrasts))
        kinds = [*(k for k in FILES if available(k, data)), "white", "smooth"]
        for kind in kinds:
            for side in sides:
                if side > SIDES.get(kind, side):
                    continue
                image = f"{kind}@{side}"
                (found,) = run("voxel_cases:iterations", images=[image], data=data, scheme=scheme,
                               contrasts=list(contrasts), rtol=rtol)  # fmt: skip
                row(kind, side, *found)
                worst = max([worst, *(np.inf if f is None else f for f in found)])
    print(f"\nThe most: {worst}")
    return worst


def ranks(image: str, data: str, sizes: list[int]) -> None:
    """Wall time, iterations and values on several ranks: a through feature and a cell, both schemes."""
    head("case", "scheme", "ranks", "wall s", "faster", "iterations", "value", "difference")
    for case in ("through_feature", "cell"):
        for scheme in SCHEMES:
            first: dict[str, Any] = {}
            for size in sizes:
                arguments = {"image": image, "data": data, "scheme": scheme}
                if case == "through_feature":
                    arguments["axis"] = 0
                try:
                    r = run(f"voxel_cases:{case}", ranks=size, **arguments)
                except Failed as error:
                    print(error)
                    continue
                value = np.atleast_2d(r["value"])[0, 0]
                first = first or {"value": value, "wall": r["cost"]["wall"]}
                row(case.replace("_", " "), scheme, size, f"{r['cost']['wall']:.2f}",
                    f"{first['wall'] / r['cost']['wall']:.2f}", r["iterations"], f"{value:.8g}",
                    f"{value / first['value'] - 1:.0e}")  # fmt: skip
