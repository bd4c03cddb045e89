"""What a finished run makes of the labels to learn: rows left out, relabeled or weighed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, RunDirectoryError
from dynacor_ray.core.packed_dataset import LEFT_OUT, PackedDataset
from dynacor_ray.core.storage import locate
from dynacor_ray.runs.audit import issues_digest
from dynacor_ray.workflows.training_labels import Action, Judged
from tests.made_runs import given_labels, make_run

LOG_ODDS = [-1.0, 2.0]
"""P(wrong) of a row at the cut is 1 / (1 + e)."""


def run_of(folder: Path, **changes: Any) -> tuple[Path, PackedDataset]:
    run = make_run(folder / "run", rows=40, noise=0.25, images=True, **changes)
    dataset = PackedDataset.read(locate(str(run / "cache" / "dataset")))
    assert dataset is not None
    return run, dataset


def rows_of(run: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(run / "issues.parquet").sort_by("instance_id")
    return {name: table[name].to_numpy() for name in ("is_label_issue", "predicted_label", "label_quality")}


@pytest.mark.parametrize(("action", "wanted"), [("drop", LEFT_OUT), ("relabel", None)])
def test_flagged_rows_are_left_out_or_get_the_suggested_label(
    action: Action, wanted: int | None, tmp_path: Path
) -> None:
    run, dataset = run_of(tmp_path)
    labels, flagged = Judged.open(str(run), action).labels(dataset, action)
    rows, given = rows_of(run), given_labels(run)
    instead = rows["predicted_label"] if wanted is None else wanted
    assert flagged == 10
    assert labels.labels.tolist() == np.where(rows["is_label_issue"], instead, given).tolist()
    assert labels.weights is None


def test_weights_are_the_probability_to_be_right_with_mean_1(tmp_path: Path) -> None:
    """By the inverse of the quality: 1/2 is the cut, and below it the odds rise."""
    run, dataset = run_of(tmp_path, quality_log_odds=LOG_ODDS)
    labels, _ = Judged.open(str(run), "weigh").labels(dataset, "weigh")
    signed = 2 * rows_of(run)["label_quality"] - 1
    right = 1 / (1 + np.exp(-1.0 - 2.0 * signed / (1 - np.abs(signed))))
    assert labels.weights is not None
    assert labels.weights == pytest.approx(right / right.mean(), rel=1e-5)
    assert labels.labels.tolist() == given_labels(run).tolist()


def test_without_probabilities_rows_cannot_be_weighed(tmp_path: Path) -> None:
    run, _ = run_of(tmp_path)
    with pytest.raises(ConfigError, match="Expected a run whose rows have a probability"):
        Judged.open(str(run), "weigh")


def test_a_review_has_the_last_word(tmp_path: Path) -> None:
    """Its flags count, and its probabilities."""
    run, dataset = run_of(tmp_path)
    table = pq.read_table(run / "issues.parquet")
    chance = np.linspace(0.9, 0.1, table.num_rows)
    flags = np.arange(table.num_rows) < 3
    at = table.column_names.index(schema.IS_LABEL_ISSUE)
    table = table.set_column(at, schema.IS_LABEL_ISSUE, pa.array(flags))
    table = table.append_column(schema.WRONG_PROBABILITY, pa.array(chance))
    pq.write_table(table, run / "reviewed_issues.parquet")
    before = Judged.open(str(run), "drop").fingerprint()
    review = {"issues": issues_digest(locate(str(run))), "marks": {}, "labels": {}, "num_audited": 0}
    review |= {"num_flagged": 3, "flagged_by_class": [1, 1, 1], "cut": 3}
    (run / "review.json").write_text(json.dumps(review))
    judged = Judged.open(str(run), "weigh")
    assert judged.fingerprint() != before
    assert judged.labels(dataset, "drop")[1] == 3
    weights = judged.labels(dataset, "weigh")[0].weights
    by_id = (1 - chance)[np.argsort(table[schema.INSTANCE_ID].to_numpy())]
    assert weights == pytest.approx(by_id / by_id.mean(), rel=1e-5)


def test_a_run_on_other_labels_is_refused(tmp_path: Path) -> None:
    run, dataset = run_of(tmp_path)
    other = dataclasses.replace(dataset, manifest=dataclasses.replace(dataset.manifest, content_hash="other"))
    with pytest.raises(RunDirectoryError, match="Expected a run on the same rows and labels"):
        Judged.open(str(run), "drop").labels(other, "drop")


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="Expected the directory of a finished run"):
        Judged.open(str(tmp_path), "drop")
