"""One step and one epoch of the training with a robust loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dynacor_ray.core import schema
from dynacor_ray.core.errors import TrainingError
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.job import Job, RobustTraining, TrainConfig, TrainPlan
from dynacor_ray.engine.training.robust_module import RobustModule
from dynacor_ray.engine.training.signal_files import TARGET
from dynacor_ray.engine.training.worker import make_module
from dynacor_ray.robust.elr import elr_loss, update_targets
from dynacor_ray.robust.losses import RobustLoss
from tests.plans import plan_of

CPU = torch.device("cpu")
KEYS = torch.tensor([0, 2, 4, -1])
LABELS = torch.tensor([0, 1, 2, 0])
FEATURES = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
WEIGHTS = torch.tensor([1.0, 0.5, 1.5, 0.0])
BATCH = Batch(KEYS, LABELS, FEATURES, WEIGHTS)


def module_of(folder: Path, loss: str, plan: TrainPlan | None = None) -> RobustModule:
    facts = RowFacts(3, 0, 3, 5, np.zeros(5, np.float32), 1.0, np.array([1, 1, 1]))
    training = RobustTraining(RobustLoss.published(loss, "cifar10", 10))
    job = Job(TrainConfig(epochs=2, robust=training), plan or plan_of(), locate(str(folder)), facts)
    module = make_module(job, CPU)
    assert isinstance(module, RobustModule)
    return module


def epoch_of(module: RobustModule, network: torch.nn.Module, epoch: int) -> tuple[float, dict[str, Any]]:
    module.committed = {"0": []}
    module.begin_epoch(epoch)
    loss, seen = module.step(network, BATCH, epoch)
    kept = module.record(KEYS, seen)
    module.end_epoch(epoch, 1)
    return float(loss.detach()), kept


def test_rows_count_by_their_weight_and_padding_does_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = module_of(tmp_path, "ce")
    network = module.network()
    loss, kept = epoch_of(module, network, 0)
    losses = torch.nn.functional.cross_entropy(network(FEATURES), LABELS, reduction="none").detach()
    assert loss == pytest.approx(float((losses[:3] * WEIGHTS[:3]).sum() / 3))
    assert set(kept) == {schema.PREDICTED}
    (figures,) = module.state()["history"]
    agrees = (network(FEATURES).argmax(dim=1) == LABELS)[:3].double().mean()
    assert figures["train_agreement"] == pytest.approx(float(agrees))
    assert figures["loss"] == pytest.approx(float(losses[:3].mean()))


def test_targets_go_on_from_epoch_to_epoch(tmp_path: Path) -> None:
    """Two epochs of a network that stays as it is, beside the formulas."""
    torch.manual_seed(0)
    module = module_of(tmp_path, "elr")
    network = module.network()
    logits = network(FEATURES).detach()
    targets = torch.zeros(4, 3)
    for epoch in range(2):
        targets = update_targets(targets, logits, 0.7)
        expected = elr_loss(logits, LABELS, targets, 3.0)
        loss, kept = epoch_of(module, network, epoch)
        assert loss == pytest.approx(float((expected * WEIGHTS).sum() / 3), abs=1e-5)
        assert torch.allclose(kept[TARGET][:3], targets[:3])
    table = module.table(KEYS[:3].numpy(), {name: value[:3].numpy() for name, value in kept.items()})
    assert table.column_names == [schema.KEY, schema.PREDICTED, TARGET]


@pytest.mark.parametrize("memory", [0, 1 << 40], ids=["streamed", "cached"])
def test_streamed_rows_bring_their_targets_along(memory: int, tmp_path: Path) -> None:
    """Of several workers each may get other rows in the next epoch: all targets are read from what was recorded."""
    module = module_of(tmp_path, "elr", plan_of(2, cache_bytes=memory))
    held = torch.full((2, 3), 0.5)
    signals = locate(str(tmp_path)) / "signals"
    recorded = pa.table({schema.KEY: [0, 2, 4], TARGET: schema.fixed_size_list(np.full((3, 3), 0.25, np.float32))})
    (signals / "a.parquet").write_table(recorded)
    module.committed = {"0": ["a.parquet"]}
    assert module._targets is not None
    module._targets.keep(KEYS[:2], held)
    module.begin_epoch(1)
    expected = held if memory else held / 2
    assert torch.equal(module._targets.of(KEYS[:2]), expected)


def test_a_diverging_loss_says_what_to_do(tmp_path: Path) -> None:
    module = module_of(tmp_path, "ce")
    network = module.network()
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"Expected a finite loss, .* in epoch 1; lower --learning-rate"):
        epoch_of(module, network, 0)
