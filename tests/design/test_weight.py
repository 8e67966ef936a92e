"""Choice of a weight, on a linear problem whose misfits and curvature are known in closed form."""

import numpy as np
import pytest
from scipy import optimize

from fetopo.design.weight import discrepancy, l_curve


class Deconvolution:
    """Tikhonov for a blurred signal by its singular values, min ‖Ax − b‖² + α‖x‖²."""

    def __init__(self, noise, n=64, seed=0):
        t = (np.arange(n) + 0.5) / n
        A = np.exp(-0.5 * ((t[:, None] - t) / 0.05) ** 2)
        A /= A.sum(axis=1, keepdims=True)
        exact = A @ (np.exp(-0.5 * ((t - 0.4) / 0.1) ** 2) + (t > 0.7))
        e = np.random.default_rng(seed).normal(size=n)
        self.delta = noise * np.linalg.norm(exact)
        self.b = exact + e * self.delta / np.linalg.norm(e)
        U, self.s, _ = np.linalg.svd(A)
        self.beta = U.T @ self.b

    def misfit(self, alpha):
        return float(np.linalg.norm(alpha / (self.s**2 + alpha) * self.beta))

    def penalty(self, alpha):
        return float(np.linalg.norm(self.s / (self.s**2 + alpha) * self.beta))


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_discrepancy_finds_the_root(noise):
    problem = Deconvolution(noise)
    limit = 1.1 * problem.delta
    root = np.exp(optimize.brentq(lambda a: problem.misfit(np.exp(a)) - limit, np.log(1e-8), np.log(1e2)))
    found = discrepancy(problem.misfit, problem.delta, accuracy=1.01, smallest=1e-8)
    assert found.met
    assert found.misfit <= limit == pytest.approx(found.limit)
    assert root / 1.01 <= found.weight <= root
    assert len(found.tried) < 25


def test_discrepancy_of_a_misfit_that_is_not_monotone():
    """Met, missed and met again below a weight: the largest that meets it counts."""

    def misfit(alpha):
        return 0.5 if 1e-3 < alpha < 1e-2 or 0.05 < alpha <= 0.2 else alpha if alpha > 1 else 2.0

    found = discrepancy(misfit, 0.5, tau=1.0)
    assert found.met
    assert found.misfit <= 0.5
    assert found.weight == pytest.approx(0.2, rel=0.1)


def test_discrepancy_at_the_largest_weight():
    found = discrepancy(lambda alpha: 0.1, 1.0)
    assert found.met
    assert (found.weight, len(found.tried)) == (1e2, 1)


def test_discrepancy_that_none_meets():
    found = discrepancy(lambda alpha: 1 + (np.log10(alpha) + 3) ** 2, 0.5)
    assert not found.met
    assert found.weight == pytest.approx(1e-3)
    assert found.misfit == pytest.approx(1.0)


@pytest.mark.parametrize("noise", [0.003, 0.01])
def test_corner_of_the_l_curve(noise):
    """Where the curvature of the curve itself, from fine differences, is largest."""
    problem = Deconvolution(noise)
    fine = np.logspace(-8, 1, 4001)
    x, y = (np.log([f(a) for a in fine]) for f in (problem.misfit, problem.penalty))
    dx, dy = np.gradient(x), np.gradient(y)
    bend = (np.gradient(dx) * dy - dx * np.gradient(dy)) / (dx**2 + dy**2) ** 1.5
    corner = fine[np.argmax(-bend)]
    weights = np.logspace(-8, 1, 40)
    found = l_curve(weights, [problem.misfit(a) for a in weights], [problem.penalty(a) for a in weights])
    assert found.weight == weights[found.index]
    assert 1 / 2 < found.weight / corner < 2
    # It is a good choice: the misfit there is about the noise.
    assert 0.7 < problem.misfit(found.weight) / problem.delta < 1.1


def test_l_curve_leaves_out_local_minima():
    weights = np.logspace(-4, 2, 13)
    misfits, penalties = weights + 0.1, 1 / (weights + 1e-2)
    clean = l_curve(weights, misfits, penalties)
    misfits[3] *= 3
    found = l_curve(weights[::-1], misfits[::-1], penalties[::-1])
    assert found.weight == clean.weight
    assert np.isnan(found.curvature[::-1][3])
    assert not np.isnan(clean.curvature[3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smallest": 1.0, "largest": 0.5}, "smallest < largest is needed, found 1 and 0.5"),
        ({"factor": 1.0}, "must exceed 1, found 1 and"),
        ({"tau": 0.5}, "tau ≥ 1 and a positive noise are needed, found 0.5"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        discrepancy(lambda alpha: alpha, 0.1, **options)


def test_refused_values():
    with pytest.raises(ValueError, match="the misfit at weight 100 is not finite"):
        discrepancy(lambda alpha: np.nan, 0.1)
    with pytest.raises(ValueError, match="needs positive weights"):
        l_curve([1, 2, 3], [1, 2, 0], [3, 2, 1])
    with pytest.raises(ValueError, match="needs three points that none beats in both, found 1"):
        l_curve([1, 2, 3], [1, 2, 3], [1, 2, 3])
