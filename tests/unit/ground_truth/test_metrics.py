from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.core.schema import truth_schema
from dynacor_ray.ground_truth.metrics import detection_metrics, evaluate_issues, match_truth


def truth(ids: list[int], labels: list[int | None]) -> pa.Table:
    return pa.Table.from_pydict({"instance_id": ids, "true_label": labels}, schema=truth_schema())


def test_metrics_by_hand() -> None:
    quality = np.array([0.1, 0.2, 0.3, 0.8, 0.9])
    wrong = np.array([True, False, True, True, False])
    flagged = np.array([True, True, False, False, False])
    metrics = detection_metrics(flagged, quality, wrong)
    # caught 1 of 2 flags and of 3 wrong labels
    assert metrics["precision"] == 0.5
    assert metrics["recall"] == pytest.approx(1 / 3)
    assert metrics["f1"] == pytest.approx(0.4)
    # 4 of the 6 pairs (wrong, right) are in order
    assert metrics["auroc"] == pytest.approx(4 / 6)
    assert metrics["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    # flagging the first four: precision 3/4, recall 1
    assert metrics["oracle_f1"] == pytest.approx(6 / 7)
    assert metrics["noise_rate"] == pytest.approx(0.6)
    assert metrics["n"] == 5


@pytest.mark.parametrize("flagged", [True, False])
@pytest.mark.parametrize("wrong", [True, False])
@pytest.mark.parametrize("size", [0, 1, 4])
def test_undefined_values_are_null_in_json(flagged: bool, wrong: bool, size: int) -> None:
    metrics = detection_metrics(np.full(size, flagged), np.linspace(0, 1, size), np.full(size, wrong))
    json.dumps(metrics, allow_nan=False)
    assert metrics["auroc"] is None
    assert (metrics["f1"] is None) == (metrics["recall"] is None) == (metrics["oracle_f1"] is None)
    assert (metrics["f1"] is None) == (not wrong or size == 0)
    assert (metrics["precision"] is None) == (not flagged or size == 0)
    if wrong and size:
        assert metrics["f1"] == metrics["recall"] == float(flagged)


def test_flags_that_catch_nothing_score_zero() -> None:
    metrics = detection_metrics(np.array([True, False]), np.array([0.1, 0.9]), np.array([False, True]))
    assert (metrics["f1"], metrics["precision"], metrics["recall"], metrics["auroc"]) == (0.0, 0.0, 0.0, 0.0)


def test_unusable_arrays_are_refused() -> None:
    with pytest.raises(DataError, match="label_quality for every instance"):
        detection_metrics(np.zeros(1, bool), np.array([np.nan]), np.zeros(1, bool))


def test_truth_is_matched_by_instance_id() -> None:
    table = truth([30, 10, 20, 99], [2, 0, 1, 5])
    assert match_truth(np.array([10, 20, 30]), np.array([0, 2, 2]), table).tolist() == [False, True, False]
    assert match_truth(np.array([], dtype=np.int64), np.array([], dtype=np.int32), table).tolist() == []


def test_ids_without_truth_are_named() -> None:
    with pytest.raises(DataError, match="none for instance_id 7, 9; complete"):
        match_truth(np.array([7, 1, 9]), np.array([0, 0, 0]), truth([1, 9], [0, None]))
    with pytest.raises(DataError, match=r"instance_id 0, .*, 9 and 5 more"):
        match_truth(np.arange(15), np.zeros(15, dtype=np.int32), truth([], []))
    with pytest.raises(DataError, match="none for instance_id 5; complete"):
        match_truth(np.array([1, 5]), np.array([0, 0]), truth([1, 9], [0, 0]))
    with pytest.raises(DataError, match="several for instance_id 3"):
        match_truth(np.array([3]), np.array([0]), truth([3, 3], [0, 1]))


def test_issues_are_evaluated_where_the_truth_is_known() -> None:
    issues = pa.table(
        {
            "instance_id": [4, 3, 2, 1],
            "given_label": pa.array([0, 0, 1, 1], pa.int32()),
            "is_label_issue": [True, False, True, False],
            "label_quality": [0.1, 0.9, 0.2, 0.8],
        }
    )
    metrics = evaluate_issues(issues, truth([1, 2, 3, 4], [1, 1, None, 2]))
    assert metrics["n"] == 3
    assert metrics["precision"] == 0.5
    assert metrics["recall"] == 1.0
    assert metrics["auroc"] == 1.0
    assert evaluate_issues(issues, truth([], []))["n"] == 0
