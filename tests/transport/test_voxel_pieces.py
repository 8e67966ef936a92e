"""Pieces of scarce, winding conductors as a coarse space of their own."""

import numpy as np
import pytest
from scipy import ndimage

from fetopo.transport.voxel import VoxelCellProblem, VoxelGrid, _kernels, pieces, through
from fetopo.transport.voxel.pieces import Pieces

SCHEMES = ("finite volumes", "elements")


def walk(shape, share, seed=0):
    """One conductor, a voxel wide, with detours and dead ends: where a periodic random walk has been."""
    rng = np.random.default_rng(seed)
    steps = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    mask = np.zeros(shape, dtype=bool)
    place = np.zeros(3, dtype=int)
    while mask.mean() < share:
        path = (place + np.cumsum(steps[rng.integers(6, size=500)], axis=0)) % shape
        mask[tuple(path.T)] = True
        place = path[-1]
    return mask


def problem_of(comm, kappa, scheme="finite volumes", rtol=1e-6):
    problem = VoxelCellProblem(VoxelGrid(comm, kappa.shape, periodic=True), scheme, rtol)
    problem.assign(problem.grid.take(kappa))
    return problem


def pieces_of(problem):
    found = problem.state.operator.hierarchy.corrections
    return found[0] if found and isinstance(found[0], Pieces) else None


def plainly_parted(mask):
    """What the kernel counts, aggregate by aggregate."""
    some = several = 0
    for i, j, k in np.ndindex(*(-(-n // 2) for n in mask.shape)):
        count = ndimage.label(mask[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 2 * k : 2 * k + 2])[1]
        some += count > 0
        several += count > 1
    return int(mask.sum()), some, several


@pytest.mark.parametrize("insulated", [True, False])
def test_parted_aggregates_are_counted(alone, insulated):
    mask = ndimage.uniform_filter(np.random.default_rng(0).random((11, 12, 9)), 2) > 0.6
    level = problem_of(alone, mask if insulated else np.where(mask, 1.0, 1e-3)).state.level
    module = _kernels.pieces()
    struct = module.ffi.cast("level *", int(level.ffi.cast("uintptr_t", level.struct)))
    first, counts = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    module.lib.parted(
        struct,
        0.05,
        _kernels.pointer(module.ffi, "int64_t", first),
        _kernels.pointer(module.ffi, "int64_t", counts),
    )
    # A voxel that no face joins to another one conducts nothing.
    joined = np.any([np.roll(mask, s, a) for a in range(3) for s in (-1, 1)], axis=0)
    assert tuple(counts) == plainly_parted(mask & joined)
    assert counts[2] > 10


def test_the_coarse_matrix_is_that_of_the_operator(alone):
    problem = problem_of(alone, np.where(walk((12, 11, 10), 0.15), 1.0, 1e-3))
    found, level = pieces_of(problem), problem.state.level
    number = found.number[1:-1, 1:-1, 1:-1]
    solver = problem.state.solver
    dense = np.zeros((found.total, found.total))
    inner = (slice(None), *(slice(1, -1),) * 3)
    for piece in range(found.total):
        solver.p[inner] = number == piece
        level.blocks.exchange(solver.p)
        level.lib.wrap_ff(level.struct, _kernels.pointer(level.ffi, "float", solver.p), 3)
        products = np.zeros(3)
        level.lib.apply(
            level.struct,
            _kernels.pointer(level.ffi, "float", solver.p),
            _kernels.pointer(level.ffi, "double", products),
        )
        own = level.array("y")[inner][0]
        dense[:, piece] = np.bincount(number[number >= 0], weights=own[number >= 0], minlength=found.total)
    assert found.total > 20
    np.testing.assert_allclose(found._matrix().toarray(), dense, atol=1e-6)


def test_the_correction_leaves_no_residual_on_a_piece(alone):
    problem = problem_of(alone, np.where(walk((12, 11, 10), 0.15), 1.0, 1e-3))
    found, level = pieces_of(problem), problem.state.level
    rng = np.random.default_rng(1)
    inner = (slice(None), *(slice(1, -1),) * 3)
    level.array("b")[inner] = rng.normal(size=(3, 12, 11, 10))
    level.array("x")[...] = 0
    before = level.array("b").copy()
    product = found.correct(False)
    added = level.array("x")[inner].astype(float)
    assert product == pytest.approx((before[inner] * added).sum(axis=(1, 2, 3)), rel=1e-5)
    assert np.abs(added).max() > 0.1
    level.exchange("x")
    # A second correction finds nothing left to do.
    found.correct(True)
    assert np.abs(level.array("x")[inner] - added).max() < 1e-4 * np.abs(added).max()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("poor", [0.0, 1e-6])
def test_fewer_iterations_to_the_same_tensor(alone, monkeypatch, scheme, poor):
    mask = walk((32, 32, 32), 0.08)
    kappa = mask if poor == 0 else np.where(mask, 1.0, poor)
    problem = problem_of(alone, kappa, scheme)
    assert pieces_of(problem) is not None
    problem.solve()
    monkeypatch.setattr(pieces, "_PARTED", 1.0)
    plain = problem_of(alone, kappa, scheme)
    assert pieces_of(plain) is None
    plain.solve()
    assert problem.iterations <= 0.75 * plain.iterations
    np.testing.assert_allclose(problem.tensor, plain.tensor, atol=1e-7 * plain.tensor.max())


def test_through_an_image(alone, monkeypatch):
    mask = walk((32, 32, 32), 0.08)
    found = through(VoxelGrid(alone, mask.shape), mask, 0, rtol=1e-8)
    monkeypatch.setattr(pieces, "_PARTED", 1.0)
    plain = through(VoxelGrid(alone, mask.shape), mask, 0, rtol=1e-8)
    assert found.iterations <= 0.75 * plain.iterations
    assert found.conductivity > 1e-4
    assert found.conductivity == pytest.approx(plain.conductivity, rel=1e-8)


@pytest.mark.mpi
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("poor", [0.0, 1e-4])
def test_ranks_agree(comm, alone, scheme, poor):
    """Blocks that borders of ranks cut included: 30 and 27 are no multiples of four."""
    mask = walk((30, 27, 26), 0.05, seed=2)
    kappa = mask if poor == 0 else np.where(mask, 1.0, poor)
    results = []
    for group in (comm, alone):
        problem = problem_of(group, kappa, scheme, 1e-8)
        assert pieces_of(problem) is not None
        problem.solve()
        results.append((problem.iterations, problem.tensor))
    (together, D), (by_itself, expected) = results
    assert abs(together - by_itself) <= 1
    np.testing.assert_allclose(D, expected, atol=1e-8 * np.abs(expected).max())


def test_larger_blocks_where_there_are_too_many_pieces(alone, monkeypatch):
    kappa = np.where(walk((32, 32, 32), 0.12), 1.0, 1e-3)
    small = pieces_of(problem_of(alone, kappa)).total
    monkeypatch.setattr(pieces, "_MOST", small - 1)
    problem = problem_of(alone, kappa)
    assert 0 < pieces_of(problem).total < small
    problem.solve()
    monkeypatch.setattr(pieces, "_MOST", 1)
    problem = problem_of(alone, kappa)
    assert pieces_of(problem) is None
    problem.solve()


def test_only_where_conductors_are_scarce_and_parted(alone):
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(32, 32, 32)), 3, mode="wrap")
    for mask in (smooth > np.quantile(smooth, 0.8), walk((32, 32, 32), 0.5), np.ones((8, 8, 8), dtype=bool)):
        assert pieces_of(problem_of(alone, mask)) is None
        assert pieces_of(problem_of(alone, np.where(mask, 1.0, 1e-3))) is None
