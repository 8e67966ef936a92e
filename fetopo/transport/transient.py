"""Transient diffusion in a body or a pore space: Fick's second law with implicit steps in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh
from dolfinx.fem import petsc as fem_petsc

from fetopo._mpi import get_logger, require
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.conditions import Fixed, Inflow, coefficient, facets_of
from fetopo.transport.quadrature import is_piecewise_constant, measure
from fetopo.transport.state import LinearSolver, PetscOptions, assemble_dual, global_sum, owned
from fetopo.transport.timestep import DIAGONAL, SDIRK2, TR_BDF2, Method, TimeOptions, next_factor


@dataclass(frozen=True)
class Step:
    """One accepted step.

    Attributes:
        time: at its end, s.
        step: its length, s.
        mass: ∫ a c dx at its end.
        inflow: what came in during the step through the boundary of each condition, in their order.
        source: what the source brought during the step.
        imbalance: change of mass − inflow − source: what the linear solver left over.
        rate: inflow per time at the end, for each condition.
        error: estimated error divided by the allowed one (0 for steps of fixed length).
        iterations: Krylov iterations.
        rejected: tries with longer steps before this one.
    """

    time: float
    step: float
    mass: float
    inflow: tuple[float, ...]
    source: float
    imbalance: float
    rate: tuple[float, ...]
    error: float
    iterations: int
    rejected: int


@dataclass
class _Stage:
    """Slope at a stage, with what flows in there: per condition, and from the source."""

    slope: npt.NDArray[np.float64]
    rate: npt.NDArray[np.float64]


class TransientDiffusion:
    """Fick's second law, a ∂c/∂t = ∇·(D ∇c) + s, by Lagrange elements and TR-BDF2.

    Where neither condition holds the boundary is closed. Concentrations that are fixed hold from the first
    instant on: the initial field gets them where it has other values, before its mass is taken.

    Elements are not monotone: beside a jump of the data the concentration may leave its range by some per
    cent while Δt < h²/(6D); mass is kept all the same.

    Args:
        cell: the body; a part of a cell (`select_phases`, `voxel_cell(…, phases=…)`) or all of it.
        diffusivity: D in m²/s, a positive number, one per phase (tag or name; number or d×d tensor), or UFL.
        conditions: `Fixed` and `Inflow`; where two fixed ones meet the later one holds.
        source: s, amount per volume and time: a number, or a function of (x, t) that returns UFL.
        storage: a, amount per volume and concentration: a number or UFL that does not depend on time.
        initial: a number, a function of (3, n) points, or a Function on Lagrange elements of this degree.
        degree: polynomial degree.
        petsc_options: options of the linear solver.
    Raises:
        ValueError: no such part of the boundary, values that are not positive or not finite; on every rank.
    """

    def __init__(
        self,
        cell: UnitCell,
        diffusivity: Any,
        conditions: Sequence[Fixed | Inflow] = (),
        *,
        source: Any = None,
        storage: Any = 1.0,
        initial: Any = 0.0,
        degree: int = 1,
        petsc_options: PetscOptions | None = None,
    ) -> None:
        self.cell, self.conditions = cell, tuple(conditions)
        mesh = cell.mesh
        D, a = coefficient("diffusivity", cell, diffusivity), coefficient("storage", cell, storage)
        simple = is_piecewise_constant(D) and is_piecewise_constant(a)
        dx = measure(mesh, 2 * degree, cell) if simple else ufl.dx(mesh)
        self.V = V = fem.functionspace(mesh, ("Lagrange", degree))
        u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
        self.c = fem.Function(V, name="concentration")
        self.volume = global_sum(fem.form(fem.Constant(mesh, 1.0) * dx))

        self._loads: list[npt.NDArray[np.float64] | None] = []
        claimed = np.full(self.c.x.array.size, -1)
        for i, condition in enumerate(self.conditions):
            facets = facets_of(cell, condition.where)
            if isinstance(condition, Fixed):
                claimed[fem.locate_dofs_topological(V, mesh.topology.dim - 1, facets)] = i
                self._loads.append(None)
            else:
                tags = dmesh.meshtags(mesh, mesh.topology.dim - 1, facets, np.ones_like(facets))
                ds = ufl.Measure("ds", domain=mesh, subdomain_data=tags)
                self._loads.append(owned(assemble_dual(fem.form(v * ds(1)))).copy())
        self._dofs = [np.flatnonzero(claimed == i).astype(np.int32) for i in range(len(self.conditions))]
        fixed = np.flatnonzero(claimed >= 0).astype(np.int32)
        bcs = [fem.dirichletbc(0.0, fixed, V)] if mesh.comm.allreduce(fixed.size) else []
        #: 1 for owned unknowns that are not fixed, else 0.
        self.free = np.ones(owned(self.c).size)
        self.free[fixed[fixed < self.free.size]] = 0.0

        #: Time of the source's UFL, in s.
        self.t = fem.Constant(mesh, 0.0)
        self._source: Any = None
        if source is not None:
            s = source(ufl.SpatialCoordinate(mesh), self.t) if callable(source) else float(source)
            self._source = fem.form(s * v * (ufl.dx(mesh) if callable(source) else dx))

        mass, stiffness = a * u * v * dx, ufl.inner(D * ufl.grad(u), ufl.grad(v)) * dx
        if D.ufl_shape:
            stiffness = ufl.inner(ufl.dot(D, ufl.grad(u)), ufl.grad(v)) * dx
        #: Form of K, and the matrices of storage and diffusion without any condition.
        self.stiffness = stiffness
        self.M, self.K = (fem_petsc.assemble_matrix(fem.form(form)) for form in (mass, stiffness))
        self.M.assemble()
        self.K.assemble()
        self._theta = fem.Constant(mesh, 0.0)
        self.solver = LinearSolver(mass + self._theta * stiffness, bcs, petsc_options=petsc_options)
        #: Matrices assembled so far: one each time the length of the step changes.
        self.matrices = 0
        self._matrix_step = 0.0

        self.time = 0.0
        self.history: list[Step] = []
        self._set(initial)
        self._stage: _Stage | None = None
        self._data: tuple[float, ...] = ()
        self._length: float | None = None
        self._largest = 0.0
        self._x, self._y = self.M.createVecs()
        self._delta, self._b = fem.Function(V), fem.Function(V).x
        self._output = fem.Function(V, name="concentration")
        self._capacity = self._sum(self._times(self.M, np.ones_like(owned(self.c))))
        self._apply_data()

    # --- public -------------------------------------------------------------------------------------------

    def mass(self) -> float:
        """∫ a c dx, at the present time. Collective."""
        return self._sum(self._times(self.M, owned(self.c)))

    def run(
        self,
        end: float,
        *,
        options: TimeOptions | None = None,
        times: Sequence[float] = (),
        observe: Callable[[float, fem.Function], None] | None = None,
        callback: Callable[[Step, TransientDiffusion], None] | None = None,
    ) -> list[Step]:
        """Go on to a later time; a change of the data between two runs is taken as a jump.

        Args:
            end: s.
            options: choice of the steps.
            times: times for `observe`, between now and `end`; steps are not cut for them.
            observe: gets each of these times and the concentration then, by cubic interpolation within the
                step; the function passed is used again.
            callback: gets every step and this object.
        Returns:
            The steps of this run; `history` has all of them.
        Raises:
            ValueError: an end before the present time, times outside.
            RuntimeError: too many steps, or a linear solver that did not converge.
        """
        options = options or TimeOptions()
        if not (np.isfinite(end) and end > self.time):
            raise ValueError(f"the end must lie after the present time {self.time:g} s, found {end}")
        wanted = sorted(float(t) for t in times)
        if wanted and not (self.time <= wanted[0] and wanted[-1] <= end):
            raise ValueError(
                f"times must lie between {self.time:g} and {end:g} s, found {wanted[0]:g} and {wanted[-1]:g}"
            )
        if self._values(self.time) != self._data:
            self._stage = None
            self._apply_data()
        length = options.step or options.first_step or self._length or 1e-4 * (end - self.time)
        begun, tries, mass = len(self.history), 0, self.mass()
        while wanted and wanted[0] == self.time and observe is not None:
            observe(wanted.pop(0), self.c)
        while self.time < end:
            rejected = 0
            while True:
                tries += 1
                if tries > options.max_steps:
                    raise RuntimeError(f"{options.max_steps} steps in time led to {self.time:g} s only")
                length = min(length, options.max_step)
                last = self.time + length * (1 + 1e-9) >= end
                step = end - self.time if last else length
                method = SDIRK2 if self._stage is None else TR_BDF2
                before, iterations = owned(self.c).copy(), self.solver.iterations
                stages, inflow, error = self._step(method, step, options)
                factor = next_factor(error, method.order)
                if error <= 1 or options.step:
                    break
                rejected += 1
                self.c.x.array[: before.size] = before
                self.c.x.scatter_forward()
                length = step * min(factor, 0.5)
                if length < 1e-15 * max(end, 1e-300):
                    raise RuntimeError(f"no step is short enough at {self.time:g} s (error {error:.3g})")
            start, first = self.time, self._stage
            self.time = end if last else start + step
            self._stage = stages[-1]
            self._data = self._values(self.time)
            after = self.mass()
            flows = [float(f) for f in inflow]
            record = Step(
                self.time, step, after, tuple(flows[:-1]), flows[-1], after - mass - float(inflow.sum()),
                tuple(float(r) for r in stages[-1].rate[:-1]), 0.0 if options.step else error,
                self.solver.iterations - iterations, rejected,
            )  # fmt: skip
            mass = after
            self.history.append(record)
            while wanted and wanted[0] <= self.time:
                t = wanted.pop(0)
                if observe is not None:
                    observe(t, self._between((t - start) / step, step, before, first))
            if callback is not None:
                callback(record, self)
            if not options.step and not (last and step < length):
                length = step * max(factor, 1.0)
        self._length = None if options.step else length
        get_logger(__name__, self.V.mesh.comm).info(
            "%d steps to %g s, %d matrices so far", len(self.history) - begun, end, self.matrices
        )
        return self.history[begun:]

    # --- a step -------------------------------------------------------------------------------------------

    def _step(
        self, method: Method, step: float, options: TimeOptions
    ) -> tuple[list[_Stage], npt.NDArray[np.float64], float]:
        """Advance `c`; returns the stages, what flowed in, and the error divided by the allowed one."""
        if step != self._matrix_step:
            self._theta.value = DIAGONAL * step
            self.solver.assemble()
            self._matrix_step = step
            self.matrices += 1
        start, stages = owned(self.c).copy(), []
        for node, row in zip(method.nodes, method.weights, strict=True):
            if row[-1] == 0:
                assert self._stage is not None
                stages.append(self._stage)
                continue
            base = start.copy()
            if stages:
                base += step * _combined(row[:-1], [s.slope for s in stages])
            stages.append(self._implicit(base, self.time + node * step, step))
        inflow = step * _combined(method.weights[-1], [s.rate for s in stages])
        if options.step:
            return stages, inflow, 0.0
        difference = step * _combined(method.estimate, [s.slope for s in stages])
        # Stiff parts of the difference are no errors of an L-stable method: one more solve takes them out.
        self._delta.x.array[:] = 0.0
        self._solve(self._times(self.M, difference))
        e = owned(self._delta)
        here = np.array([np.abs(owned(self.c)).max(initial=0.0), np.abs(start).max(initial=0.0)])
        largest = max(self._largest, *self.V.mesh.comm.allgather(float(here.max())))
        # ∫a e² over ∫a is the mean square, whatever the storage.
        rms = np.sqrt(max(self._sum(e * self._times(self.M, e)), 0.0) / self._capacity)
        allowed = options.atol + options.rtol * largest
        error = float(rms / allowed) if allowed > 0 else (0.0 if rms == 0 else np.inf)
        if error <= 1:
            self._largest = largest
        return stages, inflow, error

    def _implicit(self, base: npt.NDArray, t: float, step: float) -> _Stage:
        """Solve c = base + θ k, M k = F(t) − K c, θ = DIAGONAL Δt, with the fixed values of time t."""
        theta, values = DIAGONAL * step, self._values(t)
        self.c.x.array[: base.size] = base
        self._fix(values)
        flows, F = self._load(values, t)
        c = owned(self.c)
        K_c = self._times(self.K, c)
        self._delta.x.array[:] = 0.0
        self._solve(self._times(self.M, base - c) + theta * (F - K_c))
        self.c.x.array[:] += self._delta.x.array
        slope = (owned(self.c) - base) / theta
        # What the equations of fixed unknowns lack is what flows in there.
        residual = self._times(self.M, slope) + self._times(self.K, owned(self.c)) - F
        for i, dofs in enumerate(self._dofs):
            flows[i] += residual[dofs[dofs < slope.size]].sum()
        return _Stage(slope, self.V.mesh.comm.allreduce(flows))

    def _load(self, values: tuple[float, ...], t: float) -> tuple[npt.NDArray, npt.NDArray]:
        """What flows in on this rank, by condition and at last from the source, and the load vector."""
        flows, F = np.zeros(len(self.conditions) + 1), np.zeros(owned(self.c).size)
        for i, (load, value) in enumerate(zip(self._loads, values, strict=True)):
            if load is not None:
                F += value * load
                flows[i] = value * load.sum()
        if self._source is not None:
            self.t.value = t
            s = owned(assemble_dual(self._source))
            F += s
            flows[-1] = s.sum()
        return flows, F

    def _solve(self, b: npt.NDArray) -> None:
        owned(self._b)[:] = b * self.free
        self.solver.solve(self._b, self._delta)

    def _times(self, A: Any, values: npt.NDArray) -> npt.NDArray:
        self._x.array[:] = values
        A.mult(self._x, self._y)
        return self._y.array.copy()

    def _sum(self, values: npt.NDArray) -> float:
        return float(self.V.mesh.comm.allreduce(float(values.sum())))

    # --- data ---------------------------------------------------------------------------------------------

    def _values(self, t: float) -> tuple[float, ...]:
        found = tuple(float(k.value(t) if callable(k.value) else k.value) for k in self.conditions)
        if not np.isfinite(found).all():
            raise ValueError(f"boundary data must be finite, found {found} at {t:g} s")
        return found

    def _apply_data(self) -> None:
        self._data = self._values(self.time)
        self._fix(self._data)

    def _fix(self, values: tuple[float, ...]) -> None:
        for dofs, value in zip(self._dofs, values, strict=True):
            self.c.x.array[dofs] = value
        self.c.x.scatter_forward()

    def _set(self, initial: Any) -> None:
        if isinstance(initial, fem.Function) or callable(initial):
            self.c.interpolate(initial)
        else:
            self.c.x.array[:] = float(initial)
        self.c.x.scatter_forward()
        finite = bool(np.isfinite(self.c.x.array).all())
        require(self.V.mesh.comm, finite, "the initial concentration must be finite")

    def _between(self, s: float, step: float, before: npt.NDArray, first: _Stage | None) -> fem.Function:
        """Concentration at the fraction s of the last step: the cubic with values and slopes of both ends."""
        c = owned(self._output)
        after = owned(self.c)
        assert self._stage is not None
        if first is None:
            # The slope at the start of a jump is unknown: the parabola with the slope at the end.
            c[:] = (
                after
                + (s - 1) * step * self._stage.slope
                + (1 - s) ** 2 * (before - after + step * self._stage.slope)
            )
        else:
            rise = after - before
            m0, m1 = step * first.slope, step * self._stage.slope
            c[:] = before + s * (m0 + s * (3 * rise - 2 * m0 - m1 + s * (m0 + m1 - 2 * rise)))
        self._output.x.scatter_forward()
        return self._output


def _combined(weights: Sequence[float], parts: Sequence[npt.NDArray]) -> npt.NDArray[np.float64]:
    return np.tensordot(np.asarray(weights), np.asarray(parts), axes=1)
