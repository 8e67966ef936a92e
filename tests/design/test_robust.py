"""Realisations of a design under etching errors: thresholds, derivatives, worst cases, resumed runs."""

import numpy as np
import pytest

from fetopo.design.adjoint import ReducedFunctional
from fetopo.design.checkpoint import Checkpoint, CheckpointError
from fetopo.design.combination import weighted_sum
from fetopo.design.continuation import Continuation
from fetopo.design.density import HeavisideProjection
from fetopo.design.functionals import mean_resistivity
from fetopo.design.heat import Fixed, HeatModel
from fetopo.design.initial import cell_positions
from fetopo.design.model import CellModel
from fetopo.design.problem import Constraint, LoopOptions
from fetopo.design.robust import (
    Realizations,
    etched_threshold,
    mean_and_deviation,
    spread,
    thresholds,
    varying_error,
)
from fetopo.design.verification import taylor_test
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.voxel import VoxelGrid

pytestmark = pytest.mark.mpi

RADIUS, ERROR = 0.3, 0.05


def voxels(comm, n=8):
    return VoxelGrid(comm, (n, n), 1 / n, periodic=True)


def graded(comm):
    pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
    from fetopo.microstructure.geometry import inclusion_cell

    return inclusion_cell(comm, [(0.4, 0.5)], 0.3, mesh_size=0.2, interface_size=0.06)


DOMAINS = {"quadrilateral": lambda comm: regular_cell(comm, (8, 6)), "graded": graded, "voxels": voxels}


@pytest.fixture(params=DOMAINS)
def domain(request, comm):
    return DOMAINS[request.param](comm)


def fields(domain):
    x = cell_positions(domain) @ np.array([7.0, 5.0])
    y = cell_positions(domain) @ np.array([37.0, 91.0])
    return 0.5 + 0.3 * np.sin(x), 0.25 + 0.75 * np.sin(y)


def model_of(domain, beta=3.0, **options):
    model = CellModel(domain, RADIUS, **options)
    model.projection.beta = beta
    return model


@pytest.mark.parametrize("filter", ["helmholtz", "convolution", "mesh"])
@pytest.mark.parametrize("error", [0.03, -0.02])
def test_threshold_moves_interfaces_by_the_error(comm, filter, error):
    """A strip loses the error at both edges, a disc all around, more or less by its curvature."""
    n, radius, half = 96, 0.12, 0.25
    cell = regular_cell(comm, (n, n)) if filter == "mesh" else voxels(comm, n)
    model = CellModel(cell, radius, filter="helmholtz" if filter == "mesh" else filter)
    # Sharp, but so that cells at the edge still say where in them it lies.
    model.projection.beta = 60.0
    etched = Realizations(model, (error,)).models[0]
    x = cell_positions(cell) - 0.5
    model.density.forward((np.abs(x[:, 0]) < half).astype(float))
    widths = [model.fraction(one.density.values) for one in (model, etched)]
    assert widths[0] == pytest.approx(2 * half, abs=2e-3)
    assert (widths[0] - widths[1]) / 2 == pytest.approx(error, abs=0.05 * abs(error))
    model.density.forward((np.linalg.norm(x, axis=1) < 0.3).astype(float))
    radii = [np.sqrt(model.fraction(one.density.values) / np.pi) for one in (model, etched)]
    assert radii[0] - radii[1] == pytest.approx(error, abs=0.2 * abs(error))


def test_thresholds(comm):
    r = 0.3 / (2 * 3**0.5)
    assert etched_threshold(0.0, 0.3) == 0.5
    assert etched_threshold(r, 0.3) == pytest.approx(1 - 0.5 / np.e)
    assert etched_threshold(np.array([-r, r]), 0.3) == pytest.approx([0.5 / np.e, 1 - 0.5 / np.e])
    with pytest.raises(ValueError, match=r"an etching error of 0.3 needs a filter radius of at least 0.333"):
        etched_threshold(-0.3, 0.3)
    model = model_of(voxels(comm), filter="convolution")
    assert thresholds(model, 1e-6) == pytest.approx(0.5, abs=1e-4)
    with pytest.raises(ValueError, match="one length or one per owned cell"):
        Realizations(model, (np.zeros(3),))
    with pytest.raises(ValueError, match="at least one error"):
        Realizations(model, ())
    with pytest.raises(ValueError, match="needs a filter and a projection"):
        Realizations(HeatModel(regular_cell(comm, (4, 4)), (0.1, 1.0), 0.3), (0.01,))
    with pytest.raises(ValueError, match=r"found β = 1.0 and η = \[0.5 1. \]"):
        HeavisideProjection(1.0, np.array([0.5, 1.0]))


def test_varying_error(comm, alone):
    """Between the limits, smooth, the same on any number of ranks."""
    cell = regular_cell(comm, (12, 12))
    error = varying_error(cell, 0.04, seed=3)
    assert comm.allreduce(np.abs(error).max(initial=0.0), op=_max()) == pytest.approx(0.04)
    whole = varying_error(voxels(alone, 12), 0.04, seed=3)
    x = np.rint(cell_positions(cell) * 12 - 0.5).astype(int)
    assert error == pytest.approx(whole.reshape(12, 12)[tuple(x.T)])
    assert whole.max() - whole.min() > 0.05


def _max():
    from mpi4py import MPI

    return MPI.MAX


def test_realisation_is_a_model_with_that_threshold(domain):
    """Also where a part is passive, and with a threshold that varies."""

    def corner(x):
        return (x[0] < 0.3) & (x[1] < 0.3)

    error = varying_error(domain, ERROR)
    m, _ = fields(domain)
    for delta in (ERROR, error):
        model, plain = (model_of(domain, passive={"solid": corner}) for _ in range(2))
        J = Realizations(model, (delta,)).each(
            lambda one: one.tensor_functional(one.state((0.01, 1.0)), mean_resistivity)
        )[0]
        plain.projection.eta = thresholds(plain, delta)
        other = plain.tensor_functional(plain.state((0.01, 1.0)), mean_resistivity)
        found = ReducedFunctional(J, model.density)(m)
        assert found == pytest.approx(ReducedFunctional(other, plain.density)(m), rel=1e-8)
        plain.projection.eta = np.array(0.5)
        assert abs(found / ReducedFunctional(other, plain.density)(m) - 1) > 0.005


def test_taylor(domain):
    """Realisations, their spread, mean and deviation, and volumes, by the design variables."""
    model = model_of(domain)
    made = Realizations(model, (ERROR, 0.0, -varying_error(domain, ERROR)))
    J = made.each(lambda one: one.tensor_functional(one.state((0.01, 1.0)), mean_resistivity))
    if isinstance(domain, VoxelGrid):
        for one in J:
            one.states[0].problem.rtol = 1e-11
    volumes = made.each(lambda one: one.mean_density())
    m, dm = fields(domain)
    for functional in (
        J[0], J[2], spread(J, 1), mean_and_deviation(J[:2], 2.0), weighted_sum(volumes, [1, 2, 3])
    ):  # fmt: skip
        reduced = ReducedFunctional(functional, model.density)
        reduced(m)
        test = taylor_test(reduced, m, reduced.derivative(), dm, comm=model.density.comm, step=4e-3, count=3)
        assert test.rate > 1.9


@pytest.mark.parametrize("kind", ["quadrilateral", "graded"])
def test_taylor_of_heat(comm, kind):
    cell = DOMAINS[kind](comm)
    model = HeatModel(cell, (0.01, 1.0), RADIUS, projection=HeavisideProjection(3.0))
    made = Realizations(model, (ERROR, 0.0, -ERROR))
    sink = [Fixed(0.0, lambda x: np.isclose(x[0], 0))]

    def warmest(one):
        return one.mean_temperature(one.load(1.0, fixed=sink), lambda x: x[0] > 0.5)

    J = made.each(lambda one: one.compliance(one.load(1.0, fixed=sink)))
    m, dm = fields(cell)
    for functional in (J[2], made.each(warmest)[0], spread(J, 1)):
        reduced = ReducedFunctional(functional, model.density)
        reduced(m)
        test = taylor_test(reduced, m, reduced.derivative(), dm, comm=model.density.comm, step=4e-3, count=3)
        assert test.rate > 1.9


def test_error_in_one_place(comm):
    """Ranks where there is none take part."""
    grid = voxels(comm)
    model = model_of(grid)
    error = np.where(cell_positions(grid)[:, 0] < 0.2, ERROR, 0.0)
    made = Realizations(model, (error, np.zeros(error.shape)))
    assert made.models[0] is not model
    assert made.models[1] is model
    model.density.forward(np.full(error.shape, 0.5))
    volumes = [one.value() for one in made.each(lambda one: one.mean_density())]
    assert volumes[0] < volumes[1] == pytest.approx(0.5)


class Given:
    """A functional with a value."""

    states, comm, rho = (), None, None

    def __init__(self, value):
        self._value = value

    def value(self):
        return self._value

    def derivative(self):
        return np.ones(1)


def test_spread_and_deviation():
    J = [Given(3.0), Given(2.0), Given(1.5)]
    assert spread(J, 1).value() == pytest.approx(0.75)
    assert mean_and_deviation(J, 2.0).value() == pytest.approx(13 / 6 + 2 * np.std([3, 2, 1.5]))
    alike = mean_and_deviation([Given(2.0), Given(2.0)], 2.0)
    assert alike.value() == 2.0
    assert alike.derivative() == pytest.approx([1.0])
    with pytest.raises(ValueError, match="found 3 and 3"):
        spread(J, 3)
    with pytest.raises(ValueError, match="must not be negative, found -1"):
        mean_and_deviation(J, -1.0)


OPTIONS = LoopOptions(
    continuation=Continuation(beta=2.0, max_beta=8.0), stage_iterations=8, final_iterations=8
)


def designed(comm, errors, checkpoint=None, stop=None):
    """The worst case of the errors as small as can be, and the functionals under ±ERROR."""
    grid = voxels(comm, 16)
    model = CellModel(grid, RADIUS)
    made = Realizations(model, errors)
    J = made.each(lambda one: one.tensor_functional(one.state((0.01, 1.0)), mean_resistivity))

    def interrupt(record, problem):
        if record.iteration == stop:
            raise KeyboardInterrupt

    problem = made.problem(
        J if len(J) > 1 else J[0],
        [Constraint("volume", model.mean_density(), 0.4)],
        options=OPTIONS,
        callbacks=[interrupt],
    )
    if checkpoint is not None:
        checkpoint = Checkpoint(*checkpoint, about=made.about)
    result = problem.run(model.start("inclusions", 0.4), checkpoint)
    betas = [projection.beta for projection in made.projections]
    return result, betas


def test_worst_case(comm, alone):
    """Etched, the robust design beats the nominal one; all projections follow; ranks do not matter."""
    errors = (ERROR, 0.0, -ERROR)
    robust, betas = designed(comm, errors)
    assert betas == [betas[0]] * 3
    assert betas[0] > 2.0
    assert robust.objective == max(robust.objectives) == robust.objectives[0]
    nominal, _ = designed(comm, (0.0,))
    grid = voxels(comm, 16)
    model = CellModel(grid, RADIUS)
    made = Realizations(model, (ERROR,))
    model.projection.beta = made.projections[1].beta = betas[0]
    state = made.models[0].state((0.01, 1.0))
    etched = ReducedFunctional(
        made.each(lambda one: one.tensor_functional(state, mean_resistivity))[0], model.density
    )
    assert robust.objective < 0.97 * etched(nominal.m)
    assert robust.objectives[1] > nominal.objective
    if comm.size > 1:
        serial, _ = designed(alone, errors)
        assert [r.objective for r in robust.history] == pytest.approx(
            [r.objective for r in serial.history], rel=1e-6
        )


def test_resumed(comm, tmp_path_factory):
    """A resumed run follows the uninterrupted one; one for another error does not go on from it."""
    directory = comm.bcast(tmp_path_factory.mktemp("run") / "checkpoint" if comm.rank == 0 else None)
    errors = (ERROR, 0.0)
    whole, _ = designed(comm, errors)
    with pytest.raises(KeyboardInterrupt):
        designed(comm, errors, (directory, 4), stop=10)
    with pytest.raises(CheckpointError, match="errors was"):
        designed(comm, (2 * ERROR, 0.0), (directory, 4, True))
    resumed, _ = designed(comm, errors, (directory, 4, True))
    assert [r.objective for r in resumed.history] == pytest.approx(
        [r.objective for r in whole.history], rel=1e-8
    )
    assert resumed.rho == pytest.approx(whole.rho, abs=1e-7)
