"""Transient diffusion against Crank's series: rates in time and space, conservation, error control, ranks."""

import math

import numpy as np
import pytest
import ufl
from dolfinx import fem

from fetopo.microstructure.geometry import inclusion_cell
from fetopo.microstructure.mesh import regular_cell, select_phases, voxel_cell
from fetopo.transport import series
from fetopo.transport.state import global_sum, owned
from fetopo.transport.timestep import SDIRK2, TR_BDF2, TimeOptions, next_factor
from fetopo.transport.transient import Fixed, Inflow, TransientDiffusion


def at(axis, value):
    return lambda x: np.isclose(x[axis], value, rtol=0, atol=1e-9)


def sheet(comm, n=32, conditions=None, kind=None, degree=1, **more):
    cell = regular_cell(comm, (n, 2), (1.0, 0.1), kind)
    conditions = [Fixed(1.0, at(0, 1.0))] if conditions is None else conditions
    return TransientDiffusion(cell, 1.0, conditions, degree=degree, **more)


def cosine(x):
    return np.cos(0.5 * np.pi * x[0])


def decayed(comm, n, steps, degree=1, kind=None):
    """L² error of a cosine that decays between a closed face and one kept at zero, at t = 0.4."""
    problem = sheet(comm, n, [Fixed(0.0, at(0, 1.0))], kind, degree, initial=cosine)
    problem.run(0.4, options=TimeOptions(step=0.4 / steps))
    assert len(problem.history) == steps
    x = ufl.SpatialCoordinate(problem.V.mesh)
    exact = math.exp(-((np.pi / 2) ** 2) * 0.4) * ufl.cos(np.pi / 2 * x[0])
    return math.sqrt(global_sum(fem.form((problem.c - exact) ** 2 * ufl.dx)) / 0.1)


class TestRates:
    def test_second_order_in_time(self, comm):
        errors = [decayed(comm, 32, steps, degree=2) for steps in (4, 8, 16)]
        assert np.log2(errors[0] / errors[1]) > 1.85
        assert np.log2(errors[1] / errors[2]) > 1.9

    @pytest.mark.parametrize("kind", ["quadrilateral", "triangle"])
    @pytest.mark.parametrize("degree", [1, 2])
    def test_in_space(self, comm, kind, degree):
        errors = [decayed(comm, n, 100 if degree == 1 else 400, degree, kind) for n in (4, 8)]
        assert np.log2(errors[0] / errors[1]) > degree + 1 - 0.1

    def test_boundary_values_that_change_cost_no_order(self, comm):
        """c = sin(t) (1 − x²/2) with the source that makes it so, kept at x = 1, Neumann data at x = 0."""
        errors = []
        for steps in (4, 8, 16):
            problem = sheet(
                comm,
                2,
                [Fixed(lambda t: 0.5 * math.sin(3 * t), at(0, 1.0)), Inflow(lambda t: 0.0, at(0, 0.0))],
                degree=2,
                source=lambda x, t: 3 * ufl.cos(3 * t) * (1 - x[0] ** 2 / 2) + ufl.sin(3 * t),
            )
            problem.run(1.0, options=TimeOptions(step=1 / steps))
            x = ufl.SpatialCoordinate(problem.V.mesh)
            exact = math.sin(3.0) * (1 - x[0] ** 2 / 2)
            errors.append(math.sqrt(global_sum(fem.form((problem.c - exact) ** 2 * ufl.dx))))
        assert np.log2(errors[0] / errors[1]) > 1.85
        assert np.log2(errors[1] / errors[2]) > 1.9

    @pytest.mark.parametrize("method", [TR_BDF2, SDIRK2])
    def test_damping_of_what_is_too_fast(self, method):
        """L-stability: z → −∞ leaves nothing; the estimate vanishes on constants."""
        z, slopes = -1e9, []
        for row in method.weights:
            base = 1 + sum(w * k for w, k in zip(row[:-1], slopes, strict=True))
            slopes.append(z * base / (1 - z * row[-1]))
        end = 1 + sum(w * k for w, k in zip(method.weights[-1], slopes, strict=True))
        assert abs(end) < 1e-7
        assert sum(method.estimate) == pytest.approx(0, abs=1e-15)


class TestSeries:
    def test_sheet(self, comm):
        """Profiles and uptake from a jump of the boundary value, for a tolerance of 1e-5 and 128 elements."""
        problem, seen = sheet(comm, 128), []
        x = problem.V.tabulate_dof_coordinates()[:, 0].clip(0, 1)

        def observe(t, c):
            seen.append((t, np.abs(c.x.array - series.sheet_profile(x, t)).max(initial=0.0)))

        times = [0.01, 0.0337, 0.1, 0.5, 1.0]
        steps = problem.run(1.0, options=TimeOptions(rtol=1e-5), times=times, observe=observe)
        assert [t for t, _ in seen] == times
        assert max(error for _, error in seen) < 3e-4
        late = [s for s in steps if s.time > 1e-3]
        uptake = np.array([s.mass for s in late]) / problem.volume
        assert np.abs(uptake - series.sheet_uptake([s.time for s in late])).max() < 4e-4

    @pytest.mark.parametrize(
        ("uptake", "dim", "sizes", "finest"),
        [(series.cylinder_uptake, 2, (0.04, 0.02), 1.4e-3), (series.sphere_uptake, 3, (0.08, 0.05), 1.8e-2)],
    )
    def test_disc_and_sphere(self, comm, uptake, dim, sizes, finest):
        """Kept at 1 all around, cut out of a box: the error falls with the square of the mesh size."""
        errors = []
        for size in sizes:
            cell = inclusion_cell(comm, centers=[[0.5] * dim], radii=0.4, mesh_size=size)
            problem = TransientDiffusion(select_phases(cell, ["inclusion"]), 0.16, [Fixed(1.0)])
            late = [s for s in problem.run(0.5, options=TimeOptions(rtol=3e-5)) if s.time > 0.05]
            found = np.array([s.mass for s in late]) / problem.volume
            errors.append(np.abs(found - uptake([s.time for s in late])).max())
        assert np.log(errors[0] / errors[1]) / np.log(sizes[0] / sizes[1]) > 1.7
        assert errors[1] < finest

    def test_constant_inflow(self, comm):
        """Sheet with q at one face: c − qt − q((3x² − 1)/6) → 0 (Crank 1975, equation 4.55)."""
        problem = sheet(comm, 64, [Inflow(2.0, at(0, 1.0))])
        problem.run(2.0, options=TimeOptions(rtol=1e-6))
        x = problem.V.tabulate_dof_coordinates()[:, 0]
        assert np.abs(problem.c.x.array - 2 * (2.0 + (3 * x**2 - 1) / 6)).max() < 3e-4


class TestSeriesAlone:
    def test_short_and_long_times_meet(self):
        for function in (series.sheet_uptake, series.sphere_uptake):
            assert function([0.0199999])[0] == pytest.approx(function([0.0200001])[0], abs=1e-5)
            assert function([0.0])[0] == 0
            assert function([20.0])[0] == pytest.approx(1, abs=1e-12)
        below, above = (series.sheet_profile([0.0, 0.5, 1.0], t) for t in (0.05 - 1e-12, 0.05 + 1e-12))
        assert np.allclose(below, above, atol=1e-10)

    def test_short_times(self):
        """All bodies take up 2/√π S/V √(Dt) at first; S/V is 1, 2, 3 over a."""
        t = 1e-4
        found = [f([t])[0] for f in (series.sheet_uptake, series.cylinder_uptake, series.sphere_uptake)]
        assert np.allclose(found, 2 / np.sqrt(np.pi) * np.sqrt(t) * np.arange(1, 4), rtol=2e-2)

    def test_negative_times_are_refused(self):
        with pytest.raises(ValueError, match="not negative, found -1"):
            series.sphere_uptake([0.5, -1.0])


def pore(comm):
    mask = np.random.default_rng(4).random((8, 7, 6)) < 0.75
    mask[:, 3, 3] = True
    return voxel_cell(comm, mask.astype(int), 0.5, phases=[1])


@pytest.mark.mpi
class TestConservation:
    def test_every_step_and_all_of_them(self, comm):
        cell = pore(comm)
        problem = TransientDiffusion(
            cell,
            {1: 2.0},
            [
                Fixed(lambda t: 1 + math.sin(5 * t), at(0, 0.0)),
                Fixed(0.5, at(0, 4.0)),
                Inflow(lambda t: 0.3 * t, at(1, 0.0)),
            ],
            source=lambda x, t: ufl.exp(-t) * x[0],
            storage=0.7,
            initial=lambda x: x[1],
        )
        before = problem.mass()
        steps = problem.run(3.0)
        scale = max(sum(abs(f) for f in s.inflow) for s in steps)
        assert max(abs(s.imbalance) for s in steps) < 1e-9 * scale
        gained = sum(sum(s.inflow) + s.source for s in steps)
        assert problem.mass() - before == pytest.approx(gained, rel=1e-9)

    def test_closed_body_keeps_its_mass(self, comm):
        problem = TransientDiffusion(pore(comm), 1.0, initial=lambda x: np.sin(3 * x[0]) + x[1])
        before = problem.mass()
        problem.run(200.0)
        assert problem.mass() == pytest.approx(before, rel=1e-11)
        assert max(abs(s.imbalance) for s in problem.history) < 1e-11 * before

    def test_inflow_through_the_surface(self, comm):
        """All of the surface of a bar of 4×2×2 voxels cut out of a larger mesh, wherever ranks meet."""
        mask = np.zeros((6, 4, 4), dtype=int)
        mask[1:5, 1:3, 1:3] = 1
        part = select_phases(voxel_cell(comm, mask), [1])
        problem = TransientDiffusion(part, 1.0, [Inflow(2.0)])
        problem.run(0.5)
        assert problem.mass() == pytest.approx(2 * 0.5 * (2 * 4 + 4 * 8), rel=1e-10)

    def test_source_and_storage(self, comm):
        problem = TransientDiffusion(pore(comm), 1.0, source=3.0, storage=2.0, initial=1.0)
        problem.run(2.0, options=TimeOptions(step=0.5))
        assert np.allclose(problem.c.x.array, 1 + 3.0 * 2.0 / 2.0, rtol=1e-10)


class TestSteps:
    def test_error_is_controlled(self, comm):
        """A hundredth of the tolerance: an error below a tenth, and about 100^(1/3) as many steps."""
        errors, counts = [], []
        for rtol in (1e-3, 1e-5):
            problem = sheet(comm, 32, [Fixed(0.0, at(0, 1.0))], degree=2, initial=cosine)
            problem.run(0.4, options=TimeOptions(rtol=rtol))
            exact = fem.Function(problem.V)
            exact.interpolate(cosine)
            exact.x.array[:] *= math.exp(-((np.pi / 2) ** 2) * 0.4)
            errors.append(
                max(comm.allgather(float(np.abs(problem.c.x.array - exact.x.array).max(initial=0))))
            )
            counts.append(len(problem.history))
            assert all(s.error <= 1 for s in problem.history)
        assert errors[0] < 5e-3
        assert errors[1] < errors[0] / 10
        assert counts[0] < counts[1] < 12 * counts[0]

    def test_few_matrices(self, comm):
        problem = sheet(comm)
        steps = problem.run(1.0)
        lengths = {s.step for s in steps[:-1]}
        assert np.allclose(np.log2(sorted(lengths)) % 1, np.log2(min(lengths)) % 1)
        assert problem.matrices <= len(lengths) + 1 + 2 * sum(s.rejected for s in steps)
        assert problem.matrices < len(steps) / 3

    def test_too_long_a_first_step_is_rejected(self, comm):
        problem = sheet(comm)
        first = problem.run(0.1, options=TimeOptions(first_step=0.1, rtol=1e-4))[0]
        assert first.rejected >= 1
        assert first.step < 0.05
        assert problem.c.x.array.max(initial=-1) < 1.01

    @pytest.mark.mpi
    def test_a_jump_between_runs(self, comm):
        """Filled, then emptied: the second run starts anew and forgets the slopes of the first."""
        value = {"now": 1.0}
        problem = sheet(comm, 64, [Fixed(lambda t: value["now"], at(0, 1.0))])
        problem.run(5.0)
        assert problem.c.x.array.min(initial=1) > 0.999
        value["now"] = 0.0
        problem.run(5.1)
        x = problem.V.tabulate_dof_coordinates()[:, 0].clip(0, 1)
        assert np.abs(problem.c.x.array - (1 - series.sheet_profile(x, 0.1))).max(initial=0) < 2e-3

    def test_after_a_jump_the_past_is_forgotten(self, comm):
        """The step after it is that of a problem which starts with this field."""
        value, options = {"now": 1.0}, TimeOptions(step=0.02)
        problem = sheet(comm, 16, [Fixed(lambda t: value["now"], at(0, 1.0))])
        problem.run(0.2, options=options)
        value["now"] = 0.5
        fresh = TransientDiffusion(problem.cell, 1.0, [Fixed(0.5, at(0, 1.0))], initial=problem.c)
        problem.run(0.22, options=options)
        fresh.run(0.02, options=options)
        assert np.allclose(problem.c.x.array, fresh.c.x.array, atol=1e-9)

    def test_going_on_is_the_same_as_going_through(self, comm):
        one, two = sheet(comm), sheet(comm)
        options = TimeOptions(step=0.01)
        one.run(0.4, options=options)
        two.run(0.2, options=options)
        two.run(0.4, options=options)
        assert np.allclose(one.c.x.array, two.c.x.array, atol=1e-9)
        assert len(two.history) == 40

    def test_callback_sees_every_step(self, comm):
        seen = []
        problem = sheet(comm)
        steps = problem.run(0.1, callback=lambda step, p: seen.append((step, p is problem)))
        assert seen == [(s, True) for s in steps]

    def test_factor(self):
        assert next_factor(0.0, 3) == 8
        assert next_factor(1.0, 3) == 1
        assert next_factor(0.5, 3) == 1
        assert next_factor(0.08, 3) == 2
        assert next_factor(100.0, 2) == 1 / 16
        assert next_factor(math.inf, 2) == 1 / 64

    @pytest.mark.mpi
    def test_same_on_one_rank(self, comm, alone):
        found = []
        for c in (comm, alone):
            problem = TransientDiffusion(
                pore(c), 1.0, [Fixed(1.0, at(0, 0.0)), Inflow(-0.1, at(0, 4.0))], initial=0.2
            )
            problem.run(2.0)
            found.append([(s.step, s.mass, *s.inflow) for s in problem.history])
        assert np.allclose(found[0], found[1], rtol=1e-8)
        # Each rank solved all of it alone: ranks agree if their sums do.
        assert len(found[0]) == len(found[1])


@pytest.mark.mpi
class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"diffusivity": 0.0}, "diffusivity must be positive and finite, found 0.0"),
            ({"diffusivity": {1: -1.0}}, "diffusivity of phase 1 must be positive and finite, found -1.0"),
            ({"diffusivity": {2: 1.0}}, r"has tags \[1\], found \[2\]"),
            ({"storage": math.nan}, "storage must be positive"),
            ({"conditions": [Fixed(math.inf)]}, "boundary data must be finite"),
            ({"conditions": [Fixed(1.0, at(0, 7.0))]}, "no facet of the boundary"),
            ({"conditions": [Fixed(1.0, "wall")]}, "no facets 'wall'"),
            ({"initial": math.nan}, "initial concentration must be finite"),
        ],
    )
    def test_problem(self, comm, arguments, message):
        with pytest.raises(ValueError, match=message):
            TransientDiffusion(regular_cell(comm, (3, 3)), **({"diffusivity": 1.0} | arguments))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rtol": -1.0}, "rtol must be finite and not negative, found -1"),
            ({"rtol": 0.0}, "one of rtol and atol"),
            ({"step": 0.0}, "step must be positive, found 0"),
            ({"max_steps": 0}, "max_steps must be positive"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            TimeOptions(**options)

    def test_run(self, comm):
        problem = sheet(comm, 8)
        with pytest.raises(ValueError, match="after the present time 0 s, found -1"):
            problem.run(-1.0)
        with pytest.raises(ValueError, match=r"times must lie between 0 and 1 s, found 0\.5 and 2"):
            problem.run(1.0, times=[0.5, 2.0])
        with pytest.raises(RuntimeError, match="3 steps in time led to"):
            problem.run(1.0, options=TimeOptions(max_steps=3))


@pytest.mark.mpi
def test_tensor_and_phases(comm):
    """Two layers along the flow, one ten times as fast: the steady flux is the arithmetic mean's."""
    labels = np.repeat([[1, 1, 2, 2]], 6, axis=0)
    problem = TransientDiffusion(
        voxel_cell(comm, labels),
        {1: np.diag([1.0, 5.0]), 2: 10.0},
        [Fixed(1.0, at(0, 0.0)), Fixed(0.0, at(0, 6.0))],
    )
    problem.run(500.0)
    assert problem.history[-1].rate[0] == pytest.approx(5.5 * 4 / 6, rel=1e-6)
    assert owned(problem.c).size == problem.free.size
