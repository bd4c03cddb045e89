"""What every registered baseline must do: they run over the registry."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from dynacor_ray.core.errors import ConfigError
from dynacor_ray.detectors.aum import threshold_samples
from dynacor_ray.detectors.baseline_classifiers import BaselineTraining
from dynacor_ray.detectors.evidence import Evidence, EvidencePart, Verdict
from dynacor_ray.detectors.registry import BASELINES, DETECTORS, Detector

PARTS = {
    "dynamics": ("margins",),
    "aum": ("aum", "threshold_sample"),
    "out_of_sample": ("probabilities",),
    "cores": ("cores",),
    "neighbors": ("neighbor_labels", "similarity"),
    "prototypes": ("prototype_margin",),
}


@functools.cache
def synthetic(count: int, num_classes: int = 5, absent: int | None = None) -> tuple[Evidence, np.ndarray]:
    """Evidence of a fair classifier and encoder, a quarter of the labels wrong; and which they are.

    `absent`: a class that is neither true nor given for anyone, though the classifier knows it.
    """
    generator = np.random.default_rng(count)
    classes = np.array([c for c in range(num_classes) if c != absent])
    at = generator.permutation(np.arange(count) % len(classes))
    wrong = generator.random(count) < 0.25
    true, given = classes[at], classes[np.where(wrong, at + 1, at) % len(classes)]
    rows = np.arange(count)
    logits = 3 * np.eye(num_classes)[true] + generator.normal(0, 1, (count, num_classes))
    weight = np.exp(logits)
    clearness = np.where(wrong, -2.0, 2.0)
    sample = np.stack([threshold_samples(rows, num_classes, 0, run) for run in (0, 1)])
    area = clearness + generator.normal(0, 1, (2, count))
    features = np.eye(num_classes)[true] + generator.normal(0, 0.2, (count, num_classes))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    cosine = features @ features.T
    np.fill_diagonal(cosine, -np.inf)
    nearest = np.argsort(-cosine, axis=1)[:, :20]
    evidence = Evidence(
        given_label=given.astype(np.int32),
        num_classes=num_classes,
        margins=(clearness[:, None] + generator.normal(0, 1, (count, 8))).astype(np.float16),
        trained={
            "aum": np.where(sample, generator.normal(-2, 0.5, (2, count)), area),
            "threshold_sample": sample,
            "probabilities": (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32),
            "cores": logits.mean(axis=1) - logits[rows, given],
        },
        neighbor_labels=given[nearest].astype(np.int32),
        similarity=np.take_along_axis(cosine, nearest, axis=1).astype(np.float32),
        prototype_margin=clearness / 4 + generator.normal(0, 0.2, count),
    )
    return evidence, wrong


def judged(detector: Detector, evidence: Evidence) -> Verdict:
    if detector.library is not None:
        pytest.importorskip(detector.library)
    verdict = detector.judge(evidence)
    assert verdict.is_label_issue.dtype == np.bool_
    assert verdict.score.dtype == np.float64
    assert verdict.is_label_issue.shape == verdict.score.shape == evidence.given_label.shape
    assert np.isfinite(verdict.score).all()
    return verdict


def reordered(evidence: Evidence, order: np.ndarray) -> Evidence:
    names = {"given_label", *(name for names in PARTS.values() for name in names)} - set(evidence.trained)
    axes = {"aum": 1, "threshold_sample": 1}
    trained = {name: values.take(order, axis=axes.get(name, 0)) for name, values in evidence.trained.items()}
    return replace(evidence, trained=trained, **{name: evidence.part(name).take(order, axis=0) for name in names})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOC stops early; `test_simifeat.py` has it to its end."""
    monkeypatch.setattr("dynacor_ray.detectors.simifeat._EVALUATIONS", 40)


every_baseline = pytest.mark.parametrize("detector", BASELINES.values(), ids=BASELINES)


def test_the_table_is_complete() -> None:
    assert list(BASELINES) == [
        *("mean_margin", "avg_encoder", "aum", "cl_prune_by_noise_rate", "cl_both", "cl_confident_learning"),
        *("cores", "simifeat_v", "simifeat_r", "fm_srm"),
    ]
    assert all(name == detector.name for name, detector in BASELINES.items())
    assert len({detector.title for detector in BASELINES.values()}) == len(BASELINES)


def trainings() -> list[BaselineTraining]:
    """What the detectors train, each once."""
    parts = dict.fromkeys(part for detector in DETECTORS.values() for part in detector.all_reads(True).values())
    return [part for part in parts if isinstance(part, BaselineTraining)]


def test_what_detectors_read_has_one_name_each() -> None:
    known = get_args(EvidencePart)
    own = [training.part for training in trainings()]
    assert sorted(own) == ["aum", "cores", "features", "out_of_sample"]
    assert len({*known, *own}) == len(known) + len(own)
    assert not any("-" in name for name in own), "names of folders are joined by it"
    assert {part for detector in DETECTORS.values() for part in detector.all_reads(True)} == {*known, *own}
    assert "features" not in {part for detector in DETECTORS.values() for part in detector.all_reads(False)}


def test_a_network_is_trained_for_those_that_look_at_features() -> None:
    looking = {name for name, detector in DETECTORS.items() if "features" in detector.all_reads(True)}
    baselines = {"simifeat_v", "simifeat_r", "fm_srm"}
    assert looking == baselines | {"simifeat_r_at_noise_rate", "fm_srm_at_noise_rate", "simifeat_corrupted_recall"}


def test_every_classifier_has_a_start_of_its_own() -> None:
    members = [one for training in trainings() for one in training.classifiers(3, np.array([4, 3, 3]), 0)]
    assert len({one.stream for one in members}) == len(members) == 9


@every_baseline
def test_wrong_labels_score_lower_and_are_flagged(detector: Detector) -> None:
    evidence, wrong = synthetic(600)
    verdict = judged(detector, evidence)
    above = (verdict.score[~wrong][:, None] > verdict.score[wrong]).mean()
    assert above > 0.85, "share of pairs of a right and a wrong label in which the right one scores higher"
    assert verdict.is_label_issue[wrong].mean() > 0.6
    assert verdict.is_label_issue[~wrong].mean() < 0.2
    assert verdict.score[verdict.is_label_issue].mean() < verdict.score[~verdict.is_label_issue].mean()


@every_baseline
def test_permuting_instances_permutes_the_verdict(detector: Detector) -> None:
    evidence, _ = synthetic(300)
    order = np.random.default_rng(0).permutation(300)
    plain, shuffled = judged(detector, evidence), judged(detector, reordered(evidence, order))
    assert (shuffled.is_label_issue == plain.is_label_issue[order]).all()
    assert (shuffled.score == plain.score[order]).all()


@every_baseline
@pytest.mark.parametrize("absent", [0, 4])
def test_a_class_without_instances_is_no_obstacle(detector: Detector, absent: int) -> None:
    evidence, wrong = synthetic(400, absent=absent)
    verdict = judged(detector, evidence)
    assert verdict.score[wrong].mean() < verdict.score[~wrong].mean()


@every_baseline
@pytest.mark.parametrize(("count", "num_classes"), [(30, 3), (31, 2)])
def test_few_instances_are_enough(detector: Detector, count: int, num_classes: int) -> None:
    evidence, wrong = synthetic(count, num_classes)
    assert wrong.any()
    verdict = judged(detector, evidence)
    assert verdict.score[wrong].mean() < verdict.score[~wrong].mean()


@every_baseline
def test_only_what_is_declared_is_read(detector: Detector) -> None:
    evidence, _ = synthetic(200)
    read = {name for part in detector.all_reads(False) for name in PARTS[part]}
    trained = {name: values for name, values in evidence.trained.items() if name in read}
    others = {name: None for names in PARTS.values() for name in names if name not in {*read, *evidence.trained}}
    plain, alone = judged(detector, evidence), judged(detector, replace(evidence, trained=trained, **others))
    assert (alone.is_label_issue == plain.is_label_issue).all()
    assert (alone.score == plain.score).all()
    with pytest.raises(ConfigError, match="gather what the detector reads first"):
        detector.judge(Evidence(given_label=evidence.given_label, num_classes=5))
