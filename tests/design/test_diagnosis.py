"""Runs that are stuck say at what: each kind of finding is provoked, and a good design has none."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from fetopo.design.cell import design_cell
from fetopo.design.constraints import Interface, LeastConductivity
from fetopo.design.density import HeavisideProjection
from fetopo.design.diagnosis import Finding, Watch, diagnose
from fetopo.design.goal import Goal
from fetopo.design.heat import Fixed, HeatModel
from fetopo.design.problem import Constraint, Continuation, LoopOptions, Stage
from fetopo.io import summary
from fetopo.microstructure.mesh import regular_cell
from fetopo.report import design_report
from fetopo.transport.voxel import VoxelGrid

pytestmark = pytest.mark.mpi

N = 24
QUICK = LoopOptions(stage_iterations=10, final_iterations=20, continuation=Continuation(factor=4))
ONE = LoopOptions(stages=(Stage(3.0, 64.0),), final_iterations=1)


def design(comm, **changes):
    grid = VoxelGrid(comm, (N, N), 1 / N, periodic=True)
    start = changes.pop("image", None)
    if start is not None:
        changes["start"] = np.asarray(grid.take(start)).reshape(-1)
    asked = {"conductivity": (0.01, 1.0), "volume_fraction": 0.5, "filter_radius": 0.12} | changes
    return design_cell(grid, **asked)


def kinds(findings):
    return [f.kind for f in findings]


def one(findings, kind):
    (found,) = [f for f in findings if f.kind == kind]
    return found


def test_nothing_to_say_of_a_good_design(comm):
    found = design(comm)
    assert found.findings == ()
    assert "not as it should be" not in design_report(found, found.goal)
    assert summary(found, found.goal)["findings"] == []


def test_grey(comm, caplog):
    with caplog.at_level(logging.WARNING):
        found = design(comm, options=LoopOptions(continuation=Continuation(max_beta=2.0)))
    grey = one(found.findings, "grey")
    assert found.result.grey_level > 0.05
    assert f"grey level {100 * found.result.grey_level:.1f} %" in grey.message
    assert "max_beta" in grey.advice
    # The crisp structure conducts otherwise than the mixture.
    assert f"{100 * found.projection_gap:.1f} %" in one(found.findings, "projection gap").message
    assert grey.advice in design_report(found, found.goal)
    assert summary(found, found.goal)["findings"][0] == grey
    if comm.rank == 0:
        said = [r for r in caplog.records if r.name == "fetopo.design.diagnosis"]
        assert len(said) == 1
        assert "grey level" in said[0].getMessage()


def test_constraints_that_oppose_each_other(comm):
    """So short an interface has only what conducts too little, or has too much of the good material."""
    limits = [Interface(at_most=1.2), LeastConductivity(0.33)]
    found = design(comm, constraints=limits, options=QUICK)
    missed = [f for f in found.findings if f.kind == "constraint" and f.message.startswith("'interface'")]
    assert len(missed) == 1
    violation = found.result.constraints["interface"]
    assert violation > 0.1
    assert f"is {1.2 * (1 + violation):.4g}, asked for at most 1.2" in missed[0].message
    assert "opposed by" in missed[0].message
    assert missed[0].advice == "loosen one of them"


def test_a_bound_out_of_reach(comm, caplog):
    """More interface than the filter lets be; what there is of it is in islands."""
    with caplog.at_level(logging.WARNING):
        longer = replace(QUICK, final_iterations=60)
        found = design(comm, constraints=[Interface(at_least=30.0)], options=longer)
    missed = one(found.findings, "constraint")
    assert "'least_interface'" in missed.message
    assert "asked for at least 30" in missed.message
    assert "since iteration 1," in missed.message
    assert missed.advice.startswith("lower the bound towards")
    if comm.rank == 0:
        said = [r.getMessage() for r in caplog.records if r.name == "fetopo.design.diagnosis"]
        assert sum("'least_interface'" in text for text in said) == 1


def test_islands(comm):
    """Two squares in a cell that is to conduct along x, and a bar with a square beside it."""
    squares = np.zeros((N, N))
    squares[2:8, 2:8] = squares[14:20, 14:20] = 1.0
    settings = {"filter_radius": 0.01, "options": ONE, "goal": Goal("along", direction=(1.0, 0.0))}
    found = design(comm, image=squares, volume_fraction=float(squares.mean()), **settings)
    cut = one(found.findings, "disconnected")
    assert cut.message == "the good material does not percolate along x: 2 parts, 12 % of the volume"
    bar = squares.copy()
    bar[:, 14:20] = 1.0
    found = design(comm, image=bar, volume_fraction=float(bar.mean()), **settings)
    cut = one(found.findings, "disconnected")
    # 36 of 180 voxels.
    assert cut.message.startswith("20 % of the good material (31 % of the volume) is in 1 islands")
    # Materials that conduct nearly alike need not be connected.
    alike = settings | {"conductivity": (0.5, 1.0)}
    found = design(comm, image=squares, volume_fraction=float(squares.mean()), **alike)
    assert "disconnected" not in kinds(found.findings)


def test_thin(comm):
    bars = np.zeros((N, N))
    bars[:, ::4] = 1.0
    found = design(comm, image=bars, volume_fraction=0.25, filter_radius=0.005, options=ONE)
    assert one(found.findings, "thin").message == "100 % of the good material is thinner than two voxels"
    bars[:, 1::4] = 1.0
    found = design(comm, image=bars, volume_fraction=0.5, filter_radius=0.005, options=ONE)
    assert "thin" not in kinds(found.findings)


def heat(comm, options, projection=None):
    model = HeatModel(regular_cell(comm, (16, 16)), (1e-2, 1.0), 0.15, projection=projection)
    state = model.load(1.0, fixed=[Fixed(0.0, lambda x: np.isclose(x[0], 0) & (x[1] < 0.25 + 1e-9))])
    volume = Constraint("volume", model.mean_density(), 0.4)
    problem = model.problem(model.compliance(state), [volume], options=options)
    return problem, problem.run(np.full(model.volumes.size, 0.4))


def test_heat_at_the_iteration_limit(comm):
    """Any design problem: falling when it is stopped, grey without a projection."""
    options = LoopOptions(stages=(Stage(1.0, 1.0),), final_iterations=6)
    problem, result = heat(comm, options)
    findings = diagnose(result, problem)
    assert kinds(findings) == ["grey", "not settled"]
    assert findings[0].advice == "give the density a projection"
    assert "falls by" in findings[1].message
    assert "final_iterations" in findings[1].advice
    problem, result = heat(comm, options, HeavisideProjection())
    assert "raise the penalty" in one(diagnose(result, problem), "grey").advice


def test_refusals_and_words():
    with pytest.raises(ValueError, match="at least 2, found 1"):
        Watch(1)
    assert str(Finding("grey", "much", "less")) == "grey: much; less"
