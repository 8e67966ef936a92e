"""A design iteration of heat conduction on a mesh, part by part, beside plain DOLFINx and pyMOTO.

    docker/run python3 benchmarks/design_iteration.py                  256², 32³ and 64³; about six minutes
    docker/run python3 benchmarks/design_iteration.py --grids 32,32,32 --codes fetopo plain-gamg

The problem of voxel_heat: heat everywhere, cooled on the face x = 0, least thermal compliance, densities
filtered over 2 voxels, κ = κ₀ + (1 − κ₀) ρ̃³. CPU seconds of one rank, the median of the iterations after the
second. Every code takes the same steps of optimality criteria, which are not counted; a step of MMA is timed
beside them. Krylov tolerance 1e-5 everywhere, for the filter too.

- fetopo: multigrid of the grid, warm starts. "algebraic" is the same without the grid, as on any mesh.
- plain: LinearProblem's steps with DOLFINx's flags, conjugate gradients with hypre's or GAMG's defaults;
  forms, matrices and solvers anew in every iteration, for the filter too (where LinearProblem's default, LU,
  would take minutes and gigabytes in 3D).
- pyMOTO: its example's chain; only the whole is known. `fetopo voxels` has no mesh.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from typing import Any

import numpy as np
from voxel_heat import LEAST, RADIUS, RTOL, VOLUME, optimality_criteria
from voxel_processes import head, row, run

PARTS = ("assembly", "set-up", "solve", "filter", "sensitivity", "optimizer")
CODES = ("fetopo", "algebraic", "plain-hypre", "plain-gamg", "pymoto", "voxels")


class Clock:
    """CPU seconds by part of every iteration."""

    def __init__(self) -> None:
        self.now: dict[str, float] = defaultdict(float)
        self.past: list[dict[str, float]] = []
        self.last = 0.0

    def start(self) -> None:
        self.now.clear()
        self.last = time.process_time()

    def __call__(self, part: str) -> None:
        """What has passed since the last call belongs to `part`."""
        now = time.process_time()
        self.now[part] += now - self.last
        self.last = now

    def stop(self) -> None:
        self.past.append({part: self.now[part] for part in PARTS})


def optimize(analyse: Any, clock: Clock, count: int, iterations: int) -> dict[str, Any]:
    """Steps of optimality criteria; the same step by MMA is timed only."""
    from mpi4py import MPI

    from fetopo.design.mma import MMA

    mma = MMA(MPI.COMM_SELF, np.zeros(count), np.ones(count))
    x, values = np.full(count, VOLUME), []
    for _ in range(iterations):
        clock.start()
        value, slope = analyse(x)
        mma.step(x, slope / abs(value), np.array([x.mean() / VOLUME - 1]), np.full((1, count), 1 / x.sum()))
        clock("optimizer")
        clock.stop()
        values.append(value)
        x = optimality_criteria(x, slope, VOLUME)
    return {"parts": clock.past, "values": values}


def heated(shape: list[int]) -> tuple[Any, Any, Any, Any, Any]:
    """Cell with voxels of edge 1, density, unknown, cooled nodes' condition and heat per volume."""
    from dolfinx import fem
    from mpi4py import MPI

    from fetopo.microstructure.mesh import regular_cell

    cell = regular_cell(MPI.COMM_SELF, shape, lengths=shape)
    V = fem.functionspace(cell.mesh, ("Lagrange", 1))
    cooled = fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], 0))
    rho = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
    heat = fem.Constant(cell.mesh, 1.0 / shape[0] ** 2)
    return cell, rho, fem.Function(V), fem.dirichletbc(0.0, cooled, V), heat


def fetopo(shape: list[int], iterations: int, on_grid: bool = True) -> dict[str, Any]:
    """State, functional and filter of the package."""
    import ufl

    from fetopo.design.adjoint import FormFunctional
    from fetopo.design.density import FILTER_OPTIONS, HelmholtzFilter
    from fetopo.transport.quadrature import measure
    from fetopo.transport.state import LinearState, owned

    cell, rho, u, bc, heat = heated(shape)
    v = ufl.TestFunction(u.function_space)
    kappa = LEAST + (1 - LEAST) * rho**3
    F = kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * measure(cell.mesh, 2, cell)
    F -= heat * v * measure(cell.mesh, 1, cell)
    state = LinearState(F, u, [bc], {"ksp_rtol": RTOL}, cell if on_grid else None)
    compliance = FormFunctional(heat * u * measure(cell.mesh, 1, cell), rho, state)
    density = HelmholtzFilter(cell.mesh, RADIUS, petsc_options=FILTER_OPTIONS | {"ksp_rtol": RTOL})
    clock = Clock()
    assemble, solve = state.solver.assemble, state.solver.solve

    # The solver's own assembly also makes the hierarchy: what is left of it is set-up.
    def prepared() -> None:
        matrix = state.solver._matrix
        plain, matrix.assemble = matrix.assemble, lambda: (clock("solve"), plain(), clock("assembly"))
        try:
            assemble()
        finally:
            matrix.assemble = plain
        state.solver.ksp.setUp()
        clock("set-up")

    def solved(*arguments: Any, **more: Any) -> int:
        found = solve(*arguments, **more)
        clock("solve")
        return int(found)

    state.solver.assemble, state.solver.solve = prepared, solved  # type: ignore[method-assign]

    def analyse(x: np.ndarray) -> tuple[float, np.ndarray]:
        owned(rho)[:] = density.forward(x)
        rho.x.scatter_forward()
        clock("filter")
        state.solve()
        clock("solve")
        value, slope = compliance.value(), compliance.derivative()
        clock("sensitivity")
        slope = density.vjp(slope)
        clock("filter")
        return value, slope

    found = optimize(analyse, clock, owned(rho).size, iterations)
    return found | {"solver": state.solver.attempt, "iterations": state.solver.iterations / iterations}


def plain(shape: list[int], iterations: int, pc: str) -> dict[str, Any]:
    """What a first script with DOLFINx does: everything anew in every iteration."""
    import ufl
    from dolfinx import fem
    from dolfinx.fem import petsc
    from petsc4py import PETSc

    cell, rho, u, bc, heat = heated(shape)
    V, Q, mesh = u.function_space, rho.function_space, cell.mesh
    t, v, q = ufl.TrialFunction(V), ufl.TestFunction(V), ufl.TestFunction(Q)
    clock, used = Clock(), [0]

    def linear_problem(a: Any, L: Any, bcs: list[Any], *parts: str) -> Any:
        """The steps of LinearProblem and its `solve`, with a clock between them."""
        a, L, found = fem.form(a), fem.form(L), fem.Function(V)
        A = petsc.assemble_matrix(a, bcs)
        A.assemble()
        b = petsc.assemble_vector(L)
        petsc.apply_lifting(b, [a], [bcs])
        petsc.set_bc(b, bcs)
        clock(parts[0])
        ksp = PETSc.KSP().create(mesh.comm)
        ksp.setOperators(A)
        ksp.setType("cg")
        ksp.getPC().setType(pc)
        ksp.setTolerances(rtol=RTOL)
        ksp.setUp()
        clock(parts[1])
        x = b.duplicate()
        ksp.solve(b, x)
        if ksp.getConvergedReason() < 0:
            raise RuntimeError(f"conjugate gradients with {pc} did not converge")
        if parts[2] == "solve":
            used[0] += ksp.getIterationNumber()
        found.x.array[:] = x.array
        for o in (ksp, A, b, x):
            o.destroy()
        clock(parts[2])
        return found

    def filtered(values: np.ndarray) -> np.ndarray:
        field = fem.Function(Q)
        field.x.array[:] = values
        r2 = (RADIUS / (2 * 3**0.5)) ** 2
        a = (r2 * ufl.inner(ufl.grad(t), ufl.grad(v)) + t * v) * ufl.dx
        nodes = linear_problem(a, field * v * ufl.dx, [], *["filter"] * 3)
        # Voxels have volume 1: this is the mean.
        means = fem.assemble_vector(fem.form(nodes * q * ufl.dx)).array
        clock("filter")
        return np.array(means)

    def analyse(x: np.ndarray) -> tuple[float, np.ndarray]:
        rho.x.array[:] = filtered(x)
        kappa = LEAST + (1 - LEAST) * rho**3
        a = kappa * ufl.inner(ufl.grad(t), ufl.grad(v)) * ufl.dx
        found = linear_problem(a, heat * v * ufl.dx, [bc], "assembly", "set-up", "solve")
        value = fem.assemble_scalar(fem.form(heat * found * ufl.dx))
        energy = kappa * ufl.inner(ufl.grad(found), ufl.grad(found)) * ufl.dx
        slope = -fem.assemble_vector(fem.form(ufl.derivative(energy, rho))).array
        clock("sensitivity")
        return float(value), filtered(slope)

    found = optimize(analyse, clock, rho.x.array.size, iterations)
    return found | {"solver": pc, "iterations": used[0] / iterations}


def one(code: str, shape: list[int], iterations: int) -> dict[str, Any]:
    """Measure a code in a process of its own; returns seconds by part, of all parts, and the last value."""
    arguments = {"iterations": iterations}
    if code in ("pymoto", "voxels"):
        more = {"n": shape[0], "dim": len(shape)} | ({} if code == "pymoto" else {"scheme": "elements"})
        found = run(f"voxel_heat:{'pymoto' if code == 'pymoto' else 'ours'}", **arguments, **more)
    elif code.startswith("plain"):
        found = run("design_iteration:plain", shape=shape, pc=code.removeprefix("plain-"), **arguments)
    else:
        found = run("design_iteration:fetopo", shape=shape, on_grid=code == "fetopo", **arguments)
    if "absent" in found:
        return found
    if "seconds" in found:
        return {"all": float(np.median(found["seconds"][2:])), "value": found["values"][-1]}
    parts = {p: float(np.median([past[p] for past in found["parts"][2:]])) for p in PARTS}
    whole = float(np.median([sum(past.values()) - past["optimizer"] for past in found["parts"][2:]]))
    return parts | {"all": whole, "value": found["values"][-1], "iterations": found["iterations"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--grids", nargs="+", default=["256,256", "32,32,32", "64,64,64"])
    parser.add_argument("--codes", nargs="+", choices=CODES, default=CODES)
    parser.add_argument("--iterations", type=int, default=8)
    arguments = parser.parse_args()
    for grid in arguments.grids:
        shape = [int(n) for n in grid.split(",")]
        print(f"\n{' × '.join(map(str, shape))}, {arguments.iterations} iterations, CPU seconds of one")
        head("code", *PARTS, "all but the optimizer", "Krylov iterations", "last compliance")
        for code in arguments.codes:
            found = one(code, shape, arguments.iterations)
            if "absent" in found:
                row(code, "not there: " + found["absent"], *[""] * (len(PARTS) + 2))
                continue
            parts = [f"{found[p]:.4f}" if p in found else "" for p in PARTS]
            count = f"{found['iterations']:.0f}" if "iterations" in found else ""
            row(code, *parts, f"{found['all']:.4f}", count, f"{found['value']:.6g}")


if __name__ == "__main__":
    main()
