"""The Taylor test itself, on functions whose derivatives are known."""

import numpy as np
import pytest

from fetopo.design.verification import taylor_test

pytestmark = pytest.mark.mpi


def point(comm, n=7):
    return np.random.default_rng([5, comm.rank]).uniform(0.5, 1.5, n)


def cubic(comm):
    return lambda m: comm.allreduce(float(np.sum(m**3)))


def test_right_derivative(comm):
    m = point(comm)
    result = taylor_test(cubic(comm), m, 3 * m**2, comm=comm)
    assert result.rate == pytest.approx(2, abs=0.05)
    assert result.rates.shape == (3,)
    assert not result.exact
    assert (np.diff(result.steps) < 0).all()
    assert (result.second < result.first).all()


@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.9, 2.0])
def test_wrong_derivative(comm, factor):
    m = point(comm)
    result = taylor_test(cubic(comm), m, factor * 3 * m**2, dm=np.ones(m.size), comm=comm, step=1e-3)
    assert result.rate == pytest.approx(1, abs=0.1)


def test_one_wrong_component_on_one_rank(comm):
    m = point(comm)
    gradient = 3 * m**2
    if comm.rank == comm.size - 1:
        gradient[0] *= 1.5
    assert taylor_test(cubic(comm), m, gradient, comm=comm, step=1e-4).rate < 1.1


def test_linear_function_is_exact(comm):
    m = point(comm)
    result = taylor_test(lambda m: comm.allreduce(float(4 * m.sum())), m, np.full(m.size, 4.0), comm=comm)
    assert result.exact
    assert result.rate == float("inf")


def test_noise_of_a_solver_on_a_linear_function(comm):
    """What is left of a tolerance of 1e-12 is no remainder."""
    m = point(comm)
    rng = np.random.default_rng(0)
    J = lambda m: comm.allreduce(float(4 * m.sum())) * (1 + 1e-13 * rng.uniform(-1, 1))
    assert taylor_test(J, m, np.full(m.size, 4.0), np.ones(m.size), comm=comm).exact


def test_wrong_derivative_of_a_linear_function(comm):
    m = point(comm)
    dm = np.ones(m.size)
    J = lambda m: comm.allreduce(float(4 * m.sum()))
    result = taylor_test(J, m, np.full(m.size, 3.0), dm, comm=comm)
    assert not result.exact
    assert result.rate == pytest.approx(1, abs=1e-3)


def test_rank_without_variables(comm):
    m = point(comm, 7 if comm.rank == 0 else 0)
    assert taylor_test(cubic(comm), m, 3 * m**2, comm=comm).rate > 1.9


def test_direction_and_steps(comm):
    m = point(comm)
    result = taylor_test(cubic(comm), m, 3 * m**2, dm=np.ones(m.size), comm=comm, step=0.1, count=6)
    assert result.steps == pytest.approx(0.1 / 2 ** np.arange(6))
    # Σ (m + h)³ − m³ − 3m²h = Σ 3mh² + h³
    h = result.steps
    expected = 3 * comm.allreduce(m.sum()) * h**2 + comm.allreduce(m.size) * h**3
    assert result.second == pytest.approx(expected, rel=1e-8)
