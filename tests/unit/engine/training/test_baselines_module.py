"""Classifiers of the baselines, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from dynacor_ray.core import schema
from dynacor_ray.core.storage import locate
from dynacor_ray.detectors.cores import CORES_TRAINING
from dynacor_ray.detectors.trained_features import TRAINED_FEATURES
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training.baselines_module import Panel
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.job import Job, TrainConfig
from dynacor_ray.engine.training.worker import make_module
from dynacor_ray.models.heads import MlpHead
from tests.plans import plan_of


def test_the_panels_classifiers_see_their_rows_and_share_nothing() -> None:
    panel = Panel([nn.Linear(4, 3), nn.Linear(4, 2)])
    features = torch.randn(6, 4)
    rows = [torch.tensor([5, 0]), torch.tensor([], dtype=torch.int64)]
    first, second = panel(features, rows)
    assert torch.equal(first, panel.classifiers[0](features[[5, 0]]))
    assert second.shape == (0, 2)
    first.sum().backward()
    assert panel.classifiers[1].weight.grad is None or not panel.classifiers[1].weight.grad.any()


def test_what_the_last_layer_sees_is_kept_in_the_last_epoch(tmp_path: Path) -> None:
    """Of the classifier that is there for it, also beside others, and of padding too, which the files leave out."""
    facts = RowFacts(3, 0, 3, 5, np.zeros(5, np.float32), 1.0, np.array([1, 1, 1]))
    config = TrainConfig(epochs=2, baselines=(CORES_TRAINING, TRAINED_FEATURES))
    module = make_module(Job(config, plan_of(), locate(str(tmp_path)), facts), torch.device("cpu"))
    network = module.network()
    assert isinstance(network, Panel)
    keys = torch.tensor([0, 2, 4, -1])
    batch = Batch(keys, torch.tensor([0, 1, 2, 0]), torch.randn(4, 5), torch.ones(4))
    assert schema.FEATURE not in module.step(network, batch, 0)[1]
    _, recorded = module.step(network, batch, 1)
    inner = network.classifiers[1]
    assert isinstance(inner, MlpHead)
    assert torch.equal(recorded[schema.FEATURE], inner.hidden(inner.scaling(batch.feature)).detach())
    table = module.table(keys[:3].numpy(), {name: value[:3].numpy() for name, value in recorded.items()})
    assert schema.matrix(table[schema.FEATURE]).shape == (3, recorded[schema.FEATURE].shape[1])
