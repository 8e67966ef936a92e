"""PETSc's optimizers within bounds: known optima, any ranks, what is refused."""

import numpy as np
import pytest
from known import part
from mpi4py import MPI

from fetopo.design.tao import METHODS, minimize

pytestmark = pytest.mark.mpi


def rosenbrock(comm):
    """Chained pairs 100 (b − a²)² + (1 − a)², whole pairs on every rank."""

    def function(x):
        a, b = x[::2], x[1::2]
        value = np.sum(100 * (b - a**2) ** 2 + (1 - a) ** 2)
        gradient = np.empty_like(x)
        gradient[::2] = -400 * a * (b - a**2) - 2 * (1 - a)
        gradient[1::2] = 200 * (b - a**2)
        return comm.allreduce(float(value)), gradient

    return function


def pairs(comm, n):
    here = part(comm, n // 2)
    return 2 * (here.stop - here.start)


@pytest.mark.parametrize("method", METHODS)
def test_rosenbrock_without_bounds(comm, method):
    n = pairs(comm, 10)
    inf = np.full(n, np.inf)
    settings = {"tao_type": method, "tao_max_it": 2000, "tao_gttol": 1e-10}
    result = minimize(comm, rosenbrock(comm), np.full(n, -0.5), -inf, inf, petsc_options=settings)
    assert result.converged
    assert result.x == pytest.approx(np.ones(n), abs=1e-5)
    assert 0 < result.iterations <= result.evaluations


@pytest.mark.parametrize("method", METHODS)
def test_rosenbrock_at_a_bound(comm, method):
    """a ≤ ½: the optimum is (½, ¼)."""
    n = pairs(comm, 10)
    upper = np.tile([0.5, 3.0], n // 2)
    settings = {"tao_type": method, "tao_max_it": 2000, "tao_gttol": 1e-10}
    result = minimize(
        comm, rosenbrock(comm), np.full(n, -0.5), np.full(n, -1.0), upper, petsc_options=settings
    )
    assert result.x == pytest.approx(np.tile([0.5, 0.25], n // 2), abs=1e-5)


def test_inversion(comm):
    """Nonnegative coefficients of a smoothing operator from data, with a little regularization."""
    n = 60
    here = part(comm, n)
    i = np.arange(n)
    A = np.exp(-0.5 * ((i[:, None] - i[None]) / 2.0) ** 2)
    truth = np.maximum(np.sin(i / 6.0), 0)
    data = A @ truth

    def function(x):
        residual = comm.allreduce(A[:, here] @ x) - data
        mine = 1e-4 * float(x @ x)
        return float(residual @ residual) + comm.allreduce(mine), 2 * A[:, here].T @ residual + 2e-4 * x

    start, inf = np.full(truth[here].size, 0.5), np.full(truth[here].size, np.inf)
    result = minimize(comm, function, start, np.zeros(inf.size), inf)
    assert result.converged
    assert (result.x >= 0).all()
    assert np.abs(result.x - truth[here]).max() < 0.05


def test_the_same_on_any_number(comm):
    n = pairs(comm, 12)
    bounds = -np.full(n, 2.0), np.full(n, 2.0)
    spread = minimize(comm, rosenbrock(comm), np.full(n, 0.8), *bounds)
    alone = minimize(
        MPI.COMM_SELF, rosenbrock(MPI.COMM_SELF), np.full(12, 0.8), -np.full(12, 2.0), np.full(12, 2.0)
    )
    assert spread.value == pytest.approx(alone.value, abs=1e-10)
    assert np.concatenate(comm.allgather(spread.x)) == pytest.approx(alone.x, abs=1e-5)


def test_limit_of_iterations_is_no_convergence(comm):
    n = pairs(comm, 10)
    inf = np.full(n, np.inf)
    result = minimize(comm, rosenbrock(comm), np.full(n, -0.5), -inf, inf, petsc_options={"tao_max_it": 2})
    assert not result.converged
    assert result.iterations == 2


class TestRefused:
    def test_exception_of_the_function_is_what_the_user_sees(self, comm):
        def function(x):
            raise RuntimeError("the solver did not converge")

        with pytest.raises(RuntimeError, match="the solver did not converge"):
            minimize(comm, function, np.zeros(2), -np.ones(2), np.ones(2))

    def test_not_finite_on_one_rank(self, comm):
        def function(x):
            return 1.0, np.full(x.size, np.nan if comm.rank == 0 else 0.0)

        with pytest.raises(ValueError, match="not finite"):
            minimize(comm, function, np.zeros(2), -np.ones(2), np.ones(2))

    def test_bounds_on_one_rank(self, comm):
        upper = np.full(2, -1.0 if comm.rank == comm.size - 1 else 1.0)
        with pytest.raises(ValueError, match="exceed its upper bound"):
            minimize(comm, rosenbrock(comm), np.zeros(2), np.zeros(2), upper)

    @pytest.mark.parametrize("method", ["bnls", "almm", "nonsense"])
    def test_method(self, comm, method):
        with pytest.raises(ValueError, match=method):
            minimize(
                comm,
                rosenbrock(comm),
                np.zeros(2),
                np.zeros(2),
                np.ones(2),
                petsc_options={"tao_type": method},
            )
