"""A network trained from pixels, end to end on tiny images: coverage, no memory, streaming, a smaller batch."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.errors import TrainingError
from dynacor_ray.workflows.analyze_signals import analyze_signals
from dynacor_ray.workflows.compare import compare
from dynacor_ray.workflows.detect import detect
from tests.engine.faults import assert_whole

ROWS = 91


@pytest.fixture
def image_set(tmp_path: Path) -> Path:
    """Noise on one of two tints, 15% of the labels wrong; sorted by class, an odd number for two workers."""
    random = np.random.default_rng(0)
    true = np.sort(random.integers(0, 2, ROWS))
    given = np.where(random.random(ROWS) < 0.15, 1 - true, true)
    images = []
    for label in true:
        pixels = random.integers(0, 120, (12, 12, 3), np.uint8)
        pixels[:, :, label] += 100
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        images.append(data.getvalue())
    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"image": images, "given_label": given, "true_label": true}), path)
    return path


def short_of_memory(most: int) -> Callable[[dict[str, Any]], str | None]:
    """The worker's function on a machine where rank 1 has no memory for more than `most` rows at a time."""

    def train(told: dict[str, Any]) -> str | None:
        import ray.train
        import torch

        from dynacor_ray.engine.training import cluster_training, worker

        step = worker.TrainState.step

        def limited_step(self: Any, batch: Any, epoch: int) -> Any:
            if len(batch.key) > most and ray.train.get_context().get_world_rank() == 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return step(self, batch, epoch)

        worker.TrainState.step = limited_step  # type: ignore[method-assign]
        return cluster_training.train_worker(told)

    return train


def test_a_network_from_pixels_in_one_process(image_set: Path, tmp_path: Path) -> None:
    options = {"network": "cifar_resnet8", "image_size": 16, "epochs": 6, "learning_rate": 0.1, "batch_size": 16}
    result = detect(
        str(image_set), out=str(tmp_path / "run"), clustering_epochs=1, quiet=True, cluster="none", **options
    )
    assert_whole(tmp_path / "run", ROWS, 6)
    assert result.summary.encoder.startswith("network-cifar_resnet8-16-")
    assert result.summary.evaluation["auroc"] > 0.8
    assert not pq.read_table(tmp_path / "run" / "dynamics.parquet")["leave_one_out_margin"].to_numpy().any()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_network_from_pixels(image_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers, rows streamed from small units; what runs out of memory may have a smaller batch in its place."""
    monkeypatch.setattr("dynacor_ray.engine.data.embed.MAX_UNIT_ROWS", 16)
    monkeypatch.setattr("dynacor_ray.engine.training.cluster_training.train_worker", short_of_memory(10))
    run, options = tmp_path / "run", {"network": "cifar_resnet8", "image_size": 16, "epochs": 6, "learning_rate": 0.1}
    options |= {"workers": 2, "worker_cache_gb": 0.0, "max_failures": 1, "clustering_epochs": 1, "quiet": True}
    with pytest.raises(TrainingError, match=r"20 rows per step on each of 2 worker.*--batch-size 20.* same --out"):
        detect(str(image_set), out=str(run), batch_size=40, **options)
    assert [path.name for path in run.iterdir() if path.name != "cache"] == []
    result = detect(str(image_set), out=str(run), batch_size=16, **options)
    assert_whole(run, ROWS, 6)
    assert 0 <= result.summary.training_waited_for_rows < 1
    assert result.summary.evaluation["auroc"] > 0.8


def outvoted(data: Path, run: Path) -> float:
    """Share of the labels that lose the vote of the 10 nearest by what the last epoch's last layer saw."""
    (manifest,) = run.glob("cells/given-seed0/panel-*features/signals/manifest.json")
    listed = json.loads(manifest.read_text())
    assert list(listed) == ["0", "1"]
    assert "feature" not in pq.read_schema(manifest.parent / listed["0"][0]).names
    features = schema.matrix(pq.read_table(manifest.parent / listed["1"][0])["feature"])
    given = pq.read_table(data)["given_label"].to_numpy()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    lost = 0
    for row, label in zip(similarity, given, strict=True):
        near = np.argsort(-row)[:10]
        votes = np.bincount(given[near], weights=np.maximum(row[near], 0), minlength=2)
        lost += votes[label] < votes[1 - label]
    return float(lost / len(given))


def test_experiments_on_a_network(image_set: Path, tmp_path: Path) -> None:
    """Table 2 and the ResNet halves of Figs. 2, 5 and 6: detectors and signals of networks trained from pixels."""
    quick: dict[str, Any] = {"network": "cifar_resnet8", "image_size": 12, "epochs": 2, "clustering_epochs": 1}
    quick |= {"quiet": True, "cluster": "none"}
    names = ["dynacor", "dynacor_paper", "aum", "simifeat_v", "fm_srm"]
    result = compare(str(image_set), out=str(tmp_path / "run"), detectors=names, **quick)
    table = result.to_pandas().set_index("detector")
    assert result.summary["failures"] == []
    assert sorted(table.index) == sorted(names)
    run = detect(str(image_set), out=str(tmp_path / "detect"), **quick)
    flagged = run.issues.to_pandas()["is_label_issue"].mean()
    assert table["flagged_share"]["dynacor"] == pytest.approx(flagged), "as `detect` with the same options"
    assert table["flagged_share"]["simifeat_v"] == pytest.approx(outvoted(image_set, tmp_path / "run"))

    wanted: dict[str, Any] = {"label_noise": ["hard_rows:0.2"], "signals": ["alignment"]}
    found = analyze_signals(str(image_set), out=str(tmp_path / "signals"), **wanted, **quick)
    assert found.summary["failures"] == []
    assert found.to_pandas()["signal"].dropna().unique() == ["alignment"]
    assert "the images at 32 px" in found.summary["config"]["made_from"]["hard_rows:0.2"]
