"""A periodic cell with a density on it: what functionals are made from, on a mesh or on voxels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._mpi import require
from fetopo.design.adjoint import Functional, MeanDensity, TensorFunctional
from fetopo.design.density import DensityMap, HeavisideProjection, Interpolation, chain
from fetopo.design.filters import ConvolutionFilter, HelmholtzFilter, VoxelFilter
from fetopo.design.functionals import TensorFunction
from fetopo.design.initial import from_field, start_field
from fetopo.design.regions import PassiveRegions, Region, passive_regions
from fetopo.design.symmetry import Symmetry
from fetopo.design.voxels import VoxelState, VoxelTensorFunctional
from fetopo.microstructure.mesh import UnitCell, to_image
from fetopo.transport import materials
from fetopo.transport.homogenization import CellProblem
from fetopo.transport.state import PetscOptions
from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid

Array = npt.NDArray[np.float64]

#: Conductivity, relative to the better phase, that an insulator has while the design is still grey. The
#: finished design is solved with the insulator left out.
VOID_CONTRAST = 1e-3

#: Krylov tolerance while designing. The tensor's error is of the order of its square; what asks for more is
#: that a run takes the same path on any number of ranks.
DESIGN_OPTIONS: dict[str, Any] = {"ksp_rtol": 1e-10}

#: The same on voxels. There runs with 1e-4 to 1e-10 took the same path to the same crisp structure on 1, 2
#: and 3 ranks, with densities that differed by 6e-8 and less.
VOXEL_TOLERANCE = 1e-6


#: Filters by name.
FILTERS = ("helmholtz", "convolution")


class CellState(Protocol):
    """A cell problem that follows the density."""

    @property
    def tensor(self) -> Array: ...

    def solve(self) -> Any: ...


def cell_filter(
    cell: UnitCell | VoxelGrid, radius: float, name: str = "helmholtz"
) -> HelmholtzFilter | VoxelFilter | ConvolutionFilter:
    """Density filter of a periodic cell.

    Args:
        cell: periodic cell with its mesh, or a grid of voxels.
        radius: smallest length over which the structure varies.
        name: "helmholtz", or on voxels "convolution".
    Raises:
        ValueError: another name, a convolution on a mesh, a grid that is not periodic, a radius out of range.
    """
    if name not in FILTERS:
        raise ValueError(f"a filter is {' or '.join(map(repr, FILTERS))}, found {name!r}")
    if not isinstance(cell, VoxelGrid):
        if name != "helmholtz":
            raise ValueError(f"on a mesh the filter is 'helmholtz', found {name!r}")
        return HelmholtzFilter(cell.mesh, radius, cell=cell)
    if not all(cell.periodic):
        raise ValueError(f"the grid must be periodic along every axis, found {cell.periodic}")
    return VoxelFilter(cell, radius) if name == "helmholtz" else ConvolutionFilter(cell, radius)


def law_of(law: Callable[..., Any] | str, dim: int) -> Callable[..., Any]:
    """An interpolation law, given as such or by its name."""
    return materials.law(law, dim) if isinstance(law, str) else law


class CellModel:
    """A density on a periodic cell: filter, projection, and as many transport problems as are asked for.

    Args:
        cell: periodic cell with its mesh, or a periodic grid of voxels, which needs none.
        filter_radius: smallest length over which the structure varies, in the unit of the cell.
        filter: "helmholtz", or on voxels "convolution".
        passive: regions that are given, {"solid": …, "void": …} as :func:`fetopo.design.regions.mask_of`
            takes them.
        symmetry: of the design, see :class:`fetopo.design.symmetry.Symmetry`.
        petsc_options: of the corrector problems; on a mesh only.
    Attributes:
        comm: communicator of the cell; `density.comm` is that over which values are distributed.
        volumes: volumes of this rank's cells or voxels; `volume` is that of the cell.
        filter, projection, passive, symmetry, density: from design variable to density.
        interpolations: of all states, for the continuation.
        solvers: linear solvers of filter and states, for whoever counts iterations.
    Raises:
        ValueError: PETSc options for a grid of voxels, a grid that is not periodic, a radius out of range;
            passive regions or a symmetry that the cell does not have.
    """

    def __init__(
        self,
        cell: UnitCell | VoxelGrid,
        filter_radius: float,
        *,
        filter: str = "helmholtz",
        passive: PassiveRegions | Mapping[str, Region] | None = None,
        symmetry: Symmetry | str | None = None,
        petsc_options: PetscOptions | None = None,
    ) -> None:
        self.cell, self.dim, self.volume = cell, cell.dim, cell.volume
        self.projection = HeavisideProjection()
        if isinstance(cell, VoxelGrid) and petsc_options:
            raise ValueError(f"a grid of voxels is solved without PETSc, found options {dict(petsc_options)}")
        self.comm: Any = cell.comm if isinstance(cell, VoxelGrid) else cell.mesh.comm
        self.filter = cell_filter(cell, filter_radius, filter)
        self._options = DESIGN_OPTIONS | dict(petsc_options or {})
        self.passive = passive_regions(cell, passive)
        self.symmetry = Symmetry(cell, symmetry) if isinstance(symmetry, str) else symmetry
        steps = chain(self.filter, self.projection, passive=self.passive, symmetry=self.symmetry)
        self.density = DensityMap(cell if isinstance(cell, VoxelGrid) else cell.mesh, *steps)
        self.volumes = self.filter.volumes
        self.interpolations: list[Interpolation] = []
        self.solvers: list[Any] = list(self.filter.solvers)

    def state(
        self, conductivity: tuple[float, float], law: Callable[..., Any] | str = materials.simp
    ) -> CellProblem | VoxelState:
        """A transport problem on the density.

        Args:
            conductivity: at ρ = 0 and at ρ = 1; an insulator (0) gets `VOID_CONTRAST` of the other.
            law: interpolation between the two, or its name, "simp", "ramp" or "hashin-shtrikman".
        """
        law = law_of(law, self.dim)
        floor = VOID_CONTRAST * max(conductivity)
        first, second = (max(float(c), floor) for c in conductivity)
        if isinstance(self.cell, VoxelGrid):
            interpolation = Interpolation(self.cell, first, second, law=law)
            problem = VoxelCellProblem(self.cell, rtol=VOXEL_TOLERANCE)
            state: Any = VoxelState(problem, self.density, interpolation)
            self.solvers.append(state)
        else:
            interpolation = Interpolation(self.cell.mesh, first, second, law=law)
            kappa = interpolation.ufl(self.density.rho)
            state = CellProblem(self.cell, kappa, petsc_options=self._options)
            state.solver.name = "state"
            self.solvers.append(state.solver)
        self.interpolations.append(interpolation)
        return state

    def tensor_functional(self, state: Any, function: TensorFunction) -> Functional:
        """J(D) of the effective tensor of a state of this model."""
        if isinstance(state, VoxelState):
            return VoxelTensorFunctional(state, function)
        assert self.density.rho is not None
        return TensorFunctional(state, function, self.density.rho)

    def mean_density(self) -> MeanDensity:
        """Volume fraction of the material with ρ = 1."""
        return MeanDensity(self.density, self.volumes, self.volume)

    def start(self, start: Array | str, volume_fraction: float, seed: int = 0) -> Array:
        """First design variables: given, one per owned cell, or from a named field.

        Raises:
            ValueError: another number of values, values outside [0, 1], or a name that is not known.
        """
        if isinstance(start, str):
            field = start_field(self.cell, start, seed)
            return from_field(field, self.volumes, volume_fraction, self.density.comm)
        m = np.asarray(start, dtype=float)
        message = f"the initial design needs one value per owned cell, found shape {m.shape}"
        require(self.comm, m.shape == self.volumes.shape, message)
        # Also where every rank has the whole grid and works alone.
        inside = bool(np.all((m >= 0) & (m <= 1)))
        require(self.comm, inside, "the initial design must lie between 0 and 1")
        return m.copy()

    def fraction(self, values: Array) -> float:
        """Mean of values of this rank's cells over the volume. Collective."""
        return float(self.density.comm.allreduce(float(values @ self.volumes), op=MPI.SUM)) / self.volume

    def image(self, values: Array) -> Array | None:
        """Values as an array on every rank where the cell is a grid, else None. Collective."""
        if isinstance(self.cell, VoxelGrid):
            return np.asarray(self.cell.gather(values.reshape(self.cell.own_shape)))
        return None if self.cell.grid is None else to_image(self.cell, values)
