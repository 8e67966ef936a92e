"""Structures on each other: moved copies are found again, others are told apart."""

import numpy as np
import pytest

from fetopo.microstructure.descriptors import align, families, motions, statistics_difference
from fetopo.microstructure.generate import gaussian_field

SIDES = (2e-6, 2e-6, 2e-6)


def structure(shape, seed):
    """Half of a random periodic medium."""
    image = gaussian_field(
        shape, volume_fraction=0.5, correlation_length=min(shape) / 6, seed=seed, voxel_size=1.0
    )
    return image.mask(1)


def moved(mask, rng):
    """A copy somewhere else, turned and reflected."""
    choice = motions(mask.shape, SIDES[: mask.ndim])
    motion = choice[rng.integers(len(choice))]
    shift = tuple(int(rng.integers(n)) for n in mask.shape)
    return np.roll(motion.apply(mask), shift, axis=tuple(range(mask.ndim)))


@pytest.mark.parametrize("shape", [(24, 24), (12, 12, 12)])
def test_moved_copies_are_the_same(shape):
    rng, mask = np.random.default_rng(3), structure(shape, 1)
    for _ in range(5):
        copy = moved(mask, rng)
        found = align(mask, copy)
        assert found.agreement == 1
        assert found.distance == 0
        np.testing.assert_array_equal(found.apply(copy), mask)
        same = statistics_difference(mask, copy)
        assert same.two_point < 1e-12
        assert same.lineal_path < 1e-12
        assert same.same_topology


def test_unrelated_structures_differ():
    a, b = structure((32, 32), 1), structure((32, 32), 2)
    assert align(a, b, moved=False).distance == pytest.approx(1, abs=0.35)
    assert 0.3 < align(a, b).distance < 1
    assert align(a, b).distance == pytest.approx(align(b, a).distance, abs=1e-12)
    assert align(a, ~a, moved=False).agreement == 0


def test_agreement_is_counted():
    """What the correlation finds is what counting finds."""
    a, b = structure((20, 28), 4), structure((20, 28), 5)
    found = align(a, b)
    assert found.agreement == np.mean(found.apply(b) == a)
    best = max(
        np.mean(np.roll(motion.apply(b), (i, j), (0, 1)) == a)
        for motion in motions(a.shape, (1, 1))
        for i in range(20)
        for j in range(28)
    )
    assert found.agreement == best


def test_motions_of_a_grid():
    assert len(motions((8, 8), (1, 1))) == 8
    assert len(motions((8, 8, 8), (1, 1, 1))) == 48
    assert len(motions((8, 9), (1, 1))) == 4
    assert len(motions((8, 8), (1, 2))) == 4
    # What keeps an anisotropic tensor with its axes along those of the grid, and turned ones.
    assert len(motions((8, 8), (1, 1), np.diag([2.0, 1.0]))) == 4
    assert len(motions((8, 8), (1, 1), [[2.0, 0.5], [0.5, 1.0]])) == 2
    assert all(np.allclose(m.matrix() @ m.matrix().T, np.eye(3)) for m in motions((4,) * 3, (1,) * 3))


def test_a_motion_moves_positions_as_its_matrix_says():
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[1, 2, 4] = True
    for motion in motions(mask.shape, SIDES):
        place = np.argwhere(motion.apply(mask))[0] - 2
        np.testing.assert_array_equal(place, motion.matrix() @ (np.array([1, 2, 4]) - 2))


def test_families():
    rng = np.random.default_rng(0)
    kinds = [structure((24, 24), seed) for seed in (1, 2, 3)]
    members = [kinds[0], kinds[1], moved(kinds[0], rng), kinds[2], moved(kinds[1], rng)]
    assert families(members) == [[0, 2], [1, 4], [3]]
    # A reflection on the diagonal would be another structure to a tensor that tells x from y.
    turned = [kinds[0], kinds[0].T.copy()]
    assert len(families(turned, distance=0.1)) == 1
    assert len(families(turned, distance=0.1, tensor=np.diag([2.0, 1.0]))) == 2


def test_bad_input():
    a = structure((8, 8), 0)
    with pytest.raises(ValueError, match=r"same shape, found \(8, 8\) and \(8, 9\)"):
        align(a, np.ones((8, 9), dtype=bool))
    with pytest.raises(ValueError, match="same shape"):
        statistics_difference(a, np.ones((8, 9), dtype=bool))
    with pytest.raises(ValueError, match="between 0 and 1, found 1"):
        families([a], distance=1)
