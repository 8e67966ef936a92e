"""Descriptors beside PoreSpy on an image: values that have to agree, then times.

    python3 benchmarks/descriptors.py nmc_electrode.tif --phase 0 --crop 100 --crop 200

PoreSpy is optional (`pip install porespy`); DOLFINx is not needed. Every pair of values is checked before its
times are printed. docs/descriptors.md says where the conventions differ.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fetopo.microstructure.descriptors import chord_lengths, local_thickness, two_point_correlation
from fetopo.microstructure.image import read


def timed(function: Callable[[], Any], repeat: int) -> tuple[Any, float]:
    """Result and the shortest CPU time of several calls."""
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        result = function()
        best = min(best, time.process_time() - start)
    return result, best


def row(name: str, ours: float, theirs: float, difference: float, limit: float, seconds: tuple) -> None:
    if not difference <= limit:
        raise SystemExit(f"{name}: fetopo {ours}, PoreSpy {theirs}, difference {difference}: over {limit}")
    print(
        f"| {name} | {ours:.5g} | {theirs:.5g} | {difference:.1e} | {seconds[0]:.2f} | {seconds[1]:.2f} |",
        flush=True,
    )


def compare(ps: Any, mask: np.ndarray, repeat: int) -> None:
    n = min(mask.shape)
    ours, t0 = timed(lambda: two_point_correlation(mask, 1.0), repeat)
    theirs, t1 = timed(lambda: ps.metrics.two_point_correlation(mask, bins=n // 2), repeat)
    k = min(len(ours.value), n // 2)
    gap = float(np.abs(ours.value[:k] - theirs.probability_scaled[:k]).max())
    row("S₂ in [10, 11) voxels", ours.value[10], theirs.probability_scaled[10], gap, 2e-3, (t0, t1))
    for axis in range(3):
        # PoreSpy draws chords on every second line of both other axes: the same lines for both.
        lines = mask[tuple(slice(None) if a == axis else slice(None, None, 2) for a in range(3))]
        _, t0 = timed(lambda axis=axis: chord_lengths(mask, 1.0, axis), repeat)
        theirs, t1 = timed(
            lambda axis=axis: ps.metrics.chord_counts(ps.filters.apply_chords(mask, spacing=1, axis=axis)),
            repeat,
        )
        mean = chord_lengths(lines, 1.0, axis).mean
        row(
            f"mean chord, axis {axis} (voxels)",
            mean,
            theirs.mean(),
            abs(mean / theirs.mean() - 1),
            0.02,
            (t0, t1),
        )
    ours, t0 = timed(lambda: local_thickness(mask, 1.0) / 2, repeat)
    theirs, t1 = timed(lambda: ps.filters.local_thickness(mask), repeat)
    # PoreSpy uses whole radii only: none of its spheres may be larger, nor the mean differ by a voxel.
    if (theirs > ours + 1e-9).any():
        raise SystemExit("local thickness: PoreSpy has a larger sphere")
    gap = float(ours[mask].mean() - theirs[mask].mean())
    row("mean local radius (voxels)", ours[mask].mean(), theirs[mask].mean(), gap, 1.0, (t0, t1))


def main() -> None:
    parser = argparse.ArgumentParser(description="Descriptors beside PoreSpy: agreement, then times.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--phase", type=int, default=0)
    parser.add_argument("--crop", type=int, action="append", help="side of the centred cube, may be repeated")
    parser.add_argument("--repeat", type=int, default=2)
    arguments = parser.parse_args()
    try:
        import porespy as ps
    except ImportError:
        raise SystemExit("PoreSpy is not installed: `pip install porespy` where this runs") from None
    warnings.simplefilter("ignore")
    ps.settings.tqdm["disable"] = True
    ps.settings.ncores = 1
    image = read(arguments.image)
    warm = image.crop(min(24, *image.shape)).mask(arguments.phase)  # compiles what PoreSpy compiles
    ps.filters.local_thickness(warm)
    ps.metrics.two_point_correlation(warm)
    for crop in arguments.crop or [100]:
        print(
            f"\n{arguments.image.name}, centred {crop}³, phase {arguments.phase}, PoreSpy {ps.__version__}\n"
        )
        print("| quantity | fetopo | PoreSpy | difference | CPU s fetopo | CPU s PoreSpy |")
        print("|---|---|---|---|---|---|")
        compare(ps, image.crop(crop).mask(arguments.phase), arguments.repeat)


if __name__ == "__main__":
    main()
