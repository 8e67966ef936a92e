"""Unit cells with discs or balls, meshed by Gmsh along the interfaces and alike on opposite faces."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._compat import gmsh_to_mesh
from fetopo._mpi import get_logger, on_every_rank
from fetopo.microstructure.generate.packing import Packing, largest_overlap
from fetopo.microstructure.geometry._meshing import Plan, mesh
from fetopo.microstructure.geometry._placement import Balls, Field, ball_volumes, clear_origin, clearance
from fetopo.microstructure.geometry._session import gmsh_model
from fetopo.microstructure.mesh import UnitCell

MATRIX, INCLUSION = 1, 2

#: Smallest share of a radius by which a ball may miss being tangent to a face of the box.
_CLEARANCE = 0.02


def inclusion_cell(
    comm: MPI.Intracomm,
    centers: npt.ArrayLike | Packing,
    radii: float | npt.ArrayLike | None = None,
    *,
    mesh_size: float,
    interface_size: float | None = None,
    gap_size: float | None = None,
    lengths: Sequence[float] | None = None,
    phases: str | Sequence[str] = "inclusion",
    matrix: str = "matrix",
    order: int = 1,
    overlap: bool = True,
    origin: Sequence[float] | None = None,
    volume_tolerance: float = 0.005,
) -> UnitCell:
    """PLACEHOLDER"""
    if isinstance(centers, Packing):
        if radii is not None or lengths is not None:
            raise ValueError("a packing has its radii and lengths: expected none beside it")
        centers, radii, lengths = centers.centers, centers.radii, centers.lengths
    if radii is None:
        raise ValueError("radii are missing: expected one number, or one per centre")
    balls = _checked_balls(centers, radii, lengths)
    fine, floor = _checked_sizes(mesh_size, interface_size, gap_size)
    names, kinds = _checked_phases(phases, matrix, len(balls.centers))
    if order not in (1, 2):
        raise ValueError(f"order is {order}: expected 1 (straight) or 2 (curved)")
    apart = largest_overlap(*balls) <= 1e-9
    if not overlap and not apart:
        raise ValueError(
            f"inclusions overlap by {largest_overlap(*balls):.3g} of the sum of their radii: "
            "expected none with overlap=False"
        )
    log = get_logger(__name__, comm)
    corner = _corner(balls, origin, log)

    unit = float(balls.lengths.max())
    scaled = Balls((balls.centers - corner) / unit, balls.radii / unit, balls.lengths / unit)
    exact = [float(ball_volumes(scaled)[kinds == kind].sum()) for kind in range(len(names))] if apart else None
    plan = Plan(
        scaled, kinds, exact, mesh_size / unit, fine / unit, floor / unit, order, volume_tolerance
    )
    facets: dict[str, int] = {}
    with gmsh_model() as model:
        with on_every_rank(comm):
            if comm.rank == 0:
                facets = _build(model, plan, [matrix, *names], log)
        domain, cell_tags, facet_tags = gmsh_to_mesh(model, comm, 0, len(corner))
    x = domain.geometry.x[:, : len(corner)]
    x[:] = x * unit + corner
    facets = comm.bcast(facets)
    tags = {matrix: MATRIX} | {name: INCLUSION + k for k, name in enumerate(names)}
    return UnitCell(
        domain, cell_tags, corner, corner + balls.lengths, tags, facet_tags=facet_tags, facets=facets
    )


def _build(model: Any, plan: Plan, names: Sequence[str], log: logging.Logger) -> dict[str, int]:
    """Mesh, and name the physical groups; names of facet tags."""
    try:
        done = mesh(model, plan, log)
    except RuntimeError as error:
        raise RuntimeError(
            f"Gmsh could not mesh the cell ({error}); a ball that just touches a face or another ball is the "
            "usual reason: move or resize it a little, leave the origin free, or take smaller mesh sizes"
        ) from error
    dim = len(plan.balls.lengths)
    for kind, tags in done.groups.items():
        model.addPhysicalGroup(dim, tags, INCLUSION + kind, names[kind + 1])
    parts: dict[str, list[int]] = {}
    for axis, (low, high) in zip("xyz", done.sides, strict=False):
        parts[f"{axis}-"], parts[f"{axis}+"] = low, high
    for (a, b), faces in sorted(done.interfaces.items()):
        parts[f"{names[a + 1]}|{names[b + 1]}"] = faces
    for tag, (name, faces) in enumerate(parts.items(), start=1):
        model.addPhysicalGroup(dim - 1, faces, tag, name)
    return {name: tag for tag, name in enumerate(parts, start=1)}


def _corner(
    balls: Balls, origin: Sequence[float] | None, log: logging.Logger
) -> Field:
    """Lower corner of the box: the one asked for, or one at which no ball is nearly tangent to the box."""
    dim = len(balls.lengths)
    if origin is not None:
        corner = np.asarray(origin, dtype=float)
        if corner.shape != (dim,) or not np.isfinite(corner).all():
            raise ValueError(f"origin is {origin}: expected {dim} finite numbers")
        return corner
    here = float(clearance(balls, np.zeros((1, dim)))[0])
    if here >= _CLEARANCE:
        return np.zeros(dim)
    corner, there = clear_origin(balls)
    if there <= here:
        return np.zeros(dim)
    log.info(
        "the box starts at %s instead of 0: a ball came within %.2g of its radius of touching a face, now %.2g",
        corner.tolist(), here, there,
    )  # fmt: skip
    return corner


def _checked_balls(centers: Any, radii: Any, lengths: Any) -> Balls:
    centers = np.atleast_2d(np.asarray(centers, dtype=float))
    n, dim = centers.shape if centers.ndim == 2 else (0, 0)
    if dim not in (2, 3) or n == 0 or not np.isfinite(centers).all():
        raise ValueError(f"centers must be n finite points in 2D or 3D, found shape {centers.shape}")
    edges = np.ones(dim) if lengths is None else np.asarray(lengths, dtype=float)
    if edges.shape != (dim,) or not (np.isfinite(edges).all() and (edges > 0).all()):
        raise ValueError(f"lengths must be {dim} positive numbers, found {lengths}")
    radii = np.asarray(radii, dtype=float)
    if radii.shape not in ((), (1,), (n,)):
        raise ValueError(f"radii must be one number or {n}, found shape {radii.shape}")
    R = np.array(np.broadcast_to(radii, (n,)))
    if not np.isfinite(R).all() or R.min() <= 0 or R.max() > edges.min() / 2 * (1 + 1e-9):
        raise ValueError(
            f"radii must be positive and at most half an edge ({edges.min() / 2:g}), found {R.tolist()}"
        )
    return Balls(centers, R, edges)


def _checked_sizes(mesh_size: float, interface_size: float | None, gap_size: float | None) -> tuple[float, float]:
    fine = mesh_size if interface_size is None else interface_size
    if not (0 < fine <= mesh_size < np.inf):
        raise ValueError(
            f"mesh sizes must be positive and the interface's not the larger, found {mesh_size} and {fine}"
        )
    floor = fine / 4 if gap_size is None else gap_size
    if not 0 < floor <= fine:
        raise ValueError(f"gap_size is {gap_size}: expected positive and at most the interface's {fine}")
    return fine, floor


def _checked_phases(
    phases: str | Sequence[str], matrix: str, n: int
) -> tuple[list[str], npt.NDArray[np.intp]]:
    """Names of the inclusions' phases in order of appearance, and the phase of every inclusion."""
    each = [phases] * n if isinstance(phases, str) else [str(name) for name in phases]
    if len(each) != n:
        raise ValueError(f"phases has {len(each)} names: expected one, or one for each of {n} inclusions")
    names = list(dict.fromkeys(each))
    if matrix in names or "" in (*names, matrix):
        raise ValueError(f"phases are {names} in {matrix!r}: expected names that differ and are not empty")
    return names, np.array([names.index(name) for name in each])
