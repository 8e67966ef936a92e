"""Bounds of two transports together, against structures whose properties are known."""

import numpy as np
import pytest

from fetopo.design.front_bounds import front_bounds, most_of_second
from fetopo.design.goal import Goal
from fetopo.transport.bounds import hashin_shtrikman


def doubly_coated(pair, fraction, outer, core, dim):
    """Conductivity of spheres or discs of one material, coated with the other and again with the first.

    The material `core` has a share `outer` of its volume in the outermost coat; exact (Hashin and Shtrikman).
    """
    shell = 1 - core
    f = fraction if core == 1 else 1 - fraction

    def coated(inner, coat, share):
        return coat if inner == coat else coat + share / (1 / (inner - coat) + (1 - share) / (dim * coat))

    inside = f * (1 - outer)
    both = inside + 1 - f
    return coated(coated(pair[core], pair[shell], inside / both), pair[core], both)


@pytest.mark.parametrize("dim", [2, 3])
def test_no_doubly_coated_structure_exceeds_them(dim):
    rng = np.random.default_rng(0)
    nearest = np.inf
    for _ in range(400):
        first, second = (rng.uniform((0.01, 0.5), (0.4, 1)) for _ in range(2))
        second = second[::-1]
        f, outer, core = rng.uniform(0.05, 0.95), rng.uniform(), int(rng.integers(2))
        x, y = (doubly_coated(pair, f, outer, core, dim) for pair in (first, second))
        most = most_of_second(x, tuple(first), tuple(second), f, dim)
        assert y <= most * (1 + 1e-9)
        nearest = min(nearest, most / y - 1)
    # Some come very near: the bounds are not loose.
    assert nearest < 1e-3


def test_insulators_in_three_dimensions():
    """Half solid, half pore: the sum of the two is at most 2/3, which Schwarz' P surface nearly has."""
    first, second = (0.0, 1.0), (1.0, 0.0)
    assert most_of_second([1 / 3], first, second, 0.5, 3) == pytest.approx(1 / 3)
    # No more of the second than alone, and nothing where the first has all it can.
    assert most_of_second([0.0, 0.4], first, second, 0.5, 3) == pytest.approx([0.4, 0.0])
    assert np.isnan(most_of_second([0.41], first, second, 0.5, 3)).all()


def test_mirror_image_in_two_dimensions():
    """The hyperbola, from pure phase to pure phase or between coated discs."""
    first, second = (0.1, 1.0), (1.0, 0.1)
    curve = front_bounds(Goal(), first, second, (0.0, 1.0), 2)
    assert curve[[0, -1]] == pytest.approx(np.array([[0.1, 1.0], [1.0, 0.1]]))
    assert curve.prod(axis=1) == pytest.approx(np.full(len(curve), 0.1))
    curve = front_bounds(Goal(), first, second, (0.4, 0.4), 2)
    low, high = hashin_shtrikman((0.6, 0.4), first, 2)
    assert curve[[0, -1], 0] == pytest.approx([low, high])
    assert curve.prod(axis=1) == pytest.approx(np.full(len(curve), 0.1))


def test_free_fraction_is_the_best_of_all():
    first, second = (0.0, 1.0), (1.0, 0.0)
    curve = front_bounds(Goal(), first, second, (0.3, 0.7), 3)
    for f in (0.3, 0.45, 0.6, 0.7):
        alone = front_bounds(Goal(), first, second, (f, f), 3)
        assert np.all(np.interp(alone[:, 0], *curve.T) >= alone[:, 1] - 2e-3)
    assert np.all(np.diff(curve[:, 1]) <= 1e-12)
    assert curve[[0, -1]] == pytest.approx(np.array([[0, 1.4 / 2.3], [1.4 / 2.3, 0]]))


def test_along_one_direction_and_for_the_same_material():
    along = Goal("along", (1.0, 0.0))
    curve = front_bounds(along, (0.1, 1.0), (1.0, 0.1), (0.1, 0.9), 2, points=3)
    assert curve == pytest.approx(np.array([[0.19, 0.91], [0.55, 0.55], [0.91, 0.19]]))
    # Nothing to trade off: the largest of both.
    curve = front_bounds(Goal(), (0.1, 1.0), (1.0, 2.0), (0.4, 0.6), 2)
    best = [hashin_shtrikman((0.4, 0.6), pair, 2)[1] for pair in ((0.1, 1.0), (1.0, 2.0))]
    assert curve == pytest.approx(np.tile(best, (len(curve), 1)))


def test_refused():
    with pytest.raises(ValueError, match="volume fractions must rise between 0 and 1, found"):
        front_bounds(Goal(), (0, 1), (1, 0), (0.6, 0.4), 3)
    with pytest.raises(ValueError, match="found 'target'"):
        front_bounds(Goal("target", target=((1.0, 0.0), (0.0, 1.0))), (0, 1), (1, 0), (0.4, 0.6), 2)
