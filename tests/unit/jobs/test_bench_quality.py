"""Judgments that no readings made by hand stand for: a training, and what is decided from it."""

from __future__ import annotations

import bench_quality
import numpy as np
import pytest

CLASSES = 100


def judged(kind: str) -> tuple[bench_quality.Judged, np.ndarray]:
    """The default on 100 classes of 12 rows each, and which labels are wrong."""
    features, truth = bench_quality.many()
    features, truth = features[truth < CLASSES], truth[truth < CLASSES]
    given = truth
    if kind != "clean":
        ids = np.arange(len(truth))
        noise = bench_quality.parse_noise(kind)
        given = bench_quality.given_labels(noise, truth, ids, CLASSES, 0, features).astype(np.int64)
    labels = bench_quality.LabelSet("many", kind, "few rows", features, given, given != truth, CLASSES, 0)
    return bench_quality.model(labels, bench_quality.train(labels)), labels.wrong


@pytest.mark.parametrize("kind", ["symmetric:0.2", "weak_annotator:0.5"])
def test_wrong_labels_of_many_classes_with_few_rows_are_found(kind: str) -> None:
    found, wrong = judged(kind)
    precision, recall = wrong[found.flags].mean(), found.flags[wrong].mean()
    assert 2.0 * precision * recall / (precision + recall) > 0.7


def test_right_labels_of_many_classes_with_few_rows_are_not_flagged() -> None:
    found, _ = judged("clean")
    assert found.flags.mean() <= 0.01
