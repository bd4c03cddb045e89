"""The training of a classifier with a loss that bears with wrong labels (§5.5), tested after every epoch."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn

from dynacor_ray.core import schema
from dynacor_ray.core.errors import TrainingError, expected_got
from dynacor_ray.core.packed_dataset import GivenLabels
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.instance_targets import InstanceTargets
from dynacor_ray.engine.training.job import Job, RobustTraining
from dynacor_ray.engine.training.module import Recorded, TrainingModule, classifier, forward, pictures
from dynacor_ray.engine.training.signal_files import SIGNALS, TARGET
from dynacor_ray.engine.training.trained_model import predict, prediction_table
from dynacor_ray.method.corruption import LABEL

PREDICTIONS = "predictions"
"""Folder below `signals/` with each rank's part of the test rows as the last epoch predicts them."""
_LOSS = "loss"


def predictions_name(rank: int, world: int) -> str:
    """File below `signals/predictions/`."""
    return f"{rank:04d}-of-{world:04d}.parquet"


class RobustModule(TrainingModule):
    """A classifier trained by a loss of `robust.losses`: what it predicts is recorded, and the targets of ELR."""

    def __init__(self, job: Job, device: torch.device, training: RobustTraining) -> None:
        self._job, self._device, self._training = job, device, training
        self._targets = InstanceTargets(job.rows.num_classes, device) if training.loss.has_targets else None
        self._history: list[dict[str, Any]] = []
        self._sums = torch.zeros(3, dtype=torch.float64)
        self._network: nn.Module

    def network(self) -> nn.Module:
        """A head on features, or a network on images."""
        self._network = classifier(self._job)
        return self._network

    def begin_epoch(self, epoch: int) -> None:
        """Start to count, with the targets of the epoch before."""
        self._sums = torch.zeros(3, dtype=torch.float64, device=self._device)
        if self._targets is not None:
            if self._job.streamed and self._job.plan.workers > 1:
                self._targets.forget()
            folder = self._job.run / SIGNALS
            self._targets.begin((folder / name for name in self.committed[str(epoch - 1)]) if epoch else None)

    def step(self, model: nn.Module, batch: Batch, epoch: int) -> tuple[torch.Tensor, Recorded]:
        """Weighted mean loss of the real rows."""
        if self._job.config.augmentation is not None:
            batch = pictures(self._job.config.augmentation, batch, epoch)
        logits = forward(model, batch).float()
        before = self._targets.of(batch.key) if self._targets is not None else None
        losses, targets = self._training.loss.per_row(logits, batch.label, epoch, before)
        seen = {_LOSS: losses.detach(), LABEL: batch.label, schema.PREDICTED: logits.detach().argmax(dim=1).int()}
        if targets is not None:
            seen[TARGET] = targets
        return (losses * batch.weight).sum() / (batch.key >= 0).sum().clamp(min=1), seen

    def record(self, keys: torch.Tensor, seen: Recorded) -> Recorded:
        """The predicted class, and the target where the loss keeps one."""
        real = (keys >= 0).to(self._device)
        agrees = seen[schema.PREDICTED] == seen[LABEL]
        self._sums += torch.stack([(seen[_LOSS] * real).sum(), (agrees & real).sum(), real.sum()]).double()
        if self._targets is not None:
            self._targets.keep(keys, seen[TARGET])
        return {name: value for name, value in seen.items() if name in (schema.PREDICTED, TARGET)}

    def table(self, keys: np.ndarray, recorded: dict[str, np.ndarray]) -> pa.Table:
        """Columns key and predicted; target where there is one."""
        columns = {schema.KEY: pa.array(keys), schema.PREDICTED: pa.array(recorded[schema.PREDICTED])}
        if TARGET in recorded:
            columns[TARGET] = schema.fixed_size_list(recorded[TARGET])
        return pa.table(columns)

    def end_epoch(self, epoch: int, world: int) -> None:
        """Merge what the ranks counted, and test.

        Raises:
            TrainingError: The loss is no longer finite.
        """
        if world > 1:
            dist.all_reduce(self._sums)
        loss, agrees, rows = self._sums.tolist()
        if not np.isfinite(loss):
            got = f"one that is not in epoch {epoch + 1}"
            raise TrainingError(expected_got("a finite loss", got, "lower --learning-rate, with another --out"))
        figures = {"epoch": epoch + 1, "loss": loss / rows, "train_agreement": agrees / rows, "world": world}
        if self._training.test is not None:
            figures |= {"test_accuracy": self._test(epoch, world)}
        self._history.append(figures)

    def _test(self, epoch: int, world: int) -> float:
        """Accuracy on the test rows, each rank on its part; the last epoch's predictions are written."""
        assert self._training.test is not None
        rank = dist.get_rank() if world > 1 else 0
        if world > 1:  # statistics of batch norm are each rank's own
            for buffer in self._network.buffers():
                dist.broadcast(buffer, 0)
        counts = torch.zeros(2, dtype=torch.float64, device=self._device)
        augmentation, found = self._job.config.augmentation, []
        center = dataclasses.replace(augmentation, kind="none") if augmentation is not None else None
        for piece in self._training.test.pieces[rank::world]:
            table = self._training.test.read(piece, self._test_labels)
            if not table.num_rows:
                continue
            labels = table[LABEL].to_numpy()
            logits = predict(self._network, schema.matrix(table[schema.FEATURE]), self._device, center)
            counts[0] += (logits.argmax(dim=1) == torch.from_numpy(labels.copy()).to(self._device)).sum()
            counts[1] += len(labels)
            if epoch + 1 == self._job.config.epochs:
                found.append(prediction_table(table[schema.KEY].to_numpy() >> 1, labels, logits))
        if found:
            self._predictions(rank, world).write_table(pa.concat_tables(found), compression="zstd")
        if world > 1:
            dist.all_reduce(counts)
        return float(counts[0] / counts[1])

    @functools.cached_property
    def _test_labels(self) -> GivenLabels:
        assert self._training.test is not None
        return self._training.test.dataset.labels()

    def _predictions(self, rank: int, world: int) -> Location:
        return self._job.run / SIGNALS / PREDICTIONS / predictions_name(rank, world)

    def state(self) -> dict[str, Any]:
        """The figures of the epochs; targets are read back from what was recorded."""
        return {"history": self._history}

    def restore(self, saved: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self._history = saved["history"]

    def figures(self) -> list[dict[str, Any]]:
        """Loss, agreement with the labels, and test accuracy where there are test rows."""
        return self._history
