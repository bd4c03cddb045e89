"""The learning rate over a training (Table 5): cosine, or steps at milestones; one change per step of SGD."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from dynacor_ray.engine.training.job import TrainConfig

MIN_LEARNING_RATE = 3e-7
"""Where cosine decay ends."""


def make_schedule(optimizer: Optimizer, config: TrainConfig, steps: int) -> LRScheduler:
    """The schedule of a training of `steps` steps in all."""
    if config.lr_schedule == "multistep":
        return MultiStepLR(optimizer, _milestones(config, steps), gamma=config.lr_decay)
    return CosineAnnealingLR(optimizer, T_max=steps, eta_min=MIN_LEARNING_RATE)


def rate_after(config: TrainConfig, step: int, steps: int) -> float:
    """The learning rate when `step` of `steps` steps are done: that of `make_schedule` then."""
    if config.lr_schedule == "multistep":
        passed = sum(step >= milestone for milestone in _milestones(config, steps))
        return config.learning_rate * config.lr_decay**passed
    return MIN_LEARNING_RATE + (config.learning_rate - MIN_LEARNING_RATE) * (1 + math.cos(math.pi * step / steps)) / 2


def _milestones(config: TrainConfig, steps: int) -> list[int]:
    """In steps, of which a share need not be a whole number."""
    return [round(share * steps) for share in config.lr_milestones]
