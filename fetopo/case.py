"""Case files: what `fetopo design CASE.toml` is asked for, validated before anything runs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy import ndimage

from fetopo.design.continuation import Continuation, Stage
from fetopo.design.goal import Goal, check_design
from fetopo.design.mma import MMAOptions
from fetopo.design.problem import LoopOptions
from fetopo.microstructure.image import read as read_image
from fetopo.transport import materials

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]

_AXES = {"x": 0, "y": 1, "z": 2}


#: Where a case does not say: "mesh" or "voxel".
DEFAULT_DISCRETIZATION: Literal["mesh", "voxel"] = "mesh"


class CaseError(ValueError):
    """A case file that cannot be run; the message is one sentence that names the key."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CellSection(_Section):
    """The periodic cell: voxels per axis and edge lengths in metres (default: the longest edge is 1)."""

    shape: Annotated[list[Count], Field(min_length=2, max_length=3)]
    lengths: list[Positive] | None = None


class MaterialSection(_Section):
    """Conductivities of the two materials, the poorer first, and the law between them."""

    conductivity: Annotated[list[NonNegative], Field(min_length=2, max_length=2)]
    volume_fraction: Annotated[float, Field(gt=0, lt=1)]
    interpolation: Literal["simp", "ramp"] = "simp"
    penalty: Annotated[float, Field(ge=0, le=20)] = 3.0


class ObjectiveSection(_Section):
    """Either `maximize` or `target`."""

    maximize: Literal["isotropic", "x", "y", "z"] | list[float] | None = None
    target: list[list[float]] | None = None

    @model_validator(mode="after")
    def _one(self) -> ObjectiveSection:
        if (self.maximize is None) == (self.target is None):
            raise ValueError("give exactly one of maximize and target")
        return self


class FilterSection(_Section):
    """Radius of the density filter, in the unit of the lengths; default three voxels."""

    radius: NonNegative | None = None


class StartSection(_Section):
    """Where the design starts."""

    field: Literal["inclusions", "random"] = "inclusions"
    seed: Annotated[int, Field(ge=0)] = 0
    image: str | None = None
    phase: list[int] | int = 1


class OptimizerSection(_Section):
    """Continuation and stopping."""

    betas: Annotated[list[Positive], Field(min_length=1)] | None = None
    stage_iterations: Count = 30
    final_iterations: Count = 100
    objective_tolerance: Positive = 1e-3
    change_tolerance: Positive = 1e-2
    move: Annotated[float, Field(gt=0, le=1)] = 0.2


class VerifySection(_Section):
    """How often each voxel is split along an axis to solve the crisp design again."""

    refine: Annotated[int, Field(ge=1, le=8)] = 2


class Case(_Section):
    """A design case."""

    title: str = ""
    discretization: Literal["mesh", "voxel"] = DEFAULT_DISCRETIZATION
    cell: CellSection
    material: MaterialSection
    objective: ObjectiveSection
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
        if o.target is not None:
            return Goal("target", target=tuple(tuple(row) for row in o.target))
        if o.maximize == "isotropic":
            return Goal()
        if isinstance(o.maximize, str):
            axis = _AXES[o.maximize]
            if axis >= self.dim:
                raise ValueError(f"a {self.dim}D cell has no axis {o.maximize!r}")
            return Goal("along", tuple(float(i == axis) for i in range(self.dim)))
        return Goal("along", tuple(o.maximize or ()))

    def law(self) -> Any:
        """The interpolation law."""
        return {"simp": materials.simp, "ramp": materials.ramp}[self.material.interpolation]

    def options(self) -> LoopOptions:
        """Options of the loop."""
        o = self.optimizer
        return LoopOptions(
            stages=None if o.betas is None else tuple(Stage(self.material.penalty, b) for b in o.betas),
            continuation=Continuation(penalties=(self.material.penalty,)),
            stage_iterations=o.stage_iterations,
            final_iterations=o.final_iterations,
            objective_tolerance=o.objective_tolerance,
            change_tolerance=o.change_tolerance,
            mma=MMAOptions(move=o.move),
        )


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
    key = "objective.target" if case.objective.target is not None else "objective.maximize"
    low, high = case.conductivity
    if low >= high:
        raise refuse("material.conductivity", f"the first must be the smaller, found [{low:g}, {high:g}]")
    if case.filter_radius > min(case.lengths) / 2:
        raise refuse(
            "filter.radius",
            f"{case.filter_radius:g} exceeds half the shortest edge, {min(case.lengths) / 2:g}",
        )
    try:
        goal = case.goal()
        goal.function()
        check_design(case.dim, case.conductivity, case.material.volume_fraction, goal)
    except ValueError as error:
        raise refuse(key, error) from None
    if case.start.image is not None:
        image = path.parent / case.start.image
        if not image.is_file():
            raise refuse("start.image", f"no such file: {image}")


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
    file = path.parent / case.start.image
    try:
        image = read_image(file)
        if image.dim != case.dim:
            raise ValueError(f"the image is {image.dim}D, the cell {case.dim}D")
        mask = image.mask(case.start.phase)
    except (ValueError, OSError) as error:
        raise CaseError(f"{path}: start.image: {error}") from None
    factors = [n / m for n, m in zip(case.cell.shape, mask.shape, strict=True)]
    resampled = ndimage.zoom(mask.astype(float), factors, order=1, mode="grid-wrap", grid_mode=True)
    # Away from 0 and 1 the projection still has a slope.
    return 0.2 + 0.6 * np.clip(resampled, 0, 1)
