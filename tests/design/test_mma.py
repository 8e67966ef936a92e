"""The method of moving asymptotes on problems with known optima, distributed in every way."""

import numpy as np
import pytest
from mpi4py import MPI
from scipy.optimize import brentq

from fetopo.design.mma import MMA, MMAOptions, _Subproblem

pytestmark = pytest.mark.mpi


def part(comm, n):
    """This rank's share of n variables; the last ranks may have none."""
    return slice(*(n * np.array([comm.rank, comm.rank + 1]) // comm.size))


def minimize(comm, functions, x, lower, upper, *, steps=60, options=None):
    """Run MMA on this rank's variables.

    `functions(x)` takes all variables and returns f₀, ∂f₀, f, ∂f; returns all variables, f₀, f and the MMA.
    """
    here = part(comm, len(x))
    optimizer = MMA(comm, lower[here], upper[here], options)
    x = np.array(x, dtype=float)
    for _ in range(steps):
        f0, df0, f, df = functions(x)
        mine = optimizer.step(x[here], f0, df0[here], f, np.atleast_2d(df)[:, here])
        assert mine.shape == x[here].shape
        x = np.concatenate(comm.allgather(mine))
        assert (x >= lower).all()
        assert (x <= upper).all()
    return x, *functions(x)[::2], optimizer


def cantilever(x):
    """Svanberg 1987: weight of a beam of five boxes under a limit on the tip's displacement."""
    c = np.array([61.0, 37.0, 19.0, 7.0, 1.0])
    return 0.0624 * x.sum(), np.full(5, 0.0624), np.array([np.sum(c / x**3) - 1]), -3 * (c / x**4)[None]


def two_balls(x):
    """Svanberg's example: the point of two balls next to the origin."""
    a, b = np.array([5.0, 2.0, 1.0]), np.array([3.0, 4.0, 3.0])
    f = np.array([np.sum((x - a) ** 2) - 9, np.sum((x - b) ** 2) - 9])
    return x @ x, 2 * x, f, 2 * np.array([x - a, x - b])


class TestKnownOptima:
    @pytest.mark.parametrize("start", [5.0, 1.0, 10.0])
    def test_cantilever(self, comm, start):
        """From a feasible and from two infeasible or wasteful starts."""
        x, f0, f, optimizer = minimize(comm, cantilever, np.full(5, start), np.ones(5), np.full(5, 10.0))
        assert f0 == pytest.approx(1.33996, abs=1e-5)
        assert x == pytest.approx([6.016, 5.309, 4.494, 3.502, 2.153], abs=2e-3)
        assert abs(f[0]) < 1e-6
        # Stationarity: 0.0624 = λ 3c/x⁴ for every variable.
        _, df0, _, df = cantilever(x)
        assert df0 + optimizer.multipliers @ df == pytest.approx(np.zeros(5), abs=1e-4)

    def test_cantilever_converges_quickly(self, comm):
        """Svanberg needs about ten steps to three digits."""
        _, f0, f, _ = minimize(comm, cantilever, np.full(5, 5.0), np.ones(5), np.full(5, 10.0), steps=15)
        assert f0 == pytest.approx(1.33996, rel=2e-3)
        assert f[0] < 2e-3

    @pytest.mark.parametrize("start", [(4, 3, 2), (0, 0, 0), (5, 5, 5)])
    def test_two_constraints(self, comm, start):
        x, f0, f, optimizer = minimize(comm, two_balls, start, np.zeros(3), np.full(3, 5.0), steps=80)
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

        x, f0, _, optimizer = minimize(comm, quadratic, np.full(n, 0.5), np.zeros(n), np.ones(n), steps=60)
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

        x, f0, f, optimizer = minimize(comm, quadratic, np.full(n, 0.3), np.zeros(n), np.ones(n), steps=60)
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
            arguments = (w * (x - t) * 5 / n, f, np.full((1, t.size), 2.0 / n))
            new = optimizer.step(x, 0.0, *arguments)
            subproblem = _Subproblem(optimizer, x, *arguments)
            root = brentq(lambda lam: subproblem._dual(np.array([lam]))[1][0], 1e-9, 10, xtol=1e-15)  # noqa: B023
            assert optimizer.multipliers[0] == pytest.approx(root, rel=1e-9)
            x = new

    def test_constraint_that_cannot_hold(self, comm):
        """The violation is made as small as it gets, and nothing breaks."""
        impossible = lambda x: (x.sum(), np.ones(4), np.array([2.0 - x.sum() / 4]), np.full((1, 4), -0.25))
        x, _, f, _ = minimize(comm, impossible, np.full(4, 0.2), np.zeros(4), np.ones(4), steps=30)
        assert x == pytest.approx(np.ones(4), abs=1e-6)
        assert f[0] == pytest.approx(1, abs=1e-6)

    def test_gradient_that_vanishes(self, comm):
        """Variables without influence stay."""
        flat = lambda x: (x[0], np.eye(4)[0], np.array([-1.0]), np.zeros((1, 4)))
        x, *_ = minimize(comm, flat, np.full(4, 0.4), np.zeros(4), np.ones(4), steps=20)
        assert x == pytest.approx([0, 0.4, 0.4, 0.4], abs=1e-9)


class TestRanks:
    def compare(self, comm, functions, x, lower, upper, steps):
        """Iterates on all ranks and, in the same test, of the whole problem on one."""
        here = part(comm, len(x))
        spread = MMA(comm, lower[here], upper[here])
        whole = MMA(MPI.COMM_SELF, lower, upper)
        a, b = np.array(x, dtype=float), np.array(x, dtype=float)
        for _ in range(steps):
            f0, df0, f, df = functions(a)
            a = np.concatenate(comm.allgather(spread.step(a[here], f0, df0[here], f, df[:, here])))
            f0, df0, f, df = functions(b)
            b = whole.step(b, f0, df0, f, df)
            assert np.abs(a - b).max() < 1e-9 * np.abs(b).max()
            assert spread.multipliers == pytest.approx(whole.multipliers, rel=1e-6, abs=1e-9)

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
            assert optimizer._upp - point == pytest.approx([factor * options.asyinit])
            assert point - optimizer._low == pytest.approx([factor * options.asyinit])

    def test_limits(self, comm):
        options = MMAOptions(asymin=0.15, asymax=0.25)
        optimizer = MMA(comm, np.zeros(2), np.ones(2), options)
        for k in range(12):
            x = np.array([0.3 + 0.01 * k, 0.5 + 0.01 * (-1) ** k])
            optimizer.step(x, 0.0, np.ones(2), np.zeros(0), np.zeros((0, 2)))
        assert optimizer._upp - x == pytest.approx([0.25, 0.15])

    @pytest.mark.parametrize("asymin", [1e-2, 1e-4])
    def test_oscillation_dies_out(self, comm, asymin):
        """f = x² from a large first move. A step into the interior is about as long as the asymptotes are
        away, so that what remains is a cycle of that size."""
        f = lambda x: (float(x @ x), 2 * x, np.zeros(0), np.zeros((0, 2)))
        options = MMAOptions(move=1.0, asyinit=1.0, asymin=asymin)
        x, *_ = minimize(comm, f, (0.9, -0.7), -np.ones(2), np.ones(2), steps=80, options=options)
        assert np.abs(x).max() < 2 * asymin


class TestRefused:
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
