"""Density filters, each with its transpose: averages over a length, below which a design has no features.

Two by a screened Poisson equation, on meshes and on voxels, and the average with cone weights, on voxels.
Arrays hold one value per owned cell or voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh
from scipy.signal import fftconvolve

from fetopo.design.exchange import exchange_of_voxels
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.assembly import Pairing, form
from fetopo.transport.periodic import periodic_space
from fetopo.transport.quadrature import measure
from fetopo.transport.state import LinearSolver, PetscOptions, assemble_dual, owned
from fetopo.transport.voxel import ScreenedPoisson, VoxelGrid

Array = npt.NDArray[np.float64]

#: Krylov solver of the filter: its matrix is a mass matrix with a little diffusion.
FILTER_OPTIONS = {"ksp_type": "cg", "ksp_rtol": 1e-12, "ksp_max_it": 2000, "pc_type": "jacobi"}

BOUNDARIES = ("neumann", "robin")


def _check(radius: float) -> float:
    if not (np.isfinite(radius) and radius >= 0):
        raise ValueError(f"the filter radius must be non-negative and finite, found {radius}")
    return float(radius)


def _boundary_length(boundary: str, length: float | None, radius: float, walls: bool) -> float:
    """ℓ of the Robin condition, 0 without."""
    if boundary not in BOUNDARIES:
        raise ValueError(f"the boundary of a filter is 'neumann' or 'robin', found {boundary!r}")
    if length is not None and not (np.isfinite(length) and length > 0):
        raise ValueError(f"the length of the boundary term must be positive and finite, found {length}")
    if boundary == "neumann":
        if length is not None:
            raise ValueError(f"only a Robin boundary has a length, found {length} for 'neumann'")
        return 0.0
    if not walls:
        raise ValueError("a periodic cell has no boundary for a Robin condition")
    return radius / (2 * 3**0.5) if length is None else float(length)


class HelmholtzFilter:
    """Local averaging over a distance R by a screened Poisson equation.

    −r²∇²x̃ + x̃ = x,  r = R/(2√3), with continuous piecewise linear x̃, returned as its mean over each cell:
    x̃ = M⁻¹BᵀK⁻¹B x with B the pairing of cell values with test functions and M the cell volumes.

    Boundaries carry no flux, which preserves volume and lets material at an edge count as if it went on
    beyond it: thin strips along edges pass the filter. Under a Robin condition, r² ∂x̃/∂n = −ℓ x̃, the outside
    counts as void, with ℓ = r as if void went on without end behind a plane. A periodic cell has no boundary.

    Args:
        mesh: the mesh.
        radius: R, in the unit of the mesh; 0 returns the input.
        cell: periodic cell the mesh belongs to, if it is one.
        boundary: "neumann" or "robin".
        boundary_length: ℓ, in the unit of the mesh; default r.
        boundary_where: marker on positions (3, n) of the facets under the Robin condition, default all of
            the boundary; those of a symmetry plane should be left out.
        petsc_options: options of the Krylov solver.
    Attributes:
        volumes: volume of each owned cell.
        solvers: linear solvers it uses, for whoever counts iterations.
    Raises:
        ValueError: a radius that is negative or not finite, another boundary, a length that is not positive,
            a Robin condition on a periodic cell.
    Source: Lazarov and Sigmund (2011), Int. J. Numer. Meth. Eng. 86, 765, doi:10.1002/nme.3072; Wallin,
    Ivarsson, Amir and Tortorelli (2020), Struct. Multidisc. Optim. 62, 783, doi:10.1007/s00158-020-02556-w.
    """

    def __init__(
        self,
        mesh: Any,
        radius: float,
        *,
        cell: UnitCell | None = None,
        boundary: str = "neumann",
        boundary_length: float | None = None,
        boundary_where: Callable[[Any], Any] | None = None,
        petsc_options: PetscOptions | None = None,
    ) -> None:
        self.radius = _check(radius)
        length = _boundary_length(boundary, boundary_length, self.radius, cell is None)
        Q = fem.functionspace(mesh, ("DG", 0))
        self._cells = fem.Function(Q)
        self.volumes = owned(assemble_dual(form(ufl.TestFunction(Q) * measure(mesh, 0, cell)))).copy()
        self.solvers: list[LinearSolver] = []
        if radius == 0:
            return
        V = fem.functionspace(mesh, ("Lagrange", 1))
        if cell is not None:
            V = periodic_space(V, cell.lower, cell.upper, complete=cell.complete)
        u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
        r2 = (radius / (2 * 3**0.5)) ** 2
        a = (r2 * ufl.inner(ufl.grad(u), ufl.grad(v)) + ufl.inner(u, v)) * measure(mesh, 2, cell)
        if length > 0:
            a += length * ufl.inner(u, v) * _surface(mesh, boundary_where)
        dx = measure(mesh, 1, cell)
        self._nodes = fem.Function(V)
        self._last = fem.Function(V)
        self._pairing = Pairing(ufl.TrialFunction(Q) * v * dx)
        self._solver = LinearSolver(a, petsc_options=petsc_options or FILTER_OPTIONS)
        self._solver.assemble()
        self._solver.name = "filter"
        self.solvers.append(self._solver)

    @property
    def guesses(self) -> list[Array]:
        """Where the next solve starts, as views of this rank's values."""
        return [self._last.x.array] if self.radius > 0 else []

    def _apply(self, values: Array, guess: fem.Function | None) -> Array:
        """BᵀK⁻¹B, which is its own transpose; `guess` is where the solver starts and gets the solution."""
        # Densities and derivatives differ by orders of magnitude: one is no guess for the other.
        self._nodes.x.array[:] = 0.0 if guess is None else guess.x.array
        owned(self._cells)[:] = values
        self._solver.solve(self._pairing.times(self._cells.x.array), self._nodes)
        if guess is not None:
            guess.x.array[:] = self._nodes.x.array
        return self._pairing.transposed_times(self._nodes.x.array)[: values.size]

    def forward(self, x: Array) -> Array:
        """Filtered values x̃ = M⁻¹BᵀK⁻¹B x."""
        return x.copy() if self.radius == 0 else self._apply(x, self._last) / self.volumes

    def vjp(self, dual: Array) -> Array:
        """Pull a derivative back: BᵀK⁻¹B M⁻¹ ȳ."""
        return dual.copy() if self.radius == 0 else self._apply(dual / self.volumes, None)


def _surface(mesh: Any, where: Callable[[Any], Any] | None) -> ufl.Measure:
    """Measure of the boundary facets that a marker selects."""
    if where is None:
        return ufl.Measure("ds", domain=mesh)
    fdim = mesh.topology.dim - 1
    mesh.topology.create_connectivity(fdim, fdim + 1)
    facets = np.sort(dmesh.locate_entities_boundary(mesh, fdim, where))
    tags = dmesh.meshtags(mesh, fdim, facets, np.ones(facets.size, dtype=np.int32))
    return ufl.Measure("ds", domain=mesh, subdomain_data=tags, subdomain_id=1)


class VoxelFilter:
    """Local averaging over a distance R by a screened Poisson equation, on a grid of voxels.

    −r²∇²x̃ + x̃ = x,  r = R/(2√3), by finite volumes with one value per voxel. All voxels are alike, so that
    the filter is its own transpose, and 0 ≤ x ≤ 1 gives 0 ≤ x̃ ≤ 1. Walls of a grid that is not periodic as
    :class:`HelmholtzFilter`'s boundaries; without a Robin condition volume is preserved.

    Args:
        grid: the grid.
        radius: R, in the unit of the grid; 0 returns the input.
        boundary, boundary_length: as :class:`HelmholtzFilter`, for all walls.
    Attributes:
        volumes: volume of each voxel of the own block.
        solvers: linear solvers it uses, for whoever counts iterations.
    Raises:
        ValueError: as :class:`HelmholtzFilter`.
    Source: as :class:`HelmholtzFilter`.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        radius: float,
        *,
        boundary: str = "neumann",
        boundary_length: float | None = None,
    ) -> None:
        self.grid, self.radius = grid, _check(radius)
        length = _boundary_length(boundary, boundary_length, self.radius, not all(grid.periodic))
        self.volumes: Array = np.full(int(np.prod(grid.own_shape)), float(np.prod(grid.voxel_size)))
        self.solvers: list[Any] = []
        #: Krylov iterations of all solves so far.
        self.iterations = 0
        self.name = "filter"
        if radius > 0:
            self._solver = ScreenedPoisson(grid, radius / (2 * 3**0.5), wall_length=length)
            self.solvers.append(self)

    def _apply(self, values: Array) -> Array:
        if self.radius == 0:
            return values.copy()
        result = np.asarray(self._solver.solve(values.reshape(self.grid.own_shape))).reshape(-1)
        self.iterations += int(self._solver.iterations)
        return result

    def forward(self, x: Array) -> Array:
        """Filtered values x̃ = (1 + r²L)⁻¹ x."""
        return self._apply(x)

    def vjp(self, dual: Array) -> Array:
        """Pull a derivative back: (1 + r²L)⁻¹ ȳ, the same map."""
        return self._apply(dual)


def _lattice(axes: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Points of a rectangular lattice, shape (d, …)."""
    return np.stack(np.meshgrid(*axes, indexing="ij"))


class ConvolutionFilter:
    """Weighted average over a ball of radius R, on a grid of voxels.

    x̃ᵢ = Σⱼ wᵢⱼ xⱼ / Σⱼ wᵢⱼ,  wᵢⱼ = max(0, R − |xᵢ − xⱼ|)

    The sums go over the periodic images along periodic axes and end at walls. Each rank fetches a margin of
    the width R from the others and convolves its own block by FFT.

    Args:
        grid: the grid.
        radius: R, in the unit of the grid; below one voxel's shortest edge nothing is averaged.
    Attributes:
        volumes, solvers: as :class:`VoxelFilter`; there are no solvers.
    Raises:
        ValueError: a radius that is negative or not finite.
    Source: Bruns and Tortorelli (2001), Comput. Methods Appl. Mech. Eng. 190, 3443,
    doi:10.1016/S0045-7825(00)00278-4.
    """

    def __init__(self, grid: VoxelGrid, radius: float) -> None:
        self.grid, self.radius = grid, _check(radius)
        self.volumes: Array = np.full(int(np.prod(grid.own_shape)), float(np.prod(grid.voxel_size)))
        self.solvers: list[Any] = []
        h, n = np.array(grid.voxel_size), grid.shape
        reach = np.maximum(np.ceil(self.radius / h).astype(int) - 1, 0)
        #: Whether any voxel sees another.
        self.averages = bool(reach.any())
        if not self.averages:
            return
        offsets = _lattice([np.arange(-m, m + 1) * a for m, a in zip(reach, h, strict=True)])
        self._weights: Array = np.maximum(0.0, self.radius - np.linalg.norm(offsets, axis=0))
        axes = [np.arange(s.start - m, s.stop + m) for s, m in zip(grid.own, reach, strict=True)]
        around = _lattice(axes)
        self._inside = np.ones(around.shape[1:], dtype=bool)
        for axis, wraps in enumerate(grid.periodic):
            if not wraps:
                self._inside &= (around[axis] >= 0) & (around[axis] < n[axis])
        indices = np.asarray(around[:, self._inside].T % n, dtype=np.int64)
        self._exchange = exchange_of_voxels(grid, indices)
        self._sums = self._convolve(np.ones(self.volumes.size))

    def _convolve(self, values: Array) -> Array:
        field = np.zeros(self._inside.shape)
        field[self._inside] = self._exchange.forward(values)
        return np.asarray(fftconvolve(field, self._weights, mode="valid")).reshape(-1)

    def forward(self, x: Array) -> Array:
        """Filtered values x̃ = S⁻¹W x with S the sums of the rows of W."""
        return self._convolve(x) / self._sums if self.averages else x.copy()

    def vjp(self, dual: Array) -> Array:
        """Pull a derivative back: W S⁻¹ ȳ, W being symmetric."""
        return self._convolve(dual / self._sums) if self.averages else dual.copy()
