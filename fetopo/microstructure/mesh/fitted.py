"""Body-fitted meshes from images and density fields: the mesh follows a smooth interface, not the voxels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import basix.ufl
import numpy as np
import numpy.typing as npt
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo._compat import create_mesh
from fetopo._mpi import get_logger, on_every_rank
from fetopo.microstructure.image import GreyImage, Image, VoxelSize, voxel_sides
from fetopo.microstructure.mesh._cut import Parts
from fetopo.microstructure.mesh._field import level_set
from fetopo.microstructure.mesh._fit import FitReport, fit
from fetopo.microstructure.mesh._lattice import Array
from fetopo.microstructure.mesh.cell import UnitCell

#: Tags of what is around the phase and of the phase.
OUTSIDE, INSIDE = 1, 2


@dataclass(frozen=True)
class FittedCell(UnitCell):
    """A cell whose mesh follows an interface, with the report of how it was made."""

    report: FitReport | None = None


def fitted_cell(
    comm: MPI.Intracomm,
    image: Image | GreyImage | npt.NDArray,
    phase: int | Iterable[int] | None = None,
    voxel_size: VoxelSize | None = None,
    *,
    periodic: bool | Sequence[bool] = True,
    volume_fraction: float | None = None,
    mesh_size: float | None = None,
    smoothing: float | None = None,
    names: tuple[str, str] = ("matrix", "inclusion"),
    only: str | None = None,
) -> FittedCell:
    """Triangles or tetrahedra that follow the interface between a phase and the rest of an image.

    The interface is the level set {g = c} of the blurred indicator of the phase, or of a density; c is
    chosen, and the finished interface shifted along its normals, so that the phase keeps its volume. A
    body-centred lattice of the box is cut along it: nodes with a cut nearby are moved onto the interface,
    where that does not pinch it; cells that are still crossed are divided. Nodes near the interface are then
    moved to improve the cells, those on it along it. The interface is a manifold: two facets meet at each of
    its edges (one on a face without a partner) and no two sheets touch. Along periodic axes opposite faces
    are meshed alike. Rank 0 makes the mesh. docs/meshes.md has measured qualities.

    Args:
        comm: communicator to distribute the mesh over.
        image: labels (`Image` or integers), or densities between 0 and 1 (`GreyImage` or floats), the phase
            being where they are above ½; 2D or 3D, axis 0 is x, the same on every rank.
        phase: label of the phase, or labels; None for a density.
        voxel_size: side of a voxel [m], one or one per axis; default that of the image, 1 for an array.
        periodic: whether opposite faces are one, for all axes or for each.
        volume_fraction: of the phase [-]; default: of labels their own, of a density what is above ½.
            A design keeps its own with `volume_fraction=design.volume_fraction`.
        mesh_size: edge of the lattice's cubes (squares) [m]; default one voxel in 2D, two in 3D.
        smoothing: standard deviation of the Gaussian blur in voxels; default 1 for labels, 0 for a density.
        names: of the rest (tag 1) and of the phase (tag 2).
        only: name of the one phase to mesh; default both.
    Returns:
        The cell, with a report.
    Raises:
        ValueError: on every rank; an image that is empty, has one phase where two are needed, holds NaN or
            densities outside [0, 1], a label that does not occur, sizes that are not positive, a mesh size
            too coarse for the box or the phase.
        RuntimeError: on every rank; a volume fraction that cannot be met within `TOLERANCE`.
    Source: Labelle and Shewchuk (2007), doi:10.1145/1276377.1276448, for the lattice and the snapping.
    """
    values, sides, labelled = _values(image, phase, voxel_size)
    dim = values.ndim
    if np.shape(periodic) not in ((), (dim,)):
        raise ValueError(f"periodic is {periodic}: expected one answer or {dim}, one per axis")
    wraps = [bool(p) for p in np.broadcast_to(np.asarray(periodic), (dim,))]
    blur = (1.0 if labelled else 0.0) if smoothing is None else float(smoothing)
    if not 0 <= blur < np.inf:
        raise ValueError(f"smoothing is {smoothing}: expected voxels, not negative")
    fraction = float(values.mean()) if labelled else None
    fraction = fraction if volume_fraction is None else float(volume_fraction)
    if fraction is not None and not 0 < fraction < 1:
        raise ValueError(f"volume_fraction is {fraction}: expected a number between 0 and 1")
    if len(set(names)) != 2 or only not in (None, *names):
        raise ValueError(
            f"names are {names} and only is {only!r}: expected two names, and one of them or None"
        )
    upper = sides * values.shape
    size = (dim - 1) * float(np.prod(sides)) ** (1 / dim) if mesh_size is None else float(mesh_size)
    divisions = _divisions(size, upper)

    with on_every_rank(comm):
        if comm.rank == 0:
            field = level_set(values, sides, wraps, blur)
            parts, report = fit(field, fraction, divisions, upper, wraps, labelled)
            x, cells, first = _arrays(parts, None if only is None else names.index(only))
        else:
            x, cells, first = np.empty((0, dim)), np.empty((0, dim + 1), dtype=np.int64), 0
            report = None
    first = comm.bcast(first)
    made: FitReport = comm.bcast(report)
    log = get_logger(__name__, comm)
    log.info(
        "mesh along the interface: volume fraction %.4f, of the structure %.4f",
        made.meshed_fraction,
        made.volume_fraction,
    )
    if not 0.2 < made.level < 0.8:
        log.warning("level %.3f: the phase is finer than the blur and the mesh can show", made.level)
    element = basix.ufl.element("Lagrange", "triangle" if dim == 2 else "tetrahedron", 1, shape=(dim,))
    mesh = create_mesh(comm, cells, x, element)
    tags = np.where(mesh.topology.original_cell_index < first, OUTSIDE, INSIDE).astype(np.int32)
    cell_tags = dmesh.meshtags(mesh, dim, np.arange(tags.size, dtype=np.int32), tags)
    phases = {name: tag for name, tag in zip(names, (OUTSIDE, INSIDE), strict=True) if only in (None, name)}
    return FittedCell(mesh, cell_tags, np.zeros(dim), upper, phases, complete=only is None, report=made)


def _values(
    image: Image | GreyImage | npt.NDArray, phase: int | Iterable[int] | None, voxel_size: VoxelSize | None
) -> tuple[npt.NDArray, Array, bool]:
    """Indicator or density, sides of a voxel, whether it came from labels."""
    if not isinstance(image, Image | GreyImage):
        array = np.asarray(image)
        given = voxel_sides(1.0 if voxel_size is None else voxel_size, max(array.ndim, 1))
        image = (GreyImage if array.dtype.kind == "f" else Image)(array, given)
    sides = np.array(image.voxel_size if voxel_size is None else voxel_sides(voxel_size, image.dim))
    if isinstance(image, Image):
        if phase is None:
            raise ValueError(
                f"phase is None: expected labels of the image, {', '.join(map(str, image.phases))}"
            )
        mask = image.mask(phase)
        if mask.all():
            raise ValueError(f"phase {phase} is all of the image: expected two phases")
        return mask, sides, True
    if phase is not None:
        raise ValueError(f"phase is {phase}, of a density: expected None")
    low, high = float(image.values.min()), float(image.values.max())
    if not -1e-6 <= low <= high <= 1 + 1e-6:
        raise ValueError(f"densities lie between {low:g} and {high:g}: expected 0 to 1")
    if low == high:
        raise ValueError(f"the density is {low:g} everywhere: expected two phases")
    return image.values, sides, False


def _divisions(size: float, upper: Array) -> list[int]:
    """Cubes of the lattice along each axis."""
    if not 0 < size < np.inf:
        raise ValueError(f"mesh_size is {size}: expected a positive length in metres")
    divisions = [max(round(float(length / size)), 1) for length in upper]
    if min(divisions) < 3:
        raise ValueError(
            f"mesh_size is {size:g} m in a box of {' × '.join(f'{a:g}' for a in upper)} m: "
            f"expected at most {upper.min() / 3:g}, a third of the shortest edge"
        )
    return divisions


def _arrays(parts: Parts, only: int | None) -> tuple[Array, npt.NDArray[np.int64], int]:
    """Nodes and cells, those outside first, and how many these are."""
    outside, inside = parts.mesh.cells[~parts.inside], parts.mesh.cells[parts.inside]
    x = parts.mesh.nodes()
    if only is None:
        return x, np.concatenate([outside, inside]), len(outside)
    cells = (outside, inside)[only]
    used, numbers = np.unique(cells, return_inverse=True)
    return x[used], numbers.reshape(cells.shape), 0 if only else len(cells)
