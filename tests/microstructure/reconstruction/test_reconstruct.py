"""Reconstructions: what they reach, when they end, that they repeat, and what they refuse."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetopo.microstructure import generate
from fetopo.microstructure.descriptors import (
    chord_lengths,
    lineal_path,
    mean_lineal_path,
    two_point_along,
    two_point_correlation,
    two_point_map,
)
from fetopo.microstructure.image import Image, read
from fetopo.microstructure.reconstruction import (
    Annealing,
    match_chord_lengths,
    match_lineal_path,
    match_two_point,
    reconstruct,
    targets_from,
)

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
H = 1e-6


def debye(length, fraction=0.5):
    """Debye's random medium."""
    return lambda r: fraction**2 + (fraction - fraction**2) * np.exp(-r / length)


def overlapping_discs(fraction, radius):
    """S₂ of the discs (not the void) by Torquato's closed form."""
    density = -math.log(1.0 - fraction) / (math.pi * radius**2)

    def s2(r):
        x = np.minimum(r / (2 * radius), 1.0)
        union = radius**2 * (2 * math.pi - 2 * np.arccos(x) + 2 * x * np.sqrt(1 - x**2))
        return 1 - 2 * (1 - fraction) + np.exp(-density * union)

    return s2


def discs(n=64, seed=3, radius=5):
    return generate.overlapping_spheres(
        (n, n), volume_fraction=0.5, radius=min(radius, n // 4) * H, seed=seed
    )


def deviation(found, wanted, reach):
    """Root mean square of S₂ − S₂* over every lag vector up to a length; `wanted` a function or an image."""
    here = two_point_map(found.mask(1), H, periodic=True)
    length = np.sqrt(sum(np.meshgrid(*(lag**2 for lag in here.lags), indexing="ij")))
    near = (length > 0) & (length <= reach)
    there = wanted(length) if callable(wanted) else two_point_map(wanted.mask(1), H, periodic=True).value
    return float(np.sqrt(np.mean((here.value - there)[near] ** 2)))


class TestEnergyReached:
    """Energy 1e-4 is a deviation of 1 % of the variation φ − φ² of S₂, in root mean square."""

    @pytest.mark.parametrize("start", ["informed", "random"])
    @pytest.mark.parametrize(
        ("function", "fraction"),
        [(debye(4 * H), 0.5), (debye(3 * H, 0.3), 0.3), (overlapping_discs(0.4, 5 * H), 0.4)],
        ids=["Debye", "Debye 0.3", "discs"],
    )
    def test_formula(self, function, fraction, start):
        found = reconstruct(
            (64, 64), [match_two_point(function)], volume_fraction=fraction, seed=1, start=start
        )
        assert (found.ended, found.converged) == ("tolerance", True)
        assert 0 < found.energy <= 1e-4
        assert deviation(found.image, function, 16 * H) < 0.01 * (fraction - fraction**2)
        assert found.image.labels.sum() == round(fraction * 64**2)

    def test_checkerboard(self):
        """S₂ of squares is anything but isotropic; the medium that has it is found from noise."""
        board = generate.checkerboard((48, 48), tile=6)
        found = reconstruct(
            (48, 48),
            targets_from(board, 1, periodic=True, reach=24 * H),
            seed=1,
            start="random",
            options=Annealing(tolerance=1e-3, cooling=0.9),
        )
        assert found.converged
        assert deviation(found.image, board, 24 * H) < 0.04 * 0.25

    def test_three_dimensions(self):
        found = reconstruct(
            (24, 28, 32),
            [match_two_point(debye(2.5 * H, 0.3), maximal_lags=400)],
            volume_fraction=0.3,
            seed=1,
        )
        assert found.converged
        assert deviation(found.image, debye(2.5 * H, 0.3), 6 * H) < 0.01 * 0.21
        assert found.image.labels.sum() == round(0.3 * 24 * 28 * 32)

    def test_lineal_path_and_chords_come_closer_when_asked_for(self):
        """S₂ alone leaves L of the discs open; asked for, both are met at once, and the clusters grow."""
        image = discs(96)
        mask = image.mask(1)
        path = mean_lineal_path(mask, H, periodic=True).value
        errors = {}
        for name, weights in (("S2", {}), ("L", {"lineal_path": 1.0}), ("chords", {"chord_lengths": 1.0})):
            found = reconstruct(image.shape, targets_from(image, 1, periodic=True, **weights), seed=2)
            assert found.converged
            here = mean_lineal_path(found.image.mask(1), H, periodic=True).value
            errors[name] = float(np.abs(here - path).max())
            assert deviation(found.image, image, 24 * H) < 0.012 * 0.25
        assert errors["L"] < 0.004
        assert errors["chords"] < 0.006
        assert errors["S2"] > 5 * errors["L"]

    def test_chords_and_paths_from_formulas(self):
        """Exponential chords of mean 5 voxels in phase 1, 12 in phase 0, along both axes."""
        fraction, mean = 5 / 17, 5.0
        q = 1 - 1 / mean
        targets = [
            match_chord_lengths(lambda r: q ** (r / H)),
            match_lineal_path(lambda r: (1 - fraction) * (1 - 1 / 12) ** (r / H), phase=0),
        ]
        found = reconstruct((96, 96), targets, volume_fraction=fraction, seed=1)
        assert found.converged
        for axis in (0, 1):
            chords = chord_lengths(found.image.mask(1), H, axis, periodic=True)
            assert chords.mean == pytest.approx(mean * H, rel=0.02)
            path = lineal_path(found.image.mask(0), H, axis, periodic=True).value
            assert path[12] == pytest.approx((1 - fraction) * (11 / 12) ** 12, abs=0.01)

    def test_each_axis_has_its_own(self):
        short, long = debye(2 * H), debye(8 * H)
        found = reconstruct((64, 64), [match_two_point({0: short, 1: long})], volume_fraction=0.5, seed=1)
        assert found.converged
        for axis, function in ((0, short), (1, long)):
            s2 = two_point_along(found.image.mask(1), H, axis, periodic=True)
            np.testing.assert_allclose(s2.value[1:17], function(s2.r[1:17]), rtol=0, atol=0.01)

    def test_anisotropic_image(self):
        image = generate.ellipsoids(
            (64, 64), volume_fraction=0.4, radius=3 * H, aspect_ratio=4.0, direction=(1, 1), seed=1
        )
        found = reconstruct((64, 64), targets_from(image, 1, periodic=True), seed=1)
        assert found.converged
        assert deviation(found.image, image, 16 * H) < 0.012 * 0.24

    def test_directions_left_free_go_astray(self):
        """Axes alone, or averages over shells: the target is isotropic, what comes out is not."""
        function, errors = debye(4 * H), {}
        for lags in ("all", "radial", "axes"):
            found = reconstruct(
                (64, 64), [match_two_point(function, lags=lags)], volume_fraction=0.5, seed=1, start="random"
            )
            assert found.converged
            errors[lags] = deviation(found.image, function, 16 * H)
        assert min(errors["radial"], errors["axes"]) > 3 * errors["all"]

    def test_radial_table_and_other_voxels(self):
        """Targets measured on one grid serve another: half the voxel, another shape."""
        image = discs(128)
        table = two_point_correlation(image.mask(1), H, periodic=True)
        found = reconstruct((96, 80), [match_two_point(table, reach=12 * H)], voxel_size=0.5 * H, seed=1)
        assert found.converged
        again = two_point_correlation(found.image.mask(1), 0.5 * H, periodic=True)
        np.testing.assert_allclose(
            again.value[:20], np.interp(again.r[:20], table.r, table.value), rtol=0, atol=0.012
        )

    @pytest.mark.parametrize("name", ["nmc_electrode.tif", "bentheimer_sandstone.npz"])
    def test_real_image(self, name):
        """A section of 100 voxels: a periodic cell of 96 with its S₂ and lineal path.

        In a cell of 64 the pores of the sandstone have no room: 3e-3 is the best found there.
        """
        if not (DATA / name).is_file():
            pytest.skip(f"real image {name} is not in ../shared/data")
        image = read(DATA / name, crop=100)
        phase = 0 if name.startswith("nmc") else 1
        section = Image((image.labels[50] == phase).astype(int), H)
        targets = targets_from(section, 1, lineal_path=1.0)
        found = reconstruct((96, 96), targets, seed=1, options=Annealing(tolerance=1e-3))
        assert found.converged
        assert abs(int(found.image.labels.sum()) - section.phases[1] * 96**2) <= 0.5 + 1e-9
        for axis in (0, 1):
            wanted = lineal_path(section.mask(1), H, axis).value[:33]
            here = lineal_path(found.image.mask(1), H, axis, periodic=True).value[:33]
            assert np.abs(here - wanted).max() < 0.06 * section.phases[1]


class TestEnd:
    @pytest.mark.parametrize(
        ("options", "ended"),
        [
            ({"maximal_sweeps": 3}, "sweeps"),
            ({"tolerance": 1e-12, "frozen": 0.02}, "frozen"),
            ({"tolerance": 1e-12, "frozen": 0.0}, "stalled"),
        ],
    )
    def test_criterion_is_named(self, options, ended):
        found = reconstruct(
            (32, 32), targets_from(discs(32), 1, periodic=True), seed=1, options=Annealing(**options)
        )
        assert (found.ended, found.converged) == (ended, False)

    def test_start_that_is_the_answer(self):
        image = discs(32)
        found = reconstruct((32, 32), targets_from(image, 1, periodic=True), seed=1, start=image)
        assert (found.ended, found.energy, list(found.history)) == (
            "tolerance",
            pytest.approx(0, abs=1e-20),
            [],
        )
        np.testing.assert_array_equal(found.image.labels, image.labels)

    def test_progress(self, caplog):
        seen = []
        with caplog.at_level("INFO", logger="fetopo.microstructure.reconstruction"):
            found = reconstruct(
                (32, 32), [match_two_point(debye(3 * H))], volume_fraction=0.5, seed=1, callback=seen.append
            )
        assert seen == list(found.history)
        assert len(seen) == len(caplog.records) > 3
        assert all(b.sweep > a.sweep and b.temperature < a.temperature for a, b in itertools.pairwise(seen))
        assert seen[-1].energy == pytest.approx(found.energy, rel=1e-9)
        assert found.energy < 0.1 * seen[0].energy

    def test_result_converts_and_draws(self, tmp_path):
        targets = targets_from(discs(32), 1, lineal_path=1.0, chord_lengths=0.5, periodic=True)
        found = reconstruct((32, 32), targets, seed=1)
        plain = found.to_dict()
        assert plain == json.loads(json.dumps(plain, allow_nan=False))
        assert plain["ended"] == found.ended
        assert plain["reached"][0]["name"] == "S₂"
        assert len(plain["reached"]) == 5
        total = two_point_map(found.image.mask(1), H, periodic=True)
        lag = found.reached[0]
        assert lag.value[0] == pytest.approx(total.along(0).value[1], abs=0.05)
        path = next(c for c in found.reached if c.name == "lineal path, phase 1 along axis 1")
        exact = lineal_path(found.image.mask(1), H, 1, periodic=True)
        np.testing.assert_allclose(path.value, exact.value[1:17], rtol=0, atol=1e-15)
        chords = next(c for c in found.reached if c.name.startswith("chords longer"))
        count = chord_lengths(found.image.mask(1), H, 0, periodic=True).count
        assert chords.value[0] * 32**2 == pytest.approx(count.sum())
        found.plot().savefig(tmp_path / "found.png")
        assert (tmp_path / "found.png").stat().st_size > 5000


class TestSeed:
    @pytest.mark.parametrize("start", ["informed", "random"])
    def test_same_seed_same_image(self, start):
        targets = targets_from(discs(32), 1, lineal_path=1.0, periodic=True)
        first, second, other = (
            reconstruct((32, 32), targets, seed=seed, start=start).image.labels for seed in (5, 5, 6)
        )
        np.testing.assert_array_equal(first, second)
        assert (first != other).any()

    @given(fraction=st.floats(0.05, 0.95), seed=st.integers(0, 1000), length=st.floats(1.0, 4.0))
    @settings(max_examples=15, deadline=None)
    def test_fraction_is_met_to_one_voxel(self, fraction, seed, length):
        found = reconstruct(
            (20, 24),
            [match_two_point(debye(length * H, fraction))],
            volume_fraction=fraction,
            seed=seed,
            options=Annealing(maximal_sweeps=3),
        )
        assert abs(int(found.image.labels.sum()) - fraction * 480) <= 0.5 + 1e-9


class TestBadInput:
    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (
                lambda: match_two_point(debye(3 * H, 0.4)),
                r"S₂\(0\) is 0.4: expected the volume fraction, 0.5",
            ),
            (lambda: match_two_point(lambda r: np.where(r > 4 * H, np.nan, 0.5)), "S₂ is nan at"),
            (lambda: match_two_point(lambda r: r[:0]), r"S₂ returns an array of shape \(0,\)"),
            (lambda: match_two_point(lambda r: 0.5 + r / H), "expected 0 to 0.5"),
            (lambda: match_two_point(lambda r: 0.5 - r / (2 * H)), "S₂ is -0.5 at 2e-06 m|S₂ is -0.2"),
            # A Gaussian is smooth at the origin: no surface, yet two phases.
            (lambda: match_two_point(lambda r: 0.25 + 0.25 * np.exp(-((r / (6 * H)) ** 2))), "no medium has"),
            (lambda: match_two_point(debye(3 * H), reach=17 * H), "reach is 1.7e-05 m"),
            (lambda: match_two_point(debye(3 * H), reach=0.5 * H), "reach is 5e-07 m"),
            (lambda: match_two_point({2: debye(3 * H)}), "S₂ is given for axis 2: expected 0 to 1|not known"),
            (lambda: match_lineal_path(lambda r: 0.4 * 0.8 ** (r / H)), r"L\(0\) is 0.4"),
            (lambda: match_lineal_path(lambda r: 0.5 + 0 * r + r), "L grows"),
            (lambda: match_lineal_path(lambda r: 0.5 - 1e3 * r**0.5), "L is -0.5 at"),
            (lambda: match_lineal_path(lambda r: 0.5 * np.cos(r / (20 * H))), "L is not convex"),
            (
                lambda: match_lineal_path({2: lambda r: 0.5 * 0.8 ** (r / H)}),
                "given for axis 2: expected 0 to 1",
            ),
            (lambda: match_chord_lengths(lambda r: 3 - r / H), "density of chord lengths is -1 at 4e-06 m"),
            (lambda: match_chord_lengths(lambda r: 0 * r), "0 everywhere"),
            (lambda: match_chord_lengths(chord_lengths(discs().mask(1), 2 * H, 0)), "multiples of 2e-06 m"),
        ],
    )
    def test_targets_that_no_medium_has(self, target, message):
        with pytest.raises(ValueError, match=message):
            reconstruct((32, 32), [target()], volume_fraction=0.5, seed=1)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: match_two_point(debye(H), lags="diagonals"), "lags is 'diagonals': expected one of all"),
            (lambda: match_two_point(debye(H), weight=0.0), "weight is 0.0"),
            (lambda: match_two_point(debye(H), weight=math.nan), "weight is nan"),
            (lambda: match_two_point(debye(H), reach=-1.0), "reach is -1.0"),
            (lambda: match_two_point(debye(H), maximal_lags=0), "maximal_lags is 0"),
            (lambda: match_two_point({}), r"axes are \[\]"),
            (lambda: match_two_point({-1: debye(H)}), r"axes are \[-1\]"),
            (lambda: match_lineal_path(debye(H), phase=2), "phase is 2: expected 0 or 1"),
            (lambda: targets_from(discs(16), 1, two_point=0.0), "expected a weight above 0"),
            (lambda: targets_from(discs(16), 7), "phase 7: expected labels"),
            (lambda: Annealing(tolerance=0.0), "tolerance is 0.0"),
            (lambda: Annealing(cooling=1.0), "cooling is 1.0"),
            (lambda: Annealing(anywhere=1.5), "anywhere is 1.5"),
        ],
    )
    def test_arguments(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"targets": []}, "targets is empty"),
            ({"volume_fraction": None}, "volume_fraction is None: expected a number where"),
            ({"volume_fraction": 1.0}, "volume_fraction is 1.0"),
            ({"volume_fraction": 1e-5}, "a voxel of each phase"),
            ({"shape": (32,)}, "expected 2 or 3 positive whole numbers"),
            ({"voxel_size": -1.0}, "voxel_size is -1.0"),
            ({"start": "best"}, "start is 'best'"),
            ({"start": discs(16)}, r"start has shape \(16, 16\)"),
            ({"start": Image(np.eye(32, dtype=int))}, "start has 32 voxels of phase 1: expected 512"),
        ],
    )
    def test_call(self, options, message):
        arguments = {
            "shape": (32, 32),
            "targets": [match_two_point(debye(3 * H))],
            "volume_fraction": 0.5,
            "seed": 1,
        } | options
        with pytest.raises(ValueError, match=message):
            reconstruct(arguments.pop("shape"), arguments.pop("targets"), **arguments)

    def test_two_targets_for_one_thing(self):
        path = match_lineal_path(lambda r: 0.5 * 0.8 ** (r / H))
        with pytest.raises(ValueError, match="two targets for the lineal path of phase 1 along axis 0"):
            reconstruct((32, 32), [path, path], volume_fraction=0.5, seed=1)

    def test_fractions_that_differ(self):
        with pytest.raises(ValueError, match=r"S₂\(0\) is 0.5: expected the volume fraction, 0.4"):
            reconstruct((32, 32), targets_from(discs(), 1), volume_fraction=0.4, seed=1)

    def test_map_of_another_dimension(self):
        with pytest.raises(ValueError, match="the map of S₂ has 2 axes: expected 3"):
            reconstruct((16, 16, 16), targets_from(discs(), 1), seed=1)
