"""Which discretization a property of an image gets: the voxels themselves, or a mesh of DOLFINx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fetopo._mpi import get_logger

#: "voxel": multigrid on the array of voxels, no mesh. "mesh": DOLFINx, one element per voxel.
Discretization = Literal["voxel", "mesh"]
NAMES: tuple[Discretization, ...] = ("voxel", "mesh")


def check_discretization(asked: str | None) -> None:
    """Raise a ValueError unless it is a discretization, or None for a default."""
    if asked not in (None, *NAMES):
        raise ValueError(f"discretization is {asked!r}: expected 'voxel' or 'mesh'")


def choose(comm: Any, asked: str | None, obstacles: Sequence[str] = ()) -> Discretization:
    """The discretization asked for; without a wish voxels, or a mesh where voxels cannot do it.

    Args:
        comm: communicator; rank 0 logs why a mesh was chosen.
        asked: "voxel", "mesh" or None.
        obstacles: what was asked for that voxels cannot do, as words for a message.
    Raises:
        ValueError: another name, or "voxel" where there is an obstacle.
    """
    check_discretization(asked)
    if asked == "mesh" or not obstacles:
        return "mesh" if asked == "mesh" else "voxel"
    if asked == "voxel":
        raise ValueError(f"discretization is 'voxel', which has no {obstacles[0]}: use 'mesh'")
    get_logger(__name__, comm).info("on a mesh: voxels have no %s", " and no ".join(obstacles))
    return "mesh"


def solver_obstacles(petsc_options: Mapping[str, Any] | None) -> list[str]:
    """Options of PETSc that have no meaning on voxels: all but the tolerance."""
    return [f"PETSc option {key}" for key in petsc_options or {} if key != "ksp_rtol"]
