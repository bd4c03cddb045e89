from __future__ import annotations

import numpy as np
import pytest

from dynacor_ray.decision.expected_f1 import best_cut, shift_to_rate, wrong_probability


def test_the_cut_is_half_of_the_expected_f1() -> None:
    probability = np.array([0.9, 0.8, 0.6, 0.3, 0.1, 0.0])
    cut, expected = best_cut(probability)
    assert expected == pytest.approx(2 * 2.3 / (3 + 2.7))
    assert cut == 0.6
    below = probability[probability < cut]
    assert (below <= expected / 2).all(), "one more row would not help"


def test_it_is_the_best_of_all_cuts_when_labels_are_drawn() -> None:
    rng = np.random.default_rng(0)
    probability = rng.beta(0.3, 1.0, 400)
    wrong = rng.random((2000, 400)) < probability
    order = np.argsort(-probability)
    caught = np.cumsum(wrong[:, order], axis=1)
    f1 = (2 * caught / (np.arange(1, 401) + wrong.sum(axis=1, keepdims=True))).mean(axis=0)
    cut, expected = best_cut(probability)
    flagged = int((probability >= cut).sum())
    assert f1[flagged - 1] == pytest.approx(f1.max(), abs=2e-3)
    assert expected == pytest.approx(f1.max(), abs=5e-3)


def test_nothing_is_flagged_where_nothing_can_be_wrong() -> None:
    cut, expected = best_cut(np.zeros(5))
    assert cut > 1
    assert expected == 0


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_a_shift_brings_the_mean_to_a_rate_and_keeps_the_order(rate: float) -> None:
    log_odds = np.random.default_rng(0).normal(-3, 4, 1000)
    shift = shift_to_rate(log_odds, rate)
    assert wrong_probability(log_odds + shift).mean() == pytest.approx(rate, abs=1e-5)


def test_rates_at_the_ends() -> None:
    log_odds = np.array([-5.0, 5.0])
    assert wrong_probability(log_odds + shift_to_rate(log_odds, 0.0)).max() < 1e-12
    assert wrong_probability(log_odds + shift_to_rate(log_odds, 1.0)).min() > 1 - 1e-12
    assert shift_to_rate(np.full(3, -200.0), 0.5) == 60.0
