from __future__ import annotations

import numpy as np
import torch
from torch import nn

from dynacor_ray.detectors.aum import threshold_samples
from dynacor_ray.detectors.baseline_classifiers import (
    AUM,
    CLASSIFIERS,
    CORES,
    FOLDS,
    PROBABILITIES,
    Panel,
    make_members,
)
from dynacor_ray.detectors.confident_learning import fold_of
from dynacor_ray.detectors.cores import cores_loss, cores_statistic
from dynacor_ray.method.dynamics import logit_margin

IDS = np.arange(200, dtype=np.int64)
LABELS = IDS % 3
COUNTS = np.bincount(LABELS, minlength=3)
LOGITS = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))


def test_each_part_has_its_members() -> None:
    sizes = {part: len(make_members((part,), 3, COUNTS, 0)) for part in CLASSIFIERS}
    assert sizes == CLASSIFIERS == {"aum": 2, "out_of_sample": FOLDS, "cores": 1}
    assert len(make_members(tuple(sizes), 3, COUNTS, 0)) == 8
    assert make_members((), 3, COUNTS, 0) == []


def test_every_member_has_a_start_of_its_own() -> None:
    streams = [member.stream for member in make_members(tuple(CLASSIFIERS), 3, COUNTS, 0)]
    assert len(set(streams)) == len(streams)


def test_aum_members_learn_their_threshold_samples_as_an_extra_class() -> None:
    for run, member in enumerate(make_members(("aum",), 3, COUNTS, 5)):
        sample = threshold_samples(IDS, 3, 5, run)
        assert sample.any()
        assert (member.label(IDS, LABELS) == np.where(sample, 3, LABELS)).all()
        assert member.learns(IDS).all()
        assert member.extra_classes == 1
        wide = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
        labels = torch.from_numpy(member.label(IDS, LABELS))
        kept = member.record(wide, labels, IDS, last=False)
        assert list(kept) == [AUM[run]]
        assert torch.equal(kept[AUM[run]], logit_margin(wide, labels))


def test_folds_predict_what_they_did_not_learn_and_together_everything() -> None:
    members = make_members(("out_of_sample",), 3, COUNTS, 2)
    total = torch.zeros(200, 3)
    for fold, member in enumerate(members):
        held_out = fold_of(IDS, FOLDS, 2) == fold
        assert (member.learns(IDS) == ~held_out).all()
        assert member.record(LOGITS, torch.from_numpy(LABELS), IDS, last=False) == {}
        kept = member.record(LOGITS, torch.from_numpy(LABELS), IDS, last=True)[PROBABILITIES]
        assert not kept[torch.from_numpy(~held_out)].any()
        total += kept
    assert torch.allclose(total, torch.softmax(LOGITS, dim=1))


def test_the_cores_member_knows_prior_and_schedule() -> None:
    (member,) = make_members(("cores",), 3, np.array([100, 60, 40]), 0)
    labels = torch.from_numpy(LABELS)
    prior = torch.tensor([0.5, 0.3, 0.2])
    for epoch, beta in ((0, 0.0), (10, 2.0), (19, 2.0)):
        assert torch.allclose(member.loss(LOGITS, labels, epoch, 20), cores_loss(LOGITS, labels, prior, beta))
        assert member.rate_factor(epoch, 20) == 1 / (1 + beta)
    assert member.record(LOGITS, labels, IDS, last=False) == {}
    assert torch.equal(member.record(LOGITS, labels, IDS, last=True)[CORES], cores_statistic(LOGITS, labels))


def test_the_panels_classifiers_see_their_rows_and_share_nothing() -> None:
    panel = Panel([nn.Linear(4, 3), nn.Linear(4, 2)])
    features = torch.randn(6, 4)
    rows = [torch.tensor([5, 0]), torch.tensor([], dtype=torch.int64)]
    first, second = panel(features, rows)
    assert torch.equal(first, panel.classifiers[0](features[[5, 0]]))
    assert second.shape == (0, 2)
    first.sum().backward()
    assert panel.classifiers[1].weight.grad is None or not panel.classifiers[1].weight.grad.any()
