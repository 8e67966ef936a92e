"""A box of balls meshed: Gmsh's algorithms tried in turn, faces checked, phase volumes made right."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from fetopo.microstructure.geometry import _cad, _volume
from fetopo.microstructure.geometry._placement import Balls, Field, gaps, images

#: Gmsh's algorithms for surfaces and volumes, in the order they are tried.
ALGORITHMS = ((6, 1), (5, 1), (1, 1), (6, 10))
#: A cell may keep this share of its volume when nodes move; after so many rounds of holding back, give up.
_FLATTEST, _ROUNDS = 0.3, 12


@dataclass(frozen=True)
class Plan:
    """What is to be meshed, in units in which the longest edge of the box, which starts at 0, is 1.

    Attributes:
        balls: discs or balls with the edges of the box.
        kinds: phase of each, 0, 1, …
        exact: volume of each phase; None where balls overlap, then that of the exact shapes is taken.
        coarse, fine, floor: mesh sizes away from interfaces, at them, and in the narrowest gaps.
        order: of the geometry.
        tolerance: relative error of a phase's volume.
    """

    balls: Balls
    kinds: npt.NDArray[np.intp]
    exact: list[float] | None
    coarse: float
    fine: float
    floor: float
    order: int
    tolerance: float


@dataclass(frozen=True)
class Meshed:
    """Entities of the phases (−1 is the matrix), of interfaces by pair of phases, of faces per axis."""

    groups: dict[int, list[int]]
    interfaces: dict[tuple[int, int], list[int]]
    sides: list[tuple[list[int], list[int]]]


def mesh(model: Any, plan: Plan, algorithms: tuple[int, int], log: logging.Logger) -> Meshed:
    """Build and mesh.

    Args:
        model: Gmsh's model, empty.
        plan: what.
        algorithms: Gmsh's numbers of those for surfaces and volumes.
        log: for what was done.
    Raises:
        ValueError: of `_cad.build`.
        RuntimeError: Gmsh fails.
    """
    import gmsh

    dim = len(plan.balls.lengths)
    origin = np.zeros(dim)
    index, centers = images(plan.balls, origin)
    radii = plan.balls.radii[index]
    groups = _cad.build(model, centers, radii, plan.kinds[index], plan.balls.lengths)
    targets = {kind: _cad.mass(model, dim, tags) for kind, tags in groups.items()}
    if plan.exact is not None:
        for kind, volume in enumerate(plan.exact):
            if not np.isclose(targets.get(kind, 0.0), volume, rtol=1e-4):
                raise RuntimeError(
                    f"Gmsh's Boolean operations lost a part of a phase: volume {targets.get(kind, 0.0):.6g} "
                    f"of {volume:.6g}"
                )
            targets[kind] = volume
    between = _cad.interfaces(model, dim, groups)
    try:
        sides = _cad.set_periodic(model, origin, plan.balls.lengths)
    except Exception as error:  # Gmsh's own, and faces that differ
        raise RuntimeError(str(error)) from error
    apart = _cad.parts(model, dim, groups[-1], sides)
    if apart > 1:
        log.warning("the matrix falls into %d parts that are not connected", apart)
    faces = [face for some in between.values() for face in some]
    narrow = gaps(plan.balls, origin, plan.fine)
    _cad.set_sizes(
        model, centers, radii, narrow, faces, plan.balls.lengths,
        coarse=plan.coarse, fine=plan.fine, floor=plan.floor,
    )  # fmt: skip
    meshed = Meshed(groups, between, sides)
    gmsh.option.setNumber("Mesh.Algorithm", algorithms[0])
    gmsh.option.setNumber("Mesh.Algorithm3D", algorithms[1])
    generate(model, dim, plan.order)
    _mend_volumes(model, plan, meshed, targets, (centers, radii), log)
    check_faces(model, sides, plan.balls.lengths)
    return meshed


def generate(model: Any, dim: int, order: int) -> None:
    try:
        model.mesh.generate(dim)
        if order > 1:
            model.mesh.setOrder(order)
    except Exception as error:  # Gmsh's own
        raise RuntimeError(str(error)) from error


def _mend_volumes(
    model: Any,
    plan: Plan,
    meshed: Meshed,
    targets: dict[int, float],
    balls: tuple[Field, Field],
    log: logging.Logger,
) -> None:
    """Move the nodes of the interfaces until every phase has its volume."""
    dim, edges = len(plan.balls.lengths), plan.balls.lengths
    lower = np.zeros(dim)
    nodes = _volume.read_nodes(model)
    cells = {
        kind: _volume.Simplices(model, dim, plan.order, _volume.read_elements(model, nodes, dim, tags))
        for kind, tags in meshed.groups.items()
    }
    x = nodes.x.copy()
    for axis in range(dim):  # Boolean operations leave nodes of a face off it by round-off
        for plane in (lower[axis], lower[axis] + edges[axis]):
            x[np.abs(x[:, axis] - plane) < 1e-9, axis] = plane
    for part in cells.values():  # those of a surface that looks down
        part.upright(x)
    if plan.order > 1:
        x = _volume.untangled(list(cells.values()), x, lower, edges)
    smallest = {kind: part.smallest(x) for kind, part in cells.items()}
    before = {kind: part.volume(x) for kind, part in cells.items()}
    for (_, kind), faces in meshed.interfaces.items():
        surface = _surface(model, nodes, dim, faces, balls)
        rows, total = _volume.outward(surface, x, dim, plan.order)
        group = _volume.periodic_groups(x[rows], lower, edges)
        move = _volume.mean_move(total, group, x[rows], lower, edges)
        own = np.zeros(len(rows), dtype=np.intp)
        own[np.searchsorted(rows, surface.facets.ravel())] = np.repeat(surface.balls, surface.facets.shape[1])
        most = _volume.room(x[rows], own, balls, lower, edges)
        for _ in range(_ROUNDS):
            most = _volume.smallest_of_group(most, group)
            new = _volume.fitted(cells[kind], x, rows, move, most, targets[kind])
            # Where a cell is nearly flattened its nodes hold back, and the others make up for them.
            bad = np.zeros(len(x), dtype=bool)
            for other, part in cells.items():
                bad[part.rows[part.smallest(new) < _FLATTEST * smallest[other]]] = True
            held = bad[rows]
            if not held.any():
                break
            most[held] = np.minimum(most[held], 0.5 * np.linalg.norm(new[rows] - x[rows], axis=1)[held])
        else:
            raise RuntimeError("cells are turned inside out")
        x = new
    for kind, part in cells.items():
        if (part.smallest(x) <= 0).any():
            raise RuntimeError("cells are turned inside out")
        error = part.volume(x) / targets[kind] - 1
        if abs(error) > plan.tolerance:
            raise RuntimeError(f"the volume of a phase is {error:+.2%} off")
        log.info("phase %d: volume %+.2e off, %+.2e before", kind, error, before[kind] / targets[kind] - 1)
    for row in np.flatnonzero((x != nodes.x).any(axis=1)):
        model.mesh.setNode(nodes.tags[row], x[row], [])


def _surface(
    model: Any, nodes: _volume.Nodes, dim: int, faces: list[int], balls: tuple[Field, Field]
) -> _volume.Surface:
    """Facets of one interface with the ball each lies on."""
    centers, radii = balls
    facets, which = [], []
    for face in faces:
        here = _volume.read_elements(model, nodes, dim - 1, [face])
        if not len(here):
            raise RuntimeError("an interface has no facets")
        x = nodes.x[np.unique(here), :dim]
        off = np.abs(np.linalg.norm(x[:, None] - centers, axis=2) - radii).max(axis=0)
        facets.append(here)
        which.append(np.full(len(here), int(np.argmin(off))))
    ball = np.concatenate(which)
    return _volume.Surface(
        np.vstack(facets), ball, np.pad(centers, ((0, 0), (0, 3 - dim)))[ball], radii[ball]
    )


def check_faces(model: Any, sides: list[tuple[list[int], list[int]]], edges: Field) -> None:
    """Every facet on a lower face of the box has its copy on the upper one, to round-off.

    Raises:
        RuntimeError: one has not.
    """
    dim = len(edges)
    nodes = _volume.read_nodes(model)
    for axis, (low, high) in enumerate(sides):
        here, there = (
            np.vstack([_volume.read_elements(model, nodes, dim - 1, [face]) for face in faces])
            for faces in (low, high)
        )
        below, above = np.unique(here), np.unique(there)
        shift = edges[axis] * np.eye(3)[axis]
        distance, nearest = cKDTree(nodes.x[above]).query(nodes.x[below] + shift)
        same = len(below) == len(above) and distance.max() < 1e-9 * edges.max() and here.shape == there.shape
        if same:
            copy = np.empty(len(nodes.x), dtype=np.int64)
            copy[below] = above[nearest]
            pair = [np.sort(facets[:, :dim], axis=1) for facets in (copy[here], there)]
            pair = [facets[np.lexsort(facets.T)] for facets in pair]
            same = bool((pair[0] == pair[1]).all())
        if not same:
            raise RuntimeError(
                f"the faces across axis {axis} are meshed differently: {len(here)} and {len(there)} facets"
            )
