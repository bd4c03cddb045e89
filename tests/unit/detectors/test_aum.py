from __future__ import annotations

import numpy as np
import pytest
import torch

from dynacor_ray.core.errors import ConfigError, DataError
from dynacor_ray.detectors.aum import AUM_TRAINING, aum, threshold_samples
from dynacor_ray.detectors.evidence import Evidence
from dynacor_ray.method.dynamics import logit_margin

IDS = np.arange(200_000)


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_threshold_samples_are_disjoint_and_have_their_share(num_classes: int) -> None:
    first, second = (threshold_samples(IDS, num_classes, 0, run) for run in (0, 1))
    assert first.dtype == np.bool_
    assert not (first & second).any()
    for sample in (first, second):
        assert sample.mean() == pytest.approx(1 / (num_classes + 1), rel=0.1 if num_classes == 100 else 0.03)


def test_threshold_samples_belong_to_the_instance() -> None:
    order = np.random.default_rng(0).permutation(5000)
    sample = threshold_samples(IDS[:5000], 10, 3, 1)
    assert (threshold_samples(IDS[order], 10, 3, 1) == sample[order]).all()
    assert (threshold_samples(IDS[:5000], 10, 4, 1) != sample).any()


def test_unusable_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 classes, but got 1"):
        threshold_samples(IDS, 1, 0, 0)


def evidence(area: list[list[float]], sample: list[list[int]]) -> Evidence:
    flags = np.array(sample, bool)
    given = np.zeros(flags.shape[1], np.int32)
    return Evidence(given_label=given, num_classes=2, trained={"aum": np.array(area), "threshold_sample": flags})


def test_aum_by_hand() -> None:
    """Samples -3 and -1 in run 0: 99% of the way from one to the other is -1.02; in run 1 there is one, -2."""
    area = [[-3.0, -1.0, -1.03, -1.0, 5.0], [-2.5, 4.0, 9.0, -2.0, -9.0]]
    verdict = aum(evidence(area, [[1, 1, 0, 0, 0], [0, 0, 0, 1, 0]]))
    assert verdict.score == pytest.approx([-0.5, 6.0, -0.01, 0.02, 6.02])
    assert verdict.is_label_issue.tolist() == [True, False, True, False, False]


def test_the_threshold_itself_is_not_flagged() -> None:
    verdict = aum(evidence([[1.0, 1.0, 0.0], [2.0, 2.0, 2.0]], [[1, 0, 0], [0, 1, 0]]))
    assert verdict.is_label_issue.tolist() == [False, False, True]


@pytest.mark.parametrize("empty", [0, 1])
def test_a_run_without_samples_takes_the_other_threshold(empty: int) -> None:
    sample = np.zeros((2, 3), int)
    sample[1 - empty, 0] = 1
    verdict = aum(evidence([[1.0, 0.5, 3.0], [1.0, 0.5, 3.0]], sample.tolist()))
    assert verdict.score.tolist() == [0.0, -0.5, 2.0]


def test_unusable_samples_are_refused() -> None:
    with pytest.raises(DataError, match="at least one threshold sample, but got none among 2 instances"):
        aum(evidence([[0.0, 0.0]] * 2, [[0, 0]] * 2))


def test_aum_members_learn_their_threshold_samples_as_an_extra_class() -> None:
    ids = np.arange(200)
    given = ids % 3
    for run, member in enumerate(AUM_TRAINING.classifiers(3, np.array([80, 60, 60]), 5)):
        sample = threshold_samples(ids, 3, 5, run)
        assert sample.any()
        assert (member.label(ids, given) == np.where(sample, 3, given)).all()
        assert member.learns(ids).all()
        assert member.extra_classes == 1
        wide = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
        labels = torch.from_numpy(member.label(ids, given))
        kept = member.record(wide, labels, ids, last=False)
        assert list(kept) == [f"aum_{run}"]
        assert torch.equal(kept[f"aum_{run}"], logit_margin(wide, labels))
