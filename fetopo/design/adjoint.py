"""Value and derivative of functionals of a density and of the state that it determines.

All derivatives are UFL derivative forms, assembled into dual vectors: one number per owned cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fetopo.design.density import DensityMap
from fetopo.design.tensor import TensorValue
from fetopo.transport.assembly import form
from fetopo.transport.homogenization import CellProblem
from fetopo.transport.state import (
    LinearSolver,
    LinearState,
    assemble_dual,
    global_sum,
    owned,
    zero_on_boundary,
)

Array = npt.NDArray[np.float64]

#: A functional's ∂J/∂u counts as a multiple of the load if it is one to this relative accuracy.
_SELF_ADJOINT = 1e-11


class Functional(Protocol):
    """Value and derivative at the present density, once its `states` (objects with `solve`) are solved."""

    @property
    def states(self) -> Sequence[Any]: ...

    comm: Any

    def value(self) -> float: ...

    def derivative(self) -> Array: ...


def pull_back(functional: Any, density: DensityMap) -> Array:
    """dJ/dm of a functional at the present density, a dual vector over owned cells. Collective.

    A functional of more than the density and its states, such as the filtered field, has a method
    `design_derivative(density)` of its own; the derivative of others goes back through the whole chain.
    """
    own = getattr(functional, "design_derivative", None)
    return density.vjp(functional.derivative()) if own is None else np.asarray(own(density))


class FormFunctional:
    """A functional J(u, ρ) written as a UFL form, with u from a linear state problem F(u, ρ; v) = 0.

    dJ/dρ = ∂J/∂ρ − λᵀ ∂F/∂ρ with (∂F/∂u)ᵀ λ = ∂J/∂u

    The adjoint is solved only where it is needed: not without a state, and not where ∂J/∂u is a multiple of
    the load of a symmetric problem with homogeneous conditions (then λ is that multiple of u; compliance is
    the example). One preconditioner serves both where the problem is symmetric.

    Args:
        J: scalar form.
        rho: the density it is differentiated by.
        state: the state problem, or None for a functional of the density alone.
    Attributes:
        adjoint_solves: how many adjoint problems were solved so far.
    """

    def __init__(self, J: ufl.Form, rho: fem.Function, state: LinearState | None = None) -> None:
        self.state, self.rho = state, rho
        self.states: tuple[Any, ...] = () if state is None else (state,)
        self.comm = rho.function_space.mesh.comm
        self._value = form(J)
        self.adjoint_solves = 0
        partial = ufl.derivative(J, rho)
        self._adjoint: fem.Function | None = None
        self._needs_state = state is not None and state.u in J.coefficients()
        if state is None or not self._needs_state:
            self._derivative = form(partial)
            return
        self.adjoint = fem.Function(state.u.function_space, name="adjoint")
        self._source = form(ufl.derivative(J, state.u))
        sensitivity = ufl.action(ufl.adjoint(ufl.derivative(state.F, rho)), self.adjoint)
        self._derivative = form(partial - sensitivity)
        self._transposed: LinearSolver | None = None

    def value(self) -> float:
        """J at the present state and density."""
        return global_sum(self._value)

    def derivative(self) -> Array:
        """dJ/dρ as a dual vector over owned cells.

        Raises:
            RuntimeError: the adjoint solver did not converge.
        """
        if self._needs_state:
            self._solve_adjoint()
        return owned(assemble_dual(self._derivative)).copy()

    def correction(self) -> float:
        """−λᵀF(u): what the residual that the state solver left does to J, to first order.

        J of the exact state is J(u) − λᵀF(u) up to the product of the errors of u and of λ, those of the last
        :meth:`derivative`. Zero without a state. Collective.
        """
        if not self._needs_state:
            return 0.0
        assert self.state is not None
        return float(self.comm.allreduce(float(owned(self.state.load()) @ owned(self.adjoint))))

    @property
    def guesses(self) -> list[Array]:
        """Where the next adjoint solve starts, as views of this rank's values."""
        return [self.adjoint.x.array] if self._needs_state else []

    def _solve_adjoint(self) -> None:
        state = self.state
        assert state is not None
        source = assemble_dual(self._source)
        zero_on_boundary(source, state.bcs)
        if state.symmetric:
            multiple = self._multiple_of_load(owned(source))
            if multiple is not None:
                self.adjoint.x.array[:] = multiple * state.u.x.array
                return
            solver = state.solver
        else:
            if self._transposed is None:
                self._transposed = LinearSolver(
                    ufl.adjoint(state.jacobian), state.bcs, petsc_options=state.solver.options
                )
            solver = self._transposed
            solver.assemble()
            solver.set_tolerance(state.tolerance)
        solver.solve(source, self.adjoint)
        self.adjoint_solves += 1

    def _multiple_of_load(self, source: Array) -> float | None:
        """The factor c with ∂J/∂u = c L, where u vanishes on the Dirichlet boundary; else None."""
        state = self.state
        assert state is not None
        kept = state.u.x.array.copy()
        largest = max((np.abs(kept[bc.dof_indices()[0]]).max(initial=0.0) for bc in state.bcs), default=0.0)
        if self.comm.allreduce(float(largest)) > 0:
            return None
        state.u.x.array[:] = 0
        load = state.load()
        state.u.x.array[:] = kept
        L = owned(load)
        LL, LS = self.comm.allreduce(np.array([L @ L, L @ source]))
        factor = LS / LL if LL > 0 else 0.0
        SS, DD = self.comm.allreduce(np.array([source @ source, np.sum((source - factor * L) ** 2)]))
        return float(factor) if DD <= _SELF_ADJOINT**2 * SS else None


class TensorFunctional:
    """A function of the effective tensor of a periodic cell, J(D(ρ)).

    dJ/dρ = 1/|Y| Σᵢⱼ ∂J/∂Dᵢⱼ ∫ κ′(ρ) (eᵢ + ∇χᵢ)·(eⱼ + ∇χⱼ) dx; the correctors are their own adjoints, so d
    solves give the value and the derivative.

    Args:
        problem: the cell problem, whose κ depends on `rho`.
        function: J as a function that takes D as a UFL d×d tensor and returns a UFL scalar, e.g.
            `lambda D: ufl.tr(ufl.inv(D))`.
        rho: the density.
    Raises:
        ValueError: `function` does not return a scalar.
    """

    def __init__(self, problem: CellProblem, function: Callable[[Any], Any], rho: fem.Function) -> None:
        self.state, self.rho, self.states = problem, rho, (problem,)
        mesh, d = problem.cell.mesh, problem.cell.dim
        self.comm = mesh.comm
        self.function = TensorValue(mesh.comm, function, d)
        self._weight = fem.Constant(mesh, np.eye(d))
        fields = problem.local_fields()
        energy = sum(
            self._weight[i, j] * ufl.inner(problem.flux(fields[i]), fields[j])
            for i in range(d)
            for j in range(d)
        )
        # Held constant in κ: weight and correctors.
        self._derivative = form(ufl.derivative(energy * problem.dx, rho))

    def value(self) -> float:
        """J(D) at the present tensor."""
        return self.function.value(self.state.tensor)

    def derivative(self) -> Array:
        """dJ/dρ as a dual vector over owned cells."""
        self._weight.value = self.function.derivative(self.state.tensor)
        return owned(assemble_dual(self._derivative)) / self.state.cell.volume


def form_functional(
    function: Callable[[Any, Any, ufl.Measure], ufl.Form], state: LinearState, rho: fem.Function
) -> FormFunctional:
    """A user's functional of a field, J(u, ρ), written as a function that returns a form.

    Args:
        function: takes the state u, the density and the volume measure, e.g.
            `lambda u, rho, dx: u**8 * dx(2)`; forms over facets may use `ufl.ds`.
        state: the state problem of u.
        rho: the density.
    Raises:
        ValueError: `function` does not return a scalar form.
    """
    mesh = rho.function_space.mesh
    J = function(state.u, rho, ufl.Measure("dx", domain=mesh))
    if not isinstance(J, ufl.Form) or J.arguments():
        raise ValueError(f"a functional must return a scalar form, such as u * dx, found {J}")
    return FormFunctional(J, rho, state)


class MeanDensity:
    """Volume fraction of the material with ρ = 1, on a mesh or on a grid of voxels: 1/|Y| Σ ρ |cell|.

    Args:
        density: the density.
        volumes: volumes of this rank's cells.
        volume: |Y|; default the sum of the volumes.
    """

    states = ()

    def __init__(self, density: DensityMap, volumes: Array, volume: float | None = None) -> None:
        self.density, self.comm = density, density.comm
        self.rho = density.rho
        total = float(self.comm.allreduce(float(volumes.sum()))) if volume is None else float(volume)
        self._share = volumes / total

    def value(self) -> float:
        """The mean at the present density."""
        return float(self.comm.allreduce(float(self._share @ self.density.values)))

    def derivative(self) -> Array:
        """d mean/dρ as a dual vector over owned cells."""
        return np.array(self._share)


class ReducedFunctional:
    """A functional as a function of the design variable m alone: density map, state and value in one call.

    Args:
        functional: the functional.
        density: the map from m to its density; None if m is the density itself, which needs a mesh.
    Raises:
        ValueError: a functional on voxels without its density map.
    """

    def __init__(self, functional: Any, density: Any | None = None) -> None:
        if density is None and functional.rho is None:
            raise ValueError("a functional on voxels needs its density map, found None")
        self.functional, self.density = functional, density
        self.comm = functional.comm

    def __call__(self, m: Array) -> float:
        """J(m). Collective; m holds this rank's values."""
        if self.density is None:
            rho = self.functional.rho
            owned(rho)[:] = m
            rho.x.scatter_forward()
        else:
            self.density.forward(m)
        for state in self.functional.states:
            state.solve()
        return float(self.functional.value())

    def derivative(self) -> Array:
        """dJ/dm at the m of the last call, a dual vector over owned cells."""
        if self.density is None:
            return np.asarray(self.functional.derivative())
        return pull_back(self.functional, self.density)
