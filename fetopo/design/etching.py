"""What an etching error does to a finished structure: its interface moved by a length, meshed and solved.

Nothing here knows of projections: the structure is taken as it is, the distance to its interface measured,
and the level set of that distance meshed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from dolfinx import fem
from scipy import ndimage
from scipy.spatial import KDTree

from fetopo._mpi import get_logger
from fetopo.design.loads import HeatState, LoadCase, by_phase
from fetopo.design.model import CellModel
from fetopo.design.realize import NAMES, interface_field
from fetopo.microstructure.mesh import UnitCell, fitted_cell, regular_cell, voxel_cell
from fetopo.transport.homogenization import effective_conductivity
from fetopo.transport.quadrature import measure
from fetopo.transport.state import global_sum

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: Width of the ramp that a signed distance becomes for the mesh, in voxels of the design to either side.
_RAMP = 2.0


@dataclass(frozen=True)
class SignedDistance:
    """The signed distance to the interface of a structure, on a grid finer than that of the design.

    Attributes:
        distance: positive inside the phase with ρ = 1, in the unit of `lengths`; axis 0 is x.
        lengths: edges of the box.
        periodic: whether the structure goes on beyond the faces as a periodic cell; else as a mirror image.
        refinement: voxels of the fine grid per voxel of the design along each axis.
    """

    distance: Array
    lengths: tuple[float, ...]
    periodic: bool
    refinement: int

    @property
    def sides(self) -> tuple[float, ...]:
        """Edges of a voxel of the fine grid."""
        return tuple(a / n for a, n in zip(self.lengths, self.distance.shape, strict=True))

    def etched(self, error: float | Array = 0.0) -> Mask:
        """Where the phase with ρ = 1 is after its interface has moved inward by an error, on the fine grid.

        Args:
            error: length, or an array of lengths on the fine grid; negative where the phase grows.
        """
        return np.asarray(self.distance > error)

    def smallest_feature(self, phase: Literal[0, 1]) -> float:
        """Width of the thinnest feature of a phase, see :func:`smallest_feature`."""
        inside = self.distance if phase == 1 else -self.distance
        return smallest_feature(inside, self.sides, periodic=self.periodic)

    def cell(self, comm: Any, error: float | Array = 0.0, mesh_size: float | None = None) -> UnitCell:
        """A mesh of the structure after an error, with phases "poor" and "good". Collective.

        Args:
            comm: communicator to distribute the mesh over.
            error: as for :meth:`etched`.
            mesh_size: edge of the fitted mesh's lattice; default one voxel of the design.
        Returns:
            A mesh that follows the interface; voxels where it is too fine for that; one phase if the other
            is gone.
        """
        left = self.etched(error)
        coarse = [n // self.refinement for n in left.shape]
        voxel = max(self.lengths) / max(coarse)
        if left.all() or not left.any():
            bare = regular_cell(comm, coarse, self.lengths)
            return replace(bare, phases={NAMES[int(left.all())]: 1})
        ramp = np.clip(0.5 + (self.distance - error) / (2 * _RAMP * voxel), 0.0, 1.0)
        try:
            return fitted_cell(
                comm,
                ramp,
                None,
                self.sides,
                periodic=self.periodic,
                mesh_size=mesh_size or voxel,
                names=NAMES,
            )
        except (ValueError, RuntimeError) as wrong:
            get_logger(__name__, comm).warning("no fitted mesh, the voxels are meshed: %s", wrong)
            cell = voxel_cell(comm, left.astype(np.uint8), self.sides)
            return replace(cell, phases={NAMES[tag]: tag for tag in cell.tags()})


def interface_of(
    field: Array,
    fraction: float,
    lengths: Sequence[float],
    *,
    periodic: bool = True,
    refinement: int | None = None,
) -> SignedDistance:
    """The signed distance to a level set of a smooth field.

    Args:
        field: values at voxel centres, 2D or 3D, the phase being where they are high.
        fraction: of the volume that the phase fills; the level is chosen so.
        lengths: edges of the box.
        periodic: whether the field is; else it is mirrored at the faces.
        refinement: voxels are split so many times along each axis, by cubic splines of the field; default 4,
            in 3D 2.
    Raises:
        ValueError: a fraction that is not between 0 and 1, or a field of one value.
    """
    values = np.asarray(field, dtype=float)
    if not (0 < fraction < 1 and np.ptp(values) > 0):
        raise ValueError(f"a structure needs two phases, found the volume fraction {fraction:g}")
    refinement = refinement or (4 if values.ndim == 2 else 2)
    mode = "grid-wrap" if periodic else "reflect"
    fine = ndimage.zoom(values, refinement, order=3, mode=mode, grid_mode=True)
    sides = tuple(a / n for a, n in zip(lengths, fine.shape, strict=True))
    distance = _distance(fine - np.quantile(fine, 1 - fraction), sides, periodic)
    return SignedDistance(distance, tuple(float(a) for a in lengths), periodic, refinement)


def structure_of(
    model: Any, m: Array, rho: Array, crisp: Array, *, refinement: int | None = None
) -> SignedDistance:
    """The interface of a design: the level set of its filtered density at its volume. Collective.

    Args:
        model: a `CellModel` on voxels or a regular mesh, or a `HeatModel` on one of quadrilaterals or
            hexahedra.
        m, rho, crisp: design variables, densities and 0 or 1 of this rank's cells.
        refinement: see :func:`interface_of`.
    Raises:
        ValueError: cells that are no regular grid.
    """
    if model.image(crisp) is None:
        raise ValueError("the interface of a design is measured on a regular grid of cells")
    field = interface_field(model, m, rho, crisp)
    lengths = [float(a) for a in model.cell.lengths]
    periodic = isinstance(model, CellModel)
    return interface_of(field, model.fraction(rho), lengths, periodic=periodic, refinement=refinement)


def _distance(level: Array, sides: Sequence[float], periodic: bool) -> Array:
    """Signed distance to the zero level of a field: to where the lines between voxel centres cross it.

    Nearer than a voxel, where these points are too far apart, by the slope of the field.
    """
    lengths = np.array(level.shape) * sides
    around = np.pad(level, 1, mode="wrap" if periodic else "symmetric")
    inner = (slice(1, -1),) * level.ndim
    slopes = [g[inner] for g in np.gradient(around, *sides)]
    steep = np.sqrt(sum(g**2 for g in slopes))
    points = []
    for axis in range(level.ndim):
        following = np.roll(level, -1, axis)
        crossed = (level > 0) != (following > 0)
        if not periodic:
            crossed[(slice(None),) * axis + (-1,)] = False
        index = np.argwhere(crossed) + 0.5
        index[:, axis] += level[crossed] / (level[crossed] - following[crossed])
        points.append(index * sides)
    tree = KDTree(np.concatenate(points) % lengths, boxsize=lengths if periodic else None)
    centres = (np.indices(level.shape).reshape(level.ndim, -1).T + 0.5) * sides
    far = tree.query(centres)[0].reshape(level.shape)
    near = np.abs(level) / np.maximum(steep, 1e-300)
    return np.asarray(np.sign(level) * np.where(far < max(sides), np.minimum(near, far), far))


def smallest_feature(distance: Array, sides: Sequence[float], *, periodic: bool = True) -> float:
    """Width of the thinnest feature of a phase, by opening with discs (in 3D balls) of growing diameter.

    The opening by the smallest diameter b that takes away a point deeper than b/3, and of that twice the
    depth: of a strip its width, of a neck that at its middle. The corner that a disc leaves out is less deep
    and no feature, unless it is sharper than 39°. Of the other phase the opening is a closing.

    Args:
        distance: to the interface, positive inside the phase, at voxel centres.
        sides: edges of a voxel.
        periodic: whether the phase goes on beyond the faces as a periodic cell; else as a mirror image.
    Returns:
        The width, to about a voxel; that of the largest disc where nothing is taken away; 0 for no phase.
    """
    h, most = float(max(sides)), 2 * float(distance.max())
    if most <= 0:
        return 0.0
    b = 2 * h
    while b < most:
        # What lies behind a face matters as far as a disc reaches.
        margin = [(int(np.ceil(b / a)) + 1,) * 2 for a in sides]
        inner = tuple(slice(m, m + n) for (m, _), n in zip(margin, distance.shape, strict=True))
        depth = np.pad(distance, margin, mode="wrap" if periodic else "symmetric")
        # From the centres of the discs: what these do not cover.
        reach = ndimage.distance_transform_edt(depth < 0.5 * b, sampling=sides)
        lost = distance[(reach[inner] > 0.5 * b + 0.5 * h * distance.ndim**0.5) & (distance > b / 3)]
        if lost.size:
            return 2 * float(lost.max())
        b += max(0.5 * h, 0.03 * b)
    return most


@dataclass(frozen=True)
class Etched:
    """A structure after an error.

    Attributes:
        error: as given, or of an array the largest absolute value.
        volume_fraction: of the phase with ρ = 1 on its mesh.
        value: the property.
    """

    error: float
    volume_fraction: float
    value: float


def under_errors(
    comm: Any,
    interface: SignedDistance,
    errors: Sequence[float | Array],
    solve: Callable[[UnitCell], float],
    mesh_size: float | None = None,
) -> list[Etched]:
    """A property of a structure under errors, each meshed and solved for itself. Collective.

    Args:
        comm: communicator to distribute the meshes over.
        interface: of the structure.
        errors: lengths or arrays of them, as for :meth:`SignedDistance.etched`.
        solve: from a mesh with phases "poor" and "good" to the property; it may have one of them only.
        mesh_size: see :meth:`SignedDistance.cell`.
    """
    found = []
    for error in errors:
        cell = interface.cell(comm, error, mesh_size)
        good = by_phase(cell, {name: float(name == NAMES[1]) for name in cell.phases})
        fraction = global_sum(fem.form(good * measure(cell.mesh, 0, cell))) / cell.volume
        size = float(error) if np.ndim(error) == 0 else float(np.abs(error).max())
        found.append(Etched(size, float(fraction), float(solve(cell))))
    return found


def relative_spread(found: Sequence[Etched], error: float) -> float:
    """(max − min)/|nominal| of the values under errors up to a size.

    Raises:
        ValueError: without the structure as drawn, error 0.
    """
    drawn = [one.value for one in found if one.error == 0]
    if not drawn:
        raise ValueError("a spread is relative to the structure as drawn: give the error 0 too")
    values = [one.value for one in found if abs(one.error) <= error * (1 + 1e-9)]
    return float(np.ptp(values) / abs(drawn[0]))


def heat_solver(conductivity: tuple[float, float], case: LoadCase) -> Callable[[UnitCell], float]:
    """Thermal compliance of a meshed structure under a load case, for :func:`under_errors`.

    Args:
        conductivity: of the phases "poor" and "good".
        case: the load case; parts of the boundary by markers.
    """

    def solve(cell: UnitCell) -> float:
        kappa = by_phase(cell, {name: conductivity[NAMES.index(name)] for name in cell.phases})
        V = fem.functionspace(cell.mesh, ("Lagrange", 1))
        state = HeatState(cell, V, kappa, 0 if cell.grid is None else 2, case)
        state.solve()
        return global_sum(fem.form(state.work))

    return solve


def tensor_solver(
    conductivity: tuple[float, float], function: Callable[[Array], float]
) -> Callable[[UnitCell], float]:
    """A number made of the effective tensor of a meshed cell, for :func:`under_errors`.

    Args:
        conductivity: of the phases "poor" and "good"; 0 is left out of the solution exactly.
        function: from the tensor to the number.
    """

    def solve(cell: UnitCell) -> float:
        values = {name: conductivity[NAMES.index(name)] for name in cell.phases}
        if not any(values.values()):
            return function(np.zeros((cell.dim, cell.dim)))
        return function(effective_conductivity(cell, values).tensor)

    return solve
