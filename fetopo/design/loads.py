"""Load cases of heat conduction: sources, fixed temperatures, convection, and the temperature they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh

from fetopo._mpi import require
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.conditions import Fixed, Inflow, Where, facets_of
from fetopo.transport.quadrature import is_piecewise_constant, measure
from fetopo.transport.state import LinearState, PetscOptions

#: A heat source per volume: a number, a UFL expression, or a number for each phase (name or tag).
Source = Any
#: A part of the domain: tag or name of a phase, a marker of (3, n) points, None for all of it.
Region = Callable[[npt.NDArray], npt.NDArray] | int | str | None


@dataclass(frozen=True)
class Convection:
    """Heat given off through a part of the boundary, −κ ∂T/∂n = h (T − T∞).

    Attributes:
        coefficient: h > 0.
        where: marker of (3, n) points, facet tag or its name, None for the whole boundary.
        ambient: T∞.
    """

    coefficient: float
    where: Where = None
    ambient: float = 0.0


@dataclass(frozen=True)
class LoadCase:
    """Where heat comes from and where it goes.

    Attributes:
        source: heat per volume and time f: a number, a UFL expression, or numbers by phase.
        fixed: temperatures on parts of the boundary.
        convection: parts of the boundary that give heat off to their surroundings.
        inflow: flux densities q into the body through parts of the boundary.
    Raises:
        ValueError: nothing that fixes the temperature, a coefficient that is not positive, a temperature or
            flux that is not a finite number.
    """

    source: Source = 0.0
    fixed: Sequence[Fixed] = ()
    convection: Sequence[Convection] = ()
    inflow: Sequence[Inflow] = ()

    def __post_init__(self) -> None:
        if not self.fixed and not self.convection:
            raise ValueError("nothing fixes the temperature: a part of the boundary must be fixed or convect")
        for c in self.convection:
            if not 0 < c.coefficient < np.inf:
                raise ValueError(f"the coefficient of convection must be positive, found {c.coefficient}")
        values = [c.value for c in self.fixed] + [c.value for c in self.inflow]
        values += [c.ambient for c in self.convection]
        if not all(isinstance(v, int | float | np.number) and np.isfinite(v) for v in values):
            raise ValueError(f"given temperatures and fluxes must be finite numbers, found {values}")

    @property
    def grounded(self) -> bool:
        """Whether all temperatures fixed at the boundary are zero."""
        return all(c.value == 0 for c in self.fixed)


class HeatState(LinearState):
    """Temperature under a load case: ∫ κ ∇T·∇v + ∫ h T v ds = ∫ f v + ∫ q v ds + ∫ h T∞ v ds.

    Args:
        cell: the domain.
        V: space of the temperature.
        kappa: conductivity as UFL.
        degree: of the quadrature of κ ∇T·∇v.
        case: the load case.
        petsc_options: of the solver.
    Attributes:
        case: as given.
        work: the right-hand side with v = T.
    Raises:
        ValueError: a part of the boundary that does not exist, or that has two conditions.
    """

    def __init__(
        self,
        cell: UnitCell,
        V: fem.FunctionSpace,
        kappa: Any,
        degree: int,
        case: LoadCase,
        petsc_options: PetscOptions | None = None,
    ) -> None:
        mesh = cell.mesh
        fdim = mesh.topology.dim - 1
        conditions: list[Any] = [*case.fixed, *case.convection, *case.inflow]
        parts = [facets_of(cell, c.where) for c in conditions]
        every = np.concatenate(parts)
        require(mesh.comm, np.unique(every).size == every.size, "a part of the boundary has two conditions")
        bcs = []
        for fixed, facets in zip(case.fixed, parts, strict=False):
            dofs = fem.locate_dofs_topological(V, fdim, facets)
            bcs.append(fem.dirichletbc(float(fixed.value), dofs, V))  # type: ignore[arg-type]
        numbers = np.concatenate([np.full(p.size, i, dtype=np.int32) for i, p in enumerate(parts)])
        order = np.argsort(every)
        tags = dmesh.meshtags(mesh, fdim, every[order].astype(np.int32), numbers[order])
        ds = ufl.Measure("ds", domain=mesh, subdomain_data=tags)
        T, v = fem.Function(V, name="temperature"), ufl.TestFunction(V)
        f = by_phase(cell, case.source)
        dx = measure(mesh, 1, cell) if is_piecewise_constant(f) else ufl.Measure("dx", domain=mesh)
        a = ufl.inner(kappa * ufl.grad(T), ufl.grad(v)) * measure(mesh, degree, cell)
        L = f * v * dx
        first = len(case.fixed)
        for i, c in enumerate(case.convection, first):
            h, ambient = (fem.Constant(mesh, float(x)) for x in (c.coefficient, c.ambient))
            a += h * T * v * ds(i)
            L += h * ambient * v * ds(i)
        for i, q in enumerate(case.inflow, first + len(case.convection)):
            L += fem.Constant(mesh, float(q.value)) * v * ds(i)  # type: ignore[arg-type]
        super().__init__(a - L, T, bcs, petsc_options)
        self.case, self.work = case, ufl.replace(L, {v: T})

    @property
    def T(self) -> fem.Function:
        """The temperature."""
        return self.u


def by_phase(cell: UnitCell, value: Source) -> Any:
    """A number as a constant, numbers by phase as a function constant in each cell; else the value as UFL."""
    if isinstance(value, int | float | np.number):
        return fem.Constant(cell.mesh, float(value))
    if not isinstance(value, Mapping):
        return ufl.as_ufl(value)
    f = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
    for phase, number in value.items():
        f.x.array[cells_in(cell, phase)] = float(number)
    return f


def cells_in(cell: UnitCell, region: Region) -> npt.NDArray[np.int32]:
    """This rank's cells, ghosts too, that are in a region: by tag, or those whose middle a marker takes.

    Raises:
        ValueError: the region is empty.
    """
    mesh = cell.mesh
    tdim = mesh.topology.dim
    imap = mesh.topology.index_map(tdim)
    here = np.arange(imap.size_local + imap.num_ghosts, dtype=np.int32)
    if region is None:
        return here
    if callable(region):
        cells = here[np.asarray(region(dmesh.compute_midpoints(mesh, tdim, here).T), dtype=bool)]
    else:
        cells = cell.cell_tags.find(cell.tag(region))
    if mesh.comm.allreduce(cells.size) == 0:
        raise ValueError(f"no cell of the mesh is in {region!r}")
    return np.asarray(cells, dtype=np.int32)


def indicator(cell: UnitCell, region: Region) -> fem.Function:
    """1 in the cells of a region, 0 elsewhere."""
    f = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
    f.x.array[cells_in(cell, region)] = 1.0
    return f
