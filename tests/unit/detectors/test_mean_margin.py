from __future__ import annotations

import math

import numpy as np
import pytest

from dynacor_ray.core.errors import ConfigError
from dynacor_ray.decision.gaussian_mixture import Mixture, fit_mixture
from dynacor_ray.detectors.evidence import Evidence
from dynacor_ray.detectors.mean_margin import avg_encoder, mean_margin


def evidence(margins: np.ndarray) -> Evidence:
    return Evidence(given_label=np.zeros(len(margins), np.int32), num_classes=2, margins=margins)


def test_mean_margin_by_hand() -> None:
    verdict = mean_margin(evidence(np.array([[1.0, 3.0], [-4.0, 1.0], [2.0, -2.0]])))
    assert verdict.score.tolist() == [2.0, -1.5, 0.0]
    assert verdict.is_label_issue.tolist() == [False, True, False]


def test_half_precision_margins_are_averaged_in_double() -> None:
    margins = np.full((1, 30), 2049, np.float32).astype(np.float16)
    margins[0, 0] = 1.0
    expected = (29 * float(margins[0, 1]) + 1) / 30
    score = mean_margin(evidence(margins)).score
    assert score.dtype == np.float64
    assert float(score[0]) == pytest.approx(expected, abs=1e-9)


def test_a_mixture_is_recovered() -> None:
    generator = np.random.default_rng(0)
    upper = generator.random(20_000) < 0.7
    values = np.where(upper, generator.normal(5, 1, 20_000), generator.normal(-2, 2, 20_000))
    fitted = fit_mixture(values)
    assert fitted is not None
    assert fitted.weights == pytest.approx([0.3, 0.7], abs=0.02)
    assert fitted.means == pytest.approx([-2, 5], abs=0.1)
    assert fitted.variances == pytest.approx([4, 1], abs=0.2)


def test_log_odds_by_hand() -> None:
    fitted = Mixture(np.array([0.25, 0.75]), np.array([-1.0, 2.0]), np.array([1.0, 4.0]))

    def density(value: float, weight: float, mean: float, variance: float) -> float:
        return weight * math.exp(-((value - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    for value in (-6.0, -1.0, 0.3, 5.0):
        odds = density(value, 0.75, 2.0, 4.0) / density(value, 0.25, -1.0, 1.0)
        assert fitted.log_odds(np.array([value])) == pytest.approx([math.log(odds)])


def test_avg_encoder_separates_two_clusters_of_any_unit() -> None:
    generator = np.random.default_rng(1)
    wrong = generator.random(2000) < 0.3
    margins = np.where(wrong[:, None], -1.0, 1.0) + generator.normal(0, 0.5, (2000, 10))
    for unit in (1e-4, 1.0, 1e4):
        verdict = avg_encoder(evidence(margins * unit))
        assert (verdict.is_label_issue == wrong).all()
        assert verdict.score == pytest.approx(margins.mean(axis=1) * unit)


def test_avg_encoder_is_the_mixture_of_sklearn() -> None:
    from sklearn.mixture import GaussianMixture

    values = np.sort(np.random.default_rng(2).gamma(2.0, 1.0, 500))
    reference = GaussianMixture(2, random_state=0, max_iter=1000).fit(values[:, None])
    expected = reference.predict(values[:, None]) == reference.means_[:, 0].argmin()
    assert (avg_encoder(evidence(values[:, None])).is_label_issue == expected).all()


def test_a_wide_lower_component_also_claims_the_largest_margins() -> None:
    fitted = Mixture(np.array([0.5, 0.5]), np.array([-1.0, 1.0]), np.array([9.0, 0.25]))
    assert (fitted.log_odds(np.array([-3.0, 1.0, 9.0])) < 0).tolist() == [True, False, True]


@pytest.mark.parametrize("margins", [np.full((5, 3), 2.0), np.full((1, 3), -1.0), np.zeros((0, 3))])
def test_equal_margins_have_no_lower_component(margins: np.ndarray) -> None:
    verdict = avg_encoder(evidence(margins))
    assert verdict.is_label_issue.tolist() == [False] * len(margins)


def test_two_values_are_told_apart() -> None:
    assert avg_encoder(evidence(np.array([[1.0], [1.0], [-1.0]]))).is_label_issue.tolist() == [False, False, True]


def test_missing_margins_are_named() -> None:
    with pytest.raises(ConfigError, match="evidence with margins"):
        mean_margin(Evidence(given_label=np.zeros(3, np.int32), num_classes=2))
