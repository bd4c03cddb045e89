"""Classifiers of the baselines, side by side."""

from __future__ import annotations

import torch
from torch import nn

from dynacor_ray.engine.training.baselines_module import Panel


def test_the_panels_classifiers_see_their_rows_and_share_nothing() -> None:
    panel = Panel([nn.Linear(4, 3), nn.Linear(4, 2)])
    features = torch.randn(6, 4)
    rows = [torch.tensor([5, 0]), torch.tensor([], dtype=torch.int64)]
    first, second = panel(features, rows)
    assert torch.equal(first, panel.classifiers[0](features[[5, 0]]))
    assert second.shape == (0, 2)
    first.sum().backward()
    assert panel.classifiers[1].weight.grad is None or not panel.classifiers[1].weight.grad.any()
