"""A baseline's ranking with the cut of this package."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dynacor_ray.core.errors import ConfigError
from dynacor_ray.detectors.aum import corrupted_aum
from dynacor_ray.detectors.evidence import Evidence, Verdict
from dynacor_ray.detectors.registry import BASELINES, DETECTORS, RECUT
from dynacor_ray.detectors.rethresholded import at_noise_rate, aum_corrupted_recall, simifeat_corrupted_recall
from dynacor_ray.detectors.simifeat import votes, wrong_label_votes

EVIDENCE = Evidence(given_label=np.zeros(8, np.int32), num_classes=2, noise_rate=0.25)


def ranked(*scores: float) -> Verdict:
    return Verdict(np.ones(len(scores), np.bool_), np.array(scores))


def test_as_many_as_are_estimated_to_be_wrong() -> None:
    verdict = at_noise_rate(lambda _: ranked(5, 1, 3, 2, 9, 8, 7, 6))(EVIDENCE)
    assert verdict.is_label_issue.tolist() == [False, True, False, True, False, False, False, False]
    assert verdict.score.tolist() == [5, 1, 3, 2, 9, 8, 7, 6], "the ranking is the detector's own"


def test_equal_scores_are_flagged_together_or_not() -> None:
    assert at_noise_rate(lambda _: ranked(1, 1, 1, 2, 2, 2, 2, 2))(EVIDENCE).is_label_issue.sum() in (0, 3)
    assert not at_noise_rate(lambda _: ranked(*[4.0] * 8))(EVIDENCE).is_label_issue.any()
    nothing = at_noise_rate(lambda _: ranked(1, 2, 3, 4, 5, 6, 7, 8))(replace(EVIDENCE, noise_rate=0.0))
    assert not nothing.is_label_issue.any()


def test_without_an_estimate() -> None:
    with pytest.raises(ConfigError, match="an estimate of the noise rate, but got none"):
        at_noise_rate(lambda _: ranked(1, 2))(replace(EVIDENCE, noise_rate=None))


def test_aum_catches_92_of_100_threshold_samples() -> None:
    """Each run's samples are every second of the lower hundred."""
    area = np.arange(200.0) + np.random.default_rng(0).normal(size=(2, 200))
    sample = np.zeros((2, 200), np.bool_)
    sample[0, 0:100:2], sample[1, 1:100:2] = True, True
    evidence = Evidence(
        given_label=np.zeros(200, np.int32), num_classes=2, trained={"aum": area, "threshold_sample": sample}
    )
    verdict, planted = aum_corrupted_recall(evidence), corrupted_aum(evidence)
    flagged, kept = verdict.score[verdict.is_label_issue].max(), verdict.score[~verdict.is_label_issue].min()
    assert len(planted) == 100
    assert flagged < kept
    assert (planted <= flagged).sum() <= 92 <= (planted < kept).sum() <= 94


def neighborhood(rows: int, classes: int, columns: int = 10) -> Evidence:
    random = np.random.default_rng(4)
    labels = random.integers(-1, classes, (rows, columns)).astype(np.int32)
    similarity = random.uniform(-0.2, 1.0, (rows, columns)).astype(np.float32)
    given = random.integers(0, classes, rows).astype(np.int32)
    return Evidence(given_label=given, num_classes=classes, neighbor_labels=labels, similarity=similarity)


def test_votes_for_wrong_labels_are_those_that_each_would_have() -> None:
    evidence = neighborhood(50, 30)
    expected = []
    for label in range(30):
        own, _ = votes(np.full(50, label), evidence.part("neighbor_labels"), evidence.part("similarity"))
        expected += own[evidence.given_label != label].tolist()
    positive, zeros = wrong_label_votes(evidence)
    assert np.sort([*positive, *np.zeros(zeros)]) == pytest.approx(np.sort(expected))


@pytest.mark.parametrize("classes", [3, 6, 200])
def test_neighbors_catch_92_of_100_wrong_labels(classes: int) -> None:
    """With many classes most wrong labels have no vote at all: they are caught together."""
    evidence = neighborhood(400, classes)
    verdict = simifeat_corrupted_recall(evidence)
    positive, zeros = wrong_label_votes(evidence)
    cut = verdict.score[~verdict.is_label_issue].min()
    caught = (zeros + (positive < cut).sum()) / (zeros + len(positive))
    assert caught >= 0.92 - 1e-9
    assert (verdict.score[verdict.is_label_issue] < cut).all()
    assert verdict.is_label_issue.any()


RECUT_AT_RATE = [name for name in RECUT if name.endswith("_at_noise_rate")]


@pytest.mark.parametrize("name", RECUT_AT_RATE)
def test_they_read_what_their_baseline_reads_and_the_dynamics(name: str) -> None:
    own = BASELINES[name.removesuffix("_at_noise_rate")]
    assert DETECTORS[name].reads == ("dynamics", *own.reads)
    assert DETECTORS[name].name == name
