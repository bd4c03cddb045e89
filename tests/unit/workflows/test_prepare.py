"""What is checked of data and options before anything starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.workflows.prepare import default_out, prepare


def test_data_must_be_images(tmp_path: Path) -> None:
    features = schema.fixed_size_list(np.zeros((10, 4), np.float32))
    pq.write_table(pa.table({"label": ["a", "b"] * 5, "feature": features}), tmp_path / "f.parquet")
    with pytest.raises(ConfigError, match=r"images for --network cifar_resnet8, but got features in .*; leave out"):
        prepare(DetectConfig(data=str(tmp_path / "f.parquet"), network="cifar_resnet8"))


@pytest.mark.parametrize("data", ["..", "../..", "x/..", "../", ".", "/", "cifar10:.."])
def test_results_go_below_runs_whatever_the_data_are_called(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert default_out(data) == "runs/detect"
