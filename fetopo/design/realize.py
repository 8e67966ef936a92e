"""From grey to real: a mesh that follows the crisp structure, its guaranteed property, what it looks like.

The design's filtered density is smooth, and its level set at the design's volume is the interface that the
projection only sharpens: the mesh follows it (:func:`fetopo.microstructure.mesh.fitted_cell`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import fem
from dolfinx import mesh as dmesh

from fetopo._json import plain
from fetopo._mpi import get_logger, on_every_rank
from fetopo.design.model import CellModel
from fetopo.microstructure.descriptors import percolating_axes, pore_sizes
from fetopo.microstructure.mesh import FittedCell, UnitCell, fitted_cell, voxel_cell
from fetopo.transport.enclosure import enclose
from fetopo.transport.homogenization import effective_conductivity
from fetopo.transport.quadrature import measure
from fetopo.transport.state import global_sum, owned

Array = npt.NDArray[np.float64]

#: Names of the two materials in meshes and files.
NAMES = ("poor", "good")

#: Share of a phase that may be thinner than its smallest feature: corners of voxels always are.
THIN_SHARE = 0.02

#: Where the level set of the filtered density and the design differ in more of the volume than this, steps
#: after the filter matter (passive regions, say), and the mesh follows the density itself.
_DIFFERENT = 0.01

#: Voxels up to which a 3D mesh has cells of one voxel, and not of two.
_FINE = 16**3


@dataclass(frozen=True)
class PhaseShape:
    """What a material of the crisp structure looks like on the voxels of the design.

    Attributes:
        parts: connected parts in the periodic cell.
        islands: parts that do not percolate along any axis: closed inclusions.
        percolates: for each axis, whether the material is connected from cell to cell along it.
        smallest_feature: discs or balls of this diameter inside the material cover 98 % of it [m].
    """

    parts: int
    islands: int
    percolates: tuple[bool, ...]
    smallest_feature: float


@dataclass(frozen=True)
class Structure:
    """A crisp structure on its own mesh.

    Attributes:
        cell: the mesh, with phases "poor" and "good".
        kind: "fitted" (the mesh follows the interface), "voxels" where that was not possible, or "tagged":
            the cells of the design's own mesh.
        volume_fraction: of the better material on that mesh.
        tensor: best estimate of the effective tensor.
        lower_bound, upper_bound: guaranteed interval of the effective tensor of the meshed structure; no
            lower bound on cells that have no flux in exact balance.
        interface_area: length (2D) or area between the materials [m^(d−1)], of a fitted mesh.
        poor, good: what the materials look like; None where the design's cells are no grid.
    """

    cell: UnitCell
    kind: str
    volume_fraction: float
    tensor: Array
    lower_bound: Array | None
    upper_bound: Array
    interface_area: float | None
    poor: PhaseShape | None = None
    good: PhaseShape | None = None

    @property
    def comm(self) -> Any:
        return self.cell.mesh.comm

    def to_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON; lengths in metres."""
        return {
            "mesh": self.kind,
            "volume_fraction": self.volume_fraction,
            "effective_tensor": self.tensor,
            "lower_bound": self.lower_bound,
            "upper_bound": self.upper_bound,
            "interface_area": self.interface_area,
            "poor": None if self.poor is None else plain(self.poor),
            "good": None if self.good is None else plain(self.good),
        }


def realize(
    model: CellModel,
    m: Array,
    rho: Array,
    crisp: Array,
    conductivity: tuple[float, float],
    *,
    mesh_size: float | None = None,
    shapes: bool = True,
) -> Structure:
    """Mesh the crisp structure of a design and solve it again with its true conductivities. Collective.

    Args:
        model: model of the cell the design was made with.
        m, rho, crisp: design variables, densities and 0 or 1 of this rank's cells.
        conductivity: of the poorer and the better material; 0 is left out of the solution exactly.
        mesh_size: edge of the fitted mesh's lattice cubes [m]; default one voxel, two in 3D beyond 16³.
        shapes: whether to measure islands, percolation and smallest features.
    Returns:
        The structure. Where the design is crisp throughout a phase, or too fine for a fitted mesh, on voxels.
    Raises:
        RuntimeError: a linear solver did not converge.
    """
    labels = model.image(crisp)
    if labels is None:
        assert isinstance(model.cell, UnitCell)
        return _measured(*_tagged(model.cell, crisp), conductivity)
    field, fraction = interface_field(model, m, rho, crisp), model.fraction(rho)
    lengths = np.asarray(model.cell.lengths, dtype=float)
    sides = tuple(float(h) for h in lengths / labels.shape)
    if mesh_size is None and labels.ndim == 3 and labels.size <= _FINE:
        mesh_size = float(np.prod(sides)) ** (1 / 3)
    whole = labels.astype(np.uint8)
    try:
        cell: UnitCell = fitted_cell(
            model.comm, field, None, sides, volume_fraction=fraction, mesh_size=mesh_size, names=NAMES
        )
        made, kind = cell, "fitted"
    except (ValueError, RuntimeError) as error:
        get_logger(__name__, model.comm).warning("no fitted mesh, the voxels are meshed: %s", error)
        cell = voxel_cell(model.comm, whole, sides)
        made, kind = replace(cell, phases={NAMES[tag]: tag for tag in cell.tags()}), "voxels"
    structure = _measured(made, kind, conductivity)
    if not shapes or whole.min() == whole.max():
        return structure
    # One rank looks: the masks are small beside the meshes, and the others would repeat its work.
    found = None
    with on_every_rank(model.comm):
        if model.comm.rank == 0:
            found = [phase_shape(whole == label, sides) for label in (0, 1)]
    poor, good = model.comm.bcast(found)
    return replace(structure, poor=poor, good=good)


def solved_with(structure: Structure, conductivity: tuple[float, float]) -> Structure:
    """The same structure, solved with other conductivities of its materials. Collective."""
    return replace(
        _measured(structure.cell, structure.kind, conductivity), poor=structure.poor, good=structure.good
    )


def interface_field(model: CellModel, m: Array, rho: Array, crisp: Array) -> Array:
    """A field in [0, 1] on the grid whose level set at the design's volume is its interface. Collective.

    The density before the projection, where it gives the same structure; else the density itself.
    """
    comm = model.density.comm
    x = m
    for step in model.density.steps:
        if step is model.projection:
            break
        x = step.forward(x)
    # Threshold of the filtered density where the crisp structure has its volume.
    inside, outside = x[crisp > 0.5], x[crisp <= 0.5]
    low = min(comm.allgather(float(inside.min(initial=np.inf))))
    high = max(comm.allgather(float(outside.max(initial=-np.inf))))
    cut = 0.5 * (low + high)
    differs = model.fraction(((x >= cut) != (crisp > 0.5)).astype(float))
    image = model.image(np.clip(x if differs <= _DIFFERENT else rho, 0.0, 1.0))
    assert image is not None
    return image


def phase_shape(mask: npt.NDArray[np.bool_], sides: tuple[float, ...]) -> PhaseShape:
    """Parts, percolation and smallest feature of a material in a periodic cell."""
    winds: Any = percolating_axes(mask, periodic=True)
    return PhaseShape(
        len(winds),
        int((~winds.any(axis=1)).sum()),
        tuple(winds.any(axis=0).tolist()),
        pore_sizes(mask, sides, periodic=True).quantile(THIN_SHARE),
    )


def _tagged(cell: UnitCell, crisp: Array) -> tuple[UnitCell, str]:
    """The design's own mesh with the crisp structure as tags."""
    f = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
    owned(f)[:] = crisp
    f.x.scatter_forward()
    tags = np.rint(f.x.array[f.function_space.dofmap.list.reshape(-1)]).astype(np.int32)
    here = np.arange(tags.size, dtype=np.int32)
    tagged = replace(cell, cell_tags=dmesh.meshtags(cell.mesh, cell.dim, here, tags), phases={})
    return replace(tagged, phases={NAMES[tag]: tag for tag in tagged.tags()}), "tagged"


def _measured(cell: UnitCell, kind: str, conductivity: tuple[float, float]) -> Structure:
    """Property, volume fraction and interface of a mesh whose phases are named."""
    values = {name: conductivity[NAMES.index(name)] for name in cell.phases}
    best: Any
    lower: Any
    upper: Any
    if not any(values.values()):
        lower = upper = best = np.zeros((cell.dim, cell.dim))
    elif cell.grid is None and cell.mesh.topology.cell_name() in ("quadrilateral", "hexahedron"):
        best = upper = effective_conductivity(cell, values).tensor
        lower = None
    else:
        found = enclose(cell, values)
        lower, upper, best = found.lower_bound, found.upper_bound, found.best_estimate
    # Quantities per cell volume: a box of two micrometres has 1e-18 m³.
    inside = _indicator(cell)
    fraction = global_sum(fem.form(inside * measure(cell.mesh, 0, cell))) / cell.volume
    area: float | None = None
    if isinstance(cell, FittedCell) and cell.report is not None:
        area = cell.report.area
    return Structure(cell, kind, fraction, best, lower, upper, area)


def _indicator(cell: UnitCell) -> fem.Function:
    """1 in the better material, 0 elsewhere, as a DG0 function."""
    f = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
    good = cell.cell_tags.indices[cell.cell_tags.values == cell.phases.get(NAMES[1], -1)]
    f.x.array[f.function_space.dofmap.list.reshape(-1)[good]] = 1.0
    f.x.scatter_forward()
    return f
