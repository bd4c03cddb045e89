"""Results for cleanlab: rows to train on, and Datalab's issues."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynacor_ray.workflows.results import DetectResult, load
from tests.made_runs import at, make_run


def test_cleanlab_trains_without_the_flagged_rows(tmp_path: Path) -> None:
    """The README's snippet: `CleanLearning` takes our rows as they are, and leaves the flagged ones out."""
    classification = pytest.importorskip("cleanlab.classification")
    from sklearn.linear_model import LogisticRegression

    run = at(make_run(tmp_path / "run"))
    result = DetectResult.read(run)
    table = result.to_pandas(codes=True).sort_values("instance_id", ignore_index=True)
    labels, features = table["given_label"].to_numpy(), np.random.default_rng(0).normal(size=(300, 2))
    learner = classification.CleanLearning(LogisticRegression())
    learner.fit(features, labels, label_issues=table)
    kept = ~table["is_label_issue"].to_numpy()
    alone = LogisticRegression().fit(features[kept], labels[kept])
    assert np.allclose(learner.clf.coef_, alone.coef_)


def test_datalab_has_the_same_label_issues(tmp_path: Path) -> None:
    """Rows in the order of their ids, whatever that of the file; a class that nobody gave can still be suggested."""
    pytest.importorskip("datasets")
    run = make_run(tmp_path / "run")
    table = pq.read_table(run / "issues.parquet")
    suggested = pa.array([3, *table["predicted_label"].to_pylist()[1:]], pa.int32())
    table = table.set_column(table.schema.get_field_index("predicted_label"), "predicted_label", suggested)
    pq.write_table(table, run / "issues.parquet")
    summary = json.loads((run / "summary.json").read_text())
    summary["classes"].append(summary["classes"][0] | {"class": "yak", "rows": 0})
    (run / "summary.json").write_text(json.dumps(summary))
    result = load(str(run))
    lab = result.to_datalab()
    found, known = lab.get_issues("label"), result.to_pandas().sort_values("instance_id", ignore_index=True)
    assert found["is_label_issue"].tolist() == known["is_label_issue"].tolist()
    assert found["label_score"].tolist() == known["label_quality"].tolist()
    assert found["given_label"].tolist() == known["given_label"].tolist()
    assert found["predicted_label"].tolist() == known["predicted_label"].tolist()
    assert "yak" in found["predicted_label"].tolist()
    assert lab.get_issue_summary("label")["num_issues"].tolist() == [30]
    assert lab.data["instance_id"] == list(range(300))
