"""Effective conductivity of a cell: from periodic correctors, and under other conditions on its faces.

Conduction stands for any linear transport with a flux −κ∇u: heat, electric charge, diffusion.
"""

from fetopo.transport.homogenization.conductivity import (
    Conductivity,
    checked_conductivity,
    conductivity_field,
)
from fetopo.transport.homogenization.effective import EffectiveConductivity, effective_conductivity
from fetopo.transport.homogenization.flux import FluxProblem
from fetopo.transport.homogenization.image import ImageConductivity, image_conductivity
from fetopo.transport.homogenization.problem import CellProblem

__all__ = [
    "CellProblem", "Conductivity", "EffectiveConductivity", "FluxProblem", "ImageConductivity",
    "checked_conductivity", "conductivity_field", "effective_conductivity", "image_conductivity",
]  # fmt: skip
