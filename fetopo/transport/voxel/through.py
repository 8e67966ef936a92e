"""Transport through a voxel image between two opposite faces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.transport.interval import flux_bound
from fetopo.transport.voxel.grid import VoxelGrid
from fetopo.transport.voxel.operators import Scheme
from fetopo.transport.voxel.state import State

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Through:
    """Steady transport between two opposite faces, potential 1 on the first and 0 on the last.

    Attributes:
        conductivity: effective conductivity along the axis, in the unit of the input: the energy of the
            potential, whose error is of second order in the solver's. With elements an upper bound of the
            exact value whatever that error.
        lower_bound: finite volumes: holds for certain, from the flux read as a Raviart–Thomas field, less
            what the solver left unbalanced. None with elements.
        imbalance: what that is, before it is taken off; 0 with elements.
        layer_flux: elements: mean flux through each layer of voxels, finite volumes: through each plane of
            faces, the first and the last included; in units of (potential difference)/(length).
        iterations: of the solver.
        potential: own block: of voxels (finite volumes) or of nodes that are unknowns (elements).
    """

    conductivity: float
    lower_bound: float | None
    imbalance: float
    layer_flux: Floats
    iterations: int
    potential: Array


def through(
    grid: VoxelGrid,
    kappa: Array,
    axis: int,
    scheme: Scheme = "finite volumes",
    *,
    rtol: float = 1e-6,
    worst: float | None = None,
    table: Floats | None = None,
) -> Through:
    """Effective conductivity of a voxel image between the faces normal to an axis.

    κ_eff = L²/|Y| ∫ κ|∇u|² dx with u = 1 at x = 0, u = 0 at x = L. What is not connected to either face does
    not matter and needs no removal. Collective.

    Args:
        grid: the voxels; not periodic along the axis.
        kappa: own block: a mask (1, or an exact insulator), labels with a `table`, numbers, or (d, …) numbers
            for a diagonal tensor.
        axis: direction of transport.
        scheme: "finite volumes" or "elements".
        rtol: relative residual at which the solver stops.
        worst: relative residual that will do where round-off keeps it from `rtol`, as at contrasts
            beyond 1e9: both bounds hold whatever is left.
        table: conductivity of each label.
    Raises:
        ValueError: an axis that is not there or is periodic.
        RuntimeError: the solver did not converge.
    """
    if not 0 <= axis < grid.dim:
        raise ValueError(f"axis {axis} is out of range for a {grid.dim}D grid")
    fixed = [(a == axis,) * 2 for a in range(grid.dim)]
    state = State(grid, scheme, fixed=fixed, values={(axis, 0): 1.0})
    state.assign(kappa, table)
    at = axis + 3 - grid.dim
    try:
        state.solve(rtol, _linear(state, at))
    except RuntimeError:
        if worst is None:
            raise
        state.solve(worst)
    h = state.operator.sides
    length = float(h[at] * state.operator.voxels.shape[at])
    volume = float(np.prod(h * state.operator.voxels.shape))
    inner = (0, *(slice(1, -1),) * 3)
    lower, imbalance = None, 0.0
    if scheme == "finite volumes":
        found = state.fluxes(axis)
        energy = found.energy
        M = np.array([[-found.mean[at, 0] * length / volume]])
        C = np.array([[found.complementary[0, 0] * length**2 / volume]])
        imbalance = float(found.imbalance[0]) * length**2 / volume
        lower = float(flux_bound(M, C, imbalance)[0, 0])
        flux: Any = -found.planes * length**2 / volume
    else:
        energy = state.energy()
        flux = -state.layers(axis) * length**2 / volume
    conductivity = float(energy[0, 0]) * length**2 / volume
    potential = state.u[inner]
    potential = potential.reshape(potential.shape[3 - grid.dim :])
    return Through(conductivity, lower, imbalance, flux, state.iterations, potential)


def _linear(state: State, axis: int) -> Floats:
    """The potential of a homogeneous image: exact for straight channels, and a better start than none."""
    own, n = state.operator.blocks.own[axis], state.operator.voxels.shape[axis]
    place = np.arange(own.start, own.stop) + (0.5 if state.scheme == "finite volumes" else 1.0)
    return (1 - place / n).reshape([-1 if a == axis else 1 for a in range(3)])
