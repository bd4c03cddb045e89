from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dynacor_ray.decision.label_noise_model import ClassPairs, LabelNoiseModel
from dynacor_ray.decision.model_readings import ModelReadings
from dynacor_ray.decision.noise_decision import NoiseDecision
from dynacor_ray.decision.noise_decision import decide as decide_with
from dynacor_ray.decision.noise_rate import NoiseRate


def fitted(num_classes: int = 10, evidence: float = 100.0, error: float = 0.2) -> LabelNoiseModel:
    """A model of which only these three are read."""
    alike = np.ones(num_classes)
    pairs = ClassPairs(np.empty(0, np.int64), np.empty(0), alike / (num_classes - 1), alike)
    return LabelNoiseModel(np.ones(1), alike, np.zeros(num_classes), np.full(num_classes, error), pairs, evidence)


def decide(log_odds: np.ndarray, doubts: np.ndarray, surest: NoiseRate | None) -> NoiseDecision:
    """Where density bears out up to 0.36 of what the surest predictions say, and says nothing alone."""
    return decide_with(log_odds, ModelReadings(doubts, 0.7, 0.7, 0.7, overlap=0.54), surest, fitted())


def separated(share: float, rows: int = 2000) -> np.ndarray:
    """Log odds of rows of which `share` is surely wrong."""
    wrong = np.arange(rows) < share * rows
    return np.where(wrong, 6.0, -6.0) + np.linspace(-1, 1, rows)


def even(mean: float, rows: int = 2000) -> np.ndarray:
    """Doubts of rows, all the same."""
    return np.full(rows, mean)


def test_the_model_counts_what_the_surest_predictions_miss() -> None:
    found = decide(separated(0.2), even(0.02), NoiseRate(0.01, 0.0, 0.03, 0.0))
    assert found.rate.value == pytest.approx(0.2, abs=0.01)
    assert found.shift == 0
    assert found.flag(separated(0.2)).mean() == pytest.approx(0.2, abs=0.005)
    assert found.rate.low < 0.2 < found.rate.high


def test_the_surest_predictions_count_what_the_model_takes_for_doubt() -> None:
    log_odds = np.linspace(-12, -1, 2000)
    found = decide(log_odds, even(0.3), NoiseRate(0.25, 0.15, 0.3, 0.25))
    assert found.rate.value == 0.25
    assert found.probability(log_odds).mean() == pytest.approx(0.25, abs=1e-4)
    assert 0.2 < found.flag(log_odds).mean() < 0.4
    assert found.flag(log_odds)[-400:].all(), "the ranking is the model's"


@pytest.mark.parametrize(("inner", "rate"), [(0.25, 0.25), (0.15, 0.3), (0.3, 0.25)])
def test_errors_that_grow_with_doubt_are_carried_on_to_the_rows_that_are_not_read(inner: float, rate: float) -> None:
    """What the outer reading, 0.25, has more than the inner is added by half, nothing where it has less."""
    log_odds = np.linspace(-12, -1, 2000)
    found = decide(log_odds, even(0.5), NoiseRate(0.25, 0.15, 0.28, inner))
    assert found.rate.value == pytest.approx(rate, abs=1e-9)
    assert found.probability(log_odds).mean() == pytest.approx(rate, abs=1e-4)
    assert found.surest_rate == 0.25
    assert found.rate.value < found.rate.high


def test_no_row_is_flagged_for_being_the_least_sure_of_right_ones() -> None:
    log_odds = np.linspace(-20, -3, 2000)
    assert not decide(log_odds, even(0.2), None).flag(log_odds).any()
    assert decide(log_odds + 2, even(0.2), None).flag(log_odds + 2).any()


def test_the_range_says_that_doubt_may_be_errors() -> None:
    narrow, wide = (decide(separated(0.1), even(doubt), None).rate for doubt in (0.0, 0.4))
    assert narrow.high < 0.13
    assert wide.high > 0.35


@pytest.mark.parametrize(("doubt", "counted"), [(0.0, 1.0), (0.3, 1.0), (0.45, 0.5), (0.6, 0.0), (0.9, 0.0)])
def test_the_range_says_that_errors_may_be_doubt(doubt: float, counted: float) -> None:
    """Clean classes that overlap look like errors, among rows of which more are in doubt."""
    low = decide(separated(0.3), np.full(2000, doubt), None).rate.low
    sampling = 1.96 * (0.3 * 0.7 / 2000) ** 0.5
    assert low == pytest.approx(max(0.0, 0.85 * 0.3 * counted - sampling), abs=0.002)


def test_without_another_reading_the_model_decides() -> None:
    assert decide(separated(0.1), even(0.01), None).surest_rate == 0


SURE = NoiseRate(0.6, 0.5, 0.9, 0.6)
"""Predictions that say that six labels of ten are wrong."""


@pytest.mark.parametrize(
    ("disagreement", "overlap", "linear", "early", "rate"),
    [
        (0.5, 0.2, 0.5, 0.5, 1.4 * (0.5 - 0.22) / 0.78),  # what a tenth more than the overlap does not explain
        (0.5, 0.3, 0.5, 0.5, 1.4 * (0.5 - 0.33) / 0.67),
        (0.5, 0.44, 0.5, 0.5, 0.1),  # less than the model's own rate
        (0.5, 0.3, 0.54, 0.5, 1.4 * (0.5 - 0.33 - 0.04) / 0.67),  # a model that is not linear may learn more still
        (0.7, 0.1, 0.7, 0.8, (0.7 - 0.13) / 0.87),  # 1.3 times the overlap explains less, whatever sure ones say
        (0.7, 0.1, 0.76, 0.8, (0.7 - 0.13 - 0.09) / 0.87),  # half as much again, without sure ones
        (0.7, 0.3, 0.7, 0.7, 0.6),  # what sure predictions say
        (0.7, 0.4, 0.7, 0.8, 0.5),  # less what the network does not know
        (0.9, 0.95, 0.9, 0.9, 0.1),
    ],
)
def test_sure_predictions_add_what_overlap_does_not_explain(
    disagreement: float, overlap: float, linear: float, early: float, rate: float
) -> None:
    readings = ModelReadings(even(0.9), disagreement, linear, early, overlap)
    found = decide_with(separated(0.1), readings, SURE, fitted())
    assert found.rate.value == pytest.approx(rate, abs=0.003)
    assert found.rate.high >= 0.9, "the range still says what they say"
    assert found.needs_refit == (rate > 0.1)


@pytest.mark.parametrize(
    ("unlearned", "learned", "overlap", "linear", "rate"),
    [
        (0.3, 0.0, 0.36, 0.5, 1.4 * (0.5 - 0.396) / 0.604),  # classes that overlap are not learned either
        (0.2, 0.0, 0.36, 0.5, 0.2),
        (0.2, 0.01, 0.36, 0.5, 0.2),  # hardly anything was learned in the second half of the training
        (0.2, 0.014, 0.36, 0.5, 0.1 + 5 * (0.1 - 6 * 0.014)),
        (0.2, 0.03, 0.36, 0.5, 0.1),  # it goes on being learned
        (0.3, 0.0, 0.36, 0.51, 1.4 * (0.5 - 0.396 - 0.01) / 0.604),  # nor what takes a better model
        (0.3, 0.0, 0.36, 0.6, 0.1),
    ],
)
def test_what_is_never_learned_is_wrong_in_clear_classes(
    unlearned: float, learned: float, overlap: float, linear: float, rate: float
) -> None:
    readings = ModelReadings(even(0.9), disagreement=0.5, linear=linear, early=0.5, overlap=overlap)
    found = decide_with(separated(0.1), readings, NoiseRate(0.0, 0.0, 0.0, 0.0, unlearned, learned), fitted())
    assert found.rate.value == pytest.approx(rate, abs=0.01)


@pytest.mark.parametrize(("overlap", "rate"), [(0.0, 0.3), (0.04, (0.3 - 0.052) / 0.948), (0.2, 0.1)])
def test_labels_that_differ_in_clear_classes_are_wrong_though_no_sure_prediction_says_so(
    overlap: float, rate: float
) -> None:
    readings = ModelReadings(even(0.9), disagreement=0.3, linear=0.3, overlap=overlap)
    assert decide_with(separated(0.1), readings, None, fitted()).rate.value == pytest.approx(rate, abs=0.003)


@pytest.mark.parametrize(("overlap", "rate"), [(0.0, 0.0), (0.1, 0.1), (0.3, 0.4)])
def test_errors_and_overlap_multiply(overlap: float, rate: float) -> None:
    """A label is what is predicted if it is right and its row is not where classes overlap."""
    disagreement = 1 - (1 - overlap) * (1 - rate)
    readings = ModelReadings(even(0.1), disagreement, disagreement, overlap=overlap)
    assert readings.errors(1.0) == pytest.approx(rate)
    assert readings.errors(1.0, predictable=0.1) == pytest.approx(max(0.0, rate - 0.1 / (1 - overlap)))


@pytest.mark.parametrize(
    ("few_rows", "scaling", "learned", "rate"),
    [
        (True, np.ones(10), 0.0, 0.4),
        (True, np.ones(10), 0.3, 0.3),  # a training that went on would have learned the others
        (True, np.eye(10), 0.3, 0.6),  # all classes are kept: what the model takes for doubt may be errors
        (False, np.ones(10), 0.3, 0.6),
    ],
)
def test_of_many_classes_with_few_rows_at_most_three_times_what_the_model_finds_is_added(
    few_rows: bool, scaling: np.ndarray, learned: float, rate: float
) -> None:
    """Of clean ones all that is not the model says that labels are wrong."""
    readings = ModelReadings(even(0.9), 0.6, linear=0.6, early=0.6, overlap=0.05)
    surest = replace(SURE, unlearned=0.6, learned=learned, few_rows=few_rows)
    found = decide_with(separated(0.1), readings, surest, replace(fitted(), scaling=scaling))
    assert found.rate.value == pytest.approx(rate, abs=0.01)


@pytest.mark.parametrize(
    ("unexplained", "linear", "learned", "rate"),
    [
        (0.02, 0.6, 0.1, 0.1),
        (0.026, 0.6, 0.1, 0.1 + 6 * 0.006 * 0.9),
        (0.026, 0.602, 0.1, 0.1 + 6 * 0.003 * 0.9),  # the model lacks features that tell its surest rows
        (0.026, 0.65, 0.1, 0.1),
        (0.3, 0.6, 0.1, 1.4 * (0.6 - 0.5555) / 0.4445),  # classes overlap
        (0.3, 0.6, 0.48, 0.12),  # a training that went on would have learned the others
    ],
)
def test_of_many_classes_with_few_rows_what_the_model_leaves_unexplained_is_added(
    unexplained: float, linear: float, learned: float, rate: float
) -> None:
    readings = ModelReadings(even(0.9), 0.6, linear, early=0.6, overlap=0.505, unexplained=unexplained)
    surest = NoiseRate(0.0, 0.0, 0.0, 0.0, unlearned=0.6, learned=learned, few_rows=True)
    found = decide_with(separated(0.1), readings, surest, replace(fitted(), scaling=np.ones(10)))
    assert found.rate.value == pytest.approx(rate, abs=0.003)


def test_a_refitted_model_is_cut_at_the_same_rate() -> None:
    other = np.linspace(-3, 2, 2000)
    readings = ModelReadings(even(0.9), 0.5, 0.5, 0.5, overlap=0.3)
    found = decide_with(separated(0.1), readings, SURE, fitted()).with_cut(other)
    assert found.rate.value == pytest.approx(0.355, abs=0.003)
    assert found.probability(other).mean() == pytest.approx(found.rate.value, abs=1e-6)
    assert found.flag(other)[-600:].all()


def test_what_the_model_took_for_doubt_is_no_more_than_its_doubt() -> None:
    """Of rows that are all clear to the model, other predictions do not say that many more are wrong."""
    found = decide(separated(0.2), even(0.02), NoiseRate(0.7, 0.3, 0.8, 0.6))
    assert found.rate.value == pytest.approx(0.215, abs=0.005)
    assert found.rate.high > 0.7, "the range still says what they say"


@pytest.mark.parametrize("model", [fitted(evidence=4.9), fitted(evidence=100, error=0.87), fitted(2, error=0.48)])
def test_nothing_is_flagged_and_all_is_open_where_labels_and_scores_are_strangers(model: LabelNoiseModel) -> None:
    found = decide_with(separated(0.6), ModelReadings(even(0.1)), NoiseRate(0.7, 0.3, 0.8, 0.6), model)
    assert not found.flag(separated(0.6)).any()
    assert (found.rate.low, found.rate.value, found.rate.high) == (0.0, 0.0, 1.0)
    assert found.probability(separated(0.6)).mean() == pytest.approx(1 / 2000, rel=0.01)


def test_no_errors_at_all() -> None:
    found = decide(np.full(500, -800.0), np.zeros(500), None)
    assert not found.flag(np.full(500, -800.0)).any()
    assert found.rate.value == 0
    assert found.rate.low == 0
