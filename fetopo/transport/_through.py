"""Transport through a phase between two opposite faces: on its voxels, or on their mesh by DOLFINx."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fetopo.microstructure.image import Slab
from fetopo.microstructure.mesh import UnitCell, voxel_cell, voxel_of_cells
from fetopo.transport.periodic import periodic_space
from fetopo.transport.state import (
    LinearSolver,
    PetscOptions,
    assemble_dual,
    global_sum,
    owned,
    zero_on_boundary,
)
from fetopo.transport.voxel import VoxelGrid, through
from fetopo.transport.voxel_enclosure import WORST

#: Relative residuals. Energies are off by their square, fluxes of layers and the lower bound by themselves.
ELEMENTS_RTOL, FLUX_RTOL = 1e-8, 1e-9
#: Of finite volumes where their value is what is asked for. What is left unbalanced is taken off the lower
#: bound, in proportion to the number of voxels along an axis: 0.5 % at 100³, a tenth at 500³.
VALUE_RTOL = 1e-6


@dataclass(frozen=True)
class ThroughFeature:
    """Solution along one axis, for D₀ = 1.

    Attributes:
        elements: D_eff by trilinear elements, None if not asked for.
        volumes: D_eff by finite volumes, None if not asked for.
        lower_bound: from their flux.
        layer_flux: mean flux through each layer of voxels, in units of D₀ Δc/L.
        imbalance: largest difference between two planes, relative to the mean.
        iterations: Krylov iterations.
        concentration: on the mesh of `cell`, if asked for.
        cell: that mesh.
    """

    elements: float | None
    volumes: float | None
    lower_bound: float | None
    layer_flux: npt.NDArray[np.float64]
    imbalance: float
    iterations: int
    concentration: fem.Function | None = None
    cell: UnitCell | None = None


def on_voxels(
    phase: Slab, axis: int, periodic: Sequence[bool], method: str, solution: bool, rtol: float | None
) -> ThroughFeature:
    """Solve without a mesh.

    Args:
        phase: what connects the two faces.
        axis: direction of transport.
        periodic: per axis, whether opposite faces are one.
        method: "interval" (both schemes), "finite volumes" or "elements".
        solution: whether to give the concentration of the elements on a mesh.
        rtol: relative residual; default 1e-8 for elements, 1e-9 for finite volumes and 1e-6 where they are
            all that is asked for.
    """
    grid = VoxelGrid(phase.comm, phase.shape, phase.voxel_size, periodic)
    worst = WORST if rtol is None else None
    mask = grid.take(phase)
    value = volumes = lower = None
    iterations = 0
    planes: Any = np.zeros(0)
    c, cell = None, None
    if method != "elements":
        default = FLUX_RTOL if method == "interval" else VALUE_RTOL
        dual = through(grid, mask, axis, "finite volumes", rtol=rtol or default, worst=worst)
        lower, volumes = dual.lower_bound, dual.conductivity
        planes, iterations = dual.layer_flux, dual.iterations
    layers: Any = 0.5 * (planes[1:] + planes[:-1])
    if method != "finite volumes":
        primal = through(grid, mask, axis, "elements", rtol=rtol or ELEMENTS_RTOL, worst=worst)
        value, iterations = primal.conductivity, iterations + primal.iterations
        planes = layers = primal.layer_flux
        if solution:
            c, cell = _concentration(grid, phase, axis, primal.potential)
    imbalance = float(np.ptp(planes) / abs(planes.mean()))
    return ThroughFeature(value, volumes, lower, layers, imbalance, iterations, c, cell)


def _concentration(
    grid: VoxelGrid, phase: Slab, axis: int, potential: npt.NDArray[np.float64]
) -> tuple[fem.Function, UnitCell]:
    """The potential of the nodes as a function on the mesh of the voxels."""
    cell = voxel_cell(grid.comm, phase, phases=[1])
    V = fem.functionspace(cell.mesh, ("Lagrange", 1))
    c = fem.Function(V, name="concentration")
    x = V.tabulate_dof_coordinates()[: c.x.array.size, : grid.dim]
    nodes = np.rint((x - cell.lower) / cell.lengths * grid.shape).astype(np.int64)
    first, last = nodes[:, axis] == 0, nodes[:, axis] == grid.shape[axis]
    # Nodes on the two faces are no unknowns, and on periodic faces the last node is the first.
    shape = [n if wraps else n + 1 for n, wraps in zip(grid.shape, grid.periodic, strict=True)]
    shape[axis] -= 2
    nodes[:, axis] -= 1
    inside = ~(first | last)
    c.x.array[first], c.x.array[last] = 1.0, 0.0
    c.x.array[inside] = _at(grid, shape, potential, nodes[inside] % shape if min(shape) else nodes[inside])
    return c, cell


def _at(
    grid: VoxelGrid, shape: Sequence[int], own: npt.NDArray[np.float64], places: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Values of unknowns anywhere in the grid, from the ranks that have them. Collective.

    Args:
        shape: number of unknowns along each axis.
        own: own block of the unknowns.
        places: indices into all unknowns, shape (n, d).
    """
    blocks = grid.blocks.like((*(1,) * (3 - grid.dim), *shape))
    bounds = blocks.bounds[3 - grid.dim :]
    at = [np.searchsorted(b[1:-1], places[:, a], side="right") for a, b in enumerate(bounds)]
    owner = np.ravel_multi_index(at, blocks.parts[3 - grid.dim :])
    order = np.argsort(owner, kind="stable")
    edges = np.searchsorted(owner[order], np.arange(blocks.comm.size + 1))
    asked = [places[order[a:b]] for a, b in pairwise(int(e) for e in edges)]
    start = np.array([s.start for s in blocks.own[3 - grid.dim :]])
    answers = blocks.comm.alltoall([own[tuple((part - start).T)] for part in blocks.comm.alltoall(asked)])
    found = np.empty(len(places))
    found[order] = np.concatenate(answers)
    return found


def on_mesh(
    phase: Slab, axis: int, periodic: Sequence[bool], solution: bool, petsc_options: PetscOptions
) -> ThroughFeature:
    """Solve by DOLFINx on the mesh of the voxels: D_eff = 1/|Y| ∫ |e + ∇χ|² dx with c = 1 − (x + χ)/L.

    Args:
        phase, axis, periodic, solution: as in :func:`on_voxels`.
        petsc_options: over the defaults, a relative residual of 1e-8.
    """
    comm: Any = phase.comm
    cell = voxel_cell(comm, phase, phases=[1])
    dim = cell.dim
    lower, upper, L = cell.lower.copy(), cell.upper.copy(), float(cell.lengths[axis])
    continuous = fem.functionspace(cell.mesh, ("Lagrange", 1))
    V = continuous
    if any(periodic):
        # Faces that lie outside of the mesh have no partner.
        closed = ~np.array(periodic)
        low, high = lower - closed * cell.lengths, upper + closed * cell.lengths
        V = periodic_space(continuous, low, high, complete=False)
    near = 1e-9 * L
    u, v, chi = ufl.TrialFunction(V), ufl.TestFunction(V), fem.Function(V)
    ends = fem.locate_dofs_geometrical(
        V, lambda x: (np.abs(x[axis] - lower[axis]) < near) | (np.abs(x[axis] - upper[axis]) < near)
    )
    bcs = [fem.dirichletbc(0.0, ends, V)]
    solver = LinearSolver(
        ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx,
        bcs,
        petsc_options={"ksp_rtol": ELEMENTS_RTOL} | dict(petsc_options),
    )
    solver.assemble()
    e = ufl.as_vector([float(i == axis) for i in range(dim)])
    b = assemble_dual(fem.form(-ufl.inner(e, ufl.grad(v)) * ufl.dx))
    zero_on_boundary(b, bcs)
    solver.solve(b, chi)
    local = e + ufl.grad(chi)
    value = global_sum(fem.form(ufl.inner(local, local) * ufl.dx)) / cell.volume

    q = ufl.TestFunction(fem.functionspace(cell.mesh, ("DG", 0)))
    flux = owned(assemble_dual(fem.form(ufl.inner(local, e) * q * ufl.dx)))
    layer = voxel_of_cells(cell)[: flux.size, axis]
    total = comm.allreduce(np.bincount(layer, flux, minlength=phase.shape[axis]))
    layers = total * phase.shape[axis] / cell.volume
    imbalance = float(np.ptp(layers) / abs(layers.mean()))
    if not solution:
        return ThroughFeature(value, None, None, layers, imbalance, solver.iterations)
    c = fem.Function(continuous, name="concentration")
    c.interpolate(chi)
    x = continuous.tabulate_dof_coordinates()[:, axis]
    c.x.array[:] = 1 - (x[: c.x.array.size] - lower[axis] + c.x.array) / L
    return ThroughFeature(value, None, None, layers, imbalance, solver.iterations, c, cell)
