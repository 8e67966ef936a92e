"""How good can any design be: certified lower bounds of convex functionals of a density.

Without a penalty, conductivity linear in ρ, the thermal compliance

    c(ρ) = max over u of 2 l(u) − ∫ κ(ρ) |∇u|² dx − ∫ h u² ds

is the largest of functions linear in ρ, hence convex. Any temperature u at all gives such a function, and
its least value over 0 ≤ ρ ≤ 1 with ∫ ρ ≤ V, a knapsack over the cells, is a bound that no design falls
below. The relaxed problem is solved for a u whose bound is close to the best there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from mpi4py import MPI

from fetopo._mpi import get_logger, require
from fetopo.design.adjoint import Functional
from fetopo.transport.state import LinearState, assemble_dual, global_sum, owned

Array = npt.NDArray[np.float64]

#: Exponent of the optimality criteria: ½ never increases the objective, more is faster where it works.
_FAST, _SAFE = 0.8, 0.5
#: Exponent by which the share of a load case follows its part in the sum.
_FOLLOW = 1.0


class Energy:
    """E(ρ) = max over u of 2 l(u) − a(ρ; u, u) of a symmetric state problem a(u, v) = l(v), linear in ρ.

    With homogeneous Dirichlet values it is the compliance l(u). The value at a u that is solved
    inexactly is below the maximum, so that bounds made from it hold for any u.

    Args:
        state: the state problem, whose form is affine in `rho`.
        rho: the density.
    Raises:
        ValueError: a form that is not affine in the density.
    """

    def __init__(self, state: LinearState, rho: fem.Function) -> None:
        self.states, self.rho, self.comm = (state,), rho, rho.function_space.mesh.comm
        second = ufl.derivative(ufl.derivative(state.F, rho), rho)
        if ufl.algorithms.expand_derivatives(second).integrals():
            raise ValueError("a certificate needs a state problem that is linear in the density: no penalty")
        zero = ufl.replace(state.F, {state.u: ufl.zero(*state.u.ufl_shape)})
        (v,) = state.F.arguments()
        energy = -ufl.replace(state.F + zero, {v: state.u})
        self._value, self._derivative = fem.form(energy), fem.form(ufl.derivative(energy, rho))

    def value(self) -> float:
        """2 l(u) − a(u, u) at the present u and density."""
        return global_sum(self._value)

    def derivative(self) -> Array:
        """∂E/∂ρ as a dual vector; u is stationary."""
        return owned(assemble_dual(self._derivative)).copy()


@dataclass(frozen=True)
class Certificate:
    """What no design with this volume can beat.

    Attributes:
        bound: certified lower bound of the objective.
        relaxed: objective of the relaxed design, which nothing on this mesh need exceed; the best possible
            relaxed objective lies between the two.
        density: the relaxed design, one value per owned cell.
        weights: shares of the load cases for which the bound was found.
        iterations: of the relaxed problem.
        history: (bound, relaxed) after every iteration, each the best so far.
        continuum: whether the bound holds for every structure of the domain, however fine, or only for
            densities constant in each cell; None where nothing is known.
    """

    bound: float
    relaxed: float
    density: Array
    weights: Array
    iterations: int
    history: list[tuple[float, float]]
    continuum: bool | None
    _linear: tuple[float, Array] = field(repr=False)
    _volumes: Array = field(repr=False)
    _comm: MPI.Comm = field(repr=False)

    @property
    def relaxed_gap(self) -> float:
        """By how much the bound may fall short of the best one, relative to it."""
        return (self.relaxed - self.bound) / abs(self.bound)

    def gap(self, objective: float) -> float:
        """objective/bound − 1: by no more than this is a design worse than the best one."""
        return (objective - self.bound) / abs(self.bound)

    def bound_at(self, volume_fraction: float) -> float:
        """The bound for another volume, from the same temperature: sharp near the volume it was made for.

        For a structure whose volume is not quite the one asked for. Collective.
        """
        constant, gradient = self._linear
        total = float(self._comm.allreduce(float(self._volumes.sum())))
        least = linear_minimum(gradient, self._volumes, volume_fraction * total, self._comm)
        return constant + least


def linear_minimum(
    gradient: Array,
    volumes: Array,
    budget: float,
    comm: MPI.Comm,
    limits: tuple[Any, Any] = (0.0, 1.0),
) -> float:
    """Least value of g·ρ over lower ≤ ρ ≤ upper with Σ vρ ≤ V.

    By duality it is the largest of Σ min over ρ of (g + μv)ρ, less μV, over μ ≥ 0. What is returned is such a
    value, and so not above the minimum, whatever the accuracy of μ.

    Args:
        gradient: g of this rank's cells.
        volumes: v.
        budget: V, over all ranks.
        comm: communicator.
        limits: lower and upper limits of ρ, numbers or arrays.
    """
    lower, upper = (np.broadcast_to(np.asarray(limit, dtype=float), volumes.shape) for limit in limits)
    worth = -gradient / volumes

    def fits(mu: Array) -> npt.NDArray[np.bool_]:
        return _sums(comm, [np.where(worth > t, upper, lower) @ volumes for t in mu]) <= budget

    top = float(comm.allreduce(float(worth.max(initial=-np.inf)), op=MPI.MAX))
    # Accuracy of μ is not what the bound hangs on.
    high = _first(fits, np.linspace, 0.0, max(0.0, top))
    cost = gradient + high * volumes
    return float(comm.allreduce(float(np.minimum(cost * lower, cost * upper).sum()))) - high * budget


def certify(
    energies: Sequence[Functional],
    density: fem.Function,
    volumes: Array,
    volume_fraction: float,
    *,
    weights: Sequence[float] | None = None,
    offset: float = 1e-3,
    limits: tuple[Any, Any] = (0.0, 1.0),
    tolerance: float = 1e-3,
    max_iterations: int = 300,
    continuum: bool | None = None,
) -> Certificate:
    """Bound Σ wᵢEᵢ(ρ), or without weights the largest Eᵢ(ρ), over 0 ≤ ρ ≤ 1, mean ρ ≤ `volume_fraction`.

    The relaxed problem is solved by optimality criteria; each iterate gives the bound
    E(ρₖ) + min over ρ of E′(ρₖ)·(ρ − ρₖ), exact up to round-off, and the best is kept.

    Args:
        energies: functionals convex in the density that do not increase with it, e.g. :class:`Energy`.
        density: what they depend on; holds the relaxed design afterwards.
        volumes: volumes of this rank's cells.
        volume_fraction: most that may be used.
        weights: positive, one for each energy.
        offset: conductivity at ρ = 0 over the difference between the two conductivities.
        limits: lower and upper limits of ρ per cell, where a part of the domain is given.
        tolerance: relative gap between bound and relaxed objective that ends the iteration.
        max_iterations: most iterations; the bound holds wherever it stops.
        continuum: for :attr:`Certificate.continuum`.
    Raises:
        ValueError: a volume fraction outside (0, 1], weights that are not positive or too few.
    """
    comm = energies[0].comm
    if not 0 < volume_fraction <= 1:
        raise ValueError(f"the volume fraction must lie in (0, 1], found {volume_fraction}")
    if weights is not None and (len(weights) != len(energies) or not all(0 < w < np.inf for w in weights)):
        raise ValueError(f"{len(energies)} positive weights are needed, found {list(weights)}")
    worst = weights is None
    share = np.full(len(energies), 1 / len(energies)) if weights is None else np.array(weights, dtype=float)
    budget = volume_fraction * float(comm.allreduce(float(volumes.sum())))
    lower, upper = (np.broadcast_to(np.asarray(x, dtype=float), volumes.shape) for x in limits)
    least = float(comm.allreduce(float(lower @ volumes)))
    require(comm, bool((lower <= upper).all()), "a lower limit of the density is above its upper limit")
    require(comm, least <= budget, f"the given parts alone take the volume {least}, more than {budget}")
    log = get_logger(__name__, comm)
    rho = _share_out(np.ones(volumes.size), volumes, budget, (lower, upper), offset, comm)
    best, relaxed, previous, exponent = -np.inf, np.inf, np.inf, _FAST
    kept, linear, shares = rho, (0.0, rho), share
    history: list[tuple[float, float]] = []
    for _ in range(max_iterations):
        owned(density)[:] = rho
        density.x.scatter_forward()
        for state in {id(s): s for e in energies for s in e.states}.values():
            state.solve()
        values = np.array([e.value() for e in energies])
        gradient = share @ np.array([e.derivative() for e in energies])
        value = float(share @ values)
        constant = value - float(comm.allreduce(float(gradient @ rho)))
        bound = constant + linear_minimum(gradient, volumes, budget, comm, (lower, upper))
        if bound > best:
            best, linear, shares = bound, (constant, gradient), share.copy()
        reached = float(values.max()) if worst else value
        if reached < relaxed:
            relaxed, kept = reached, rho
        history.append((best, relaxed))
        if relaxed - best <= tolerance * abs(best):
            break
        if worst and len(energies) > 1:
            share = share * (values / value) ** _FOLLOW
            share /= share.sum()
        elif value > previous:
            exponent = _SAFE
        previous = value
        # What a cell is worth rises with the square of the gradient there; at the optimum every cell that
        # is neither empty nor full is worth the same.
        factor = np.maximum(-gradient / volumes, 0.0) ** exponent
        rho = _share_out((rho + offset) * factor, volumes, budget, (lower, upper), offset, comm)
    else:
        log.warning("the relaxed problem stopped with a gap of %.2g", (relaxed - best) / abs(best))
    return Certificate(best, relaxed, kept, shares, len(history), history, continuum, linear, volumes, comm)


def _share_out(
    wanted: Array, volumes: Array, budget: float, limits: tuple[Array, Array], offset: float, comm: MPI.Comm
) -> Array:
    """ρ = clip(s·wanted − offset) with the largest s that keeps to the budget."""

    def design(s: float) -> Array:
        return np.clip(s * wanted - offset, *limits)

    def exceeds(s: Array) -> npt.NDArray[np.bool_]:
        return _sums(comm, [design(t) @ volumes for t in s]) > budget

    top = float(comm.allreduce(float(wanted.max(initial=0.0)), op=MPI.MAX))
    bottom = float(comm.allreduce(float(wanted[wanted > 0].min(initial=np.inf)), op=MPI.MIN))
    full = (1.0 + offset) / bottom
    if not exceeds(np.array([full]))[0]:
        return design(full)
    # Empty at the first of these and too much at the last; less the width of the search it fits.
    return design(_first(exceeds, np.geomspace, max(offset, 1e-12) / top, full) * (1 - 1e-9))


def _sums(comm: MPI.Comm, values: Sequence[Any]) -> Array:
    mine = np.array(values, dtype=float)
    total = np.empty_like(mine)
    comm.Allreduce(mine, total)
    return total


def _first(
    holds: Callable[[Array], npt.NDArray[np.bool_]], spaced: Callable[..., Array], low: float, high: float
) -> float:
    """Smallest value in [low, high] from which on a condition holds, as it does at `high`. Collective.

    Several values are tried in each round: a message takes as long for one number as for all.
    """
    if holds(np.array([low]))[0]:
        return low
    for _ in range(11):
        tried = spaced(low, high, 17)
        index = int(np.argmax([*holds(tried[1:-1]), True])) + 1
        low, high = float(tried[index - 1]), float(tried[index])
    return high
