"""Bounds against their closed forms, and as properties over random mixtures and laminates of finite rank."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fetopo.transport.bounds import exists, hashin_shtrikman, trace_bounds, wiener

fractions = st.floats(0.01, 0.99)
conductivities = st.floats(1e-3, 1e3)
dims = st.sampled_from([2, 3])


@st.composite
def mixtures(draw):
    n = draw(st.integers(2, 5))
    weights = np.array(draw(st.lists(st.floats(0.01, 1), min_size=n, max_size=n)))
    return weights / weights.sum(), draw(st.lists(conductivities, min_size=n, max_size=n))


@st.composite
def two_phases(draw):
    """Fractions and conductivities of two phases that differ, the poorer first."""
    f, low, ratio = draw(fractions), draw(st.floats(1e-2, 1e2)), draw(st.floats(1.1, 1e3))
    return (1 - f, f), (low, low * ratio)


def rotation(dim, seed):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))
    return q * np.sign(np.diag(r))


def layered(A, B, share, axis):
    """Laminate of two materials with principal axes along the layers; `share` of the first."""
    D = share * A + (1 - share) * B
    D[axis] = 1 / (share / A[axis] + (1 - share) / B[axis])
    return D


@st.composite
def laminates(draw):
    """A laminate of rank 1 to 4 of two phases: dimension, its eigenvalues, fractions, conductivities."""
    dim, (_, (low, high)) = draw(dims), draw(two_phases())
    phases = [np.full(dim, low), np.full(dim, high)]
    D, f = phases[draw(st.integers(0, 1))], None
    f = float(D[0] == high)
    for _ in range(draw(st.integers(1, 4))):
        layer, share = draw(st.integers(0, 1)), draw(st.floats(0.05, 0.95))
        D = layered(D, phases[layer], share, draw(st.integers(0, dim - 1)))
        f = share * f + (1 - share) * layer
    return dim, D, (1 - f, f), (low, high)


class TestClosedForms:
    def test_wiener(self):
        lower, upper = wiener((0.25, 0.75), (1, 4))
        assert lower == pytest.approx(1 / (0.25 + 0.75 / 4))
        assert upper == pytest.approx(3.25)

    @pytest.mark.parametrize("dim", [2, 3])
    @pytest.mark.parametrize("f", [0.1, 0.5, 0.8])
    def test_hashin_shtrikman_two_phases(self, dim, f):
        """As in Hashin and Shtrikman's paper: kᵢ + fⱼ/(1/(kⱼ − kᵢ) + fᵢ/(d kᵢ))."""
        k1, k2 = 1.0, 10.0
        lower, upper = hashin_shtrikman((1 - f, f), (k1, k2), dim)
        assert lower == pytest.approx(k1 + f / (1 / (k2 - k1) + (1 - f) / (dim * k1)), rel=1e-13)
        assert upper == pytest.approx(k2 + (1 - f) / (1 / (k1 - k2) + f / (dim * k2)), rel=1e-13)

    @pytest.mark.parametrize(("dim", "expected"), [(2, 1 / 3), (3, 0.4)])
    def test_half_of_an_insulator(self, dim, expected):
        lower, upper = hashin_shtrikman((0.5, 0.5), (0, 1), dim)
        assert lower == 0
        assert upper == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("dim", "f", "k", "value"),
        [
            (2, 0.5, 0, 0.3246545),
            (2, 0.5, 10, 2.4154674),
            (2, 0.7, 1000, 7.3682150),
            (3, 0.4, 10, 2.3644314),
            (3, 0.5, 0, 0.3737348),
        ],
    )
    def test_known_arrays_lie_between(self, dim, f, k, value):
        lower, upper = hashin_shtrikman((1 - f, f), (1, k), dim)
        assert lower < value < upper

    def test_order_of_phases_does_not_matter(self):
        assert hashin_shtrikman((0.2, 0.3, 0.5), (5, 1, 3), 3) == pytest.approx(
            hashin_shtrikman((0.5, 0.2, 0.3), (3, 5, 1), 3)
        )

    def test_absent_phase_does_not_count(self):
        assert wiener((0.0, 1.0), (0.0, 2.0)) == (2.0, 2.0)
        assert hashin_shtrikman((0.0, 0.5, 0.5), (0, 1, 2), 2) == hashin_shtrikman((0.5, 0.5), (1, 2), 2)


class TestProperties:
    @given(mixtures(), dims)
    def test_hashin_shtrikman_inside_wiener(self, mixture, dim):
        f, k = mixture
        h, a = wiener(f, k)
        lower, upper = hashin_shtrikman(f, k, dim)
        slack = 1 + 1e-9
        assert min(k) / slack <= h <= lower * slack
        assert lower <= upper * slack
        assert upper <= a * slack <= max(k) * slack**2

    @given(two_phases())
    def test_interchange(self, phases):
        """Keller and Dykhne in two dimensions: κ*(k₁, k₂) κ*(k₂, k₁) = k₁ k₂, which the bounds inherit."""
        f, k = phases
        lower, upper = hashin_shtrikman(f, k, 2)
        swapped = hashin_shtrikman(f, k[::-1], 2)
        assert upper * swapped[0] == pytest.approx(k[0] * k[1], rel=1e-9)
        assert lower * swapped[1] == pytest.approx(k[0] * k[1], rel=1e-9)

    @given(mixtures(), dims, st.floats(1e-3, 1e3))
    def test_unit_of_conductivity(self, mixture, dim, scale):
        f, k = mixture
        scaled = np.multiply(k, scale)
        assert hashin_shtrikman(f, scaled, dim) == pytest.approx(
            tuple(np.multiply(hashin_shtrikman(f, k, dim), scale)), rel=1e-8
        )

    @given(fractions, st.floats(0.02, 1), dims)
    def test_more_of_the_better_phase_is_better(self, f, gain, dim):
        more = f + gain * (0.99 - f)
        assume(more > f + 1e-6)
        poor = hashin_shtrikman((1 - f, f), (1, 7), dim)
        rich = hashin_shtrikman((1 - more, more), (1, 7), dim)
        assert rich[0] > poor[0]
        assert rich[1] > poor[1]


class TestExists:
    @given(laminates(), st.integers(0, 100))
    def test_laminates_are(self, laminate, seed):
        dim, D, f, k = laminate
        Q = rotation(dim, seed)
        tensor = Q @ np.diag(D) @ Q.T
        answer = exists(0.5 * (tensor + tensor.T), f, k)
        assert answer.ok, answer.reason

    @given(two_phases(), dims, st.floats(0, 1))
    def test_isotropic_inside_hashin_shtrikman(self, phases, dim, t):
        f, k = phases
        lower, upper = hashin_shtrikman(f, k, dim)
        assert exists((lower + t * (upper - lower)) * np.eye(dim), f, k).ok

    @given(two_phases(), dims, st.floats(1e-3, 0.5))
    def test_isotropic_beyond_hashin_shtrikman(self, phases, dim, excess):
        f, k = phases
        lower, upper = hashin_shtrikman(f, k, dim)
        h, a = wiener(f, k)
        above = exists((upper + excess * (a - upper)) * np.eye(dim), f, k)
        below = exists((lower - excess * (lower - h)) * np.eye(dim), f, k)
        assert not above.ok
        assert "upper" in above.reason
        assert not below.ok
        assert "lower" in below.reason

    @given(two_phases(), dims)
    def test_beyond_wiener(self, phases, dim):
        f, k = phases
        h, a = wiener(f, k)
        for value in (h * 0.99, a * 1.01):
            D = np.diag([value] + [0.5 * (h + a)] * (dim - 1))
            answer = exists(D, f, k)
            assert not answer.ok
            assert "Wiener" in answer.reason

    def test_message_names_values_and_bounds(self):
        reason = exists(0.4 * np.eye(2), (0.5, 0.5), (0.0, 1.0)).reason
        assert "0.4, 0.4" in reason
        assert "0.333333" in reason

    @pytest.mark.parametrize(
        "diagonal", [(0, 0), (0, 0.5), (0, 0, 0.5), (0, 0.5, 0.5), (0, 0, 0), (0.4, 0.4, 0.4)]
    )
    def test_with_an_insulator(self, diagonal):
        """Wires, sheets and islands in an insulator; nothing bounds the trace from below."""
        assert exists(np.diag(diagonal), (0.5, 0.5), (0, 1)).ok

    def test_wire_across_an_insulator_is_bounded_above(self):
        assert not exists(np.diag([0.4, 0.4, 0.5]), (0.5, 0.5), (0, 1)).ok

    def test_equal_phases(self):
        assert exists(2 * np.eye(2), (0.5, 0.5), (2, 2)).ok
        assert not exists(2.1 * np.eye(2), (0.5, 0.5), (2, 2)).ok

    @pytest.mark.parametrize("difference", [1e-13, 1e-10, 1e-8, 1e-6])
    def test_phases_that_hardly_differ(self, difference):
        """A laminate of them, as computed."""
        k = (1000.0, 1000.0 * (1 - difference))
        h, a = wiener((0.5, 0.5), k)
        assert exists(np.diag([h, a]), (0.5, 0.5), k).ok
        assert not exists(1000.1 * np.eye(2), (0.5, 0.5), k).ok

    def test_round_off_in_a_computed_tensor_is_forgiven(self):
        assert exists([[2.0, 1e-17], [-1e-16, 2.0]], (0.5, 0.5), (1, 4)).ok


class TestRefused:
    @pytest.mark.parametrize(
        ("f", "k", "message"),
        [
            ((0.5, 0.6), (1, 2), "sum to 1"),
            ((-0.5, 1.5), (1, 2), "non-negative"),
            ((0.5, np.nan), (1, 2), "sum to 1"),
            ((0.5, 0.5), (1, -2), r"conductivities must be numbers and non-negative, found \[1.0, -2.0\]"),
            ((0.5, 0.5), (1, np.nan), "must be numbers"),
            ((0.5, 0.5), (1,), "found 2 and 1"),
            ((), (), "one fraction per conductivity"),
        ],
    )
    def test_mixture(self, f, k, message):
        with pytest.raises(ValueError, match=message):
            wiener(f, k)
        with pytest.raises(ValueError, match=message):
            hashin_shtrikman(f, k, 2)

    @pytest.mark.parametrize("dim", [1, 4])
    def test_dimension(self, dim):
        with pytest.raises(ValueError, match=f"found {dim}"):
            hashin_shtrikman((0.5, 0.5), (1, 2), dim)

    @pytest.mark.parametrize("target", [[[1, 2], [3, 4]], np.eye(4), [1, 2], [[np.nan, 0], [0, 1]]])
    def test_target(self, target):
        with pytest.raises(ValueError, match="symmetric 2×2 or 3×3"):
            exists(target, (0.5, 0.5), (1, 10))

    def test_number_without_dimension(self):
        with pytest.raises(ValueError, match=r"here 0\.3, needs dim"):
            exists(0.3, (0.5, 0.5), (0, 1))
        with pytest.raises(ValueError, match="target is 2×2 and dim is 3"):
            exists(np.eye(2), (0.5, 0.5), (1, 2), dim=3)


def lurie_cherkaev(f, k, dim):
    """The trace bounds of two phases as they are usually written, with harmonic and arithmetic mean."""
    h, a = wiener(f, k)
    low, high = min(k), max(k)
    return 1 / (h - low) + (dim - 1) / (a - low), 1 / (high - h) + (dim - 1) / (high - a)


class TestTraceBounds:
    @given(two_phases(), dims)
    def test_two_phases_as_lurie_and_cherkaev_have_them(self, phases, dim):
        f, k = phases
        assert trace_bounds(f, k, dim) == pytest.approx(lurie_cherkaev(f, k, dim), rel=1e-7)

    @given(mixtures(), dims)
    def test_equal_eigenvalues_give_hashin_shtrikman(self, mixture, dim):
        f, k = mixture
        assume(max(k) > 1.1 * min(k))
        lower, upper = hashin_shtrikman(f, k, dim)
        first, second = trace_bounds(f, k, dim)
        assert min(k) + dim / first == pytest.approx(lower, rel=1e-8)
        assert max(k) - dim / second == pytest.approx(upper, rel=1e-8)

    @given(mixtures(), dims, st.integers(0, 10**6))
    def test_laminates_of_many_phases_meet_them(self, mixture, dim, seed):
        """Phases layered one after the other, in any order and direction, with the given fractions."""
        f, k = mixture
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(f))
        D, share = np.full(dim, float(k[order[0]])), f[order[0]]
        for phase in order[1:]:
            total = share + f[phase]
            D = layered(D, np.full(dim, float(k[phase])), share / total, rng.integers(dim))
            share = total
        answer = exists(np.diag(D), f, k)
        assert answer.ok, answer.reason
        assert answer.sufficient == (len(set(k)) <= 2)

    def test_nothing_bounds_beside_an_insulator_or_a_perfect_conductor(self):
        assert trace_bounds((0.5, 0.5), (0, 1), 3)[0] == np.inf
        assert trace_bounds((0.5, 0.5), (1, np.inf), 3)[1] == np.inf
        assert trace_bounds((0.5, 0.5), (2, 2), 2) == (np.inf, np.inf)

    def test_perfect_conductor_is_the_limit(self):
        for function in (hashin_shtrikman, trace_bounds):
            there = function((0.6, 0.4), (1, np.inf), 3)
            near = function((0.6, 0.4), (1, 1e9), 3)
            assert there[0] == pytest.approx(near[0], rel=1e-8)
            assert there[1] == np.inf
        assert wiener((0.6, 0.4), (1, np.inf)) == (pytest.approx(1 / 0.6), np.inf)
        assert wiener((0.6, 0.4), (np.inf, np.inf)) == (np.inf, np.inf)
        assert hashin_shtrikman((0.6, 0.4), (np.inf, np.inf), 2) == (np.inf, np.inf)
        # A square array of perfectly conducting discs lies above, a little less than it does not exist.
        assert exists(1.8577204, (0.7, 0.3), (1, np.inf), dim=2).ok
        assert not exists(1.85, (0.7, 0.3), (1, np.inf), dim=2).ok


class TestNearest:
    @settings(deadline=None, max_examples=40)  # each example is some optimizations
    @given(two_phases(), dims, st.floats(1e-2, 0.5))
    def test_isotropic_target_comes_to_the_bound(self, phases, dim, excess):
        f, k = phases
        lower, upper = hashin_shtrikman(f, k, dim)
        h, a = wiener(f, k)
        for bound, target in ((upper, upper + excess * (a - upper)), (lower, lower - excess * (lower - h))):
            near = exists(target, f, k, dim=dim).nearest
            assert near == pytest.approx(bound * np.eye(dim), rel=1e-5, abs=1e-5 * bound)

    @settings(deadline=None, max_examples=40)  # each example is some optimizations
    @given(two_phases(), dims, st.integers(0, 10**6))
    def test_nothing_attained_is_nearer(self, phases, dim, seed):
        """The way to the target and the way to any tensor inside form no acute angle: the set is convex."""
        f, k = phases
        rng = np.random.default_rng(seed)
        A = rng.normal(size=(dim, dim)) * k[1]
        target = A @ A.T / k[1]
        answer = exists(target, f, k)
        assert exists(answer.nearest, f, k).ok
        h, a = wiener(f, k)
        for _ in range(20):
            Q = rotation(dim, rng.integers(1000))
            other = Q @ np.diag(rng.uniform(h, a, dim)) @ Q.T
            other = 0.5 * (other + other.T)
            if exists(other, f, k).ok:
                way, back = target - answer.nearest, other - answer.nearest
                assert (
                    np.sum(way * back) <= 1e-4 * np.linalg.norm(way) * np.linalg.norm(back) + 1e-6 * k[1] ** 2
                )

    def test_target_that_exists_is_its_own_neighbour(self):
        assert (exists(0.3, (0.5, 0.5), (0, 1), dim=3).nearest == 0.3 * np.eye(3)).all()

    def test_beyond_wiener_with_equal_phases(self):
        assert exists(3.0, (0.5, 0.5), (2, 2), dim=2).nearest == pytest.approx(2 * np.eye(2))
