"""The benchmark of cleaning: which rows and labels each training is given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bench_cleaning
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynacor_ray.core import schema


def test_rows_are_held_out_and_the_oracle_leaves_out_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features tell the row: of 40, ten are tested on, by their true labels."""
    true = np.arange(40) % 4
    noisy = np.where(np.arange(40) % 5 == 0, (true + 1) % 4, true)
    features = np.arange(80, dtype=np.float32).reshape(40, 2)
    columns = {"feature": schema.fixed_size_list(features), "noisy": noisy, "true_label": true}
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    options = bench_cleaning.Options(data=str(tmp_path / "data.parquet"), labels=("noisy",), losses=("ce", "elr"))
    trained: dict[str, list[Any]] = {}

    def detect(data: str, **told: Any) -> Any:
        """Flags every second row."""
        rows = np.arange(pq.read_metadata(data).num_rows)
        issues = pa.table({schema.INSTANCE_ID: rows, schema.IS_LABEL_ISSUE: rows % 2 == 0})
        return SimpleNamespace(issues=issues)

    def train(data: str, test: str, out: str, **told: Any) -> Any:
        seen = [pq.read_table(place) for place in (data, test)]
        trained[Path(out).name] = [*seen, told]
        return SimpleNamespace(summary={"last": {"test_accuracy": 0.5}})

    monkeypatch.setattr(bench_cleaning, "cleanlab_flags", lambda rows, given, seed: np.arange(len(given)) % 3 == 0)
    monkeypatch.setattr(bench_cleaning.dynacor_ray, "detect", detect)
    monkeypatch.setattr(bench_cleaning.dynacor_ray, "train", train)
    read, table = bench_cleaning.read(options)
    found = bench_cleaning.split(options, read, table, "noisy", 0)
    assert set(trained) == {
        *(f"{loss}-{cleaning}" for loss in ("ce", "elr") for cleaning in bench_cleaning.CLEANINGS),
        *("ce-relabel", "ce-weigh"),
    }
    rows, test, told = trained["ce-oracle"]
    assert "without" not in told
    for one in (rows, test):
        at = schema.matrix(one[schema.FEATURE])[:, 0].astype(int) // 2
        assert one["given_label"].to_pylist() == true[at].tolist()
    assert trained["elr-cleanlab"][0].num_rows == 20
    rows, _, told = trained["elr-default"]
    at = schema.matrix(rows[schema.FEATURE])[:, 0].astype(int) // 2
    assert rows["given_label"].to_pylist() == noisy[at].tolist()
    assert (rows.num_rows, test.num_rows, told["loss"]) == (30, 10, "elr")
    wrong = noisy[at] != true[at]
    flags = np.arange(30) % 2 == 0
    assert found["wrong"] == wrong.mean()
    assert found["paper f1"] == pytest.approx(2 * (flags & wrong).sum() / (flags.sum() + wrong.sum()))


def test_cleanlab_flags_by_probabilities_of_rows_that_were_not_learned() -> None:
    random = np.random.default_rng(0)
    true = np.arange(90) % 3
    features = (np.eye(3)[true] * 4 + random.normal(size=(90, 3))).astype(np.float32)
    given = np.where(np.arange(90) < 6, (true + 1) % 3, true)
    flags = bench_cleaning.cleanlab_flags(features, given, 0)
    assert flags[:6].mean() > 0.8
    assert flags[6:].mean() < 0.1
