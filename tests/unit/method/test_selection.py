from __future__ import annotations

import numpy as np
import pytest

from dynacor_ray.core.errors import ConfigError
from dynacor_ray.method.selection import EpochRecord, choose_epoch, davies_bouldin, validation_metric


def test_validation_metric_by_hand() -> None:
    q = np.array([0.9, 0.7, 0.2, 0.4])
    flagged = np.array([True, True, False, False])
    corrupted, original = np.array([1, 1, 5, 0]), np.array([9, 9, 1, 1])
    # flagged corrupted: (0.9 + 0.7) / 2 = 0.8; unflagged originals: (0.2 + 0.4) / 2 = 0.3
    assert validation_metric(q, flagged, corrupted, original) == pytest.approx(0.25)


def test_validation_metric_counts_rows_not_entries() -> None:
    q, flagged = np.array([0.9, 0.6, 0.1, 0.4]), np.array([True, True, False, False])
    corrupted, original = np.array([3, 1, 0, 2]), np.array([1, 0, 2, 6])
    rows = np.repeat(np.arange(4), corrupted), np.repeat(np.arange(4), original)
    plain = (q[rows[0]][flagged[rows[0]]].mean() - q[rows[1]][~flagged[rows[1]]].mean()) ** 2
    assert validation_metric(q, flagged, corrupted, original) == pytest.approx(plain)


@pytest.mark.parametrize("flagged", [True, False])
def test_a_collapsed_clustering_has_the_least_metric(flagged: bool) -> None:
    ones = np.ones(3, dtype=np.int64)
    assert validation_metric(np.array([0.1, 0.2, 0.9]), np.full(3, flagged), ones, ones) == 0.0
    assert davies_bouldin(np.eye(3), np.full(3, flagged), ones) == float("inf")


def test_davies_bouldin_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import davies_bouldin_score  # takes seconds

    generator = np.random.default_rng(0)
    embedding, counts = generator.normal(size=(12, 4)), generator.integers(1, 5, 12)
    flagged = np.arange(12) < 5
    rows = np.repeat(np.arange(12), counts)
    expected = davies_bouldin_score(embedding[rows], flagged[rows])
    assert davies_bouldin(embedding, flagged, counts) == pytest.approx(expected)


def test_coinciding_means_are_the_worst_case() -> None:
    embedding = np.array([[1.0], [-1.0], [2.0], [-2.0]])
    assert davies_bouldin(embedding, np.array([True, True, False, False]), np.ones(4, dtype=np.int64)) == float("inf")


def record(epoch: int, metric: float, index: float | None) -> EpochRecord:
    flagged = 0.4 - epoch % 3 / 10
    return EpochRecord(
        epoch=epoch, validation_metric=metric, davies_bouldin=index, flagged_originals=flagged, flagged_corrupted=0.9
    )


def test_each_rule_chooses_its_epoch() -> None:
    records = [record(0, 0.1, None), record(1, 0.3, 2.0), record(2, 0.3, 1.5), record(3, 0.2, 1.5)]
    assert choose_epoch(records, "validation_metric") == 1  # the earlier of two
    assert choose_epoch(records, "davies_bouldin") == 2
    assert choose_epoch(records, "last") == 3
    assert choose_epoch(records, "noise_rate", 0.22) == 2, "flags 20%, the others 40 and 30"
    with pytest.raises(ConfigError, match="an estimate of the noise rate, but got none"):
        choose_epoch(records, "noise_rate")
