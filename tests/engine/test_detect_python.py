"""What Python holds gives the same answer as a file, in its own order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dynacor_ray
from dynacor_ray.core import schema


def test_features_in_memory_and_in_parquet_get_the_same_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    features = (np.eye(3)[truth] + rng.normal(0, 0.1, (300, 3))).astype(np.float32)
    labels = np.where(rng.random(300) < 0.2, (truth + 1) % 3, truth)
    frame = pd.DataFrame(features, index=[f"row {row}" for row in range(300)])
    fast = {"epochs": 3, "cluster": "none", "class_names": ["cat", "dog", "fox"]}
    held = dynacor_ray.detect(frame, labels, **fast)
    assert f"Results are kept in {held.run.path.removeprefix(f'{tmp_path}/')}; out= names" in capsys.readouterr().err
    pq.write_table(pa.table({"feature": schema.fixed_size_list(features), "label": labels}), "f.parquet")
    filed = dynacor_ray.detect("f.parquet", **fast, quiet=True)
    there, here = filed.to_pandas(), held.to_pandas()
    assert list(here.index) == list(frame.index)
    assert list(there.index) == list(range(300))
    for name in ("given_label", "predicted_label", "is_label_issue", "label_quality"):
        assert here[name].to_list() == there[name].to_list(), name
    assert here["given_label"].to_list() == labels.tolist()
    wrong, flagged = labels != truth, here["is_label_issue"].to_numpy()
    assert (wrong & flagged).sum() >= 0.9 * wrong.sum()
    assert dynacor_ray.detect(frame, labels, **fast, quiet=True).run.path == held.run.path, "found again"
