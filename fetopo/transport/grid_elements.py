"""Trilinear (in 2D bilinear) elements on a regular grid, assembled straight from the array of voxels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from fetopo.transport.grid import Array, Grid, GridSolver, number, shifted, to_petsc
from fetopo.transport.state import PetscOptions


@dataclass(frozen=True)
class ElementSolution:
    """Through-feature solution by trilinear elements.

    Attributes:
        conductivity: effective conductivity along the axis; an upper bound whatever the solver's error.
        layer_flux: mean flux through each layer of voxels, relative to a unit potential difference per length
            of the box; equal for all layers up to the solver's error.
        iterations: Krylov iterations.
        potential: own rows of nodes, NaN where there is none: 1 on the first face, 0 on the last.
    """

    conductivity: float
    layer_flux: Array
    iterations: int
    potential: Array


class _Sums:
    """Sums of κ over the voxels that contain a node and its neighbour, from arrays of shifts."""

    def __init__(self, padded: Array, shape: tuple[int, ...]) -> None:
        self.parts: dict[tuple[int, ...], Array] = {(): padded}
        dim = len(shape)
        for axis in range(dim):
            grown: dict[tuple[int, ...], Array] = {}
            for key, part in self.parts.items():
                n = shape[axis]
                low = part[(slice(None),) * axis + (slice(0, n),)]
                high = part[(slice(None),) * axis + (slice(1, n + 1),)]
                grown |= {(*key, -1): low, (*key, 1): high, (*key, 0): low + high}
            self.parts = grown

    def __getitem__(self, offset: tuple[int, ...]) -> Array:
        return self.parts[offset]


def _entry(offset: tuple[int, ...], sides: Array) -> float:
    """Entry of the element matrix of a voxel between two of its nodes, κ = 1: ∫ ∇φ·∇φ′ dx."""
    stiffness = [1 / h if o == 0 else -1 / h for o, h in zip(offset, sides, strict=True)]
    mass = [h / 3 if o == 0 else h / 6 for o, h in zip(offset, sides, strict=True)]
    total = 0.0
    for axis in range(len(sides)):
        others = [m for a, m in enumerate(mass) if a != axis]
        total += stiffness[axis] * float(np.prod(others))
    return total


def solve_elements(grid: Grid, axis: int, petsc_options: PetscOptions | None = None) -> ElementSolution:
    """Effective conductivity of a grid between two opposite faces, by trilinear elements, one per voxel.

    κ_eff = 1/|Y| ∫ κ |e + ∇χ|² dx, χ = 0 on both faces normal to the axis; the potential is
    1 − (x + χ)/L. All that conducts must be connected to one of the two faces.

    Args:
        grid: the conductivities; not periodic along the axis.
        axis: direction of transport.
        petsc_options: options of the Krylov solver.
    Raises:
        RuntimeError: the solver did not converge.
    """
    comm, dim, h = grid.comm, grid.dim, grid.sides
    padded = grid.padded()
    padded = padded.astype(np.float32) if padded.dtype == bool else padded
    rows = len(grid.kappa.values)
    last = grid.kappa.first + rows == grid.shape[0] and rows > 0
    nodes = [n + (not p) for n, p in zip(grid.shape, grid.periodic, strict=True)]
    nodes[0] = rows + int(last and not grid.periodic[0])
    shape = tuple(nodes)
    sums = _Sums(padded, shape)

    place = np.arange(shape[axis]) + (grid.kappa.first if axis == 0 else 0)
    inside = (place > 0) & (place < grid.shape[axis])
    across = tuple(slice(None) if a == axis else None for a in range(dim))
    used = sums[(0,) * dim] > 0
    numbers, own, total = number(comm, used & inside[across], grid.periodic)
    free = shifted(numbers, (1,) * dim, shape) >= 0

    offsets = list(product((-1, 0, 1), repeat=dim))
    entries = np.array([_entry(offset, h) for offset in offsets])
    kept = np.flatnonzero(np.abs(entries) > 1e-12 * entries.max())
    columns = np.empty((own, kept.size), dtype=numbers.dtype)
    values = np.empty((own, kept.size))
    for k, which in enumerate(kept):
        offset = offsets[which]
        columns[:, k] = shifted(numbers, [1 + o for o in offset], shape)[free]
        np.multiply(sums[offset][free], entries[which], out=values[:, k])
    A, _ = to_petsc(comm, columns, values, total, repeated=any(grid.periodic))
    del columns, values

    ahead, behind = (sums[tuple(side if a == axis else 0 for a in range(dim))] for side in (1, -1))
    share = grid.area(axis) / 2 ** (dim - 1)
    b = share * (ahead[free] - behind[free]).astype(float)
    chi: Array = np.zeros(own)
    iterations, energy = 0, 0.0
    if total:
        solver = GridSolver(A, dim, singular=False, petsc_options=petsc_options)
        chi = solver.solve(b)
        energy = float(chi @ solver.multiply(chi) - 2 * (b @ chi))
        iterations = solver.iterations
        solver.destroy()
    phi = np.zeros(shape)
    phi[free] = chi
    voxel_volume = float(np.prod(h))
    every = _layers(grid, axis, np.asarray(grid.kappa.values, dtype=float)) * voxel_volume / h[axis]
    flux: Array = np.zeros(grid.shape[axis])
    others = tuple(a for a in range(dim) if a != axis)
    up, down = (phi * behind).sum(axis=others), (phi * ahead).sum(axis=others)
    np.add.at(flux, place[place > 0] - 1, up[place > 0])
    np.subtract.at(flux, place[place < flux.size], down[place < flux.size])
    flux = every + share / h[axis] * flux
    mean = float(every.sum()) * h[axis]
    both = comm.allreduce(np.append(flux, [mean, energy]))
    flux, mean, energy = both[:-2], both[-2], both[-1]
    coordinate = place * h[axis] / (h[axis] * grid.shape[axis])
    potential = np.where(used, 1 - coordinate[across] - phi / (h[axis] * grid.shape[axis]), np.nan)
    area = grid.volume / (h[axis] * grid.shape[axis])
    return ElementSolution(float(mean + energy) / grid.volume, flux / area, iterations, potential)


def _layers(grid: Grid, axis: int, values: Array) -> Any:
    """Sum of own values in each layer normal to an axis, as long as the whole image."""
    part = values.sum(axis=tuple(a for a in range(grid.dim) if a != axis))
    if axis > 0:
        return part
    full = np.zeros(grid.shape[0])
    full[grid.kappa.first : grid.kappa.first + len(part)] = part
    return full
