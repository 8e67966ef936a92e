"""Heat conduction on a general domain with a density: loads, temperatures, what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fetopo.design.adjoint import FormFunctional, Functional, MeanDensity
from fetopo.design.certificate import Certificate, Energy, certify
from fetopo.design.crisp import threshold
from fetopo.design.density import DensityMap, HeavisideProjection, HelmholtzFilter, Interpolation
from fetopo.design.grey import GreyLevel
from fetopo.design.loads import Convection, HeatState, LoadCase, Region, Source, indicator
from fetopo.design.problem import Constraint, Continuation, DesignProblem, LoopOptions
from fetopo.microstructure.mesh import UnitCell, to_image
from fetopo.transport import materials
from fetopo.transport.conditions import Fixed, Inflow
from fetopo.transport.quadrature import measure
from fetopo.transport.state import PetscOptions, assemble_dual, owned

__all__ = ["Convection", "Fixed", "HeatModel", "HeatState", "Inflow", "NodalDensity"]

Array = npt.NDArray[np.float64]

#: Sharpness of the last projection: branches a few cells wide are grey with less.
SHARPEST = 512.0

#: The first penalty makes compliance convex, so that the start does not matter.
CONTINUATION = Continuation(penalties=(1.0, 2.0, 3.0), max_beta=SHARPEST)

#: Short steps where the projection is sharp: long ones tear branches that are a few cells wide.
OPTIONS = LoopOptions(continuation=CONTINUATION, full_steps=8.0)

#: Grey level, mean of 4ρ(1−ρ), that a design is not to exceed in the end.
GREY = 0.008

#: Points of quadrature are enough for κ(ρ) of a density linear in each cell and a power up to this.
_NODAL_DEGREE = 5


class NodalDensity(DensityMap):
    """Design variable to a continuous density, linear in each cell, with one value per vertex.

    For problems that ask for ∇ρ, e.g. with a penalty on it in place of a filter.
    """

    def __init__(self, mesh: Any, *steps: Any) -> None:
        super().__init__(mesh, *steps)
        self.rho = fem.Function(fem.functionspace(mesh, ("Lagrange", 1)), name="density")


class HeatModel:
    """A density on a domain, and as many load cases of heat conduction as are asked for.

    Args:
        cell: the domain with its mesh and tags, e.g. from `gmsh_cell`, `regular_cell` or `read_mesh`.
        conductivity: at ρ = 0 and at ρ = 1, both positive.
        filter_radius: smallest length over which the structure varies; 0 for none.
        variables: "cells", one design variable per cell, or "nodes", one per vertex and no filter.
        projection: sharpens the filtered density; None for none.
        law: interpolation between the two conductivities.
        penalty: its exponent, or q of RAMP.
        petsc_options: of the state problems.
    Attributes:
        comm, density, filter, projection, volumes, volume, interpolations, solvers: as those of `CellModel`;
            `volume` is that of the domain, `volumes` are those of cells or, for vertices, ∫ φᵢ dx.
    Raises:
        ValueError: values out of range, or a filter where the variables are at vertices.
    """

    def __init__(
        self,
        cell: UnitCell,
        conductivity: tuple[float, float],
        filter_radius: float = 0.0,
        *,
        variables: str = "cells",
        projection: HeavisideProjection | None = None,
        law: Callable[..., Any] = materials.simp,
        penalty: float = 3.0,
        petsc_options: PetscOptions | None = None,
    ) -> None:
        if variables not in ("cells", "nodes"):
            raise ValueError(f"design variables are at 'cells' or 'nodes', found {variables!r}")
        if variables == "nodes" and filter_radius != 0:
            raise ValueError(f"a density at nodes has no filter, found the radius {filter_radius}")
        self.cell, self.comm, self.conductivity = cell, cell.mesh.comm, conductivity
        self.interpolation = Interpolation(cell.mesh, *conductivity, penalty, law)
        self.projection, self.variables = projection, variables
        steps: list[Any] = [] if projection is None else [projection]
        self.filter: HelmholtzFilter | None = None
        if variables == "cells":
            self.filter = HelmholtzFilter(cell.mesh, filter_radius)
            self.volumes = self.filter.volumes
            self.density = DensityMap(cell.mesh, self.filter, *steps)
        else:
            self.density = NodalDensity(cell.mesh, *steps)
            test = ufl.TestFunction(self.rho.function_space)
            self.volumes = owned(assemble_dual(fem.form(test * measure(cell.mesh, 1, cell)))).copy()
        self.volume = float(self.comm.allreduce(float(self.volumes.sum())))
        self.interpolations = [self.interpolation]
        self.solvers: list[Any] = list(self.filter.solvers) if self.filter else []
        self._options = dict(petsc_options or {})
        self._space = fem.functionspace(cell.mesh, ("Lagrange", 1))
        self._simplex = cell.mesh.topology.cell_name() in ("triangle", "tetrahedron")
        # Gradients are constant in simplices.
        self._degree = 0 if self._simplex else 2

    @property
    def rho(self) -> fem.Function:
        """The density."""
        assert self.density.rho is not None
        return self.density.rho

    def load(
        self,
        source: Source = 0.0,
        *,
        fixed: Sequence[Fixed] = (),
        convection: Sequence[Convection] = (),
        inflow: Sequence[Inflow] = (),
    ) -> HeatState:
        """The temperature under a heat source, as a state problem on the density.

        Args:
            source: heat per volume and time f: a number, a UFL expression, or numbers by phase.
            fixed: temperatures on parts of the boundary.
            convection: parts of the boundary that give heat off to their surroundings.
            inflow: flux densities q into the body through parts of the boundary.
        Raises:
            ValueError: nothing that fixes the temperature, a part that does not exist or that has two
                conditions, a coefficient that is not positive.
        """
        case = LoadCase(source, tuple(fixed), tuple(convection), tuple(inflow))
        kappa = self.interpolation.ufl(self.rho)
        degree = self._degree + (_NODAL_DEGREE if self.variables == "nodes" else 0)
        state = HeatState(self.cell, self._space, kappa, degree, case, self._options)
        self.solvers.append(state.solver)
        return state

    def compliance(self, state: HeatState) -> FormFunctional:
        """Thermal compliance ∫ f T + ∫ q T ds + ∫ h T∞ T ds: how hot it is where heat comes in."""
        return FormFunctional(state.work, self.rho, state)

    def mean_temperature(self, state: HeatState, region: Region = None) -> FormFunctional:
        """Mean temperature of a region."""
        inside, dx = indicator(self.cell, region), measure(self.cell.mesh, 1, self.cell)
        volume = self.comm.allreduce(fem.assemble_scalar(fem.form(inside * dx)))
        return FormFunctional(inside * state.T / volume * dx, self.rho, state)

    def mean_density(self) -> MeanDensity:
        """Volume fraction of the material with ρ = 1."""
        return MeanDensity(self.density, self.volumes, self.volume)

    def fraction(self, values: Array) -> float:
        """Mean of values of this rank over the domain. Collective."""
        return float(self.comm.allreduce(float(values @ self.volumes))) / self.volume

    def image(self, values: Array) -> Array | None:
        """Values as an array on every rank where the cells are a regular grid, else None. Collective."""
        return None if self.cell.grid is None or self.variables == "nodes" else to_image(self.cell, values)

    def problem(
        self,
        objective: Any,
        constraints: Sequence[Constraint],
        *,
        grey: float | None = GREY,
        **arguments: Any,
    ) -> DesignProblem:
        """The design problem with this model's density.

        Args:
            objective, constraints: of `DesignProblem`.
            grey: most grey level at the sharpness `SHARPEST`, as the constraint "grey" where the density is
                projected, see :class:`fetopo.design.grey.GreyLevel`. A material that conducts a thousand
                times better is worth having even where it is thin and half there. None for no such limit.
            arguments: of `DesignProblem`; without `options` they are `OPTIONS`.
        """
        arguments.setdefault("options", OPTIONS)
        limits, projections = list(constraints), list[Any]()
        if self.projection is not None:
            projections.append(self.projection)
            if grey is not None:
                level = GreyLevel(self.density, self.volumes, self.volume, final=grey, sharp=SHARPEST)
                limits.append(Constraint("grey", level, 1.0))
                projections.append(level)
        return DesignProblem(
            self.density,
            objective,
            limits,
            volumes=self.volumes,
            projections=projections,
            interpolations=self.interpolations,
            solvers=self.solvers,
            **arguments,
        )

    def crisp(self, functional: Functional) -> tuple[float, Array, float]:
        """A functional of the structure that the present density becomes when it is cut at its volume.

        Returns:
            The functional, 0 or 1 per owned cell, and the volume fraction. The density stays crisp.
        Raises:
            ValueError: a density with values at vertices.
        """
        if self.variables != "cells":
            raise ValueError("a density with values at vertices has no crisp cells")
        values = threshold(self.density.values, self.volumes, self.comm)
        self.density.values[:] = values
        self.rho.x.scatter_forward()
        for state in functional.states:
            state.solve()
        return float(functional.value()), values, self.fraction(values)

    def certificate(
        self,
        states: Sequence[HeatState],
        volume_fraction: float,
        *,
        weights: Sequence[float] | None = None,
        tolerance: float = 1e-3,
        max_iterations: int = 300,
    ) -> Certificate:
        """What no density with this volume can beat in compliance: Σ wᵢ cᵢ, or the largest without weights.

        Solves the problem without filter, projection and penalty on the same mesh, with the same loads.

        Raises:
            ValueError: fixed temperatures other than 0; an interpolation that conducts better than the mean
                of the two materials, or worse with more of the second.
        """
        if not all(state.case.grounded for state in states):
            raise ValueError("a certificate needs fixed temperatures of 0: measure temperatures from there")
        low, high = self.conductivity
        grey = np.arange(101, dtype=np.float64) / 100
        kappa = self.interpolation.forward(grey)
        if low >= high or (kappa > low + (high - low) * grey + 1e-9 * high).any():
            raise ValueError(
                "a certificate needs an interpolation that rises and does not exceed the linear one, found "
                f"{self.interpolation.law.__name__} from {low} to {high}"
            )
        mesh = self.cell.mesh
        Q = fem.functionspace(mesh, ("DG", 0))
        rho = fem.Function(Q)
        linear = fem.Constant(mesh, float(low)) + fem.Constant(mesh, float(high - low)) * rho
        relaxed = [
            HeatState(self.cell, self._space, linear, self._degree, s.case, self._options) for s in states
        ]
        volumes = owned(assemble_dual(fem.form(ufl.TestFunction(Q) * measure(mesh, 0, self.cell)))).copy()
        straight = mesh.ufl_domain().ufl_coordinate_element().degree == 1
        return certify(
            [Energy(state, rho) for state in relaxed],
            rho,
            volumes,
            volume_fraction,
            weights=weights,
            offset=low / (high - low),
            tolerance=tolerance,
            max_iterations=max_iterations,
            continuum=straight and self._simplex,
        )
