from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynacor_ray.core.errors import ConfigError
from dynacor_ray.decision.gaussian_mixture import fit_mixture
from dynacor_ray.detectors.evidence import Evidence
from dynacor_ray.detectors.fm_srm import PrototypeSums, agreement, fm_srm, prototype_margin

FEATURES = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 5)))
GIVEN = torch.from_numpy(np.random.default_rng(1).integers(0, 3, 60)).int()


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / math.sqrt(float((vector**2).sum()))


def test_prototypes_and_margins_are_those_of_a_loop() -> None:
    sums = PrototypeSums(3, 5)
    sums.add(FEATURES, GIVEN)
    prototypes = sums.prototypes()
    rows = [unit(row) for row in FEATURES.numpy()]
    expected = [unit(sum(row for row, label in zip(rows, GIVEN, strict=True) if label == c)) for c in range(3)]
    assert prototypes.numpy() == pytest.approx(np.array(expected), abs=1e-6)
    margins = prototype_margin(FEATURES, GIVEN, prototypes)
    for row, label, margin in zip(rows, GIVEN.tolist(), margins.tolist(), strict=True):
        cosine = [float(row @ prototype) for prototype in expected]
        assert margin == pytest.approx(cosine[label] - max(cosine[c] for c in range(3) if c != label), abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(60)), st.lists(st.integers(0, 60), max_size=4))
def test_any_split_and_order_of_blocks_gives_the_same_sums(order: list[int], cuts: list[int]) -> None:
    whole, merged = PrototypeSums(3, 5), PrototypeSums(3, 5)
    whole.add(FEATURES, GIVEN)
    for block in np.split(np.array(order), sorted(cuts)):
        part = PrototypeSums(3, 5)
        part.add(FEATURES[block], GIVEN[block])
        merged.merge(part)
    assert merged.sums.numpy() == pytest.approx(whole.sums.numpy(), abs=1e-12)


def test_a_class_without_instances_is_nobody_s_nearest() -> None:
    sums = PrototypeSums(3, 2)
    sums.add(torch.tensor([[1.0, 0.0], [-1.0, 0.1]]), torch.tensor([0, 2]))
    prototypes = sums.prototypes()
    assert prototypes[1].tolist() == [0.0, 0.0]
    margin = prototype_margin(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), prototypes)
    assert margin.tolist() == pytest.approx([1 + 1 / math.sqrt(1.01)])
    alone = PrototypeSums(3, 2)
    alone.add(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert prototype_margin(torch.tensor([[0.0, 5.0]]), torch.tensor([1]), alone.prototypes()).tolist() == [1.0]


def test_agreement_by_hand() -> None:
    labels = np.full((3, 25), 2)
    labels[0, :5] = 1
    labels[0, 20:] = 1
    labels[1] = -1
    labels[2, 2:] = -1
    assert agreement(np.array([1, 0, 2]), labels).tolist() == [0.25, 1.0, 1.0]
    with pytest.raises(ConfigError, match="at least 20 neighbors, but got 19"):
        agreement(np.array([0]), np.zeros((1, 19), int))


def evidence(margin: np.ndarray, same: np.ndarray) -> Evidence:
    """Of each instance's 20 neighbors, `same` have its label, 0."""
    labels = (np.arange(20)[None, :] >= same[:, None]).astype(np.int32)
    return Evidence(
        given_label=np.zeros(len(margin), np.int32), num_classes=2, prototype_margin=margin, neighbor_labels=labels
    )


def test_clear_margins_decide_whatever_the_neighbors_say() -> None:
    generator = np.random.default_rng(0)
    wrong = np.arange(400) % 4 == 0
    margin = np.where(wrong, -0.5, 0.5) + generator.normal(0, 0.05, 400)
    verdict = fm_srm(evidence(margin, np.where(wrong, 20, 0)))
    assert (verdict.is_label_issue == wrong).all()
    assert (np.abs(verdict.score) > math.log(4)).all()


def test_neighbors_decide_the_undecided() -> None:
    generator = np.random.default_rng(0)
    margin = np.concatenate((generator.normal(-0.5, 0.2, 500), generator.normal(0.5, 0.2, 500)))
    fitted = fit_mixture(margin)
    assert fitted is not None
    posterior = 1 / (1 + np.exp(-fitted.log_odds(margin)))
    undecided = (posterior > 0.2) & (posterior < 0.8)
    assert undecided.sum() >= 5
    same = np.where(np.arange(1000) % 2 == 0, generator.integers(0, 5, 1000), generator.integers(15, 20, 1000))
    verdict = fm_srm(evidence(margin, same))
    assert (verdict.is_label_issue[undecided] == (same < 10)[undecided]).all()
    assert (verdict.is_label_issue[~undecided] == (posterior < 0.5)[~undecided]).all()
    assert (np.abs(verdict.score[undecided]) < np.abs(verdict.score[~undecided]).min()).all()


def test_without_spread_the_share_itself_decides() -> None:
    verdict = fm_srm(evidence(np.zeros(3), np.array([9, 9, 9])))
    assert verdict.is_label_issue.tolist() == [True, True, True]
    verdict = fm_srm(evidence(np.zeros(3), np.array([10, 10, 10])))
    assert verdict.is_label_issue.tolist() == [False, False, False]
