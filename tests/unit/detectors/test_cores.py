from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dynacor_ray.core.errors import DataError
from dynacor_ray.detectors.cores import (
    CORES_TRAINING,
    beta,
    cores,
    cores_loss,
    cores_statistic,
)
from dynacor_ray.detectors.evidence import Evidence

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(50, 4, generator=GENERATOR, dtype=torch.float64) * 3
LABELS = torch.randint(0, 4, (50,), generator=GENERATOR)
PRIOR = [0.1, 0.2, 0.3, 0.4]


def negative_logs(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [-math.log(math.exp(value) / total) for value in row]


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_loss_is_that_of_a_loop(weight: float) -> None:
    loss = cores_loss(LOGITS, LABELS, torch.tensor(PRIOR, dtype=torch.float64), weight)
    for row, label, found in zip(LOGITS.tolist(), LABELS.tolist(), loss.tolist(), strict=True):
        logs = negative_logs(row)
        bounded = [-math.log(math.exp(-log) + 1e-8) for log in logs]
        expected = logs[label] - weight * sum(p * log for p, log in zip(PRIOR, bounded, strict=True))
        assert found == pytest.approx(expected)


def test_statistic_is_that_of_a_loop() -> None:
    for row, label, found in zip(LOGITS.tolist(), LABELS.tolist(), cores_statistic(LOGITS, LABELS), strict=True):
        logs = negative_logs(row)
        assert float(found) == pytest.approx(logs[label] - sum(logs) / 4)


def test_statistic_survives_logits_whose_probabilities_vanish() -> None:
    logits = torch.tensor([[0.0, 300.0, 0.0]])
    assert cores_statistic(logits, torch.tensor([0])).tolist() == [100.0]
    assert cores_statistic(logits, torch.tensor([1])).tolist() == [-200.0]


def test_a_batch_of_one_keeps_its_shape() -> None:
    prior = torch.tensor(PRIOR, dtype=torch.float64)
    assert cores_loss(LOGITS[:1], LABELS[:1], prior, 1.0).shape == (1,)
    assert cores_statistic(LOGITS[:1], LABELS[:1]).shape == (1,)


def test_the_regularizer_rewards_confidence() -> None:
    """With the prior's weight above 1, a uniform prediction has a positive gradient towards its own label."""
    logits = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        cores_loss(logits, torch.tensor([2]), torch.full((4,), 0.25, dtype=torch.float64), 2.0).sum(), logits
    )
    # d CE = p - y and d mean(-log p) = p - 1/4, which is 0 at a uniform p
    assert gradient[0].tolist() == pytest.approx([0.25, 0.25, -0.75, 0.25])


def test_the_regularizer_pulls_no_longer_at_a_class_that_is_out_of_the_question() -> None:
    """Else the logits would grow for ever: -log p has the same gradient however small p is."""
    prior = torch.full((3,), 1 / 3)
    for height, pulled in ((5.0, True), (60.0, False)):
        logits = torch.tensor([[height, 0.0, 0.0]], requires_grad=True)
        loss = cores_loss(logits, torch.tensor([0]), prior, 2.0)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert (gradient.abs().max() > 0.1) == pulled
        assert float(loss.detach()) >= 2 * math.log(1e-8)


def test_beta_rises_over_the_second_to_fourth_tenth() -> None:
    assert [beta(epoch, 10) for epoch in range(10)] == pytest.approx([0, 0, 2 / 3, 4 / 3, 2, 2, 2, 2, 2, 2])
    assert beta(4, 10) == 2.0
    for num_epochs in (2, 3, 7, 20, 100):
        weights = [beta(epoch, num_epochs) for epoch in range(num_epochs)]
        assert weights == sorted(weights)
        assert weights.index(2.0) == -(-4 * num_epochs // 10), "the first tenth and three more"
    assert beta(0, 1) == 0.0


def test_learning_rate_shrinks_with_beta() -> None:
    (trained,) = CORES_TRAINING.classifiers(4, np.array([1, 2, 3, 4]), 0)
    assert [trained.rate_factor(epoch, 10) for epoch in (0, 9)] == pytest.approx([1.0, 1 / 3])


def test_verdict_flags_positive_statistics() -> None:
    given = np.zeros(3, np.int32)
    verdict = cores(
        Evidence(given_label=given, num_classes=2, trained={"cores": np.array([-1.0, 0.0, 0.5], np.float32)})
    )
    assert verdict.is_label_issue.tolist() == [False, False, True]
    assert verdict.score.tolist() == [1.0, 0.0, -0.5]
    assert verdict.score.dtype == np.float64
    with pytest.raises(DataError, match="finite statistics of CORES, but got 1 others"):
        cores(Evidence(given_label=given, num_classes=2, trained={"cores": np.array([0.0, np.nan, 1.0])}))


def test_the_cores_member_knows_prior_and_schedule() -> None:
    (member,) = CORES_TRAINING.classifiers(3, np.array([100, 60, 40]), 0)
    ids, labels = np.arange(200), torch.arange(200) % 3
    logits = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    prior = torch.tensor([0.5, 0.3, 0.2])
    for epoch, weight in ((0, 0.0), (10, 2.0), (19, 2.0)):
        assert torch.allclose(member.loss(logits, labels, epoch, 20), cores_loss(logits, labels, prior, weight))
        assert member.rate_factor(epoch, 20) == 1 / (1 + weight)
    assert member.record(logits, labels, ids, last=False) == {}
    assert torch.equal(member.record(logits, labels, ids, last=True)["cores"], cores_statistic(logits, labels))
