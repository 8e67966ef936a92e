"""Finite volumes on a regular grid, and their flux read as a field in balance: a bound from below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.transport.grid import Array, Grid, GridSolver, number, pad, shifted, to_petsc
from fetopo.transport.state import PetscOptions


@dataclass(frozen=True)
class FluxSolution:
    """Fluxes σⱼ = κ(eⱼ + ∇χⱼ) of finite volumes, as fields that are linear along each axis in each voxel.

    Attributes:
        mean: Mᵢⱼ = 1/|Y| ∫ eᵢ·σⱼ dx, one row and column per direction solved for. For an exact solve these
            are the effective conductivities that finite volumes give.
        energy: Cᵢⱼ = 1/|Y| ∫ σᵢ·κ⁻¹σⱼ dx.
        imbalance: per direction, 1/|Y| Σ |net flux out of a voxel| · (a bound of |χ|): how far `mean` may be
            from what an exact balance would give.
        plane_flux: per direction, mean flux through each plane of voxel faces normal to it.
        iterations: Krylov iterations.
    """

    mean: npt.NDArray[np.float64]
    energy: npt.NDArray[np.float64]
    imbalance: npt.NDArray[np.float64]
    plane_flux: list[Array]
    iterations: int

    def lower_bound(self) -> npt.NDArray[np.float64]:
        """M C⁻¹ Mᵀ less what the imbalance may change: ≤ the exact tensor as quadratic forms.

        For any c: ξᵀMc − ε|c|₁ ≤ (cᵀCc)^½ (ξᵀDξ)^½, and c = C⁻¹Mᵀξ gives the bound. Flux that a solver left
        unbalanced thus costs width, not the guarantee.
        """
        return flux_bound(self.mean, self.energy, self.imbalance)


def flux_bound(mean: Array, energy: Array, imbalance: Array) -> npt.NDArray[np.float64]:
    """Lower bound of a tensor from fluxes: see :meth:`FluxSolution.lower_bound`."""
    d = len(mean)
    values, vectors = np.linalg.eigh(energy)
    worst = float(np.max(imbalance))
    # Any fluxes serve: those that carry no more than what is unbalanced are left out.
    good = values > max(4 * d * worst, 1e-14 * float(values.max()))
    inverse = (vectors[:, good] / values[good]) @ vectors[:, good].T
    c = inverse @ mean.T
    bound = mean @ c
    bound = 0.5 * (bound + bound.T)
    # ε = ε_j bounds ∫(div σⱼ) χ_ξ for unit ξ; the last term is for round-off in sums of millions of terms.
    loss = 2 * worst * d * float(np.linalg.norm(c, 2)) + 1e-13 * float(np.trace(bound))
    bound -= loss * np.eye(d)
    return np.maximum(bound, 0.0) if d == 1 else bound


def solve_flux(
    grid: Grid,
    axis: int | None = None,
    petsc_options: PetscOptions | None = None,
    *,
    pinned: npt.NDArray[np.int64] | None = None,
) -> FluxSolution:
    """Fluxes in balance by two-point finite volumes: between two faces, or in a periodic cell.

    Between neighbours the flux density is t (h eⱼ·n + χ₂ − χ₁), t = 1/(h/2κ₁ + h/2κ₂); at a face of fixed
    potential half a voxel away it is 2κ/h (h/2 eⱼ·n ± χ). Read as a lowest-order Raviart–Thomas field with
    density a on one face of a voxel and b on the other, its energy is h³/κ Σ (a² + ab + b²)/3.

    Args:
        grid: the conductivities, all of which are connected to the faces; periodic on all axes if `axis` is
            None.
        axis: direction of transport, or None for the periodic cell problem in all directions.
        petsc_options: options of the Krylov solver.
        pinned: voxels, by their number in the whole image, whose corrector is set to zero: one for each
            isolated region of a periodic cell, or they would not be determined.
    Raises:
        RuntimeError: the solver did not converge.
    """
    comm, dim, h = grid.comm, grid.dim, grid.sides
    padded = np.asarray(grid.padded(), dtype=float)
    shape = np.asarray(grid.kappa.values).shape
    middle = shifted(padded, (1,) * dim, shape)
    used = middle > 0
    numbers, own, total = number(comm, used, grid.periodic)
    kappa = middle[used]
    first = grid.kappa.first * int(np.prod(shape[1:], dtype=np.int64))
    free: Array = np.ones(own, dtype=bool)
    if pinned is not None and pinned.size:
        free = ~np.isin(first + np.flatnonzero(used), pinned)

    t: dict[tuple[int, int], Array] = {}
    length: dict[tuple[int, int], Array] = {}
    columns = np.empty((own, 2 * dim + 1), dtype=numbers.dtype)
    values = np.zeros((own, 2 * dim + 1))
    columns[:, dim] = shifted(numbers, (1,) * dim, shape)[used]
    unpinned = pad(comm, _fill(used, free, False), grid.periodic, False) if pinned is not None else None
    for a, side in ((a, side) for a in range(dim) for side in (0, 1)):
        # In increasing order of the columns: the row's own is in the middle.
        k = 2 * dim - a if side else a
        offset = [1] * dim
        offset[a] = 2 * side
        beside = shifted(padded, offset, shape)[used]
        with np.errstate(divide="ignore"):
            t[a, side] = np.where(beside > 0, 2 * kappa * beside / (kappa + beside) / h[a], 0.0)
        length[a, side] = np.full(own, h[a])
        if a == axis:
            place = np.arange(grid.shape[a])[_own_rows(grid, a)]
            at_face = np.broadcast_to(
                (place == (grid.shape[a] - 1) * side)[
                    tuple(slice(None) if b == a else None for b in range(dim))
                ],
                shape,
            )[used]
            t[a, side][at_face] = 2 * kappa[at_face] / h[a]
            length[a, side][at_face] = h[a] / 2
        columns[:, k] = shifted(numbers, offset, shape)[used]
        values[:, k] = -grid.area(a) * t[a, side]
        values[:, dim] -= values[:, k]
        if unpinned is not None:
            values[~shifted(unpinned, offset, shape)[used], k] = 0.0
    values[values[:, dim] == 0, dim] = 1.0
    if pinned is not None:
        values[np.ix_(~free, np.arange(2 * dim + 1) != dim)] = 0.0
    A, _ = to_petsc(comm, columns, values, total, repeated=any(grid.periodic))
    del columns, values

    directions = list(range(dim)) if axis is None else [axis]
    fields, imbalance, planes = [], [], []
    singular = axis is None and (pinned is None or not comm.allreduce(pinned.size))
    solver = GridSolver(A, dim, singular=singular, petsc_options=petsc_options) if total else None
    for j in directions:
        b = grid.area(j) * (t[j, 1] * length[j, 1] - t[j, 0] * length[j, 0])
        b[~free] = 0.0
        chi = solver.solve(b) if solver else np.zeros(0)
        chi[~free] = 0.0
        field, net = _field(grid, used, chi, t, length, j)
        fields.append(field)
        bound = float(grid.sides[j] * grid.shape[j])
        if axis is None:
            # The exact corrector varies about as much as the discrete one; twice that is taken.
            high = max(comm.allgather(float(chi.max(initial=0.0))))
            low = min(comm.allgather(float(chi.min(initial=0.0))))
            bound = high - low
        imbalance.append(comm.allreduce(float(np.abs(net).sum())) * bound / grid.volume)
        planes.append(_planes(grid, used, field, j))
    iterations = solver.iterations if solver else 0
    if solver:
        solver.destroy()

    n = len(directions)
    share = float(np.prod(h)) / grid.volume
    mean, energy = np.empty((n, n)), np.empty((n, n))
    for i in range(n):
        for j in range(n):
            low, high = fields[j][directions[i], 0], fields[j][directions[i], 1]
            mean[i, j] = share * float((low + high).sum()) / 2
            energy[i, j] = share * sum(
                float(
                    (
                        fields[i][a, 0] * (fields[j][a, 0] + fields[j][a, 1] / 2) / kappa
                        + fields[i][a, 1] * (fields[j][a, 1] + fields[j][a, 0] / 2) / kappa
                    ).sum()
                )
                / 3
                for a in range(dim)
            )
    mean, energy = comm.allreduce(mean), comm.allreduce(energy)
    return FluxSolution(mean, energy, np.array(imbalance), planes, iterations)


def _own_rows(grid: Grid, axis: int) -> slice:
    start = grid.kappa.first
    return slice(start, start + len(grid.kappa.values)) if axis == 0 else slice(None)


def _fill(used: Array, values: Array, rest: Any) -> Array:
    full = np.full(used.shape, rest, dtype=values.dtype)
    full[used] = values
    return full


def _field(
    grid: Grid, used: Array, chi: Array, t: dict[Any, Array], length: dict[Any, Array], direction: int
) -> tuple[dict[tuple[int, int], Array], Array]:
    """Flux densities on the two faces per axis of every own voxel, and the net flux out of each."""
    around = pad(grid.comm, _fill(used, chi, 0.0), grid.periodic, 0.0)
    field, net = {}, np.zeros(chi.size)
    for (a, side), conductance in t.items():
        offset = [1] * grid.dim
        offset[a] = 2 * side
        beside = shifted(around, offset, used.shape)[used]
        # Where the potential is fixed χ is zero beyond; where nothing conducts t is.
        step = (beside - chi) if side else (chi - beside)
        field[a, side] = conductance * (step + length[a, side] if a == direction else step)
        net += (1 if side else -1) * grid.area(a) * field[a, side]
    return field, net


def _planes(grid: Grid, used: Array, field: dict[tuple[int, int], Array], axis: int) -> Array:
    """Mean flux density through each plane of faces normal to an axis, the first and the last included."""
    across = tuple(a for a in range(grid.dim) if a != axis)
    rows = np.arange(grid.shape[axis])[_own_rows(grid, axis)]
    flux = np.zeros(grid.shape[axis] + 1)
    flux[rows + 1] = _fill(used, field[axis, 1], 0.0).sum(axis=across)
    if rows.size and rows[0] == 0:
        flux[0] = _fill(used, field[axis, 0], 0.0).sum(axis=across)[0]
    cells = float(np.prod([n for a, n in enumerate(grid.shape) if a != axis]))
    return np.asarray(grid.comm.allreduce(flux)) / cells
