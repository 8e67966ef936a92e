"""Which structures have the same property, and which of those are different."""

from dataclasses import replace

import numpy as np
import pytest

from fetopo.design.goal import Goal
from fetopo.design.uniqueness import Outcome, Sameness, compare, guaranteed
from fetopo.microstructure.generate import gaussian_field

pytestmark = pytest.mark.mpi

TARGET = Goal("target", target=((0.3, 0.05), (0.05, 0.2)))
SIDES = (0.1, 0.1)


def medium(seed, length=0.6, n=32):
    return (
        gaussian_field(
            (n, n), volume_fraction=0.5, correlation_length=length, seed=seed, voxel_size=SIDES
        ).labels
        == 1
    )


def outcome(number, mask, value):
    D = np.eye(2)
    return Outcome(
        number, f"start {number}", mask.astype(np.uint8), D, value, (None, None), 1.0, (None, None), None,
        0.5, True, 10, 0.0,
    )  # fmt: skip


def positive(rng):
    A = rng.standard_normal((2, 2))
    return A @ A.T


@pytest.mark.parametrize("goal", [TARGET, Goal(), Goal("along", direction=(1.0, 2.0))])
def test_interval_holds_every_tensor_between_the_bounds(goal):
    rng, shares = np.random.default_rng(0), []
    for _ in range(200):
        D = 0.1 * np.eye(2) + positive(rng)
        below, above = 0.05 * rng.random(2) ** 2
        L, U = D - below * positive(rng), D + above * positive(rng)
        if np.linalg.eigvalsh(L).min() <= 0:
            continue
        low, high = guaranteed(goal, L, U)
        assert low <= goal.reached(D) <= high
        shares.append((goal.reached(D) - low) / (high - low))
    assert len(shares) > 100
    # Not wider than it has to be: exact values come near both ends.
    assert min(shares) < 0.1
    assert max(shares) > 0.9


def test_interval_of_a_known_tensor_is_its_number():
    D = np.array([[0.31, 0.02], [0.02, 0.22]])
    for goal in (TARGET, Goal()):
        assert guaranteed(goal, D, D) == pytest.approx((goal.reached(D),) * 2, abs=1e-15)
    assert guaranteed(Goal(), None, D) == (None, Goal().reached(D))
    assert guaranteed(TARGET, None, D) == (None, None)
    assert guaranteed(Goal("function", minimize=lambda D: D[0, 0]), D, D) == (None, None)


class TestFamilies:
    """Two copies of one structure, one that is another, and one that misses the target."""

    @staticmethod
    def outcomes(moved):
        one, two = medium(1), medium(2, 0.8)
        return [outcome(1, one, 0.008), outcome(2, two, 0.004), outcome(3, moved(one), 0.006),
                outcome(4, medium(3, 0.4), 0.02)]  # fmt: skip

    def test_moved_copies_are_one_structure(self, comm):
        found = compare(
            self.outcomes(lambda m: np.roll(np.flip(m), (5, 9), (0, 1))), TARGET, SIDES, comm=comm
        )
        assert found.reaching == (1, 2, 0)
        assert found.families == ((1,), (2, 0))
        assert found.distinct == 2
        assert found.order == [1, 2, 0, 3]
        assert [found.family_of(i) for i in range(4)] == [1, 0, 1, None]
        assert found.overlap[0, 2] == 0
        assert found.two_point[0, 2] < 1e-12
        np.testing.assert_array_equal(found.overlap, found.overlap.T)

    def test_a_motion_that_changes_the_tensor_makes_another_place_and_not_another_material(self):
        """A reflection the target does not allow does not count, but phase statistics are blind to it."""
        outcomes = self.outcomes(lambda m: m[::-1])
        found = compare(outcomes, TARGET, SIDES)
        assert found.overlap[0, 2] > 0.25
        assert found.families == ((1,), (2, 0))
        # Any motion leaves the mean conductivity.
        same = [replace(o, value=0.3) for o in outcomes]
        assert compare(same, Goal(), SIDES).overlap[0, 2] == 0

    def test_ranks_share_what_one_does(self, comm):
        outcomes = self.outcomes(lambda m: m.T)
        one, many = compare(outcomes, TARGET, SIDES), compare(outcomes, TARGET, SIDES, comm=comm)
        for name in ("overlap", "two_point", "lineal_path"):
            np.testing.assert_array_equal(getattr(one, name), getattr(many, name))
        assert one.families == many.families


@pytest.mark.parametrize(
    ("goal", "values", "reaching"),
    [
        (TARGET, (0.02, 0.005, 0.0101), (1,)),
        (TARGET, (0.02, 0.03, 0.011), ()),
        (Goal(), (0.2, 0.1985, 0.19), (0, 1)),
        (Goal("function", minimize=lambda D: D[0, 0]), (-1.0, -1.005, -0.9), (1, 0)),
    ],
)
def test_same_property(goal, values, reaching):
    outcomes = [outcome(k, medium(k), value) for k, value in enumerate(values, 1)]
    assert compare(outcomes, goal, SIDES).reaching == reaching


def test_bad_input():
    with pytest.raises(ValueError, match="structures of one shape are needed, found none"):
        compare([], TARGET, SIDES)
    with pytest.raises(ValueError, match="one shape are needed, found shapes"):
        compare([outcome(1, medium(1), 0), outcome(2, medium(1, n=30), 0)], TARGET, SIDES)
    with pytest.raises(ValueError, match="overlap must lie between 0 and 1, found 0"):
        Sameness(overlap=0)
