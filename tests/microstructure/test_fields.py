"""Gaussian fields of a given spectrum, minimal surfaces, oriented particles: against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, special
from scipy.stats import multivariate_normal, norm

from fetopo.microstructure.descriptors import specific_surface, two_point_correlation
from fetopo.microstructure.generate import (
    ellipsoids,
    gaussian_field,
    minimal_surface,
    platelets,
)
from fetopo.microstructure.generate.fields import SPECTRA, spectral_noise
from fetopo.microstructure.generate.orientation import watson_directions

UNIT = {"voxel_size": 1.0}
SHAPES = [(24, 24), (30, 20), (20, 20, 20), (20, 24, 28)]


def seam(labels: np.ndarray) -> list[tuple[float, float]]:
    """Per axis, the share of voxels that change across the periodic border and, on average, elsewhere."""
    found = []
    for axis in range(labels.ndim):
        across = np.mean(labels.take(0, axis) != labels.take(-1, axis))
        found.append((float(across), float(np.mean(np.diff(labels.astype(int), axis=axis) != 0))))
    return found


def periodic_parts(mask: np.ndarray) -> int:
    """Number of clusters of a periodic image that hold more than a thousandth of it."""
    clusters, count = ndimage.label(mask)
    parent = np.arange(count + 1)

    def root(a):
        while parent[a] != a:
            a = parent[a]
        return a

    for axis in range(mask.ndim):
        first, last = clusters.take(0, axis), clusters.take(-1, axis)
        both = (first > 0) & (last > 0)
        for a, b in set(zip(first[both].tolist(), last[both].tolist(), strict=True)):
            parent[root(a)] = root(b)
    sizes = np.bincount([root(a) for a in range(count + 1)], np.bincount(clusters.ravel()), count + 1)
    sizes[0] = 0
    return int((sizes > 1e-3 * clusters.size).sum())


def joint(level: float, correlation: float) -> float:
    """P(X < t, Y < t) of two standard normal variables with a given correlation."""
    return float(multivariate_normal([0, 0], [[1, correlation], [correlation, 1]]).cdf([level, level]))


COVARIANCE = {
    ("gaussian", 2): lambda r: np.exp(-(r**2)),
    ("gaussian", 3): lambda r: np.exp(-(r**2)),
    # A shell of relative width 0.1: waves of all lengths near ℓ, averaged over the shell.
    ("spinodal", 2): lambda r: shell(lambda q: q * special.j0(q * r), lambda q: q),
    ("spinodal", 3): lambda r: shell(lambda q: q**2 * np.sinc(q * r / np.pi), lambda q: q**2),
}


def shell(wave, weight):
    q = 2 * np.pi * np.linspace(0.5, 1.5, 2001)
    s = np.exp(-0.5 * ((q / (2 * np.pi) - 1) / 0.1) ** 2)
    return np.sum(s * wave(q)) / np.sum(s * weight(q))


class TestGaussianFields:
    @pytest.mark.parametrize(
        ("spectrum", "shape", "length", "fraction"),
        [
            ("gaussian", (512, 512), 8.0, 0.5),
            ("gaussian", (96, 96, 96), 6.0, 0.3),
            ("spinodal", (512, 512), 16.0, 0.5),
            ("spinodal", (96, 96, 96), 12.0, 0.35),
        ],
    )
    def test_two_point_function_is_the_bivariate_normal_one(self, spectrum, shape, length, fraction):
        """S2(r) = P(X < t, Y < t) with the covariance at r; 1/4 + arcsin(ρ)/(2π) at a half.

        Mean over six seeds within 5 standard errors of it (t distribution: 99.6 %), plus 0.002 for cell and
        voxels.
        """
        found = []
        for seed in range(6):
            image = gaussian_field(
                shape,
                volume_fraction=fraction,
                correlation_length=length,
                spectrum=spectrum,
                seed=seed,
                **UNIT,
            )
            found.append(two_point_correlation(image.mask(1), 1.0, periodic=True))
        for r in np.arange(2.0, 1.5 * length, 2.0):
            at = int(np.argmin(np.abs(np.asarray(found[0].r) - r)))
            values = np.array([s2.value[at] for s2 in found])
            rho = float(COVARIANCE[spectrum, len(shape)](found[0].r[at] / length))
            expected = joint(norm.ppf(fraction), rho)
            if fraction == 0.5:
                assert expected == pytest.approx(0.25 + math.asin(rho) / (2 * math.pi), abs=1e-6)
            assert abs(values.mean() - expected) < 5 * values.std(ddof=1) / math.sqrt(6) + 0.002, r

    def test_power_law_has_an_exponential_covariance(self):
        """exp(−r/ℓ), but for the share 1/(πℓ/h) of the variance in waves that the voxels do not resolve."""
        length, r = 24.0, np.arange(6, 49, 6)
        values = []
        for seed in range(6):
            field = spectral_noise(
                np.random.default_rng(seed),
                (768, 768),
                (1.0, 1.0),
                lambda k: SPECTRA["power law"](k * length, 2),
            )
            values.append([np.mean(field * np.roll(field, n, axis=0)) for n in r])
        error = np.std(values, axis=0, ddof=1) / math.sqrt(6)
        expected = np.exp(-r / length)
        assert (np.abs(np.mean(values, axis=0) - expected) < 5 * error + 1.2 / (math.pi * length)).all()
        image = gaussian_field(
            (768, 768),
            volume_fraction=0.4,
            correlation_length=length,
            spectrum="power law",
            seed=0,
            **UNIT,
        )
        s2 = two_point_correlation(image.mask(1), 1.0, periodic=True)
        for n, rho in zip(r, values[0], strict=True):
            at = int(np.argmin(np.abs(np.asarray(s2.r) - n)))
            assert s2.value[at] == pytest.approx(joint(norm.ppf(0.4), rho), abs=0.012)

    def test_function_and_name_agree(self):
        options = {"volume_fraction": 0.4, "seed": 3, **UNIT}
        named = gaussian_field((64, 48), correlation_length=5.0, **options)
        own = gaussian_field((64, 48), spectrum=lambda k: 7.0 * np.exp(-((5.0 * k) ** 2) / 4), **options)
        assert np.mean(named.labels != own.labels) < 0.002
        law = gaussian_field((64, 48), correlation_length=5.0, spectrum="power law", **options)
        own = gaussian_field((64, 48), spectrum=lambda k: (1 + 25.0 * k**2) ** -1.5, **options)
        np.testing.assert_array_equal(law.labels, own.labels)

    def test_spinodal_is_bicontinuous(self):
        image = gaussian_field(
            (64,) * 3, volume_fraction=0.4, correlation_length=16.0, spectrum="spinodal", seed=1, **UNIT
        )
        assert periodic_parts(image.labels == 1) == periodic_parts(image.labels == 0) == 1

    @given(
        shape=st.sampled_from(SHAPES),
        fraction=st.floats(0.01, 0.99),
        spectrum=st.sampled_from(["gaussian", "power law", "spinodal"]),
        seed=st.integers(0, 1000),
    )
    @settings(max_examples=30, deadline=None)
    def test_fraction_seed_and_seam(self, shape, fraction, spectrum, seed):
        options = {"volume_fraction": fraction, "correlation_length": 4.0, "spectrum": spectrum, **UNIT}
        image = gaussian_field(shape, **options, seed=seed)
        assert abs(image.phases.get(1, 0.0) - fraction) * image.labels.size <= 0.5 + 1e-6
        np.testing.assert_array_equal(image.labels, gaussian_field(shape, **options, seed=seed).labels)
        assert (image.labels != gaussian_field(shape, **options, seed=seed + 1).labels).any()

    @pytest.mark.parametrize("spectrum", ["gaussian", "power law", "spinodal"])
    @pytest.mark.parametrize("shape", [(256, 192), (48, 40, 32)])
    def test_periodic(self, spectrum, shape):
        """As many changes across the border as inside, over ten seeds."""
        options = {"volume_fraction": 0.5, "correlation_length": 8.0, "spectrum": spectrum, **UNIT}
        found = np.mean([seam(gaussian_field(shape, **options, seed=s).labels) for s in range(10)], axis=0)
        np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=0.2)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"spectrum": "white"}, "spectrum is 'white': expected a function or one of gaussian, power law"),
            ({"correlation_length": None}, "correlation_length is nan m"),
            ({"spectrum": "spinodal", "correlation_length": 1.5}, r"expected waves of 2 \(two voxels\)"),
            ({"spectrum": lambda k: k}, "correlation_length is 4 m beside a function"),
            ({"spectrum": lambda k: -k, "correlation_length": None}, "spectrum holds -.*: expected finite"),
            ({"spectrum": lambda k: np.nan * k, "correlation_length": None}, "spectrum holds nan"),
            ({"spectrum": lambda k: 0.0 * k, "correlation_length": None}, "spectrum is 0 on all waves"),
        ],
    )
    def test_bad_values(self, options, message):
        options = {"volume_fraction": 0.3, "correlation_length": 4.0, "seed": 0, **UNIT} | options
        with pytest.raises(ValueError, match=message):
            gaussian_field((32, 32), **options)


KINDS = ["gyroid", "schwarz_p", "schwarz_d"]


class TestMinimalSurfaces:
    @given(
        kind=st.sampled_from(KINDS),
        part=st.sampled_from(["network", "sheet"]),
        shape=st.sampled_from([(20, 20, 20), (20, 24, 28)]),
        fraction=st.floats(0.01, 0.99),
    )
    @settings(max_examples=30, deadline=None)
    def test_fraction_is_met_to_one_voxel(self, kind, part, shape, fraction):
        image = minimal_surface(kind, shape, volume_fraction=fraction, part=part)
        assert abs(image.phases.get(1, 0.0) - fraction) * image.labels.size <= 0.5 + 1e-6

    @pytest.mark.parametrize("kind", KINDS)
    def test_both_sides_are_congruent(self, kind):
        """Inversion (gyroid) or a shift by half a diagonal (P, D) exchanges the two networks at a half."""
        labels = minimal_surface(kind, (42, 42, 42), volume_fraction=0.5).labels
        other = labels[::-1, ::-1, ::-1] if kind == "gyroid" else np.roll(labels, (21,) * 3, axis=(0, 1, 2))
        assert np.mean(other == labels) < 0.001
        # The body diagonal is a threefold axis of all three.
        assert np.mean(labels.transpose(1, 2, 0) != labels) < 0.006  # voxels on the surface itself

    def test_diamond_is_exchanged_by_inversion_at_an_eighth_of_the_diagonal(self):
        """x → π/2 − x turns cos cos cos − sin sin sin into its negative."""
        labels = minimal_surface("schwarz_d", (44,) * 3, volume_fraction=0.5).labels
        other = np.roll(labels[::-1, ::-1, ::-1], (11,) * 3, axis=(0, 1, 2))
        assert np.mean(other == labels) < 0.01

    @pytest.mark.parametrize(("kind", "fraction"), zip(KINDS, [0.2, 0.35, 0.3], strict=True))
    def test_phases_are_connected(self, kind, fraction):
        for f in (fraction, 0.5):
            network = minimal_surface(kind, (40, 40, 40), volume_fraction=f).labels
            assert periodic_parts(network == 1) == periodic_parts(network == 0) == 1
        sheet = minimal_surface(kind, (40, 40, 40), volume_fraction=0.3, part="sheet").labels
        assert periodic_parts(sheet == 1) == 1
        assert periodic_parts(sheet == 0) == 2

    @pytest.mark.parametrize(
        ("kind", "area"), [("gyroid", 3.0915), ("schwarz_p", 2.3451), ("schwarz_d", 3.8378)]
    )
    def test_thin_sheet_has_the_area_of_the_minimal_surface(self, kind, area):
        """Area per cubic cell: 3.0915 (gyroid), 2.3451 (P), 3.8378 (D, cell of both labyrinths).

        A wall of fraction f has two faces: their area by Crofton's formula, as the descriptors count it.
        """
        image = minimal_surface(kind, (96,) * 3, volume_fraction=0.5, voxel_size=1 / 96)
        assert specific_surface(image.mask(1), 1 / 96, periodic=True) == pytest.approx(area, rel=0.03)

    def test_periods(self):
        image = minimal_surface("gyroid", (40, 60, 20), volume_fraction=0.4, periods=(2, 3, 1))
        labels = image.labels
        assert np.mean(np.roll(labels, 20, axis=0) != labels) < 0.01
        assert np.mean(np.roll(labels, 20, axis=1) != labels) < 0.01
        assert np.mean(np.roll(labels, 10, axis=2) != labels) > 0.2

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"kind": "neovius"}, "kind is 'neovius': expected one of gyroid, schwarz_p, schwarz_d"),
            ({"part": "wall"}, "part is 'wall': expected network or sheet"),
            ({"shape": (20, 20)}, "expected 3 numbers of voxels"),
            ({"volume_fraction": 0.0}, "volume_fraction is 0.0"),
            ({"periods": 6}, "expected 4 voxels or more in a period"),
            ({"periods": 0}, "periods is 0"),
        ],
    )
    def test_bad_values(self, options, message):
        options = {"kind": "gyroid", "shape": (20, 20, 20), "volume_fraction": 0.3} | options
        with pytest.raises(ValueError, match=message):
            minimal_surface(options.pop("kind"), options.pop("shape"), **options)


def mean_chords(make, shape, seeds, **options):
    """Mean chord of the void along each axis per seed: voxels of the void over its beginnings (periodic).

    Unlike a list of chords this counts the lines that meet no particle.
    """
    rows = []
    for seed in seeds:
        void = make(shape, **options, seed=seed, **UNIT).mask(0)
        begins = [np.sum(void & ~np.roll(void, 1, axis)) for axis in range(void.ndim)]
        rows.append(np.sum(void) / np.array(begins))
    return np.array(rows)


class TestOrientedParticles:
    """Mean chord of a Boolean model's void along u: v/(−ln φ · A(u)), particle volume v, shadow A.

    Tolerance 6 % over the mean of the seeds: statistics (2 %), voxels, and the adjusted common size.
    """

    eta = -math.log(0.7)

    @pytest.mark.parametrize("axis", [0, 1])
    def test_aligned_ellipses(self, axis):
        """A = 2a along the axis, v = πac: chord πc/(2η), and πa/(2η) across."""
        found = mean_chords(
            ellipsoids,
            (512, 512),
            range(3),
            volume_fraction=0.3,
            radius=6.0,
            aspect_ratio=3.0,
            direction=np.eye(2)[axis],
        ).mean(axis=0)
        assert found[axis] == pytest.approx(math.pi * 18 / (2 * self.eta), rel=0.06)
        assert found[1 - axis] == pytest.approx(math.pi * 6 / (2 * self.eta), rel=0.06)

    def test_aligned_spheroids(self):
        """A = πa² along the axis, πac across, v = 4πa²c/3: chords 4c/(3η) and 4a/(3η)."""
        found = mean_chords(
            ellipsoids,
            (128,) * 3,
            range(2),
            volume_fraction=0.3,
            radius=12.0,
            aspect_ratio=0.4,
            direction=(0, 1, 0),
        ).mean(axis=0)
        np.testing.assert_allclose(found, 4 / 3 * np.array([12, 4.8, 12]) / self.eta, rtol=0.06)

    def test_aligned_platelets(self):
        """A = πR² along the normal, 2Rt across, v = πR²t: chords t/η and πR/(2η)."""
        found = mean_chords(
            platelets,
            (144,) * 3,
            range(2),
            volume_fraction=0.3,
            radius=14.0,
            thickness=6.0,
            direction=(0, 0, 2),
        ).mean(axis=0)
        expected = np.array([math.pi * 14 / 2, math.pi * 14 / 2, 6.0]) / self.eta
        np.testing.assert_allclose(found, expected, rtol=0.06)

    @pytest.mark.parametrize("concentration", [0.0, 4.0, -4.0])
    def test_spread_spheroids(self, concentration):
        """A(u) = π a √(a² cos² + c² sin²), averaged over the density exp(κ (n·d)²) by quadrature."""
        a, c, points = 11.0, 4.0, np.random.default_rng(0).standard_normal((200_000, 3))
        n = points / np.linalg.norm(points, axis=1)[:, None]
        weight = np.exp(concentration * n[:, 0] ** 2)
        shadow = [
            np.average(np.pi * a * np.sqrt(a**2 * n[:, k] ** 2 + c**2 * (1 - n[:, k] ** 2)), weights=weight)
            for k in range(3)
        ]
        expected = 4 / 3 * np.pi * a**2 * c / (self.eta * np.array(shadow))
        found = mean_chords(
            ellipsoids,
            (128,) * 3,
            range(2),
            volume_fraction=0.3,
            radius=a,
            aspect_ratio=c / a,
            direction=(1, 0, 0),
            concentration=concentration,
        ).mean(axis=0)
        np.testing.assert_allclose(found, expected, rtol=0.06)

    @pytest.mark.parametrize("dim", [2, 3])
    @pytest.mark.parametrize("concentration", [-math.inf, -30.0, -3.0, -0.5, 0.0, 0.7, 3.0, 30.0, math.inf])
    def test_directions_have_the_second_moment_of_the_density(self, dim, concentration):
        """E[(n·a)²] within 4 standard errors of the quadrature over the polar angle."""
        axis = np.array([0.6, 0.8, 0.0][:dim])
        n = watson_directions(np.random.default_rng(1), axis, concentration, 20_000)
        np.testing.assert_allclose(np.linalg.norm(n, axis=1), 1.0, rtol=1e-12)
        square = (n @ axis) ** 2
        if math.isinf(concentration):
            np.testing.assert_allclose(square, 1.0 if concentration > 0 else 0.0, atol=1e-12)
            return
        angle = np.linspace(0, np.pi, 20_001)
        weight = np.exp(concentration * (np.cos(angle) ** 2 - 1)) * np.sin(angle) ** (dim - 2)
        expected = np.average(np.cos(angle) ** 2, weights=weight)
        assert abs(square.mean() - expected) < 4 * square.std() / math.sqrt(20_000) + 1e-4

    @given(
        shape=st.sampled_from(SHAPES),
        fraction=st.floats(0.02, 0.95),
        concentration=st.sampled_from([-math.inf, -2.0, 0.0, 2.0, math.inf]),
        seed=st.integers(0, 1000),
    )
    @settings(max_examples=30, deadline=None)
    def test_fraction_is_met_to_one_voxel(self, shape, fraction, concentration, seed):
        options = {
            "volume_fraction": fraction,
            "radius": 3.0,
            "direction": (1,) * len(shape),
            "concentration": concentration,
            "seed": seed,
            **UNIT,
        }
        for image in (
            ellipsoids(shape, aspect_ratio=0.5, **options),
            platelets(shape, thickness=2.0, **options),
        ):
            assert abs(image.phases[1] - fraction) * image.labels.size <= 0.5 + 1e-6
        again = platelets(shape, thickness=2.0, **options)
        np.testing.assert_array_equal(image.labels, again.labels)

    @pytest.mark.parametrize("make", [ellipsoids, platelets])
    def test_periodic(self, make):
        """No seam, for tilted particles as well."""
        size = {"aspect_ratio": 0.3} if make is ellipsoids else {"thickness": 5.0}
        image = make(
            (96, 80, 64), volume_fraction=0.4, radius=9.0, direction=(1, 2, 3), seed=2, **size, **UNIT
        )
        for across, inside in seam(image.labels):
            assert across == pytest.approx(inside, rel=0.4)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"volume_fraction": 1.5}, "volume_fraction is 1.5"),
            ({"radius": 9.0}, "particle has half a width of 9 m: expected 0.5"),
            ({"aspect_ratio": 0.01}, "particle has half a width of 0.04 m"),
            ({"direction": (0, 0)}, r"direction is \(0, 0\): expected a vector of 2 numbers"),
            ({"direction": (0, 0, 1)}, r"direction is \(0, 0, 1\)"),
            ({"concentration": math.nan}, "concentration is nan"),
            ({"shape": (0, 3)}, "expected 2 or 3 positive whole numbers"),
        ],
    )
    def test_bad_values(self, options, message):
        options = {
            "shape": (32, 32),
            "volume_fraction": 0.3,
            "radius": 4.0,
            "aspect_ratio": 0.5,
            "direction": (1, 0),
            "seed": 0,
            **UNIT,
        } | options
        with pytest.raises(ValueError, match=message):
            ellipsoids(options.pop("shape"), **options)
