"""What a step of an optimizer costs, and how far each gets on a heat sink.

    docker/run python3 benchmarks/optimizers.py                  CPU seconds of a step, 10⁴ to 4·10⁶ variables
    docker/run mpirun -n 2 python3 benchmarks/optimizers.py      the same on two ranks; seconds of both
    docker/run python3 benchmarks/optimizers.py --heat 80        objective by iteration on a mesh of 80² cells

The first: a separable quadratic with 1 and 5 budgets, steps 3 to 12, median. Where pyMOTO can be imported, on
one rank, its MMA and OC take steps on the same numbers (3 of them). The second: a square heated all over and
cooled on a tenth of one side, contrast 1000, 40 % of the volume, SIMP with p = 3, filter of three cells, no
continuation.
"""

import argparse
import time
from typing import Any

import numpy as np
from mpi4py import MPI

from fetopo.design.optimizers import make_optimizer

comm = MPI.COMM_WORLD


def row(*cells: object) -> None:
    if comm.rank == 0:
        print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


class Budgets:
    """½ Σ w (x − t)²/n with targets t beyond [0, 1] and m limits on weighted means."""

    def __init__(self, n: int, m: int) -> None:
        rng = np.random.default_rng([comm.rank, m])
        self.n = n // comm.size
        self.total = self.n * comm.size
        self.t, self.w = rng.uniform(-1, 2, self.n), rng.uniform(0.5, 2, self.n)
        shares = rng.uniform(0.5, 1.5, (m, self.n))
        self.df = shares / comm.allreduce(shares.sum(1))[:, None] / 0.3

    def __call__(self, x: Any) -> tuple[float, Any, Any, Any]:
        f0 = comm.allreduce(0.5 * float(np.sum(self.w * (x - self.t) ** 2))) / self.total
        # Never uphill: optimality criteria serve nothing else.
        return f0, self.w * (x - 2) / self.total, comm.allreduce(self.df @ x) - 1, self.df


def seconds(n: int, m: int, name: str, steps: int = 12) -> tuple[float, float]:
    """CPU seconds of a step over all ranks, and passes over the variables for its multipliers."""
    problem = Budgets(n, m)
    optimizer: Any = make_optimizer(name, comm, np.zeros(problem.n), np.ones(problem.n))
    x, spent, passes = np.full(problem.n, 0.4), [], []
    for _ in range(steps):
        arguments = problem(x)
        start = time.process_time()
        x = optimizer.step(x, *arguments)
        spent.append(comm.allreduce(time.process_time() - start))
        passes.append(optimizer.passes)
    return float(np.median(spent[2:])), float(np.mean(passes[2:]))


def peer(n: int, m: int, name: str) -> str:
    """The same of pyMOTO."""
    try:
        import pymoto
    except ImportError:
        return "—"
    problem, x = Budgets(n, m), np.full(n, 0.4)
    variable, responses = pymoto.Signal("x", x.copy()), [pymoto.Signal(f"g{i}", 0.0) for i in range(1 + m)]
    network = pymoto.Network()
    if name == "mma":
        optimizer = pymoto.MMA(variable, responses, network, move=0.2, verbosity=0)
    else:
        optimizer = pymoto.OC(variable, responses[0], network, move=0.2, verbosity=0)
    spent = []
    for _ in range(3):
        f0, df0, f, df = problem(x)
        g, dg = np.append(f0, f), np.vstack([df0[None], df])
        start = time.process_time()
        x = optimizer.step(x, g, dg if name == "mma" else df0)[0]
        spent.append(time.process_time() - start)
    return f"{np.median(spent):.3f}"


def times(sizes: list[int], peers: bool) -> None:
    row(
        "variables",
        "constraints",
        "MMA, s",
        "µs per 1000",
        "passes",
        "pyMOTO MMA, s",
        "OC, s",
        "pyMOTO OC, s",
    )
    row(*["---"] * 8)
    alone = peers and comm.size == 1
    for n in sizes:
        for m in (1, 5):
            mma, passes = seconds(n, m, "mma")
            oc = seconds(n, m, "oc")[0] if m == 1 else None
            row(
                n,
                m,
                f"{mma:.4f}",
                f"{mma / n * 1e9:.0f}",
                f"{passes:.1f}",
                peer(n, m, "mma") if alone and n <= 10**6 else "—",
                "—" if oc is None else f"{oc:.4f}",
                peer(n, m, "oc") if alone and m == 1 and n <= 10**6 else "—",
            )


def heat_sink(n: int) -> tuple[Any, Any]:
    """Problem and first design."""
    import ufl
    from dolfinx import fem

    from fetopo.design.adjoint import FormFunctional, MeanDensity
    from fetopo.design.density import DensityMap, HeavisideProjection, HelmholtzFilter, Interpolation
    from fetopo.design.problem import Constraint, DesignProblem
    from fetopo.microstructure.mesh import regular_cell
    from fetopo.transport.state import LinearState

    mesh = regular_cell(comm, (n, n)).mesh
    filter_ = HelmholtzFilter(mesh, 3 / n)
    density = DensityMap(mesh, filter_, HeavisideProjection(beta=0.01))
    kappa = Interpolation(mesh, 1e-3, 1.0, penalty=3.0)
    V = fem.functionspace(mesh, ("Lagrange", 1))
    u, v = fem.Function(V), ufl.TestFunction(V)
    F = kappa.ufl(density.rho) * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx - v * ufl.dx
    sink = fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], 0) & (np.abs(x[1] - 0.5) <= 0.05 + 1e-9))
    state = LinearState(F, u, [fem.dirichletbc(0.0, sink, V)])
    objective = FormFunctional(u * ufl.dx, density.rho, state)
    volume = Constraint("volume", MeanDensity(density, filter_.volumes), 0.4)
    problem = DesignProblem(density, objective, [volume], volumes=filter_.volumes)
    return problem, np.full(filter_.volumes.size, 0.4)


def heat(n: int, iterations: int) -> None:
    marks = [i for i in (10, 20, 50, 100, 200, 500) if i <= iterations]
    row(
        "optimizer",
        *(f"J after {i}" for i in marks),
        "most it rose by",
        "violation",
        "solves",
        "solves to 1 % of the best",
    )
    row(*["---"] * (len(marks) + 5))
    runs: dict[str, tuple[list[float], list[int], float]] = {}
    for name in ("mma", "gcmma", "oc"):
        problem, m = heat_sink(n)
        optimizer = make_optimizer(name, comm, np.zeros(m.size), np.ones(m.size))
        solves, scale, values, counts, violation = 0, 0.0, [], [], 0.0
        for _ in range(iterations + 1):
            value, gradient, g, jacobian = problem.evaluate(m)
            solves, scale = solves + 1, scale or value
            values.append(value)
            counts.append(solves)
            violation = float(g[0])

            def elsewhere(x: Any) -> tuple[Any, Any]:
                nonlocal solves
                solves += 1
                there, _, constraints, _ = problem.evaluate(x, gradients=False)  # noqa: B023
                return there / scale, constraints  # noqa: B023

            m = optimizer.step(m, value / scale, gradient / scale, g, jacobian, elsewhere)
        runs[name] = values, counts, violation
    best = min(min(values[20:]) for values, *_ in runs.values())
    for name, (values, counts, violation) in runs.items():
        near = next((c for v, c in zip(values, counts, strict=True) if v <= 1.01 * best), None)
        rise = float(np.max(np.diff(values[5:]) / values[5:-1]))
        row(
            name.upper(),
            *(f"{values[i]:.5f}" for i in marks),
            f"{max(rise, 0):.1e}",
            f"{violation:.0e}",
            counts[-1],
            "—" if near is None else near,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10_000, 100_000, 10**6, 2 * 10**6, 4 * 10**6]
    )
    parser.add_argument("--no-peers", action="store_true", help="leave pyMOTO out")
    parser.add_argument("--heat", type=int, metavar="N", help="heat sink on a mesh of N² cells instead")
    parser.add_argument("--iterations", type=int, default=200, help="of the heat sink")
    arguments = parser.parse_args()
    if arguments.heat:
        heat(arguments.heat, arguments.iterations)
    else:
        times(arguments.sizes, not arguments.no_peers)


main()
