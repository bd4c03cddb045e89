"""What is checked of data and options before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, RunDirectoryError
from dynacor_ray.runs import directory as run_directory
from dynacor_ray.sources.registry import from_anywhere
from dynacor_ray.workflows.prepare import default_out, prepare, sized_for


def test_data_must_be_images(tmp_path: Path) -> None:
    features = schema.fixed_size_list(np.zeros((10, 4), np.float32))
    pq.write_table(pa.table({"label": ["a", "b"] * 5, "feature": features}), tmp_path / "f.parquet")
    with pytest.raises(ConfigError, match=r"images for --network cifar_resnet8, but got features in .*; leave out"):
        prepare(DetectConfig(data=str(tmp_path / "f.parquet"), network="cifar_resnet8"))


@pytest.mark.parametrize("data", ["..", "../..", "x/..", "../", ".", "/", "cifar10:.."])
def test_results_go_below_runs_whatever_the_data_are_called(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert default_out(data) == "runs/detect"


@pytest.mark.parametrize(
    ("rows", "options", "batch", "rate"),
    [
        (4_096, {}, 128, 0.02),
        (4_097, {}, 512, 0.08),
        (100_001, {}, 1024, 0.16),
        (100_001, {"variant": "paper"}, 128, 0.02),
        (100_001, {"network": "cifar_resnet8"}, 128, 0.02),
        (100_001, {"batch_size": 256, "learning_rate": 0.1}, 256, 0.1),
        (5_000, {"learning_rate": 0.1}, 512, 0.4),
    ],
)
def test_larger_data_take_larger_steps(rows: int, options: dict[str, Any], batch: int, rate: float) -> None:
    """The published variants and networks keep the paper's batch, and what was chosen stays."""
    sized = sized_for(DetectConfig(data="x", **options), rows)
    assert (sized.batch_size, sized.learning_rate) == (batch, pytest.approx(rate))
    assert sized_for(sized, rows) == sized


def test_data_are_found_from_any_folder_and_may_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is the same whatever path leads to its data, and another one for other data at the same place."""
    features = schema.fixed_size_list(np.zeros((10, 4), np.float32))
    (tmp_path / "old").mkdir()
    pq.write_table(pa.table({"label": ["a", "b"] * 5, "feature": features}), tmp_path / "old" / "f.parquet")
    monkeypatch.chdir(tmp_path / "old")
    first = prepare(DetectConfig(data="f.parquet", out=str(tmp_path / "run")))
    assert first.config.data == str(tmp_path / "old" / "f.parquet")
    run_directory.claim(first.run, first.identity(), {})
    (tmp_path / "old" / "f.parquet").rename(tmp_path / "moved.parquet")
    monkeypatch.chdir(tmp_path)
    moved = prepare(DetectConfig(data="moved.parquet", out="run"))  # its name counts
    with pytest.raises(RunDirectoryError, match=r"other data: data='.*f.parquet' there, '.*moved.parquet' here"):
        run_directory.check(moved.run, moved.identity())
    (tmp_path / "new").mkdir()
    (tmp_path / "moved.parquet").rename(tmp_path / "new" / "f.parquet")
    again = prepare(DetectConfig(data="new/f.parquet", out="run"))
    run_directory.check(again.run, again.identity())


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("demo", "demo"),
        ("s3://bucket/x", "s3://bucket/x"),
        ("a/b.csv", "/usr/a/b.csv"),
        ("cifar10:data", "cifar10:/usr/data"),
        ("in-memory:x", "in-memory:x"),
    ],
)
def test_local_paths_become_absolute(data: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    assert from_anywhere(data) == found
