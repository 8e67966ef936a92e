"""A property of many windows or realisations, each computed by one rank, the same on any number of ranks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._mpi import get_logger
from fetopo.microstructure.slab import Slab
from fetopo.transport.properties import Property

#: A window or realisation: its size in voxels, and its number among those of that size.
Job = tuple[int, int]
#: Computed windows after which unreachable meshes are given back.
_COLLECT = 64


@dataclass(frozen=True)
class Failure:
    """A window or realisation whose property could not be computed."""

    size: int
    number: int
    reason: str


def corners(shape: Sequence[int], size: int, limit: int | None) -> npt.NDArray[np.int64]:
    """First voxels of the cubes of a size that fit side by side in the middle of an image, shape (n, d).

    Where there are more than `limit`, as many drawn at random, always the same: every n-th one of a grid can
    lie in one plane.
    """
    starts = [(n % size) // 2 + size * np.arange(n // size) for n in shape]
    grid = np.meshgrid(*starts, indexing="ij")
    every: npt.NDArray[np.int64] = np.stack(grid, axis=-1).reshape(-1, len(shape))
    if limit is not None and len(every) > limit:
        chosen = np.random.default_rng(size).choice(len(every), limit, replace=False)
        every = every[np.sort(chosen)]
    return np.asarray(every, dtype=np.int64)


def compute(
    comm: MPI.Intracomm,
    jobs: Sequence[Job],
    window: Callable[[Job | None], npt.NDArray[Any] | None],
    of: Property,
) -> tuple[dict[Job, npt.NDArray[np.float64]], list[Failure]]:
    """The property of every job, on every rank. Collective.

    Large windows are dealt out first. `window` is called as often on every rank, at the end with None, so
    that it may be collective itself.
    """
    order = sorted(jobs, key=lambda job: (-job[0], job[1]))
    mine: list[Job | None] = list(order[comm.rank :: comm.size])
    mine += [None] * (-(-len(order) // comm.size) - len(mine))
    found: dict[Job, npt.NDArray[np.float64]] = {}
    failures: list[Failure] = []
    for done, job in enumerate(mine):
        try:
            labels = window(job)
            if job is None:
                continue
            value = np.asarray(of(labels), dtype=float)  # type: ignore[arg-type]
            if not np.isfinite(value).all():
                raise ValueError(f"the property is not finite: {value.tolist()}")
            found[job] = value
        except Exception as error:
            if job is None:
                raise
            failures.append(Failure(*job, f"{type(error).__name__}: {error}"))
        if done % _COLLECT == _COLLECT - 1:
            gc.collect()
    for part in comm.allgather(found):
        found |= part
    failures = sorted(
        (f for part in comm.allgather(failures) for f in part), key=lambda f: (f.size, f.number)
    )
    if failures:
        first = failures[0]
        get_logger(__name__, comm).warning(
            "%d of %d windows failed; the first, number %d of size %d: %s",
            len(failures), len(jobs), first.number, first.size, first.reason,
        )  # fmt: skip
    return found, failures


def window_of(image: npt.NDArray[Any] | Slab, places: dict[Job, npt.NDArray[np.int64]]) -> Any:
    """Function that cuts the window of a job; collective for an image in slabs."""
    if not isinstance(image, Slab):

        def cut(job: Job | None) -> npt.NDArray[Any] | None:
            if job is None:
                return None
            return image[tuple(slice(int(c), int(c) + job[0]) for c in places[job])]

        return cut

    def ask(job: Job | None) -> npt.NDArray[Any] | None:
        if job is None:
            image.at(np.zeros((0, image.dim), dtype=np.int64))
            return None
        offsets = np.indices((job[0],) * image.dim).reshape(image.dim, -1).T
        return image.at(places[job] + offsets).reshape((job[0],) * image.dim)

    return ask
