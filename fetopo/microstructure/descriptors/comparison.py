"""How different two periodic structures are, once they lie on each other as well as they can."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from fetopo.microstructure.descriptors._common import checked
from fetopo.microstructure.descriptors.connectivity import clusters, percolating_axes
from fetopo.microstructure.descriptors.correlation import TwoPointCorrelation, two_point_correlation
from fetopo.microstructure.descriptors.lineal import LinealPath, mean_lineal_path
from fetopo.microstructure.image import Mask, VoxelSize

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """A reflection or rotation of the grid: axes in another order, some of them turned round.

    Attributes:
        order: which old axis becomes axis 0, 1, …
        flips: new axes that are turned round.
    """

    order: tuple[int, ...]
    flips: tuple[int, ...]

    def apply(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The array moved."""
        return np.flip(np.transpose(values, self.order), self.flips)

    def matrix(self) -> Array:
        """The orthogonal matrix Q that takes a position x to Q x."""
        dim = len(self.order)
        Q = np.zeros((dim, dim))
        for new, old in enumerate(self.order):
            Q[new, old] = -1.0 if new in self.flips else 1.0
        return Q


def motions(
    shape: Sequence[int], sides: Sequence[float], tensor: npt.ArrayLike | None = None
) -> list[Motion]:
    """Reflections and rotations that keep a grid, the identity first.

    Args:
        shape, sides: of the grid and of its voxels; axes that differ are not exchanged.
        tensor: keep only those that leave this symmetric tensor as it is, Q T Qᵀ = T: two structures that one
            of them takes into each other have the same property.
    """
    dim, found = len(shape), []
    T = None if tensor is None else np.asarray(tensor, dtype=float)
    for order in itertools.permutations(range(dim)):
        if any(shape[a] != shape[b] or not np.isclose(sides[a], sides[b]) for a, b in enumerate(order)):
            continue
        for flips in itertools.chain.from_iterable(
            itertools.combinations(range(dim), n) for n in range(dim + 1)
        ):
            motion = Motion(order, flips)
            Q = motion.matrix()
            if T is None or np.allclose(Q @ T @ Q.T, T, atol=1e-9 * np.abs(T).max()):
                found.append(motion)
    return found


@dataclass(frozen=True)
class Alignment:
    """How a second structure lies best on a first one.

    Attributes:
        agreement: share of the voxels in which both are the same.
        distance: share in which they differ, relative to f₁(1 − f₂) + f₂(1 − f₁), which is what two
            independent structures with these volume fractions have on average: 0 for the same, about 1 for
            unrelated ones. Less than 1 for any two, as they are moved until they fit best.
        motion, shift: the second moved by the motion and then by so many voxels lies on the first.
    """

    agreement: float
    distance: float
    motion: Motion
    shift: tuple[int, ...]

    def apply(self, second: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The second structure, or anything on its grid, where it fits best."""
        return np.roll(self.motion.apply(second), self.shift, axis=tuple(range(second.ndim)))


def align(
    first: Mask,
    second: Mask,
    voxel_size: VoxelSize = 1.0,
    *,
    tensor: npt.ArrayLike | None = None,
    moved: bool = True,
) -> Alignment:
    """Move a periodic structure so that it agrees with another in as many voxels as possible.

    All translations at once, by the cross-correlation c(t) = Σ₁(x) 1₂(x − t), for each motion of the grid.

    Args:
        first, second: masks of one phase on the same grid, which goes on periodically.
        voxel_size: sides of a voxel [m].
        tensor: see :func:`motions`; default every motion of the grid.
        moved: False to compare the two where they are.
    Raises:
        ValueError: masks of different shapes.
    """
    sides = checked(first, voxel_size)
    checked(second, voxel_size)
    if first.shape != second.shape:
        raise ValueError(f"structures to compare need the same shape, found {first.shape} and {second.shape}")
    size, axes = first.size, tuple(range(first.ndim))
    a, b = int(np.count_nonzero(first)), int(np.count_nonzero(second))
    if moved:
        spectrum = fft.rfftn(first.astype(np.float64))
        best, found = -1.0, None
        for motion in motions(first.shape, sides, tensor):
            other = fft.rfftn(motion.apply(second).astype(np.float64))
            counts = fft.irfftn(spectrum * np.conj(other), s=first.shape, axes=axes)
            # Round-off must not choose between shifts that are equally good.
            counts = np.rint(counts)
            place = np.unravel_index(int(np.argmax(counts)), first.shape)
            if counts[place] > best:
                best, found = float(counts[place]), (motion, tuple(int(t) for t in place))
        assert found is not None
        both, (motion, shift) = best, found
    else:
        both = float(np.count_nonzero(first & second))
        motion, shift = Motion(axes, ()), (0,) * first.ndim
    agreement = (size - a - b + 2 * both) / size
    independent = (a * (size - b) + b * (size - a)) / size**2
    distance = (1 - agreement) / independent if independent > 0 else float(agreement < 1)
    return Alignment(float(agreement), float(distance), motion, shift)


@dataclass(frozen=True)
class StatisticsDifference:
    """How much two structures differ in what does not depend on where they lie.

    Attributes:
        two_point: root of the mean square of S₂ − S₂′ over distances, relative to f(1 − f) of the first.
        lineal_path: the same of the lineal path functions of both phases, relative to f and 1 − f.
        clusters: connected parts of the first and the second, for each phase: (good, poor).
        percolates: axes along which they percolate, likewise.
    """

    two_point: float
    lineal_path: float
    clusters: tuple[tuple[int, int], tuple[int, int]]
    percolates: tuple[tuple[tuple[bool, ...], ...], tuple[tuple[bool, ...], ...]]

    @property
    def same_topology(self) -> bool:
        """Whether both have the same number of parts and percolate along as many axes, phase by phase."""
        axes = [tuple(sum(phase) for phase in structure) for structure in self.percolates]
        return self.clusters[0] == self.clusters[1] and axes[0] == axes[1]


@dataclass(frozen=True)
class Statistics:
    """What of a periodic two-phase structure does not depend on where it lies.

    Attributes:
        fraction: volume fraction of the phase.
        two_point: S₂ of the phase and its distances r [m].
        lineal_path: L of the phase and of the other one, on multiples of the smallest side of a voxel.
        clusters: connected parts of the phase and of the other one.
        percolates: axes along which they percolate, likewise.
    """

    fraction: float
    two_point: TwoPointCorrelation
    lineal_path: tuple[LinealPath, LinealPath]
    clusters: tuple[int, int]
    percolates: tuple[tuple[bool, ...], tuple[bool, ...]]

    def difference(self, other: Statistics) -> StatisticsDifference:
        """How far another structure of the same grid is from this one."""
        f = self.fraction
        S = self.two_point.value - other.two_point.value
        two_point = float(np.sqrt(np.mean(S**2))) / max(f * (1 - f), 1e-300)
        lineal = 0.0
        for mine, others, share in zip(self.lineal_path, other.lineal_path, (f, 1 - f), strict=True):
            lineal += 0.5 * float(np.mean((mine.value - others.value) ** 2)) / max(share, 1e-300) ** 2
        return StatisticsDifference(
            two_point,
            float(np.sqrt(lineal)),
            (self.clusters, other.clusters),
            (self.percolates, other.percolates),
        )


def statistics(mask: Mask, voxel_size: VoxelSize = 1.0) -> Statistics:
    """S₂, lineal paths and clusters of a periodic structure.

    Args:
        mask: voxels of one phase; the rest is the other.
        voxel_size: sides of a voxel [m].
    Raises:
        ValueError: a mask that is no 2D or 3D array of booleans, or without voxels.
    """
    phases = (mask, ~mask)
    paths = [mean_lineal_path(phase, voxel_size, periodic=True) for phase in phases]
    parts = [clusters(phase, voxel_size, True).count for phase in phases]
    return Statistics(
        float(mask.mean()),
        two_point_correlation(mask, voxel_size, periodic=True),
        (paths[0], paths[1]),
        (parts[0], parts[1]),
        (_through(phases[0]), _through(phases[1])),
    )


def statistics_difference(first: Mask, second: Mask, voxel_size: VoxelSize = 1.0) -> StatisticsDifference:
    """Compare S₂, lineal paths and clusters of two periodic structures of the same grid.

    Raises:
        ValueError: another shape.
    """
    if first.shape != second.shape:
        raise ValueError(f"structures to compare need the same shape, found {first.shape} and {second.shape}")
    return statistics(first, voxel_size).difference(statistics(second, voxel_size))


def _through(mask: Mask) -> tuple[bool, ...]:
    """Whether a phase percolates along each axis."""
    return tuple(bool(v) for v in np.atleast_1d(percolating_axes(mask, True).any(axis=0)))


def families(
    structures: Sequence[Mask],
    voxel_size: VoxelSize = 1.0,
    *,
    distance: float = 0.25,
    tensor: npt.ArrayLike | None = None,
) -> list[list[int]]:
    """Group structures that are the same up to translation, reflection and rotation.

    A structure belongs to the first family whose first member is within `distance` of it; the others begin
    one of their own. Give the best structure first: it then stands for its family.

    Args:
        structures: masks on the same grid.
        voxel_size: sides of a voxel [m].
        distance: largest :attr:`Alignment.distance` within a family.
        tensor: see :func:`motions`.
    Returns:
        Numbers of the structures, family by family.
    Raises:
        ValueError: masks of different shapes, or a distance outside (0, 1).
    """
    if not 0 < distance < 1:
        raise ValueError(f"the distance within a family must lie between 0 and 1, found {distance}")

    def alike(i: int, j: int) -> bool:
        return align(structures[i], structures[j], voxel_size, tensor=tensor).distance <= distance

    return grouped(len(structures), alike)


def grouped(count: int, alike: Callable[[int, int], bool]) -> list[list[int]]:
    """Group numbers from 0: each belongs to the first family whose first member is like it, or begins one.

    Args:
        count: how many.
        alike: whether a second is like a first.
    """
    found: list[list[int]] = []
    for number in range(count):
        for family in found:
            if alike(family[0], number):
                family.append(number)
                break
        else:
            found.append([number])
    return found
