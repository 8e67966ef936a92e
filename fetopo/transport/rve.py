"""How large a sample must be: a property of windows of an image, or of realisations of a random medium."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo.microstructure.image import DEFAULT_VOXEL_SIZE, Slab, VoxelSize, voxel_sides
from fetopo.transport._sampling import Failure, Job, compute, corners, window_of
from fetopo.transport.properties import Property
from fetopo.transport.rve_study import RveSize, RveStudy, VarianceFit

__all__ = ["Failure", "RveSize", "RveStudy", "VarianceFit", "realisation_study", "window_study"]


def window_study(
    comm: MPI.Intracomm,
    labels: npt.NDArray[Any] | Slab,
    of: Property,
    sizes: Sequence[int],
    *,
    voxel_size: VoxelSize | None = None,
    limit: int | None = None,
) -> RveStudy:
    """A property of cubic windows that lie side by side in an image, for several sizes. Collective.

    Windows are dealt out to the ranks and each is computed by one of them alone; the result is the same on
    any number of ranks. A window whose property raises an exception or is not finite is reported and left
    out.

    Args:
        comm: communicator whose ranks share the work.
        labels: image, 2D or 3D: the same array on every rank, or the slab of this rank.
        of: property of a window of labels, a number or a tensor; it must not communicate (see
            :mod:`fetopo.transport.properties`).
        sizes: edges of the windows in voxels; at least two windows of each must fit.
        voxel_size: sides of a voxel [m]; default that of the slab, 1e-6 for an array.
        limit: at most so many windows of each size, drawn at random, the same ones each time.
    Raises:
        ValueError: sizes that do not fit twice, or options out of range; on every rank.
        RuntimeError: fewer than two windows of a size had a value.
    """
    if not isinstance(labels, Slab):
        labels = np.asarray(labels)
        if labels.ndim not in (2, 3):
            raise ValueError(f"a 2D or 3D image is needed, found shape {labels.shape}")
    default = labels.voxel_size if isinstance(labels, Slab) else DEFAULT_VOXEL_SIZE
    sides = voxel_sides(default if voxel_size is None else voxel_size, len(labels.shape))
    sizes = _checked_sizes(sizes)
    if limit is not None and limit < 2:
        raise ValueError(f"limit must be at least 2, found {limit}")
    places: dict[Job, npt.NDArray[np.int64]] = {}
    for size in sizes:
        found = corners(labels.shape, size, limit)
        if len(found) < 2:
            fit = f"{len(found)} windows of {size} voxels fit into an image of shape {labels.shape}"
            raise ValueError(f"{fit}: 2 are needed")
        places |= {(size, number): found[number] for number in range(len(found))}
    return _study(comm, sizes, list(places), window_of(labels, places), of, sides)


def realisation_study(
    comm: MPI.Intracomm,
    generate: Callable[[int, int], npt.NDArray[Any]],
    of: Property,
    sizes: Sequence[int],
    *,
    realisations: int,
    seed: int = 0,
    voxel_size: VoxelSize = DEFAULT_VOXEL_SIZE,
    dim: int = 3,
) -> RveStudy:
    """A property of realisations of a random medium, for several sizes. Collective.

    Args:
        comm: communicator whose ranks share the work, as in :func:`window_study`.
        generate: labels of a realisation of a size in voxels from a seed, `generate(size, seed)`.
        of: property, as in :func:`window_study`.
        sizes: edges in voxels.
        realisations: number for each size, at least 2.
        seed: of the study; realisation i of a size has the same seed on any number of ranks.
        voxel_size: sides of a voxel [m].
        dim: 2 or 3.
    Raises:
        ValueError: options out of range; on every rank.
        RuntimeError: fewer than two realisations of a size had a value.
    """
    sides = voxel_sides(voxel_size, dim)
    sizes = _checked_sizes(sizes)
    if realisations < 2:
        raise ValueError(f"realisations must be at least 2, found {realisations}")

    def make(job: Job | None) -> npt.NDArray[Any] | None:
        if job is None:
            return None
        state = np.random.SeedSequence([seed, *job]).generate_state(1)
        return np.asarray(generate(job[0], int(state[0])))

    jobs = [(size, number) for size in sizes for number in range(realisations)]
    return _study(comm, sizes, jobs, make, of, sides)


def _study(
    comm: MPI.Intracomm,
    sizes: Sequence[int],
    jobs: Sequence[Job],
    window: Callable[[Job | None], npt.NDArray[Any] | None],
    of: Property,
    sides: tuple[float, ...],
) -> RveStudy:
    found, failures = compute(comm, jobs, window, of)
    samples = []
    for size in sizes:
        values = [found[job] for job in jobs if job[0] == size and job in found]
        if len(values) < 2:
            reasons = [f.reason for f in failures if f.size == size]
            raise RuntimeError(
                f"only {len(values)} windows of {size} voxels have a value, 2 are needed; "
                f"the first of {len(reasons)} that failed: {reasons[0]}"
            )
        samples.append(np.array(values))
    return RveStudy(tuple(sizes), sides, tuple(samples), tuple(failures))


def _checked_sizes(sizes: Sequence[int]) -> list[int]:
    if len(sizes) == 0 or any(int(n) != n or n < 1 for n in sizes) or len(set(sizes)) != len(sizes):
        raise ValueError(f"sizes must be different positive integers, found {list(sizes)}")
    return sorted(int(n) for n in sizes)
