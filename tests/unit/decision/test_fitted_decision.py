"""From class scores of a sample to flags: what was planted is found, and blocks give what the whole gives."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import sparse

from dynacor_ray.core.errors import DataError
from dynacor_ray.decision import fitted_decision
from dynacor_ray.decision.fitted_decision import EARLY_ROWS, ScoredRows, fit_decision, model_scores, recall_of_found
from dynacor_ray.decision.likely_classes import MOST_CLASSES, likely_classes
from dynacor_ray.decision.model_readings import ModelReadings
from dynacor_ray.decision.noise_decision import decide
from dynacor_ray.decision.noise_rate import NoiseRate

ROWS, CLASSES = 2000, 4


def scored(noisy_class: int | None = 0, classes: int = CLASSES, seed: int = 0) -> tuple[ScoredRows, np.ndarray]:
    """Rows whose three scores show the true class; of one class 40% have another label. A tenth have a copy."""
    random = np.random.default_rng(seed)
    true = random.integers(0, classes, ROWS)
    wrong = (true == noisy_class) & (random.random(ROWS) < 0.4)
    given = np.where(wrong, (true + random.integers(1, classes, ROWS)) % classes, true)
    source = np.arange(0, ROWS, 10)
    corrupted = (given[source] + random.integers(1, classes, len(source))) % classes
    other = np.full(ROWS, -1)
    other[source] = corrupted
    shown = np.concatenate([true, true[source]])
    scores = 4.0 * np.eye(classes)[shown] + random.normal(size=(3, len(shown), classes))
    is_copy = np.arange(len(shown)) >= ROWS
    labels, others = np.concatenate([given, corrupted]), np.concatenate([other, given[source]])
    return scored_rows(scores, labels, others, is_copy), wrong


def scored_rows(scores: np.ndarray, labels: np.ndarray, others: np.ndarray, is_copy: np.ndarray) -> ScoredRows:
    """From scores (3, n, C) in the order of the classes."""
    classes = (labels[:, None] + np.arange(scores.shape[2])) % scores.shape[2]
    first = np.take_along_axis(scores, classes[None], axis=2).astype(np.float16)
    return ScoredRows(scores=first, classes=classes, other_labels=others, is_copy=is_copy, num_classes=scores.shape[2])


@pytest.mark.parametrize("classes", [2, CLASSES])
def test_errors_of_one_class_are_flagged(classes: int) -> None:
    """Where noise differs between classes, the most confident rows are those of the clean ones."""
    rows, wrong = scored(classes=classes)
    fitted = fit_decision(rows, None)
    flags = fitted.log_odds(rows)[~rows.is_copy] >= fitted.log_odds_cut
    assert 2 * (flags & wrong).sum() / (flags.sum() + wrong.sum()) > 0.85
    assert fitted.decision.rate.low <= wrong.mean() <= fitted.decision.rate.high
    assert fitted.decision.rate.value == pytest.approx(wrong.mean(), abs=0.03)


def test_clean_labels_are_left_alone() -> None:
    rows, _ = scored(noisy_class=None)
    fitted = fit_decision(rows, None)
    assert (fitted.log_odds(rows)[~rows.is_copy] >= fitted.log_odds_cut).mean() < 0.01


def test_overlapping_classes_stay_clean_whatever_a_network_is_sure_of() -> None:
    """Labels drawn from what the scores say; a network that memorizes is sure that half are wrong."""
    random = np.random.default_rng(1)
    scores = random.normal(size=(3, ROWS, CLASSES)) + 1.5 * random.normal(size=(1, ROWS, CLASSES))
    chance = np.exp(scores[0])
    given = (np.cumsum(chance / chance.sum(axis=1, keepdims=True), axis=1) > random.random((ROWS, 1))).argmax(axis=1)
    rows = scored_rows(scores, given, np.full(ROWS, -1), np.zeros(ROWS, np.bool_))
    fitted = fit_decision(rows, NoiseRate(0.5, 0.4, 0.6, 0.4))
    assert (fitted.log_odds(rows) >= fitted.log_odds_cut).mean() < 0.02
    assert fitted.decision.rate.high > 0.5, "the range still says what they say"


def test_errors_that_the_scores_explain_are_flagged_where_a_network_sees_them() -> None:
    """40% wrong, each as one of the scores says: to the model alone they are doubt, and its surest rows show that."""
    random = np.random.default_rng(14)
    true = random.integers(0, CLASSES, ROWS)
    also = (true + random.integers(1, CLASSES, ROWS)) % CLASSES
    wrong = random.random(ROWS) < 0.4
    noise = random.normal(size=(3, ROWS, CLASSES))
    scores = np.eye(CLASSES)[true] + np.array([0.5, 0.5, 0.4])[:, None, None] * noise
    scores[2] += np.eye(CLASSES)[also] / 2
    given = np.where(wrong, also, true)
    rows = scored_rows(scores, given, np.full(ROWS, -1), np.zeros(ROWS, np.bool_))
    alone, fitted = fit_decision(rows, None), fit_decision(rows, NoiseRate(0.4, 0.35, 0.45, 0.4))
    assert alone.decision.model_rate < 0.02
    assert (alone.log_odds(rows) >= alone.log_odds_cut).mean() < 0.25, "the classes are clear enough for some of them"
    rate = fitted.decision.rate.value
    assert 0.3 < rate <= 0.4
    assert fitted.decision.probability(fitted.log_odds(rows)).mean() == pytest.approx(rate, abs=0.001)
    flags = fitted.log_odds(rows) >= fitted.log_odds_cut
    assert 2 * (flags & wrong).sum() / (flags.sum() + wrong.sum()) > 0.8


def test_of_few_rows_as_well_it_is_read_how_often_the_network_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its early logits are no scores there, since they know the row's own label."""
    random, rows = np.random.default_rng(3), EARLY_ROWS - 1
    true = random.integers(0, CLASSES, rows)
    scores = 4.0 * np.eye(CLASSES)[true] + random.normal(size=(3, rows, CLASSES))
    scores[2] = 4.0 * np.eye(CLASSES)[np.where(np.arange(rows) % 3 == 0, (true + 1) % CLASSES, true)]
    read, settle = [], fitted_decision.settle
    monkeypatch.setattr(fitted_decision, "settle", lambda *given: (read.append(given[1]), settle(*given))[1])
    fit_decision(scored_rows(scores, true, np.full(rows, -1), np.zeros(rows, np.bool_)), None)
    assert read[0].early == 1 / 3
    assert read[0].disagreement < 0.05


def test_copies_are_known_as_wrong_and_the_true_class_is_suggested() -> None:
    rows, wrong = scored()
    fitted = fit_decision(rows, None)
    assert (fitted.log_odds(rows)[rows.is_copy] > 0).mean() > 0.9
    shown = rows.classes[np.arange(len(rows.labels)), rows.scores.astype(np.float64).sum(axis=0).argmax(axis=1)]
    assert (fitted.suggested(rows) == shown)[:ROWS][wrong].mean() > 0.9


@pytest.mark.parametrize("rows", [EARLY_ROWS - 1, EARLY_ROWS])
def test_early_logits_of_few_rows_are_not_read(rows: int) -> None:
    """What a row did to a network that learned of few is not to be told apart from what it shows."""
    every, _ = scored()
    few = every.of(every.is_copy | (np.arange(len(every.labels)) < rows))
    silent = dataclasses.replace(few, scores=few.scores * np.array([1.0, 1.0, 0.0])[:, None, None])
    same = np.allclose(fit_decision(few, None).log_odds(few), fit_decision(silent, None).log_odds(silent))
    assert same == (rows < EARLY_ROWS)


def test_a_block_is_scored_as_the_whole() -> None:
    rows, _ = scored()
    fitted = fit_decision(rows, None)
    some = np.array([3, 700, 2100])
    assert np.allclose(fitted.log_odds(rows.of(some)), fitted.log_odds(rows)[some])


def test_of_many_classes_the_scores_of_alike_ones_are_read_in_every_block() -> None:
    """Classes in groups of four."""
    every, wrong = scored(classes=24)
    scores = np.take_along_axis(every.scores, np.argsort(every.classes, axis=1)[None], axis=2).astype(np.float64)
    scores += 4.0 * (np.arange(24) // 4 == scores.mean(axis=0).argmax(axis=1)[:, None] // 4)
    uniform = torch.from_numpy(np.random.default_rng(0).random(len(every.labels)))
    classes = likely_classes(torch.from_numpy(scores[0]), torch.from_numpy(every.labels), uniform).numpy()
    rows = dataclasses.replace(every, scores=np.take_along_axis(scores, classes[None], axis=2), classes=classes)
    fitted = fit_decision(rows, None)
    assert fitted.alike is not None
    assert model_scores(rows, fitted.influence, fitted.alike).shape == (4, len(classes), MOST_CLASSES)
    assert len(fitted.model.weight) == 4
    assert fitted.model.weight[3] > 0
    some = np.array([3, 700, 2100])
    assert np.allclose(fitted.log_odds(rows.of(some)), fitted.log_odds(rows)[some])
    assert (fitted.log_odds(rows)[:ROWS][wrong] > 0).mean() > 0.8
    assert fit_decision(scored()[0], None).alike is None, "all classes are kept: matrix scaling does it"


def test_a_row_that_is_probably_wrong_is_not_suggested_to_be_right() -> None:
    """Of two classes the suggested one is the other exactly where P(wrong) is above one half, also after a shift."""
    rows, _ = scored(classes=2)
    fitted = fit_decision(rows, NoiseRate(0.5, 0.4, 0.6, 0.4))
    assert fitted.decision.shift > 0
    probably = fitted.decision.probability(fitted.log_odds(rows)) > 0.5
    assert ((fitted.suggested(rows) != rows.labels) == probably).all()


def test_the_cut_in_log_odds_is_the_cut_of_the_decision() -> None:
    rows, _ = scored()
    fitted = fit_decision(rows, None)
    log_odds = fitted.log_odds(rows)
    away = np.abs(log_odds - fitted.log_odds_cut) > 1e-6
    assert np.array_equal((log_odds >= fitted.log_odds_cut)[away], fitted.decision.flag(log_odds)[away])
    nothing = dataclasses.replace(
        fitted, decision=decide(np.full(50, -800.0), ModelReadings(np.zeros(50)), None, fitted.model)
    )
    assert not (np.full(50, -800.0) >= nothing.log_odds_cut).any()
    assert np.isfinite(nothing.log_odds_cut), "or every row would have the same quality"


def test_a_sample_without_originals_is_refused() -> None:
    rows, _ = scored()
    with pytest.raises(DataError, match="originals to fit a label noise model to, but got none; use a larger sample"):
        fit_decision(rows.of(rows.is_copy), None)


def test_classes_that_are_wide_apart_are_cut_and_ranked() -> None:
    """Every probability is next to 0 or 1, and so is the cut."""
    rows, wrong = scored()
    shown = np.concatenate([rows.labels[:ROWS], rows.other_labels[ROWS:]])
    shown[:ROWS][wrong] = 0  # the class that is mislabeled
    scores = np.stack([np.eye(CLASSES)[shown]] * 3)
    clear = scored_rows(scores, rows.labels, rows.other_labels, rows.is_copy)
    fitted = fit_decision(clear, None)
    log_odds = fitted.log_odds(clear)[~clear.is_copy]
    assert np.isfinite(fitted.log_odds_cut)
    assert np.array_equal(log_odds >= fitted.log_odds_cut, wrong)
    assert np.abs(log_odds).max() < 300


def test_twins_tell_where_they_differ() -> None:
    """Unanimous twins may have their label from one another; a copy, whose label is made, differs from its twins."""
    twins = np.array([[3, 0], [2, 1], [0, 1], [0, 0], [0, 2]], np.float32)
    labels, is_copy = np.array([0, 0, 0, 0, 0]), np.array([False, False, False, False, True])
    alone = scored_rows(np.zeros((3, 5, 2)), labels, np.full(5, -1), is_copy)
    rows = dataclasses.replace(alone, twins=sparse.csr_array(twins))
    assert rows.told is not None
    assert rows.told.toarray().tolist() == [[0, 0], [2, 1], [0, 1], [0, 0], [0, 2]]
    assert rows.weight == pytest.approx([1 / 4, 1 / 4, 1 / 2, 1, 1 / 3])
    assert rows.of(np.array([1])).weight.tolist() == [1 / 4]


def test_a_label_that_its_twins_outvote_is_likelier_wrong() -> None:
    rows, _ = scored()
    fitted = fit_decision(rows, None)
    twins = np.zeros((len(rows.labels), CLASSES), np.float32)
    twins[np.arange(5), (rows.labels[:5] + 1) % CLASSES] = 4.0
    told = dataclasses.replace(rows, twins=sparse.csr_array(twins))
    before, after = fitted.log_odds(rows), fitted.log_odds(told)
    assert (after[:5] > before[:5]).all()
    assert (after[:5] - before[:5]).mean() > 2
    assert np.array_equal(after[5:], before[5:])


def test_recall_is_told_for_errors_like_those_found() -> None:
    """Class 0 alone has errors, and rows of it are hard to tell: few of its copies are flagged, of the rest all."""
    rows, _ = scored()
    fitted = fit_decision(rows, None)
    assert fitted.found_recall is not None
    copies = rows.of(rows.is_copy)
    of_noisy = copies.other_labels == 0
    missed = recall_of_found(fitted.model, copies, ~of_noisy)
    found = recall_of_found(fitted.model, copies, of_noisy)
    assert missed is not None
    assert found is not None
    assert missed < 0.2 < 0.8 < found
    few = copies.of(np.flatnonzero(of_noisy)[:5])
    assert recall_of_found(fitted.model, few, np.ones(5, np.bool_)) is None, "five copies tell nothing"


def test_rates_per_given_label_and_pairs_come_from_the_fit() -> None:
    rows, wrong = scored()
    fitted = fit_decision(rows, None)
    given = rows.labels[:ROWS]
    true = [wrong[given == label].mean() for label in range(CLASSES)]
    assert np.allclose(fitted.class_rates, true, atol=0.04)
    pairs = fitted.pairs
    assert ((pairs.rate.low <= pairs.rate.value) & (pairs.rate.value <= pairs.rate.high)).all()
    assert pairs.rate.value[pairs.true == 0].sum() == pytest.approx(0.4, abs=0.08)


@pytest.mark.parametrize("alike", [True, False])
def test_equal_rows_of_several_classes_tell_nothing_of_one_another(alike: bool) -> None:
    """Five copies of an image have one class. Five people who gave the same few answers need not."""
    rng = np.random.default_rng(5)
    group = np.arange(2000) // 5
    share = rng.uniform(0.2, 0.8, 400)  # P(class 1) in a group, which the features know
    shown = (rng.random(400) < share)[group] if alike else rng.random(2000) < share[group]
    labels = np.where(rng.random(2000) < 0.1 * alike, ~shown, shown).astype(np.int64)
    of_one = np.log(share / (1 - share))[group]
    scores = np.stack([np.stack([-of_one, of_one], axis=1) / 2] * 3)
    rows = scored_rows(scores, labels, np.full(2000, -1), np.zeros(2000, np.bool_))
    twins = np.stack([np.bincount(group, labels == c)[group] - (labels == c) for c in (0, 1)], axis=1)
    fitted = fit_decision(dataclasses.replace(rows, twins=sparse.csr_array(twins)), None)
    assert fitted.asks_twins == alike
