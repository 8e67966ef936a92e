"""Unit cells with curved inclusions, meshed by Gmsh along the interfaces and alike on opposite faces."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._compat import gmsh_to_mesh
from fetopo._mpi import on_every_rank
from fetopo.microstructure.mesh import UnitCell

MATRIX, INCLUSION = 1, 2


def inclusion_cell(
    comm: MPI.Comm,
    centers: npt.ArrayLike,
    radii: float | npt.ArrayLike,
    *,
    mesh_size: float,
    interface_size: float | None = None,
    lengths: Sequence[float] | None = None,
) -> UnitCell:
    """A periodic cell with discs (2D) or balls (3D), meshed with triangles or tetrahedra that follow them.

    Inclusions may overlap and cross the faces of the cell; what leaves on one side enters on the other.

    Args:
        comm: communicator to distribute the mesh over; Gmsh runs on rank 0.
        centers: points, shape (n, d), in metres.
        radii: one radius, or n, in metres.
        mesh_size: edge length of the cells away from the interfaces.
        interface_size: edge length at the interfaces; default `mesh_size`.
        lengths: edges of the cell, which starts at the origin; default 1 along every axis.
    Returns:
        Cell with phases "matrix" (tag 1) and "inclusion" (tag 2).
    Raises:
        ValueError: on every rank; shapes that do not fit, sizes that are not positive, a radius above half
            an edge, inclusions that fill the cell or leave no trace in it.
        RuntimeError: on every rank, where Gmsh fails, as it does for a ball that just touches a face.
    """
    centers = np.atleast_2d(np.asarray(centers, dtype=float))
    n, dim = centers.shape
    if dim not in (2, 3) or n == 0 or not np.isfinite(centers).all():
        raise ValueError(f"centers must be n finite points in 2D or 3D, found shape {centers.shape}")
    L = np.ones(dim) if lengths is None else np.asarray(lengths, dtype=float)
    if L.shape != (dim,) or not (np.isfinite(L).all() and (L > 0).all()):
        raise ValueError(f"lengths must be {dim} positive numbers, found {lengths}")
    R = np.broadcast_to(np.asarray(radii, dtype=float), (n,))
    if R.min() <= 0 or R.max() > L.min() / 2 or not np.isfinite(R).all():
        raise ValueError(
            f"radii must be positive and at most half an edge ({L.min() / 2:g}), found {R.tolist()}"
        )
    fine = mesh_size if interface_size is None else interface_size
    if not (0 < fine <= mesh_size < np.inf):
        raise ValueError(
            f"mesh sizes must be positive and the interface's not the larger, found {mesh_size} and {fine}"
        )

    with _gmsh_model() as model:
        with on_every_rank(comm):
            if comm.rank == 0:
                _build(model, centers % L, R, L)
                try:
                    _make_periodic(model, L)
                    _set_sizes(model, dim, fine, mesh_size, float(R.min()))
                    model.mesh.generate(dim)
                except Exception as error:
                    raise RuntimeError(
                        f"Gmsh could not mesh the cell alike on opposite faces ({error}); an inclusion that "
                        "just touches a face is the usual reason: move or resize it a little"
                    ) from error
        mesh, cell_tags, _ = gmsh_to_mesh(model, comm, 0, dim)
    phases = {"matrix": MATRIX, "inclusion": INCLUSION}
    return UnitCell(mesh, cell_tags, np.zeros(dim), L, phases)


@contextmanager
def _gmsh_model() -> Iterator[Any]:
    try:
        import gmsh
    except ImportError as error:
        raise ImportError("body-fitted meshes need Gmsh's Python module: install gmsh") from error

    ours = not gmsh.isInitialized()
    if ours:
        gmsh.initialize(interruptible=False)
    gmsh.option.setNumber("General.Terminal", 0)
    gmsh.model.add("fetopo")
    try:
        yield gmsh.model
    finally:
        gmsh.model.remove()
        if ours:
            gmsh.finalize()


def _build(model: Any, centers: npt.NDArray, radii: npt.NDArray, L: npt.NDArray) -> None:
    """The box, cut by the inclusions and their periodic images."""
    occ, dim = model.occ, len(L)
    shapes = []
    for center, radius in zip(centers, radii, strict=True):
        for shift in itertools.product((-1, 0, 1), repeat=dim):
            at = center + np.array(shift) * L
            # An image counts if its ball reaches into the box.
            if np.linalg.norm(at - np.clip(at, 0, L)) >= radius * (1 - 1e-9):
                continue
            if dim == 2:
                shapes.append((2, occ.addDisk(at[0], at[1], 0, radius, radius)))
            else:
                shapes.append((3, occ.addSphere(*at, radius)))
    box = _box(occ, L)
    pieces, _ = occ.intersect(shapes, [box])
    if not pieces:
        raise ValueError("no inclusion lies in the cell")
    if len(pieces) > 1:
        pieces, _ = occ.fragment(pieces[:1], pieces[1:])
    _, origin = occ.fragment([_box(occ, L)], pieces)
    occ.synchronize()
    everything = {tag for d, tag in origin[0] if d == dim}
    inside = {tag for parts in origin[1:] for d, tag in parts if d == dim}
    if not everything - inside:
        raise ValueError("the inclusions fill the whole cell")
    model.addPhysicalGroup(dim, sorted(everything - inside), MATRIX, "matrix")
    model.addPhysicalGroup(dim, sorted(inside), INCLUSION, "inclusion")


def _box(occ: Any, L: npt.NDArray) -> tuple[int, int]:
    if len(L) == 2:
        return 2, occ.addRectangle(0, 0, 0, *L)
    return 3, occ.addBox(0, 0, 0, *L)


def _make_periodic(model: Any, L: npt.NDArray) -> None:
    """Tell Gmsh which entities on the upper faces are copies of which on the lower ones."""
    dim, eps = len(L), 1e-6 * float(L.min())
    edges = np.append(L, 0.0)[:3]
    for axis in range(dim):
        low = np.full(3, -eps)
        high = edges + eps
        high[axis] = eps
        low_faces = model.getEntitiesInBoundingBox(*low, *high, dim - 1)
        shift = np.zeros(3)
        shift[axis] = L[axis]
        affine = np.eye(4)
        affine[:3, 3] = shift
        for _, face in low_faces:
            box = np.array(model.getBoundingBox(dim - 1, face)).reshape(2, 3) + shift
            across = model.getEntitiesInBoundingBox(*(box[0] - eps), *(box[1] + eps), dim - 1)
            for _, candidate in across:
                found = np.array(model.getBoundingBox(dim - 1, candidate)).reshape(2, 3)
                if np.abs(found - box).max() < eps:
                    model.mesh.setPeriodic(dim - 1, [candidate], [face], affine.ravel().tolist())


def _set_sizes(model: Any, dim: int, fine: float, coarse: float, radius: float) -> None:
    import gmsh

    for name in ("MeshSizeFromPoints", "MeshSizeFromCurvature", "MeshSizeExtendFromBoundary"):
        gmsh.option.setNumber(f"Mesh.{name}", 0)
    # In a session that stays open these would still hold the sizes of the last cell.
    gmsh.option.setNumber("Mesh.MeshSizeMin", fine)
    gmsh.option.setNumber("Mesh.MeshSizeMax", coarse)
    field = model.mesh.field
    if fine == coarse:
        return
    interfaces = model.getBoundary(
        [(dim, tag) for tag in model.getEntitiesForPhysicalGroup(dim, INCLUSION)],
        combined=True,
        oriented=False,
    )
    distance = field.add("Distance")
    field.setNumbers(distance, "CurvesList" if dim == 2 else "SurfacesList", [tag for _, tag in interfaces])
    field.setNumber(distance, "Sampling", 200)
    threshold = field.add("Threshold")
    field.setNumber(threshold, "InField", distance)
    for key, value in (("SizeMin", fine), ("SizeMax", coarse), ("DistMin", 0.0), ("DistMax", radius)):
        field.setNumber(threshold, key, value)
    field.setAsBackgroundMesh(threshold)
