"""Area of the interface between the phases, as a functional of the density."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from mpi4py import MPI

from fetopo.design.cellwise import GridGradient, NodalField
from fetopo.design.density import DensityMap
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.quadrature import measure
from fetopo.transport.state import assemble_dual, global_sum, owned
from fetopo.transport.voxel import VoxelGrid

Array = npt.NDArray[np.float64]

#: Slope of the density, relative to one over the size of a cell, below which there is no interface.
SMOOTHING = 0.01


def cell_size(volumes: Array, comm: MPI.Comm, dim: int) -> float:
    """Edge of a cube or square of the mean volume. Collective."""
    total, count = comm.allreduce(np.array([float(volumes.sum()), float(volumes.size)]))
    return float((total / count) ** (1 / dim))


class InterfaceArea:
    """Interface between the phases per volume of the box (in 2D length per area), in one over its unit.

    S = 1/|Y| ∫ √(|∇ρ|² + s²) − s dx, the total variation of the density; grey counts as far as it varies.

    On a mesh ∇ρ is that of the continuous field through the means at the nodes, on voxels that at their
    corners. A straight interface counts with its length at any angle; details of one or two cells count too
    little, which a filter leaves out of the design.

    Args:
        density: the density.
        cell: cell, grid of voxels, or a mesh that is not periodic.
        volumes: volumes of this rank's cells.
        volume: |Y|; default the sum of the volumes.
    Source: Haber, Jog and Bendsøe (1996), Struct. Optim. 11, 1, doi:10.1007/BF01279647.
    """

    states = ()

    def __init__(
        self,
        density: DensityMap,
        cell: UnitCell | VoxelGrid | Any,
        volumes: Array,
        volume: float | None = None,
    ) -> None:
        self.density, self.comm, self.rho = density, density.comm, density.rho
        dim = cell.topology.dim if hasattr(cell, "topology") else cell.dim
        total = float(self.comm.allreduce(float(volumes.sum()))) if volume is None else float(volume)
        self._smoothing = SMOOTHING / cell_size(volumes, self.comm, dim)
        self._share = 1 / total
        if isinstance(cell, VoxelGrid):
            self._gradient = GridGradient(cell)
            self._share *= float(np.prod(cell.voxel_size))
            self._grid: VoxelGrid | None = cell
            return
        self._grid = None
        box = cell if isinstance(cell, UnitCell) else None
        mesh = cell if box is None else box.mesh
        self._nodal = NodalField(mesh, box)
        rho = self._nodal.field
        s = fem.Constant(mesh, self._smoothing)
        slope = ufl.sqrt(ufl.inner(ufl.grad(rho), ufl.grad(rho)) + s**2) - s
        J = slope * measure(mesh, 2, box)
        self._value = fem.form(J)
        self._derivative = fem.form(ufl.derivative(J, rho))

    def _slopes(self) -> tuple[list[Array], Array]:
        parts = self._gradient.corners(self.density.values)
        return parts, np.sqrt(sum(part**2 for part in parts) + self._smoothing**2)

    def value(self) -> float:
        """S at the present density. Collective."""
        if self._grid is not None:
            _, slope = self._slopes()
            return float(self._grid.sum(float(np.sum(slope - self._smoothing)))) * self._share
        self._nodal.forward(self.density.values)
        return global_sum(self._value) * self._share

    def derivative(self) -> Array:
        """dS/dρ as a dual vector over owned cells. Collective."""
        if self._grid is not None:
            parts, slope = self._slopes()
            dual = self._gradient.corners_transposed([part / slope * self._share for part in parts])
            return dual.reshape(-1)
        self._nodal.forward(self.density.values)
        return self._nodal.vjp(owned(assemble_dual(self._derivative))) * self._share
