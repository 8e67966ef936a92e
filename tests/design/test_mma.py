"""The method of moving asymptotes on problems with known optima, distributed in every way."""

import numpy as np
import pytest
from known import (
    cantilever,
    hock_schittkowski_24,
    hock_schittkowski_43,
    knapsack,
    linear_program,
    matched,
    minimax,
    minimize,
    part,
    svanberg_second,
    two_balls,
)
from mpi4py import MPI
from scipy.optimize import brentq

from fetopo.design.mma import MMA, MMAOptions

pytestmark = pytest.mark.mpi


class TestKnownOptima:
    @pytest.mark.parametrize("start", [5.0, 1.0, 10.0])
    def test_cantilever(self, comm, start):
        """From a feasible and from two infeasible or wasteful starts."""
        x, f0, f, optimizer = minimize(comm, cantilever, np.full(5, start), np.ones(5), np.full(5, 10.0), MMA)
        assert f0 == pytest.approx(1.33996, abs=1e-5)
        assert x == pytest.approx([6.016, 5.309, 4.494, 3.502, 2.153], abs=2e-3)
        assert abs(f[0]) < 1e-6
        # Stationarity: 0.0624 = λ 3c/x⁴ for every variable.
        _, df0, _, df = cantilever(x)
        assert df0 + optimizer.multipliers @ df == pytest.approx(np.zeros(5), abs=1e-4)

    def test_cantilever_converges_quickly(self, comm):
        """Svanberg needs about ten steps to three digits."""
        _, f0, f, _ = minimize(comm, cantilever, np.full(5, 5.0), np.ones(5), np.full(5, 10.0), MMA, steps=15)
        assert f0 == pytest.approx(1.33996, rel=2e-3)
        assert f[0] < 2e-3

    @pytest.mark.parametrize("start", [(4, 3, 2), (0, 0, 0), (5, 5, 5)])
    def test_two_constraints(self, comm, start):
        x, f0, f, optimizer = minimize(comm, two_balls, start, np.zeros(3), np.full(3, 5.0), MMA, steps=80)
        assert f0 == pytest.approx(8.770246, abs=1e-4)
        assert x == pytest.approx([2.017519, 1.779970, 1.237765], abs=1e-3)
        assert f.max() < 1e-5
        assert (optimizer.multipliers > 0.1).all()

    @pytest.mark.parametrize("m", [0, 1])
    def test_ten_thousand_variables_within_bounds(self, comm, m):
        """½ Σ w (x − t)²/n with targets beyond the bounds: x = t cut to [0, 1]; a constraint that is idle."""
        n = 10_000
        rng = np.random.default_rng(0)
        t, w = rng.uniform(-1, 2, n), rng.uniform(0.5, 2, n)

        def quadratic(x):
            f, df = np.zeros(0), np.zeros((0, n))
            if m:
                f, df = np.array([x.mean() / 0.9 - 1]), np.full((1, n), 1 / (0.9 * n))
            return 0.5 * np.mean(w * (x - t) ** 2), w * (x - t) / n, f, df

        x, f0, _, optimizer = minimize(
            comm, quadratic, np.full(n, 0.5), np.zeros(n), np.ones(n), MMA, steps=60
        )
        best = np.clip(t, 0, 1)
        assert f0 == pytest.approx(quadratic(best)[0], rel=1e-6)
        assert np.abs(x - best).max() < 1e-2
        assert optimizer.multipliers.shape == (m,)
        assert (optimizer.multipliers < 1e-6).all()

    def test_ten_thousand_variables_with_a_budget(self, comm):
        """The same with an active limit on the mean: x = t − λ/w cut to the bounds."""
        n = 10_000
        rng = np.random.default_rng(1)
        t, w = rng.uniform(-1, 2, n), rng.uniform(0.5, 2, n)
        solution = lambda lam: np.clip(t - lam / w, 0, 1)
        lam = brentq(lambda lam: solution(lam).mean() - 0.3, 0, 10, xtol=1e-14)

        def quadratic(x):
            value, gradient = 0.5 * np.mean(w * (x - t) ** 2), w * (x - t) / n
            return value, gradient, np.array([x.mean() - 0.3]), np.full((1, n), 1 / n)

        x, f0, f, optimizer = minimize(
            comm, quadratic, np.full(n, 0.3), np.zeros(n), np.ones(n), MMA, steps=60
        )
        assert f0 == pytest.approx(quadratic(solution(lam))[0], rel=1e-6)
        assert abs(f[0]) < 1e-6
        assert optimizer.multipliers[0] == pytest.approx(lam, rel=1e-3)
        assert np.abs(x - solution(lam)).max() < 1e-2

    def test_the_dual_is_solved_to_round_off(self, comm):
        """The multiplier is the root of the slope of the dual: steps are the same on any number of ranks."""
        n = 100_000
        rng = np.random.default_rng(3)
        here = part(comm, n)
        t, w = rng.uniform(-1, 2, n)[here], rng.uniform(0.5, 2, n)[here]
        optimizer = MMA(comm, np.zeros(t.size), np.ones(t.size))
        x = np.full(t.size, 0.5)
        for _ in range(3):
            f = np.array([comm.allreduce(x.sum()) / n / 0.5 - 1])
            arguments = (x, 0.0, w * (x - t) * 5 / n, f, np.full((1, t.size), 2.0 / n))
            before = MMA(comm, optimizer.lower, optimizer.upper)
            before.restore(optimizer.state())
            subproblem = before._approximate(*arguments)
            slope = lambda u: subproblem.dual(np.array([1.0, u]))[1][1]  # noqa: B023
            root = brentq(slope, 1e-9, 10, xtol=1e-15) * subproblem.scale[1]
            x = optimizer.step(*arguments)
            assert optimizer.multipliers[0] == pytest.approx(root, rel=1e-9)

    def test_hock_schittkowski_24(self, comm):
        x, f0, _, _ = minimize(comm, hock_schittkowski_24, (1.0, 0.5), np.zeros(2), np.full(2, 5.0), MMA)
        assert f0 == pytest.approx(-1, abs=1e-6)
        assert x == pytest.approx([3, 3**0.5], abs=1e-4)

    def test_hock_schittkowski_43(self, comm):
        x, f0, f, _ = minimize(
            comm, hock_schittkowski_43, np.zeros(4), np.full(4, -3.0), np.full(4, 3.0), MMA, steps=100
        )
        assert f0 == pytest.approx(-44, abs=1e-3)
        assert x == pytest.approx([0, 1, 2, -1], abs=3e-2)
        assert f.max() < 1e-4

    def test_knapsack(self, comm):
        functions, best, lam = knapsack(5000)
        x, _, f, optimizer = minimize(comm, functions, np.zeros(5000), np.zeros(5000), np.ones(5000), MMA)
        assert x == pytest.approx(best, abs=1e-6)
        assert optimizer.multipliers[0] == pytest.approx(lam, rel=1e-6)
        assert abs(f[0]) < 1e-9

    @pytest.mark.parametrize(("n", "m"), [(30, 60), (400, 20)])
    def test_linear_program(self, comm, n, m):
        """Many constraints, most of them idle; from the corner that violates all of them."""
        functions, best = linear_program(n, m)
        _, f0, f, _ = minimize(comm, functions, np.zeros(n), np.zeros(n), np.ones(n), MMA, steps=100)
        assert f0 == pytest.approx(best, rel=1e-5)
        assert f.max() < 1e-6

    def test_constraint_that_cannot_hold(self, comm):
        """The violation is made as small as it gets, and nothing breaks."""
        impossible = lambda x: (x.sum(), np.ones(4), np.array([2.0 - x.sum() / 4]), np.full((1, 4), -0.25))
        x, _, f, _ = minimize(comm, impossible, np.full(4, 0.2), np.zeros(4), np.ones(4), MMA, steps=30)
        assert x == pytest.approx(np.ones(4), abs=1e-6)
        assert f[0] == pytest.approx(1, abs=1e-6)

    def test_gradient_that_vanishes(self, comm):
        """Variables without influence stay."""
        flat = lambda x: (x[0], np.eye(4)[0], np.array([-1.0]), np.zeros((1, 4)))
        x, *_ = minimize(comm, flat, np.full(4, 0.4), np.zeros(4), np.ones(4), MMA, steps=20)
        assert x == pytest.approx([0, 0.4, 0.4, 0.4], abs=1e-9)


class TestSeveralObjectives:
    """The largest of them is minimized."""

    def test_minimax(self, comm):
        x, f0, _, optimizer = minimize(comm, minimax, (2.0, 2.0), np.full(2, -3.0), np.full(2, 3.0), MMA)
        assert f0.max() == pytest.approx(1.952224494, abs=1e-6)
        assert x == pytest.approx([1.139038, 0.899560], abs=1e-3)
        # The last of the three takes no part.
        assert optimizer.weights == pytest.approx(
            [1 - optimizer.weights[1], optimizer.weights[1], 0], abs=1e-6
        )

    @pytest.mark.parametrize(("n", "k"), [(40, 4), (3000, 12)])
    def test_under_a_budget(self, comm, n, k):
        functions, best = matched(n, k)
        _, f0, f, optimizer = minimize(comm, functions, np.full(n, 0.5), np.zeros(n), np.ones(n), MMA)
        assert f0 == pytest.approx(np.full(k, best), rel=1e-5)
        assert f.max() < 1e-6
        assert optimizer.weights.sum() == pytest.approx(1, abs=1e-12)

    def test_one_is_the_same_as_a_single_one(self, comm):
        alone = MMA(comm, np.ones(5), np.full(5, 10.0))
        listed = MMA(comm, np.ones(5), np.full(5, 10.0))
        x = np.full(5, 5.0)
        f0, df0, f, df = cantilever(x)
        assert (alone.step(x, f0, df0, f, df) == listed.step(x, np.array([f0]), df0[None], f, df)).all()

    def test_without_constraints_and_equal(self, comm):
        """max(x, 1 − x): they meet at ½."""
        functions = lambda x: (
            np.array([x[0], 1 - x[0]]),
            np.array([[1.0], [-1.0]]),
            np.zeros(0),
            np.zeros((0, 1)),
        )
        x, *_ = minimize(comm, functions, np.array([0.1]), np.zeros(1), np.ones(1), MMA, steps=20)
        assert x == pytest.approx([0.5], abs=1e-9)


class TestScale:
    @pytest.mark.parametrize(("a", "b"), [(1e6, 1.0), (1e-6, 1.0), (1.0, 1e5), (1e4, 1e-5)])
    def test_steps_do_not_depend_on_it(self, comm, a, b):
        scaled = lambda x: (lambda f0, df0, f, df: (a * f0, a * df0, b * f, b * df))(*cantilever(x))
        settings = (np.full(5, 1.0), np.ones(5), np.full(5, 10.0), MMA)
        plain, other = (minimize(comm, f, *settings, steps=12) for f in (cantilever, scaled))
        assert other[0] == pytest.approx(plain[0], rel=1e-9)
        assert other[3].multipliers == pytest.approx(plain[3].multipliers * a / b, rel=1e-6)

    def test_recovers_from_far_outside(self, comm):
        """Violated a thousandfold, with an objective of another order: feasible, then optimal."""
        far = lambda x: (lambda f0, df0, f, df: (1e5 * f0, 1e5 * df0, f, df))(*cantilever(x))
        start = np.full(5, 0.5)
        assert far(start)[2][0] > 900
        _, f0, f, _ = minimize(comm, far, start, start, np.full(5, 10.0), MMA, steps=40)
        assert f0 == pytest.approx(1e5 * 1.339956, rel=1e-5)
        assert abs(f[0]) < 1e-6


class TestCheckpoint:
    @pytest.mark.parametrize("n", [100, 150_000])
    def test_restored_goes_on_bit_for_bit(self, comm, n):
        rng = np.random.default_rng(5)
        here = part(comm, n)
        t, w = rng.uniform(-1, 2, n)[here], rng.uniform(0.5, 2, n)[here]
        lower, upper, x = np.zeros(t.size), np.ones(t.size), np.full(t.size, 0.5)
        first, second = MMA(comm, lower, upper), MMA(comm, lower, upper)
        for step in range(8):
            f = np.array([comm.allreduce(x.sum()) / n / 0.4 - 1])
            arguments = (x, 0.0, w * (x - t) / n, f, np.full((1, t.size), 2.5 / n))
            if step == 4:
                second.restore(first.state())
            new = first.step(*arguments)
            if step >= 4:
                assert (second.step(*arguments) == new).all()
                assert (second.multipliers == first.multipliers).all()
            x = new

    def test_state_does_not_follow_the_optimizer(self, comm):
        optimizer = MMA(comm, np.zeros(2), np.ones(2))
        arguments = (0.0, np.ones(2), np.zeros(0), np.zeros((0, 2)))
        x = optimizer.step(np.full(2, 0.5), *arguments)
        state = optimizer.state()
        kept = {key: np.copy(value) for key, value in state.items()}
        optimizer.step(x, *arguments)
        assert all((kept[key] == state[key]).all() for key in kept)

    def test_of_another_number_of_variables(self, comm):
        state = MMA(comm, np.zeros(2), np.ones(2)).state()
        with pytest.raises(ValueError, match="has 3 variables"):
            MMA(comm, np.zeros(3), np.ones(3)).restore(state)


class TestDual:
    def test_passes_over_the_variables(self, comm):
        """Each costs: a sample of the variables and Newton's method take few of them."""
        n = 300_000
        rng = np.random.default_rng(7)
        here = part(comm, n)
        t, w = rng.uniform(-1, 2, n)[here], rng.uniform(0.5, 2, n)[here]
        optimizer = MMA(comm, np.zeros(t.size), np.ones(t.size))
        x, passes = np.full(t.size, 0.3), []
        for _ in range(10):
            f = np.array([comm.allreduce(x.sum()) / n / 0.4 - 1])
            x = optimizer.step(x, 0.0, w * (x - t) / n, f, np.full((1, t.size), 2.5 / n))
            passes.append(optimizer.passes)
        assert np.mean(passes) < 5

    def test_interior_and_newton_agree(self, comm):
        """Two ways to the same multipliers: from afar by the barrier, from near by the set of zeros."""
        functions, _ = linear_program(60, 12)
        here, x = part(comm, 60), np.full(60, 0.4)
        f0, df0, f, df = functions(x)
        optimizer = MMA(comm, np.zeros(60)[here], np.ones(60)[here])
        subproblem = optimizer._approximate(x[here], f0, df0[here], f, df[:, here])
        far = subproblem._interior(1e-12)
        near, settled = subproblem._newton(
            np.where(far > 1e-6, 1.3 * far, 0.0) - np.eye(13)[0] * 0.3 * far[0]
        )
        assert settled
        assert near == pytest.approx(far, abs=1e-8)


class TestRanks:
    def compare(self, comm, functions, x, lower, upper, steps):
        """Iterates on all ranks and, in the same test, of the whole problem on one."""
        here = part(comm, len(x))
        spread = MMA(comm, lower[here], upper[here])
        whole = MMA(MPI.COMM_SELF, lower, upper)
        a, b = np.array(x, dtype=float), np.array(x, dtype=float)
        for _ in range(steps):
            f0, df0, f, df = functions(a)
            a = np.concatenate(comm.allgather(spread.step(a[here], f0, df0[..., here], f, df[:, here])))
            f0, df0, f, df = functions(b)
            b = whole.step(b, f0, df0, f, df)
            assert np.abs(a - b).max() < 1e-10 * np.abs(b).max()
            assert spread.multipliers == pytest.approx(whole.multipliers, rel=1e-9, abs=1e-10)

    def test_cantilever(self, comm):
        self.compare(comm, cantilever, np.full(5, 5.0), np.ones(5), np.full(5, 10.0), 25)

    def test_two_balls_from_outside(self, comm):
        self.compare(comm, two_balls, (0.0, 0.0, 0.0), np.zeros(3), np.full(3, 5.0), 25)

    def test_many_variables(self, comm):
        n = 2000
        rng = np.random.default_rng(2)
        t = rng.uniform(-1, 2, n)
        f = lambda x: (
            0.5 * np.mean((x - t) ** 2),
            (x - t) / n,
            np.array([x.mean() - 0.3, 0.2 - (x * t).mean()]),
            np.array([np.full(n, 1 / n), -t / n]),
        )
        self.compare(comm, f, np.full(n, 0.5), np.zeros(n), np.ones(n), 30)

    def test_more_variables_than_a_sample_needs(self, comm):
        functions, *_ = knapsack(150_000)
        self.compare(comm, functions, np.full(150_000, 0.5), np.zeros(150_000), np.ones(150_000), 5)

    def test_not_convex(self, comm):
        self.compare(comm, svanberg_second(100), np.full(100, 0.25), np.full(100, -1.0), np.ones(100), 15)

    def test_many_constraints(self, comm):
        functions, _ = linear_program(30, 60)
        self.compare(comm, functions, np.zeros(30), np.zeros(30), np.ones(30), 15)

    def test_several_objectives(self, comm):
        functions, _ = matched(200, 5)
        self.compare(comm, functions, np.full(200, 0.5), np.zeros(200), np.ones(200), 15)

    def test_rank_without_variables(self, comm):
        here = slice(0, 5) if comm.rank == 0 else slice(0, 0)
        optimizer = MMA(comm, np.ones(5)[here], np.full(5, 10.0)[here])
        x = np.full(5, 5.0)
        for _ in range(40):
            f0, df0, f, df = cantilever(x)
            x = comm.bcast(optimizer.step(x[here], f0, df0[here], f, df[:, here]))
        assert cantilever(x)[0] == pytest.approx(1.33996, abs=1e-5)


class TestAsymptotes:
    def test_move_limit(self, comm):
        for move in (0.05, 0.2):
            optimizer = MMA(comm, np.zeros(3), np.full(3, 2.0), MMAOptions(move=move, asyinit=0.5))
            new = optimizer.step(np.ones(3), 0.0, np.ones(3), np.zeros(0), np.zeros((0, 3)))
            assert new == pytest.approx(np.full(3, 1 - 2 * move))

    def test_widen_on_a_straight_way_and_narrow_on_oscillation(self, comm):
        options = MMAOptions()
        for path, factor in (((0.50, 0.55, 0.60), 1.2), ((0.50, 0.55, 0.50), 0.7), ((0.5, 0.5, 0.5), 1.0)):
            optimizer = MMA(comm, np.zeros(1), np.ones(1), options)
            for x in path:
                point = np.array([x])
                optimizer.step(point, 0.0, np.ones(1), np.zeros(0), np.zeros((0, 1)))
            assert optimizer._distance == pytest.approx([factor * options.asyinit])

    def test_limits(self, comm):
        options = MMAOptions(asymin=0.15, asymax=0.25)
        optimizer = MMA(comm, np.zeros(2), np.ones(2), options)
        for k in range(12):
            x = np.array([0.3 + 0.01 * k, 0.5 + 0.01 * (-1) ** k])
            optimizer.step(x, 0.0, np.ones(2), np.zeros(0), np.zeros((0, 2)))
        assert optimizer._distance == pytest.approx([0.25, 0.15])

    @pytest.mark.parametrize("asymin", [1e-2, 1e-4])
    def test_oscillation_dies_out(self, comm, asymin):
        """f = x² from a large first move. A step into the interior is about as long as the asymptotes are
        away, so that what remains is a cycle of that size."""
        f = lambda x: (float(x @ x), 2 * x, np.zeros(0), np.zeros((0, 2)))
        options = MMAOptions(move=1.0, asyinit=1.0, asymin=asymin)
        make = lambda comm, lower, upper: MMA(comm, lower, upper, options)
        x, *_ = minimize(comm, f, (0.9, -0.7), -np.ones(2), np.ones(2), make, steps=80)
        assert np.abs(x).max() < 2 * asymin


class TestRefused:
    def test_shapes(self, comm):
        optimizer = MMA(comm, np.zeros(3), np.ones(3))
        gradient = np.ones(3 if comm.rank else 2)
        with pytest.raises(ValueError, match="3 variables"):
            optimizer.step(np.full(3, 0.5), 0.0, gradient, np.array([0.0]), np.ones((1, 3)))

    @pytest.mark.parametrize("bad", [{"move": 0.0}, {"penalty": -1.0}, {"asymin": 20.0}, {"asydecr": 1.1}])
    def test_options(self, bad):
        with pytest.raises(ValueError, match=next(iter(bad))):
            MMAOptions(**bad)

    def test_nan_on_one_rank_is_raised_on_every_rank(self, comm):
        optimizer = MMA(comm, np.zeros(3), np.ones(3))
        gradient = np.ones(3)
        if comm.rank == comm.size - 1:
            gradient[1] = np.nan
        with pytest.raises(ValueError, match="not finite"):
            optimizer.step(np.full(3, 0.5), 0.0, gradient, np.array([0.0]), np.ones((1, 3)))
        assert comm.allreduce(1) == comm.size

    @pytest.mark.parametrize("where", ["f", "df"])
    def test_constraint_that_is_not_finite(self, comm, where):
        optimizer = MMA(comm, np.zeros(3), np.ones(3))
        f, df = np.array([0.0]), np.ones((1, 3))
        (f if where == "f" else df[0])[0] = np.inf
        with pytest.raises(ValueError, match="not finite"):
            optimizer.step(np.full(3, 0.5), 0.0, np.ones(3), f, df)

    def test_bounds_on_one_rank(self, comm):
        upper = np.ones(3)
        if comm.rank == comm.size - 1:
            upper[2] = 0.0
        with pytest.raises(ValueError, match="below its upper bound"):
            MMA(comm, np.zeros(3), upper)
