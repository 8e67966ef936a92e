"""Yeong–Torquato reconstruction: voxels exchanged at a falling temperature until the descriptors match."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fetopo.microstructure.descriptors import LinealPath, TwoPointCorrelation, TwoPointMap
from fetopo.microstructure.generate._cell import cell_of
from fetopo.microstructure.image import DEFAULT_VOXEL_SIZE, Image, VoxelSize
from fetopo.microstructure.reconstruction.grid import blocks_of, rows_of
from fetopo.microstructure.reconstruction.result import Reconstruction, Step, reached
from fetopo.microstructure.reconstruction.start import starting_mask
from fetopo.microstructure.reconstruction.system import System
from fetopo.microstructure.reconstruction.targets import LineTarget, Target

logger = logging.getLogger(__name__)

STALL_STEPS = 20
"""Steps over which the lowest energy must fall by 1 %."""


@dataclass(frozen=True)
class Annealing:
    """How a reconstruction cools and when it ends.

    Args:
        tolerance: Energy at which the targets count as met [-]. 1e-4 is a root mean square deviation of 1 %
            of each target (of its variation, for S₂).
        maximal_sweeps: Proposals at most, in multiples of the number of voxels.
        cooling: Factor on the temperature after each step, below 1.
        step: Proposals per step, in multiples of the number of voxels.
        acceptance: Share of the increases that the first temperature takes.
        frozen: Share of the proposals taken below which the annealing ends.
        anywhere: Share of the proposals that take any voxel, not one at the interface.
    """

    tolerance: float = 1e-4
    maximal_sweeps: float = 500.0
    cooling: float = 0.8
    step: float = 1.0
    acceptance: float = 0.2
    frozen: float = 2e-4
    anywhere: float = 0.05

    def __post_init__(self) -> None:
        positive = {"tolerance": self.tolerance, "maximal_sweeps": self.maximal_sweeps, "step": self.step}
        for name, value in positive.items():
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} is {value}: expected a positive number")
        shares = {"cooling": self.cooling, "acceptance": self.acceptance}
        for name, value in shares.items():
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name} is {value}: expected a number between 0 and 1")
        for name, value in {"frozen": self.frozen, "anywhere": self.anywhere}.items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} is {value}: expected 0 to 1")


def reconstruct(
    shape: Sequence[int],
    targets: Sequence[Target],
    *,
    seed: int,
    volume_fraction: float | None = None,
    voxel_size: VoxelSize = DEFAULT_VOXEL_SIZE,
    start: str | Image = "informed",
    options: Annealing | None = None,
    callback: Callable[[Step], None] | None = None,
) -> Reconstruction:
    """Find a periodic two-phase medium with given descriptors.

        E = Σ_t w_t E_t → min   over images with round(φN) voxels of phase 1

    E_t is the squared deviation from target t relative to the target (see `match_two_point` and its kin).
    Two voxels of different phases, mostly at the interface, are exchanged with the probability
    min(1, exp(−ΔE/T)). The first T takes the share `acceptance` of the increases; it
    falls by `cooling` a step.
    It ends by the first of: "tolerance", E is low enough; "frozen", hardly an exchange is taken; "stalled",
    the lowest E fell by less than 1 % in 20 steps; "sweeps", as many as allowed. Counts are whole numbers and
    updated per exchange. The same seed gives the same image.

    Args:
        shape: Voxels along each axis, 2D or 3D.
        targets: What to match: `match_two_point`, `match_lineal_path`, `match_chord_lengths`, `targets_from`.
        seed: Seed of the random numbers.
        volume_fraction: Fraction φ of phase 1 [-], met to one voxel; None takes it from measured targets.
        voxel_size: Side of a voxel [m], one or one per axis.
        start: "informed", a Gaussian field cut so that its S₂ is near the one wanted, where it is wanted for
            all lags or averages of them, else random; "random"; or an image with labels 0 and 1.
        options: Cooling and stopping.
        callback: Called after every step with its record.

    Returns:
        The image, how near it came to each target, the history and the criterion that ended it.

    Raises:
        ValueError: No target, a target that no medium has, a fraction that is unknown, out of range or not
            that of the targets, a start of another shape or fraction.

    Source:
        Yeong, Torquato, Phys. Rev. E 57, 495 (1998), doi:10.1103/PhysRevE.57.495; exchanges at the interface:
        Tang, Teng, He, Comput. Mater. Sci. 46, 9 (2009).
    """
    shape, sides = cell_of(shape, voxel_size)
    options = options or Annealing()
    if not targets:
        raise ValueError("targets is empty: expected one or more")
    if volume_fraction is None:
        volume_fraction = _known_fraction(targets)
        if volume_fraction is None:
            raise ValueError("volume_fraction is None: expected a number where the targets are formulas")
    count = round(volume_fraction * math.prod(shape))
    if not (0.0 < volume_fraction < 1.0 and 0 < count < math.prod(shape)):
        raise ValueError(
            f"volume_fraction is {volume_fraction}: expected between 0 and 1, and a voxel of each phase"
        )
    rows = rows_of(targets, shape, sides, volume_fraction)
    blocks = blocks_of(targets, shape, sides, volume_fraction)
    rng = np.random.default_rng(seed)
    mask = starting_mask(start, targets, rng, shape, sides, volume_fraction, count)
    system = System(mask, rows, blocks, int(rng.integers(2**63)), options.anywhere)
    history, ended = anneal(system, options, callback)
    return Reconstruction(
        image=Image(system.mask.astype(np.uint8), sides),
        energy=system.energy,
        ended=ended,
        history=history,
        reached=reached(system, sides),
    )


def anneal(
    system: System, options: Annealing, callback: Callable[[Step], None] | None = None
) -> tuple[list[Step], str]:
    """Cool a system until a criterion ends it; the history, and the name of the criterion."""
    voxels = math.prod(system.mask_shape)
    per_step = max(100, round(options.step * voxels))
    start = system.energy
    history: list[Step] = []
    if start <= options.tolerance:
        return history, "tolerance"
    # What increases look like at the start, without moving far from it.
    _, _, _, rise, rises = system.run(min(per_step, 500), 1e-300, options.tolerance)
    temperature = rise / max(rises, 1.0) / -math.log(options.acceptance) if rise else 1e-12
    lowest: list[float] = []
    done = 0
    while True:
        taken, energy, low, _, _ = system.run(per_step, temperature, options.tolerance)
        done += per_step
        lowest.append(min(low, lowest[-1]) if lowest else low)
        history.append(Step(done / voxels, temperature, energy, taken / per_step))
        logger.info(
            "sweep %.0f: temperature %.2e, energy %.3e (wanted %.1e), %.2f %% taken",
            done / voxels, temperature, energy, options.tolerance, 100.0 * taken / per_step,
        )  # fmt: skip
        if callback is not None:
            callback(history[-1])
        if energy <= options.tolerance:
            return history, "tolerance"
        if taken < options.frozen * per_step:
            return history, "frozen"
        if len(lowest) > STALL_STEPS and lowest[-1] > 0.99 * lowest[-1 - STALL_STEPS]:
            return history, "stalled"
        if done >= options.maximal_sweeps * voxels:
            return history, "sweeps"
        temperature *= options.cooling


def _known_fraction(targets: Sequence[Target]) -> float | None:
    """Volume fraction of phase 1 that measured targets have; None when all are formulas."""
    for target in targets:
        sources: list[object] = (
            list(target.source.values()) if isinstance(target.source, Mapping) else [target.source]
        )
        for source in sources:
            if isinstance(source, TwoPointMap):
                return float(source.value.max())
            if isinstance(source, TwoPointCorrelation | LinealPath):
                fraction = float(source.value[0])
                inverse = isinstance(target, LineTarget) and target.phase == 0
                return 1.0 - fraction if inverse else fraction
    return None
