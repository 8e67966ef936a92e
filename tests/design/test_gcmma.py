"""The globally convergent method of moving asymptotes: known optima, monotone where MMA is not, any ranks."""

import numpy as np
import pytest
from known import (
    cantilever,
    hock_schittkowski_24,
    hock_schittkowski_43,
    linear_program,
    matched,
    minimax,
    minimize,
    part,
    svanberg_first,
    svanberg_second,
    two_balls,
)
from mpi4py import MPI

from fetopo.design.gcmma import GCMMA, GCMMAOptions
from fetopo.design.mma import MMA

pytestmark = pytest.mark.mpi


class TestKnownOptima:
    @pytest.mark.parametrize("start", [5.0, 1.0, 10.0])
    def test_cantilever(self, comm, start):
        _, f0, f, _ = minimize(comm, cantilever, np.full(5, start), np.ones(5), np.full(5, 10.0), GCMMA)
        assert f0 == pytest.approx(1.339956, abs=1e-6)
        assert abs(f[0]) < 1e-6

    def test_cantilever_violated_a_millionfold(self, comm):
        """1/x³ on 0.1 ≤ x ≤ 10, where MMA's approximations are too low by orders of magnitude."""
        low = np.full(5, 0.1)
        _, f0, f, _ = minimize(comm, cantilever, low, low, np.full(5, 10.0), GCMMA, steps=80)
        assert f0 == pytest.approx(1.339956, abs=1e-5)
        assert abs(f[0]) < 1e-5

    @pytest.mark.parametrize("start", [(4, 3, 2), (0, 0, 0), (5, 5, 5)])
    def test_two_constraints(self, comm, start):
        _, f0, f, _ = minimize(comm, two_balls, start, np.zeros(3), np.full(3, 5.0), GCMMA)
        assert f0 == pytest.approx(8.770246, abs=1e-5)
        assert f.max() < 1e-6

    def test_hock_schittkowski_24(self, comm):
        x, f0, _, _ = minimize(comm, hock_schittkowski_24, (1.0, 0.5), np.zeros(2), np.full(2, 5.0), GCMMA)
        assert f0 == pytest.approx(-1, abs=1e-6)
        assert x == pytest.approx([3, 3**0.5], abs=1e-4)

    def test_hock_schittkowski_43(self, comm):
        x, f0, f, _ = minimize(
            comm, hock_schittkowski_43, np.zeros(4), np.full(4, -3.0), np.full(4, 3.0), GCMMA
        )
        assert f0 == pytest.approx(-44, abs=1e-4)
        assert x == pytest.approx([0, 1, 2, -1], abs=1e-2)
        assert f.max() < 1e-6

    def test_minimax(self, comm):
        x, f0, _, optimizer = minimize(comm, minimax, (2.0, 2.0), np.full(2, -3.0), np.full(2, 3.0), GCMMA)
        assert f0.max() == pytest.approx(1.952224494, abs=1e-6)
        assert x == pytest.approx([1.139038, 0.899560], abs=1e-3)
        assert optimizer.weights.sum() == pytest.approx(1)

    def test_largest_of_several_under_a_budget(self, comm):
        functions, best = matched(40, 4)
        _, f0, f, _ = minimize(comm, functions, np.full(40, 0.5), np.zeros(40), np.ones(40), GCMMA)
        assert f0 == pytest.approx(np.full(4, best), rel=1e-5)
        assert f.max() < 1e-6

    def test_sixty_constraints(self, comm):
        functions, best = linear_program(30, 60)
        _, f0, f, _ = minimize(comm, functions, np.full(30, 0.5), np.zeros(30), np.ones(30), GCMMA)
        assert f0 == pytest.approx(best, rel=1e-6)
        assert f.max() < 1e-6


class TestConservative:
    @pytest.mark.parametrize(("problem", "start"), [(svanberg_first, 0.5), (svanberg_second, 0.25)])
    def test_nonconvex_descends_from_a_feasible_start(self, comm, problem, start):
        """Svanberg's test problems: feasible all the way, the objective falls in every step, and what is
        reached satisfies the Karush-Kuhn-Tucker conditions."""
        n = 100
        functions, here = problem(n), part(comm, n)
        optimizer = GCMMA(comm, np.full(n, -1.0)[here], np.ones(n)[here])
        whole = lambda mine: np.concatenate(comm.allgather(mine))
        x = np.full(n, start)
        last = functions(x)[0]
        assert functions(x)[2].max() <= 0
        for _ in range(180):
            f0, df0, f, df = functions(x)
            x = whole(
                optimizer.step(x[here], f0, df0[here], f, df[:, here], lambda m: functions(whole(m))[::2])
            )
            f0, df0, f, df = functions(x)
            assert f0 <= last + 1e-8 * abs(last)
            assert f.max() <= 1e-6
            last = f0
        slope = df0 + optimizer.multipliers @ df
        # A variable at its bound may push against it.
        stuck = np.where(
            x > 1 - 1e-6, np.maximum(slope, 0), np.where(x < -1 + 1e-6, np.minimum(slope, 0), slope)
        )
        assert np.abs(stuck).max() < 1e-2 * np.abs(df0).max()

    def test_where_mma_cycles(self, comm):
        """√(1 + (x/w)²) with w much smaller than the first step: MMA overshoots, this does not."""
        w = 1e-3
        functions = lambda x: (
            float(np.sqrt(1 + (x / w) ** 2).sum()),
            x / w**2 / np.sqrt(1 + (x / w) ** 2),
            np.zeros(0),
            np.zeros((0, 2)),
        )
        start = np.array([0.13, -0.07])
        f = {}
        for kind in (MMA, GCMMA):
            optimizer = kind(comm, -np.ones(2)[part(comm, 2)], np.ones(2)[part(comm, 2)])
            here, x, values = part(comm, 2), start, []
            whole = lambda mine: np.concatenate(comm.allgather(mine))
            for _ in range(30):
                f0, df0, c, dc = functions(x)
                values.append(f0)
                evaluate = lambda m: functions(whole(m))[::2]  # noqa: B023
                x = whole(optimizer.step(x[here], f0, df0[here], c, dc[:, here], evaluate))
            f[kind] = np.diff(values)
        assert f[MMA].max() > 1
        assert f[GCMMA].max() <= 1e-8

    def test_inner_iterations_end(self, comm):
        """A function that no approximation stays above: the limit ends the step."""
        calls = []

        def evaluate(x):
            calls.append(1)
            return 1.0 + len(calls), np.zeros(0)

        optimizer = GCMMA(comm, np.zeros(2), np.ones(2), GCMMAOptions(inner_iterations=4))
        optimizer.step(np.full(2, 0.5), 1.0, np.ones(2), np.zeros(0), np.zeros((0, 2)), evaluate)
        assert len(calls) == optimizer.inner == 4


class TestRanks:
    def test_the_same_on_any_number(self, comm):
        n = 100
        functions = svanberg_first(n)
        settings = (functions, np.full(n, 0.5), np.full(n, -1.0), np.ones(n), GCMMA)
        spread = minimize(comm, *settings, steps=15)[0]
        alone = minimize(MPI.COMM_SELF, *settings, steps=15)[0]
        assert np.abs(spread - alone).max() < 1e-10

    def test_restored_goes_on_bit_for_bit(self, comm):
        n = 60
        functions, here = svanberg_second(n), part(comm, n)
        whole = lambda mine: np.concatenate(comm.allgather(mine))
        evaluate = lambda m: functions(whole(m))[::2]
        first = GCMMA(comm, np.full(n, -1.0)[here], np.ones(n)[here])
        second = GCMMA(comm, np.full(n, -1.0)[here], np.ones(n)[here])
        x = np.full(n, 0.25)
        for step in range(12):
            f0, df0, f, df = functions(x)
            if step == 7:
                second.restore(first.state())
            arguments = (x[here], f0, df0[here], f, df[:, here], evaluate)
            new = first.step(*arguments)
            if step >= 7:
                assert (second.step(*arguments) == new).all()
            x = whole(new)


class TestRefused:
    def test_without_evaluate(self, comm):
        optimizer = GCMMA(comm, np.zeros(2), np.ones(2))
        with pytest.raises(ValueError, match="needs evaluate"):
            optimizer.step(np.full(2, 0.5), 1.0, np.ones(2), np.zeros(0), np.zeros((0, 2)))

    def test_value_that_is_not_finite(self, comm):
        optimizer = GCMMA(comm, np.zeros(2), np.ones(2))
        arguments = (np.full(2, 0.5), 1.0, np.ones(2), np.zeros(0), np.zeros((0, 2)))
        with pytest.raises(ValueError, match="not finite"):
            optimizer.step(*arguments, lambda x: (np.nan, np.zeros(0)))

    @pytest.mark.parametrize("bad", [{"inner_iterations": 0}, {"tolerance": -1.0}, {"move": 0.0}])
    def test_options(self, bad):
        with pytest.raises(ValueError, match=next(iter(bad))):
            GCMMAOptions(**bad)
