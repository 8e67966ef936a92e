"""Hard discs and spheres in a periodic cell, and their regular arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from fetopo.microstructure.generate._cell import Field, ball_volume, cell_of, check_fraction
from fetopo.microstructure.generate._spheres import nearest_voxels
from fetopo.microstructure.image import Image

TOUCHING = 1e-9
"""Overlap of two spheres over the sum of their radii that still counts as a contact."""

ARRAYS: dict[str, tuple[tuple[float, ...], tuple[tuple[float, ...], ...], float]] = {
    "square": ((1.0, 1.0), ((0.0, 0.0),), 1.0),
    "hexagonal": ((1.0, math.sqrt(3.0)), ((0.0, 0.0), (0.5, 0.5)), 1.0),
    "sc": ((1.0,) * 3, ((0.0, 0.0, 0.0),), 1.0),
    "bcc": ((1.0,) * 3, ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)), math.sqrt(0.75)),
    "fcc": ((1.0,) * 3, ((0.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5)), math.sqrt(0.5)),
}
"""Edges of the conventional cell, centres as shares of them, and distance of nearest centres."""


@dataclass(frozen=True, eq=False)
class Packing:
    """Discs (2D) or spheres (3D) that do not overlap, in a periodic cell that starts at the origin.

    `geometry.inclusion_cell(comm, packing, mesh_size=…)` meshes it.

    Args:
        centers: Points [m], shape (n, d); those outside of the cell are brought back into it.
        radii: Radii [m], n of them, or one for all.
        lengths: Edges of the cell [m].

    Raises:
        ValueError: Shapes that do not fit, lengths that are not positive, spheres that overlap (each other or
            themselves, across the cell) by more than 1e-9 of the sum of their radii.
    """

    centers: Field
    radii: Field
    lengths: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = np.array(cell_lengths(self.lengths))
        centers = np.array(self.centers, dtype=float)
        if centers.ndim != 2 or centers.shape[1] != lengths.size or not centers.shape[0]:
            raise ValueError(f"centers have shape {centers.shape}: expected (n, {lengths.size}) with n ≥ 1")
        if not np.isfinite(centers).all():
            raise ValueError("centers hold NaN or infinity: expected finite points")
        radii = np.array(self.radii, dtype=float)
        if radii.shape not in ((), (len(centers),)):
            raise ValueError(f"radii have shape {radii.shape}: expected one number or ({len(centers)},)")
        if not (np.isfinite(radii).all() and (radii > 0).all()):
            raise ValueError(f"radii hold {radii.min():g}: expected positive finite lengths")
        radii = np.array(np.broadcast_to(radii, (len(centers),)))
        centers = wrapped(centers, lengths)
        overlap = largest_overlap(centers, radii, lengths)
        if overlap > TOUCHING:
            raise ValueError(f"spheres overlap by {overlap:.3g} of the sum of their radii: expected none")
        for array in (centers, radii):
            array.flags.writeable = False
        object.__setattr__(self, "centers", centers)
        object.__setattr__(self, "radii", radii)
        object.__setattr__(self, "lengths", tuple(float(edge) for edge in lengths))

    @property
    def dim(self) -> int:
        """Number of axes, 2 or 3."""
        return len(self.lengths)

    @property
    def volume_fraction(self) -> float:
        """Share of the cell in the spheres [-]."""
        return ball_volume(self.dim) * float(np.sum(self.radii**self.dim)) / math.prod(self.lengths)

    def to_image(self, shape: Sequence[int]) -> Image:
        """Voxel image: 1 where |x − c_i|/R_i is smallest at the centre of the voxel, 0 elsewhere.

        As many voxels are 1 as the volume fraction asks for, to one voxel. On a coarse grid this amounts to a
        small change of all radii by one factor.

        Args:
            shape: Voxels along each axis; the voxel size is `lengths` over it.

        Raises:
            ValueError: Another number of axes, or a grid too coarse to show both phases.
        """
        if len(shape) != self.dim:
            raise ValueError(f"shape is {tuple(shape)}: expected {self.dim} numbers of voxels")
        shape, _ = cell_of(shape, 1.0)
        size = math.prod(shape)
        count = round(self.volume_fraction * size)
        if not 0 < count < size:
            raise ValueError(
                f"shape is {shape}: expected voxels that can show a fraction of {self.volume_fraction:g}"
            )
        sides = tuple(edge / n for edge, n in zip(self.lengths, shape, strict=True))
        return Image(nearest_voxels(shape, sides, self.centers, self.radii, count)[0], sides)


def regular_array(
    kind: str, *, volume_fraction: float, cell_length: float = 1.0e-6, periods: int | Sequence[int] = 1
) -> Packing:
    """Equal discs or spheres on a lattice.

    They touch at the fraction π/4 (square), π/(2√3) (hexagonal), π/6 (sc), π√3/8 (bcc), π√2/6 (fcc).

    Args:
        kind: "square" or "hexagonal" (2D), "sc", "bcc" or "fcc" (3D). The hexagonal cell is a rectangle with
            edges 1 : √3 and two discs; bcc and fcc have the cubic cell with two and four spheres.
        volume_fraction: Fraction of the discs or spheres [-], at most where they touch.
        cell_length: First edge of the conventional cell [m].
        periods: How often that cell repeats along each axis.

    Returns:
        The packing; its cell is the conventional one times the periods.

    Raises:
        ValueError: Unknown kind, or a value out of range.
    """
    if kind not in ARRAYS:
        raise ValueError(f"kind is {kind!r}: expected one of {', '.join(ARRAYS)}")
    edges, shares, nearest = ARRAYS[kind]
    dim, number = len(edges), len(shares)
    check_fraction("volume_fraction", volume_fraction)
    limit = number * ball_volume(dim) * (nearest / 2.0) ** dim / math.prod(edges)
    if volume_fraction > limit * (1.0 + TOUCHING):
        raise ValueError(
            f"volume_fraction is {volume_fraction}: expected at most {limit:.6g}, "
            f"where the {kind} array touches"
        )
    if not (math.isfinite(cell_length) and cell_length > 0.0):
        raise ValueError(f"cell_length is {cell_length}: expected a positive finite length in metres")
    repeats = (periods,) * dim if isinstance(periods, int) else tuple(periods)
    if len(repeats) != dim or any(int(n) != n or n < 1 for n in repeats):
        raise ValueError(f"periods is {periods}: expected one positive whole number or {dim}")
    radius = min(nearest / 2.0, (volume_fraction * math.prod(edges) / number / ball_volume(dim)) ** (1 / dim))
    corners = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), axis=-1).reshape(-1, 1, dim)
    centers = ((corners + np.array(shares)) * edges).reshape(-1, dim) * cell_length
    lengths = tuple(cell_length * n * edge for n, edge in zip(repeats, edges, strict=True))
    return Packing(centers, np.full(len(centers), radius * cell_length), lengths)


def cell_lengths(lengths: Sequence[float]) -> tuple[float, ...]:
    """Edges of a cell in 2D or 3D.

    Raises:
        ValueError: Not two or three positive finite numbers.
    """
    edges = np.atleast_1d(np.asarray(lengths, dtype=float))
    if edges.shape not in ((2,), (3,)) or not (np.isfinite(edges).all() and (edges > 0).all()):
        raise ValueError(f"lengths is {lengths}: expected 2 or 3 positive finite lengths in metres")
    return tuple(float(edge) for edge in edges)


def wrapped(points: Field, lengths: Field) -> Field:
    """Points brought into the cell [0, L)."""
    points = np.mod(points, lengths)
    points[points >= lengths] = 0.0  # np.mod of a tiny negative number
    return points


def near_pairs(centers: Field, radii: Field, lengths: Field, skin: float) -> tuple[npt.NDArray[np.intp], ...]:
    """Indices i < j of spheres whose surfaces are nearer than `skin` (periodic), in one fixed order."""
    tree = cKDTree(wrapped(centers, lengths), boxsize=lengths)
    i, j = tree.query_pairs(2.0 * float(radii.max()) + skin, output_type="ndarray").T
    gap = separation(centers, i, j, lengths)
    near = np.sqrt((gap**2).sum(axis=1)) < radii[i] + radii[j] + skin
    i, j = i[near], j[near]
    order = np.lexsort((j, i))
    return i[order], j[order]


def separation(centers: Field, i: npt.NDArray[np.intp], j: npt.NDArray[np.intp], lengths: Field) -> Field:
    """Vectors from the centres j to the nearest images of the centres i."""
    gap = centers[i] - centers[j]
    return gap - lengths * np.rint(gap / lengths)


def largest_overlap(centers: Field, radii: Field, lengths: Field) -> float:
    """Largest 1 − |c_i − c_j|/(R_i + R_j) over all pairs and images, at least 0."""
    itself = 1.0 - float(lengths.min()) / (2.0 * float(radii.max()))
    i, j = near_pairs(centers, radii, lengths, 0.0)
    distance = np.sqrt((separation(centers, i, j, lengths) ** 2).sum(axis=1))
    return float(np.max(1.0 - distance / (radii[i] + radii[j]), initial=max(0.0, itself)))
