"""Effective diffusivity from how a body relaxes: its slowest decay, its time lag, its uptake curve.

A homogeneous sheet of thickness L has one apparent diffusivity D_a = D_eff/ε in all three. A porous sample
does not quite: dead ends and uneven pores store without carrying. Only the flux through it in the end is
D_eff itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import fem
from scipy.optimize import least_squares

from fetopo._mpi import get_logger
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.series import sheet_uptake
from fetopo.transport.state import LinearSolver, PetscOptions, owned
from fetopo.transport.timestep import TimeOptions
from fetopo.transport.transient import Fixed, TransientDiffusion


@dataclass(frozen=True)
class Decay:
    """Slowest decay of a body: `rate` λ in 1/s, its `mode`, and the `iterations` of inverse iteration."""

    rate: float
    mode: fem.Function
    iterations: int


def slowest_decay(
    problem: TransientDiffusion, *, tolerance: float = 1e-10, max_iterations: int = 200
) -> Decay:
    """The slowest decay exp(−λt) towards the fixed concentrations, K φ = λ M φ, by inverse iteration.

    The Rayleigh quotient converges with the square of λ₁/λ₂ per iteration.

    Args:
        problem: with a `Fixed` condition on every isolated part of its body; values play no role.
        tolerance: relative change of λ at which to stop.
        max_iterations: after which to give up.
    Raises:
        ValueError: no fixed concentration: the slowest rate is 0.
        RuntimeError: no convergence.
    """
    if not problem.solver.bcs:
        raise ValueError("without a fixed concentration nothing decays: the problem has no Fixed condition")
    solver = LinearSolver(problem.stiffness, problem.solver.bcs)
    solver.assemble()
    mode = fem.Function(problem.V, name="mode")
    M, K, free = problem.M, problem.K, problem.free
    x, y = M.createVecs()
    owned(mode)[:] = free
    b = fem.Function(problem.V).x
    rate = np.inf
    for iteration in range(1, max_iterations + 1):
        x.array[:] = owned(mode)
        norm = np.sqrt(_product(M, x, y))
        owned(mode)[:] /= norm
        x.scale(1 / norm)
        M.mult(x, y)
        owned(b)[:] = y.array * free
        if np.isfinite(rate):
            mode.x.array[:] /= rate
        solver.solve(b, mode)
        x.array[:] = owned(mode)
        before, rate = rate, _product(K, x, y) / _product(M, x, y)
        if abs(rate - before) <= tolerance * rate:
            return Decay(rate, mode, iteration)
    raise RuntimeError(f"the slowest decay did not settle within {max_iterations} iterations (λ = {rate:g})")


def _product(A: Any, x: Any, y: Any) -> float:
    A.mult(x, y)
    return float(x.dot(y))


def decay_diffusivity(
    cell: UnitCell,
    diffusivity: Any,
    axis: int = 0,
    *,
    degree: int = 1,
    petsc_options: PetscOptions | None = None,
) -> float:
    """D_eff = ε λ L²/π² from the slowest decay between two faces kept at zero.

    Exact (up to the mesh) for a straight pore; for a porous sample see the head of this module.

    Args:
        cell: mesh of what connects the faces; ε is its share of the box.
        diffusivity: in the phase, as for TransientDiffusion.
        axis: direction between the faces.
        degree, petsc_options: as there.
    Returns:
        D_eff in m²/s.
    """
    problem = _between_faces(cell, diffusivity, axis, degree, petsc_options)
    length = float(cell.lengths[axis])
    return problem.volume / cell.volume * slowest_decay(problem).rate * (length / np.pi) ** 2


@dataclass(frozen=True)
class Breakthrough:
    """Result of :func:`breakthrough`.

    Attributes:
        diffusivity: D_eff from the flux at the end, m²/s.
        time_lag: L₀ = ∫ (1 − J(t)/J∞) dt at the outlet, s.
        lag_diffusivity: ε L²/(6 L₀): D_eff if the sample were homogeneous.
        porosity: ε, share of the mesh in the box.
        times, through: curve of the amount that came through the outlet, in s and amount (surface × m · c).
        problem: the transient problem, steady at its end.
    """

    diffusivity: float
    time_lag: float
    lag_diffusivity: float
    porosity: float
    times: npt.NDArray[np.float64]
    through: npt.NDArray[np.float64]
    problem: TransientDiffusion


def breakthrough(
    cell: UnitCell,
    diffusivity: Any,
    axis: int = 0,
    *,
    options: TimeOptions | None = None,
    steady: float = 1e-6,
    degree: int = 1,
    petsc_options: PetscOptions | None = None,
) -> Breakthrough:
    """Fill an empty sample from one face, the other kept at zero, until as much comes out as goes in.

    Whatever the geometry, the time lag obeys J∞ L₀ = ∫ u(1 − u) dx with the steady concentration u.

    Args:
        cell: mesh of what connects the faces.
        diffusivity: as for TransientDiffusion.
        axis: direction between the faces.
        options: steps in time.
        steady: stop where inflow and outflow agree to this, relatively.
        degree, petsc_options: as for TransientDiffusion.
    Raises:
        RuntimeError: nothing comes through, or no steady state in a hundred slowest decay times.
    Source: Daynes (1920), Proc. R. Soc. A 97, 286, doi:10.1098/rspa.1920.0034; Frisch (1957), J. Phys. Chem.
    61, 93, doi:10.1021/j150547a018.
    """
    problem = _between_faces(cell, diffusivity, axis, degree, petsc_options, inlet=1.0)
    length, comm = float(cell.lengths[axis]), cell.mesh.comm
    slow = 1 / slowest_decay(problem).rate
    start = owned(problem.c).copy()
    for _ in range(100):
        record = problem.run(problem.time + 2 * slow, options=options)[-1]
        inward, outward = record.rate[0], -record.rate[1]
        if inward > 0 and abs(inward - outward) <= steady * inward:
            break
    else:
        raise RuntimeError(f"no steady flow after {problem.time:g} s: {inward:g} in, {outward:g} out")
    times = np.array([0.0, *(s.time for s in problem.history)])
    through = np.cumsum([0.0, *(-s.inflow[1] for s in problem.history)])
    # The elements at the inlet are not quite empty at the start; what they hold comes through as its share 1
    # − u.
    x, y = problem.M.createVecs()
    x.array[:] = 1 - owned(problem.c)
    problem.M.mult(x, y)
    share = comm.allreduce(float(start @ y.array))
    lag = float(times[-1] - (through[-1] - share) / outward)
    porosity, area = problem.volume / cell.volume, cell.volume / length
    get_logger(__name__, comm).info("steady after %g s, time lag %g s", problem.time, lag)
    return Breakthrough(
        outward * length / area, lag, porosity * length**2 / (6 * lag), porosity, times, through, problem
    )


def _between_faces(
    cell: UnitCell, diffusivity: Any, axis: int, degree: int, options: PetscOptions | None, inlet: float = 0.0
) -> TransientDiffusion:
    if not 0 <= axis < cell.dim:
        raise ValueError(f"axis {axis} is out of range for a {cell.dim}D cell")
    close = 1e-9 * float(cell.lengths[axis])

    def face(at: float) -> Callable[[npt.NDArray], npt.NDArray]:
        return lambda x: np.abs(x[axis] - at) < close

    ends = [Fixed(inlet, face(float(cell.lower[axis]))), Fixed(0.0, face(float(cell.upper[axis])))]
    return TransientDiffusion(cell, diffusivity, ends, degree=degree, petsc_options=options)


def fit_uptake(
    times: Sequence[float] | npt.NDArray[np.float64],
    uptake: Sequence[float] | npt.NDArray[np.float64],
    size: float,
    series: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] = sheet_uptake,
) -> tuple[float, float]:
    """Apparent diffusivity whose series comes closest to an uptake (or release) curve, by least squares.

    Args:
        times: s.
        uptake: M(t)/M∞.
        size: half thickness (both faces open), thickness (one face) or radius a, m.
        series: M/M∞ as a function of Dt/a²: `sheet_uptake`, `cylinder_uptake` or `sphere_uptake`.
    Returns:
        D in m²/s, and the root mean square of what the fit leaves over: whether the curve has this shape.
    Raises:
        ValueError: lengths that differ, values outside [0, 1] by more than 5 %, no positive time, a size not
            positive.
    """
    t, m = np.asarray(times, dtype=float), np.asarray(uptake, dtype=float)
    if t.ndim != 1 or t.shape != m.shape or t.size < 2:
        raise ValueError(f"at least 2 times with one uptake each are needed, found {t.shape} and {m.shape}")
    if not (np.isfinite(m).all() and m.min() > -0.05 and m.max() < 1.05):
        raise ValueError(f"uptake must lie between 0 and 1, found {m.min():g} to {m.max():g}")
    if not (np.isfinite(t).all() and t.min() >= 0 and t.max() > 0):
        raise ValueError(f"times must not be negative, found {t.min():g} to {t.max():g}")
    if not (np.isfinite(size) and size > 0):
        raise ValueError(f"the size must be positive, found {size}")
    half = t[np.argmin(np.abs(m - 0.5))] or t[t > 0].min()
    guess = np.log(0.2 * size**2 / half)
    found = least_squares(
        lambda p: series(np.exp(np.clip(p[0], guess - 40, guess + 40)) * t / size**2) - m, [guess],
        xtol=1e-12, ftol=1e-14, gtol=1e-14,
    )  # fmt: skip
    return float(np.exp(found.x[0])), float(np.sqrt(np.mean(found.fun**2)))
