"""What a design run leaves behind: numbers, fields, images, pictures."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from dolfinx.io import XDMFFile

from fetopo._compat import interpolation_points
from fetopo._json import plain
from fetopo._mpi import on_every_rank
from fetopo._paths import replacing
from fetopo._vti import write_voxel_fields
from fetopo.design.cell import CellDesign, Goal
from fetopo.design.crisp import VoxelStructure
from fetopo.design.export import write_structure
from fetopo.design.problem import Record
from fetopo.design.voxels import VoxelState
from fetopo.microstructure.image import Image
from fetopo.microstructure.image import write as write_image
from fetopo.microstructure.mesh import to_image
from fetopo.transport.state import owned
from fetopo.transport.voxel import VoxelGrid

_log = logging.getLogger(__name__)


def write_json(path: Path, value: Any) -> None:
    """Write complete or not at all."""
    with replacing(path) as part:
        part.write_text(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_history(path: Path, history: Sequence[Record]) -> None:
    """The history as CSV, one line per iteration."""
    rows = [record.row() for record in history]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def summary(design: CellDesign, goal: Goal) -> dict[str, Any]:
    """The content of result.json; keys as in the command line contract."""
    result, goal = design.result, design.goal
    return {
        "objective": result.objective,
        "constraints": result.constraints,
        "effective_tensor": design.tensor,
        "target": None if goal.target is None else goal.target,
        "discretization": design.discretization,
        "goal": _asked(goal),
        "reached": design.reached,
        "bound": design.bound,
        "bound_fraction": design.bound_fraction,
        "iterations": len(result.history),
        "converged": result.converged,
        "grey_level": result.grey_level,
        "findings": list(design.findings),
        "verified": {
            **design.structure.to_dict(),
            "reached": design.verified,
            "at_least": design.verified_at_least,
            "projection_gap": design.projection_gap,
            "voxels": None if design.voxels is None else _voxels(design.voxels),
            **_tortuosity(design),
        },
        **({"transports": dict(design.transports)} if design.transports else {}),
    }


def _asked(goal: Goal) -> Any:
    """The goal as a case file names it."""
    if goal.value is not None:
        return {goal.asked or goal.kind: goal.value}
    kind: Any = goal.kind if goal.direction is None else {"along": goal.direction}
    if goal.several:
        how = {"transports": goal.transports, "weights": goal.shares, "combine": goal.combine}
        return {"maximize": kind, **how}
    return kind if goal.asked is None else {"minimize": goal.asked, "along": goal.direction}


def _tortuosity(design: CellDesign) -> dict[str, Any]:
    """τ = ε k/D and α = ln(D/k)/ln ε per axis, with ε and k of the better material."""
    D, f, k = np.diag(design.verified_tensor), design.volume_fraction, design.conductivity[1]
    if not (D > 0).all() or not 0 < f < 1:
        return {"tortuosity_factor": None, "bruggeman_exponent": None}
    return {"tortuosity_factor": f * k / D, "bruggeman_exponent": np.log(D / k) / np.log(f)}


def _voxels(found: VoxelStructure) -> dict[str, Any]:
    return {
        "effective_tensor": found.tensor,
        "lower_bound": found.lower_bound,
        "volume_fraction": found.volume_fraction,
        "voxels_split": found.refinement,
    }


def flux_image(design: CellDesign, axis: int = 0) -> npt.NDArray[np.float64]:
    """Flux of the cell problem for a mean gradient along an axis, per voxel: shape (*grid, d). Collective."""
    cell, problem = design.cell, design.problem
    if isinstance(cell, VoxelGrid) or isinstance(problem, VoxelState):
        assert isinstance(problem, VoxelState)
        return problem.flux(axis)
    Q = fem.functionspace(cell.mesh, ("DG", 0))
    local = problem.flux(problem.local_fields()[axis])
    parts = []
    for i in range(cell.dim):
        component = fem.Function(Q)
        component.interpolate(fem.Expression(local[i], interpolation_points(Q)))
        parts.append(to_image(cell, owned(component)))
    return np.stack(parts, axis=-1)


def write_fields(directory: Path, design: CellDesign) -> None:
    """Density, crisp structure and the potentials x·eᵢ + χᵢ for ParaView. Collective.

    XDMF of a mesh, VTK ImageData of a grid of voxels.
    """
    cell, problem = design.cell, design.problem
    if isinstance(cell, VoxelGrid) or isinstance(problem, VoxelState):
        _write_voxels(directory / "design.vti", design)
        return
    mesh = cell.mesh
    V = fem.functionspace(mesh, ("Lagrange", 1))
    Q = fem.functionspace(mesh, ("DG", 0))
    density, crisp = fem.Function(Q, name="density"), fem.Function(Q, name="crisp")
    owned(density)[:], owned(crisp)[:] = design.result.rho, design.crisp
    functions = [density, crisp]
    x = ufl.SpatialCoordinate(mesh)
    for i, chi in enumerate(problem.correctors):
        potential = fem.Function(V, name=f"potential_{i}")
        potential.interpolate(fem.Expression(x[i] + chi, interpolation_points(V)))
        functions.append(potential)
    for field in functions:
        field.x.scatter_forward()
    with XDMFFile(mesh.comm, str(directory / "design.xdmf"), "w") as file:
        file.write_mesh(mesh)
        for field in functions:
            file.write_function(field)


def _write_voxels(path: Path, design: CellDesign) -> None:
    grid, state = design.cell, design.problem
    assert isinstance(grid, VoxelGrid)
    assert isinstance(state, VoxelState)
    fields = {"density": design.density, "crisp": design.labels}
    axes = [(np.arange(n) + 0.5) * h for n, h in zip(grid.shape, grid.voxel_size, strict=True)]
    positions = np.meshgrid(*axes, indexing="ij", sparse=True)
    for i, (chi, x) in enumerate(zip(state.correctors(), positions, strict=True)):
        fields[f"potential_{i}"] = chi + x
    with on_every_rank(grid.comm):
        if grid.comm.rank == 0:
            write_voxel_fields(path, fields, grid.voxel_size)


def write_design(
    directory: Path, design: CellDesign, goal: Goal, *, title: str = "", pictures: bool = True
) -> None:
    """All of a finished design: result.json last, so that its presence means completeness. Collective.

    Args:
        directory: made if it is not there.
        design, goal: what was designed and for what.
        title: above the pictures.
        pictures: whether to draw them.
    """
    comm = design.comm
    with on_every_rank(comm):
        if comm.rank == 0:
            directory.mkdir(parents=True, exist_ok=True)
    write_fields(directory, design)
    write_structure(directory, design.structure)
    flux = flux_image(design) if design.density is not None and pictures else None
    with on_every_rank(comm):
        if comm.rank == 0:
            write_history(directory / "history.csv", design.result.history)
            if design.labels is not None:
                size = design.cell.lengths / np.array(design.labels.shape)
                write_image(directory / "design.tif", Image(design.labels, tuple(float(h) for h in size)))
            if pictures:
                _write_pictures(directory, design, goal, flux, title)
            write_json(directory / "result.json", summary(design, goal))


def _write_pictures(directory: Path, design: CellDesign, goal: Goal, flux: Any, title: str) -> None:
    from fetopo import plot

    name, transform = shown_objective(goal)
    lengths = [float(a) for a in design.cell.lengths]
    try:
        plot.save_convergence(
            directory / "convergence.png",
            design.result.history,
            name=name,
            transform=transform,
            bound=design.bound,
        )
        if design.density is not None and design.labels is not None:
            plot.save_flux(directory / "flux.png", flux, lengths, title="mean gradient along x")
            plot.save_density(directory / "density.png", design.density, design.labels, lengths, title)
    except ImportError as error:
        _log.warning("no pictures: %s", error)


def shown_objective(goal: Goal) -> tuple[str, Any]:
    """Name of what a user follows, and how it comes from the objective."""
    if goal.kind == "target" or goal.value is not None:
        return "distance to the target", lambda J: math.sqrt(max(J, 0.0))
    if goal.kind == "function":
        return "objective", lambda J: J
    if goal.several:
        return "share of the bounds", lambda J: 1 / J
    return "effective conductivity", lambda J: 1 / J
