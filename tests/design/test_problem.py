"""The loop: continuation, stopping, history, constraints; heat conduction as an example that is no cell."""

import json
from dataclasses import asdict, replace
from io import StringIO

import numpy as np
import pytest
import ufl
from dolfinx import fem

from fetopo.design import functionals
from fetopo.design.adjoint import FormFunctional
from fetopo.design.density import DensityMap, HeavisideProjection, HelmholtzFilter, Interpolation
from fetopo.design.mma import MMAOptions
from fetopo.design.model import CellModel
from fetopo.design.problem import Constraint, DesignProblem, InexactSolves, LoopOptions, Record, Stage
from fetopo.microstructure.mesh import regular_cell
from fetopo.progress import Progress
from fetopo.transport.state import LinearState
from fetopo.transport.voxel import VoxelGrid

pytestmark = pytest.mark.mpi

SHORT = LoopOptions(
    stages=(Stage(1.0, 1.0), Stage(3.0, 2.0), Stage(3.0, 16.0)),
    stage_iterations=8,
    final_iterations=60,
    objective_tolerance=1e-2,
)


class Counting:
    """A functional that counts how often it is asked."""

    def __init__(self, functional):
        self.functional, self.states, self.comm = functional, functional.states, functional.comm
        self.values = self.derivatives = 0

    def value(self):
        self.values += 1
        return self.functional.value()

    def derivative(self):
        self.derivatives += 1
        return self.functional.derivative()


class CountingState(LinearState):
    solves = 0

    def solve(self):
        self.solves += 1
        super().solve()


def heat(comm, n=16, options=SHORT, limit=0.4, callbacks=(), more=()):
    """Cool a heated square through a part of one side with 40 % of a good conductor."""
    cell = regular_cell(comm, (n, n))
    filter_, projection = HelmholtzFilter(cell.mesh, 0.2), HeavisideProjection()
    density = DensityMap(cell.mesh, filter_, projection)
    kappa = Interpolation(cell.mesh, 1e-3, 1.0)
    V = fem.functionspace(cell.mesh, ("Lagrange", 1))
    u, v = fem.Function(V), ufl.TestFunction(V)
    source = fem.Constant(cell.mesh, 1e-2)
    F = kappa.ufl(density.rho) * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx - source * v * ufl.dx
    sink = fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], 0) & (np.abs(x[1] - 0.5) < 0.13))
    state = CountingState(F, u, [fem.dirichletbc(0.0, sink, V)], {"ksp_rtol": 1e-9})
    objective = FormFunctional(functionals.compliance(u, source), density.rho, state)
    volume = FormFunctional(functionals.mean_density(density.rho, 1.0), density.rho)
    problem = DesignProblem(
        density,
        Counting(objective),
        [Constraint("volume", Counting(volume), limit), *(make(density, state) for make in more)],
        volumes=filter_.volumes,
        projections=[projection],
        interpolations=[kappa],
        solvers=[state.solver, *filter_.solvers],
        options=options,
        callbacks=callbacks,
    )
    return problem, np.full(filter_.volumes.size, limit)


class TestRun:
    def test_history_is_complete(self, comm):
        seen = []
        problem, m = heat(comm, callbacks=[lambda record, p: seen.append((record, p))])
        result = problem.run(m)
        history = result.history
        assert [r for r, _ in seen] == history
        assert all(p is problem for _, p in seen)
        assert [r.iteration for r in history] == list(range(1, len(history) + 1))
        assert [r.stage for r in history] == sorted(r.stage for r in history)
        assert {r.stage for r in history} == {0, 1, 2}
        for record in history:
            stage = SHORT.stages[record.stage]
            assert (record.penalty, record.beta) == (stage.penalty, stage.beta)
            assert set(record.constraints) == {"volume"}
            assert record.solver_iterations > 0
            assert 0 < record.change <= SHORT.mma.move + 1e-12
            assert 0 <= record.grey <= 1
            row = record.row()
            assert row["constraint_volume"] == record.constraints["volume"]
            assert "constraints" not in row
        assert [r.seconds for r in history] == sorted(r.seconds for r in history)

    def test_improves_and_holds_the_volume(self, comm):
        problem, m = heat(comm)
        result = problem.run(m)
        assert result.converged
        assert result.constraints["volume"] < SHORT.feasibility
        assert result.constraints["volume"] > -0.02
        assert result.grey_level < 0.6
        problem.set_stage(Stage(3.0, 1.0))
        uniform = problem.evaluate(m, gradients=False)[0]
        assert result.objective < 0.3 * uniform
        assert ((result.m >= 0) & (result.m <= 1)).all()
        assert result.rho.shape == result.m.shape

    def test_result_is_what_the_problem_says_at_m(self, comm):
        problem, m = heat(comm)
        result = problem.run(m)
        value, _, g, _ = problem.evaluate(result.m)
        assert value == pytest.approx(result.objective, rel=1e-8)
        assert g[0] == pytest.approx(result.constraints["volume"], abs=1e-9)
        assert problem.grey_level() == pytest.approx(result.grey_level)

    def test_same_on_one_rank(self, comm, alone):
        results = []
        for c in (comm, alone):
            problem, m = heat(c)
            results.append(problem.run(m))
        here, there = results
        assert here.objective == pytest.approx(there.objective, rel=1e-6)
        assert len(here.history) == len(there.history)
        assert [r.objective for r in here.history] == pytest.approx(
            [r.objective for r in there.history], rel=1e-6
        )

    def test_stage_ends_early_or_at_its_limit(self, comm):
        strict = LoopOptions(
            stages=SHORT.stages,
            stage_iterations=3,
            final_iterations=4,
            objective_tolerance=0,
            change_tolerance=0,
        )
        problem, m = heat(comm, options=strict)
        result = problem.run(m)
        assert not result.converged
        assert len(result.history) == 3 + 3 + 4
        loose = LoopOptions(
            stages=SHORT.stages, objective_tolerance=10.0, change_tolerance=0, window=2, feasibility=10
        )
        problem, m = heat(comm, options=loose)
        result = problem.run(m)
        assert result.converged
        assert len(result.history) == 9

    def test_infeasible_designs_do_not_count_as_converged(self, comm):
        """A volume that the move limit lets it reach only after a while."""
        options = LoopOptions(
            stages=(Stage(1.0, 1.0),),
            final_iterations=5,
            objective_tolerance=10.0,
            change_tolerance=1.0,
            mma=MMAOptions(move=0.01),
        )
        problem, m = heat(comm, options=options)
        result = problem.run(np.full(m.size, 0.9))
        assert not result.converged
        assert result.constraints["volume"] > 0.5

    def test_start_outside_is_refused_on_every_rank(self, comm):
        problem, m = heat(comm)
        if comm.rank == comm.size - 1:
            m[0] = 1.1
        with pytest.raises(ValueError, match="between 0 and 1"):
            problem.run(m)
        m[:] = 0.5
        if comm.rank == comm.size - 1:
            m[0] = np.nan
        with pytest.raises(ValueError, match="between 0 and 1"):
            problem.run(m)


class TestEvaluate:
    def test_each_state_is_solved_once(self, comm):
        def hottest(density, state):
            return Constraint("heat", FormFunctional(state.u**2 * ufl.dx, density.rho, state), 1.0)

        problem, m = heat(comm, more=[hottest])
        value, gradient, g, jacobian = problem.evaluate(m)
        assert problem.objective.states[0].solves == 1
        assert problem.objective.values == problem.objective.derivatives == 1
        assert gradient.shape == m.shape
        assert g.shape == (2,)
        assert jacobian.shape == (2, m.size)
        problem.evaluate(m, gradients=False)
        assert problem.objective.derivatives == 1
        assert value > 0

    def test_senses_of_constraints(self, comm):
        problem, m = heat(comm, limit=0.4)
        volume = problem.constraints[0].functional
        problem.constraints = [
            Constraint("most", volume, 0.5),
            Constraint("least", volume, 0.5, "at least"),
        ]
        _, _, g, jacobian = problem.evaluate(m)
        fraction = volume.value()
        assert g == pytest.approx([fraction / 0.5 - 1, 1 - fraction / 0.5])
        assert np.array_equal(jacobian[0], -jacobian[1])

    def test_grey_level(self, comm):
        problem, m = heat(comm)
        problem.density.steps = ()
        for value, expected in ((0.5, 1.0), (0.0, 0.0), (1.0, 0.0), (0.25, 0.75)):
            problem.density.forward(np.full(m.size, value))
            assert problem.grey_level() == pytest.approx(expected)

    def test_without_constraints(self, comm):
        problem, m = heat(comm, options=LoopOptions(stages=(Stage(1.0, 1.0),), final_iterations=40))
        problem.constraints = []
        result = problem.run(m)
        assert result.constraints == {}
        assert result.m == pytest.approx(np.ones(m.size), abs=1e-3)


class TestObjectives:
    """Ions in one phase, electrons in the other, on a small grid of voxels."""

    def problem(self, comm, *, both=True, weight=1.0, **options):
        model = CellModel(VoxelGrid(comm, (16, 16), 1 / 16, periodic=True), 0.25)
        ions, electrons = model.state((1.0, 0.01)), model.state((0.01, weight))
        objectives = [model.tensor_functional(s, functionals.mean_resistivity) for s in (ions, electrons)]
        problem = DesignProblem(
            model.density,
            objectives if both else objectives[0],
            [
                Constraint("volume", model.mean_density(), 0.6),
                Constraint("least", model.mean_density(), 0.4, "at least"),
            ],
            volumes=model.volumes,
            projections=[model.projection],
            interpolations=model.interpolations,
            solvers=model.solvers,
            options=LoopOptions(stages=(Stage(3.0, 1.0), Stage(3.0, 4.0)), stage_iterations=20, **options),
            bound_fraction=lambda J: 1 / J,
        )
        return problem, model.start("random", 0.5, seed=2)

    def test_the_largest_is_minimized(self, comm):
        problem, m = self.problem(comm)
        result = problem.run(m)
        assert len(result.objectives) == 2
        assert result.objective == max(result.objectives)
        first = result.history[0]
        assert first.objective == max(first.objectives)
        # Both count at the end: neither can be had for less without the other's costing more.
        assert result.objectives[0] == pytest.approx(result.objectives[1], rel=0.02)
        assert result.objective < 0.9 * first.objective
        one, m = self.problem(comm, both=False)
        alone = one.run(m)
        assert alone.objectives == ()
        assert alone.objective < 0.95 * result.objective

    def test_values_and_gradients_have_a_row_each(self, comm):
        problem, m = self.problem(comm)
        values, gradients, _, jacobian = problem.evaluate(m)
        assert values.shape == (2,)
        assert gradients.shape == (2, m.size)
        assert jacobian.shape == (2, m.size)
        single, _ = self.problem(comm, both=False)
        value, gradient, _, _ = single.evaluate(m)
        assert value == pytest.approx(values[0])
        assert gradient == pytest.approx(gradients[0])

    def test_record(self, comm):
        problem, m = self.problem(comm, final_iterations=1)
        problem.options = replace(problem.options, stages=(Stage(3.0, 1.0),))
        (record,) = problem.run(m).history
        assert set(record.iterations_of) == {"filter", "state", "state 2"}
        assert sum(record.iterations_of.values()) == record.solver_iterations
        assert all(count > 0 for count in record.iterations_of.values())
        assert record.bound_fraction == pytest.approx(1 / record.objective)
        row = record.row()
        assert [row["objective_1"], row["objective_2"]] == list(record.objectives)
        assert row["iterations_state 2"] == record.iterations_of["state 2"]
        assert "tolerance" not in row
        assert Record.from_dict(json.loads(json.dumps(asdict(record)))) == record
        stream = StringIO()
        Progress(comm, stream)(record, problem)
        if comm.rank == 0:
            head, line = stream.getvalue().splitlines()
            assert len(head) == len(line)
            assert f"{100 * record.bound_fraction:.2f}%" in line

    def test_none(self, comm):
        problem, _ = heat(comm)
        with pytest.raises(ValueError, match="at least one objective, found none"):
            DesignProblem(problem.density, [], [], volumes=problem.volumes)


class TestOptimizers:
    @pytest.mark.parametrize("name", ["gcmma", "oc"])
    def test_by_name(self, comm, name):
        # Optimality criteria cycle where the projection is sharp.
        options = replace(SHORT, stages=SHORT.stages[:2], final_iterations=30, optimizer=name)
        problem, m = heat(comm, options=options)
        result = problem.run(m)
        assert result.constraints["volume"] < SHORT.feasibility
        problem, m = heat(comm, options=replace(options, optimizer="mma"))
        assert result.objective == pytest.approx(problem.run(m).objective, rel=0.1)

    def test_that_compares_values_refuses_loose_solves(self, comm):
        problem, m = heat(comm, options=replace(SHORT, optimizer="gcmma", inexact=InexactSolves()))
        with pytest.raises(ValueError, match="'gcmma' compares values: its solves cannot be loose"):
            problem.run(m)

    @pytest.mark.parametrize("name", ["mma", "oc"])
    def test_steps_shorten_where_the_projection_is_sharp(self, comm, name):
        stages = (Stage(3.0, 2.0), Stage(3.0, 16.0))
        options = replace(SHORT, stages=stages, stage_iterations=3, final_iterations=3, optimizer=name)
        longest = []
        for full in (np.inf, 4.0):
            problem, m = heat(comm, options=replace(options, full_steps=full))
            history = problem.run(m).history
            longest.append([max(r.change for r in history if r.stage == i) for i in (0, 1)])
        assert longest[0][0] == longest[1][0]
        # A quarter of the move limit, 0.2.
        assert longest[1][1] <= 0.05 * (1 + 1e-9) < longest[0][1]

    def test_unknown(self, comm):
        problem, m = heat(comm, options=replace(SHORT, optimizer="newton"))
        with pytest.raises(ValueError, match="found 'newton'"):
            problem.run(m)


class TestOptions:
    @pytest.mark.parametrize("name", ["stage_iterations", "final_iterations", "window"])
    def test_counts(self, name):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, found 0"):
            LoopOptions(**{name: 0})

    def test_full_steps(self):
        with pytest.raises(ValueError, match=r"full_steps must be positive, found 0\.0"):
            LoopOptions(full_steps=0.0)

    def test_no_stages(self):
        with pytest.raises(ValueError, match="at least one stage"):
            LoopOptions(stages=())

    @pytest.mark.parametrize("bound", [0.0, -1.0, np.nan, np.inf])
    def test_bound(self, bound):
        with pytest.raises(ValueError, match=f"'x' must be positive, found {bound}"):
            Constraint("x", None, bound)

    def test_sense(self):
        with pytest.raises(ValueError, match="found 'about'"):
            Constraint("x", None, 1.0, "about")
