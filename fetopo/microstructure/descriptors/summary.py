"""All that `fetopo characterize` says of a phase."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fetopo._json import plain
from fetopo._mpi import on_every_rank
from fetopo.microstructure.descriptors.connectivity import (
    Clusters,
    TwoPointCluster,
    clusters,
    two_point_cluster,
)
from fetopo.microstructure.descriptors.correlation import (
    CrossCorrelations,
    TwoPointCorrelation,
    cross_correlations,
    two_point_correlation,
)
from fetopo.microstructure.descriptors.lineal import (
    ChordLengths,
    LinealPath,
    chord_lengths,
    grid_of_lengths,
    lineal_path,
)
from fetopo.microstructure.descriptors.orientation import Anisotropy, anisotropy
from fetopo.microstructure.descriptors.pores import PoreSizes, pore_sizes
from fetopo.microstructure.descriptors.surface import (
    SurfaceFromCorrelation,
    specific_surface,
    surface_from_correlation,
)
from fetopo.microstructure.image import Image, Mask

PORES_SIZE = 2**23
"""Voxels up to which pore sizes are found without being asked for: some ten seconds, half a gigabyte."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Summary:
    """Descriptors of a phase of an image that is not periodic.

    Args:
        shape: Voxels along each axis.
        voxel_size: Side of a voxel [m per axis].
        fraction: Volume fraction of the phase [-].
        volume_fractions: That of every label [-].
        two_point_correlation: S₂.
        lineal_path: L per axis.
        chord_lengths: Chords per axis.
        specific_surface: By Crofton's formula [1/m].
        clusters: Connected parts.
        surface: Specific surface from the slope of S₂; None for images thinner than three voxels.
        anisotropy: None for images thinner than three voxels or of one phase.
        pore_sizes: None where not asked for, or for images of one phase.
        two_point_cluster: C₂, None where not asked for.
        cross_correlations: S_ij of all labels, None where not asked for.
    """

    shape: tuple[int, ...]
    voxel_size: tuple[float, ...]
    fraction: float
    volume_fractions: dict[int, float]
    two_point_correlation: TwoPointCorrelation
    lineal_path: tuple[LinealPath, ...]
    chord_lengths: tuple[ChordLengths, ...]
    specific_surface: float
    clusters: Clusters
    surface: SurfaceFromCorrelation | None = None
    anisotropy: Anisotropy | None = None
    pore_sizes: PoreSizes | None = None
    two_point_cluster: TwoPointCluster | None = None
    cross_correlations: CrossCorrelations | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in metres, as `characterize` lists them."""
        r = grid_of_lengths(self.shape, self.voxel_size)
        chords, parts, sizes = self.chord_lengths, self.clusters, self.pore_sizes
        values: dict[str, Any] = {
            "shape": self.shape,
            "voxel_size": self.voxel_size,
            "porosity": self.fraction,
            "volume_fractions": self.volume_fractions,
            "percolating_fraction": parts.percolating_fraction,
            "mean_chord_length": [found.mean for found in chords],
            "specific_surface": self.specific_surface,
            "two_point_correlation": self.two_point_correlation.to_dict(),
            "lineal_path": {"r": r, "value": [np.interp(r, path.r, path.value) for path in self.lineal_path]},
            "chord_lengths": {
                "median": [found.quantile(0.5) for found in chords],
                "deviation": [found.deviation for found in chords],
                "count": [found.count.sum() for found in chords],
                "cut": [found.cut for found in chords],
            },
            "specific_surface_from_correlation": None if self.surface is None else self.surface.value,
            "clusters": {
                "count": parts.count,
                "largest_fraction": parts.largest_fraction,
                "mean_size": parts.mean_size,
                "percolating_count": parts.percolating_count,
            },
            "anisotropy": None if self.anisotropy is None else self.anisotropy.to_dict(),
            "pore_sizes": None,
        }
        if sizes is not None:
            quantiles = {f"d{share}": sizes.quantile(share / 100.0) for share in (10, 50, 90)}
            values["pore_sizes"] = {**quantiles, **sizes.to_dict()}
        for name in ("two_point_cluster", "cross_correlations"):
            found = getattr(self, name)
            if found is not None:
                values[name] = found.to_dict()
        return dict(plain(values))


def volume_fractions(image: Image) -> dict[int, float]:
    """Volume fraction [-] of every label of an image."""
    return image.phases


def summarize(
    image: Image,
    phase: int | Iterable[int],
    *,
    pores: bool | None = None,
    cluster_function: bool = False,
    cross: bool = False,
    comm: Any = None,
    progress: Progress | None = None,
) -> Summary:
    """Descriptors of a phase as results that convert and plot; see `characterize`.

    Args:
        image: The image, taken as not periodic; under MPI the same on every rank.
        phase: Label of the phase, or several that count as one.
        pores: Find pore sizes; None does for images of up to 2²³ voxels.
        cluster_function: Find C₂.
        cross: Find the correlations between all labels.
        comm: Ranks that share the work out, one descriptor each at a time. Collective.
        progress: Called with a name, how many descriptors this rank has done, and how many it will do.

    Raises:
        ValueError: The phase does not occur in the image, or correlations between labels are asked for where
            there is one only; on every rank.
    """
    mask = image.mask(phase)
    if cross and len(image.phases) < 2:
        raise ValueError(f"correlations between phases: the image has {list(image.phases)} only")
    fraction = int(np.count_nonzero(mask)) / mask.size
    jobs = _jobs(image, mask, fraction, pores, cluster_function, cross)
    rank, size = (0, 1) if comm is None else (comm.rank, comm.size)
    own = list(jobs.items())[rank::size]
    found: dict[str, Any] = {}

    def work() -> None:
        for k, (name, job) in enumerate(own):
            if progress is not None:
                progress(name.replace("_", " "), k, len(own))
            found[name] = job()
        if progress is not None:
            progress("done", len(own), len(own))

    if comm is None:
        work()
    else:
        with on_every_rank(comm):
            work()
        found = {name: result for part in comm.allgather(found) for name, result in part.items()}
    return Summary(image.shape, image.voxel_size, fraction, volume_fractions(image), **found)


def _jobs(
    image: Image, mask: Mask, fraction: float, pores: bool | None, cluster_function: bool, cross: bool
) -> dict[str, Callable[[], Any]]:
    """What there is to do, the longest first: ranks take turns."""
    sides, axes = image.voxel_size, range(image.dim)
    two, thick = fraction < 1.0, min(image.shape) >= 3
    jobs: dict[str, Callable[[], Any]] = {}
    if cluster_function:
        jobs["two_point_cluster"] = partial(two_point_cluster, mask, sides)
    if cross:
        jobs["cross_correlations"] = partial(cross_correlations, image)
    if two and (pores or (pores is None and mask.size <= PORES_SIZE)):
        jobs["pore_sizes"] = partial(pore_sizes, mask, sides)
    jobs["two_point_correlation"] = partial(two_point_correlation, mask, sides)
    if two and thick:
        jobs["anisotropy"] = partial(anisotropy, mask, sides)
    jobs["clusters"] = partial(clusters, mask, sides)
    jobs["chord_lengths"] = lambda: tuple(chord_lengths(mask, sides, axis) for axis in axes)
    jobs["lineal_path"] = lambda: tuple(lineal_path(mask, sides, axis) for axis in axes)
    if thick:
        jobs["surface"] = partial(surface_from_correlation, mask, sides)
    jobs["specific_surface"] = partial(specific_surface, mask, sides)
    return jobs


def characterize(image: Image, phase: int | Iterable[int], **options: Any) -> dict[str, Any]:
    """Descriptors of a phase as one dictionary of plain values, ready for JSON (`fetopo characterize`).

    Args:
        image: The image, taken as not periodic.
        phase: Label of the phase, or several that count as one.
        **options: `pores`, `cluster_function`, `cross`, `comm` and `progress`, as for `summarize`.

    Returns:
        shape, voxel_size [m per axis], porosity (volume fraction of the phase) [-],
        volume_fractions {label: [-]}, percolating_fraction [axis], mean_chord_length [m per axis, None where
        no chord is complete], specific_surface [1/m], two_point_correlation {r [m], value}, lineal_path {r
        [m], value [axis]} up to half of the smallest side, on multiples of the smallest side of a voxel
        (linear in between for other axes), chord_lengths {median [m per axis], deviation, count, cut},
        specific_surface_from_correlation [1/m], clusters {count, largest_fraction, mean_size [m³ (m²)],
        percolating_count [axis]}, anisotropy (see `Anisotropy`), pore_sizes {d10, d50, d90, mean, deviation,
        diameter, cumulative} [m] or None, and where asked for two_point_cluster and cross_correlations.

    Raises:
        ValueError: The phase does not occur in the image.
    """
    return summarize(image, phase, **options).to_dict()
