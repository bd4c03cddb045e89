"""What a training job needs to know of its kind: the base of `dynamics_module` and `baselines_module`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.job import Job
from dynacor_ray.engine.training.signal_files import SignalManifest
from dynacor_ray.models.augmentation import TrainingAugmentation
from dynacor_ray.models.heads import build_classifier
from dynacor_ray.models.image_classifiers import build_network

Recorded = dict[str, torch.Tensor]
"""Name -> value per row, (B,) or (B, n), detached."""


class TrainingModule(ABC):
    """What a training job needs to know besides how to make steps, commit and resume."""

    committed: SignalManifest
    """Files of the epochs before, of all ranks; set before each epoch."""

    @abstractmethod
    def network(self) -> nn.Module:
        """A fresh network; torch is seeded before."""

    @abstractmethod
    def step(self, model: nn.Module, batch: Batch, epoch: int) -> tuple[torch.Tensor, Recorded]:
        """Loss of one batch, a scalar, and what `record` needs of its rows; rows with a negative key are padding."""

    def record(self, keys: torch.Tensor, seen: Recorded) -> Recorded:
        """What is recorded of thousands of rows at once, from what their steps gave; the same names in every call.

        keys: int64 (n,), on the CPU.
        """
        return seen

    @abstractmethod
    def table(self, keys: np.ndarray, recorded: dict[str, np.ndarray]) -> pa.Table:
        """Recorded values as they are stored, rows sorted by key. Raises TrainingError for values that cannot be."""

    def groups(self, network: nn.Module) -> list[list[nn.Parameter]]:
        """Parameters by group; `rate_factors` has one factor for each."""
        return [list(network.parameters())]

    def rate_factors(self, epoch: int) -> Sequence[float]:
        """What the learning rate of each group is multiplied by in an epoch."""
        return (1.0,)

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027
        """Called on every rank before the first step of an epoch."""

    def end_epoch(self, epoch: int, world: int) -> None:  # noqa: B027
        """Called on every rank after the last step of an epoch, to merge what the ranks counted."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps besides model, optimizer and schedule: tensors and plain values."""
        return {}

    def restore(self, saved: dict[str, Any]) -> None:  # noqa: B027
        """Inverse of `state`."""

    def figures(self) -> list[dict[str, Any]]:
        """What is told of the epochs so far while the training goes on: `epoch`, counted from 1, and others by name."""
        return []


def forward(model: nn.Module, batch: Batch, *more: Any) -> Any:
    """The network on a batch, in bfloat16 on a GPU; `more` are further arguments of the network."""
    device = batch.feature.device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
        return model(batch.feature, *more)


def pictures(augmentation: TrainingAugmentation, batch: Batch, epoch: int) -> Batch:
    """The batch with its rows as augmented images, uint8 (B, S, S, 3).

    Padding shows the image of a real row of the batch: it has no weight in the loss, but its pixels count for batch
    norm, which so sees nothing that it would not see anyway.
    """
    images = batch.feature.view(-1, augmentation.stored, augmentation.stored, 3)
    padding = batch.key < 0
    if bool(padding.any()) and not bool(padding.all()):
        real = images[int(torch.argmin(padding.int()))]
        images = torch.where(padding.to(images.device)[:, None, None, None], real, images)
    return batch._replace(feature=augmentation(images, batch.key, epoch))


def classifier(job: Job, extra_classes: int = 0) -> nn.Module:
    """The classifier of Table 5 for the rows of a job, with further classes."""
    rows: RowFacts = job.rows
    classes = rows.num_classes + extra_classes
    if job.config.network is not None:
        return build_network(job.config.network, classes)
    return build_classifier(
        job.config.classifier, num_features=rows.dim, num_classes=classes, mean=rows.mean, scale=rows.scale
    )
