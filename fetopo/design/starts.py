"""Several first designs for one problem: random fields, generated media, reconstructions, images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from scipy import ndimage

from fetopo.design.initial import from_field
from fetopo.microstructure import generate
from fetopo.microstructure.image import Image
from fetopo.microstructure.reconstruction import Annealing, match_two_point, reconstruct, targets_from

Array = npt.NDArray[np.float64]

#: Lengths of the generated media relative to the shortest edge of the cell.
LENGTHS = (1 / 4, 1 / 8, 1 / 6, 1 / 12)

#: A start need not have its descriptors to three digits.
_ROUGH = Annealing(tolerance=1e-3, maximal_sweeps=60.0)


@dataclass(frozen=True)
class Start:
    """Where one of several designs begins.

    Attributes:
        name: says what it is and, where that takes a length or a seed, which.
        make: the first density, an array over the whole grid, or the name of a field that
            :func:`fetopo.design.cell.design_cell` knows. Called by the ranks that design from it.
    """

    name: str
    make: Callable[[], Array | str]


def starts(
    shape: Sequence[int],
    lengths: Sequence[float],
    volume_fraction: float,
    count: int,
    *,
    first: Start | None = None,
    images: Mapping[str, Array] | None = None,
    shortest: float = 0.0,
    seed: int = 0,
) -> list[Start]:
    """Different first designs for one cell; the first n of them are the same for any count ≥ n.

    After the `first` come the images, then a reconstruction of each (S₂ and lineal path), then in turn, with
    lengths from a quarter to a twelfth of the shortest edge,

    | start | what has the length a |
    |---|---|
    | random field | a Gaussian field of covariance exp(−(r/a)²), cut at the volume fraction |
    | discs, spheres | radius of discs or spheres that overlap at random, of the better material |
    | reconstruction | a medium with Debye's S₂ = f² + f(1 − f) exp(−r/a) |
    | voids between discs, spheres | the same with the materials exchanged |
    | waves | a field of waves of one length, as after spinodal decomposition |

    All are smoothed over a voxel, have the volume fraction f in the mean and leave 0 and 1 to the optimizer.

    Args:
        shape, lengths: voxels and edges of the cell.
        volume_fraction: f of the better material.
        count: how many.
        first: default the inclusions of :func:`fetopo.design.initial.inclusion_field`.
        images: by name, how much of the better material there is in each voxel.
        shortest: no generated medium has a length below this, as the filter of the design would remove it.
        seed: of the first random start; each further one has the next.
    Raises:
        ValueError: fewer than one start, or an image that does not have the shape of the cell.
    """
    if count < 1:
        raise ValueError(f"at least one start is needed, found {count}")
    shape = tuple(int(n) for n in shape)
    for name, values in (images or {}).items():
        if values.shape != shape:
            raise ValueError(f"{name} needs the shape of the cell, {shape}, found {values.shape}")
    sequence = _sequence(shape, tuple(lengths), volume_fraction, images or {}, shortest, seed)
    head = Start("inclusions", lambda: "inclusions") if first is None else first
    return [head, *(start for start, _ in zip(sequence, range(count - 1), strict=False))]


def _sequence(
    shape: tuple[int, ...],
    lengths: tuple[float, ...],
    f: float,
    images: Mapping[str, Array],
    shortest: float,
    seed: int,
) -> Iterator[Start]:
    """Starts after the first, without end."""
    sides = tuple(a / n for a, n in zip(lengths, shape, strict=True))
    for name, values in images.items():
        yield Start(f"image {name}", partial(density, values, f))
    for name, values in images.items():
        seed += 1
        yield Start(f"reconstruction of {name}, seed {seed}", partial(_like, values >= 0.5, sides, f, seed))
    # A generator takes at most a quarter of the cell and at least a voxel or two.
    longest, least = min(lengths) / 4, max(shortest, 2 * max(sides))
    number = 0
    while True:
        seed += 1
        flat, solid, make = _KINDS[number % len(_KINDS)]
        length = min(max(LENGTHS[number % len(LENGTHS)] * min(lengths), least), longest)
        name = flat if len(shape) == 2 else solid
        yield Start(
            f"{name}, length {length:.3g}, seed {seed}",
            partial(_medium, make, shape, sides, f, length, seed),
        )
        number += 1


def density(field: npt.ArrayLike, volume_fraction: float) -> Array:
    """A first density that is high where a field on the grid is high; see :func:`from_field`."""
    smooth = ndimage.gaussian_filter(np.asarray(field, dtype=float), 1.0, mode="wrap")
    volumes = np.full(smooth.size, 1.0 / smooth.size)
    return from_field(smooth.ravel(), volumes, volume_fraction, MPI.COMM_SELF).reshape(smooth.shape)


def _medium(
    make: Callable[..., npt.ArrayLike],
    shape: tuple[int, ...],
    sides: tuple[float, ...],
    f: float,
    length: float,
    seed: int,
) -> Array:
    return density(make(shape, sides, f, length, seed), f)


def _random(
    shape: tuple[int, ...], sides: tuple[float, ...], f: float, length: float, seed: int
) -> npt.ArrayLike:
    return generate.gaussian_field(
        shape, volume_fraction=f, correlation_length=length, seed=seed, voxel_size=sides
    ).labels


def _waves(
    shape: tuple[int, ...], sides: tuple[float, ...], f: float, length: float, seed: int
) -> npt.ArrayLike:
    return generate.gaussian_field(
        shape, volume_fraction=f, correlation_length=length, spectrum="spinodal", seed=seed, voxel_size=sides
    ).labels


def _spheres(
    shape: tuple[int, ...], sides: tuple[float, ...], f: float, length: float, seed: int
) -> npt.ArrayLike:
    return generate.overlapping_spheres(
        shape, volume_fraction=f, radius=length, seed=seed, voxel_size=sides
    ).labels


def _voids(
    shape: tuple[int, ...], sides: tuple[float, ...], f: float, length: float, seed: int
) -> npt.ArrayLike:
    return 1 - np.asarray(_spheres(shape, sides, 1 - f, length, seed))


def _debye(
    shape: tuple[int, ...], sides: tuple[float, ...], f: float, length: float, seed: int
) -> npt.ArrayLike:
    wanted = match_two_point(lambda r: f * f + f * (1 - f) * np.exp(-r / length))
    return reconstruct(
        shape, [wanted], volume_fraction=f, voxel_size=sides, seed=seed, options=_ROUGH
    ).image.labels


def _like(mask: npt.NDArray[np.bool_], sides: tuple[float, ...], f: float, seed: int) -> Array:
    """A medium with S₂ and lineal path of another, brought to the volume fraction."""
    targets = targets_from(Image(mask.astype(np.uint8), sides), 1, lineal_path=1.0, periodic=True)
    return density(
        reconstruct(mask.shape, targets, voxel_size=sides, seed=seed, options=_ROUGH).image.labels, f
    )


_KINDS: tuple[tuple[str, str, Callable[..., npt.ArrayLike]], ...] = (
    ("random field", "random field", _random),
    ("discs", "spheres", _spheres),
    ("reconstruction", "reconstruction", _debye),
    ("voids between discs", "voids between spheres", _voids),
    ("waves", "waves", _waves),
)
