"""The counts that the compiled exchanges keep are those of a recount, and the energies follow from them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fetopo._compile import build, load
from fetopo.microstructure.descriptors import chord_lengths, lineal_path, two_point_map
from fetopo.microstructure.image import Image
from fetopo.microstructure.reconstruction import match_chord_lengths, match_lineal_path, match_two_point
from fetopo.microstructure.reconstruction._kernel import SOURCE, declarations, kernel
from fetopo.microstructure.reconstruction.grid import blocks_of, rows_of
from fetopo.microstructure.reconstruction.system import System, pair_counts, run_counts


def targets_of(fraction, shape, sides, lags):
    """S₂ of Debye's medium, and paths and chords of both phases that decay by 0.8 a voxel."""
    spread = fraction - fraction**2
    targets = [
        match_two_point(
            lambda r: fraction**2 + spread * np.exp(-r / 3.0),
            lags=lags,
            reach=min(n * h for n, h in zip(shape, sides, strict=True)) / 2,
        )
    ]
    for phase, share in ((1, fraction), (0, 1.0 - fraction)):
        targets += [
            match_lineal_path(lambda r, s=share: s * 0.8**r, phase=phase),
            match_chord_lengths(lambda r: 0.8**r, phase=phase),
        ]
    return targets


def system_of(mask, lags="all", sides=None, seed=1, anywhere=0.5):
    sides = sides or (1.0,) * mask.ndim
    fraction = float(mask.mean())
    targets = targets_of(fraction, mask.shape, sides, lags)
    rows = rows_of(targets, mask.shape, sides, fraction)
    return System(mask, rows, blocks_of(targets, mask.shape, sides, fraction), seed, anywhere)


def energy_of(mask, system):
    """The energy by its definition, from the public descriptors."""
    values = two_point_map(mask, 1.0, periodic=True)
    zero = [int(np.flatnonzero(lag == 0)[0]) for lag in values.lags]
    index = [(lag + z) % n for lag, z, n in zip(system.rows.lags.T, zero, mask.shape, strict=True)]
    mean = np.add.reduceat(values.value[tuple(index)], system.rows.first[:-1]) / np.diff(system.rows.first)
    total = system.rows.weight @ (mean - system.rows.target) ** 2
    for block in system.blocks:
        phase = mask if block.phase else ~mask
        n = mask.shape[block.axis]
        path = lineal_path(phase, 1.0, block.axis, periodic=True).value
        total += block.path_weight[:n] @ (path - block.path[:n]) ** 2
        count = chord_lengths(phase, 1.0, block.axis, periodic=True).count
        longer = np.array([count[k:].sum() for k in range(n)]) / mask.size
        total += block.chord_weight[:n] @ (longer - block.chord[:n]) ** 2
    return float(total)


masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, min_side=3, max_side=9)).filter(
    lambda mask: 0 < mask.sum() < mask.size
)


@given(masks, st.sampled_from(["all", "radial", "neighbours", "axes"]), st.integers(0, 2**63 - 1))
@settings(max_examples=80, deadline=None)
def test_counts_after_any_exchanges_are_those_of_a_recount(mask, lags, seed):
    """Small cells, where runs wind around and a voxel has several copies in the halo."""
    system = system_of(mask, lags, seed=seed)
    for exchanges in (1, 2, 50):
        before = system.mask
        taken, energy, *_ = system.run(exchanges, -1.0)
        assert taken == exchanges
        now = system.mask
        assert now.sum() == mask.sum()
        assert (now != before).sum() <= 2 * exchanges
        pairs, runs = system.counts
        np.testing.assert_array_equal(pairs, pair_counts(now, system.rows))
        expected = [run_counts(now if b.phase else ~now, b.axis) for b in system.blocks]
        np.testing.assert_array_equal(runs, np.concatenate(expected))
        assert energy == pytest.approx(energy_of(now, system), rel=1e-10, abs=1e-14)
        assert system.energy == pytest.approx(energy, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize(("shape", "sides"), [((40, 28), (1.0, 1.0)), ((12, 16, 14), (1.0, 1.5, 0.75))])
@pytest.mark.parametrize("temperature", [-1.0, 1e-3])
def test_ten_thousand_proposals(shape, sides, temperature):
    """Also with most proposals refused, which are undone."""
    system = system_of(np.random.default_rng(2).random(shape) < 0.4, sides=sides)
    taken, energy, lowest, rise, rises = system.run(10_000, temperature)
    assert taken == 10_000 if temperature < 0 else 100 < taken < 9_000
    now = system.mask
    pairs, runs = system.counts
    np.testing.assert_array_equal(pairs, pair_counts(now, system.rows))
    expected = [run_counts(now if b.phase else ~now, b.axis) for b in system.blocks]
    np.testing.assert_array_equal(runs, np.concatenate(expected))
    assert energy == pytest.approx(energy_of(now, system), rel=1e-9)
    assert lowest <= energy
    assert rise > 0
    assert 0 < rises <= 10_000


def test_metropolis_takes_the_share_that_the_temperature_says():
    """Two voxels of phase 1 on a ring: each of the states is visited as often as exp(−E/T) says."""
    mask = np.zeros((12, 12), dtype=bool)
    mask[0, :2] = True
    fraction = 2 / 144
    target = [
        match_two_point(lambda r: fraction**2 + (fraction - fraction**2) * np.exp(-r), lags="axes", reach=1.0)
    ]
    rows = rows_of(target, mask.shape, (1.0, 1.0), fraction)
    system = System(mask, rows, [], 3, 1.0)
    energies = []
    for _ in range(40_000):
        system.run(1, 0.5)
        energies.append(system.energy)
    # Neighbours along an axis: 4 of the 143 places of the second voxel; in all others S₂ is 0 at the lags.
    values, visits = np.unique(np.round(energies, 9), return_counts=True)
    apart = Image(mask).mask(1) & False
    apart[0, 0] = apart[5, 5] = True
    e_apart = energy_of(apart, system)
    close = np.isclose(values, e_apart, rtol=1e-6)
    e_close = float(values[~close][0])
    expected = 4 * math.exp(-e_close / 0.5) / (4 * math.exp(-e_close / 0.5) + 139 * math.exp(-e_apart / 0.5))
    assert visits[~close].sum() / visits.sum() == pytest.approx(expected, rel=0.15)


def test_runs_of_a_line_that_is_whole():
    mask = np.ones((4, 5), dtype=bool)
    mask[0, 0] = False
    np.testing.assert_array_equal(run_counts(mask, 1), [0, 0, 0, 0, 1, 3])
    np.testing.assert_array_equal(run_counts(mask, 0), [0, 0, 0, 1, 4])


def test_kernel_is_kept_and_can_be_built_elsewhere(tmp_path):
    assert kernel() is kernel()
    built = build("_fetopo_test", SOURCE, declarations(), tmp_path, ["-O1"])
    assert [path.name for path in tmp_path.iterdir()] == [built.name]
    assert hasattr(load("_fetopo_test", built).lib, "anneal")


def test_source_that_does_not_compile(tmp_path):
    broken = tmp_path / "broken.c"
    text = SOURCE.read_text(encoding="utf-8").replace("return taken;", "return given;")
    broken.write_text(text, encoding="utf-8")
    (tmp_path / "built").mkdir()
    with pytest.raises(RuntimeError, match=r"broken\.c cannot be compiled"):
        build("_fetopo_broken", broken, declarations(), tmp_path / "built", ["-O1"])
    assert not list((tmp_path / "built").iterdir())
