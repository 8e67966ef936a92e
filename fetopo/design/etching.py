"""What an etching error does to a finished structure: its interface moved by a length, meshed, solved again.

Nothing here knows of projections: the structure is taken as it is, the distance to its interface measured, and
the level set of that distance meshed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import fem
from scipy import ndimage

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
class Interface:
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
    field: Array, fraction: float, lengths: Sequence[float], *, periodic: bool = True, refinement: int = 4
) -> Interface:
    """The signed distance to a level set of a smooth field, from Euclidean distance transforms.

    Args:
        field: values at voxel centres, 2D or 3D, the phase being where they are high.
        fraction: of the volume that the phase fills; the level is chosen so.
        lengths: edges of the box.
        periodic: whether the field is; else it is mirrored at the faces.
        refinement: voxels are split so many times along each axis, by cubic splines of the field.
    Raises:
        ValueError: a fraction that is not between 0 and 1, or a field of one value.
    """
    values = np.asarray(field, dtype=float)
    if not (0 < fraction < 1 and np.ptp(values) > 0):
        raise ValueError(f"a structure needs two phases, found the volume fraction {fraction:g}")
    mode = "grid-wrap" if periodic else "reflect"
    fine = ndimage.zoom(values, refinement, order=3, mode=mode, grid_mode=True)
    inside = fine > np.quantile(fine, 1 - fraction)
    sides = tuple(a / n for a, n in zip(lengths, fine.shape, strict=True))
    # The interface lies half a voxel before the first centre on the other side.
    half = 0.5 * float(np.prod(sides)) ** (1 / fine.ndim)
    distance = np.where(
        inside, _distance(inside, sides, periodic) - half, half - _distance(~inside, sides, periodic)
    )
    return Interface(distance, tuple(float(a) for a in lengths), periodic, refinement)


def structure_of(model: Any, m: Array, rho: Array, crisp: Array, *, refinement: int = 4) -> Interface:
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


def _distance(mask: Mask, sides: Sequence[float], periodic: bool) -> Array:
    """Distance from each voxel of a mask to the nearest centre outside it."""
    if not periodic:
        return np.asarray(ndimage.distance_transform_edt(mask, sampling=sides))
    # Half a cell more at every face: no point is farther from its phase's end than that along an axis.
    margin = [(n // 2, n // 2) for n in mask.shape]
    inner = tuple(slice(m, m + n) for (m, _), n in zip(margin, mask.shape, strict=True))
    padded = np.pad(mask, margin, mode="wrap")
    return np.asarray(ndimage.distance_transform_edt(padded, sampling=sides)[inner])


def smallest_feature(mask: Mask, sides: Sequence[float], *, periodic: bool = True) -> float:
    """Width of the thinnest feature of a phase, by opening with discs (in 3D balls) of growing diameter.

    The smallest diameter b whose opening takes away a piece that holds a disc of diameter b/2. A strip
    thinner than b goes as a whole; the corner that a disc leaves out holds only discs much smaller than
    itself, and is no feature unless it is sharper than 39°. Of the complement it is a closing.

    Args:
        mask: where the phase is, on a grid fine enough to tell widths apart.
        sides: edges of a voxel.
        periodic: whether the phase goes on beyond the faces as a periodic cell; else as a mirror image.
    Returns:
        b in steps of half a voxel; the width of the whole where nothing is taken away; 0 for no phase.
    """
    mask = np.asarray(mask, dtype=bool)
    if not mask.any():
        return 0.0
    h = float(max(sides))
    whole = float(min(n * a for n, a in zip(mask.shape, sides, strict=True)))
    if mask.all():
        return whole
    # What lies behind a face matters as far as the largest disc reaches.
    depth = _distance(mask, sides, periodic) if periodic else ndimage.distance_transform_edt(mask, sides)
    most = 2 * float(depth.max())
    margin = [(min(int(np.ceil(most / a)), n),) * 2 for n, a in zip(mask.shape, sides, strict=True)]
    inner = tuple(slice(m, m + n) for (m, _), n in zip(margin, mask.shape, strict=True))
    around = np.pad(mask, margin, mode="wrap" if periodic else "symmetric")
    depth = ndimage.distance_transform_edt(around, sampling=sides) - 0.5 * h
    for b in np.arange(2 * h, most, 0.5 * h):
        # Centres of the discs, and what these cover.
        centres = depth >= 0.5 * b
        reach = ndimage.distance_transform_edt(~centres, sampling=sides)
        lost = around & (reach > 0.5 * b + 0.5 * h)
        if lost[inner].any():
            room = ndimage.distance_transform_edt(lost, sampling=sides)[inner] - 0.5 * h
            if 2 * float(room.max()) > 0.5 * b:
                return float(b)
    return min(most, whole)


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
    interface: Interface,
    errors: Sequence[float],
    solve: Callable[[UnitCell], float],
    mesh_size: float | None = None,
) -> list[Etched]:
    """A property of a structure under errors, each meshed and solved for itself. Collective.

    Args:
        comm: communicator to distribute the meshes over.
        interface: of the structure.
        errors: lengths, positive where the phase with ρ = 1 is etched away.
        solve: from a mesh with phases "poor" and "good" to the property; it may have one of them only.
        mesh_size: see :meth:`Interface.cell`.
    """
    found = []
    for error in errors:
        cell = interface.cell(comm, error, mesh_size)
        good = by_phase(cell, {name: float(name == NAMES[1]) for name in cell.phases})
        fraction = global_sum(fem.form(good * measure(cell.mesh, 0, cell))) / cell.volume
        found.append(Etched(float(error), float(fraction), float(solve(cell))))
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
