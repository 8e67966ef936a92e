"""A design iteration of heat conduction with sources on a grid: pyMOTO beside the voxel discretization.

The cube is heated everywhere and cooled on the face x = 0: least thermal compliance at a given volume,
densities filtered over 2 voxels, κ = κ₀ + (1 − κ₀) ρ̃³. An iteration is filter, solve and sensitivities; every
solve starts from the last. The update by optimality criteria is the same for both codes and not counted.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from voxel_processes import head, row, run

VOLUME, RADIUS, LEAST, RTOL = 0.3, 2.0, 1e-3, 1e-5


def optimality_criteria(x: np.ndarray, slope: np.ndarray, volume: float, move: float = 0.2) -> np.ndarray:
    """x √(−slope / λ) within the move limits, λ by bisection for the volume (equal weights)."""
    low, high = 0.0, 1e9
    scale = np.sqrt(np.maximum(-slope, 0.0))
    while high - low > 1e-6 * (high + low):
        middle = 0.5 * (low + high)
        new = np.clip(x * scale * middle, np.maximum(x - move, 0.0), np.minimum(x + move, 1.0))
        low, high = (middle, high) if new.mean() < volume else (low, middle)
    return new


def pymoto(n: int, iterations: int, dim: int = 3) -> dict[str, Any]:
    """pyMOTO: linear elements, assembled, conjugate gradients with geometric multigrid."""
    import pymoto as pym

    domain = pym.VoxelDomain(*(n,) * dim)
    cooled = domain.nodes[0].flatten()
    f = np.zeros(domain.nnodes)
    np.add.at(f, domain.conn.flatten(), 0.5**dim)
    f /= n**2
    f[cooled] = 0.0
    x = pym.Signal("x", state=np.full(domain.nel, VOLUME))
    levels = [pym.solvers.GeometricMultigrid(domain)]
    # As in its examples: halved until odd or a side below 8.
    while (sides := levels[-1].sub_domain.size[:dim]).min() >= 8 and not any(sides % 2):
        levels.append(pym.solvers.GeometricMultigrid(levels[-1].sub_domain))
        levels[-2].inner_level = levels[-1]
    with pym.Network() as network:
        filtered = pym.FilterConv(domain, radius=RADIUS)(x)
        kappa = pym.MathExpression(f"{LEAST} + {1.0 - LEAST}*inp0^3")(filtered)
        K = pym.AssemblePoisson(domain, bc=cooled)(kappa)
        u = pym.LinSolve(hermitian=True, solver=pym.solvers.CG(preconditioner=levels[0], tol=RTOL))(K, f)
        compliance = pym.EinSum("i,i->")(u, f)

    def analyse(density: np.ndarray) -> tuple[float, np.ndarray]:
        x.state = density
        network.response()
        network.reset()
        compliance.sensitivity = 1.0
        network.sensitivity()
        return float(compliance.state), x.sensitivity

    return timed(analyse, np.full(domain.nel, VOLUME), iterations)


def ours(n: int, iterations: int, scheme: str, dim: int = 3) -> dict[str, Any]:
    """The voxel discretization: a state with sources and a cooled face, and Helmholtz's filter."""
    from mpi4py import MPI

    from fetopo.transport.voxel import ScreenedPoisson, State, VoxelGrid

    shape = (n,) * dim
    grid = VoxelGrid(MPI.COMM_SELF, shape)
    screened = ScreenedPoisson(grid, RADIUS / (2 * np.sqrt(3)), rtol=RTOL)
    state = State(grid, scheme, fixed=[(axis == 0, False) for axis in range(dim)])
    inner = (0, *(slice(1, -1),) * 3)
    state.source = state.operator.blocks.padded(1, np.float64)
    heat = np.full(shape, 1.0 / n**2)
    state.source[inner] = heat if scheme == "finite volumes" else at_nodes(heat)

    def analyse(density: np.ndarray) -> tuple[float, np.ndarray]:
        filtered = np.clip(screened.solve(density), 0.0, 1.0)
        state.assign(LEAST + (1 - LEAST) * filtered**3)
        state.solve(RTOL)
        compliance = float((state.u[inner] * state.source[inner]).sum())
        # The compliance is the energy in balance with the load: its derivative is that at fixed u, negative.
        slope = -state.derivative(np.ones((1, 1))) * 3 * (1 - LEAST) * filtered**2
        return compliance, screened.solve(slope)

    return timed(analyse, np.full(shape, VOLUME), iterations)


def at_nodes(values: np.ndarray) -> np.ndarray:
    """Voxel values shared out to their nodes, without those of the first plane, which is cooled."""
    nodes = np.zeros([n + 1 for n in values.shape])
    for corner in np.ndindex((2,) * values.ndim):
        nodes[tuple(slice(c, c + n) for c, n in zip(corner, values.shape, strict=True))] += (
            values * 0.5**values.ndim
        )
    return nodes[1:]


def timed(analyse: Any, x: np.ndarray, iterations: int) -> dict[str, Any]:
    """CPU seconds of every iteration, and the values."""
    seconds, values = [], []
    for _ in range(iterations):
        start = time.process_time()
        value, slope = analyse(x)
        seconds.append(time.process_time() - start)
        values.append(value)
        x = optimality_criteria(x, slope, VOLUME)
    return {"seconds": seconds, "values": values}


def table(n: int = 32, iterations: int = 12) -> None:
    """Both codes; the median of the iterations after the second, which is when warm starts begin to tell."""
    print(f"\nThermal compliance, {n}³, {iterations} iterations")
    head("code", "first iteration, CPU s", "iteration, CPU s", "compliance, first", "compliance, last")
    cases = {
        "pyMOTO": ("pymoto", {}),
        "fetopo, finite volumes": ("ours", {"scheme": "finite volumes"}),
        "fetopo, elements": ("ours", {"scheme": "elements"}),
    }
    for name, (function, more) in cases.items():
        r = run(f"voxel_heat:{function}", n=n, iterations=iterations, **more)
        if "absent" in r:
            row(name, *["not there: " + r["absent"]] + [""] * 3)
            continue
        row(name, f"{r['seconds'][0]:.3f}", f"{np.median(r['seconds'][2:]):.3f}",
            f"{r['values'][0]:.5g}", f"{r['values'][-1]:.5g}")  # fmt: skip
