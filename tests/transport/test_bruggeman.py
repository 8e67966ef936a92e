"""Bruggeman's exponent: exact laws, an independent regression, how often the interval holds the truth."""

import json

import numpy as np
import pytest
from scipy import stats

from fetopo.transport.bruggeman import fit_bruggeman
from fetopo.transport.tortuosity import tortuosity

POROSITY = np.array([0.2, 0.3, 0.4, 0.55, 0.7])


class TestLaw:
    @pytest.mark.parametrize("alpha", [1.0, 1.5, 2.3])
    @pytest.mark.parametrize("prefactor", ["bulk", None])
    def test_exact_data(self, alpha, prefactor):
        fit = fit_bruggeman(POROSITY, 4.0 * POROSITY**alpha, bulk=4.0, prefactor=prefactor)
        assert fit.exponent == pytest.approx(alpha, abs=1e-12)
        assert fit.prefactor == pytest.approx(4, abs=1e-10)
        assert fit.interval == pytest.approx((alpha, alpha), abs=1e-10)
        assert fit.scatter < 1e-12
        assert fit.tortuosity == pytest.approx(POROSITY ** (1 - alpha))
        assert fit.predict_tortuosity(POROSITY) == pytest.approx(POROSITY ** (1 - alpha))

    def test_straight_pores(self, alone):
        """Channels of different width, solved: α = 1 and τ = 1."""
        found = []
        for width in (1, 2, 3):
            mask = np.zeros((4, 5), dtype=bool)
            mask[:, :width] = True
            found.append(tortuosity(alone, mask, [0])[0])
        fit = fit_bruggeman([r.porosity for r in found], [r.relative_diffusivity for r in found])
        assert fit.exponent == pytest.approx(1, abs=1e-9)
        assert fit.tortuosity == pytest.approx(1, abs=1e-9)

    def test_prefactor_that_is_not_the_bulk(self):
        fit = fit_bruggeman(POROSITY, 0.7 * POROSITY**2, prefactor=0.7)
        assert fit.exponent == pytest.approx(2)
        assert fit.predict_tortuosity(0.4) == pytest.approx(0.4 / (0.7 * 0.4**2))


def noisy(seed, alpha=1.6, scatter=0.1, n=8, weights=None):
    rng = np.random.default_rng(seed)
    porosity = rng.uniform(0.2, 0.8, n)
    noise = rng.normal(0, scatter, n) / (1 if weights is None else np.sqrt(weights))
    return porosity, porosity**alpha * np.exp(noise)


class TestInterval:
    def test_against_an_independent_regression(self):
        porosity, conductivity = noisy(1)
        fit = fit_bruggeman(porosity, conductivity, prefactor=None, confidence=0.9)
        other = stats.linregress(np.log(porosity), np.log(conductivity))
        t = stats.t.ppf(0.95, 6)
        assert fit.exponent == pytest.approx(other.slope)
        assert fit.interval == pytest.approx((other.slope - t * other.stderr, other.slope + t * other.stderr))
        low, high = other.intercept - t * other.intercept_stderr, other.intercept + t * other.intercept_stderr
        assert fit.prefactor_interval == pytest.approx((np.exp(low), np.exp(high)))

    @pytest.mark.parametrize("prefactor", ["bulk", None])
    @pytest.mark.parametrize("confidence", [0.8, 0.95])
    def test_coverage(self, prefactor, confidence):
        """Of 2000 series the interval holds the true exponent as often as it says, to three deviations."""
        weights = np.array([1.0, 4, 2, 0.5, 1, 3, 1, 0.25])
        held = 0
        for seed in range(2000):
            fit = fit_bruggeman(
                *noisy(seed, weights=weights), weights=weights, prefactor=prefactor, confidence=confidence
            )
            held += fit.interval[0] <= 1.6 <= fit.interval[1]
        deviation = (2000 * confidence * (1 - confidence)) ** 0.5
        assert abs(held - 2000 * confidence) < 3 * deviation

    def test_repeated_observation_is_one_of_twice_the_weight(self):
        porosity, conductivity = noisy(2)
        twice = fit_bruggeman(np.append(porosity, porosity[0]), np.append(conductivity, conductivity[0]))
        weighted = fit_bruggeman(porosity, conductivity, weights=[2.0] + [1.0] * 7)
        assert twice.exponent == pytest.approx(weighted.exponent)
        assert twice.freedom == weighted.freedom + 1


def test_report():
    fit = fit_bruggeman(*noisy(3))
    values = json.loads(json.dumps(fit.to_dict()))
    assert values["exponent"] == fit.exponent
    assert values["interval"] == list(fit.interval)
    assert len(values["tortuosity"]) == len(values["tortuosity_of_fit"]) == 8
    assert values["prefactor_interval"] is None
    ax = fit.plot()
    assert len(ax.lines) == 3
    assert f"{fit.exponent:.3f}" in ax.lines[0].get_label()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([0.5, 1.2], [1, 1]), {}, r"porosity must lie in \(0, 1\], found 1.2 at place 1"),
        (([0.5, 0.4], [0.2, 0.0]), {}, "conductivity must be positive and finite, found 0.0 at place 1"),
        (([0.5, 0.4], [0.2]), {}, "one conductivity"),
        (([0.5, 0.4], [0.2, 0.1]), {"weights": [1, -1]}, "weights must be positive"),
        (([0.5, 0.4], [0.2, 0.1]), {"confidence": 1.0}, "confidence must lie between 0 and 1, found 1.0"),
        (([0.5, 0.4], [0.2, 0.1]), {"prefactor": None}, "at least 3 values are needed .* found 2"),
        (([0.5], [0.2]), {}, "at least 2 values"),
        (([0.5] * 3, [0.2] * 3), {"prefactor": None}, "at the same place"),
        (([1.0] * 3, [1.0] * 3), {}, "at the same place"),
        (([0.5, 0.4], [0.2, 0.1]), {"bulk": -1.0}, "bulk must be a positive number, found -1.0"),
        (([0.5, 0.4], [0.2, 0.1]), {"prefactor": "free"}, "found 'free'"),
    ],
)
def test_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        fit_bruggeman(*arguments, **options)
