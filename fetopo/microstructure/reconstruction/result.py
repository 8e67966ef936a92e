"""What a reconstruction returns: the image, how near it came, and how it went."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fetopo._json import plain
from fetopo.figure import new_figure
from fetopo.microstructure.descriptors._common import Field, axes_for
from fetopo.microstructure.image import Image
from fetopo.microstructure.reconstruction.system import System


@dataclass(frozen=True)
class Step:
    """One temperature of an annealing.

    Args:
        sweep: Proposals so far over the number of voxels [-].
        temperature: In units of the energy [-].
        energy: Σ w_t E_t at the end of the step [-].
        acceptance: Share of the proposals taken [-].
    """

    sweep: float
    temperature: float
    energy: float
    acceptance: float


@dataclass(frozen=True, eq=False)
class Reached:
    """A descriptor beside its target.

    Args:
        name: What it is.
        r: Lengths [m]. For S₂ those of single lags, so that a length may occur more than once.
        target: What was wanted.
        value: What the image has. S₂ and lineal path [-]; chords longer than r per voxel [-].
    """

    name: str
    r: Field
    target: Field
    value: Field

    @property
    def error(self) -> float:
        """Largest deviation [-]."""
        return float(np.abs(self.value - self.target).max(initial=0.0))

    @property
    def rms(self) -> float:
        """Root mean square of the deviation [-]."""
        return math.sqrt(float(np.mean((self.value - self.target) ** 2)))


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A reconstructed medium.

    Args:
        image: Labels 0 and 1, a periodic cell.
        energy: Σ w_t E_t of the image [-].
        ended: Criterion that ended the annealing: "tolerance", "frozen", "stalled" or "sweeps".
        history: The steps.
        reached: Every descriptor beside its target.
    """

    image: Image
    energy: float
    ended: str
    history: Sequence[Step]
    reached: Sequence[Reached]

    @property
    def converged(self) -> bool:
        """The energy reached the tolerance."""
        return self.ended == "tolerance"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the image; lengths in metres."""
        return {
            "shape": list(self.image.shape),
            "voxel_size": list(self.image.voxel_size),
            "volume_fraction": self.image.phases.get(1, 0.0),
            "energy": self.energy,
            "ended": self.ended,
            "converged": self.converged,
            "history": [plain(step) for step in self.history],
            "reached": [{**plain(r), "error": r.error, "rms": r.rms} for r in self.reached],
        }

    def plot(self, figure: Any = None) -> Any:
        """Draw the image (in 3D its first section), every descriptor with its target, and the energy; returns
        the figure."""
        count = 2 + len(self.reached)
        figure = figure or new_figure(4.2 * count, 3.8)
        axes = figure.subplots(1, count, squeeze=False)[0]
        section = self.image.labels if self.image.dim == 2 else self.image.labels[:, :, 0]
        axes[0].imshow(section.T, origin="lower", cmap="Blues")
        axes[0].set_xlabel("axis 0 (voxels)")
        axes[0].set_ylabel("axis 1 (voxels)")
        for ax, curve in zip(axes[1:-1], self.reached, strict=True):
            _, unit, scale = axes_for(ax, float(curve.r.max(initial=0.0)))
            ax.plot(curve.r / scale, curve.value, ".", markersize=3, label="reached")
            ax.plot(
                curve.r / scale, curve.target, "k,-" if np.all(np.diff(curve.r) > 0) else "k,", label="target"
            )
            ax.set_xlabel(f"r{unit}")
            ax.set_title(curve.name, fontsize="medium")
            ax.legend()
        if self.history:
            axes[-1].semilogy([s.sweep for s in self.history], [s.energy for s in self.history])
        axes[-1].set_xlabel("proposals per voxel (-)")
        axes[-1].set_ylabel("energy (-)")
        axes[-1].set_title(f"ended by: {self.ended}", fontsize="medium")
        return figure


def reached(system: System, sides: Sequence[float]) -> list[Reached]:
    """Every descriptor of a system beside its target."""
    found = []
    if system.rows.target.size:
        found.append(Reached("S₂", system.rows.length, system.rows.target, system.correlation()))
    for block, (path, chord) in zip(system.blocks, system.lines(), strict=True):
        at = f"phase {block.phase} along axis {block.axis}"
        for name, weight, target, value in (
            ("lineal path", block.path_weight, block.path, path),
            ("chords longer than r per voxel", block.chord_weight, block.chord, chord),
        ):
            wanted = np.flatnonzero(weight)
            if wanted.size:
                r: Field = np.asarray(wanted * sides[block.axis], dtype=np.float64)
                found.append(Reached(f"{name}, {at}", r, target[wanted], value[wanted]))
    return found
