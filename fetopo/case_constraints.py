"""The `[[constraint]]` sections of a case file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fetopo.design import constraints as asked
from fetopo.design.goal import MAIN

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Axis = Literal["x", "y", "z"]
Along = Literal["isotropic", "x", "y", "z"] | list[float]

_AXES = {"x": 0, "y": 1, "z": 2}


class Section(BaseModel):
    """A section of a case file: no keys but its own, no conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def axis_of(name: str, dim: int) -> int:
    axis = _AXES[name]
    if axis >= dim:
        raise ValueError(f"a {dim}D cell has no axis {name!r}")
    return axis


def direction_of(along: str | list[float], dim: int) -> tuple[float, ...] | None:
    """A direction by axis or components; None for all of them."""
    if along == "isotropic":
        return None
    return asked.unit(axis_of(along, dim), dim) if isinstance(along, str) else tuple(along)


class VolumeConstraint(Section):
    """Volume fraction of the second material."""

    kind: Literal["volume"]
    at_least: Fraction | None = None
    at_most: Fraction | None = None
    equal: Fraction | None = None

    def specification(self, dim: int) -> asked.Specification:
        return asked.VolumeFraction(self.at_least, self.at_most, self.equal)


class IsotropyConstraint(Section):
    """What depends on the direction, relative to the mean."""

    kind: Literal["isotropy"]
    at_most: Positive
    transport: str = MAIN

    def specification(self, dim: int) -> asked.Specification:
        return asked.Isotropy(self.at_most, self.transport)


class ConductivityConstraint(Section):
    """A floor on a conductivity."""

    kind: Literal["conductivity"]
    at_least: Positive
    transport: str = MAIN
    along: Along = "isotropic"

    def specification(self, dim: int) -> asked.Specification:
        return asked.LeastConductivity(self.at_least, self.transport, direction_of(self.along, dim))


class LengthConstraint(Section):
    """A smallest length of one phase or both."""

    kind: Literal["length"]
    at_least: Positive
    phase: Literal[0, 1] | None = None

    def specification(self, dim: int) -> asked.Specification:
        return asked.SmallestLength(self.at_least, self.phase)


class InterfaceConstraint(Section):
    """Area of the interface per volume."""

    kind: Literal["interface"]
    at_least: Positive | None = None
    at_most: Positive | None = None

    def specification(self, dim: int) -> asked.Specification:
        return asked.Interface(self.at_least, self.at_most)


class ConnectedConstraint(Section):
    """A phase is connected along axes."""

    kind: Literal["connected"]
    phase: Literal[0, 1]
    along: list[Literal["x", "y", "z"]] | None = None
    share: Fraction = 0.1

    def specification(self, dim: int) -> asked.Specification:
        axes = None if self.along is None else tuple(axis_of(name, dim) for name in self.along)
        return asked.Connected(self.phase, axes, self.share)


ConstraintSection = Annotated[
    VolumeConstraint
    | IsotropyConstraint
    | ConductivityConstraint
    | LengthConstraint
    | InterfaceConstraint
    | ConnectedConstraint,
    Field(discriminator="kind"),
]
