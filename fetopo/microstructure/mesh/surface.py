"""The surface of a phase as STL, for printing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fetopo._mpi import on_every_rank
from fetopo._paths import replacing
from fetopo.microstructure.image import Image
from fetopo.microstructure.mesh._nodes import gather
from fetopo.microstructure.mesh.cell import UnitCell

_Triangles = npt.NDArray[np.float64]

#: Corners of the faces of a tetrahedron and a hexahedron in VTK's order, seen from outside counterclockwise.
_FACES = {
    4: ((0, 2, 1), (0, 1, 3), (1, 2, 3), (0, 3, 2)),
    8: ((0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)),
}
#: Middles of the edges of a tetrahedron of second order by their ends.
_MIDDLES = {(0, 1): 4, (1, 2): 5, (0, 2): 6, (0, 3): 7, (1, 3): 8, (2, 3): 9}


def write_surface(
    path: str | os.PathLike[str], material: UnitCell | Image, phase: int | str, *, scale: float = 1e3
) -> int:
    """Write the closed surface of a phase, faces of the box included, as binary STL. Collective for a cell.

    Triangles are oriented outward, so that Σ x·(y × z)/6 over their corners is the volume of the phase.
    Faces of voxels are split into two triangles, faces of second order into four.

    Args:
        path: file that ends in .stl; one of that name is replaced once the new one is complete.
        material: 3D cell, or labelled 3D image, whose axis 0 becomes x.
        phase: tag or name of the phase, or label.
        scale: units of the file in one metre. STL knows none, printers read millimetres: 1e3.
    Returns:
        Number of triangles, on rank 0; 0 elsewhere.
    Raises:
        ValueError: on every rank; another suffix, a 2D material, a phase that is not there.
    """
    path = Path(path)
    if path.suffix.lower() != ".stl":
        raise ValueError(f"{path}: expected a file that ends in .stl")
    if not 0 < scale < np.inf:
        raise ValueError(f"scale is {scale}: expected a positive number")
    if isinstance(material, Image):
        triangles = _of_image(material, phase)
        _write(path, triangles * scale)
        return len(triangles)
    tag = material.tag(phase)
    if material.dim != 3:
        raise ValueError("a surface for printing needs a 3D cell, found 2D")
    if tag not in material.tags():
        raise ValueError(f"no cells of phase {phase!r}; this cell has tags {material.tags()}")
    parts = gather(material)
    count = 0
    with on_every_rank(material.mesh.comm):
        if parts is not None:
            points, cells, tags = parts
            triangles = _of_cells(points, cells[tags == tag])
            _write(path, triangles * scale)
            count = len(triangles)
    return count


def _of_cells(points: npt.NDArray, cells: npt.NDArray[np.int64]) -> _Triangles:
    """Corners (m, 3, 3) of the triangles that bound some cells."""
    if cells.shape[1] not in (4, 8, 10):
        raise NotImplementedError(f"surfaces of cells with {cells.shape[1]} nodes are not supported")
    faces = _FACES[8 if cells.shape[1] == 8 else 4]
    refine = {4: lambda face: [face], 8: _split, 10: _refined}[cells.shape[1]]
    axes = [1, 3, 4] if cells.shape[1] == 8 else [1, 2, 3]
    flipped = np.linalg.det(points[cells[:, axes]] - points[cells[:, :1]]) < 0
    keys, triangles = [], []
    for face in faces:
        keys.append(np.sort(cells[:, list(face)], axis=1))
        parts = cells[:, np.array(refine(face))]
        parts[flipped] = parts[flipped][..., ::-1]
        triangles.append(parts)
    # A face of one cell only is outside.
    _, group, times = np.unique(np.vstack(keys), axis=0, return_inverse=True, return_counts=True)
    outer = times[group.reshape(-1)] == 1
    return points[np.concatenate(triangles)[outer].reshape(-1, 3)]


def _split(face: tuple[int, ...]) -> list[tuple[int, ...]]:
    a, b, c, d = face
    return [(a, b, c), (a, c, d)]


def _refined(face: tuple[int, ...]) -> list[tuple[int, ...]]:
    a, b, c = face
    ab, bc, ca = (_MIDDLES[min(p), max(p)] for p in ((a, b), (b, c), (c, a)))
    return [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]


def _of_image(image: Image, phase: int | str) -> _Triangles:
    labels = np.asarray(image.labels)
    if labels.ndim != 3:
        raise ValueError(f"a surface for printing needs a 3D image, found shape {labels.shape}")
    solid = labels == phase
    if isinstance(phase, str) or not solid.any():
        raise ValueError(f"no voxels of phase {phase!r}; the image has {np.unique(labels).tolist()}")
    padded = np.pad(solid, 1)
    triangles = []
    for axis in range(3):
        step = np.diff(padded.astype(np.int8), axis=axis)
        for sign in (1, -1):
            # A step up from below is a face that looks down.
            at = np.argwhere(step == sign) - 1
            at[:, axis] += 1
            u, v = np.eye(3, dtype=np.int64)[[(axis + 1) % 3, (axis + 2) % 3]]
            quad = np.stack([at, at + u, at + u + v, at + v], axis=1)
            if sign == 1:
                quad = quad[:, ::-1]
            triangles += [quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]]
    return np.concatenate(triangles) * np.array(image.voxel_size)


def _write(path: Path, triangles: _Triangles) -> None:
    """Binary STL: 80 bytes, the number, then normal, corners and a zero for each triangle."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    rows = np.zeros(len(triangles), dtype=record)
    rows["normal"], rows["corners"] = normals, triangles
    with replacing(path) as part, part.open("wb") as file:
        file.write(b"surface of a phase, written by fetopo".ljust(80))
        file.write(np.uint32(len(rows)).tobytes())
        file.write(rows.tobytes())
