"""Loose solves while the design moves: tolerances, corrected values, and the same design at the end."""

from types import SimpleNamespace

import numpy as np
import pytest
import ufl
from dolfinx import fem

from fetopo.design.adjoint import FormFunctional
from fetopo.design.cell import design_cell
from fetopo.design.density import DensityMap
from fetopo.design.inexact import InexactSolves, SolveAccuracy
from fetopo.design.model import CellModel
from fetopo.design.problem import LoopOptions, Stage
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.state import LinearState, owned
from fetopo.transport.voxel import VoxelGrid


class TestAccuracy:
    def test_tolerance_follows_the_movement_between_its_limits(self):
        states = [SimpleNamespace(tolerance=1e-6), SimpleNamespace(tolerance=1e-4), SimpleNamespace()]
        accuracy = SolveAccuracy(InexactSolves(loosest=1e-2, factor=0.1), states)
        for movement, expected in ((np.inf, [1e-2, 1e-2]), (0.05, [5e-3, 5e-3]), (1e-4, [1e-5, 1e-4])):
            accuracy.moved(movement)
            assert accuracy.apply() == pytest.approx(max(expected))
            assert [s.tolerance for s in states[:2]] == pytest.approx(expected)
        accuracy.restore()
        assert [s.tolerance for s in states[:2]] == [1e-6, 1e-4]

    def test_the_end_is_confirmed_with_tight_solves(self):
        state = SimpleNamespace(tolerance=1e-6)
        accuracy = SolveAccuracy(InexactSolves(), [state])
        accuracy.moved(0.01)
        accuracy.apply()
        assert accuracy.tighten()
        accuracy.apply()
        assert state.tolerance == 1e-6
        assert not accuracy.tighten()
        accuracy.restart()
        accuracy.apply()
        assert state.tolerance == InexactSolves().loosest

    def test_nothing_is_set_without_options(self):
        state = SimpleNamespace(tolerance=1e-6)
        accuracy = SolveAccuracy(None, [state])
        assert accuracy.apply() is None
        assert not accuracy.tighten()
        assert state.tolerance == 1e-6

    @pytest.mark.parametrize(
        "options", [{"loosest": 0.0}, {"loosest": 1.0}, {"factor": 0.0}, {"factor": np.nan}]
    )
    def test_values_out_of_range(self, options):
        (value,) = options.values()
        with pytest.raises(ValueError, match=f"found {value}"):
            InexactSolves(**options)


@pytest.mark.mpi
class TestWarmStarts:
    """A second solve at the same density takes no iteration, at another one fewer than from zero."""

    @pytest.mark.parametrize("kind", ["voxel", "mesh"])
    def test_cells(self, comm, kind):
        shape = (12, 12, 12)
        cell = VoxelGrid(comm, shape, 1 / 12, periodic=True) if kind == "voxel" else regular_cell(comm, shape)
        options = {} if kind == "voxel" else {"ksp_type": "cg", "pc_type": "jacobi", "ksp_rtol": 1e-8}
        model = CellModel(cell, 0.3, petsc_options=options)
        state = model.state((0.01, 1.0))
        m = model.start("inclusions", 0.5)
        solver = model.solvers[-1]

        def iterations():
            before = solver.iterations
            state.solve()
            return solver.iterations - before

        model.density.forward(m)
        first, second = iterations(), iterations()
        model.density.forward(np.clip(m + 1e-4, 0, 1))
        near = iterations()
        assert second == 0
        assert 0 < near < 0.8 * first
        state.tolerance = 1e-1
        assert state.tolerance == 1e-1
        model.density.forward(np.clip(m + 1e-3, 0, 1))
        assert iterations() == 0

    def test_linear_state_and_filter(self, comm):
        problem = heat(comm)
        state, density = problem.state, problem.density
        m = np.full(owned(density.rho).size, 0.4)
        density.forward(m)
        counted = [state.solver, *density.steps[0].solvers] if density.steps else [state.solver]
        state.solve()
        before = [s.iterations for s in counted]
        density.forward(m)
        state.solve()
        assert [s.iterations for s in counted] == before


def heat(comm, n=24):
    """Conduction with a source, a density as it is, and two functionals."""
    mesh = regular_cell(comm, (n, n)).mesh
    density = DensityMap(mesh)
    V = fem.functionspace(mesh, ("Lagrange", 1))
    u, v = fem.Function(V), ufl.TestFunction(V)
    kappa = 0.01 + density.rho**3
    F = kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx - v * ufl.dx
    left = fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], 0))
    options = {"ksp_type": "cg", "pc_type": "jacobi", "ksp_rtol": 1e-12}
    state = LinearState(F, u, [fem.dirichletbc(0.0, left, V)], options)
    return SimpleNamespace(
        density=density,
        state=state,
        energy=FormFunctional(u * ufl.dx, density.rho, state),
        other=FormFunctional(u**2 * ufl.dx, density.rho, state),
    )


@pytest.mark.mpi
class TestCorrection:
    @pytest.mark.parametrize("name", ["energy", "other"])
    def test_takes_off_the_first_order_error(self, comm, name):
        problem = heat(comm)
        functional = getattr(problem, name)
        x = np.random.default_rng(comm.rank).random(owned(problem.density.rho).size)
        # As in a run, the solves start from the solution of another design.
        problem.density.forward(0.5 + 0.4 * x)
        problem.state.solve()
        functional.derivative()
        before = problem.state.u.x.array.copy(), functional.adjoint.x.array.copy()
        problem.density.forward(0.3 + 0.4 * x)
        errors = {}
        problem.state.solve()
        exact = functional.value()
        functional.derivative()
        assert abs(functional.correction()) < 1e-9 * exact
        for tolerance in (1e-2, 1e-3):
            problem.state.u.x.array[:], functional.adjoint.x.array[:] = before
            problem.state.tolerance = tolerance
            problem.state.solve()
            value = functional.value()
            functional.derivative()
            errors[tolerance] = (
                abs(value - exact) / exact,
                abs(value + functional.correction() - exact) / exact,
            )
        # Second order in the tolerance. The residual of conjugate gradients hardly changes an energy.
        for tolerance, (plain, corrected) in errors.items():
            assert corrected < tolerance**2
            assert corrected < 0.2 * plain or (name == "energy" and plain < tolerance**2)

    def test_is_nothing_without_a_state(self, comm):
        problem = heat(comm, n=4)
        assert FormFunctional(problem.density.rho * ufl.dx, problem.density.rho).correction() == 0.0


class TestDesigns:
    @pytest.mark.parametrize(
        ("kind", "shape", "petsc_options"),
        [
            ("voxel", (32, 32), None),
            ("mesh", (16, 16), {"ksp_type": "cg", "pc_type": "jacobi", "ksp_rtol": 1e-10}),
        ],
    )
    def test_loose_ends_where_tight_does(self, comm, kind, shape, petsc_options):
        found = {}
        for inexact in (None, InexactSolves()):
            cell = (
                VoxelGrid(comm, shape, 1 / 32, periodic=True)
                if kind == "voxel"
                else regular_cell(comm, shape)
            )
            design = design_cell(
                cell,
                conductivity=(0.01, 1.0),
                volume_fraction=0.5,
                filter_radius=0.2,
                options=LoopOptions(inexact=inexact, objective_tolerance=1e-4),
                petsc_options=petsc_options,
                refine=1,
            )
            found[inexact is None] = design.result
        tight, loose = found[True], found[False]
        assert loose.converged
        assert loose.objective == pytest.approx(tight.objective, rel=1e-3)
        spent = [sum(r.iterations_of["state"] for r in result.history) for result in (tight, loose)]
        assert spent[1] < 0.8 * spent[0]
        assert all(r.tolerance is None for r in tight.history)
        assert loose.history[0].tolerance == InexactSolves().loosest
        assert loose.history[-1].tolerance < 1e-5

    def test_tolerances_are_given_back(self, comm):
        model = CellModel(VoxelGrid(comm, (8, 8), 1 / 8, periodic=True), 0.3)
        state = model.state((0.01, 1.0))
        functional = model.tensor_functional(state, lambda D: ufl.tr(ufl.inv(D)))
        own = state.tolerance
        from fetopo.design.problem import Constraint, DesignProblem

        problem = DesignProblem(
            model.density,
            functional,
            [Constraint("volume", model.mean_density(), 0.5)],
            volumes=model.volumes,
            options=LoopOptions(stages=(Stage(3.0, 1.0),), final_iterations=2, inexact=InexactSolves()),
        )
        problem.run(model.start("inclusions", 0.5))
        assert state.tolerance == own
