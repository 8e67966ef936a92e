"""Case files: what `fetopo design CASE.toml` is asked for, validated before anything runs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator
from scipy import ndimage

from fetopo.case_constraints import Along, ConstraintSection, Positive, Section, direction_of
from fetopo.design.constraints import Specification, VolumeFraction
from fetopo.design.continuation import Continuation, Stage
from fetopo.design.existence import check_pair
from fetopo.design.formulation import make_task
from fetopo.design.goal import MAIN, Goal
from fetopo.design.mma import MMAOptions
from fetopo.design.problem import LoopOptions
from fetopo.microstructure.image import read as read_image
from fetopo.transport import materials

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


#: What an objective can be.
_GOALS = ("maximize", "minimize", "target", "tortuosity", "bruggeman")


#: Where a case does not say: "mesh" or "voxel".
DEFAULT_DISCRETIZATION: Literal["mesh", "voxel"] = "mesh"


class CaseError(ValueError):
    """A case file that cannot be run; the message is one sentence that names the key."""


class CellSection(Section):
    """The periodic cell: voxels per axis and edge lengths in metres (default: the longest edge is 1)."""

    shape: Annotated[list[Count], Field(min_length=2, max_length=3)]
    lengths: list[Positive] | None = None
    symmetry: Literal["x", "y", "z", "xy", "xz", "yz", "xyz", "square", "cubic"] | None = None


class MaterialSection(Section):
    """Conductivities of the two materials, the poorer first, and the law between them."""

    conductivity: Annotated[list[NonNegative], Field(min_length=2, max_length=2)]
    volume_fraction: Annotated[float, Field(gt=0, lt=1)]
    interpolation: Literal["simp", "ramp", "hashin-shtrikman"] = "simp"
    penalty: Annotated[float, Field(ge=0, le=20)] = 3.0


class ObjectiveSection(Section):
    """One of `maximize`, `minimize`, `target`, `tortuosity` and `bruggeman`; for which transports."""

    maximize: Along | None = None
    minimize: Literal["tortuosity", "bruggeman"] | None = None
    along: Along = "isotropic"
    target: list[list[float]] | None = None
    tortuosity: Positive | None = None
    bruggeman: Positive | None = None
    transports: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = (MAIN,)
    weights: list[Positive] | None = None
    combine: Literal["smaller", "sum"] = "smaller"

    @property
    def key(self) -> str:
        """Which of them is given."""
        given = [key for key in _GOALS if getattr(self, key) is not None]
        return given[0] if len(given) == 1 else ""

    @model_validator(mode="after")
    def _one(self) -> ObjectiveSection:
        if not self.key:
            raise ValueError(f"give exactly one of {', '.join(_GOALS[:-1])} and {_GOALS[-1]}")
        if self.minimize is None and self.along != "isotropic":
            raise ValueError("along goes with minimize; give a direction to maximize itself")
        return self


class TransportSection(Section):
    """A further transport through the two materials: conductivities in the order of `material`."""

    conductivity: Annotated[list[NonNegative], Field(min_length=2, max_length=2)]


class FilterSection(Section):
    """Radius of the density filter, in the unit of the lengths; default three voxels."""

    radius: NonNegative | None = None
    kind: Literal["helmholtz", "convolution"] = "helmholtz"


class PassiveSection(Section):
    """A box that one material fills whatever the design does; corners in the unit of the lengths."""

    phase: Literal[0, 1]
    lower: list[float]
    upper: list[float]


class StartSection(Section):
    """Where the design starts."""

    field: Literal["inclusions", "random"] = "inclusions"
    seed: Annotated[int, Field(ge=0)] = 0
    image: str | None = None
    images: list[str] = Field(default_factory=list)
    phase: list[int] | int = 1


class OptimizerSection(Section):
    """Continuation and stopping."""

    name: Literal["mma", "gcmma", "oc"] = "mma"
    betas: Annotated[list[Positive], Field(min_length=1)] | None = None
    stage_iterations: Count = 30
    final_iterations: Count = 100
    objective_tolerance: Positive = 1e-3
    change_tolerance: Positive = 1e-2
    move: Annotated[float, Field(gt=0, le=1)] = 0.2


class VerifySection(Section):
    """How often each voxel is split along an axis to solve the crisp design again."""

    refine: Annotated[int, Field(ge=1, le=8)] = 2


class Case(Section):
    """A design case."""

    title: str = ""
    discretization: Literal["mesh", "voxel"] = DEFAULT_DISCRETIZATION
    cell: CellSection
    material: MaterialSection
    objective: ObjectiveSection
    transport: dict[str, TransportSection] = Field(default_factory=dict)
    passive: list[PassiveSection] = Field(default_factory=list)
    constraint: list[ConstraintSection] = Field(default_factory=list)
    filter: FilterSection = FilterSection()
    start: StartSection = StartSection()
    optimizer: OptimizerSection = OptimizerSection()
    verify: VerifySection = VerifySection()

    @property
    def dim(self) -> int:
        return len(self.cell.shape)

    @property
    def lengths(self) -> list[float]:
        """Edge lengths in metres."""
        return self.cell.lengths or [n / max(self.cell.shape) for n in self.cell.shape]

    @property
    def voxel_size(self) -> list[float]:
        """Edge lengths of a voxel in metres."""
        return [a / n for a, n in zip(self.lengths, self.cell.shape, strict=True)]

    @property
    def conductivity(self) -> tuple[float, float]:
        return self.material.conductivity[0], self.material.conductivity[1]

    @property
    def filter_radius(self) -> float:
        if self.filter.radius is not None:
            return self.filter.radius
        return 3 * max(self.voxel_size)

    def goal(self) -> Goal:
        """The goal in the terms of :mod:`fetopo.design.goal`."""
        o = self.objective
        weights = None if o.weights is None else tuple(o.weights)
        several: dict[str, Any] = {
            "transports": tuple(o.transports), "weights": weights, "combine": o.combine,
        }  # fmt: skip
        if o.target is not None:
            return Goal("target", target=tuple(tuple(row) for row in o.target), **several)
        if o.maximize is not None:
            direction = direction_of(o.maximize, self.dim)
            return Goal("isotropic" if direction is None else "along", direction, **several)
        if o.minimize is not None:
            return Goal(o.minimize, direction_of(o.along, self.dim), **several)
        value = o.tortuosity if o.tortuosity is not None else o.bruggeman
        return Goal(o.key, value=value, **several)

    @property
    def transports(self) -> dict[str, tuple[float, float]]:
        """Conductivities of further transports."""
        return {name: (t.conductivity[0], t.conductivity[1]) for name, t in self.transport.items()}

    def constraints(self) -> list[Specification]:
        """Constraints in the terms of :mod:`fetopo.design.constraints`."""
        return [section.specification(self.dim) for section in self.constraint]

    def law(self) -> Any:
        """The interpolation law."""
        return materials.law(self.material.interpolation, self.dim)

    def passive_regions(self) -> dict[str, Any] | None:
        """Markers of the boxes that are solid and void; None without any."""
        found = {}
        for name, phase in (("void", 0), ("solid", 1)):
            boxes = [box for box in self.passive if box.phase == phase]
            if boxes:
                found[name] = _inside(boxes)
        return found or None

    def options(self) -> LoopOptions:
        """Options of the loop."""
        o = self.optimizer
        return LoopOptions(
            optimizer=o.name,
            stages=None if o.betas is None else tuple(Stage(self.material.penalty, b) for b in o.betas),
            continuation=Continuation(penalties=(self.material.penalty,)),
            stage_iterations=o.stage_iterations,
            final_iterations=o.final_iterations,
            objective_tolerance=o.objective_tolerance,
            change_tolerance=o.change_tolerance,
            mma=MMAOptions(move=o.move),
        )


def _inside(boxes: list[PassiveSection]) -> Any:
    """Marker of positions (3, n) that lie in one of the boxes."""

    def marker(x: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        inside = np.zeros(x.shape[1], dtype=bool)
        for box in boxes:
            low, high = np.array(box.lower)[:, None], np.array(box.upper)[:, None]
            points = x[: len(low)]
            inside |= ((points >= low) & (points <= high)).all(axis=0)
        return inside

    return marker


def read_case(path: str | Path) -> Case:
    """Read and check a case file.

    Raises:
        CaseError: no such file, not TOML, an unknown key, a wrong type or value, a target that no structure
            has; the message names the file and the key.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CaseError(f"{path}: no such case file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise CaseError(f"{path}: not a TOML file ({error})") from None
    try:
        case = Case.model_validate(_integers_as_floats(data))
    except ValidationError as error:
        raise CaseError(f"{path}: {_sentence(error)}") from None
    _check(case, path)
    return case


def _check(case: Case, path: Path) -> None:
    """What needs several keys at once."""

    def refuse(key: str, error: object) -> CaseError:
        return CaseError(f"{path}: {key}: {error}")

    if len(case.lengths) != case.dim:
        raise refuse(
            "cell.lengths", f"needs {case.dim} numbers as cell.shape does, found {len(case.lengths)}"
        )
    low, high = case.conductivity
    if low >= high:
        raise refuse("material.conductivity", f"the first must be the smaller, found [{low:g}, {high:g}]")
    if case.filter_radius > min(case.lengths) / 2:
        raise refuse(
            "filter.radius",
            f"{case.filter_radius:g} exceeds half the shortest edge, {min(case.lengths) / 2:g}",
        )
    symmetry = case.cell.symmetry
    if symmetry is not None:
        alike = len(set(case.cell.shape)) == 1 and len(set(case.lengths)) == 1
        if {"square": 2, "cubic": 3}.get(symmetry, case.dim) != case.dim or (
            case.dim == 2 and "z" in symmetry
        ):
            raise refuse("cell.symmetry", f"a {case.dim}D cell has no symmetry {symmetry!r}")
        if symmetry in ("square", "cubic") and not alike:
            raise refuse("cell.symmetry", f"{symmetry!r} needs edges and voxels alike along all axes")
    for number, box in enumerate(case.passive, 1):
        if not (len(box.lower) == len(box.upper) == case.dim and np.all(np.less(box.lower, box.upper))):
            raise refuse(
                f"passive {number}",
                f"lower and upper must be corners of a {case.dim}D box, lower first, "
                f"found {box.lower} and {box.upper}",
            )
    if case.filter.kind == "convolution" and case.discretization == "mesh":
        raise refuse("filter.kind", "'convolution' needs the discretization 'voxel'")
    f, radius = case.material.volume_fraction, case.filter_radius
    key = "transport"
    try:
        for name, pair in case.transports.items():
            key = f"transport.{name}.conductivity"
            check_pair(f"transport {name!r}", pair)
        key = f"objective.{case.objective.key}"
        goal = case.goal()
        make_task(case.dim, case.conductivity, f, radius, goal, case.transports)
        # One by one, so that the message can say which; then together.
        specs = []
        for number, section in enumerate(case.constraint, 1):
            key = f"constraint {number} ({section.kind})"
            specs.append(section.specification(case.dim))
        volumes = [spec for spec in specs if isinstance(spec, VolumeFraction)]
        for number, (section, spec) in enumerate(zip(case.constraint, specs, strict=True), 1):
            key = f"constraint {number} ({section.kind})"
            single: list[Specification] = [*volumes]
            if not isinstance(spec, VolumeFraction):
                single.append(spec)
            make_task(case.dim, case.conductivity, f, radius, goal, case.transports, single)
        key = "constraint"
        make_task(case.dim, case.conductivity, f, radius, goal, case.transports, case.constraints())
    except ValueError as error:
        raise refuse(key, error) from None
    named = [] if case.start.image is None else [("start.image", case.start.image)]
    for key, name in [*named, *(("start.images", name) for name in case.start.images)]:
        if not (path.parent / name).is_file():
            raise refuse(key, f"no such file: {path.parent / name}")


def _integers_as_floats(value: Any, key: str = "") -> Any:
    """TOML tells 1 from 1.0, a person who writes a length does not; counts and seeds stay integers."""
    if isinstance(value, dict):
        return {name: _integers_as_floats(item, name) for name, item in value.items()}
    if key in ("shape", "seed", "phase", "refine", "stage_iterations", "final_iterations"):
        return value
    if isinstance(value, list):
        return [_integers_as_floats(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _sentence(error: ValidationError) -> str:
    """The first problem as one sentence."""
    first = error.errors()[0]
    # Where a key takes one of several types, pydantic names the alternatives: only the key matters.
    known = [
        str(part) for part in first["loc"] if not str(part).startswith(("literal[", "list[", "constrained"))
    ]
    key = ".".join(part for part in known if part not in ("int", "float", "str"))
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}"
    if first["type"] == "missing":
        return f"missing key {key}"
    message = first["msg"].removeprefix("Value error, ")
    found = first.get("input")
    shown = "" if isinstance(found, dict) else f", found {found!r}"
    return f"{key}: {message[0].lower()}{message[1:]}{shown}"


def start_from_image(case: Case, path: Path) -> npt.NDArray[np.float64] | None:
    """Initial design from the image a case names: its phase, resampled to the cell and softened.

    Raises:
        CaseError: the image cannot be read, or has another dimension or no such phase.
    """
    if case.start.image is None:
        return None
    # Away from 0 and 1 the projection still has a slope.
    return 0.2 + 0.6 * _resampled(case, path, "start.image", case.start.image)


def images_to_start_from(case: Case, path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """How much of the better material the further images of a case have in each voxel of the cell, by name.

    Raises:
        CaseError: an image cannot be read, or has another dimension or no such phase.
    """
    return {name: _resampled(case, path, "start.images", name) for name in case.start.images}


def _resampled(case: Case, path: Path, key: str, name: str) -> npt.NDArray[np.float64]:
    """The phase of an image, stretched to the cell."""
    try:
        image = read_image(path.parent / name)
        if image.dim != case.dim:
            raise ValueError(f"the image is {image.dim}D, the cell {case.dim}D")
        mask = image.mask(case.start.phase)
    except (ValueError, OSError) as error:
        raise CaseError(f"{path}: {key}: {error}") from None
    factors = [n / m for n, m in zip(case.cell.shape, mask.shape, strict=True)]
    resampled = ndimage.zoom(mask.astype(float), factors, order=1, mode="grid-wrap", grid_mode=True)
    return np.asarray(np.clip(resampled, 0, 1))
