"""Fitting the label noise model: its gradient, and known rates and pairs that come back within their intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from dynacor_ray.core.errors import DataError
from dynacor_ray.decision import label_noise_fit
from dynacor_ray.decision.label_noise_fit import _Objective, fit_label_noise, refit
from dynacor_ray.decision.label_noise_model import pair_rates
from dynacor_ray.decision.leave_one_out_ridge import RidgeSums
from dynacor_ray.decision.likely_classes import likely_classes
from dynacor_ray.ground_truth.metrics import detection_metrics

RATES = np.array([0.05, 0.3, 0.1, 0.02, 0.2])


def drawn(matrix: np.ndarray, rows: int, seed: int, apart: float = 1.2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (1, N, C) and their classes, given label first, and true labels; a softmax is the true posterior."""
    rng = np.random.default_rng(seed)
    classes = len(matrix)
    true = rng.integers(0, classes, rows)
    scores = np.eye(classes)[true] * apart + rng.normal(size=(rows, classes)) * 0.35
    given = (np.cumsum(matrix[true], axis=1) > rng.random((rows, 1))).argmax(axis=1)
    return *kept(scores, given, rng), true


def kept(scores: np.ndarray, given: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Float (1, N, K) and int (N, K)."""
    classes = likely_classes(*map(torch.from_numpy, (scores, given, rng.random(len(given))))).numpy()
    return np.take_along_axis(scores, classes, axis=1)[None], classes


def noisy(seed: int = 0) -> np.ndarray:
    pairs = np.random.default_rng(seed).dirichlet(np.ones(4), 5)
    return np.stack([np.insert(RATES[c] * pairs[c], c, 1.0 - RATES[c]) for c in range(5)])


@pytest.mark.parametrize(("classes", "rate"), [(5, None), (20, None), (5, 0.4), (20, 0.4), (2, None)])
def test_the_gradient_is_exact(classes: int, rate: float | None) -> None:
    rng = np.random.default_rng(0)
    rows = kept(rng.normal(size=(200, classes)), rng.integers(0, classes, 200) ** 2 // classes, rng)
    # two regressions and a network's logits, each in units of its own
    scores = np.concatenate([rows[0] * unit + rng.normal(size=rows[0].shape) for unit in (1.0, 3.0, 0.5)])
    objective = _Objective(scores, rows[1], classes, rate)
    at = objective.start() + rng.normal(size=len(objective.start())) * 0.3
    ahead, back = (approx_fprime(at, lambda vector: objective(vector)[0], step) for step in (1e-6, -1e-6))
    assert objective(at)[1] == pytest.approx((ahead + back) / 2, abs=1e-7)


@pytest.mark.parametrize("classes", [3, 20])
def test_value_and_gradient_are_finite_wherever_a_search_may_go(classes: int) -> None:
    rng = np.random.default_rng(0)
    objective = _Objective(*kept(rng.normal(size=(300, classes)), rng.integers(0, classes, 300), rng), classes)
    start = objective.start()
    for _ in range(100):
        at = rng.choice([-50.0, 0.0, 50.0], len(start))
        objective._split(at)[0][:] = rng.choice([0.0, 1000.0])
        objective._split(at)[1][:] = 0.5
        objective._split(at)[4][:] = rng.choice([-15.0, 0.0, 15.0], classes)
        value, gradient = objective(at)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_a_known_rate_is_that_of_the_labels_as_frequent_as_they_are() -> None:
    rng = np.random.default_rng(3)
    given = rng.integers(0, 4, 200) ** 2 // 4
    rows = kept(rng.normal(size=(200, 4)), given, rng)
    alone, known = (_Objective(*rows, 4, rate) for rate in (None, 0.4))
    at = alone.start() + rng.normal(size=len(alone.start()))
    said = alone.model(at).error[given].mean()
    assert known(at)[0] - alone(at)[0] == pytest.approx((said - 0.4) ** 2)


def test_known_rates_and_pairs_come_back_within_their_intervals() -> None:
    entries = []
    for seed in range(4):
        matrix = noisy(seed)
        scores, classes, _ = drawn(matrix, 3000, seed)
        model = fit_label_noise(scores, classes, 5)
        cells = pair_rates(model, scores, classes)
        truth = matrix[cells.true, cells.given]
        entries.append((cells.rate.low <= truth) & (cells.rate.high >= truth))
        assert model.error == pytest.approx(RATES, abs=0.06)
        assert truth.sum() == pytest.approx(RATES.sum(), abs=0.01), "hardly a pair is left out"
    assert np.mean(np.concatenate(entries)) >= 0.9


def test_of_many_classes_the_likely_ones_are_enough() -> None:
    """100 classes, 30 rows each; two fifths of the classes are noisy, and one of them is taken for one other."""
    matrix = np.eye(100)
    matrix[:40] = 0.7 * np.eye(100)[:40] + 0.3 * (1 - np.eye(100)[:40]) / 99
    matrix[7] = 0.6 * np.eye(100)[7] + 0.4 * np.eye(100)[8]
    scores, classes, true = drawn(matrix, 3000, 0, apart=2.0)
    model = fit_label_noise(scores, classes, 100)
    wrong = classes[:, 0] != true
    assert ((model.log_odds(scores, classes) > 0) == wrong).mean() > 0.98
    rate = 1.0 - model.joint(scores, classes)[:, 0].mean()
    assert rate == pytest.approx(wrong.mean(), abs=0.015)
    assert model.error[:40].mean() == pytest.approx(0.3, abs=0.05)
    assert model.error[40:].mean() < 0.05
    found = pair_rates(model, scores, classes)
    most = np.argmax(found.rate.low)
    assert (found.true[most], found.given[most]) == (7, 8)
    assert found.rate.low[most] <= 0.4 <= found.rate.high[most]


def test_a_label_that_rows_of_any_class_have_by_mistake_is_found() -> None:
    """60 classes, 25 rows each: too few of any one class to tell its errors."""
    matrix = 0.75 * np.eye(60)
    matrix[:, 3] += 0.25
    scores, classes, true = drawn(matrix, 1500, 0)
    model = fit_label_noise(scores, classes, 60)
    wrong = classes[:, 0] != true
    assert ((model.log_odds(scores, classes) > 0) == wrong).mean() > 0.99
    assert model.pairs.popularity.argmax() == 3
    assert np.delete(model.pairs.popularity, 3).max() < 1.5


def test_a_label_that_is_the_likeliest_of_every_row_is_no_class_of_all_of_them() -> None:
    """A regression ranks a default label first that a quarter of the rows has, where others have 25 rows each."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(5, 1, 96)) + 0.2 * rng.normal(size=(5, 10, 96))
    true = np.repeat(np.arange(50), 25)
    features = torch.from_numpy(means.reshape(50, 96)[true] + rng.normal(size=(1250, 96))).float()
    given = np.where(rng.random(1250) < 0.25, 0, true)
    sums, labels = RidgeSums(50, features.mean(dim=0), 1.0), torch.from_numpy(given)
    sums.add(features, labels)
    ridge = sums.solve()
    assert ridge is not None
    scores, classes = kept(ridge.predict(features, labels, torch.ones(1250, dtype=torch.bool)).numpy(), given, rng)
    assert (np.take_along_axis(classes, scores[0].argmax(axis=1)[:, None], axis=1) == 0).mean() > 0.99
    model = fit_label_noise(scores, classes, 50)
    assert ((model.log_odds(scores, classes) > 0) == (given != true)).mean() > 0.97


def test_the_joint_says_which_rows_are_wrong_and_what_they_are() -> None:
    scores, classes, true = drawn(noisy(), 6000, 1, apart=0.8)
    joint = fit_label_noise(scores, classes, 5).joint(scores, classes)
    assert joint.sum(axis=1) == pytest.approx(1.0)
    given, wrong = classes[:, 0], 1.0 - joint[:, 0]
    assert wrong.mean() == pytest.approx((given != true).mean(), abs=0.01)
    sure = wrong > 0.95
    assert (classes[np.arange(6000), joint.argmax(axis=1)] == true)[sure].mean() > 0.95
    for low, high in ((0.0, 0.1), (0.2, 0.8), (0.9, 1.0)):
        rows = (wrong >= low) & (wrong <= high)
        assert (given != true)[rows].mean() == pytest.approx(wrong[rows].mean(), abs=0.1), "calibrated"


def test_two_classes_with_errors_on_one_side() -> None:
    scores, classes, _ = drawn(np.array([[0.7, 0.3], [0.0, 1.0]]), 2000, 2)
    model = fit_label_noise(scores, classes, 2)
    assert model.error == pytest.approx([0.3, 0.0], abs=0.04)
    assert model.pairs.at(np.array([0, 1]), np.array([1, 0])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("classes", "rows"), [(2, 200), (10, 1000), (200, 1000)])
def test_clean_labels_have_no_errors(classes: int, rows: int) -> None:
    scores, shown, _ = drawn(np.eye(classes), rows, 3, apart=2.0)
    assert (fit_label_noise(scores, shown, classes).joint(scores, shown)[:, 0] < 0.5).mean() <= 0.01


def regressed(classes: int, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of least squares, fitted on other rows, and their classes, given label first; which labels are wrong.

    Classes come in pairs that are alike, class c is c + 1 times as frequent as class 0, and `rate` of the labels are
    drawn from the other classes.
    """
    rng = np.random.default_rng(seed)
    means = np.repeat(rng.normal(size=(classes // 2, 12)), 2, axis=0) + rng.normal(size=(classes, 12)) / 2
    true = rng.choice(classes, 6000, p=np.arange(1, classes + 1) * 2 / (classes * (classes + 1)))
    features = np.column_stack([means[true] + rng.normal(size=(6000, 12)), np.ones(6000)])
    given = np.where(rng.random(6000) < rate, (true + rng.integers(1, classes, 6000)) % classes, true)
    fitted = np.linalg.lstsq(features[3000:], np.eye(classes)[given[3000:]], rcond=None)[0]
    return *kept(features[:3000] @ fitted, given[:3000], rng), (given != true)[:3000]


@pytest.mark.parametrize(("classes", "best_f1"), [(6, 0.84), (24, 0.785)])
def test_labels_of_classes_that_are_alike_or_rare_are_right(classes: int, best_f1: float) -> None:
    """With one weight for all, 5% of six clean classes look wrong, and the best cut of 24 is 4 points lower."""
    scores, shown, _ = regressed(classes, 0.0, 0)
    assert (1.0 - fit_label_noise(scores, shown, classes).joint(scores, shown)[:, 0]).mean() < 0.002
    scores, shown, wrong = regressed(classes, 0.05, 0)
    model = fit_label_noise(scores, shown, classes)
    log_odds = model.log_odds(scores, shown)
    assert (1.0 / (1.0 + np.exp(-log_odds))).mean() == pytest.approx(wrong.mean(), abs=0.01)
    assert detection_metrics(log_odds > 0, -log_odds, wrong)["oracle_f1"] > best_f1


def test_a_class_without_rows_keeps_the_common_rate() -> None:
    scores, classes, _ = drawn(np.full((3, 3), 0.1) + 0.7 * np.eye(3), 1000, 4)
    wide = np.concatenate([scores, np.full((1, 1000, 1), -2.0)], axis=2)
    model = fit_label_noise(wide, np.insert(classes, 3, 3, axis=1), 4)
    assert np.isfinite(model.scaling).all()
    assert np.isfinite(model.error).all()
    assert 0.0 < model.error[3] < 0.5


def test_order_of_rows_does_not_matter() -> None:
    scores, classes, _ = drawn(noisy(), 500, 5)
    order = np.random.default_rng(0).permutation(500)
    first, second = fit_label_noise(scores, classes, 5), fit_label_noise(scores[:, order], classes[order], 5)
    assert first.error == pytest.approx(second.error, abs=1e-3)


def test_nothing_to_fit_is_said() -> None:
    with pytest.raises(DataError, match=r"scores of shape \(B, N, K\)"):
        fit_label_noise(np.zeros((1, 0, 3)), np.zeros((0, 3), np.int64), 3)
    with pytest.raises(DataError, match="K >= 2"):
        fit_label_noise(np.zeros((1, 4, 1)), np.zeros((4, 1), np.int64), 1)


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_that_know_nothing_explain_no_labels(classes: int) -> None:
    """Of noise a score that leaves the row out is lowest for its own label: the class mean lies away from it."""
    rng = np.random.default_rng(5)
    given = rng.integers(0, classes, 1000)
    scores = rng.normal(size=(1000, classes)) * 0.03 - 0.05 * np.eye(classes)[given]
    model = fit_label_noise(*kept(scores, given, rng), classes)
    assert not model.labels_tell
    assert (model.weight >= 0).all()
    assert (model.error <= 1 - 1 / classes).all()


def test_a_class_that_is_hardly_ever_right_does_not_silence_the_others() -> None:
    scores, classes, true = drawn(np.array([[0.2, 0.4, 0.4], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), 1500, 8, apart=2.0)
    model = fit_label_noise(scores, classes, 3)
    assert model.error[0] == pytest.approx(2 / 3, abs=0.05), "as far as the bound lets it go"
    assert model.labels_tell
    assert ((model.joint(scores, classes)[:, 0] < 0.5) == (classes[:, 0] != true)).mean() > 0.9


def test_evidence_is_what_scores_tell_of_the_labels_beyond_their_frequencies() -> None:
    """Of 500 rows in two equal classes that no label contradicts, all of their 500 log 2 nats but the penalties'."""
    scores, classes, _ = drawn(np.eye(2), 500, 6, apart=4.0)
    model = fit_label_noise(scores, classes, 2)
    assert model.labels_tell
    assert 500 * np.log(2) - 5 < model.evidence < 500 * np.log(2)
    many = np.full((2, 2), 0.5)
    assert not fit_label_noise(*drawn(many, 500, 7, apart=4.0)[:2], 2).labels_tell, "labels drawn by lot"


def test_labels_that_overlap_are_told_from_wrong_ones() -> None:
    """Labels drawn from the classes' own probabilities, of two that overlap: from where most searches begin, a fifth
    seem wrong."""
    rng = np.random.default_rng(13)
    margin = rng.normal(size=4000) * 1.5
    given = (rng.random(4000) < 1 / (1 + np.exp(-margin))).astype(np.int64)
    scores, classes = kept(np.stack([-margin, margin], axis=1) / 2, given, rng)
    assert fit_label_noise(scores, classes, 2).error.max() < 0.02


def test_a_model_that_fits_leaves_little_unexplained() -> None:
    scores, classes, _ = drawn(noisy(), 4000, 15)
    assert fit_label_noise(scores, classes, 5).unexplained(scores, classes) < 0.02


def test_errors_that_follow_from_what_a_row_shows_are_found_where_their_rate_is_known() -> None:
    """Of 40% wrong labels every one is what its row shows as well, as one of two scores says."""
    rng = np.random.default_rng(14)
    true = rng.integers(0, 5, 1000)
    also = (true + rng.integers(1, 5, 1000)) % 5
    wrong = rng.random(1000) < 0.4
    of_class = np.eye(5)[true] + rng.normal(size=(1000, 5)) * 0.5
    of_label = np.eye(5)[true] + np.eye(5)[also] / 2 + rng.normal(size=(1000, 5)) * 0.4
    one, classes = kept(of_class, np.where(wrong, also, true), rng)
    scores = np.concatenate([one, np.take_along_axis(of_label, classes, axis=1)[None]])
    model = fit_label_noise(scores, classes, 5)
    assert model.error.max() < 0.01
    assert model.unexplained(scores, classes) > 0.1
    known = refit(model, scores, classes, 0.4)
    assert known.evidence == model.evidence
    assert np.array_equal(known.scaling, np.eye(5)), "what scaling made of the scores may be the errors"
    assert (known.error > 0.2).all()
    assert known.weight[0] / known.weight[1] > 1.2 * model.weight[0] / model.weight[1]
    odds = [one.log_odds(scores, classes) for one in (model, known)]
    before, after = (detection_metrics(one > 0, -one, wrong)["auroc"] for one in odds)
    assert after is not None
    assert before is not None
    assert after > before + 0.01


def test_of_many_classes_scores_stay_scaled_where_a_rate_is_known() -> None:
    scores, classes, _ = regressed(24, 0.05, 0)
    known = refit(fit_label_noise(scores, classes, 24), scores, classes, 0.3)
    assert known.scaling.shape == (24,)
    assert np.ptp(known.scaling) > 0.1


def test_many_rows_are_fitted_from_the_optimum_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, classes, _ = drawn(np.array([[0.8, 0.2, 0.0], [0.0, 1.0, 0.0], [0.1, 0.0, 0.9]]), 3000, 8, apart=2.0)
    whole = fit_label_noise(scores, classes, 3)
    monkeypatch.setattr(label_noise_fit, "PROBED", 1500)
    probed = fit_label_noise(scores, classes, 3)
    assert probed.error == pytest.approx(whole.error, abs=0.002)
    assert probed.evidence == pytest.approx(whole.evidence, abs=0.5)


def test_of_many_rows_a_part_is_fitted_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Counted(_Objective):
        def __call__(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
            read.append(self.num_rows)
            return super().__call__(parameters)

    scores, classes, _ = drawn(np.full((3, 3), 0.1) + 0.7 * np.eye(3), 3000, 8, apart=2.0)
    model = fit_label_noise(scores, classes, 3)
    monkeypatch.setattr(label_noise_fit, "PROBED", 1500)
    monkeypatch.setattr(label_noise_fit, "_Objective", Counted)
    assert refit(model, scores, classes, 0.2).error == pytest.approx(0.2, abs=0.08)
    assert max(read) == 500
