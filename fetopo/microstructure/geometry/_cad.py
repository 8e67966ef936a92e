"""Balls in a box as a Gmsh model: the solids and their names, periodic faces, mesh sizes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fetopo.microstructure.geometry._placement import Field, Gaps

Entities = list[tuple[int, int]]


def build(
    model: Any, centers: Field, radii: Field, kinds: npt.NDArray[np.intp], edges: Field
) -> dict[int, list[int]]:
    """The box from the origin, cut by balls, of which those of different kinds do not overlap.

    Args:
        model: Gmsh's model, empty.
        centers, radii, kinds: of every ball that reaches into the box; the kind says which phase it is.
        edges: edges of the box.
    Returns:
        Entities of full dimension per kind, and of what is left over as kind −1.
    Raises:
        ValueError: no ball lies in the box, or the balls fill it.
    """
    occ, dim = model.occ, len(edges)
    if dim == 2:
        shapes = [(2, occ.addDisk(*c, 0, r, r)) for c, r in zip(centers, radii, strict=True)]
    else:
        shapes = [(3, occ.addSphere(*c, r)) for c, r in zip(centers, radii, strict=True)]
    pieces, origin = occ.intersect(shapes, [_box(occ, edges)])
    if not pieces:
        raise ValueError("no inclusion lies in the cell")
    kind_of: dict[tuple[int, int], int] = {}
    for parts, kind in zip(origin, kinds, strict=False):
        kind_of.update({part: int(kind) for part in parts})
    listed = [part for part in pieces if part[0] == dim]
    _, origin = occ.fragment([_box(occ, edges)], listed)
    occ.synchronize()
    groups: dict[int, list[int]] = {}
    taken: dict[int, int] = {}
    for part, fragments in zip(listed, origin[1:], strict=True):
        for d, tag in fragments:
            if d == dim:
                taken[tag] = kind_of[part]
    for tag, owner in taken.items():
        groups.setdefault(owner, []).append(tag)
    left = sorted({tag for d, tag in origin[0] if d == dim} - taken.keys())
    if not left:
        raise ValueError("the inclusions fill the whole cell")
    groups[-1] = left
    return groups


def _box(occ: Any, edges: Field) -> tuple[int, int]:
    if len(edges) == 2:
        return 2, occ.addRectangle(0, 0, 0, *edges)
    return 3, occ.addBox(0, 0, 0, *edges)


def mass(model: Any, dim: int, tags: Sequence[int]) -> float:
    """Volume (3D) or area (2D) of entities, from the exact shapes."""
    return float(sum(model.occ.getMass(dim, tag) for tag in tags))


def interfaces(model: Any, dim: int, groups: dict[int, list[int]]) -> dict[tuple[int, int], list[int]]:
    """Surfaces (3D) or curves (2D) between entities of two kinds, by the pair of kinds."""
    kind_of = {tag: kind for kind, tags in groups.items() for tag in tags}
    found: dict[tuple[int, int], list[int]] = {}
    for _, face in model.getEntities(dim - 1):
        sides = sorted({kind_of[tag] for tag in model.getAdjacencies(dim - 1, face)[0] if tag in kind_of})
        if len(sides) == 2:
            found.setdefault((sides[0], sides[1]), []).append(face)
    return found


def set_periodic(model: Any, lower: Field, edges: Field) -> list[tuple[list[int], list[int]]]:
    """Tell Gmsh which entities on the upper faces of the box are copies of which on the lower ones.

    Returns:
        Entities of the lower face and their copies on the upper one, per axis.
    Raises:
        ValueError: a face has no entity, or one without its copy across.
    """
    dim = len(edges)
    eps = 1e-6 * float(edges.min())
    low, high = np.zeros(3), np.zeros(3)
    low[:dim], high[:dim] = lower, lower + edges
    sides = []
    for axis in range(dim):
        shift = np.zeros(3)
        shift[axis] = edges[axis]
        faces, across = (
            _on_plane(model, dim, axis, plane, low, high, eps) for plane in (low[axis], high[axis])
        )
        affine = np.eye(4)
        affine[:3, 3] = shift
        at = {face: _signature(model, dim - 1, face) for face in faces}
        there = {face: _signature(model, dim - 1, face) for face in across}
        move = np.concatenate([shift, shift, shift, [0.0]])
        free, copies = set(across), []
        for face, value in at.items():
            near = [other for other in free if np.abs(there[other] - value - move).max() < 100 * eps]
            if not near:
                raise ValueError(
                    f"the faces of the box across axis {axis} differ: an entity at "
                    f"{value[6:9].round(6).tolist()} has no copy on the other side"
                )
            best = min(near, key=lambda other: float(np.abs(there[other] - value - move).max()))
            free.remove(best)
            copies.append(best)
            model.mesh.setPeriodic(dim - 1, [best], [face], affine.ravel().tolist())
        if not faces or free:
            raise ValueError(
                f"the faces of the box across axis {axis} differ: {len(faces)} and {len(across)} entities"
            )
        sides.append((faces, copies))
    return sides


def parts(model: Any, dim: int, tags: Sequence[int], sides: Sequence[tuple[list[int], list[int]]]) -> int:
    """Number of connected parts of some entities of full dimension, joined also across the box's faces."""
    place = {tag: k for k, tag in enumerate(tags)}
    owners = {
        face: [place[tag] for tag in model.getAdjacencies(dim - 1, face)[0] if tag in place]
        for _, face in model.getEntities(dim - 1)
    }
    links = [pair for both in owners.values() for pair in itertools.combinations(both, 2)]
    for faces, copies in sides:
        for face, copy in zip(faces, copies, strict=True):
            links += itertools.product(owners[face], owners[copy])
    rows, columns = np.array(links, dtype=np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(tags),) * 2)
    return int(connected_components(graph, directed=False)[0])


def _on_plane(
    model: Any, dim: int, axis: int, plane: float, low: Field, high: Field, eps: float
) -> list[int]:
    corner, other = low - eps, high + eps
    corner[axis], other[axis] = plane - eps, plane + eps
    return [tag for _, tag in model.getEntitiesInBoundingBox(*corner, *other, dim - 1)]


def _signature(model: Any, dim: int, tag: int) -> Field:
    """Bounding box, centre of mass and mass of an entity: equal for copies up to their shift."""
    try:
        centre, size = model.occ.getCenterOfMass(dim, tag), model.occ.getMass(dim, tag)
    except Exception:  # a model of Gmsh's own kernel has neither
        centre, size = (0.0, 0.0, 0.0), 0.0
        box = np.array(model.getBoundingBox(dim, tag))
        return np.concatenate([box, (box[:3] + box[3:]) / 2, [size]])
    return np.concatenate([model.getBoundingBox(dim, tag), centre, [size]])


def set_sizes(
    model: Any,
    centers: Field,
    radii: Field,
    narrow: Gaps,
    faces: Sequence[int],
    edges: Field,
    *,
    coarse: float,
    fine: float,
    floor: float,
) -> None:
    """Mesh sizes: `fine` at the faces between phases, less on small balls and in narrow gaps, `coarse` away.

    A gap of width g gets edges of length g, but not below `floor`, where it is at most twice as wide, and
    edges that grow linearly from there to where it is as wide as the edges around it.
    """
    import gmsh

    dim = centers.shape[1]
    for name in ("MeshSizeFromPoints", "MeshSizeFromCurvature", "MeshSizeExtendFromBoundary"):
        gmsh.option.setNumber(f"Mesh.{name}", 0)
    # In a session that stays open these would still hold the sizes of the last cell.
    gmsh.option.setNumber("Mesh.MeshSizeMin", min(floor, 0.7 * float(radii.min())))
    gmsh.option.setNumber("Mesh.MeshSizeMax", coarse)
    field, fields = model.mesh.field, []

    def ball(center: Any, radius: float, inside: float, thickness: float) -> None:
        tag = field.add("Ball")
        fields.append(tag)
        at = np.pad(center, (0, 3 - dim))
        values = {"XCenter": at[0], "YCenter": at[1], "ZCenter": at[2], "Radius": radius}
        values |= {"Thickness": thickness, "VIn": inside, "VOut": coarse}
        for key, value in values.items():
            field.setNumber(tag, key, float(value))

    for at, width, radius in zip(*narrow, strict=True):
        size = max(float(width), floor)
        core = float(np.sqrt(2 * radius * size))
        thickness = max(float(np.sqrt(2 * radius * fine)) - core, coarse - size)
        if size < fine and np.linalg.norm(at - np.clip(at, 0, edges)) < core + thickness:
            ball(at, core, size, thickness)
    for center, radius in zip(centers, radii, strict=True):
        if 0.7 * radius < fine:
            ball(center, radius, 0.7 * radius, 2 * coarse)
    if fine < coarse:
        distance = field.add("Distance")
        field.setNumbers(distance, "CurvesList" if dim == 2 else "SurfacesList", list(faces))
        field.setNumber(distance, "Sampling", int(np.clip(np.ceil(7 * radii.max() / fine), 20, 200)))
        threshold = field.add("Threshold")
        fields.append(threshold)
        field.setNumber(threshold, "InField", distance)
        grow = float(radii.min())
        for key, value in (("SizeMin", fine), ("SizeMax", coarse), ("DistMin", 0.0), ("DistMax", grow)):
            field.setNumber(threshold, key, value)
    if fields:
        smallest = field.add("Min")
        field.setNumbers(smallest, "FieldsList", fields)
        field.setAsBackgroundMesh(smallest)
