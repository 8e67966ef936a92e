"""Optimality criteria: known optima, the multiplier, any ranks, what it does not serve."""

import numpy as np
import pytest
from known import knapsack, minimize, part
from mpi4py import MPI

from fetopo.design.oc import OC, OCOptions, _root
from fetopo.design.optimizers import make_optimizer

pytestmark = pytest.mark.mpi


def springs(n, seed=0):
    """min Σ k/(x + 0.1), Σ w x ≤ budget on [0, 1]ⁿ; x + 0.1 = √(k/(λ w)) cut to the bounds."""
    from scipy.optimize import brentq

    rng = np.random.default_rng(seed)
    k, w = rng.uniform(0.1, 2, n) / n, rng.uniform(0.5, 2, n) / n
    budget = 0.4 * w.sum()
    solution = lambda lam: np.clip(np.sqrt(k / (lam * w)) - 0.1, 0, 1)
    lam = brentq(lambda lam: w @ solution(lam) - budget, 1e-3, 1e3, xtol=1e-14)
    functions = lambda x: (
        np.sum(k / (x + 0.1)),
        -k / (x + 0.1) ** 2,
        np.array([w @ x / budget - 1]),
        (w / budget)[None],
    )
    return functions, solution(lam), lam * budget


class TestKnownOptima:
    @pytest.mark.parametrize("start", [0.4, 1.0, 0.0])
    def test_springs(self, comm, start):
        """From a start that holds the constraint, one far outside, and the corner where nothing is."""
        functions, best, lam = springs(2000)
        x, _, f, optimizer = minimize(
            comm, functions, np.full(2000, start), np.zeros(2000), np.ones(2000), OC
        )
        assert x == pytest.approx(best, abs=1e-6)
        assert optimizer.multipliers[0] == pytest.approx(lam, rel=1e-6)
        assert abs(f[0]) < 1e-12

    def test_knapsack(self, comm):
        functions, best, lam = knapsack(2000)
        make = lambda *arguments: OC(*arguments, OCOptions(damping=0.8))
        x, f0, f, optimizer = minimize(
            comm, functions, np.full(2000, 0.4), np.zeros(2000), np.ones(2000), make, steps=150
        )
        # Variables for which a bound is hardly better than the inside are slow.
        assert x == pytest.approx(best, abs=1e-2)
        assert f0 == pytest.approx(functions(best)[0], rel=1e-6)
        assert optimizer.multipliers[0] == pytest.approx(lam, rel=1e-4)
        assert abs(f[0]) < 1e-12

    def test_constraint_that_is_idle(self, comm):
        functions = lambda x: (-x.sum(), -np.ones(10), np.array([x.mean() - 2]), np.full((1, 10), 0.1))
        x, _, _, optimizer = minimize(
            comm, functions, np.full(10, 0.3), np.zeros(10), np.ones(10), OC, steps=8
        )
        assert (x == 1).all()
        assert (optimizer.multipliers == 0).all()

    def test_constraint_that_cannot_hold_yet(self, comm):
        """As far down as the move limit lets it, then exactly the constraint."""
        functions = lambda x: (
            -x.sum(),
            -np.arange(1.0, 11.0),
            np.array([x.mean() - 0.2]),
            np.full((1, 10), 0.1),
        )
        settings = (functions, np.ones(10), np.zeros(10), np.ones(10), OC)
        assert minimize(comm, *settings, steps=1)[0] == pytest.approx(np.full(10, 0.8))
        assert minimize(comm, *settings, steps=6)[2] == pytest.approx([0.0], abs=1e-13)

    def test_variables_without_use_or_without_cost(self, comm):
        df0, df = np.array([-1.0, 0.0, 1.0, -1.0]), np.array([[1.0, 1.0, 1.0, 0.0]])
        functions = lambda x: (df0 @ x, df0, df @ x - 0.5, df)
        x, *_ = minimize(comm, functions, np.full(4, 0.5), np.zeros(4), np.ones(4), OC, steps=20)
        assert x == pytest.approx([0.5, 0, 0, 1])


class TestStep:
    @pytest.mark.parametrize("move", [0.01, 0.1])
    def test_move_limit(self, comm, move):
        functions, *_ = springs(50)
        make = lambda *arguments: OC(*arguments, OCOptions(move=move))
        start = np.full(50, 0.5)
        x, *_ = minimize(comm, functions, start, np.zeros(50), np.full(50, 2.0), make, steps=1)
        assert np.abs(x - start).max() == pytest.approx(2 * move)

    def test_linearized_constraint_holds(self, comm):
        """To round-off, in few passes."""
        n = 20_000
        functions, *_ = springs(n)
        here, x = part(comm, n), np.random.default_rng(1).uniform(0, 1, n)
        optimizer = OC(comm, np.zeros(n)[here], np.ones(n)[here])
        for _ in range(3):
            f0, df0, f, df = functions(x)
            new = np.concatenate(comm.allgather(optimizer.step(x[here], f0, df0[here], f, df[:, here])))
            assert abs(f[0] + df[0] @ (new - x)) < 1e-13
            assert optimizer.passes < 12
            x = new

    @pytest.mark.parametrize("guess", [1e-9, 1.0, 3.0, 1e9])
    def test_root(self, guess):
        function = lambda c: (min(c, 5.0) - 2.5, float(c < 5))
        assert _root(function, guess, 1e-15) == pytest.approx(2.5)


class TestRanks:
    def test_the_same_on_any_number(self, comm):
        functions, *_ = springs(999)
        settings = (functions, np.full(999, 0.6), np.zeros(999), np.ones(999), OC)
        spread, alone = minimize(comm, *settings)[0], minimize(MPI.COMM_SELF, *settings)[0]
        assert np.abs(spread - alone).max() < 1e-10

    def test_rank_without_variables(self, comm):
        functions, best, _ = springs(40)
        here, x = slice(0, 40 if comm.rank == 0 else 0), np.full(40, 0.4)
        optimizer = OC(comm, np.zeros(40)[here], np.ones(40)[here])
        for _ in range(60):
            f0, df0, f, df = functions(x)
            x = comm.bcast(optimizer.step(x[here], f0, df0[here], f, df[:, here]))
        assert x == pytest.approx(best, abs=1e-6)

    def test_restored_goes_on_bit_for_bit(self, comm):
        functions, *_ = springs(200)
        here, x = part(comm, 200), np.full(200, 0.4)
        first, second = (OC(comm, np.zeros(200)[here], np.ones(200)[here]) for _ in range(2))
        for step in range(10):
            f0, df0, f, df = functions(x)
            arguments = (x[here], f0, df0[here], f, df[:, here])
            if step == 6:
                second.restore(first.state())
            new = first.step(*arguments)
            if step >= 6:
                assert (second.step(*arguments) == new).all()
            x = np.concatenate(comm.allgather(new))


class TestRefused:
    @pytest.mark.parametrize(("k", "m"), [(1, 0), (1, 2), (2, 1)])
    def test_not_one_of_each(self, comm, k, m):
        optimizer = OC(comm, np.zeros(3), np.ones(3))
        with pytest.raises(ValueError, match="exactly one constraint"):
            optimizer.step(np.full(3, 0.5), np.zeros(k), np.ones((k, 3)), np.zeros(m), np.ones((m, 3)))

    def test_constraint_that_falls_with_a_variable_of_one_rank(self, comm):
        optimizer, df = OC(comm, np.zeros(3), np.ones(3)), np.ones((1, 3))
        if comm.rank == comm.size - 1:
            df[0, 1] = -1.0
        with pytest.raises(ValueError, match="rises with every variable"):
            optimizer.step(np.full(3, 0.5), 0.0, -np.ones(3), np.zeros(1), df)

    def test_round_off_in_the_constraint_is_let_pass(self, comm):
        df = np.array([[1.0, -1e-9, 1.0]])
        new = OC(comm, np.zeros(3), np.ones(3)).step(np.full(3, 0.5), 0.0, -np.ones(3), np.zeros(1), df)
        assert np.isfinite(new).all()

    @pytest.mark.parametrize("where", ["df0", "f", "df"])
    def test_not_finite_on_one_rank(self, comm, where):
        df0, f, df = -np.ones(3), np.zeros(1), np.ones((1, 3))
        if where == "f" or comm.rank == 0:
            {"df0": df0, "f": f, "df": df[0]}[where][0] = np.nan
        with pytest.raises(ValueError, match="not finite"):
            OC(comm, np.zeros(3), np.ones(3)).step(np.full(3, 0.5), 0.0, df0, f, df)

    def test_shapes(self, comm):
        with pytest.raises(ValueError, match="3 variables"):
            OC(comm, np.zeros(3), np.ones(3)).step(
                np.full(3, 0.5), 0.0, -np.ones(2), np.zeros(1), np.ones((1, 3))
            )

    @pytest.mark.parametrize("bad", [{"move": 0.0}, {"damping": 1.5}])
    def test_options(self, bad):
        with pytest.raises(ValueError, match=next(iter(bad))):
            OCOptions(**bad)


class TestByName:
    @pytest.mark.parametrize("name", ["mma", "gcmma", "oc"])
    def test_options_by_name(self, comm, name):
        optimizer = make_optimizer(name, comm, np.zeros(2), np.ones(2), {"move": 0.05})
        assert type(optimizer).__name__ == name.upper()
        assert optimizer.options.move == 0.05
        assert optimizer.needs_evaluate == (name == "gcmma")
        assert make_optimizer(name, comm, np.zeros(2), np.ones(2)).options == type(optimizer.options)()

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("ipopt", None, "mma, gcmma, oc"),
            ("oc", {"asyinit": 1}, "asyinit"),
            ("mma", OCOptions(), "MMAOptions"),
        ],
    )
    def test_refused(self, comm, name, options, message):
        with pytest.raises(ValueError, match=message):
            make_optimizer(name, comm, np.zeros(2), np.ones(2), options)
