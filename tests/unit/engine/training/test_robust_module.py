"""One step and one epoch of the training with a robust loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynacor_ray.core import schema
from dynacor_ray.core.errors import TrainingError
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.job import Job, RobustTraining, TrainConfig
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


def module_of(folder: Path, loss: str) -> RobustModule:
    facts = RowFacts(3, 0, 3, 5, np.zeros(5, np.float32), 1.0, np.array([1, 1, 1]))
    training = RobustTraining(RobustLoss.published(loss, "cifar10", 10))
    job = Job(TrainConfig(epochs=2, robust=training), plan_of(), locate(str(folder)), facts)
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


def test_a_diverging_loss_says_what_to_do(tmp_path: Path) -> None:
    module = module_of(tmp_path, "ce")
    network = module.network()
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"Expected a finite loss, .* in epoch 1; lower --learning-rate"):
        epoch_of(module, network, 0)
