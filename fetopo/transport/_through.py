"""Transport through a phase between two opposite faces: on its voxels, or on their mesh by DOLFINx."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fetopo.microstructure.image import Slab
from fetopo.microstructure.mesh import UnitCell, voxel_cell, voxel_of_cells
from fetopo.transport.grid import Grid, grid_of
from fetopo.transport.grid_elements import solve_elements
from fetopo.transport.grid_flux import solve_flux
from fetopo.transport.periodic import periodic_space
from fetopo.transport.state import (
    LinearSolver,
    PetscOptions,
    assemble_dual,
    global_sum,
    owned,
    zero_on_boundary,
)

#: Relative residuals; an energy is off by the square of them, a flux by themselves.
ELEMENTS_RTOL, FLUX_RTOL = 1e-6, 1e-8


@dataclass(frozen=True)
class Through:
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
) -> Through:
    """Solve without a mesh.

    Args:
        phase: what connects the two faces.
        axis: direction of transport.
        periodic: per axis, whether opposite faces are one.
        method: "interval" (both schemes), "finite volumes" or "elements".
        solution: whether to give the concentration of the elements on a mesh.
        rtol: relative residual; default 1e-6 for elements and 1e-8 for finite volumes.
    """
    grid = grid_of(phase, phase.voxel_size, periodic)
    value = volumes = lower = None
    iterations = 0
    planes: Any = np.zeros(0)
    c, cell = None, None
    if method != "elements":
        dual = solve_flux(grid, axis, {"ksp_rtol": rtol or FLUX_RTOL})
        lower, volumes = float(dual.lower_bound()[0, 0]), float(dual.mean[0, 0])
        planes, iterations = dual.plane_flux[0], dual.iterations
    layers: Any = 0.5 * (planes[1:] + planes[:-1])
    if method != "finite volumes":
        primal = solve_elements(grid, axis, {"ksp_rtol": rtol or ELEMENTS_RTOL})
        value, iterations = primal.conductivity, iterations + primal.iterations
        planes = layers = primal.layer_flux
        if solution:
            c, cell = _concentration(grid, phase, primal.potential)
    imbalance = float(np.ptp(planes) / abs(planes.mean()))
    return Through(value, volumes, lower, layers, imbalance, iterations, c, cell)


def _concentration(grid: Grid, phase: Slab, potential: npt.NDArray[np.float64]) -> tuple[Any, UnitCell]:
    """The potential of the nodes as a function on the mesh of the voxels."""
    cell = voxel_cell(grid.comm, phase, phases=[1])
    V = fem.functionspace(cell.mesh, ("Lagrange", 1))
    c = fem.Function(V, name="concentration")
    x = V.tabulate_dof_coordinates()[:, : grid.dim]
    step = cell.lengths / grid.shape
    nodes = np.rint((x - cell.lower) / step).astype(np.int64)
    known = Slab(grid.comm, potential)
    # On periodic faces the last node is the first.
    c.x.array[:] = known.at(nodes % np.array(known.shape))
    return c, cell


def on_mesh(
    phase: Slab, axis: int, periodic: Sequence[bool], solution: bool, petsc_options: PetscOptions
) -> Through:
    """Solve by DOLFINx on the mesh of the voxels: D_eff = 1/|Y| ∫ |e + ∇χ|² dx with c = 1 − (x + χ)/L.

    Args:
        phase, axis, periodic, solution: as in :func:`on_voxels`.
        petsc_options: over the defaults, a relative residual of 1e-6.
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
        return Through(value, None, None, layers, imbalance, solver.iterations)
    c = fem.Function(continuous, name="concentration")
    c.interpolate(chi)
    x = continuous.tabulate_dof_coordinates()[:, axis]
    c.x.array[:] = 1 - (x[: c.x.array.size] - lower[axis] + c.x.array) / L
    return Through(value, None, None, layers, imbalance, solver.iterations, c, cell)
