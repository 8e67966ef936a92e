"""Through-feature transport of a voxel image: effective diffusivity and tortuosity factor.

Fixed concentrations on two opposite faces of the image, no flux through the other four (in 2D: two).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from mpi4py import MPI

from fetopo._mpi import get_logger
from fetopo.microstructure.image import Slab, connectivity
from fetopo.microstructure.mesh import UnitCell, voxel_cell
from fetopo.transport.quadrature import measure
from fetopo.transport.state import LinearSolver, PetscOptions, assemble_dual, global_sum, zero_on_boundary


@dataclass(frozen=True)
class Tortuosity:
    """Transport through one phase along one axis.

    Attributes:
        axis: direction of transport (array axis).
        porosity: volume fraction of the phase, isolated regions included.
        percolating_fraction: share of the phase that connects the two faces.
        relative_diffusivity: D_eff/D₀. An upper bound of the voxel geometry's exact value, because the
            concentration is continuous and the energy of the exact one is least.
        tortuosity_factor: τ = ε D₀/D_eff with the total porosity ε; infinite if nothing percolates.
        bruggeman_exponent: α in D_eff/D₀ = ε^α; infinite if nothing percolates, None at ε = 1.
        flux_imbalance: |flux in − flux out| relative to the flux.
        iterations: Krylov iterations.
        solution: concentration, 1 on the first face and 0 on the last, on the mesh of what percolates
            (None if nothing does).
        cell: that mesh.
    """

    axis: int
    porosity: float
    percolating_fraction: float
    relative_diffusivity: float
    tortuosity_factor: float
    bruggeman_exponent: float | None
    flux_imbalance: float
    iterations: int
    solution: Any | None = None
    cell: UnitCell | None = None


def tortuosity(
    comm: MPI.Intracomm,
    mask: npt.NDArray[np.bool_] | Slab,
    axes: Sequence[int] | None = None,
    *,
    voxel_size: float | Sequence[float] | None = None,
    petsc_options: PetscOptions | None = None,
) -> list[Tortuosity]:
    """Effective diffusivity of a phase along each axis by trilinear elements, one per voxel.

    D_eff/D₀ = L²/|Y| ∫ |∇c|² dx with c = 1 at x = 0, c = 0 at x = L, no flux elsewhere, on the part of the
    phase that connects the two faces through voxel faces.

    Args:
        comm: communicator to distribute the mesh over.
        mask: the phase, 2D or 3D: the same array on every rank, or the slab of this rank
            (`image.read_slabs(…).mask(phase)`), and then no rank holds the whole image.
        axes: array axes; default all.
        voxel_size: edge lengths, of which only the ratios matter here; default those of the slab, else 1.
        petsc_options: options of the Krylov solver; the defaults reach a relative residual of 1e-6.
    Returns:
        One result per axis. Where nothing percolates the diffusivity is 0, τ is infinite, and a warning is
        logged.
    Raises:
        ValueError: an image that is not 2D or 3D, a phase that is absent, an axis out of range.
        RuntimeError: the solver did not converge.
    Source: conventions as in Cooper et al. (2016), SoftwareX 5, 203, doi:10.1016/j.softx.2016.09.002.
    """
    if not isinstance(mask, Slab):
        mask = Slab.share(comm, np.asarray(mask, dtype=bool), 1.0 if voxel_size is None else voxel_size)
    count = mask.count()
    if count == 0:
        raise ValueError("the phase does not occur in the image")
    axes = range(mask.dim) if axes is None else list(axes)
    for axis in axes:
        if not 0 <= axis < mask.dim:
            raise ValueError(f"axis {axis} is out of range for a {mask.dim}D image")
    options = {"ksp_rtol": 1e-6} | dict(petsc_options or {})

    porosity = count / mask.size
    results: list[Tortuosity] = []
    meshed: tuple[npt.NDArray[np.bool_], UnitCell] | None = None
    for found in connectivity(mask, axes):
        if not found.percolating:
            get_logger(__name__, comm).warning("the phase does not connect the faces of axis %d", found.axis)
            results.append(Tortuosity(found.axis, porosity, 0.0, 0.0, math.inf, math.inf, 0.0, 0))
            continue
        # Axes along which the same voxels percolate share one mesh.
        known = meshed is not None and np.array_equal(meshed[0], found.through)
        if meshed is None or not comm.allreduce(known, MPI.LAND):
            meshed = found.through, voxel_cell(comm, mask.like(found.through), voxel_size, phases=[1])
        results.append(_solve(meshed[1], found.axis, porosity, found.percolating_fraction, options))
    return results


def _solve(cell: UnitCell, axis: int, porosity: float, share: float, options: PetscOptions) -> Tortuosity:
    mesh, length = cell.mesh, float(cell.lengths[axis])
    V = fem.functionspace(mesh, ("Lagrange", 1))
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    c = fem.Function(V, name="concentration")
    dx = measure(mesh, 2, cell)
    # A linear profile is the first guess; it carries the boundary values.
    c.interpolate(lambda x: 1 - (x[axis] - cell.lower[axis]) / length)
    first = fem.locate_dofs_geometrical(
        V, lambda x: np.isclose(x[axis], cell.lower[axis], atol=1e-9 * length)
    )
    last = fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[axis], cell.upper[axis], atol=1e-9 * length))
    bcs = [fem.dirichletbc(1.0, first, V), fem.dirichletbc(0.0, last, V)]

    solver = LinearSolver(ufl.inner(ufl.grad(u), ufl.grad(v)) * dx, bcs, petsc_options=options)
    solver.assemble()
    residual = fem.form(-ufl.inner(ufl.grad(c), ufl.grad(v)) * dx)
    b = assemble_dual(residual)
    zero_on_boundary(b, bcs)
    correction = fem.Function(V)
    solver.solve(b, correction)
    c.x.array[:] += correction.x.array

    energy = global_sum(fem.form(ufl.inner(ufl.grad(c), ufl.grad(c)) * dx))
    # The reactions at the fixed faces are the fluxes through them, exactly as the discrete balance has them.
    reaction = assemble_dual(residual).array
    owned = V.dofmap.index_map.size_local
    fluxes = mesh.comm.allreduce(
        np.array([reaction[first[first < owned]].sum(), reaction[last[last < owned]].sum()])
    )
    relative = energy * length**2 / cell.volume
    exponent = None if porosity == 1 else math.log(relative) / math.log(porosity)
    return Tortuosity(
        axis,
        porosity,
        share,
        relative,
        porosity / relative,
        exponent,
        float(abs(fluxes.sum()) / abs(fluxes).max()),
        solver.iterations,
        c,
        cell,
    )
