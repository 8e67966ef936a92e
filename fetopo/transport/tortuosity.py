"""Through-feature transport of a voxel image: effective diffusivity and tortuosity factor, with guarantee.

Fixed concentrations on two opposite faces of the image, the other four (in 2D: two) closed or periodic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fetopo._mpi import get_logger
from fetopo.microstructure._voxels import voxel_sides
from fetopo.microstructure.connectivity import Connectivity
from fetopo.microstructure.image import Slab, connectivity
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport._through import on_mesh, on_voxels
from fetopo.transport.discretization import Discretization, choose, solver_obstacles
from fetopo.transport.interval import VOXEL_WEIGHT, between
from fetopo.transport.state import PetscOptions

Sides = Literal["no flux", "periodic"]
Method = Literal["interval", "finite volumes", "elements"]
METHODS: tuple[Method, ...] = ("interval", "finite volumes", "elements")


@dataclass(frozen=True)
class Tortuosity:
    """Transport through one phase along one axis.

    D₀ is the diffusivity (or conductivity) of the phase alone, D_eff that of the image.

    Attributes:
        axis: direction of transport (array axis).
        porosity: volume fraction ε of the phase, isolated regions included.
        percolating_fraction: share of the phase that connects the two faces; the rest is removed.
        isolated_voxels: voxels removed, in clusters that reach one of the two faces or none.
        relative_diffusivity: D_eff/D₀ by trilinear elements, one per voxel; by finite volumes where only
            these were asked for.
        lower_bound, upper_bound: hold D_eff/D₀ of the voxel geometry for certain. The upper one is that of
            the elements: their concentration is continuous, and the energy of the exact one is least. The
            lower one comes from the flux of finite volumes, which is in balance in every voxel, and whose
            complementary energy the exact flux makes least; what the solver left unbalanced is taken off.
            None where the method does not give it.
        best_estimate: a value between the bounds, (1−w) and w of the way in their logarithms with w = 0.44:
            where it tends to when voxels are split (docs/tortuosity.md). None without both bounds.
        finite_volumes: D_eff/D₀ that two-point finite volumes give, as PoreSpy, TauFactor and PuMA do: no
            bound by itself. None if they were not solved.
        tortuosity_factor: τ = ε D₀/D_eff with the total porosity; infinite if nothing percolates.
        bruggeman_exponent: α in D_eff/D₀ = ε^α; infinite if nothing percolates, None at ε = 1.
        slice_flux: mean flux through each layer of voxels along the axis, in units of D₀ Δc/L, by what
            `relative_diffusivity` is from.
        flux_imbalance: largest difference between two of them, relative to their mean.
        iterations: Krylov iterations.
        conventions: porosity, side conditions, where the potential is fixed, discretization, elements: what
            changes the number between codes.
        solution: concentration, 1 on the first face and 0 on the last, on the mesh of what percolates (None
            if nothing does, or it was not asked for).
        cell: that mesh.
    """

    axis: int
    porosity: float
    percolating_fraction: float
    isolated_voxels: int
    relative_diffusivity: float
    lower_bound: float | None
    upper_bound: float | None
    best_estimate: float | None
    finite_volumes: float | None
    tortuosity_factor: float
    bruggeman_exponent: float | None
    slice_flux: npt.NDArray[np.float64]
    flux_imbalance: float
    iterations: int
    conventions: Mapping[str, str] = field(default_factory=dict)
    solution: Any | None = None
    cell: UnitCell | None = None

    @property
    def percolating_porosity(self) -> float:
        """Volume fraction of what connects the two faces."""
        return self.porosity * self.percolating_fraction

    @property
    def transport_efficiency(self) -> float:
        """𝓑 = D_eff/D₀ = ε/τ = ε^α, of the best estimate where there is one.

        Source: Tjaden et al. (2016), Curr. Opin. Chem. Eng. 12, 44, doi:10.1016/j.coche.2016.02.006.
        """
        return self.relative_diffusivity if self.best_estimate is None else self.best_estimate

    def to_pybamm(
        self, electrode: str = "Negative electrode", phase: str = "electrolyte"
    ) -> dict[str, float]:
        """Parameters of PyBaMM that carry this result, from the transport efficiency.

        PyBaMM uses the exponent b in 𝓑 = ε^b, or with the option "transport efficiency" set to
        "tortuosity factor" the factor τ in 𝓑 = ε/τ; both are here and say the same, with the total porosity.

        Args:
            electrode: "Negative electrode", "Positive electrode" or "Separator".
            phase: "electrolyte" where the pores were measured, "electrode" where the solid was; then ε is the
                volume fraction of the solid, and "… porosity" is 1 − ε.
        Raises:
            ValueError: another name, or a phase that does not percolate.
        """
        if electrode not in ("Negative electrode", "Positive electrode", "Separator"):
            raise ValueError(
                f"electrode is {electrode!r}: expected Negative electrode, Positive electrode or Separator"
            )
        if phase not in ("electrolyte", "electrode"):
            raise ValueError(f"phase is {phase!r}: expected electrolyte or electrode")
        value = self.transport_efficiency
        if value == 0:
            raise ValueError(
                f"nothing percolates along axis {self.axis}: PyBaMM has no value for an infinite τ"
            )
        b = 1.0 if self.porosity == 1 else math.log(value) / math.log(self.porosity)
        return {
            f"{electrode} porosity": self.porosity if phase == "electrolyte" else 1 - self.porosity,
            f"{electrode} Bruggeman coefficient ({phase})": b,
            f"{electrode} tortuosity factor ({phase})": self.porosity / value,
        }


def tortuosity(
    comm: MPI.Intracomm,
    mask: npt.NDArray[np.bool_] | Slab,
    axes: Sequence[int] | None = None,
    *,
    voxel_size: float | Sequence[float] | None = None,
    sides: Sides = "no flux",
    method: Method = "interval",
    discretization: Discretization | None = None,
    solution: bool = False,
    petsc_options: PetscOptions | None = None,
) -> list[Tortuosity]:
    """Effective diffusivity of a phase along each axis, and an interval that holds it for certain.

    D_eff/D₀ = L²/|Y| ∫ |∇c|² dx with c = 1 at x = 0, c = 0 at x = L, on the part of the phase that connects
    the two faces through voxel faces.

    Args:
        comm: communicator to distribute the image over.
        mask: the phase, 2D or 3D: the same array on every rank, or the slab of this rank
            (`image.read_slabs(…).mask(phase)`), and then no rank holds the whole image.
        axes: array axes; default all.
        voxel_size: edge lengths, of which only the ratios matter here; default those of the slab, else 1.
        sides: "no flux" through the other faces, or "periodic": what leaves through one comes back through
            the one across, and paths over these faces count as connected.
        method: which scheme to solve: "elements" for the value and `upper_bound`, "finite volumes" for the
            value that PoreSpy and TauFactor give and `lower_bound`, "interval" for both.
        discretization: "voxel", without a mesh, or "mesh", by DOLFINx, which has the elements only. By
            default "voxel", but "mesh" where options of PETSc other than the tolerance are given; the log
            says so.
        solution: whether to keep the concentration of the elements, on a mesh.
        petsc_options: options of the Krylov solver, of which voxels take `ksp_rtol`; the defaults reach a
            relative residual of 1e-8 for elements, 1e-9 for finite volumes, 1e-6 for these alone.
    Returns:
        One result per axis. Where nothing percolates the diffusivity is 0, τ is infinite, and a warning is
        logged.
    Raises:
        ValueError: an image that is not 2D or 3D, a phase that is absent, an axis out of range, other sides,
            a method or discretization that does not exist or cannot do what is asked.
        RuntimeError: the solver did not converge.
    Source: conventions as in Cooper et al. (2016), SoftwareX 5, 203, doi:10.1016/j.softx.2016.09.002; bounds:
    Prager and Synge (1947), Q. Appl. Math. 5, 241, doi:10.1090/qam/25902.
    """
    if sides not in ("no flux", "periodic"):
        raise ValueError(f"sides is {sides!r}: expected 'no flux' or 'periodic'")
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: expected one of {', '.join(METHODS)}")
    if method == "finite volumes" and solution:
        raise ValueError("method is 'finite volumes', which has no concentration at nodes: use 'elements'")
    chosen = choose(comm, discretization, solver_obstacles(petsc_options))
    if method == "finite volumes" and chosen == "mesh":
        raise ValueError("method is 'finite volumes', which a mesh does not have: use discretization 'voxel'")
    if not isinstance(mask, Slab):
        mask = Slab.share(comm, np.asarray(mask, dtype=bool), 1.0 if voxel_size is None else voxel_size)
    elif voxel_size is not None:
        mask = Slab(comm, mask.values, voxel_sides(voxel_size, mask.dim), mask.bounds)
    count = mask.count()
    if count == 0:
        raise ValueError("the phase does not occur in the image")
    axes = range(mask.dim) if axes is None else list(axes)
    for axis in axes:
        if not 0 <= axis < mask.dim:
            raise ValueError(f"axis {axis} is out of range for a {mask.dim}D image")
    if sides == "no flux":
        parts = connectivity(mask, axes)
    else:
        around = [[a != axis for a in range(mask.dim)] for axis in axes]
        parts = [
            connectivity(mask, [axis], periodic=wrap)[0] for axis, wrap in zip(axes, around, strict=True)
        ]
    how = _How(sides, method, chosen, solution, dict(petsc_options or {}))
    return [_along(mask, part, count / mask.size, how) for part in parts]


@dataclass(frozen=True)
class _How:
    """What was asked for, checked."""

    sides: Sides
    method: Method
    discretization: Discretization
    solution: bool
    options: dict[str, Any]

    def conventions(self, dim: int) -> dict[str, str]:
        elements = f"{'trilinear' if dim == 3 else 'bilinear'}, one per voxel"
        volumes = "two-point finite volumes, one per voxel"
        return {
            "porosity": "total",
            "sides": self.sides,
            "potential": "at the face",
            "connectivity": "through voxel faces",
            "discretization": self.discretization,
            "elements": volumes if self.method == "finite volumes" else elements,
        }


def _along(mask: Slab, part: Connectivity, porosity: float, how: _How) -> Tortuosity:
    axis, method = part.axis, how.method
    log = get_logger(__name__, mask.comm)
    conventions = how.conventions(mask.dim)
    removed = part.one_face + part.isolated
    with_volumes = how.discretization == "voxel" and method != "elements"
    if not part.percolating:
        log.warning("the phase does not connect the faces of axis %d", axis)
        below = 0.0 if with_volumes else None
        above = None if method == "finite volumes" else 0.0
        best = 0.0 if below == above else None
        zero = np.zeros(mask.shape[axis])
        return Tortuosity(
            axis, porosity, 0.0, removed, 0.0, below, above, best, below, math.inf, math.inf, zero, 0.0, 0,
            conventions,
        )  # fmt: skip
    if removed:
        log.info("axis %d: %d voxels of isolated regions removed", axis, removed)
    phase = mask.like(part.through)
    periodic = [how.sides == "periodic" and a != axis for a in range(mask.dim)]
    if how.discretization == "mesh":
        found = on_mesh(phase, axis, periodic, how.solution, how.options)
    else:
        found = on_voxels(phase, axis, periodic, method, how.solution, how.options.get("ksp_rtol"))
    lower, upper = found.lower_bound, found.elements
    value = found.volumes if upper is None else upper
    assert value is not None
    best = None
    if lower is not None and upper is not None:
        # Where both are exact they meet, and round-off decides which is the larger.
        lower = min(lower, upper)
        best = float(between(lower, upper, VOXEL_WEIGHT))
    exponent = None if porosity == 1 else math.log(value) / math.log(porosity)
    return Tortuosity(
        axis, porosity, part.percolating_fraction, removed, value, lower, upper, best, found.volumes,
        porosity / value, exponent, found.layer_flux, found.imbalance, found.iterations, conventions,
        found.concentration, found.cell,
    )  # fmt: skip
