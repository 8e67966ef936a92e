"""What a reconstruction is to have: S₂, lineal path, chord lengths, as measured or as formulas."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import RegularGridInterpolator

from fetopo.microstructure.descriptors import (
    ChordLengths,
    LinealPath,
    TwoPointCorrelation,
    TwoPointMap,
    chord_lengths,
    lineal_path,
    two_point_map,
)
from fetopo.microstructure.descriptors._common import Field
from fetopo.microstructure.image import Image

Function = Callable[[Field], npt.ArrayLike]

LAGS = ("all", "radial", "neighbours", "axes")


@dataclass(frozen=True, eq=False)
class TwoPointTarget:
    """S₂ of phase 1 wanted for the lags up to a length; made by `match_two_point`.

    Args:
        source: S₂ against the length of the lag, against the lag vector, or either per axis.
        lags: Which lags are compared.
        reach: Longest lag [m]; None: a quarter of the shortest edge of the cell, or as far as is known.
        weight: Weight of its energy [-].
        maximal_lags: How many lags are compared at most.
    """

    source: Function | TwoPointCorrelation | TwoPointMap | Mapping[int, Function | TwoPointCorrelation]
    lags: str
    reach: float | None
    weight: float
    maximal_lags: int

    def values(self, lags: Field) -> Field:
        """S₂ at lag vectors [m], one per row; NaN where it is not known."""
        if isinstance(self.source, TwoPointMap):
            if len(self.source.lags) != lags.shape[1]:
                raise ValueError(
                    f"the map of S₂ has {len(self.source.lags)} axes: expected {lags.shape[1]}, as the cell"
                )
            return np.asarray(_interpolated(self.source)(lags))
        length = np.linalg.norm(lags, axis=1)
        if not isinstance(self.source, Mapping):
            return _table(self.source, length, "S₂")
        found = np.full(len(lags), math.nan)
        for axis, source in self.source.items():
            if axis >= lags.shape[1]:
                raise ValueError(f"S₂ is given for axis {axis}: expected 0 to {lags.shape[1] - 1}")
            along = np.abs(lags[:, axis]) >= length * (1.0 - 1e-12)
            found[along] = _table(source, length[along], f"S₂ along axis {axis}")
        return found


@dataclass(frozen=True, eq=False)
class LineTarget:
    """Lineal path or chords wanted; made by `match_lineal_path` and `match_chord_lengths`.

    Args:
        kind: "lineal path" or "chord lengths".
        source: What is wanted, per axis; the key −1 stands for every axis.
        phase: Phase whose segments or chords are meant, 0 or 1.
        reach: Longest segment [m]; None: as far as is known, at most half of the edge of the cell.
        weight: Weight of its energy [-].
    """

    kind: str
    source: Mapping[int, Function | LinealPath | ChordLengths]
    phase: int
    reach: float | None
    weight: float

    def along(self, axis: int) -> Function | LinealPath | ChordLengths | None:
        """What is wanted along an axis; None for nothing."""
        return self.source.get(axis, self.source.get(-1))


Target = TwoPointTarget | LineTarget


def match_two_point(
    source: Function | TwoPointCorrelation | TwoPointMap | Mapping[int, Function | TwoPointCorrelation],
    *,
    lags: str = "all",
    reach: float | None = None,
    weight: float = 1.0,
    maximal_lags: int = 1000,
) -> TwoPointTarget:
    """Ask for a two-point correlation S₂ of phase 1.

        E = Σ_r mean_h (S₂(h) − S₂*(h))² / Σ_r mean_h (S₂*(h) − φ²)²,   h in the shell of r

    with S₂* = φ at h = 0 in the denominator.

    Args:
        source: A function of an array of lengths [m], such as `lambda r: 0.25 + 0.25 * np.exp(-r / 5e-6)`
            (Debye's random medium); a result of `two_point_correlation` (isotropic) or of `two_point_map`
            (may be anisotropic); or a dictionary axis → function or result of `two_point_along`, which is
            compared for lags along those axes only.
        lags: "all" lag vectors one by one; "radial", their averages per shell; "neighbours", lags along the
            axes and diagonals; "axes". Averages and axes alone leave directions free, and what comes out is
            anisotropic though the target is not.
        reach: Longest lag [m]; None takes a quarter of the shortest edge of the cell, or what is known.
        weight: Weight of E among several targets [-].
        maximal_lags: Where "all" are more than so many, each shell keeps a random part of its lags in all
            directions: an exchange costs as much time as there are lags.

    Raises:
        ValueError: `lags`, `reach`, `maximal_lags` or `weight` is out of range, or an axis is not there.

    Source:
        Yeong, Torquato, Phys. Rev. E 57, 495 (1998), doi:10.1103/PhysRevE.57.495; all directions: Jiao,
        Stillinger, Torquato, Phys. Rev. E 77, 031135 (2008), doi:10.1103/PhysRevE.77.031135.
    """
    _check_numbers(reach, weight)
    if lags not in LAGS:
        raise ValueError(f"lags is {lags!r}: expected one of {', '.join(LAGS)}")
    if isinstance(source, Mapping):
        _check_axes(source)
        lags = "axes"
    if maximal_lags < 1:
        raise ValueError(f"maximal_lags is {maximal_lags}: expected 1 or more")
    return TwoPointTarget(source, lags, reach, weight, maximal_lags)


def match_lineal_path(
    source: Function | LinealPath | Mapping[int, Function | LinealPath],
    *,
    phase: int = 1,
    reach: float | None = None,
    weight: float = 1.0,
) -> LineTarget:
    """Ask for a lineal-path function L along the axes.

        E = Σ_axes Σ_k (L(kh) − L*(kh))² / Σ_axes Σ_k L*(kh)²

    Args:
        source: A function of an array of lengths [m], a result of `lineal_path` or `mean_lineal_path`, or a
            dictionary axis → either. Without a dictionary it holds along every axis.
        phase: Phase in which the segments lie, 1 or 0.
        reach: Longest segment [m]; None takes half of the edge of the cell, or what is known.
        weight: Weight of E among several targets [-].

    Raises:
        ValueError: `phase`, `reach` or `weight` is out of range, or an axis is not there.
    """
    return _line_target("lineal path", source, phase, reach, weight)


def match_chord_lengths(
    source: Function | ChordLengths | Mapping[int, Function | ChordLengths],
    *,
    phase: int = 1,
    reach: float | None = None,
    weight: float = 1.0,
) -> LineTarget:
    """Ask for a distribution of chord lengths along the axes, by the number G(ℓ) of chords longer than ℓ.

        E = Σ_axes Σ_k (G(kh) − G*(kh))² / Σ_axes Σ_k G*(kh)²,   G* = φ h P(chord > ℓ) / mean chord

    per voxel. The counts of single lengths are small whole numbers, which their sums average.

    Args:
        source: A function of an array of lengths [m] proportional to the density of the chord lengths, a
            result of `chord_lengths`, or a dictionary axis → either. Without a dictionary it holds along
            every axis.
        phase: Phase of the chords, 1 or 0.
        reach: Longest chord compared [m]; None takes half of the edge of the cell, or what is known.
        weight: Weight of E among several targets [-].

    Raises:
        ValueError: `phase`, `reach` or `weight` is out of range, or an axis is not there.
    """
    return _line_target("chord lengths", source, phase, reach, weight)


def targets_from(
    image: Image,
    phase: int | Iterable[int],
    *,
    two_point: float = 1.0,
    lineal_path: float = 0.0,
    chord_lengths: float = 0.0,
    lags: str = "all",
    periodic: bool = False,
    reach: float | None = None,
) -> list[Target]:
    """Ask for what an image has: its map of S₂, and lineal paths and chords of the phase along each axis.

    Args:
        image: The image.
        phase: Label of the phase that becomes phase 1, or several.
        two_point: Weight of S₂ [-]; 0 leaves it out.
        lineal_path: Weight of the lineal path [-].
        chord_lengths: Weight of the chord lengths [-].
        lags: Which lags of S₂ are compared, see `match_two_point`.
        periodic: The image is a periodic cell.
        reach: Longest lag of S₂ [m].

    Returns:
        The targets.

    Raises:
        ValueError: A label is not there, or no weight is positive.
    """
    mask, sides = image.mask(phase), image.voxel_size
    axes = range(image.dim)
    targets: list[Target] = []
    if two_point:
        found = two_point_map(mask, sides, periodic)
        targets.append(match_two_point(found, lags=lags, reach=reach, weight=two_point))
    if lineal_path:
        paths = {a: _lineal_path(mask, sides, a, periodic) for a in axes}
        targets.append(match_lineal_path(paths, weight=lineal_path))
    if chord_lengths:
        chords = {a: _chord_lengths(mask, sides, a, periodic) for a in axes}
        targets.append(match_chord_lengths(chords, weight=chord_lengths))
    if not targets:
        raise ValueError("two_point, lineal_path and chord_lengths are 0: expected a weight above 0")
    return targets


_lineal_path, _chord_lengths = lineal_path, chord_lengths


def _line_target(
    kind: str,
    source: Function | LinealPath | ChordLengths | Mapping[int, Function | LinealPath | ChordLengths],
    phase: int,
    reach: float | None,
    weight: float,
) -> LineTarget:
    _check_numbers(reach, weight)
    if phase not in (0, 1):
        raise ValueError(f"phase is {phase}: expected 0 or 1")
    if not isinstance(source, Mapping):
        source = {-1: source}
    else:
        _check_axes(source)
    return LineTarget(kind, source, phase, reach, weight)


def _check_numbers(reach: float | None, weight: float) -> None:
    if not 0.0 < weight < math.inf:
        raise ValueError(f"weight is {weight}: expected a positive number")
    if reach is not None and not 0.0 < reach < math.inf:
        raise ValueError(f"reach is {reach}: expected a positive length in metres")


def _check_axes(source: Mapping[int, object]) -> None:
    if not source or any(axis not in (0, 1, 2) for axis in source):
        raise ValueError(f"axes are {list(source)}: expected some of 0, 1, 2")


def _table(source: Function | TwoPointCorrelation, length: Field, name: str) -> Field:
    """Values at some lengths; NaN beyond a measured table."""
    if isinstance(source, TwoPointCorrelation):
        return np.interp(length, source.r, source.value, right=math.nan)
    return evaluated(source, length, name)


def evaluated(function: Function, length: Field, name: str) -> Field:
    """A formula at some lengths.

    Raises:
        ValueError: It does not give one finite number per length.
    """
    values = np.asarray(function(length), dtype=float)
    if values.shape not in ((), length.shape):
        raise ValueError(f"{name} returns an array of shape {values.shape}: expected {length.shape}")
    values = np.broadcast_to(values, length.shape)
    if not np.isfinite(values).all():
        wrong = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"{name} is {values[wrong]} at {length[wrong]:g} m: expected finite values")
    return values


def _interpolated(found: TwoPointMap) -> RegularGridInterpolator:
    """A map for any lag: linear between its own, exact on them, NaN beyond."""
    lags, value = list(found.lags), found.value
    for axis, lag in enumerate(lags):
        if lag.size > 1 and abs(lag[0]) > lag[-1] * (1.0 + 1e-9):  # one period of even length lacks +N/2
            lags[axis] = np.append(lag, -lag[0])
            value = np.concatenate([value, value.take([0], axis)], axis)
    # Lags are multiples of the side of a voxel, up to rounding at the last one.
    lags = [lag * (1.0 + 1e-12) for lag in lags]
    return RegularGridInterpolator(lags, value, bounds_error=False, fill_value=math.nan)
