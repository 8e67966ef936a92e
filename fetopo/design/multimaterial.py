"""A periodic cell of three and more materials, on a mesh or on voxels; see `nested` for their shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.design.adjoint import Functional, TensorFunctional
from fetopo.design.density import HeavisideProjection, chain
from fetopo.design.functionals import TensorFunction
from fetopo.design.initial import from_field, start_field
from fetopo.design.model import DESIGN_OPTIONS, VOID_CONTRAST, VOXEL_TOLERANCE, cell_filter, law_of
from fetopo.design.nested import JointFunctional, MaterialFraction, NestedDensity, NestedInterpolation
from fetopo.design.regions import PassiveRegions, Region, mask_of
from fetopo.design.symmetry import Symmetry
from fetopo.design.voxels import VoxelState, VoxelTensorFunctional
from fetopo.microstructure.mesh import UnitCell, to_image
from fetopo.transport import materials
from fetopo.transport.homogenization import CellProblem
from fetopo.transport.state import PetscOptions
from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid

Array = npt.NDArray[np.float64]


class MultiMaterialModel:
    """Several materials on a periodic cell: filters, projections, and the transport problems asked for.

    What :class:`fetopo.design.model.CellModel` is for two; its parts go into a `DesignProblem` the same way.

    Args:
        cell: periodic cell with its mesh, or a periodic grid of voxels.
        filter_radius: smallest length over which the structure varies.
        materials: how many, at least two.
        filter, symmetry, petsc_options: as there.
        passive: regions where a material is given, by its number.
    Attributes:
        density: from the design variables of all fields to the shares of the materials.
        filters, projections: one per field.
        volumes: volumes of this rank's cells, once per field.
        interpolations, solvers, comm, dim, volume: as there.
    Raises:
        ValueError: as there; fewer than two materials, passive regions that overlap.
    """

    def __init__(
        self,
        cell: UnitCell | VoxelGrid,
        filter_radius: float,
        *,
        materials: int = 3,
        filter: str = "helmholtz",
        passive: Mapping[int, Region] | None = None,
        symmetry: Symmetry | str | None = None,
        petsc_options: PetscOptions | None = None,
    ) -> None:
        if materials < 2:
            raise ValueError(f"a design needs at least two materials, found {materials}")
        if isinstance(cell, VoxelGrid) and petsc_options:
            raise ValueError(f"a grid of voxels is solved without PETSc, found options {dict(petsc_options)}")
        self.cell, self.dim, self.volume = cell, cell.dim, cell.volume
        self.comm: Any = cell.comm if isinstance(cell, VoxelGrid) else cell.mesh.comm
        self.fields = materials - 1
        self._options = DESIGN_OPTIONS | dict(petsc_options or {})
        self.filters = [cell_filter(cell, filter_radius, filter) for _ in range(self.fields)]
        self.projections = [HeavisideProjection() for _ in range(self.fields)]
        self.symmetry = Symmetry(cell, symmetry) if isinstance(symmetry, str) else symmetry
        regions = self._passive(passive or {})
        chains = [
            chain(f, p, passive=r, symmetry=self.symmetry)
            for f, p, r in zip(self.filters, self.projections, regions, strict=True)
        ]
        self.density = NestedDensity(cell if isinstance(cell, VoxelGrid) else cell.mesh, chains)
        self.cell_volumes = self.filters[0].volumes
        self.volumes = np.tile(self.cell_volumes, self.fields)
        self.interpolations: list[NestedInterpolation] = []
        self.solvers: list[Any] = [solver for f in self.filters for solver in f.solvers]

    def _passive(self, passive: Mapping[int, Region]) -> list[PassiveRegions | None]:
        """Passive regions of each field: material k is solid in the fields up to k, void in the next."""
        for k in passive:
            if not 0 <= k <= self.fields:
                raise ValueError(f"the material must be 0 to {self.fields}, found {k}")
        masks = {k: mask_of(self.cell, region) for k, region in passive.items()}
        found: list[PassiveRegions | None] = []
        for field in range(1, self.fields + 1):
            none = np.zeros(self.filters[0].volumes.size, dtype=bool)
            solid = np.logical_or.reduce([none, *(m for k, m in masks.items() if k >= field)])
            void = np.logical_or.reduce([none, *(m for k, m in masks.items() if k == field - 1)])
            found.append(PassiveRegions(self.cell, solid, void) if masks else None)
        return found

    def state(
        self, conductivities: Sequence[float], law: Callable[..., Any] | str = materials.simp
    ) -> CellProblem | VoxelState:
        """A transport problem on the density.

        Args:
            conductivities: of each material, rising or falling; an insulator (0) gets `VOID_CONTRAST` of the
                largest.
            law: interpolation, or its name.
        Raises:
            ValueError: as :class:`NestedInterpolation`, or another number of conductivities.
        """
        if len(conductivities) != self.fields + 1:
            raise ValueError(
                f"{self.fields + 1} materials need as many conductivities, found {list(conductivities)}"
            )
        floor = VOID_CONTRAST * max(conductivities)
        k = [max(float(c), floor) for c in conductivities]
        if isinstance(self.cell, VoxelGrid):
            interpolation = NestedInterpolation(self.cell, k, law=law_of(law, self.dim))
            problem = VoxelCellProblem(self.cell, rtol=VOXEL_TOLERANCE)
            density: Any = self.density
            mixture: Any = interpolation
            state: Any = VoxelState(problem, density, mixture)
            self.solvers.append(state)
        else:
            interpolation = NestedInterpolation(self.cell.mesh, k, law=law_of(law, self.dim))
            kappa = interpolation.ufl([share.rho for share in self.density.shares])
            state = CellProblem(self.cell, kappa, petsc_options=self._options)
            state.solver.name = "state"
            self.solvers.append(state.solver)
        self.interpolations.append(interpolation)
        return state

    def tensor_functional(self, state: Any, function: TensorFunction) -> Functional:
        """J(D) of the effective tensor of a state of this model."""
        if isinstance(state, VoxelState):
            return VoxelTensorFunctional(state, function)
        rhos = [share.rho for share in self.density.shares]
        return JointFunctional([TensorFunctional(state, function, rho) for rho in rhos if rho is not None])

    def fraction_of(self, material: int) -> MaterialFraction:
        """Volume fraction of a material, counted from 0."""
        return MaterialFraction(self.density, self.cell_volumes, self.volume, material)

    def start(self, fractions: Sequence[float], start: str = "inclusions", seed: int = 0) -> Array:
        """First design variables with about these volume fractions, from a named field.

        Args:
            fractions: of each material, all positive.
            start: "inclusions" or "random"; the fields of a random start differ.
            seed: of the random start.
        Raises:
            ValueError: fractions that are not positive or do not sum to 1, or a name that is not known.
        """
        f = np.asarray(fractions, dtype=float)
        if f.shape != (self.fields + 1,) or not (f > 0).all() or abs(f.sum() - 1) > 1e-6:
            raise ValueError(
                f"{self.fields + 1} positive volume fractions that sum to 1 are needed, found {f.tolist()}"
            )
        shares = np.cumsum(f[::-1])[::-1]
        return np.concatenate(
            [
                from_field(
                    start_field(self.cell, start, seed + k),
                    self.cell_volumes,
                    float(shares[k + 1] / shares[k]),
                    self.density.comm,
                )
                for k in range(self.fields)
            ]
        )

    def labels(self, values: Array) -> npt.NDArray[np.int64]:
        """Number of the material in each owned cell, from the shares."""
        return np.sum(np.stack(np.split(values, self.fields)) > 0.5, axis=0)

    def image(self, values: Array) -> Array | None:
        """Values per cell (of one field) as an array on every rank where the cell is a grid, else None."""
        if isinstance(self.cell, VoxelGrid):
            return np.asarray(self.cell.gather(values.reshape(self.cell.own_shape)))
        return None if self.cell.grid is None else to_image(self.cell, values)
