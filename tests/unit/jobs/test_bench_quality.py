"""Judgments that no readings made by hand stand for: a training, and what is decided from it."""

from __future__ import annotations

import bench_quality
import numpy as np


def judged(kind: str, classes: int, rows: int, between: float, within: float) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of made-up classes the default flags, and which labels are wrong."""
    features, truth = bench_quality.many(classes, rows, between, within, dim=64)
    given = truth
    if kind != "clean":
        noise = bench_quality.parse_noise(kind)
        given = bench_quality.given_labels(noise, truth, np.arange(len(truth)), classes, 0, features).astype(np.int64)
    labels = bench_quality.LabelSet("many", kind, "few rows", features, given, given != truth, classes, 0)
    return bench_quality.model(labels, bench_quality.train(labels)).flags, labels.wrong


def test_a_weak_annotator_s_errors_in_many_classes_with_few_rows_are_found() -> None:
    """Where likeness of classes is taken once only, half of them are not."""
    flags, wrong = judged("weak_annotator:0.5", 60, 25, 0.8, 0.8)
    precision, recall = wrong[flags].mean(), flags[wrong].mean()
    assert 2.0 * precision * recall / (precision + recall) > 0.7


def test_right_labels_of_alike_classes_with_few_rows_are_not_flagged() -> None:
    """Of ten classes that can hardly be told apart, training does not learn the right labels either."""
    flags, _ = judged("clean", 50, 25, 2.0, 0.1)
    assert flags.mean() <= 0.01


def test_right_labels_of_classes_that_are_alike_in_groups_are_not_flagged() -> None:
    """One weight for what tells groups and classes apart, or overlap by pairs alone, would flag three quarters."""
    flags, _ = judged("clean", 20, 60, 2.0, 0.1)
    assert flags.mean() <= 0.01


def test_errors_across_groups_of_alike_classes_are_found() -> None:
    """Which of ten classes a row is of nobody can say, but of which group. One weight for both finds nothing."""
    flags, wrong = judged("symmetric:0.2", 20, 60, 2.0, 0.1)
    precision, recall = wrong[flags].mean(), flags[wrong].mean()
    assert 2.0 * precision * recall / (precision + recall) > 0.6
