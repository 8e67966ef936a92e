"""Data of transient problems: conditions on parts of the boundary, coefficients per phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh

from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.homogenization import conductivity_field

Value = float | Callable[[float], float]
#: A part of the boundary: marker of (3, n) points, facet tag or its name, None for all of it.
Where = Callable[[npt.NDArray], npt.NDArray] | int | str | None


@dataclass(frozen=True)
class Fixed:
    """Concentration on a part of the boundary: a number or a function of time (in s); `where` as in Where."""

    value: Value
    where: Where = None


@dataclass(frozen=True)
class Inflow:
    """Flux density into the body through a part of the boundary, D ∂c/∂n: a number or a function of time."""

    value: Value
    where: Where = None


def coefficient(name: str, cell: UnitCell, value: Any) -> Any:
    if isinstance(value, Mapping):
        by_tag = {cell.tag(phase): np.asarray(number, dtype=float) for phase, number in value.items()}
        if set(by_tag) != set(cell.tags()):
            raise ValueError(
                f"one {name} per phase is needed: the cell has tags {cell.tags()}, found {sorted(by_tag)}"
            )
        for tag, number in by_tag.items():
            positive(f"{name} of phase {tag}", number)
        return conductivity_field(cell, by_tag)
    if isinstance(value, int | float | np.number):
        positive(name, np.asarray(value, dtype=float))
        return fem.Constant(cell.mesh, float(value))
    return ufl.as_ufl(value)


def positive(name: str, value: npt.NDArray) -> None:
    smallest = np.linalg.eigvalsh(value).min() if value.ndim == 2 else value.min()
    if not (np.isfinite(value).all() and smallest > 0):
        raise ValueError(f"the {name} must be positive and finite, found {value.tolist()}")


def facets_of(cell: UnitCell, where: Where) -> npt.NDArray[np.int32]:
    mesh = cell.mesh
    fdim = mesh.topology.dim - 1
    mesh.topology.create_connectivity(fdim, fdim + 1)
    outer = dmesh.exterior_facet_indices(mesh.topology)
    if where is None:
        facets = outer
    elif callable(where):
        facets = np.intersect1d(dmesh.locate_entities_boundary(mesh, fdim, where), outer)
    else:
        tag = cell.facets.get(where) if isinstance(where, str) else int(where)
        if cell.facet_tags is None or tag is None:
            raise ValueError(f"the cell has no facets {where!r}; it has {sorted(cell.facets) or 'no names'}")
        facets = np.intersect1d(cell.facet_tags.find(tag), outer)
    if mesh.comm.allreduce(facets.size) == 0:
        raise ValueError(f"no facet of the boundary is where a condition is to hold ({where!r})")
    return np.sort(facets).astype(np.int32)
