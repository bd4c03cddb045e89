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
from dynacor_ray.core.errors import ConfigError
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
