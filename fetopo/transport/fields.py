"""What constrictions do: local fields and fluxes beside their averages, and where energy is dissipated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import basix
import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fetopo._json import plain
from fetopo.figure import new_figure
from fetopo.microstructure.mesh import UnitCell, to_image
from fetopo.transport._distribution import Distribution, Spread
from fetopo.transport.homogenization import CellProblem, EffectiveConductivity
from fetopo.transport.tortuosity import Tortuosity

PERCENTILES = (1.0, 10.0, 50.0, 90.0, 95.0, 99.0, 99.9)
#: Cells whose points are evaluated at once.
_BLOCK = 2**15


@dataclass(frozen=True, eq=False)
class PhaseFields:
    """Local fields in one phase.

    Attributes:
        volume_fraction: of the box.
        dissipation: share of the whole dissipation.
        mean_field: mean of ∇u over the phase, over |E|, a vector of d numbers.
        field: distribution of the amplification |∇u|/|E|. Its mean square is f⁻¹ ∂(Ê·D Ê)/∂k, f the volume
            fraction, k the phase's conductivity, Ê = E/|E|.
        flux: distribution of the amplification |q|/|⟨q⟩|.
    """

    volume_fraction: float
    dissipation: float
    mean_field: npt.NDArray[np.float64]
    field: Distribution
    flux: Distribution


@dataclass(frozen=True, eq=False)
class LocalFields:
    """Result of :func:`local_fields`: fields u and fluxes q = κ∇u under a mean field E.

    Attributes:
        load: E, d numbers, in the unit of u over metres.
        mean_flux: ⟨q⟩ over the box.
        macroscopic_energy: E·⟨q⟩.
        local_energy: ⟨q·∇u⟩, the mean of the local dissipation; equal to the former (Hill and Mandel).
        hill_mandel_error: their difference over the latter.
        worst_volume: share of the volume that conducts which counts as worst.
        worst_dissipation: share of the dissipation in it.
        phases: for every phase that conducts, by name or tag.
        maps: cell means of "field" |∇u|/|E|, "flux" |q|/|⟨q⟩| and "dissipation" q·∇u/(E·⟨q⟩), functions that
            are constant in each cell.
        cell: what conducts, with the mesh of the maps.
    """

    load: npt.NDArray[np.float64]
    mean_flux: npt.NDArray[np.float64]
    macroscopic_energy: float
    local_energy: float
    hill_mandel_error: float
    worst_volume: float
    worst_dissipation: float
    phases: dict[int | str, PhaseFields]
    maps: dict[str, fem.Function]
    cell: UnitCell

    def image(self, name: str, fill: float = 0.0) -> npt.NDArray[np.float64]:
        """A map as voxel image, complete on every rank; `fill` where nothing conducts. Collective.

        Raises:
            ValueError: the mesh is not one of voxels, or no such map.
        """
        if name not in self.maps:
            raise ValueError(f"no map {name!r}; there are {', '.join(self.maps)}")
        return to_image(self.cell, self.maps[name].x.array, fill)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists for JSON, without the maps."""
        return {k: plain(v) for k, v in vars(self).items() if k not in ("maps", "cell")}

    def plot(self, ax: Any = None, quantity: str = "field") -> Any:
        """Draw the density of an amplification, "field" or "flux", for each phase; returns the axes."""
        if quantity not in ("field", "flux"):
            raise ValueError(f"quantity must be field or flux, found {quantity!r}")
        ax = new_figure().subplots() if ax is None else ax
        for name, phase in self.phases.items():
            found: Distribution = getattr(phase, quantity)
            ax.stairs(found.density[:-1], found.edges[:-1], label=f"{name}", baseline=None)
        ax.axvline(1.0, color="grey", linewidth=0.8)
        ax.set_yscale("log")
        ax.set_xlabel("|∇u| / |E| (-)" if quantity == "field" else "|q| / |⟨q⟩| (-)")
        ax.set_ylabel("density over the volume of the phase (-)")
        ax.legend(title="phase")
        return ax


def local_fields(
    result: EffectiveConductivity | CellProblem | Tortuosity,
    load: int | npt.ArrayLike = 0,
    *,
    percentiles: Sequence[float] = PERCENTILES,
    worst: float = 0.01,
    bins: int = 60,
) -> LocalFields:
    """Local fields of a solved cell problem or of a through-feature test. Collective.

    In a periodic cell ∇u = Σ Eᵢ(eᵢ + ∇χᵢ). Through a feature u is the concentration and E the drop over the
    length of the image; what does not connect the faces is not in the mesh, and no field is known there.

    Args:
        result: after its solve.
        load: for cells the axis of the mean field, or the field as d numbers; a through-feature result knows
            its own.
        percentiles: percents of the volume.
        worst: share of the volume that conducts which counts as worst.
        bins: classes of the histograms, from 0 to the 99.9th percentile.
    Raises:
        ValueError: a load that is not an axis or d numbers, zero or not finite; a result in which nothing
            flows or without its concentration; shares out of range.
    Source: Hill (1963), J. Mech. Phys. Solids 11, 357, doi:10.1016/0022-5096(63)90036-X; second moments from
    derivatives: Bergman (1978), Phys. Rep. 43, 377, doi:10.1016/0370-1573(78)90009-1.
    """
    options: dict[str, Any] = {"percentiles": percentiles, "worst": worst, "bins": bins}
    if isinstance(result, Tortuosity):
        if result.relative_diffusivity > 0 and result.solution is None:
            raise ValueError(
                "this result was made without its concentration: call tortuosity(…, solution=True)"
            )
        if result.solution is None or result.cell is None:
            raise ValueError(f"the phase does not connect the faces of axis {result.axis}: nothing flows")
        E: npt.NDArray[np.float64] = np.zeros(result.cell.dim)
        E[result.axis] = -1.0 / result.cell.lengths[result.axis]
        gradient = ufl.grad(result.solution)
        return field_statistics(result.cell, gradient, gradient, E, **options)
    problem = result.problem if isinstance(result, EffectiveConductivity) else result
    E = _load(load, problem.cell.dim)
    fields = problem.local_fields()
    weight = fem.Constant(problem.cell.mesh, E)  # numbers in the form would be compiled anew for each load
    gradient = sum((weight[i] * fields[i] for i in range(1, len(E))), weight[0] * fields[0])
    degree = 2 * problem.V.ufl_element().embedded_superdegree
    return field_statistics(problem.cell, gradient, problem.flux(gradient), E, degree=degree, **options)


def field_statistics(
    cell: UnitCell,
    gradient: Any,
    flux: Any,
    load: npt.ArrayLike,
    *,
    degree: int = 2,
    percentiles: Sequence[float] = PERCENTILES,
    worst: float = 0.01,
    bins: int = 60,
) -> LocalFields:
    """Statistics of any field and flux given as UFL, sampled at quadrature points. Collective.

    Args:
        cell: mesh, phases and box.
        gradient, flux: ∇u and q = κ∇u on the mesh, vectors of d components.
        load: the mean field E.
        degree: polynomial degree that the quadrature integrates exactly.
        percentiles, worst, bins: as :func:`local_fields`.
    Raises:
        ValueError: as :func:`local_fields`.
    """
    E = _load(load, cell.dim)
    if not 0 < worst < 1:
        raise ValueError(f"worst must lie between 0 and 1, found {worst}")
    if not all(0 <= p <= 100 for p in percentiles):
        raise ValueError(f"percentiles must lie between 0 and 100, found {list(percentiles)}")
    if bins < 1:
        raise ValueError(f"bins must be positive, found {bins}")
    comm = cell.mesh.comm
    samples = _Samples(cell, gradient, flux, degree)
    w, size = samples.weight, float(np.linalg.norm(E))
    q_mean = np.asarray(comm.allreduce(np.einsum("cp,cpi->i", w, samples.q))) / cell.volume
    density = np.einsum("cpi,cpi->cp", samples.q, samples.g)
    local = float(comm.allreduce(float(np.sum(w * density)))) / cell.volume
    squares = comm.allreduce(np.array([np.sum(w * np.sum(v**2, axis=2)) for v in (samples.q, samples.g)]))
    scale = float(np.sqrt(squares[0] / squares[1])) * size**2 if squares[1] > 0 else 0.0
    # Where nothing flows, round-off still does: measured by a typical conductivity it is nothing.
    if not local > 1e-12 * scale:
        raise ValueError(f"nothing flows: the mean flux under the load {E.tolist()} is {q_mean.tolist()}")
    macroscopic = float(E @ q_mean)

    values = {
        "field": np.linalg.norm(samples.g, axis=2) / size,
        "flux": np.linalg.norm(samples.q, axis=2) / float(np.linalg.norm(q_mean)),
        "dissipation": density / macroscopic,
    }
    edges: dict[str, npt.NDArray[np.float64]] = {}
    for name in ("field", "flux"):
        (top,) = Spread(comm, values[name].reshape(-1), w.reshape(-1)).quantiles([0.999])
        edges[name] = np.asarray(np.linspace(0.0, float(top) or 1.0, bins + 1), dtype=np.float64)
    names = {tag: name for name, tag in cell.phases.items()}
    phases: dict[int | str, PhaseFields] = {}
    for tag in cell.tags():
        here = samples.tags == tag
        volume = float(comm.allreduce(float(w[here].sum())))
        spread = {
            name: Spread(comm, values[name][here].reshape(-1), w[here].reshape(-1))
            for name in ("field", "flux")
        }
        phases[names.get(tag, tag)] = PhaseFields(
            volume / cell.volume,
            float(comm.allreduce(float(np.sum(w[here] * density[here])))) / (local * cell.volume),
            np.asarray(comm.allreduce(np.einsum("cp,cpi->i", w[here], samples.g[here]))) / (volume * size),
            spread["field"].distribution(percentiles, edges["field"]),
            spread["flux"].distribution(percentiles, edges["flux"]),
        )
    return LocalFields(
        E,
        q_mean,
        macroscopic,
        local,
        abs(macroscopic - local) / local,
        worst,
        Spread(comm, density.reshape(-1), w.reshape(-1)).share_of_largest(worst),
        phases,
        {name: _map(cell, name, v, w) for name, v in values.items()},
        cell,
    )


def _load(load: int | npt.ArrayLike, dim: int) -> npt.NDArray[np.float64]:
    if isinstance(load, int | np.integer):
        if not 0 <= load < dim:
            raise ValueError(f"load must be an axis from 0 to {dim - 1} or {dim} numbers, found {load}")
        return np.eye(dim)[load]
    E = np.asarray(load, dtype=float)
    if E.shape != (dim,) or not np.isfinite(E).all() or not E.any():
        raise ValueError(f"load must be an axis or {dim} numbers, not all zero, found {E.tolist()}")
    return E


class _Samples:
    """∇u and q at the quadrature points of the cells that a rank owns (cells, points, d); weights, tags."""

    def __init__(self, cell: UnitCell, gradient: Any, flux: Any, degree: int) -> None:
        mesh, d = cell.mesh, cell.dim
        owned = mesh.topology.index_map(mesh.topology.dim).size_local
        kind = basix.CellType[mesh.topology.cell_name()]
        points, weights = basix.make_quadrature(kind, degree)
        columns = [gradient[i] for i in range(d)] + [flux[i] for i in range(d)]
        columns.append(abs(ufl.JacobianDeterminant(mesh)))
        expression = fem.Expression(ufl.as_vector(columns), points)
        rows = np.empty((owned, len(weights), 2 * d + 1))
        for part in _blocks(owned):
            rows[part] = expression.eval(mesh, part).reshape(len(part), len(weights), 2 * d + 1)
        self.g, self.q, self.weight = rows[..., :d], rows[..., d : 2 * d], rows[..., -1] * weights
        self.tags = np.zeros(owned, dtype=np.int32)
        own = cell.cell_tags.indices < owned
        self.tags[cell.cell_tags.indices[own]] = cell.cell_tags.values[own]


def _blocks(count: int) -> Iterator[npt.NDArray[np.int32]]:
    for start in range(0, count, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, count), dtype=np.int32)


def _map(cell: UnitCell, name: str, values: npt.NDArray, weights: npt.NDArray) -> fem.Function:
    Q = fem.functionspace(cell.mesh, ("DG", 0))
    function = fem.Function(Q, name=name)
    dofs = Q.dofmap.list.reshape(-1)[: len(values)]
    function.x.array[dofs] = (values * weights).sum(axis=1) / weights.sum(axis=1)
    function.x.scatter_forward()
    return function
