"""Which linear solver a problem gets, and which ones are tried after it.

A ladder is a list of attempts, cheapest first. The first is what a solver starts with; when it stalls, the
next one takes over, says so in the log, and stays. docs/solvers.md has iteration counts of every one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from petsc4py import PETSc

#: Unknowns up to which factorising costs about as much as algebraic multigrid, by dimension.
DIRECT_BELOW = {1: 50_000, 2: 50_000, 3: 2_000}

#: Unknowns on a regular grid from which on its own multigrid costs less than factors, by dimension and
#: whether potentials are given on parts of faces, which takes twice the iterations.
GRID_FROM = {(2, False): 4_000, (2, True): 50_000, (3, False): 2_000, (3, True): 2_000}

#: What setting up algebraic multigrid costs, in iterations with it.
SETUP = 16


@dataclass(frozen=True)
class Attempt:
    """One way to solve a system.

    Attributes:
        name: how the log calls it.
        options: PETSc options, complete.
        pinned: whether the preconditioner is made from the matrix with one diagonal entry raised. That
            removes the null space of a singular matrix, and for a right-hand side without a part along the
            null space changes no solution.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    pinned: bool = False


def hypre_options(tdim: int) -> dict[str, Any]:
    """BoomerAMG with cheap coarse levels, for conduction of any contrast."""
    return {
        "pc_type": "hypre",
        "pc_hypre_type": "boomeramg",
        "pc_hypre_boomeramg_coarsen_type": "HMIS",
        "pc_hypre_boomeramg_interp_type": "ext+i",
        "pc_hypre_boomeramg_strong_threshold": 0.25 if tdim == 2 else 0.5,
        "pc_hypre_boomeramg_agg_nl": 1 if tdim == 3 else 0,
    }


def ladder(
    tdim: int, size: int, *, symmetric: bool = True, singular: bool = False, rtol: float = 1e-10
) -> list[Attempt]:
    """The attempts for a scalar problem of second order, cheapest first.

    Small problems start with a factorisation, large ones with algebraic multigrid: then multigrid with more
    sweeps and no aggressive coarsening, smoothed aggregation (symmetric problems), a factorisation. Every one
    is inside a Krylov method, so that the tolerance means the same for all.

    Args:
        tdim: dimension of the mesh.
        size: unknowns over all ranks.
        symmetric: whether the matrix is: conjugate gradients, else GMRES.
        singular: whether the constant (or another known vector) is in its null space.
        rtol: relative tolerance of the residual.
    """
    # GMRES beside conjugate gradients: it does not mind when round-off makes a definite system look
    # indefinite.
    gmres = {"ksp_type": "gmres", "ksp_gmres_restart": 60, "ksp_rtol": rtol}
    krylov = {"ksp_type": "cg", "ksp_rtol": rtol} if symmetric else gmres
    direct = Attempt(
        "a direct solver (MUMPS)",
        gmres
        | {
            "ksp_max_it": 50,
            "pc_type": "cholesky" if symmetric else "lu",
            "pc_factor_mat_solver_type": "mumps",
            # Room for pivots that were not foreseen, in percent.
            "mat_mumps_icntl_14": 80,
        },
        pinned=singular,
    )
    multigrid = krylov | {"ksp_max_it": 1000} | hypre_options(tdim)
    if singular:
        # The default on the coarsest level, elimination, divides by zero when a singular matrix
        # happens to be singular to the last bit.
        multigrid |= {"pc_hypre_boomeramg_relax_type_coarse": "symmetric-SOR/Jacobi"}
    strong = Attempt(
        "algebraic multigrid with more sweeps (hypre)",
        gmres
        | {"ksp_max_it": 1000}
        | hypre_options(tdim)
        | {
            "pc_hypre_boomeramg_agg_nl": 0,
            "pc_hypre_boomeramg_strong_threshold": 0.25,
            "pc_hypre_boomeramg_P_max": 6,
            "pc_hypre_boomeramg_relax_type_all": "symmetric-SOR/Jacobi" if symmetric else "SOR/Jacobi",
            "pc_hypre_boomeramg_grid_sweeps_all": 2,
        },
        pinned=singular,
    )
    aggregation = Attempt(
        "smoothed aggregation (GAMG)",
        krylov | {"ksp_max_it": 3000, "pc_type": "gamg", "pc_gamg_threshold": 0.02},
        pinned=singular,
    )
    between = [strong, aggregation] if symmetric else [strong]
    if size <= DIRECT_BELOW[tdim]:
        return [direct, *between]
    return [Attempt("algebraic multigrid (hypre)", multigrid), *between, direct]


def grid_attempt(tdim: int, size: int, contacts: bool, rtol: float = 1e-10) -> list[Attempt]:
    """The attempt that comes first on a regular grid, where it is large enough for it.

    Args:
        tdim, size: dimension and unknowns.
        contacts: whether potentials are given on parts of faces.
        rtol: relative tolerance of the residual.
    """
    if size < GRID_FROM[tdim, contacts]:
        return []
    options = {"ksp_type": "cg", "ksp_rtol": rtol, "ksp_max_it": 100, "pc_type": "python"}
    return [Attempt("multigrid on the regular grid", options)]


class Hierarchy:
    """How long a hierarchy of multigrid lasts for matrices that come after its own.

    It is renewed when a matrix takes more iterations than a matrix has cost so far on average, setting up
    (:data:`SETUP`) included. Iterations are the same on every rank, unlike times.
    """

    def __init__(self) -> None:
        self._cost, self._matrices, self._last = float(SETUP), 0, 0

    def solved(self, iterations: int) -> None:
        """Count the iterations of a right-hand side."""
        self._last += iterations

    def lasts(self) -> bool:
        """Whether it is kept for the next matrix."""
        if self._last == 0:
            # Set up, or not yet, but never used.
            return self._matrices > 0
        self._cost += self._last
        self._matrices += 1
        last, self._last = self._last, 0
        return last <= self._cost / self._matrices


def configure(ksp: Any, options: Mapping[str, Any], prefix: str) -> None:
    """Give a Krylov solver its options; what the command line says under the prefix wins."""
    ksp.setOptionsPrefix(prefix)
    database = PETSc.Options()
    added = [key for key in options if not database.hasName(prefix + key)]
    for key in added:
        database[prefix + key] = options[key]
    ksp.setFromOptions()
    factorises = ksp.getPC().getType() in ("lu", "cholesky")
    matrix = ksp.getOperators()[0]
    if factorises and matrix.assembled and options.get("pc_factor_mat_solver_type") == "mumps":
        # Options of MUMPS are read when the factor is made.
        ksp.setUp()
    for key in added:
        database.delValue(prefix + key)


def stalled(ksp: Any) -> str | None:
    """What went wrong in the last solve, or None."""
    reason = ksp.getConvergedReason()
    if reason >= 0:
        return None
    names = {v: k for k, v in vars(PETSc.KSP.ConvergedReason).items() if isinstance(v, int)}
    return (
        f"stopped after {ksp.getIterationNumber()} iterations without converging "
        f"({names.get(reason, reason)}, residual {ksp.getResidualNorm():.3g})"
    )
