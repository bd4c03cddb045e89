"""Detection metrics against true labels (Kim et al., CVPR 2024, §5.1: F1 of "wrongly labeled").

Nothing here feeds back into a detector. Values that the data do not define (a recall without a single wrong label) are
None, so that every result is valid JSON.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dynacor_ray.core import schema
from dynacor_ray.core.arrays import sorted_positions
from dynacor_ray.core.errors import DataError, expected_got

_LISTED = 10


def detection_metrics(
    is_label_issue: NDArray[np.bool_], label_quality: NDArray[np.floating[Any]], is_mislabeled: NDArray[np.bool_]
) -> dict[str, float | int | None]:
    """Agreement of flags and ranking with the truth; "wrongly labeled" is the positive class.

    Args:
        is_label_issue: bool (N,), the flags.
        label_quality: float (N,), low = likely mislabeled.
        is_mislabeled: bool (N,), the truth.

    Returns:
        `f1`, `precision`, `recall` of the flags; `auroc`, `average_precision` of the ranking; `oracle_f1`, the best F1
        of any cut of the ranking, which cannot be chosen without the truth; `noise_rate`; `n`. Shares in [0, 1].
        Undefined values are None: without a positive all but `precision`, without a flag `precision`, without a
        negative `auroc`.

    Raises:
        DataError: a quality is NaN.
    """
    if np.isnan(label_quality).any():
        remedy = "drop instances that have none"
        raise DataError(expected_got("a label_quality for every instance", "NaN", remedy))
    caught = int((is_label_issue & is_mislabeled).sum())
    flagged, wrong, total = int(is_label_issue.sum()), int(is_mislabeled.sum()), len(is_mislabeled)
    metrics: dict[str, float | int | None] = {
        "f1": 2 * caught / (flagged + wrong) if wrong else None,
        "precision": caught / flagged if flagged else None,
        "recall": caught / wrong if wrong else None,
        "noise_rate": wrong / total if total else None,
        "n": total,
    }
    return metrics | _ranking_metrics(-np.asarray(label_quality, dtype=np.float64), is_mislabeled)


def evaluate_issues(issues: pa.Table, truth: pa.Table) -> dict[str, float | int | None]:
    """`detection_metrics` of the issues whose true label is known; `n` is their number.

    Args:
        issues: columns of `schema.issues_schema()`.
        truth: `schema.truth_schema()` in any order, maybe of some instances only (Clothing1M).

    Raises:
        DataError: two true labels of one instance.
    """
    known = truth.filter(truth[schema.TRUE_LABEL].is_valid())
    audited = issues.filter(pc.is_in(issues[schema.INSTANCE_ID], value_set=known[schema.INSTANCE_ID]))
    ids, given = audited[schema.INSTANCE_ID].to_numpy(), audited[schema.GIVEN_LABEL].to_numpy()
    is_mislabeled = match_truth(ids, given, known)
    flagged = audited[schema.IS_LABEL_ISSUE].to_numpy()
    return detection_metrics(flagged, audited[schema.LABEL_QUALITY].to_numpy(), is_mislabeled)


def match_truth(
    instance_id: NDArray[np.int64], given_label: NDArray[np.integer[Any]], truth: pa.Table
) -> NDArray[np.bool_]:
    """Which instances are mislabeled: `given_label != true_label`, matched by instance_id.

    Args:
        instance_id: int64 (N,).
        given_label: integers (N,).
        truth: `schema.truth_schema()` in any order; more instances are allowed.

    Returns:
        bool (N,), `is_mislabeled`.

    Raises:
        DataError: instances without true label or with two; the message names them.
    """
    known = truth.filter(truth[schema.TRUE_LABEL].is_valid())
    truth_id = known[schema.INSTANCE_ID].to_numpy().astype(np.int64)
    true_label = known[schema.TRUE_LABEL].to_numpy().astype(np.int64)
    order = np.argsort(truth_id, kind="stable")
    truth_id, true_label = truth_id[order], true_label[order]
    repeated = truth_id[1:][truth_id[1:] == truth_id[:-1]]
    if repeated.size:
        got = f"several for instance_id {_listed(repeated)}"
        raise DataError(expected_got("one true label per instance", got, "remove the repetitions"))
    position = sorted_positions(truth_id, instance_id)
    missing = instance_id[position < 0]
    if missing.size:
        got = f"none for instance_id {_listed(missing)}"
        remedy = "complete the truth, or evaluate a subset"
        raise DataError(expected_got("a true label for every instance", got, remedy))
    return np.asarray(true_label[position] != given_label, dtype=np.bool_)


def f1_curve(
    is_mislabeled: NDArray[np.bool_], score: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F1 of every cut of a score.

    Args:
        is_mislabeled: bool (N,), with at least one positive.
        score: float64 (N,), high = likely mislabeled.

    Returns:
        F1, float64 (n,), of flagging scores at or above each cut, and the cuts, float64 (n,), increasing.
    """
    caught, flagged, cuts = _cuts(is_mislabeled, score)
    return (2.0 * caught / (flagged + caught[-1]))[::-1], cuts[::-1]


def _cuts(
    is_mislabeled: NDArray[np.bool_], score: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Wrong rows and all rows with scores at or above each distinct score, int64 (n,), and those scores, decreasing."""
    order = np.argsort(-score, kind="stable")
    ranked, caught = score[order], np.cumsum(is_mislabeled[order])
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return caught[last], last + 1, ranked[last]


def _ranking_metrics(score: NDArray[np.float64], is_mislabeled: NDArray[np.bool_]) -> dict[str, float | int | None]:
    """Metrics of a score, high = likely mislabeled. float64 (N,), bool (N,)."""
    wrong = int(is_mislabeled.sum())
    if wrong == 0:
        return {"auroc": None, "average_precision": None, "oracle_f1": None}
    caught, flagged, _ = _cuts(is_mislabeled, score)
    others = flagged - caught
    area = np.trapezoid(np.insert(caught, 0, 0), np.insert(others, 0, 0))
    steps = np.diff(caught, prepend=0) / wrong
    return {
        "auroc": float(area) / (wrong * int(others[-1])) if wrong < len(score) else None,
        "average_precision": float((steps * caught / flagged).sum()),
        "oracle_f1": float(f1_curve(is_mislabeled, score)[0].max(axis=0)),
    }


def _listed(ids: NDArray[np.int64]) -> str:
    shown = ", ".join(str(value) for value in ids[:_LISTED])
    return shown if len(ids) <= _LISTED else f"{shown} and {len(ids) - _LISTED} more"
