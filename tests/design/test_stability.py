"""Noise in, structure out: targets, choice of a weight along a path, and a small study."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from fetopo.design.initial import cell_positions, from_field, random_field
from fetopo.design.problem import DesignProblem, LoopOptions, Stage
from fetopo.design.regularization import Regularization
from fetopo.design.stability import Recipe, StudyOptions, choose, noisy_targets, stability_study
from fetopo.design.target import CorrectionOptions
from fetopo.design.weight_path import PathDesign, PathOptions, WeightPath
from fetopo.transport.bounds import exists
from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid

pytestmark = pytest.mark.mpi

MATERIALS = {"conductivity": (0.1, 1.0), "volume_fraction": 0.5}
QUICK = PathOptions(
    LoopOptions(
        stages=tuple(Stage(3.0, b) for b in (1.0, 4.0, 16.0, 64.0)), stage_iterations=15, final_iterations=20
    ),
    # From a soft projection on: where it begins sharp, round-off chooses what the few steps reach.
    LoopOptions(
        stages=tuple(Stage(3.0, b) for b in (1.0, 4.0, 16.0)), stage_iterations=12, final_iterations=12
    ),
    CorrectionOptions(rounds=1, iterations=10, tolerance=0.01),
)
T = np.array([[0.40, 0.02], [0.02, 0.34]])
N = 16


def disc():
    """A smooth field that is low in a disc of half the volume."""
    x = (np.arange(N) + 0.5) / N - 0.5
    return 0.5 + 0.4 * np.tanh((np.hypot(x[:, None], x) - (0.5 / np.pi) ** 0.5) / 0.15)


def make_path(comm, terms=(), options=QUICK):
    grid = VoxelGrid(comm, (N, N), 1 / N, periodic=True)
    m = from_field(
        random_field(grid, seed=2), np.full(len(cell_positions(grid)), 1 / N**2), 0.5, grid.blocks.comm
    )
    return WeightPath(grid, target=T, filter_radius=2 / N, terms=terms, start=m, options=options, **MATERIALS)


class TestNoise:
    def test_size_and_seed(self):
        size = np.linalg.norm(T)
        for level in (0.0, 0.01, 0.05):
            found = noisy_targets(T, level, 3, seed=4, **MATERIALS)
            for noisy in found:
                assert np.array_equal(noisy, noisy.T)
                assert np.linalg.norm(noisy - T) == pytest.approx(level * size)
        again = noisy_targets(T, 0.1, 3, seed=4, **MATERIALS)
        assert again[1] - T == pytest.approx(2 * (found[1] - T), abs=1e-12)
        assert np.linalg.norm(found[0] - found[1]) > 0.01 * size

    def test_targets_exist(self):
        """At the bound half of the noise leads outside: those are brought back, and not farther off."""
        edge = exists(np.diag([0.45, 0.45]), (0.5, 0.5), (0.1, 1.0)).nearest
        edge = 0.5 * (edge + edge.T)
        found = noisy_targets(edge, 0.05, 8, **MATERIALS)
        off = np.array([np.linalg.norm(noisy - edge) for noisy in found]) / np.linalg.norm(edge)
        assert all(exists(noisy, (0.5, 0.5), (0.1, 1.0)).ok for noisy in found)
        assert off.max() <= 0.05 * (1 + 1e-9)
        assert off.min() < 0.045

    def test_refused(self):
        with pytest.raises(ValueError, match=r"no structure of volume fraction 0.5 has this tensor"):
            noisy_targets(np.diag([0.6, 0.5]), 0.01, 2, **MATERIALS)
        with pytest.raises(ValueError, match=r"a noise level must be finite and not negative, found -0.1"):
            noisy_targets(T, -0.1, 2, **MATERIALS)


@dataclass
class Known:
    """A path whose misfits and penalties are known."""

    terms: tuple = (1,)
    asked: list = field(default_factory=list)

    def at(self, weight):
        self.asked.append(weight)
        return PathDesign(weight, np.zeros(1), T, weight / (1 + weight) + 1e-3, 1 / (0.01 + weight), 0.0, 1)


class TestChoice:
    def test_discrepancy(self):
        o = StudyOptions(largest=10.0, smallest=1e-3, accuracy=1.05)
        design, met = choose(Known(), Recipe("a", 0.1, (1,)), 0.05, o)
        assert met
        limit = 1.1 * 0.05 - 1e-3
        assert limit / (1 - limit) / 1.05 <= design.weight <= limit / (1 - limit)

    def test_none_meets(self):
        path = Known()
        design, met = choose(path, Recipe("a", 0.1, (1,)), 1e-4, StudyOptions())
        assert not met
        assert design.weight == pytest.approx(1e-3)
        assert min(path.asked) == pytest.approx(1e-3)

    def test_l_curve(self):
        """The corner between where the penalty falls alone and where the misfit grows alone."""
        design, _ = choose(Known(), Recipe("a", 0.1, (1,), rule="l-curve"), 0.05, StudyOptions(factor=1.5))
        assert 2e-3 < design.weight < 0.2

    def test_without_a_term(self):
        path = Known(terms=())
        assert choose(path, Recipe("a", 0.1), 0.05, StudyOptions())[0].weight == 0.0
        assert path.asked == [0.0]


class TestPath:
    def test_a_smaller_weight_meets_the_target_better(self, comm, monkeypatch):
        begun, ended = [], []

        class Seen(DesignProblem):
            def run(self, m, *args, **more):
                begun.append(np.array(m))
                result = super().run(m, *args, **more)
                ended.append(np.array(result.m))
                return result

        monkeypatch.setattr("fetopo.design.weight_path.DesignProblem", Seen)
        path = make_path(comm, (Regularization("tikhonov", 1.0, disc(), "field"),))
        found = [path.at(weight) for weight in (10.0, 0.1)]
        assert path.at(10.0) is found[0]
        assert found[1].misfit < 0.5 * found[0].misfit
        # Not for the further steps alone: with as many, a large weight stays nearer to the prior.
        other = make_path(comm, (Regularization("tikhonov", 1.0, disc(), "field"),))
        heavier = [other.at(weight) for weight in (10.0, 9.0)][1]
        assert found[1].misfit < heavier.misfit
        assert found[1].penalty > 2 * heavier.penalty
        # The second went on from the first.
        assert np.array_equal(begun[0], path.start)
        assert np.array_equal(begun[1], ended[0])
        assert found[0].iterations > 40
        assert found[1].iterations <= 36
        # What is said of the structure is what it has.
        grid = VoxelGrid(comm, (N, N), 1 / N, periodic=True)
        problem = VoxelCellProblem(grid, rtol=1e-9)
        problem.assign(grid.take(found[1].labels), np.array([0.1, 1.0]))
        problem.solve()
        assert found[1].tensor == pytest.approx(problem.tensor, abs=1e-6)
        assert found[1].misfit == pytest.approx(
            np.linalg.norm(problem.tensor - T) / np.linalg.norm(T), rel=1e-4
        )

    def test_the_same_on_any_number_of_ranks(self, comm, alone):
        term = (Regularization("tikhonov", 1.0, disc(), "field"),)
        # Few steps: later ones make much of round-off.
        few = PathOptions(LoopOptions(stages=(Stage(3.0, 2.0),), final_iterations=8))
        one, several = (make_path(c, term, few).at(10.0) for c in (alone, comm))
        assert np.mean(one.labels != several.labels) < 0.02
        assert one.penalty == pytest.approx(several.penalty, rel=1e-3)


def test_study(comm):
    """A prior keeps together what noise and starts drive apart; every recipe has the same targets."""
    recipes = [
        Recipe("none", 2 / N),
        Recipe("prior", 2 / N, (Regularization("tikhonov", 1.0, disc(), "field"),)),
    ]
    study = stability_study(
        comm, (N, N), T, recipes,
        options=StudyOptions(levels=(0.1,), realizations=2, largest=3.0, path=QUICK), **MATERIALS,
    )  # fmt: skip
    assert len(study.runs) == 4
    none, prior = (study.of(name, 0.1) for name in ("none", "prior"))
    assert all(np.array_equal(a.target, b.target) for a, b in zip(none, prior, strict=True))
    assert study.distances("prior", 0.1).mean() < 0.75 * study.distances("none", 0.1).mean()
    assert all(run.met and run.design.misfit <= 0.11 and run.design.weight > 0 for run in prior)
    row = study.rows()[1]
    assert row["recipe"] == "prior"
    assert row["distance"] == pytest.approx(float(study.distances("prior", 0.1)[0]))
    errors = [np.linalg.norm(run.design.tensor - T) / np.linalg.norm(T) for run in prior]
    assert row["error"] == pytest.approx(np.mean(errors))
    assert study.table().count("\n") == 2
    everywhere = comm.allgather([run.design.labels.sum() for run in study.runs])
    assert all(sums == everywhere[0] for sums in everywhere)


def test_refused(comm):
    with pytest.raises(ValueError, match="recipes need different names, found"):
        stability_study(comm, (N, N), T, [Recipe("a", 0.1), Recipe("a", 0.2)], **MATERIALS)
    with pytest.raises(ValueError, match=r"needs a level of noise and two realizations, found \[\] and 4"):
        StudyOptions(levels=())
