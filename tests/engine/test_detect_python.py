"""What Python holds gives the same answer as a file, in its own order."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

import dynacor_ray
from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.ray_table import staged
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.python_data import open_python
from tests.engine.conftest import ON_RAY
from tests.opened_sources import whole


def test_features_in_memory_and_in_parquet_get_the_same_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    features = (np.eye(3)[truth] + rng.normal(0, 0.1, (300, 3))).astype(np.float32)
    labels = np.where(rng.random(300) < 0.2, (truth + 1) % 3, truth)
    frame = pd.DataFrame(features, index=[f"row {row}" for row in range(300)])
    fast = {"epochs": 3, "cluster": "none", "class_names": {0: "cat", 1: "dog", 2: "fox"}}
    held = dynacor_ray.detect(frame, labels, **fast)
    assert f"Results are kept in {held.run.path.removeprefix(f'{tmp_path}/')}; out= names" in capsys.readouterr().err
    pq.write_table(pa.table({"feature": schema.fixed_size_list(features), "label": labels}), "f.parquet")
    filed = dynacor_ray.detect("f.parquet", **fast, quiet=True)
    there, here = filed.to_pandas(), held.to_pandas()
    assert list(here.index) == list(frame.index)
    assert list(there.index) == list(range(300))
    for name in ("given_label", "predicted_label", "is_label_issue", "label_quality"):
        assert here[name].to_list() == there[name].to_list(), name
    assert here["given_label"].cat.codes.to_list() == labels.tolist()
    wrong, flagged = labels != truth, here["is_label_issue"].to_numpy()
    assert (wrong & flagged).sum() >= 0.9 * wrong.sum()
    assert dynacor_ray.detect(frame, labels, **fast, quiet=True).run.path == held.run.path, "found again"


def test_a_data_set_of_ray_is_read_by_its_own_tasks(cluster: Path, tmp_path: Path) -> None:
    """Its rows keep their order, whatever the order in which tasks end, and come back by it; pictures are images."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    labels = np.where(rng.random(300) < 0.2, (truth + 1) % 3, truth)
    features = (np.eye(3)[truth] + rng.normal(0, 0.1, (300, 3))).astype(np.float32)
    rows = pa.table({"x": schema.fixed_size_list(features), "label": np.array(["cat", "dog", "fox"])[labels]})

    def late_first(block: pa.Table) -> pa.Table:
        time.sleep(0.5 * (block["x"][0].as_py() == features[0].tolist()))
        return block

    blocks = ray.data.from_arrow([rows.slice(start, 50) for start in range(0, 300, 50)])
    held = blocks.map_batches(late_first, batch_format="pyarrow", batch_size=None)
    result = dynacor_ray.detect(held, feature_column="x", out=str(tmp_path / "run"), **ON_RAY)
    found = result.to_pandas()
    assert found["given_label"].to_list() == rows["label"].to_pylist()
    assert found["is_label_issue"][labels != truth].mean() > 0.8
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "what the tasks wrote is gone"
    again = dynacor_ray.detect(ray.data.from_arrow(rows), feature_column="x", out=str(tmp_path / "run"), **ON_RAY)
    assert again.summary == result.summary, "the same rows in other blocks"
    shades = [{"image": np.full((4, 4, 3), shade, np.uint8), "label": shade % 2} for shade in range(6)]
    with staged(ray.data.from_items(shades), locate(str(tmp_path / "staged"))) as table:
        images = whole(open_python(table, None, SourceOptions()))["image"].to_pylist()
    assert [np.asarray(Image.open(io.BytesIO(image)))[0, 0, 0] for image in images] == list(range(6))
    empty = ray.data.from_items(shades).filter(lambda row: False)
    with pytest.raises(DataError, match="Expected labeled rows, but got 0 rows"):
        dynacor_ray.detect(empty, out=str(tmp_path / "empty"), **ON_RAY)
