"""What is asked of temperatures beside forms: their peak, and several load cases at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from dolfinx import fem
from mpi4py import MPI

from fetopo.design.adjoint import FormFunctional
from fetopo.design.heat import HeatModel
from fetopo.design.loads import HeatState, Region, indicator
from fetopo.transport.quadrature import measure
from fetopo.transport.state import owned

Array = npt.NDArray[np.float64]


class PeakTemperature:
    """p-norm of the temperature in a region, which tends to its largest value: (1/|R| ∫ |T|ᵖ dx)^(1/p).

    Args:
        model: the model.
        state: one of its load cases.
        region: R.
        exponent: p, 2 or more.
    Raises:
        ValueError: an exponent below 2.
    """

    def __init__(
        self, model: HeatModel, state: HeatState, region: Region = None, exponent: float = 16.0
    ) -> None:
        if not 2 <= exponent < np.inf:
            raise ValueError(f"the exponent of the norm must be at least 2, found {exponent}")
        self.exponent, self.comm, self.rho = float(exponent), model.comm, model.rho
        mesh = model.cell.mesh
        inside, dx = indicator(model.cell, region), measure(mesh, 4, model.cell)
        volume = self.comm.allreduce(fem.assemble_scalar(fem.form(inside * dx)))
        # High powers of small or large numbers leave the range of floating point.
        self._scale = fem.Constant(mesh, 1.0)
        J = inside * abs(state.T / self._scale) ** self.exponent / volume * dx
        self._power = FormFunctional(J, model.rho, state)
        self.states = self._power.states

    def _value(self) -> float:
        T = owned(self.states[0].T)
        largest = float(self.comm.allreduce(float(np.abs(T).max(initial=0.0)), op=MPI.MAX))
        self._scale.value = largest or 1.0
        return float(self._power.value())

    def value(self) -> float:
        """The norm at the present state."""
        return float(self._value() ** (1 / self.exponent) * self._scale.value)

    def derivative(self) -> Array:
        """Its derivative as a dual vector."""
        value = self._value()
        slope = float(self._scale.value) * value ** (1 / self.exponent - 1) / self.exponent if value else 0.0
        return slope * self._power.derivative()


class WeightedSum:
    """Σ wᵢJᵢ of functionals, e.g. of several load cases.

    Args:
        functionals: the Jᵢ.
        weights: the wᵢ; default all 1.
    Raises:
        ValueError: another number of weights.
    """

    def __init__(self, functionals: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        self.functionals = list(functionals)
        self.weights = [1.0] * len(self.functionals) if weights is None else [float(w) for w in weights]
        if len(self.weights) != len(self.functionals):
            raise ValueError(f"{len(self.functionals)} weights are needed, found {len(self.weights)}")
        self.comm, self.rho = self.functionals[0].comm, self.functionals[0].rho
        unique = {id(s): s for J in self.functionals for s in J.states}
        self.states = tuple(unique.values())

    def value(self) -> float:
        """The sum at the present states."""
        return float(sum(w * J.value() for w, J in zip(self.weights, self.functionals, strict=True)))

    def derivative(self) -> Array:
        """Its derivative as a dual vector."""
        terms = [w * J.derivative() for w, J in zip(self.weights, self.functionals, strict=True)]
        return np.sum(terms, axis=0)
