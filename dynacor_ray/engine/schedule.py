"""The learning rate over a training (Table 5): cosine, or steps at milestones; one change per step of SGD."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from dynacor_ray.engine.job import TrainConfig

MIN_LEARNING_RATE = 3e-7
"""Where cosine decay ends."""


def make_schedule(optimizer: Optimizer, config: TrainConfig, steps: int) -> LRScheduler:
    """The schedule of a training of `steps` steps in all."""
    if config.schedule == "multistep":
        milestones = [round(share * steps) for share in config.milestones]
        return MultiStepLR(optimizer, milestones, gamma=config.decay)
    return CosineAnnealingLR(optimizer, T_max=steps, eta_min=MIN_LEARNING_RATE)


def rate_after(config: TrainConfig, share: float) -> float:
    """The learning rate when a share of the training is done, in [0, 1]."""
    if config.schedule == "multistep":
        return config.learning_rate * config.decay ** sum(share >= milestone for milestone in config.milestones)
    return MIN_LEARNING_RATE + (config.learning_rate - MIN_LEARNING_RATE) * (1 + math.cos(math.pi * share)) / 2
