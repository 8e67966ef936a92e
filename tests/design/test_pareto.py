"""Fronts: what is dominated, hypervolumes, which points are asked for; on problems whose front is known."""

import numpy as np
import pytest

from fetopo.design.pareto import Solved, front, hypervolume, lattice, non_dominated

pytestmark = pytest.mark.mpi


def test_non_dominated():
    values = [[3, 1], [1, 3], [2, 2], [1, 2], [2, 2], [3, 0], [np.nan, 5]]
    assert non_dominated(values).tolist() == [True, True, True, False, False, False, False]
    # Brute force in three dimensions.
    z = np.random.default_rng(0).integers(0, 5, (60, 3))
    z = np.unique(z, axis=0)
    expected = [not any((b >= a).all() and (b > a).any() for b in z) for a in z]
    assert non_dominated(z).tolist() == expected
    with pytest.raises(ValueError, match=r"points need the shape \(number, objectives\), found \(3,\)"):
        non_dominated([1, 2, 3])


class TestHypervolume:
    def test_closed_forms(self):
        assert hypervolume([[2, 1], [1, 2], [1, 1]], [0, 0]) == 3
        assert hypervolume([[2, 1], [1, 2]], [0.5, 0.5]) == pytest.approx(1.25)
        assert hypervolume([[2, 1, 1], [1, 2, 1], [1, 1, 2]], [0, 0, 0]) == 4
        # Above the reference in one objective only.
        assert hypervolume([[5, 0.5]], [0, 1]) == 0
        # Under the hyperbola xy = 1 between (1/4, 4) and (4, 1/4): 1 + ln 16.
        x = np.geomspace(0.25, 4, 4001)
        assert hypervolume(np.stack([x, 1 / x], 1), [0, 0]) == pytest.approx(1 + np.log(16), rel=1e-3)
        # An eighth of the unit ball.
        a, b = np.meshgrid(*(np.linspace(0, np.pi / 2, 60),) * 2)
        ball = np.stack([np.cos(a) * np.cos(b), np.sin(a) * np.cos(b), np.sin(b)], -1).reshape(-1, 3)
        assert hypervolume(ball, [0, 0, 0]) == pytest.approx(np.pi / 6, rel=0.03)

    @pytest.mark.parametrize("k", [2, 3])
    def test_monte_carlo(self, k):
        rng = np.random.default_rng(1)
        z, samples = rng.uniform(size=(8, k)), rng.uniform(size=(200_000, k))
        inside = (samples[:, None] <= z).all(axis=2).any(axis=1).mean()
        assert hypervolume(z, [0] * k) == pytest.approx(inside, abs=4e-3)

    def test_refused(self):
        with pytest.raises(ValueError, match="of two or three objectives and a reference"):
            hypervolume([[1, 2, 3, 4]], [0, 0, 0, 0])
        with pytest.raises(ValueError, match="found 2 and 3"):
            hypervolume([[1, 2]], [0, 0, 0])


class TestLattice:
    @pytest.mark.parametrize("k", [2, 3])
    def test_every_point_lies_halfway_between_its_parents(self, k):
        entries = [entry for level in lattice(k, 40) for entry in level]
        assert len(entries) == len({position for position, _ in entries}) == 40
        for number, (position, parents) in enumerate(entries[k:], k):
            assert all(parent < number for parent in parents)
            first, second = (np.array(entries[p][0]) for p in parents)
            assert np.allclose(position, 0.5 * (first + second))

    def test_parents_are_of_earlier_levels_and_fewer_points_come_first(self):
        many = lattice(3, 30)
        begins = np.cumsum([0, *map(len, many)])
        for level, begin in zip(many, begins, strict=False):
            assert all(parent < begin for _, parents in level for parent in parents)
        flat = [entry for level in many for entry in level]
        assert [entry for level in lattice(3, 11) for entry in level] == flat[:11]

    def test_refused(self):
        with pytest.raises(ValueError, match="two or three objectives, found 4"):
            lattice(4, 9)
        with pytest.raises(
            ValueError, match="a front of 3 objectives needs at least as many points, found 2"
        ):
            lattice(3, 2)


def on_hyperbola(own, request, start):
    """All (x, y) with xy ≤ 0.01 and x, y ≤ 1: solved exactly."""
    own.Barrier()
    if request.maximize is None:
        ratio = request.wanted[0] / request.wanted[1]
        return Solved((0.1 * ratio**0.5, 0.1 / ratio**0.5), request.number)
    if request.start is None:
        return Solved((1.0, 0.01) if request.maximize == 0 else (0.01, 1.0), request.number)
    floor = request.floors[1 - request.maximize]
    values = (0.01 / floor, floor)
    return Solved(values if request.maximize == 0 else values[::-1], request.number)


@pytest.mark.parametrize("method", ["chebyshev", "epsilon"])
class TestFront:
    def test_spread_on_a_hyperbola(self, comm, method):
        """Both objectives span two decades: points are even in their logarithms."""
        found = front(comm, on_hyperbola, 2, 9, method=method)
        assert len(found.best) == 9
        x = np.array([p.solved.values[0] for p in found.best])
        assert x == pytest.approx(np.geomspace(1, 0.01, 9))
        assert found.values.prod(axis=1) == pytest.approx(np.full(9, 0.01))

    def test_more_points_contain_fewer(self, comm, alone, method):
        many, few = (
            front(comm, on_hyperbola, 2, 9, method=method),
            front(alone, on_hyperbola, 2, 5, method=method),
        )
        assert many.first(5) == few
        volumes = [many.first(n).hypervolume for n in (2, 3, 5, 9)]
        assert np.all(np.diff(volumes) > 0)
        assert many == front(comm, on_hyperbola, 2, 9, method=method, groups=1)

    def test_a_failed_point_is_passed_over(self, comm, method):
        def solve(own, request, start):
            if request.number == 2:
                raise RuntimeError("no convergence")
            if request.number > 2:
                # In its place stands the first of the points it lay between.
                assert request.start in (0, 1)
                assert start == request.start
            return on_hyperbola(own, request, start)

        found = front(comm, solve, 2, 5, method=method)
        assert found.points[2].message == "no convergence"
        assert [p.request.number for p in found.found] == [0, 1, 3, 4]


def test_linear_where_an_anchor_has_nothing(comm):
    """x + y = 1 from (1, 0) to (0, 1)."""

    def solve(own, request, start):
        w = np.array(request.wanted or np.eye(2)[request.maximize])
        return Solved(tuple(w / w.sum()))

    found = front(comm, solve, 2, 5)
    assert [p.solved.values[0] for p in found.best] == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_three_objectives(comm):
    """An eighth of a sphere; a point of the interior dominates none of the others."""

    def solve(own, request, start):
        w = np.array(request.wanted or np.eye(3)[request.maximize])
        return Solved(tuple(w / np.linalg.norm(w)), w)

    found = front(comm, solve, 3, 15)
    assert len(found.best) == 15
    volumes = [found.first(n).hypervolume for n in (3, 6, 15)]
    assert volumes == pytest.approx([0, 0.0035, 0.31], abs=0.05)
    assert np.all(np.diff(volumes) > 0)
    epsilon = front(comm, lambda own, request, start: solve(own, request, start), 3, 6, method="epsilon")
    asked = epsilon.points[5].request
    # Between the best for the first and for the second: they differ least in the third.
    assert asked.maximize == 2
    assert [f is None for f in asked.floors] == [False, False, True]


def test_refused(comm):
    for options, message in (
        ({"method": "both"}, "a front is found by 'chebyshev' or 'epsilon', found 'both'"),
        ({"reference": (0,)}, "the reference needs 2 numbers, found 1"),
    ):
        with pytest.raises(ValueError, match=message):
            front(comm, on_hyperbola, 2, 3, **options)


@pytest.mark.parametrize(
    ("method", "anchors", "start"),
    [
        # Halfway is (0.316, 0.447): the worse share of it that a parent has is 0.45 and 0.32.
        ("chebyshev", ((1.0, 0.2), (0.1, 1.0)), 0),
        ("chebyshev", ((1.0, 0.1), (0.2, 1.0)), 1),
        # The first is made large, above a floor of the second, which the second parent has.
        ("epsilon", ((1.0, 0.2), (0.1, 1.0)), 1),
    ],
)
def test_starts_from_the_better_parent(comm, method, anchors, start):
    def solve(own, request, design):
        return Solved(anchors[request.number] if request.number < 2 else (0.3, 0.3), request.number)

    asked = front(comm, solve, 2, 3, method=method).points[2].request
    assert asked.start == start
    assert asked.wanted == pytest.approx(np.sqrt(np.prod(anchors, axis=0)))
