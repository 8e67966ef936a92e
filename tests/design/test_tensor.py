"""Functions of the tensor written in UFL beside NumPy: value, derivative, and what they refuse."""

import numpy as np
import pytest
import ufl

from fetopo.design import functionals
from fetopo.design.tensor import TensorValue

pytestmark = pytest.mark.mpi

N = np.array([1.0, 2.0, -0.5])


def target(d):
    T = np.diag(np.linspace(0.2, 0.4, d))
    T[0, 1] = T[1, 0] = 0.05
    return T


def functions(d):
    """The same function twice: in UFL and in NumPy."""
    n, T = N[:d] / np.linalg.norm(N[:d]), target(d)
    return {
        "mean_resistivity": (functionals.mean_resistivity, lambda D: np.trace(np.linalg.inv(D)) / d),
        "resistivity_along": (functionals.resistivity_along(N[:d]), lambda D: 1 / (n @ D @ n)),
        "distance_to": (functionals.distance_to(T), lambda D: np.sum((D - T) ** 2) / np.sum(T * T)),
        "off_diagonal": (lambda D: D[0, 1], lambda D: D[0, 1]),
        "constant": (lambda D: 3.0, lambda D: 3.0),
        "user": (
            lambda D: ufl.conditional(ufl.gt(D[0, 0], 0), ufl.exp(D[0, 0]), 0) * ufl.ln(ufl.det(D)),
            lambda D: np.exp(D[0, 0]) * np.log(np.linalg.det(D)),
        ),
    }


def tensors(d, count=3):
    rng = np.random.default_rng(d)
    parts = rng.normal(size=(count, d, d))
    return parts @ parts.transpose(0, 2, 1) + 0.3 * np.eye(d)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("name", list(functions(2)))
def test_value_and_derivative(comm, name, d):
    written, known = functions(d)[name]
    J = TensorValue(comm, written, d)
    for D in tensors(d):
        assert J.value(D) == pytest.approx(known(D), rel=1e-12)
        h, slopes = 1e-6, np.zeros((d, d))
        for i, j in np.ndindex(d, d):
            step = np.zeros((d, d))
            step[i, j] = h
            slopes[i, j] = (known(D + step) - known(D - step)) / (2 * h)
        assert J.derivative(D) == pytest.approx(slopes, rel=1e-6, abs=1e-8 * max(1, np.abs(slopes).max()))


def test_derivative_before_value_and_after_a_change_in_place(comm):
    """What is kept from one tensor is not given for another, even if it is the same array."""
    J = TensorValue(comm, lambda D: D[0, 0] ** 2, 2)
    D = np.diag([3.0, 1.0])
    assert J.derivative(D)[0, 0] == pytest.approx(6.0)
    D[0, 0] = 4.0
    assert J.value(D) == pytest.approx(16.0)
    J.derivative(D)[:] = 0
    assert J.derivative(D)[0, 0] == pytest.approx(8.0)


def test_not_a_scalar(comm):
    with pytest.raises(ValueError, match=r"must be a scalar, found shape \(2, 2\)"):
        TensorValue(comm, lambda D: D, 2)
