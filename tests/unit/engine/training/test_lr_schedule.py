"""The learning rate after each step: cosine, and the steps of Table 5."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from dynacor_ray.core.eager_optimizer import eager
from dynacor_ray.engine.training.lr_schedule import MIN_LEARNING_RATE, make_schedule, rate_after
from tests.image_jobs import CONFIG


@pytest.mark.parametrize(
    "changes",
    [{}, {"lr_schedule": "multistep", "lr_milestones": (0.5, 0.75)}, {"lr_schedule": "multistep", "lr_milestones": ()}],
)
@pytest.mark.parametrize("steps", [40, 3, 9])  # of 9 steps, neither half nor three quarters are a whole number
def test_the_rate_after_a_step_is_that_of_the_schedule(steps: int, changes: dict[str, Any]) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    optimizer = eager(torch.optim.SGD)([nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    schedule = make_schedule(optimizer, config, steps)
    for step in range(1, steps + 1):
        optimizer.step()
        schedule.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate_after(config, step, steps), abs=1e-9)


def test_steps_of_table_5() -> None:
    config = dataclasses.replace(CONFIG, lr_schedule="multistep", lr_milestones=(0.5, 0.75), lr_decay=0.1)
    assert [rate_after(config, step, 100) for step in (0, 49, 50, 74, 75, 100)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )
    assert rate_after(CONFIG, 100, 100) == pytest.approx(MIN_LEARNING_RATE)
