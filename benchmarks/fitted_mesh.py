"""Body-fitted meshes of images: quality, volumes and time; and the ways to a mesh that were compared.

    docker/run python3 benchmarks/fitted_mesh.py             # both tables of docs/meshes.md
    docker/run python3 benchmarks/fitted_mesh.py --small     # without the real images of 100³ voxels

Real images are read from ../shared/data and left out where they are not there.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fetopo.microstructure import generate
from fetopo.microstructure.image import Image, read
from fetopo.microstructure.mesh import FittedCell, _fit, fitted_cell, quality
from fetopo.microstructure.mesh._smooth import Smoother

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
UM = 1e-6


def ball(shape: tuple[int, ...], radius: float) -> Image:
    """Disc or ball in the middle, radius in units of the edge."""
    axes = np.meshgrid(*[(np.arange(n) + 0.5) / n - 0.5 for n in shape], indexing="ij")
    return Image((sum(x**2 for x in axes) < radius**2).astype(int), (UM,))


def cases(small: bool) -> list[tuple[str, Image, int, bool]]:
    """Name, image, phase, whether periodic."""
    found = [
        ("disc, 64²", ball((64, 64), 0.3), 1, True),
        (
            "Gaussian field, 128²",
            generate.gaussian_field((128,) * 2, volume_fraction=0.4, correlation_length=6 * UM, seed=1),
            1,
            True,
        ),
        ("ball, 40³", ball((40,) * 3, 0.3), 1, True),
        ("gyroid, 40³", generate.minimal_surface("gyroid", (40,) * 3, volume_fraction=0.4), 1, True),
        (
            "Gaussian field, 40³",
            generate.gaussian_field((40,) * 3, volume_fraction=0.4, correlation_length=5 * UM, seed=1),
            1,
            True,
        ),
        ("noise, 24³", Image(np.random.default_rng(0).integers(0, 2, (24,) * 3), (UM,)), 1, True),
    ]
    for name, file, phase in (
        ("NMC electrode, 100³", "nmc_electrode.tif", 1),
        ("Ketton carbonate, 100³", "ketton_carbonate.tif", 0),
    ):
        if not small and (DATA / file).exists():
            found.append((name, read(DATA / file, crop=100, voxel_size=UM), phase, False))
    return found


def row(name: str, make: Callable[[], FittedCell]) -> str:
    begin = time.process_time()
    cell = make()
    seconds = time.process_time() - begin
    q, r = quality(cell), cell.report
    assert r is not None
    angles = q.angle_percentiles
    return (
        f"| {name} | {q.cells} | {r.euler_characteristic} | {r.error:.0e} | {q.smallest_angle:.1f} | "
        f"{angles['0.1']:.1f} | {angles['1']:.1f} | {q.largest_angle:.1f} | {q.smallest_radius_ratio:.2f} | "
        f"{seconds:.1f} |"
    )


HEAD = (
    "cells | χ | error of φ | angle min | 0.1 % | 1 % | max | radius ratio min | CPU s |\n"
    + "|---" * 10
    + "|"
)


def variants(image: Image) -> None:
    """One image, lattice and level; with and without snapping, with and without smoothing."""
    original = _fit.SNAP, Smoother.relax, _fit.Cut.snap_nodes
    print("\n| way | " + HEAD)
    try:
        for name, snap, moved in (
            ("cut only, no nearer to a node than 0.05 of an edge", (0.05, 0.05), False),
            ("cut only, no nearer than 0.2", (0.2, 0.2), False),
            ("snapped at 0.249, 0.414", (0.249, 0.414), True),
            ("snapped at 0.3, 0.45", (0.3, 0.45), True),
        ):
            for smooth in (False, True):
                _fit.SNAP = snap
                if not moved:
                    _fit.Cut.snap_nodes = lambda self: None  # type: ignore[method-assign]
                if not smooth:
                    Smoother.relax = lambda self, *a, **k: 0.0  # type: ignore[method-assign]
                text = f"{name}; {'smoothed' if smooth else 'not smoothed'}"
                print(row(text, lambda: fitted_cell(MPI.COMM_SELF, image, 1)), flush=True)
                _fit.SNAP, Smoother.relax, _fit.Cut.snap_nodes = original  # type: ignore[method-assign]
    finally:
        _fit.SNAP, Smoother.relax, _fit.Cut.snap_nodes = original  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description="Quality, volumes and time of body-fitted meshes.")
    parser.add_argument("--small", action="store_true", help="no real images")
    small = parser.parse_args().small
    everything = cases(small)
    print("| image | " + HEAD)
    for name, image, phase, periodic in everything:
        print(
            row(name, lambda i=image, k=phase, p=periodic: fitted_cell(MPI.COMM_SELF, i, k, periodic=p)),
            flush=True,
        )
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    variants(everything[4][1])


if __name__ == "__main__":
    main()
