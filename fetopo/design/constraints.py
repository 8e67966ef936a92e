"""Constraints of a design by what they ask for; each becomes constraints on functionals of its model.

Every specification has `check(setting)`, which raises ValueError with one sentence where no structure can be
what it asks for, and `build(model, setting)`, which makes :class:`fetopo.design.problem.Constraint`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from fetopo.design import functionals
from fetopo.design.existence import Pair, duality_limit, most
from fetopo.design.goal import MAIN
from fetopo.design.interface import InterfaceArea
from fetopo.design.length_scale import TOLERANCE, LengthScale, eroded_threshold
from fetopo.design.model import CellModel
from fetopo.design.problem import Constraint

#: By how much an equality may be missed, relative to its value: along an exact one the optimizer, whose
#: approximations are convex, cannot move.
SLACK = 0.01

AXES = "xyz"


@dataclass
class Setting:
    """What constraints are checked against and made from.

    Attributes:
        dim: 2 or 3.
        volume_fraction: of the material with ρ = 1, that the design was asked for.
        filter_radius: of the density filter.
        conductivities: of each transport by name, where ρ = 0 and where ρ = 1.
        fractions: least and largest volume fraction that the constraints allow.
        state: from a name to its state, or from the conductivities of a virtual transport; made once.
    """

    dim: int
    volume_fraction: float
    filter_radius: float
    conductivities: Mapping[str, Pair]
    fractions: tuple[float, float] = (0.0, 1.0)
    state: Callable[[str | Pair], Any] = field(default=lambda which: None)

    def pair(self, name: str) -> Pair:
        """Conductivities of a transport.

        Raises:
            ValueError: another name.
        """
        if name not in self.conductivities:
            raise ValueError(f"no transport {name!r}; there are {', '.join(self.conductivities)}")
        return self.conductivities[name]


class Specification(Protocol):
    """What a constraint asks for."""

    def check(self, setting: Setting) -> None: ...

    def build(self, model: CellModel, setting: Setting) -> list[Constraint]: ...


def _positive(what: str, value: float | None) -> None:
    if value is not None and not (np.isfinite(value) and value > 0):
        raise ValueError(f"{what} must be positive, found {value}")


def _bounded(what: str, functional: Any, at_least: float | None, at_most: float | None) -> list[Constraint]:
    found = []
    if at_most is not None:
        found.append(Constraint(what, functional, at_most))
    if at_least is not None:
        found.append(Constraint(f"least_{what}", functional, at_least, "at least"))
    return found


def axis_name(direction: Sequence[float]) -> str:
    """x, y, z for an axis, else the components."""
    n = np.asarray(direction, dtype=float)
    if np.count_nonzero(n) == 1:
        return AXES[int(np.argmax(np.abs(n)))]
    return "(" + ",".join(f"{v:g}" for v in n) + ")"


def unit(axis: int, dim: int) -> tuple[float, ...]:
    """Direction of an axis."""
    return tuple(float(i == axis) for i in range(dim))


@dataclass(frozen=True)
class VolumeFraction:
    """Volume fraction of the material with ρ = 1, between two values or at one (to 1 %).

    It replaces the limit that the volume fraction of the design is otherwise.

    Attributes:
        at_least, at_most, equal: fractions in (0, 1).
    """

    at_least: float | None = None
    at_most: float | None = None
    equal: float | None = None

    def __post_init__(self) -> None:
        given = (self.at_least, self.at_most, self.equal)
        if all(v is None for v in given) or (self.equal is not None and given[:2] != (None, None)):
            raise ValueError("a volume fraction is constrained by at_least, at_most or both, or by equal")
        for value in given:
            if value is not None and not 0 < value < 1:
                raise ValueError(f"a volume fraction must lie between 0 and 1, found {value}")

    @property
    def range(self) -> tuple[float, float]:
        """Least and largest fraction."""
        if self.equal is not None:
            return self.equal * (1 - SLACK), self.equal
        return self.at_least or 0.0, self.at_most or 1.0

    def check(self, setting: Setting) -> None:
        low, high = setting.fractions
        if low > high:
            raise ValueError(f"no volume fraction is at least {low:g} and at most {high:g}")

    def build(self, model: CellModel, setting: Setting) -> list[Constraint]:
        low, high = self.range
        limits = low if low > 0 else None, high if high < 1 else None
        return _bounded("volume", model.mean_density(), *limits)


@dataclass(frozen=True)
class Isotropy:
    """The part of the effective tensor that depends on the direction, relative to its mean.

    ‖D − (tr D/d) I‖/‖(tr D/d) I‖ ≤ a

    Attributes:
        at_most: a.
        transport: whose tensor.
    """

    at_most: float
    transport: str = MAIN

    def __post_init__(self) -> None:
        _positive("the allowed anisotropy", self.at_most)

    def check(self, setting: Setting) -> None:
        setting.pair(self.transport)

    def build(self, model: CellModel, setting: Setting) -> list[Constraint]:
        # The root has no slope where it is zero: a little is added under it, and to the bound.
        smoothing = 0.1 * self.at_most
        functional = model.tensor_functional(setting.state(self.transport), functionals.anisotropy(smoothing))
        return [Constraint("anisotropy", functional, float(np.hypot(self.at_most, smoothing)))]


@dataclass(frozen=True)
class LeastConductivity:
    """A floor on the effective conductivity of a transport, n·D n ≥ c or d/tr(D⁻¹) ≥ c.

    Attributes:
        at_least: c, in the unit of the conductivities.
        transport: name; "main" is that of the design itself.
        along: direction n; None for all directions at once.
    """

    at_least: float
    transport: str = MAIN
    along: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _positive("the least conductivity", self.at_least)
        if self.along is not None:
            functionals.conductivity_along(self.along)

    def check(self, setting: Setting) -> None:
        pair = setting.pair(self.transport)
        if self.along is not None and len(self.along) != setting.dim:
            raise ValueError(f"the direction must have {setting.dim} components, found {list(self.along)}")
        limit = most(self.along, pair, setting.fractions, setting.dim)
        if self.at_least > limit * (1 + 1e-9):
            where = "in every direction" if self.along is None else f"along {axis_name(self.along)}"
            raise ValueError(
                f"no structure conducts {self.transport!r} {where} by {self.at_least:g}: with these volume "
                f"fractions the most that exists is {limit:.6g}"
            )

    def build(self, model: CellModel, setting: Setting) -> list[Constraint]:
        function: functionals.TensorFunction = functionals.harmonic_conductivity
        where = ""
        if self.along is not None:
            function, where = functionals.conductivity_along(self.along), f"_{axis_name(self.along)}"
        functional = model.tensor_functional(setting.state(self.transport), function)
        return [Constraint(f"{self.transport}{where}", functional, self.at_least, "at least")]


@dataclass(frozen=True)
class SmallestLength:
    """No feature of a phase is thinner than a length, see :class:`fetopo.design.length_scale.LengthScale`.

    Attributes:
        length: in the unit of the cell; up to 1.5 radii of the filter.
        phase: 1 or 0, the density of the phase; None for both.
        tolerance: mean square by which the filtered field may miss it.
    """

    length: float
    phase: Literal[0, 1] | None = None
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        _positive("the smallest length", self.length)
        _positive("the tolerance", self.tolerance)
        if self.phase not in (None, 0, 1):
            raise ValueError(f"a phase is 0 or 1, found {self.phase}")

    def check(self, setting: Setting) -> None:
        eroded_threshold(self.length, setting.filter_radius)

    def build(self, model: CellModel, setting: Setting) -> list[Constraint]:
        phases: tuple[Literal[0, 1], ...] = (0, 1) if self.phase is None else (self.phase,)
        return [
            Constraint(
                f"length_{phase}",
                LengthScale(
                    model.density, model.filter, model.projection, model.cell, model.volumes, self.length,
                    phase=phase, tolerance=self.tolerance, volume=model.volume,
                ),
                1.0,
            )
            for phase in phases
        ]  # fmt: skip


@dataclass(frozen=True)
class Interface:
    """Area of the interface per volume (in 2D length per area), see :class:`InterfaceArea`.

    Attributes:
        at_least, at_most: in one over the unit of the cell.
    """

    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError("an interface is constrained by at_least, at_most or both")
        for value in (self.at_least, self.at_most):
            _positive("an area of interface per volume", value)

    def check(self, setting: Setting) -> None:
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(
                f"no area of interface is at least {self.at_least:g} and at most {self.at_most:g}"
            )

    def build(self, model: CellModel, setting: Setting) -> list[Constraint]:
        area = InterfaceArea(model.density, model.cell, model.volumes, model.volume)
        return _bounded("interface", area, self.at_least, self.at_most)


@dataclass(frozen=True)
class Connected:
    """A phase is connected through the periodic cell: something could flow through it alone.

    A virtual transport has conductivity 1 in the phase and none in the other. Its effective conductivity
    along each axis must reach a share of what straight channels of the whole phase have, its volume fraction.

    Attributes:
        phase: 1 or 0, the density of the phase.
        along: axes, 0, 1, 2; None for all.
        share: in (0, 1).
    """

    phase: Literal[0, 1]
    along: tuple[int, ...] | None = None
    share: float = 0.1

    def __post_init__(self) -> None:
        if self.phase not in (0, 1):
            raise ValueError(f"a phase is 0 or 1, found {self.phase}")
        if not 0 < self.share < 1:
            raise ValueError(f"the share must lie between 0 and 1, found {self.share}")

    @property
    def pair(self) -> Pair:
        """Conductivities of the virtual transport."""
        return (0.0, 1.0) if self.phase == 1 else (1.0, 0.0)

    def axes(self, dim: int) -> tuple[int, ...]:
        """The axes.

        Raises:
            ValueError: one that the cell does not have.
        """
        axes = tuple(range(dim)) if self.along is None else self.along
        if not axes or not set(axes) <= set(range(dim)):
            raise ValueError(f"a {dim}D cell has axes 0 to {dim - 1}, found {list(axes)}")
        return axes

    def check(self, setting: Setting) -> None:
        axes = self.axes(setting.dim)
        f = setting.volume_fraction if self.phase == 1 else 1 - setting.volume_fraction
        if len(axes) == setting.dim:
            limit = most(None, self.pair, (setting.volume_fraction,) * 2, setting.dim) / f
            if self.share > limit:
                raise ValueError(
                    f"no structure connects phase {self.phase} along every axis with a share of "
                    f"{self.share:g}: the most that exists is {limit:.6g}"
                )

    def build(self, model: CellModel, setting: Setting) -> list[Constraint]:
        f = setting.volume_fraction if self.phase == 1 else 1 - setting.volume_fraction
        state = setting.state(self.pair)
        return [
            Constraint(
                f"connected_{self.phase}_{AXES[axis]}",
                model.tensor_functional(state, functionals.conductivity_along(unit(axis, setting.dim))),
                self.share * f,
                "at least",
            )
            for axis in self.axes(setting.dim)
        ]


def settle(setting: Setting, constraints: Sequence[Specification], *, fixed: bool) -> list[Specification]:
    """Constraints with that on the volume fraction, all checked, alone and together.

    Args:
        setting: its `fractions` are set.
        constraints: as the user gave them.
        fixed: whether the volume fraction is held, not only limited, where no constraint says so.
    Raises:
        ValueError: what they ask for does not exist.
    """
    volumes = [c for c in constraints if isinstance(c, VolumeFraction)]
    specs: list[Specification] = list(constraints)
    if not volumes:
        f = setting.volume_fraction
        volumes = [VolumeFraction(equal=f) if fixed else VolumeFraction(at_most=f)]
        specs = [*volumes, *specs]
    setting.fractions = max(v.range[0] for v in volumes), min(v.range[1] for v in volumes)
    for spec in specs:
        spec.check(setting)
    if setting.dim == 2:
        _check_duality(setting, specs)
    return specs


def _check_duality(setting: Setting, specs: Sequence[Specification]) -> None:
    """In two dimensions one phase that is connected in every direction encloses the other."""
    floors: list[tuple[str, Pair, float]] = []
    for spec in specs:
        if isinstance(spec, LeastConductivity) and spec.along is None:
            floors.append((f"transport {spec.transport!r}", setting.pair(spec.transport), spec.at_least))
        if isinstance(spec, Connected) and len(set(spec.axes(2))) == 2:
            f = setting.volume_fraction if spec.phase == 1 else 1 - setting.volume_fraction
            floors.append((f"phase {spec.phase}", spec.pair, spec.share * f))
    for i, (name, pair, floor) in enumerate(floors):
        for other, second, least in floors[:i]:
            limit = duality_limit(pair, second)
            if floor * least > limit * (1 + 1e-9):
                raise ValueError(
                    f"no structure in two dimensions conducts through {other} by {least:g} and {name} "
                    f"by {floor:g} in every direction: the most that their product can be is {limit:.6g}"
                )
