"""A training of a small network on images: its job, and a batch of random images."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.job import Job, TrainConfig
from dynacor_ray.models.augmentation import TrainingAugmentation
from dynacor_ray.models.image_classifiers import parse_network
from tests.plans import plan_of

SIDE, CLASSES, ROWS = 8, 3, 40
CPU = torch.device("cpu")
CONFIG = TrainConfig(
    epochs=4,
    batch_size=16,
    learning_rate=0.1,
    network=parse_network("cifar_resnet8", SIDE),
    augmentation=TrainingAugmentation(SIDE, SIDE, "crop_flip", 0),
)


def job_of(rows: int = ROWS, workers: int = 1, cache_bytes: int = 1 << 30, **changes: Any) -> Job:
    counts, nothing = np.array([rows, 0, 0]), np.empty(0, np.float32)
    facts = RowFacts(rows, 0, CLASSES, 3 * SIDE * SIDE, nothing, 1.0, counts, value_type="uint8")
    plan = plan_of(workers, cache_bytes=cache_bytes)
    return Job(dataclasses.replace(CONFIG, **changes), plan, locate("unused"), facts)


def batch(rows: int = ROWS, padding: int = 0) -> Batch:
    random = np.random.default_rng(0)
    key = np.concatenate([np.arange(rows) << 1, np.full(padding, -1)])
    images = random.integers(0, 256, (len(key), 3 * SIDE * SIDE), np.uint8)
    label = torch.from_numpy(random.integers(0, CLASSES, len(key)))
    weight = torch.from_numpy((key >= 0).astype(np.float32))
    return Batch(torch.from_numpy(key), label, torch.from_numpy(images), weight)
