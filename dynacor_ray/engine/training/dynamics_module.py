"""DynaCor's training (§4.3): what it records of every row in the pass that it makes anyway."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn

from dynacor_ray.core import schema
from dynacor_ray.decision.confident_joint import PADDING, JointCounter
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.job import Job
from dynacor_ray.engine.training.left_out_scores import LeftOutScores
from dynacor_ray.engine.training.module import Recorded, TrainingModule, classifier, forward, pictures
from dynacor_ray.engine.training.signal_files import signal_table
from dynacor_ray.method.corruption import LABEL, is_selected
from dynacor_ray.method.dynamics import logit_margin, to_float16_keeping_sign
from dynacor_ray.method.signals import COLUMNS, BatchOutputs, ClassGrams, record_signals

_LOGITS, _PRE_LOGITS = "logits", "pre_logits"
_MOST_INT16 = 2**15


class DynamicsModule(TrainingModule):
    """DynaCor's classifier (§4.3): margin and top-1 class of every row, and the confident joint of the originals.

    On the way the leave-one-out margins of a ridge regression: summed up in the first epoch, asked in the second.
    """

    def __init__(self, job: Job, device: torch.device) -> None:
        self._job, self._device = job, device
        self._thresholds: torch.Tensor | None = None
        self._joints: dict[int, torch.Tensor] = {}
        self._confidence: dict[int, torch.Tensor] = {}
        self._counter: JointCounter
        self._epoch = 0
        rows, config = job.rows, job.config
        # On images there are no fixed features to fit it to.
        regresses = config.network is None and config.epochs > schema.LEAVE_ONE_OUT_EPOCH
        self._records_scores = regresses and config.class_scores
        self._left_out = LeftOutScores(rows, config.seed, device, self._records_scores) if regresses else None

    def network(self) -> nn.Module:
        """The classifier of Table 5: a head on features, or a network on images."""
        return classifier(self._job)

    def begin_epoch(self, epoch: int) -> None:
        """Start to count, with the class thresholds of the epoch before."""
        self._epoch, rows = epoch, self._job.rows
        self._counter = JointCounter(rows.num_classes, self._thresholds, self._device)
        if epoch == 0 and self._left_out is not None:
            self._left_out.begin()

    def step(self, model: nn.Module, batch: Batch, epoch: int) -> tuple[torch.Tensor, Recorded]:
        """Weighted mean cross-entropy of the real rows (Eq. 2)."""
        logits, loss = self.loss(model, batch, epoch)
        seen = {_LOGITS: logits.detach(), LABEL: batch.label}
        return loss, seen | ({schema.FEATURE: batch.feature} if self._looks_at_features else {})

    def loss(self, model: nn.Module, batch: Batch, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits float32 (B, C), and the loss: all that a step needs where nothing is recorded."""
        if self._job.config.augmentation is not None:
            batch = pictures(self._job.config.augmentation, batch, epoch)
        logits = forward(model, batch).float()
        losses = nn.functional.cross_entropy(logits, batch.label, reduction="none")
        return logits, (losses * batch.weight).sum() / (batch.key >= 0).sum().clamp(min=1)

    def record(self, keys: torch.Tensor, seen: Recorded) -> Recorded:
        """Signals and top-1 class; in the second epoch the leave-one-out margin."""
        logits, labels = seen[_LOGITS], seen[LABEL]
        predicted = self._counter.add(logits, labels, torch.where(keys < 0, PADDING, keys & 1))  # a copy's key is odd
        recorded = self.signals(keys, seen) | {schema.PREDICTED: predicted.int()}
        if self._looks_at_features and self._left_out is not None and self._epoch < schema.LEAVE_ONE_OUT_EPOCH:
            self._left_out.add(keys, seen[schema.FEATURE], labels, self._is_fitted(keys))
        if self._epoch == schema.LEAVE_ONE_OUT_EPOCH or (self._records_scores and self._epoch in schema.EARLY_EPOCHS):
            recorded |= self._class_scores(keys, seen)
        return recorded

    def signals(self, keys: torch.Tensor, seen: Recorded) -> Recorded:
        """What is recorded in every epoch besides the top-1 class."""
        return {schema.MARGIN: logit_margin(seen[_LOGITS], seen[LABEL])}

    @property
    def _looks_at_features(self) -> bool:
        return self._left_out is not None and self._left_out.is_open

    def _is_fitted(self, keys: torch.Tensor) -> torch.Tensor:
        """Originals without a copy, bool (n,) on the device. keys: int64 (n,), negative for padding."""
        key, corruption = keys.numpy(), self._job.rows.corruption
        fitted = (key >= 0) & (key & 1 == 0)
        if corruption is not None:
            fitted &= ~is_selected(key >> 1, corruption)
        return torch.from_numpy(fitted).to(self._device)

    def _class_scores(self, keys: torch.Tensor, seen: Recorded) -> Recorded:
        """In the second epoch the margin without the row's own label, float (n,), 0 where there is no regression.

        And what the label noise model reads, where it is wanted: scores of likely classes.
        """
        logits, labels, left_out = seen[_LOGITS], seen[LABEL], self._left_out
        asks = self._epoch == schema.LEAVE_ONE_OUT_EPOCH
        found = {schema.LEAVE_ONE_OUT: torch.zeros(len(keys), device=self._device)} if asks else {}
        if left_out is None:
            return found
        classes = left_out.likely(keys, seen.get(schema.FEATURE), labels)
        scores = {schema.EARLY_LOGITS: (logits - logits.mean(dim=1, keepdim=True)).gather(1, classes)}
        if asks and self._looks_at_features:
            scores |= left_out.ask(keys, seen[schema.FEATURE], labels, self._is_fitted(keys), classes)
        if schema.RIDGE_SCORES in scores:  # the label is the first of the classes
            found[schema.LEAVE_ONE_OUT] = logit_margin(scores[schema.RIDGE_SCORES], torch.zeros_like(labels))
        if not self._records_scores:
            return found
        small = torch.int16 if self._job.rows.num_classes < _MOST_INT16 else torch.int32
        return found | {name: one.half() for name, one in scores.items()} | {schema.LIKELY_CLASSES: classes.to(small)}

    def end_epoch(self, epoch: int, world: int) -> None:
        """Merge all ranks' class statistics: this epoch's joint, and the thresholds for the next one."""
        counter = self._counter
        if world > 1:
            for total in (counter.probability, counter.labeled, counter.counts, counter.confidence):
                dist.all_reduce(total)
        if self._thresholds is not None:
            self._joints[epoch] = counter.cells()
        self._confidence[epoch] = counter.confidence.cpu()
        self._thresholds = counter.thresholds()
        if self._left_out is not None and epoch < schema.LEAVE_ONE_OUT_EPOCH:
            self._left_out.solve(world)
        elif self._left_out is not None:
            self._left_out.close(self._records_scores and epoch + 1 in schema.EARLY_EPOCHS)

    def table(self, keys: np.ndarray, recorded: dict[str, np.ndarray]) -> pa.Table:
        """`schema.signal_schema`."""
        return signal_table(keys, recorded)

    def state(self) -> dict[str, Any]:
        """Thresholds, joints, counts by certainty, and the ridge regression between its two epochs."""
        ridges = self._left_out.state() if self._left_out is not None else []
        counts = {"joints": self._joints, "confidence": self._confidence}
        return {"thresholds": self._thresholds, "ridges": ridges, **counts}

    def restore(self, saved: dict[str, Any]) -> None:
        """Inverse of `state`."""
        thresholds = saved["thresholds"]
        self._joints, self._confidence = saved["joints"], saved["confidence"]
        self._thresholds = thresholds.to(self._device) if thresholds is not None else None
        if self._left_out is not None:
            self._left_out.restore(saved["ridges"])


class AllSignalsModule(DynamicsModule):
    """The same training, of which all signals of Table 6 are recorded, and not only the margin."""

    def __init__(self, job: Job, device: torch.device) -> None:
        super().__init__(job, device)
        self._features: torch.Tensor
        self._grams: ClassGrams | None = None
        self._directions: torch.Tensor | None = None

    def network(self) -> nn.Module:
        """The classifier, whose last layer's input is looked at."""
        network = super().network()
        last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        last.register_forward_pre_hook(self._look)
        return network

    def _look(self, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._features = inputs[0].detach().float()

    def begin_epoch(self, epoch: int) -> None:
        """Start to count; alignment is to the directions of the epoch before."""
        super().begin_epoch(epoch)
        self._grams = None

    def step(self, model: nn.Module, batch: Batch, epoch: int) -> tuple[torch.Tensor, Recorded]:
        """The same step; what the last layer saw is kept too."""
        loss, seen = super().step(model, batch, epoch)
        return loss, seen | {_PRE_LOGITS: self._features}

    def signals(self, keys: torch.Tensor, seen: Recorded) -> Recorded:
        """Every signal; copies, whose labels are wrong on purpose, have no say in the directions."""
        logits, labels, features = seen[_LOGITS], seen[LABEL], seen[_PRE_LOGITS]
        if self._grams is None:
            self._grams = ClassGrams.empty(logits.shape[1], features.shape[1], logits.device)
        originals = ((keys >= 0) & (keys & 1 == 0)).to(logits.device)
        self._grams.add(features[originals], labels[originals])
        return record_signals(BatchOutputs(logits, labels, features, self._directions))

    def end_epoch(self, epoch: int, world: int) -> None:
        """Merge all ranks' gram matrices as well: the directions for the next epoch."""
        super().end_epoch(epoch, world)
        assert self._grams is not None
        if world > 1:
            dist.all_reduce(self._grams.sums)
        self._directions, self._grams = self._grams.directions(), None

    def table(self, keys: np.ndarray, recorded: dict[str, np.ndarray]) -> pa.Table:
        """`schema.signal_schema`, and a float16 column for each further signal."""
        table = super().table(keys, recorded)
        for name in COLUMNS:
            if name not in table.column_names:
                table = table.append_column(name, pa.array(to_float16_keeping_sign(recorded[name])))
        return table

    def state(self) -> dict[str, Any]:
        """The directions, too."""
        return super().state() | {"directions": self._directions}

    def restore(self, saved: dict[str, Any]) -> None:
        """Inverse of `state`."""
        super().restore(saved)
        directions = saved["directions"]
        self._directions = directions.to(self._device) if directions is not None else None
