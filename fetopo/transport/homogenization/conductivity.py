"""The conductivities of the phases of a cell: numbers, tensors, fields, zero and infinity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fetopo.microstructure.mesh import UnitCell, select_phases
from fetopo.transport.homogenization.spaces import indicator
from fetopo.transport.interfaces import cell_phases

#: A number ≥ 0 (infinite: a perfect conductor), a symmetric positive definite d×d tensor, a UFL expression or
#: function on the cell's mesh, or a function that makes one from `ufl.SpatialCoordinate`; per phase.
Conductivity = Mapping[Any, float | npt.ArrayLike | Any]


@dataclass(frozen=True)
class Materials:
    """What conducts in a cell.

    Attributes:
        cell: the cell, without the insulators that the mesh could leave out.
        kappa: conductivity as UFL; without a meaning in conductors and insulators.
        conductors, insulators: tags of the phases that conduct perfectly, and of those that do not but are in
            the mesh.
    """

    cell: UnitCell
    kappa: Any
    conductors: list[int]
    insulators: list[int]


def materials(cell: UnitCell, conductivity: Conductivity) -> Materials:
    """Sort the phases of a cell by what they are, and make their κ.

    Raises:
        ValueError: of `checked`, or no phase conducts.
    """
    values = checked(cell, conductivity)
    plain = {tag: value for tag, value in values.items() if isinstance(value, np.ndarray)}
    off = [tag for tag, value in plain.items() if not np.any(value)]
    perfect = [tag for tag, value in plain.items() if np.isposinf(value).any()]
    fields = {tag: value for tag, value in values.items() if tag not in plain}
    if len(off) == len(values):
        raise ValueError("no phase conducts: all conductivities are zero")
    # A UFL expression lives on the mesh of the whole cell.
    bound = any(not _makes_ufl(value) for value in fields.values())
    part = cell if bound else select_phases(cell, [tag for tag in values if tag not in off])
    numbers = {tag: plain[tag] for tag in plain if tag not in off and tag not in perfect}
    idle = {tag: np.array(0.0) for tag in part.tags() if tag not in numbers}
    kappa: Any = conductivity_field(part, numbers | idle)
    if fields:
        kappa = _with_fields(part, kappa, fields)
    return Materials(part, kappa, perfect, off if bound else [])


def _makes_ufl(value: Any) -> bool:
    """Whether it is a function of the coordinates that returns UFL (a UFL expression can be called too)."""
    return callable(value) and not isinstance(value, ufl.core.expr.Expr)


def _with_fields(cell: UnitCell, kappa: Any, fields: Mapping[int, Any]) -> Any:
    d, phases = cell.dim, cell_phases(cell)
    x = ufl.SpatialCoordinate(cell.mesh)
    made = {tag: ufl.as_ufl(value(x) if _makes_ufl(value) else value) for tag, value in fields.items()}
    for tag, value in made.items():
        if value.ufl_shape not in ((), (d, d)):
            raise ValueError(
                f"the conductivity of phase {tag} must be a scalar or a {d}×{d} tensor, "
                f"found shape {value.ufl_shape}"
            )
    tensorial = bool(kappa.ufl_shape) or any(value.ufl_shape for value in made.values())
    unit = ufl.Identity(d)
    if tensorial and not kappa.ufl_shape:
        kappa = kappa * unit
    for tag, value in made.items():
        full = value * unit if tensorial and not value.ufl_shape else value
        kappa = kappa + indicator(cell, phases == tag) * full
    return kappa


def conductivity_field(cell: UnitCell, values: Mapping[int, npt.NDArray]) -> fem.Function:
    """Piecewise constant function with one value, number or d×d tensor, per tag."""
    d = cell.dim
    tensorial = any(np.ndim(value) for value in values.values())
    Q = fem.functionspace(cell.mesh, ("DG", 0, (d, d)) if tensorial else ("DG", 0))
    kappa = fem.Function(Q, name="conductivity")
    array = kappa.x.array.reshape(-1, d * d if tensorial else 1)
    cells = Q.dofmap.list.reshape(-1)
    for tag, value in values.items():
        full = np.asarray(value, dtype=float)
        if tensorial and full.ndim == 0:
            full = float(full) * np.eye(d)
        array[cells[cell.cell_tags.find(tag)]] = full.reshape(-1)
    return kappa


def checked(cell: UnitCell, conductivity: Conductivity) -> dict[int, Any]:
    """Conductivities by tag: arrays for numbers and tensors, fields as they are.

    Raises:
        ValueError: on every rank; a phase without a conductivity or a conductivity without a phase, negative
            values, a tensor that is not symmetric positive definite and finite.
    """
    by_tag = {cell.tag(phase): value for phase, value in conductivity.items()}
    return checked_values(by_tag, cell.dim, cell.tags(), "cell has tags")


def checked_values(
    conductivity: Mapping[int, Any], d: int, present: list[int], owner: str
) -> dict[int, npt.NDArray[np.float64] | Any]:
    """Conductivities by tag or label, in d dimensions: see :func:`checked`.

    Args:
        conductivity: by tag or label.
        d: dimension.
        present: the tags or labels there are.
        owner: what has them, for messages.
    """
    values: dict[int, Any] = {}
    for tag, value in conductivity.items():
        field = isinstance(value, ufl.core.expr.Expr) or callable(value)
        values[tag] = value if field else np.asarray(value, dtype=float)
    if set(values) != set(present):
        raise ValueError(
            f"one conductivity per phase is needed: the {owner} {present}, found {sorted(values)}"
        )
    for tag, value in values.items():
        if not isinstance(value, np.ndarray):
            continue
        finite = np.isfinite(value).all() or (value.ndim == 0 and np.isposinf(value))
        if value.shape not in ((), (d, d)) or not finite:
            raise ValueError(
                f"the conductivity of phase {tag} must be a number or a {d}×{d} tensor, found {value}"
            )
        if value.ndim == 0 and value < 0:
            raise ValueError(f"the conductivity of phase {tag} must not be negative, found {float(value)}")
        if (
            value.ndim
            and np.any(value)
            and not (np.allclose(value, value.T) and np.linalg.eigvalsh(value).min() > 0)
        ):
            raise ValueError(
                f"the conductivity tensor of phase {tag} must be symmetric positive definite, found {value}"
            )
    return values


def checked_conductivity(cell: UnitCell, conductivity: Conductivity) -> dict[int, npt.NDArray]:
    """Conductivities by tag where only finite numbers and tensors, constant in each phase, will do.

    Raises:
        ValueError: of `checked`; an infinite conductivity or one that varies in space.
    """
    values = checked(cell, conductivity)
    for tag, value in values.items():
        if not (isinstance(value, np.ndarray) and np.isfinite(value).all()):
            raise ValueError(
                f"the conductivity of phase {tag} must be a finite number or tensor here, found {value}"
            )
    return values
