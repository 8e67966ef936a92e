"""Finite volumes and elements on voxels against matrices assembled plainly, for every mix of sides."""

import itertools

import numpy as np
import pytest

from fetopo.transport.voxel import State, VoxelGrid

pytestmark = pytest.mark.mpi


def sides_of(grid):
    return np.array(grid.voxel_size) / max(grid.voxel_size)


def volumes_plainly(kappa, h, periodic, fixed, values, source):
    """Potentials by a dense matrix of two-point fluxes, kappa of shape (d, …)."""
    shape, d = kappa.shape[1:], kappa.shape[0]
    index = np.arange(np.prod(shape)).reshape(shape)
    A, b = np.zeros((index.size,) * 2), source.reshape(-1).astype(float).copy()
    for a in range(d):
        weight = np.prod(h) / h[a] ** 2
        for at in itertools.product(*map(range, shape)):
            one, k = index[at], kappa[a][at]
            for step in (-1, 1):
                to = list(at)
                to[a] += step
                inside = 0 <= to[a] < shape[a]
                if not inside and not periodic[a]:
                    if fixed[a][step > 0]:
                        A[one, one] += 2 * k * weight
                        b[one] += 2 * k * weight * values.get((a, int(step > 0)), 0.0)
                    continue
                to[a] %= shape[a]
                other, m = index[tuple(to)], kappa[a][tuple(to)]
                t = 2 * k * m / (k + m) * weight if k > 0 and m > 0 else 0.0
                A[one, one] += t
                A[one, other] -= t
    free = np.diag(A) > 0
    u = np.zeros(index.size)
    u[free] = np.linalg.lstsq(A[np.ix_(free, free)], b[free], rcond=None)[0]
    return u.reshape(shape), free.reshape(shape)


CASES = [
    ((5, 4), (1.0, 1.0), (False, False), [(True, False), (False, False)]),
    ((6, 5), (1.0, 0.3), (False, True), [(True, True), (False, False)]),
    ((1, 6), (1.0, 1.0), (False, False), [(True, True), (False, True)]),
    ((4, 5, 6), (1.0, 1.0, 1.0), (False, True, False), [(True, True), (False, False), (False, False)]),
    ((8, 5, 6), (1.0, 2.0, 0.5), (False, False, True), [(False, True), (True, False), (False, False)]),
    ((9, 8, 7), (2.0, 1.0, 1.0), (True, True, False), [(False, False), (False, False), (True, True)]),
]


@pytest.mark.parametrize(("shape", "size", "periodic", "fixed"), CASES)
@pytest.mark.parametrize("kind", ["mask", "labels", "numbers", "tensor"])
def test_finite_volumes_in_any_mix_of_sides(comm, shape, size, periodic, fixed, kind):
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2 if kind == "mask" else 4, shape)
    labels[rng.random(shape) < 0.5] = 1
    table = np.array([0.0, 1.0, 7.3, 0.02])
    d = len(shape)
    kappa = np.stack([table[labels]] * d)
    if kind == "tensor":
        kappa = kappa * rng.uniform(0.5, 2, kappa.shape)
    values = {(a, s): float(rng.normal()) for a in range(d) for s in (0, 1)}
    grid = VoxelGrid(comm, shape, size, periodic)
    state = State(grid, fixed=fixed, values=values, double=True)
    own = {
        "mask": lambda: (grid.take(labels == 1),),
        "labels": lambda: (grid.take(labels.astype(np.uint8)), table),
        "numbers": lambda: (grid.take(kappa[0]),),
        "tensor": lambda: (np.stack([grid.take(part) for part in kappa]),),
    }[kind]()
    if kind == "mask":
        kappa = np.stack([(labels == 1).astype(float)] * d)
    source = np.where(kappa[0] > 0, rng.normal(size=shape), 0.0)
    expected, free = volumes_plainly(kappa, sides_of(grid), periodic, fixed, values, source)
    # Regions that touch no fixed face have no solution with a source: none there.
    reached = np.zeros(shape, dtype=bool)
    reached[free] = True
    loose, _ = volumes_plainly(kappa, sides_of(grid), periodic, fixed, dict.fromkeys(values, 1.0), 0 * source)
    reached &= loose > 1e-6
    source[~reached] = 0.0
    expected, _ = volumes_plainly(kappa, sides_of(grid), periodic, fixed, values, source)
    state.assign(*own)
    inner = (0, *(slice(1, -1),) * 3)
    state.source = state.operator.blocks.padded(1, np.float64)
    state.source[inner] = grid.take(source).reshape(state.operator.blocks.own_shape)
    state.solve(1e-12)
    found = grid.gather(state.u[inner].reshape(grid.own_shape))
    assert np.abs(found - expected)[reached].max(initial=0.0) < 1e-8 * max(1.0, np.abs(expected).max())


def element_matrix(kappa, h):
    """Element matrix of one voxel by quadrature, nodes in C order; kappa one number per axis."""
    d, g = len(h), np.array([-1, 1]) / np.sqrt(3) / 2 + 0.5
    K = np.zeros((2**d,) * 2)
    nodes = list(itertools.product((0, 1), repeat=d))
    for point in itertools.product(g, repeat=d):
        gradient = np.array(
            [
                [
                    (1 if n[a] else -1)
                    / h[a]
                    * np.prod([point[b] if n[b] else 1 - point[b] for b in range(d) if b != a])
                    for a in range(d)
                ]
                for n in nodes
            ]
        )
        K += gradient @ np.diag(kappa) @ gradient.T * np.prod(h) / len(g) ** d
    return K


@pytest.mark.parametrize(("shape", "size", "periodic", "fixed"), CASES)
@pytest.mark.parametrize("kind", ["mask", "labels", "numbers", "tensor"])
def test_elements_in_any_mix_of_sides(comm, shape, size, periodic, fixed, kind):
    """Energies of what is solved for against the least energy that an assembled matrix gives."""
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 2 if kind == "mask" else 4, shape)
    labels[rng.random(shape) < 0.5] = 1
    table = np.array([0.0, 1.0, 7.3, 0.02])
    d = len(shape)
    kappa = np.stack([(labels == 1).astype(float) if kind == "mask" else table[labels]] * d)
    if kind == "tensor":
        kappa = kappa * rng.uniform(0.5, 2, kappa.shape)
    values = {(a, s): float(rng.normal()) for a in range(d) for s in (0, 1)}
    if sum(any(ends) for ends in fixed) > 1:
        values = dict.fromkeys(values, 0.7)  # nodes on an edge between two faces have one value
    grid = VoxelGrid(comm, shape, size, periodic)
    h = sides_of(grid)
    nodes = [n if wraps else n + 1 for n, wraps in zip(shape, periodic, strict=True)]
    index = np.arange(np.prod(nodes)).reshape(nodes)
    A = np.zeros((index.size,) * 2)
    for at in itertools.product(*map(range, shape)):
        corners = [
            index[tuple((i + s) % n for i, s, n in zip(at, step, nodes, strict=True))]
            for step in itertools.product((0, 1), repeat=d)
        ]
        A[np.ix_(corners, corners)] += element_matrix([part[at] for part in kappa], h)
    known = np.full(nodes, np.nan)
    for a, ends in enumerate(fixed):
        for side, is_fixed in enumerate(ends):
            if is_fixed:
                known[tuple(slice(None) if b != a else -side for b in range(d))] = values[a, side]
    known, free = known.reshape(-1), np.isnan(known.reshape(-1)) & (np.diag(A) > 0)
    given = np.nan_to_num(known)
    u = given.copy()
    u[free] = np.linalg.lstsq(A[np.ix_(free, free)], -A[free] @ given, rcond=None)[0]
    expected = u @ A @ u

    state = State(grid, "elements", fixed=fixed, values=values)
    own = {
        "mask": lambda: (grid.take(labels == 1),),
        "labels": lambda: (grid.take(labels.astype(np.uint8)), table),
        "numbers": lambda: (grid.take(kappa[0]),),
        "tensor": lambda: (np.stack([grid.take(part) for part in kappa]),),
    }[kind]()
    state.assign(*own)
    state.solve(1e-11)
    assert state.energy()[0, 0] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_wrong_input(comm):
    grid = VoxelGrid(comm, (6, 6), periodic=(True, False))
    with pytest.raises(ValueError, match="scheme is 'spectral'"):
        State(grid, "spectral")
    with pytest.raises(ValueError, match="periodic axis"):
        State(grid, fixed=[(True, False), (False, False)])
    with pytest.raises(ValueError, match="conductivities have shape"):
        State(grid).assign(np.ones((2, 3, 4)))
