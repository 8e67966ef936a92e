"""Checkpoints of a design run: what it goes on from after a kill, on other ranks or on a finer mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo._json import plain
from fetopo._mpi import get_logger, require
from fetopo.design import _store, _transfer
from fetopo.design._store import CheckpointError, exists
from fetopo.design.continuation import GivenStages, Stage
from fetopo.design.history import Record
from fetopo.transport.voxel import VoxelGrid

if TYPE_CHECKING:
    from fetopo.design.inexact import SolveAccuracy
    from fetopo.design.optimizers import Optimizer
    from fetopo.design.problem import DesignProblem, LoopState

__all__ = ["Checkpoint", "CheckpointError", "exists"]

Array = npt.NDArray[np.float64]

#: What may differ on a finer mesh.
_WITH_MESH = ("filter radius",)


@dataclass(frozen=True)
class Checkpoint:
    """Where a run writes what it can go on from.

    A kill at any moment leaves a good one. A resumed run follows the uninterrupted one: on the same ranks to
    round-off, on others as nearly as runs on other ranks agree at all. On a finer mesh of the same box the
    design is interpolated by position and the optimizer starts anew, which the log says.

    Attributes:
        directory: for checkpoints and nothing else.
        every: iterations between two of them; 0 writes none.
        resume: go on from the last one there; where there is none, start.
        about: what has to be the same in the run that goes on, by name, for the message if it is not.
    Raises:
        ValueError: a negative `every`.
    """

    directory: Path | str
    every: int = 10
    resume: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"every must be at least 0, found {self.every}")

    def open(
        self, problem: DesignProblem, state: LoopState, optimizer: Optimizer, accuracy: SolveAccuracy
    ) -> None:
        """Bring a run to where the last checkpoint was, or clear the directory for a new one. Collective.

        Raises:
            CheckpointError: on every rank; it is damaged, or of another problem.
        """
        place, directory = _Place(problem, state.m.size), Path(self.directory)
        if not self.resume:
            if self.every:
                _store.clear(place.comm, directory)
            return
        log = get_logger(__name__, place.comm)
        snapshot = _store.read(place.comm, directory)
        if snapshot is None:
            log.warning("no checkpoint in %s: the run starts from the beginning", directory)
            return
        manifest = snapshot.manifest
        finer = self._check(problem, place, manifest)
        self._design(snapshot, place, state, optimizer, problem, finer)
        loop = manifest["loop"]
        state.stage, state.index = Stage(*loop["stage"]), loop["index"]
        state.scale, state.seconds = loop["scale"], loop["seconds"]
        problem.history.extend(Record.from_dict(r) for r in manifest["history"])
        if finer:
            log.warning(
                "the checkpoint has %d cells, this run %d: design interpolated, optimizer started anew",
                manifest["cells"], place.cells,
            )  # fmt: skip
        else:
            state.done, state.recent = loop["done"], list(loop["recent"])
            state.finished, state.converged = loop["finished"], loop["converged"]
            accuracy.movement, accuracy.tight = manifest["accuracy"]
            accuracy.wanted = manifest["wanted"]
            # The run may be allowed more than the one that wrote it.
            state.finished &= state.converged or state.done >= problem.options.final_iterations
        log.info("going on after iteration %d, from %s", len(problem.history), snapshot.path)

    def tick(
        self, problem: DesignProblem, state: LoopState, optimizer: Optimizer, accuracy: SolveAccuracy
    ) -> None:
        """Write a checkpoint if it is time to, or the run is over. Collective."""
        number = len(problem.history)
        if self.every == 0 or not (number % self.every == 0 or state.finished):
            return
        place = _Place(problem, state.m.size)
        loop = {f.name: getattr(state, f.name) for f in fields(state) if f.name != "m"}
        loop["stage"] = [state.stage.penalty, state.stage.beta]
        manifest = {
            "cells": place.cells,
            "box": place.box,
            "width": place.width,
            "about": self._about(problem),
            "loop": loop,
            "accuracy": [accuracy.movement, accuracy.tight],
            "wanted": accuracy.wanted,
            "history": [asdict(r) for r in problem.history],
        }
        arrays = None
        if place.writes:
            arrays = {"positions": place.x, "m": state.m}
            arrays |= {f"optimizer.{k}": np.asarray(v) for k, v in optimizer.state().items()}
            arrays |= {f"guess.{i}": g for i, g in enumerate(_guesses(problem))}
        _store.write(place.comm, Path(self.directory), number, arrays, manifest)

    def _about(self, problem: DesignProblem) -> dict[str, Any]:
        """What a run has to have in common with the one it continues."""
        radii = [float(s.radius) for s in getattr(problem.density, "steps", ()) if hasattr(s, "radius")]
        laws = [
            [i.low, i.high, getattr(i.law, "__name__", "law"), i.reversed]
            for i in problem.interpolations
            if hasattr(i, "law") and hasattr(i, "reversed")
        ]
        found: Any = plain(
            {
                **self.about,
                "number of objectives": len(problem.objectives),
                "constraints": [[c.name, c.sense, c.bound] for c in problem.constraints],
                "materials": laws,
                "optimizer": problem.options.optimizer,
                "filter radius": radii,
            }
        )
        return dict(found)

    def _check(self, problem: DesignProblem, place: _Place, manifest: Mapping[str, Any]) -> bool:
        """Whether the mesh is a finer one.

        Raises:
            CheckpointError: another problem.
        """
        where = f"the checkpoint in {self.directory}"
        old, new = np.array(manifest["box"]), np.array(place.box)
        # Meshes of one curved body end where their facets do.
        fits = old.shape == new.shape and np.abs(old - new).max() <= 1e-3 * np.ptp(new, axis=0).max()
        message = f"{where} is of another box: {_box(manifest['box'])}, this run has {_box(place.box)}"
        require(place.comm, bool(fits), message, CheckpointError)
        message = f"{where} has {manifest['width']} variables per cell, this run {place.width}"
        require(place.comm, manifest["width"] == place.width, message, CheckpointError)
        cells = manifest["cells"]
        message = f"{where} has {cells} cells, this run {place.cells}: a design goes to a finer mesh only"
        require(place.comm, place.cells >= cells, message, CheckpointError)
        finer = place.cells > cells
        known, now = manifest["about"], self._about(problem)
        for key in [*now, *(k for k in known if k not in now)]:
            if finer and key in _WITH_MESH:
                continue
            message = f"{where} is of another run: {key} was {known.get(key)}, now it is {now.get(key)}"
            require(place.comm, known.get(key) == now.get(key), message, CheckpointError)
        loop, schedule = manifest["loop"], problem.options.schedule
        if isinstance(schedule, GivenStages):
            stages = schedule.stages
            index, stage = loop["index"], Stage(*loop["stage"])
            message = (
                f"{where} was in stage {index + 1} with penalty {stage.penalty:g} and β = {stage.beta:g}, "
                "which this run does not have"
            )
            require(place.comm, index < len(stages) and stages[index] == stage, message, CheckpointError)
        return finer

    def _design(
        self,
        snapshot: _store.Snapshot,
        place: _Place,
        state: LoopState,
        optimizer: Optimizer,
        problem: DesignProblem,
        finer: bool,
    ) -> None:
        """Design variables, and on the same mesh the optimizer's state and the potentials."""
        load, files = lru_cache(maxsize=1)(snapshot.load), len(snapshot.files)
        own = load(place.rank) if place.rank < files else {}
        alike = files == place.writers and np.array_equal(own.get("positions", np.zeros(0)), place.x)
        if place.comm.allreduce(bool(alike), op=MPI.LAND):
            state.m = np.array(own["m"])
            optimizer.restore(_parts(own, "optimizer."))
            kept, potentials = _parts(own, "guess."), _guesses(problem)
            fits = len(kept) == len(potentials) and all(
                kept[str(i)].shape == g.shape for i, g in enumerate(potentials)
            )
            if place.comm.allreduce(bool(fits), op=MPI.LAND):
                for i, guess in enumerate(potentials):
                    guess[:] = kept[str(i)]
            return
        if finer:
            state.m = np.clip(_transfer.interpolate(load, files, place.x, "m", place.width), 0.0, 1.0)
            return
        distance, where = _transfer.nearest(load, files, place.x)
        message = f"the checkpoint in {self.directory} is of another mesh with as many cells"
        require(place.comm, _transfer.same_cells(distance, place.spacing), message, CheckpointError)

        def bring(name: str) -> Array:
            return _transfer.pick(load, files, where, name, place.width)

        state.m = bring("m")
        values = _parts(load(0), "optimizer.")
        optimizer.restore(
            {k: bring(f"optimizer.{k}") if k.startswith("x_") else v for k, v in values.items()}
        )


class _Place:
    """Where this rank's design variables are.

    Args:
        problem: the problem.
        variables: number of this rank's design variables, a multiple of the number of its cells.
    Raises:
        ValueError: another number of variables, on every rank.
    """

    def __init__(self, problem: DesignProblem, variables: int) -> None:
        domain = problem.density.domain
        self.comm, own = domain.comm, problem.comm
        # Where voxels are too few to share out, every rank has them all: one writes.
        alone = own.size == 1 and self.comm.size > 1
        self.writers = 1 if alone else self.comm.size
        self.rank = 0 if alone else self.comm.rank
        self.writes = self.comm.rank < self.writers
        self.x = _midpoints(domain)
        n = len(self.x)
        width = -(-variables // n) if n else 0
        self.width = int(own.allreduce(width, op=MPI.MAX))
        message = f"a checkpoint needs a number of variables per cell, found {variables} on {n} cells"
        require(self.comm, variables == self.width * n, message)
        self.cells = int(own.allreduce(n))
        self.box: list[list[float]] = _corners(domain)
        self.spacing = float((np.prod(np.ptp(self.box, axis=0)) / self.cells) ** (1 / self.x.shape[1]))


def _midpoints(domain: Any) -> Array:
    """Midpoints of this rank's own cells or voxels, shape (n, d)."""
    if isinstance(domain, VoxelGrid):
        axes = [
            (np.arange(s.start, s.stop) + 0.5) * h for s, h in zip(domain.own, domain.voxel_size, strict=True)
        ]
        return np.stack([x.reshape(-1) for x in np.meshgrid(*axes, indexing="ij")], axis=1)
    dim = domain.topology.dim
    cells = np.arange(domain.topology.index_map(dim).size_local, dtype=np.int32)
    return np.asarray(dmesh.compute_midpoints(domain, dim, cells)[:, : domain.geometry.dim])


def _corners(domain: Any) -> list[list[float]]:
    """The box around all cells: lower and upper corner."""
    if isinstance(domain, VoxelGrid):
        return [[0.0] * domain.dim, [float(a) for a in domain.lengths]]
    x = domain.geometry.x[:, : domain.geometry.dim]
    low, high = np.min(x, axis=0, initial=np.inf), np.max(x, axis=0, initial=-np.inf)
    domain.comm.Allreduce(MPI.IN_PLACE, low, op=MPI.MIN)
    domain.comm.Allreduce(MPI.IN_PLACE, high, op=MPI.MAX)
    return [[float(a) for a in low], [float(a) for a in high]]


def _guesses(problem: DesignProblem) -> list[Array]:
    """Where the next solves start."""
    holders = [*getattr(problem.density, "steps", ()), *problem.states, *problem.functionals]
    return [guess for holder in holders for guess in getattr(holder, "guesses", [])]


def _parts(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Entries with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _box(box: list[list[float]]) -> str:
    """The edges of a box in words."""
    return " × ".join(f"{high - low:.4g}" for low, high in zip(*box, strict=True))
