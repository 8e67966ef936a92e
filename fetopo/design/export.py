"""Files of a crisp structure for other programs: meshers, solvers, ParaView, printers."""

from __future__ import annotations

from pathlib import Path

from fetopo.design.realize import NAMES, Structure
from fetopo.microstructure.mesh import write_mesh, write_surface

#: Millimetres, the unit of printers, in a metre.
_PRINTED = 1e3


def write_structure(directory: Path, structure: Structure, *, scale: float = _PRINTED) -> list[Path]:
    """Write the mesh of a structure, and in 3D the surface of each material for printing. Collective.

    `structure.msh` (Gmsh, metres, physical groups "poor" and "good"), `structure.xdmf` (ParaView, DOLFINx),
    in 3D `good.stl` and `poor.stl`: closed surfaces, faces of the box included.

    Args:
        directory: must be there; files of these names are replaced.
        structure: the structure.
        scale: units of the STL files in one metre; printers read millimetres.
    Returns:
        The files.
    """
    paths = [directory / "structure.msh", directory / "structure.xdmf"]
    for path in paths:
        write_mesh(path, structure.cell)
    if structure.cell.dim == 3:
        for name in NAMES:
            if name in structure.cell.phases:
                paths.append(directory / f"{name}.stl")
                write_surface(paths[-1], structure.cell, name, scale=scale)
    return paths
