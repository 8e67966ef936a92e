"""Guaranteed intervals: an effective property of the given geometry between two computed bounds.

A potential that is continuous gives more energy than the exact one, a flux that is in balance more
complementary energy. The first bounds an effective conductivity from above, the second from below, and the
distance of the two, cell by cell, says where the mesh is too coarse (Prager and Synge).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import basix.ufl
import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fetopo._mpi import get_logger
from fetopo.microstructure.mesh import UnitCell, select_phases
from fetopo.transport.components import pin_islands
from fetopo.transport.homogenization import Conductivity, checked_conductivity, conductivity_field
from fetopo.transport.interval import VOXEL_WEIGHT, between, flux_bound
from fetopo.transport.periodic import periodic_space
from fetopo.transport.state import LinearSolver, PetscOptions, assemble_dual, global_sum, zero_on_boundary
from fetopo.transport.voxel_enclosure import voxel_bounds


@dataclass(frozen=True)
class Enclosure:
    """Bounds of an effective conductivity: D_lower ≤ D ≤ D_upper as quadratic forms.

    Attributes:
        lower_bound: from a flux in balance, d×d, or 1×1 for transport between two faces.
        upper_bound: from a continuous potential, of the same shape.
        best_estimate: weighted geometric mean of the two, which never leaves the interval: the middle on
            simplices (in 2D exact where a structure is its own dual), 0.44 of the way on voxels.
        imbalance: what the solver left unbalanced, in the unit of the result; already taken off the lower
            bound.
        gap: local gap ∫ |κ^½ ∇u − κ^{-½} σ|² dx of each cell, summed over directions, as a DG0 function
            on the mesh of what conducts. None on voxels.
        cell: that mesh.
        conventions: side conditions and elements.
    """

    lower_bound: npt.NDArray[np.float64]
    upper_bound: npt.NDArray[np.float64]
    best_estimate: npt.NDArray[np.float64]
    imbalance: float
    gap: fem.Function | None = None
    cell: UnitCell | None = None
    conventions: dict[str, str] = field(default_factory=dict)

    @property
    def width(self) -> float:
        """Largest eigenvalue of D_upper − D_lower, relative to the largest of the best estimate."""
        top = float(np.linalg.eigvalsh(self.best_estimate).max())
        return float(np.linalg.eigvalsh(self.upper_bound - self.lower_bound).max()) / max(top, 1e-300)

    def contains(self, tensor: npt.ArrayLike, slack: float = 1e-12) -> bool:
        """Whether a tensor (or number) lies between the bounds, up to `slack` times its size."""
        D = np.asarray(tensor, dtype=float).reshape(self.lower_bound.shape)
        room = slack * np.abs(D).max(initial=0.0)
        below = np.linalg.eigvalsh(D - self.lower_bound).min()
        above = np.linalg.eigvalsh(self.upper_bound - D).min()
        return bool(below >= -room and above >= -room)


def enclose(
    cell: UnitCell,
    conductivity: Conductivity,
    *,
    axis: int | None = None,
    petsc_options: PetscOptions | None = None,
) -> Enclosure:
    """Guaranteed interval for the effective conductivity of a cell: periodic, or between two faces.

    On triangles and tetrahedra with straight edges: above from linear elements, below from
    Crouzeix–Raviart elements, whose flux σ = κ(e + ∇χ) is constant in each cell with a normal component that
    is continuous across facets: a Raviart–Thomas field without divergence. On voxels: above from trilinear
    elements, below from finite volumes. With M and C the mean and the energy of the fluxes,

    M C⁻¹ Mᵀ ≤ D ≤ 1/|Y| ∫ (eᵢ + ∇χᵢ)·κ(eⱼ + ∇χⱼ) dx.

    The interval is that of the mesh's geometry: a disc meshed as a polygon is that polygon.

    Args:
        cell: the cell; its tags are the phases. Phases of conductivity zero are exact insulators.
        conductivity: for every phase, by tag or name, a number ≥ 0 or, on simplices, a symmetric d×d tensor.
        axis: None for the tensor of the periodic cell; else transport along this axis between the two faces
            normal to it, with no flux through the others.
        petsc_options: options of the Krylov solver; on voxels `ksp_rtol` only.
    Raises:
        ValueError: as :func:`effective_conductivity`, an axis out of range, or nothing that connects the
            faces along it, or other options on voxels.
        NotImplementedError: curved cells, or quadrilaterals and hexahedra that are not voxels: only the two
            kinds of cells above have a flux that is in balance exactly. Tensors on voxels.
        RuntimeError: the solver did not converge.
    Source: Prager and Synge (1947), doi:10.1090/qam/25902; Marini (1985), SIAM J. Numer. Anal. 22, 493,
    doi:10.1137/0722029, for the flux.
    """
    if axis is not None and not 0 <= axis < cell.dim:
        raise ValueError(f"axis {axis} is out of range for a {cell.dim}D cell")
    values = checked_conductivity(cell, conductivity)
    conducting = [tag for tag, value in values.items() if np.any(value)]
    if not conducting:
        raise ValueError("no phase conducts: all conductivities are zero")
    sides = "periodic" if axis is None else "no flux"
    mesh = cell.mesh
    if cell.grid is not None:
        if any(value.ndim for value in values.values()):
            raise NotImplementedError("on voxels the interval is for conductivities that are numbers")
        numbers = {tag: float(value) for tag, value in values.items()}
        lower, upper, imbalance = voxel_bounds(cell, numbers, axis, petsc_options)
        lower, upper = _outward(lower, upper, max(numbers.values()))
        conventions = {"sides": sides, "elements": "trilinear and finite volumes, one per voxel"}
        best = between(lower, upper, VOXEL_WEIGHT)
        return Enclosure(lower, upper, best, imbalance, None, cell, conventions)
    straight = mesh.ufl_domain().ufl_coordinate_element().degree == 1
    if mesh.topology.cell_name() not in ("triangle", "tetrahedron") or not straight:
        raise NotImplementedError(
            f"no flux in exact balance on {'' if straight else 'curved '}{mesh.topology.cell_name()} cells: "
            "use straight triangles or tetrahedra, or voxels"
        )
    part = select_phases(cell, conducting)
    kappa = conductivity_field(part, {tag: values[tag] for tag in conducting})
    return _on_simplices(part, kappa, axis, petsc_options)


def _on_simplices(
    cell: UnitCell, kappa: fem.Function, axis: int | None, petsc_options: PetscOptions | None
) -> Enclosure:
    mesh, dim, comm = cell.mesh, cell.dim, cell.mesh.comm
    name = mesh.topology.cell_name()
    directions = list(range(dim)) if axis is None else [axis]
    n = len(directions)
    dx = ufl.Measure("dx", domain=mesh, metadata={"quadrature_degree": 0})
    tight = {"ksp_rtol": 1e-11} | dict(petsc_options or {})
    linear, _, swing = _correctors(cell, kappa, ("Lagrange", 1), axis, petsc_options, dx)
    crouzeix, residual, _ = _correctors(cell, kappa, basix.ufl.element("CR", name, 1), axis, tight, dx)
    e = [ufl.as_vector([float(i == j) for j in range(dim)]) for i in directions]
    local = [e_i + ufl.grad(chi) for e_i, chi in zip(e, linear, strict=True)]
    balanced = [e_i + ufl.grad(chi) for e_i, chi in zip(e, crouzeix, strict=True)]
    upper: Any
    mean: Any
    energy: Any
    upper, mean, energy = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    for i in range(n):
        for j in range(n):
            mean[i, j] = global_sum(fem.form(ufl.inner(e[i], _flux(kappa, balanced[j])) * dx))
            if i <= j:
                pairs = ((upper, local), (energy, balanced))
                for matrix, fields in pairs:
                    product = ufl.inner(fields[i], _flux(kappa, fields[j])) * dx
                    matrix[i, j] = matrix[j, i] = global_sum(fem.form(product))
    upper, mean, energy = upper / cell.volume, mean / cell.volume, energy / cell.volume
    # |χ| of the exact solution: at most the length between two faces, where it is zero; in a periodic cell
    # about what the discrete corrector varies by, of which twice is taken.
    reach = float(cell.lengths[axis]) if axis is not None else swing
    imbalance = residual * reach / cell.volume
    lower, upper = _outward(
        flux_bound(mean, energy, np.array([imbalance])),
        upper,
        max(comm.allgather(float(np.abs(kappa.x.array).max(initial=0.0)))),
    )

    w = ufl.TestFunction(fem.functionspace(mesh, ("DG", 0)))
    gap = fem.Function(w.ufl_function_space(), name="gap")
    apart = [ufl.grad(a - b) for a, b in zip(linear, crouzeix, strict=True)]
    density = sum(ufl.inner(g, _flux(kappa, g)) for g in apart)
    gap.x.array[:] = assemble_dual(fem.form(density * w * dx)).array
    gap.x.scatter_forward()
    conventions = {
        "sides": "periodic" if axis is None else "no flux",
        "elements": f"P1 and Crouzeix–Raviart on {name} cells",
    }
    if axis is not None:
        conventions["potential"] = "at the face"
    best = between(lower, upper)
    get_logger(__name__, comm).debug("solver's imbalance takes %.2g off the lower bound", imbalance)
    return Enclosure(lower, upper, best, imbalance, gap, cell, conventions)


def _outward(lower: npt.NDArray, upper: npt.NDArray, largest: float) -> tuple[npt.NDArray, npt.NDArray]:
    """Bounds with room for round-off: sums of terms as large as the largest conductivity cancel."""
    room = 1e-14 * largest * np.eye(len(lower))
    return lower - room, upper + room


def _flux(kappa: Any, gradient: Any) -> Any:
    return ufl.dot(kappa, gradient) if kappa.ufl_shape else kappa * gradient


def _correctors(
    cell: UnitCell,
    kappa: fem.Function,
    element: Any,
    axis: int | None,
    petsc_options: PetscOptions | None,
    dx: ufl.Measure,
) -> tuple[list[fem.Function], float, float]:
    """Correctors in a space, the largest sum of absolute residuals, and how much a corrector varies."""
    V, mesh = fem.functionspace(cell.mesh, element), cell.mesh
    bcs, nullspace, directions = [], None, list(range(cell.dim))
    if axis is None:
        V = periodic_space(V, cell.lower, cell.upper, complete=cell.complete)
        nullspace = fem.Function(V)
        pinned, nullspace.x.array[:], islands = pin_islands(V)
        if islands:
            bcs = [fem.dirichletbc(0.0, pinned, V)]
    else:
        directions = [axis]
        ends, near = (cell.lower[axis], cell.upper[axis]), 1e-9 * cell.lengths[axis]
        found = fem.locate_dofs_geometrical(
            V, lambda x: np.isclose(x[axis], ends[0], atol=near) | np.isclose(x[axis], ends[1], atol=near)
        )
        bcs = [fem.dirichletbc(0.0, found, V)]
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    a = ufl.inner(_flux(kappa, ufl.grad(u)), ufl.grad(v)) * dx
    solver = LinearSolver(a, bcs, nullspace=nullspace, petsc_options=petsc_options)
    solver.assemble()
    owned = V.dofmap.index_map.size_local
    correctors, worst, swing = [], 0.0, 0.0
    for i in directions:
        chi = fem.Function(V)
        e = ufl.as_vector([float(i == j) for j in range(cell.dim)])
        residual = fem.form(-ufl.inner(_flux(kappa, e + ufl.grad(chi)), ufl.grad(v)) * dx)
        b = assemble_dual(residual)
        zero_on_boundary(b, bcs)
        try:
            solver.solve(b, chi)
        except RuntimeError:
            # At high contrast round-off may end the iteration before the tight tolerance. What is left is
            # known and taken off the bound; only far from a solution is this an error.
            solver.set_tolerance(1e-8)
            solver.solve(b, chi)
        left = assemble_dual(residual)
        if axis is not None:
            zero_on_boundary(left, bcs)
        worst = max(worst, mesh.comm.allreduce(float(np.abs(left.array[:owned]).sum())))
        high = max(mesh.comm.allgather(float(chi.x.array[:owned].max(initial=-np.inf))))
        low = min(mesh.comm.allgather(float(chi.x.array[:owned].min(initial=np.inf))))
        swing = max(swing, high - low)
        correctors.append(chi)
    return correctors, worst, swing
