"""Effective and apparent conductivity of a cell, one conductivity per phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.homogenization.conductivity import Conductivity, materials
from fetopo.transport.homogenization.flux import FluxProblem
from fetopo.transport.homogenization.problem import CellProblem
from fetopo.transport.interfaces import checked_resistances
from fetopo.transport.state import PetscOptions

BOUNDARIES = ("periodic", "linear", "uniform_flux", "mixed")


@dataclass(frozen=True)
class EffectiveConductivity:
    """Result of :func:`effective_conductivity`.

    Attributes:
        tensor: effective conductivity, d×d, symmetric, in the unit of the input.
        flux_tensor: the same from the mean flux; equal up to the solver's tolerance.
        problem: the cell problem with its correctors, on the mesh of what conducts.
        iterations: Krylov iterations of all directions together.
        boundary: the conditions on the faces of the cell.
    """

    tensor: npt.NDArray[np.float64]
    flux_tensor: npt.NDArray[np.float64]
    problem: CellProblem | FluxProblem
    iterations: int
    boundary: str = "periodic"


def effective_conductivity(
    cell: UnitCell,
    conductivity: Conductivity,
    *,
    boundary: str = "periodic",
    degree: int = 1,
    interface_resistance: Mapping[tuple[Any, Any], float] | None = None,
    petsc_options: PetscOptions | None = None,
) -> EffectiveConductivity:
    """Effective conductivity tensor of a cell with one conductivity per phase.

    Phases of conductivity zero are left out of the mesh, and in those of infinite conductivity each connected
    part has one potential: both exact, without a fictitious value.

    The apparent tensors of one cell are ordered as quadratic forms, uniform flux ≤ periodic ≤ linear, also
    on one and the same mesh, and equal where the cell is homogeneous. A mixed test has one apparent
    conductivity per axis, at most Dᵢᵢ of linear conditions and at least 1/(D⁻¹)ᵢᵢ of a uniform flux.

    Args:
        cell: the cell; its tags are the phases. Conditions other than "periodic" need no matching faces.
        conductivity: for every phase, by tag or name, a number from 0 to infinity, a symmetric positive
            definite d×d tensor, a UFL expression or a `fem.Function` on `cell.mesh`, or a function that is
            given `ufl.SpatialCoordinate` and returns a UFL expression.
        boundary: conditions on the faces of the cell. "periodic"; "linear", the potential E·x (KUBC);
            "uniform_flux", the flux Σ·n (SUBC), which needs a boundary that conducts everywhere; "mixed", for
            each axis given potentials on the two faces across it and no flux through the others, as a
            measurement has it: the tensor is then diagonal.
        degree: polynomial degree.
        interface_resistance: resistance R ≥ 0 of the interface between two phases, by the pair of their
            names or tags, in units of length over conductivity: the potential jumps by R times the flux
            through the interface (Kapitza or charge-transfer resistance). Infinite: nothing passes. Between
            zero and 1e-8 edges of a cell over its conductivity, round-off keeps the solver from converging.
        petsc_options: options of the Krylov solver.
    Returns:
        The tensor and what it was computed with. Along axes where perfect conductors go through the cell, it
        is infinite, with a warning in the log; see :meth:`CellProblem.solve`.
    Raises:
        ValueError: a phase without a conductivity or a conductivity without a phase, negative values, a
            tensor that is not symmetric and positive definite, an interface that is not between two phases, a
            negative resistance, an insulator on the boundary under a uniform flux; on every rank.
        RuntimeError: the solver did not converge.
    """
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary is {boundary!r}: expected one of {', '.join(BOUNDARIES)}")
    given = checked_resistances(cell, interface_resistance)
    found = materials(cell, conductivity)
    present = set(found.cell.tags()) - set(found.insulators)
    options: dict[str, Any] = {
        "degree": degree,
        "conductors": found.conductors,
        "insulators": found.insulators,
        "resistances": {pair: R for pair, R in given.items() if set(pair) <= present},
        "petsc_options": petsc_options,
    }
    problem: CellProblem | FluxProblem
    if boundary == "uniform_flux":
        problem = FluxProblem(found.cell, found.kappa, **options)
    else:
        problem = CellProblem(found.cell, found.kappa, boundary=boundary, **options)
    tensor = problem.solve()
    return EffectiveConductivity(tensor, problem.flux_tensor, problem, problem.iterations, boundary)
