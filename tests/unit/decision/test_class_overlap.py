"""Whether classes overlap is told by where the rows lie, not by their labels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from dynacor_ray.decision import class_overlap
from dynacor_ray.decision.class_overlap import overlap
from dynacor_ray.decision.label_noise_model import ClassPairs, LabelNoiseModel
from dynacor_ray.decision.likely_classes import DRAWN
from dynacor_ray.decision.model_readings import read_model


def posterior(classes: int, apart: float, rows: int, seed: int = 0) -> NDArray[np.float64]:
    """P(class) of rows of Gaussian classes of one covariance, whose means are `apart` from the middle."""
    rng = np.random.default_rng(seed)
    mean = apart * np.eye(classes)
    x = mean[rng.integers(0, classes, rows)] + rng.standard_normal((rows, classes))
    return special.softmax(x @ mean.T, axis=1)


def everywhere(probability: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.tile(np.arange(probability.shape[1]), (len(probability), 1))


def doubt(probability: NDArray[np.float64]) -> float:
    return float(1 - probability.max(axis=1).mean())


@pytest.mark.parametrize(("classes", "apart"), [(2, 0.7), (3, 1.0), (8, 1.5), (16, 2.0)])
def test_the_doubt_of_classes_that_overlap_stays(classes: int, apart: float) -> None:
    p = posterior(classes, apart, 6000)
    assert doubt(p) > 0.2
    assert overlap(p, everywhere(p), classes) == pytest.approx(doubt(p), abs=0.03)


@pytest.mark.parametrize("apart", [2.0, 3.0])
@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.4])
def test_errors_do_not_make_two_clear_classes_overlap(wrong: float, apart: float) -> None:
    """With 40% each row is nearly as likely of either class."""
    p = posterior(2, apart, 4000)
    blurred = (1 - wrong) * p + wrong * (1 - p)
    assert doubt(blurred) > 0.9 * wrong
    assert overlap(blurred, everywhere(p), 2) < doubt(p) + 0.01


def test_pairs_show_how_far_classes_of_other_widths_overlap() -> None:
    """As those of images: with one covariance for all, the wide classes make the narrow ones look clear."""
    rng, spread = np.random.default_rng(0), np.array([0.5, 0.5, 4.0, 4.0])
    mean = np.array([[0.0, 0.0], [0.6, 0.0], [30.0, 0.0], [0.0, 30.0]])
    label = rng.integers(0, 4, 6000)
    x = mean[label] + spread[label, None] * rng.standard_normal((6000, 2))
    squares = ((x[:, None] - mean) ** 2).sum(axis=2) / spread**2
    p = special.softmax(-0.5 * squares - 2 * np.log(spread), axis=1)
    assert doubt(p) > 0.12
    assert overlap(p, everywhere(p), 4) == pytest.approx(doubt(p), abs=0.03)


@pytest.mark.parametrize("least", [0.001, 0.01, 0.03])
def test_classes_along_a_line_overlap_with_their_neighbors(least: float) -> None:
    """Such as ages, by a model that gives none of them no probability: one covariance would find no overlap at all."""
    rng = np.random.default_rng(0)
    place = rng.integers(0, 10, 4000) + rng.standard_normal(4000)
    p = special.softmax(-0.5 * (place[:, None] - np.arange(10)) ** 2, axis=1)
    assert doubt(p) == pytest.approx(0.55, abs=0.01)
    some = p + least
    assert 0.4 < overlap(some / some.sum(axis=1, keepdims=True), everywhere(p), 10) < 0.6


@pytest.mark.parametrize("classes", [2, 5, 12])
def test_doubt_that_labels_brought_in_goes(classes: int) -> None:
    """Of clear classes, when errors are the more frequent the nearer a row is to another class."""
    clear = posterior(classes, 4.0, 4000)
    blurred = special.softmax(0.15 * np.log(np.maximum(clear, 1e-30)), axis=1)
    assert doubt(blurred) > 0.08
    assert overlap(blurred, everywhere(blurred), classes) < doubt(clear) + 0.01 < doubt(blurred) / 2


def test_classes_may_come_in_any_order() -> None:
    """The label is the first class of each row."""
    p, rng = posterior(5, 1.5, 1000), np.random.default_rng(1)
    order = rng.permuted(everywhere(p), axis=1)
    mixed = overlap(np.take_along_axis(p, order, axis=1), order, 5)
    assert mixed == pytest.approx(overlap(p, everywhere(p), 5), abs=1e-9)


@pytest.mark.parametrize("apart", [6.0, 2.5])
def test_of_many_classes_the_overlap_with_the_likeliest_is_seen(apart: float) -> None:
    """Of 40 classes 16 are kept of each row, of which the last four stand for 28.

    All of them are equally far apart here, so that much of what overlaps is not among the kept ones.
    """
    p = posterior(40, apart, 4000)
    drawn = 12 + np.random.default_rng(2).permuted(np.tile(np.arange(28), (4000, 1)), axis=1)[:, :DRAWN]
    order = np.argsort(-p, axis=1)
    kept = np.concatenate([order[:, :12], np.take_along_axis(order, drawn, axis=1)], axis=1)
    single = np.take_along_axis(p, kept, axis=1)
    single[:, -DRAWN:] *= 28 / DRAWN
    found = overlap(single / single.sum(axis=1, keepdims=True), kept, 40)
    assert 0.5 * doubt(p) - 0.001 < found < doubt(p) + 0.001


def in_groups(
    classes: int, apart: float, rows: int, size: int = 5
) -> tuple[NDArray[np.float64], NDArray[np.int64], float]:
    """16 likely ones of classes in groups, each `apart` from the middle of its own, and the doubt of all."""
    rng = np.random.default_rng(3)
    groups = classes // size
    mean = np.hstack([np.repeat(30.0 * np.eye(groups), size, axis=0), apart * np.tile(np.eye(size), (groups, 1))])
    x = mean[rng.integers(0, classes, rows)] + rng.standard_normal((rows, mean.shape[1]))
    p = special.softmax(x @ mean.T - 0.5 * (mean**2).sum(axis=1), axis=1)
    kept = np.argsort(-p, axis=1, kind="stable")[:, :16]
    return np.take_along_axis(p, kept, axis=1), kept, doubt(p)


@pytest.mark.parametrize("classes", [20, 100])
def test_classes_that_overlap_in_groups_do_so_among_many(classes: int) -> None:
    """Of other groups their rows have one probability, 0, as if there were no spread."""
    p, kept, truth = in_groups(classes, 1.0, 60 * classes)
    assert truth > 0.4
    assert overlap(p, kept, classes) == pytest.approx(truth, abs=0.06)


def test_of_classes_that_are_not_kept_too_much_overlap_is_taken_rather_than_too_little() -> None:
    """Of 24 that are alike each row keeps 16."""
    p, kept, truth = in_groups(96, 1.5, 9600, size=24)
    assert truth < overlap(p / p.sum(axis=1, keepdims=True), kept, 96) < truth + 0.2


def test_clear_classes_in_groups_are_clear_among_many() -> None:
    p, kept, truth = in_groups(100, 5.0, 6000)
    blurred = special.softmax(0.15 * np.log(np.maximum(p, 1e-30)), axis=1)
    assert doubt(blurred) > 0.1
    assert overlap(blurred, kept, 100) < truth + 0.02


def test_of_very_many_classes_some_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    p, kept, _ = in_groups(100, 1.0, 6000)
    whole = overlap(p, kept, 100)
    monkeypatch.setattr(class_overlap, "NEIGHBORHOODS", 10)
    assert overlap(p, kept, 100) == pytest.approx(whole, abs=0.05)
    assert overlap(p, kept, 100) != whole


def test_few_rows_of_many_classes_are_not_sharp_for_want_of_rows() -> None:
    """With as many dimensions as rows of a class, a row would be its own mean's neighbor."""
    p = posterior(15, 1.5, 120)
    assert overlap(p, everywhere(p), 15) > 0.6 * doubt(p)


def test_a_sample_of_many_rows_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    p = posterior(3, 1.0, 6000)
    whole = overlap(p, everywhere(p), 3)
    monkeypatch.setattr(class_overlap, "PROBED", 3 * 2000)
    assert overlap(p, everywhere(p), 3) == pytest.approx(whole, abs=0.04)
    assert overlap(p, everywhere(p), 3) == overlap(p[::3], everywhere(p)[::3], 3)


@pytest.mark.parametrize("rows", [1, 2, 50])
def test_rows_that_are_all_equal(rows: int) -> None:
    p = np.tile([0.6, 0.3, 0.1], (rows, 1))
    assert overlap(p, everywhere(p), 3) == pytest.approx(0.4), "as often as each class is"


def test_readings_count_labels_that_differ_by_each_of_the_scores() -> None:
    """Of four rows the label is the first class; the model goes by the second of three scores."""
    differ = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]])
    scores = np.stack([1.0 - differ, differ], axis=2).astype(np.float64)
    pairs = ClassPairs(np.empty(0, np.int64), np.empty(0), np.ones(2), np.ones(2))
    model = LabelNoiseModel(np.array([0.0, 2.0, 0.0]), np.ones(2), np.zeros(2), np.full(2, 0.1), pairs)
    found = read_model(model, scores, np.tile([0, 1], (4, 1)), scores[2])
    assert (found.linear, found.disagreement, found.early) == (0.25, 0.5, 0.75)
    assert found.doubts == pytest.approx(1 / (1 + np.exp(2.0)))
