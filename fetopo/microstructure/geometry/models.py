"""Users' own Gmsh models and CAD files as cells: their physical groups are the phases."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from fetopo._compat import gmsh_to_mesh
from fetopo._mpi import get_logger, on_every_rank
from fetopo.microstructure.geometry import _cad, _volume
from fetopo.microstructure.geometry._meshing import check_faces
from fetopo.microstructure.geometry._session import gmsh_model
from fetopo.microstructure.mesh import UnitCell

SUFFIXES = (".geo", ".geo_unrolled", ".msh", ".step", ".stp", ".brep", ".iges", ".igs")


def gmsh_cell(
    comm: MPI.Intracomm,
    model: str | os.PathLike[str] | Callable[[Any], object],
    *,
    phases: Mapping[str, Sequence[int]] | None = None,
    mesh_size: float | None = None,
    order: int | None = None,
    periodic: bool = False,
    scale: float = 1.0,
) -> UnitCell:
    """A user's Gmsh model as a cell: its physical groups of full dimension are the phases, by name and tag.

    Physical groups one dimension lower become facet tags. A model without a mesh is meshed; parameters and
    size fields that it sets itself are kept.

    Args:
        comm: communicator to distribute the mesh over; Gmsh runs on rank 0.
        model: a file (.geo, .msh, .step, .brep, .iges), or a function that is called on rank 0 with
            `gmsh.model` and builds into the current model.
        phases: entities of full dimension by name of the phase; default the physical groups, and where the
            model has none (as in CAD files) the names of its solids, if all have one.
        mesh_size: largest edge length, in the unit of the model; default Gmsh's own.
        order: degree of the geometry, 1 or 2; default 1, or that of the mesh in the file.
        periodic: mesh opposite faces of the bounding box alike; of a mesh that is there, check it.
        scale: metres in one unit of the model (1e-3 for a STEP file, which Gmsh reads in millimetres).
    Returns:
        The cell; its box is the bounding box of the mesh.
    Raises:
        FileNotFoundError: no such file.
        ValueError: on every rank; an unknown suffix, no physical group of full dimension, cells in none or
            two of them, cells of several types, a 2D model that is not in the plane z = 0, two phases of one
            name, opposite faces that differ.
        RuntimeError: Gmsh fails.
    """
    if mesh_size is not None and not 0 < mesh_size < np.inf:
        raise ValueError(f"mesh_size is {mesh_size}: expected a positive length")
    if order not in (None, 1, 2):
        raise ValueError(f"order is {order}: expected 1 (straight) or 2 (curved)")
    if not 0 < scale < np.inf:
        raise ValueError(f"scale is {scale}: expected a positive number of metres")
    if not callable(model):
        path = Path(model)
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path}: unknown suffix {path.suffix!r}, expected {', '.join(SUFFIXES)}")
    found: dict[str, Any] = {}
    with gmsh_model() as current:
        with on_every_rank(comm):
            if comm.rank == 0:
                if callable(model):
                    model(current)
                else:
                    _open(current, path)
                found = _prepare(current, phases, mesh_size, order, periodic)
                get_logger(__name__, comm).info("phases of the Gmsh model: %s", found["phases"])
        found = comm.bcast(found)
        domain, cell_tags, facet_tags = gmsh_to_mesh(current, comm, 0, found["dim"])
    x = domain.geometry.x
    x *= scale
    return UnitCell(
        domain,
        cell_tags,
        found["lower"] * scale,
        found["upper"] * scale,
        found["phases"],
        complete=found["complete"],
        facet_tags=facet_tags if found["facets"] else None,
        facets=found["facets"],
    )


def _open(model: Any, path: Path) -> None:
    import gmsh

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    gmsh.option.setNumber("Geometry.OCCImportLabels", 1)
    try:
        gmsh.merge(str(path))
        model.geo.synchronize()
        model.occ.synchronize()
    except Exception as error:
        raise ValueError(f"{path}: Gmsh cannot read it ({error})") from error


def _prepare(
    model: Any,
    phases: Mapping[str, Sequence[int]] | None,
    mesh_size: float | None,
    order: int | None,
    periodic: bool,
) -> dict[str, Any]:
    """Check, name and mesh the model; what every rank has to know of it."""
    model.occ.synchronize()
    model.geo.synchronize()
    dims = [d for d in (3, 2) if len(model.getEntities(d))]
    if not dims:
        raise ValueError("the Gmsh model has neither volumes nor surfaces")
    dim = dims[0]
    _group(model, dim, phases)
    names = _names(model, dim)
    _check_groups(model, dim)

    lower, upper = _box(model, dim)
    meshed = any(len(tags) for tags in model.mesh.getElements(dim)[1])
    sides = _cad.set_periodic(model, lower, upper - lower) if periodic else []
    if not meshed:
        _generate(model, dim, mesh_size)
    if order is not None:
        model.mesh.setOrder(order)
    nodes = _volume.read_nodes(model)
    tags = [tag for _, tag in model.getEntities(dim)]
    kinds = {int(kind) for tag in tags for kind in model.mesh.getElements(dim, tag)[0]}
    if len(kinds) != 1:
        several = ", ".join(model.mesh.getElementProperties(kind)[0] for kind in sorted(kinds))
        raise ValueError(f"the model has cells of several types ({several}): expected one")
    used = nodes.x[np.unique(_volume.read_elements(model, nodes, dim, tags))]
    if dim == 2 and np.abs(used[:, 2]).max() > 1e-9 * np.ptp(used, axis=0).max():
        raise ValueError("the model has surfaces outside of the plane z = 0 and no volumes")
    lower, upper = used.min(axis=0)[:dim], used.max(axis=0)[:dim]
    if periodic:
        check_faces(model, sides, upper - lower)
    for d, tag in model.getPhysicalGroups():
        if d < dim - 1:  # what the mesh cannot carry
            model.removePhysicalGroups([(d, tag)])
    volume = _mesh_volume(model, nodes, dim, tags, kinds.pop())
    complete = bool(np.isclose(volume, np.prod(upper - lower), rtol=1e-6))
    facets = _names(model, dim - 1)
    return {
        "dim": dim, "phases": names, "facets": facets, "lower": lower, "upper": upper, "complete": complete
    }  # fmt: skip


def _group(model: Any, dim: int, phases: Mapping[str, Sequence[int]] | None) -> None:
    """Physical groups from what the caller says, or from the names of the solids where there is none."""
    entities = [tag for _, tag in model.getEntities(dim)]
    if phases is not None:
        for name, tags in phases.items():
            if not tags or not set(tags) <= set(entities):
                raise ValueError(f"phase {name!r} is made of entities {list(tags)}: the model has {entities}")
        model.removePhysicalGroups(model.getPhysicalGroups(dim))
        for number, (name, tags) in enumerate(phases.items(), start=1):
            model.addPhysicalGroup(dim, list(tags), number, name)
    elif not model.getPhysicalGroups(dim):
        names: dict[str, list[int]] = {}
        for tag in entities:
            names.setdefault(model.getEntityName(dim, tag).rsplit("/", 1)[-1], []).append(tag)
        if "" in names:
            kind = "Volume" if dim == 3 else "Surface"
            others = sorted({d for d, _ in model.getPhysicalGroups()})
            hint = f" (it has groups of dimension {others} only)" if others else ""
            raise ValueError(
                f"the Gmsh model has no physical group of its {len(entities)} {kind.lower()}s{hint}: name "
                f'its phases, as by Physical {kind}("matrix") = {{1}}, or say in phases which they are'
            )
        for number, (name, tags) in enumerate(names.items(), start=1):
            model.addPhysicalGroup(dim, tags, number, name)


def _names(model: Any, dim: int) -> dict[str, int]:
    """Physical groups of a dimension by name; those without one are left out."""
    found: dict[str, int] = {}
    for _, tag in model.getPhysicalGroups(dim):
        name = model.getPhysicalName(dim, tag)
        if name and found.setdefault(name, int(tag)) != tag:
            raise ValueError(f"two physical groups, {found[name]} and {tag}, have the name {name!r}")
    return found


def _check_groups(model: Any, dim: int) -> None:
    """Every entity of full dimension is in one group; of facets in one at most."""
    for d in (dim, dim - 1):
        for _, tag in model.getEntities(d):
            groups = model.getPhysicalGroupsForEntity(d, tag)
            if len(groups) > 1 or (d == dim and not len(groups)):
                where = f"entity {tag} of dimension {d} is in {len(groups)} physical groups"
                raise ValueError(f"{where}: expected one, so that every cell has one tag")


def _box(model: Any, dim: int) -> tuple[Any, Any]:
    """Corners of the bounding box: Gmsh's, a little larger than the shapes, drawn to their points."""
    box = np.array(model.getBoundingBox(-1, -1)).reshape(2, 3)[:, :dim]
    points = [model.getValue(0, tag, []) for _, tag in model.getEntities(0)]
    if points:
        x = np.array(points)[:, :dim]
        ends = np.array([x.min(axis=0), x.max(axis=0)])
        near = np.abs(ends - box) < 1e-6 * np.ptp(box, axis=0).max()
        box = np.where(near, ends, box)
    return box[0], box[1]


def _generate(model: Any, dim: int, mesh_size: float | None) -> None:
    import gmsh

    if mesh_size is not None:
        gmsh.option.setNumber("Mesh.MeshSizeMax", mesh_size)
    try:
        model.mesh.generate(dim)
    except Exception as error:  # Gmsh's own
        raise RuntimeError(
            f"Gmsh could not mesh the model: {error}; solids that cross each other are a usual reason, "
            "cut them with gmsh.model.occ.fragment"
        ) from error
    if not any(len(tags) for tags in model.mesh.getElements(dim)[1]):
        raise RuntimeError("Gmsh made no cells of the model; are its surfaces closed?")


def _mesh_volume(model: Any, nodes: _volume.Nodes, dim: int, tags: list[int], kind: int) -> float:
    _, _, order, _, _, _ = model.mesh.getElementProperties(kind)
    weights = model.mesh.getIntegrationPoints(kind, f"Gauss{max(1, dim * order)}")
    total = 0.0
    for tag in tags:
        _, determinants, _ = model.mesh.getJacobians(kind, weights[0], tag)
        total += float(np.abs(np.asarray(determinants).reshape(-1, len(weights[1])) @ weights[1]).sum())
    return total
