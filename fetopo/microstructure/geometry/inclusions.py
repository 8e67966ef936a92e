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
from fetopo.microstructure.generate.packing import Packing, largest_overlap, near_pairs
from fetopo.microstructure.geometry._meshing import ALGORITHMS, Meshed, Plan, mesh
from fetopo.microstructure.geometry._placement import Balls, Field, ball_volumes, clear_origins, clearance
from fetopo.microstructure.geometry._session import gmsh_model, restart
from fetopo.microstructure.mesh import UnitCell

MATRIX, INCLUSION = 1, 2

#: Smallest share of a radius by which a ball may miss being tangent to a face of the box.
_CLEARANCE = 0.02
#: Other boxes that are tried.
_BOXES = 4


def inclusion_cell(
    comm: MPI.Intracomm,
    centers: Any,
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
    """A periodic cell with discs (2D) or balls (3D), meshed with triangles or tetrahedra that follow them.

    Inclusions may cross the faces, edges and corners of the box; what leaves on one side enters on the other,
    and opposite faces are meshed alike, facet by facet.

    Flat facets with their nodes on a ball cut off a part of it (a tenth at two edges to a radius). So that
    every phase has its volume, the nodes of the interfaces are moved out after meshing, each by the mean
    height of the caps that its facets cut off, Σ e²/(24 R) in 3D and e²/(12 R) in 2D with the edges e of the
    facet, times one factor near 1 per phase that makes the volume right to 1e-6. Larger balls in the model
    would do as well for one ball but close the gap to the next; here the displacement falls with the square
    of the size of the facets, and those in a narrow gap are small. Reference is the volume of the balls, or,
    where they overlap, that of Gmsh's exact shapes.

    A face of the box that a ball barely touches or barely crosses leaves slivers that Gmsh cannot mesh or
    copy. A periodic cell may begin anywhere: where the box from the origin is such a one, and where Gmsh
    fails on it, the box is put elsewhere. The inclusions keep their coordinates; `lower` of the cell tells
    where the box begins.

    Args:
        comm: communicator to distribute the mesh over; Gmsh runs on rank 0.
        centers: points, shape (n, d), in metres; or a packing, which has radii and lengths with it.
        radii: one radius, or n, in metres.
        mesh_size: edge length of the cells away from the interfaces, in metres.
        interface_size: edge length at the interfaces; default `mesh_size`. On balls of a radius below 1.4 of
            it edges are 0.7 radii long.
        gap_size: smallest edge length in gaps between inclusions that nearly touch, and between one and a
            face of the box; elsewhere in a gap edges are as long as it is wide. Default a quarter of
            `interface_size`.
        lengths: edges of the cell; default 1 along every axis.
        phases: name of the phase of the inclusions, or of each; inclusions of different names must not
            overlap.
        matrix: name of the phase around them.
        order: degree of the geometry: 1 for straight cells, 2 for curved ones.
        overlap: whether inclusions may overlap; their union counts.
        origin: lower corner of the box; default 0, or a better one as said above.
        volume_tolerance: relative error allowed in the volume of each phase.
    Inclusions that cut the matrix into parts without connection are let pass with a warning in the log.

    Returns:
        Cell with the phases `matrix` (tag 1) and those of the inclusions (tags 2, 3, … in order of
        appearance); facet tags "x-", "x+", "y-", … for the faces of the box and "matrix|inclusion", … for the
        interfaces.
    Raises:
        ValueError: on every rank; shapes that do not fit, sizes that are not positive, a radius above half
            an edge, inclusions that fill the cell or leave no trace in it, or overlap where they must not.
        RuntimeError: on every rank, where Gmsh fails, as it does at an `origin` where a ball just touches a
            face.
    """
    if isinstance(centers, Packing):
        packing = centers
        if radii is not None or lengths is not None:
            raise ValueError("a packing has its radii and lengths: expected none beside it")
        centers, radii, lengths = packing.centers, packing.radii, packing.lengths
    if radii is None:
        raise ValueError("radii are missing: expected one number, or one per centre")
    balls = checked_balls(centers, radii, lengths)
    dim = len(balls.lengths)
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
    if not apart and len(names) > 1:
        i, j = near_pairs(*balls, 0.0)
        mixed = np.flatnonzero(kinds[i] != kinds[j])
        if len(mixed):
            a, b = i[mixed[0]], j[mixed[0]]
            raise ValueError(
                f"inclusions {a} ({names[kinds[a]]!r}) and {b} ({names[kinds[b]]!r}) of different phases "
                "overlap: expected only those of one phase to"
            )
    log = get_logger(__name__, comm)
    corners = _corners(balls, origin)
    unit = float(balls.lengths.max())
    edges, R = balls.lengths / unit, balls.radii / unit
    exact = [float(ball_volumes(balls)[kinds == k].sum()) / unit**dim for k in range(len(names))]
    sizes = mesh_size / unit, fine / unit, floor / unit
    corner, facets = corners[0], {}
    with gmsh_model() as model:
        with on_every_rank(comm):
            if comm.rank == 0:
                plans = [
                    Plan(
                        Balls(np.asarray((balls.centers - c) / unit), np.asarray(R), np.asarray(edges)),
                        kinds, exact if apart else None, *sizes, order, volume_tolerance,
                    )
                    for c in corners
                ]  # fmt: skip
                which, done = _first_that_meshes(model, plans, log)
                corner, facets = corners[which], _name(model, done, dim, [matrix, *names])
                log.info("the box starts at %s", corner.tolist())
        domain, cell_tags, facet_tags = gmsh_to_mesh(model, comm, 0, dim)
    corner, facets = comm.bcast((corner, facets))
    x = domain.geometry.x[:, :dim]
    x[:] = x * unit + corner
    tags = {matrix: MATRIX} | {name: INCLUSION + k for k, name in enumerate(names)}
    return UnitCell(
        domain, cell_tags, corner, corner + balls.lengths, tags, facet_tags=facet_tags, facets=facets
    )


def _first_that_meshes(model: Any, plans: Sequence[Plan], log: logging.Logger) -> tuple[int, Meshed]:
    """Mesh the first of the plans that Gmsh can, and which it is."""
    # Another origin costs less than other algorithms, and helps more often.
    ways = [(which, ALGORITHMS[0]) for which in range(len(plans))]
    ways += [(which, way) for way in ALGORITHMS[1:] for which in range(min(2, len(plans)))]
    failures: list[str] = []
    for which, algorithms in ways:
        try:
            if failures:
                restart(model)
            return which, mesh(model, plans[which], algorithms, log)
        except RuntimeError as error:
            log.info("box %d of %d, algorithms %s: %s", which + 1, len(plans), algorithms, error)
            failures.append(str(error))
    raise RuntimeError(
        f"Gmsh could not mesh the cell ({failures[0]}); a ball that just touches a face or another ball is "
        "the usual reason: move or resize it a little, leave the origin free, or take smaller mesh sizes"
    )


def _name(model: Any, done: Meshed, dim: int, names: Sequence[str]) -> dict[str, int]:
    """Name the physical groups; returns the names of the facet tags."""
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


def _corners(balls: Balls, origin: Sequence[float] | None) -> list[Field]:
    """Lower corners of boxes to try: the one asked for, or those that no ball is nearly tangent to."""
    dim = len(balls.lengths)
    if origin is not None:
        corner = np.asarray(origin, dtype=float)
        if corner.shape != (dim,) or not np.isfinite(corner).all():
            raise ValueError(f"origin is {origin}: expected {dim} finite numbers")
        return [corner]
    zero = np.zeros((1, dim))
    corners, free = clear_origins(balls, _BOXES)
    here = float(clearance(balls, zero)[0])
    first = [zero[0]] if here >= min(_CLEARANCE, free[0]) else []
    return first + list(corners)


def checked_balls(centers: Any, radii: Any, lengths: Any) -> Balls:
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


def _checked_sizes(
    mesh_size: float, interface_size: float | None, gap_size: float | None
) -> tuple[float, float]:
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
