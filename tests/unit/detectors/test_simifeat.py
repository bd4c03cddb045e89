from __future__ import annotations

import numpy as np
import pytest

from dynacor_ray.core.errors import ConfigError, DataError
from dynacor_ray.detectors import simifeat
from dynacor_ray.detectors.evidence import Evidence
from dynacor_ray.detectors.simifeat import (
    consensus,
    estimate_transition,
    probability_right,
    simifeat_r,
    simifeat_v,
    votes,
)

PRIOR = np.array([0.4, 0.3, 0.2, 0.1])
TRANSITION = np.array([[0.7, 0.2, 0.1, 0.0], [0.0, 0.6, 0.1, 0.3], [0.1, 0.1, 0.8, 0.0], [0.05, 0.05, 0.4, 0.5]])


def drawn(count: int, times: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True classes (N,) from PRIOR, and labels (N, times) of instances that share them, each wrong by TRANSITION."""
    generator = np.random.default_rng(seed)
    true = generator.choice(4, count, p=PRIOR)
    upto = TRANSITION.cumsum(axis=1)[true]
    labels = np.stack([(generator.random(count)[:, None] > upto).sum(axis=1) for _ in range(times)], axis=1)
    return true, labels.clip(max=3)


def test_votes_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simifeat, "_BLOCK_ROWS", 7)
    generator = np.random.default_rng(0)
    labels, similarity = generator.integers(-1, 5, (50, 10)), generator.uniform(-0.2, 1, (50, 10))
    given = generator.integers(0, 5, 50)
    own, other = votes(given, labels, similarity)
    for row in range(50):
        weight = np.zeros(5)
        for label, value in zip(labels[row], similarity[row], strict=True):
            if label >= 0 and value > 0:
                weight[label] += value
        weight /= weight.sum()
        assert own[row] == pytest.approx(weight[given[row]])
        assert other[row] == pytest.approx(max(weight[c] for c in range(5) if c != given[row]))


def test_votes_without_weight() -> None:
    labels = np.array([[0, 0, 1], [-1, -1, -1], [2, 1, -1]])
    similarity = np.array([[-0.1, 0.0, -0.2], [-np.inf] * 3, [0.5, 0.0, -np.inf]], np.float32)
    own, other = votes(np.array([0, 1, 1]), labels, similarity)
    assert own == pytest.approx([2 / 3, 1, 0])
    assert other == pytest.approx([1 / 3, 0, 1])


def evidence(given: np.ndarray, labels: np.ndarray, similarity: np.ndarray | None = None) -> Evidence:
    weight = np.ones(labels.shape, np.float32) if similarity is None else similarity
    return Evidence(given_label=given, num_classes=4, neighbor_labels=labels.astype(np.int32), similarity=weight)


def test_v_flags_a_lost_vote_but_no_tie() -> None:
    labels = np.array([[0] * 6 + [1] * 4, [0] * 5 + [1] * 5, [0] * 4 + [1] * 6, [1, 2] * 5])
    verdict = simifeat_v(evidence(np.zeros(4, np.int32), labels))
    assert verdict.is_label_issue.tolist() == [False, False, True, True]
    assert verdict.score == pytest.approx([0.2, 0.0, -0.2, -0.5])


def test_v_weighs_by_similarity_and_reads_ten_neighbors() -> None:
    labels = np.array([[0] * 4 + [1] * 6 + [1] * 5])
    similarity = np.array([[0.9] * 4 + [0.5] * 6 + [0.5] * 5], np.float32)
    verdict = simifeat_v(evidence(np.zeros(1, np.int32), labels, similarity))
    assert not verdict.is_label_issue[0]
    assert verdict.score == pytest.approx([0.6 / 6.6])


def test_consensus_is_that_of_a_loop() -> None:
    _, labels = drawn(300, 3)
    c1, c2, c3 = consensus(*labels.T, 4)
    counts = np.zeros((4, 4, 4))
    for i, j, k in labels:
        counts[i, j, k] += 1 / 300
    assert c3 == pytest.approx(counts)
    assert c2 == pytest.approx(counts.sum(axis=2))
    assert c1 == pytest.approx(np.bincount(labels[:, 0]) / 300)
    for got in (np.array([0, 4]), np.array([-1, 0]), np.zeros(0, int)):
        with pytest.raises(DataError, match=r"labels in 0\.\.3"):
            consensus(got, got, got, 4)


def test_hoc_recovers_prior_and_transition_from_exact_consensus() -> None:
    c1 = np.einsum("k,ki->i", PRIOR, TRANSITION)
    c2 = np.einsum("k,ki,kj->ij", PRIOR, TRANSITION, TRANSITION)
    c3 = np.einsum("k,ki,kj,kl->ijl", PRIOR, TRANSITION, TRANSITION, TRANSITION)
    prior, transition = estimate_transition(c1, c2, c3)
    assert prior == pytest.approx(PRIOR, abs=1e-3)
    assert transition == pytest.approx(TRANSITION, abs=2e-3)
    assert transition.sum(axis=1) == pytest.approx(1.0)


def test_hoc_recovers_prior_and_transition_from_labels() -> None:
    _, labels = drawn(200_000, 3)
    prior, transition = estimate_transition(*consensus(*labels.T, 4))
    assert prior == pytest.approx(PRIOR, abs=0.02)
    assert transition == pytest.approx(TRANSITION, abs=0.03)


def test_hoc_is_deterministic_and_finds_no_noise_where_there_is_none() -> None:
    clean = np.arange(1000) % 4
    first, second = (estimate_transition(*consensus(clean, clean, clean, 4)) for _ in range(2))
    assert (first[1] == second[1]).all()
    assert first[1] == pytest.approx(np.eye(4), abs=1e-3)
    assert 1 - probability_right(*first) == pytest.approx(0.0, abs=1e-3)


def test_probability_right_is_bayes() -> None:
    right = probability_right(PRIOR, TRANSITION)
    joint = PRIOR[:, None] * TRANSITION
    assert right == pytest.approx([joint[j, j] / joint[:, j].sum() for j in range(4)])
    assert probability_right(np.array([0.0, 1.0]), np.eye(2)).tolist() == [1.0, 1.0]


def test_r_flags_the_estimated_share_of_each_class_by_lowest_vote() -> None:
    true, labels = drawn(20_000, 11)
    given = labels[:, 0].astype(np.int32)
    similarity = np.random.default_rng(1).uniform(0.5, 1, (20_000, 10)).astype(np.float32)
    verdict = simifeat_r(evidence(given, labels[:, 1:], similarity))
    wrong = 1 - probability_right(PRIOR, TRANSITION)
    for one in range(4):
        mine = given == one
        assert verdict.is_label_issue[mine].mean() == pytest.approx(wrong[one], abs=0.03)
        assert verdict.score[mine & verdict.is_label_issue].max() <= verdict.score[mine & ~verdict.is_label_issue].min()
    found = verdict.is_label_issue & (given != true)
    assert found.sum() / (given != true).sum() > 0.8


def test_r_orders_equal_votes_by_similarity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simifeat, "_wrong_shares", lambda *_: np.array([0.5, 0.0]))
    labels = np.ones((4, 10), int)
    similarity = np.array([[0.2], [0.9], [0.5], [0.9]], np.float32).repeat(10, axis=1)
    verdict = simifeat_r(evidence(np.array([0, 0, 1, 1], np.int32), labels, similarity))
    assert verdict.is_label_issue.tolist() == [False, True, False, False]


def test_too_many_classes_and_too_few_neighbors_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"at most 100 classes for HOC, but got 101"):
        simifeat_r(evidence(np.arange(101), np.arange(101)[:, None].repeat(10, axis=1)))
    for judge in (simifeat_v, simifeat_r):
        with pytest.raises(ConfigError, match="at least 10 neighbors, but got 9"):
            judge(evidence(np.zeros(3, np.int32), np.zeros((3, 9), int)))


@pytest.mark.parametrize("judge", [simifeat_v, simifeat_r])
def test_instances_without_neighbors_are_not_flagged(judge) -> None:  # type: ignore[no-untyped-def]
    labels, similarity = np.full((2, 10), -1), np.full((2, 10), -np.inf, np.float32)
    verdict = judge(evidence(np.array([0, 1], np.int32), labels, similarity))
    assert verdict.is_label_issue.tolist() == [False, False]
    assert verdict.score.tolist() == [1.0, 1.0]
