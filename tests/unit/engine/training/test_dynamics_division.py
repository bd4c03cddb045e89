"""DDyna-S: DynaCor's detector on the epochs so far says which labels are right, whatever the blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dynacor_ray.core import schema
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training import dynamics_division
from dynacor_ray.engine.training.dynamics_division import DynamicsDivision
from dynacor_ray.engine.training.job import Job, RobustTraining, TrainConfig
from dynacor_ray.engine.training.signal_files import SIGNALS
from dynacor_ray.method.clustering import ClusteringConfig, fit
from dynacor_ray.robust.losses import RobustLoss
from tests.plans import plan_of

CPU = torch.device("cpu")
ROWS, EPOCHS = 60, 3
CLUSTERING = ClusteringConfig(epochs=2)
ORIGINALS = np.arange(ROWS) * 2
COPIES = ORIGINALS[::3] + 1
KEYS = np.sort(np.concatenate([ORIGINALS, COPIES]))
MARGINS = np.random.default_rng(0).normal(size=(len(KEYS), EPOCHS + 1)).astype(np.float16)
MARGINS[KEYS & 1 == 0] += 1


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """Two files per epoch, of rows as they came; the last epoch does not count."""
    run, committed = tmp_path_factory.mktemp("run"), {}
    for epoch in range(EPOCHS + 1):
        committed[str(epoch)] = [f"epoch={epoch:05d}/{part}.parquet" for part in "ab"]
        first = np.random.default_rng(epoch).permutation(len(KEYS)) % 2 == 0
        for name, rows in zip(committed[str(epoch)], (first, ~first), strict=True):
            table = pa.table({schema.KEY: KEYS[rows], schema.MARGIN: MARGINS[rows, epoch]})
            (locate(str(run)) / SIGNALS / name).write_table(table)
    return run, committed


def division_of(run: Path, **more: Any) -> DynamicsDivision:
    facts = RowFacts(ROWS, len(COPIES), 3, 4, np.zeros(4, np.float32), 1.0, np.array([20, 20, 20]))
    loss = RobustLoss.published("ce", "cifar10", 10)
    training = RobustTraining(loss, clustering=CLUSTERING, **more)
    return DynamicsDivision(Job(TrainConfig(robust=training), plan_of(), locate(str(run)), facts), CPU)


@pytest.mark.parametrize("block", [1_000_000, 7])
def test_it_is_the_clustering_of_the_epochs_before(
    block: int, recorded: tuple[Path, dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamics_division, "BLOCK_ROWS", block)
    division = division_of(recorded[0])
    keys = torch.tensor([7, -1, 0, 118, 1])
    assert division.clean(keys).tolist() == [1.0] * 5, "nothing is known yet"
    division.begin(EPOCHS, recorded[1])
    dynamics, is_copy = MARGINS[:, :EPOCHS], KEYS & 1 == 1
    has_copy = ~is_copy & np.isin(KEYS + 1, KEYS)
    noisy = fit(dynamics, is_copy, has_copy, CLUSTERING).assign(dynamics)
    expected = [1.0 - noisy[np.flatnonzero(key == KEYS)[0]] if key >= 0 else 1.0 for key in keys.tolist()]
    assert division.clean(keys).tolist() == pytest.approx(expected)
    assert 0 < np.mean([one < 0.5 for one in division.clean(torch.from_numpy(KEYS)).tolist()]) < 1


def test_a_sample_has_instances_with_their_copies(
    recorded: tuple[Path, dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(dynamics_division, "fit", lambda *given: (seen.append(given), fit(*given))[1])
    division_of(recorded[0], clustering_sample=40).begin(EPOCHS, recorded[1])
    margins, is_copy, has_copy, _ = seen[0]
    assert 10 < len(margins) < len(KEYS)
    assert has_copy.sum() == is_copy.sum() > 0
