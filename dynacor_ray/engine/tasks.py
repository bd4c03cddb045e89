"""What a training learns and records of every row in the pass that it makes anyway: one task per kind of training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn

from dynacor_ray import rng, schema
from dynacor_ray.baselines.panel import Member, Panel, make_members
from dynacor_ray.engine.batches import Batch
from dynacor_ray.engine.job import Job, RowFacts
from dynacor_ray.engine.signals import signal_table
from dynacor_ray.method.confident_joint import PADDING, JointCounter
from dynacor_ray.method.corruption import LABEL
from dynacor_ray.method.dynamics import logit_margin
from dynacor_ray.models.heads import build_classifier

_LOGITS = "logits"
Recorded = dict[str, torch.Tensor]
"""Name -> value per row, (B,) or (B, n), detached."""


class Task(ABC):
    """What a training job needs to know besides how to make steps, commit and resume."""

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

    def begin_epoch(self) -> None:  # noqa: B027
        """Called on every rank before the first step of an epoch."""

    def end_epoch(self, epoch: int, world: int) -> None:  # noqa: B027
        """Called on every rank after the last step of an epoch, to merge what the ranks counted."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps besides model, optimiser and schedule: tensors and plain values."""
        return {}

    def restore(self, saved: dict[str, Any]) -> None:  # noqa: B027
        """Inverse of `state`."""


def make_task(job: Job, device: torch.device) -> Task:
    """The task that a job asks for."""
    return PanelTask(job) if job.config.panel else DynamicsTask(job, device)


def _forward(model: nn.Module, batch: Batch, *more: Any) -> Any:
    device = batch.feature.device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
        return model(batch.feature, *more)


def _classifier(job: Job, extra_classes: int = 0) -> nn.Module:
    rows: RowFacts = job.rows
    classes = rows.num_classes + extra_classes
    return build_classifier(
        job.config.classifier, num_features=rows.dim, num_classes=classes, mean=rows.mean, scale=rows.scale
    )


class DynamicsTask(Task):
    """DynaCor's classifier (§4.3): margin and top-1 class of every row, and the confident joint of the originals."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self._job, self._device = job, device
        self._thresholds: torch.Tensor | None = None
        self._joints: dict[int, torch.Tensor] = {}
        self._confidence: dict[int, torch.Tensor] = {}
        self._counter: JointCounter

    def network(self) -> nn.Module:
        """The classifier of Table 5."""
        return _classifier(self._job)

    def begin_epoch(self) -> None:
        """Start to count, with the class thresholds of the epoch before."""
        self._counter = JointCounter(self._job.rows.num_classes, self._thresholds, self._device)

    def step(self, model: nn.Module, batch: Batch, epoch: int) -> tuple[torch.Tensor, Recorded]:
        """Weighted mean cross-entropy of the real rows (Eq. 2)."""
        logits, loss = self.loss(model, batch)
        return loss, {_LOGITS: logits.detach(), LABEL: batch.label}

    def record(self, keys: torch.Tensor, seen: Recorded) -> Recorded:
        """Margin and top-1 class."""
        logits, labels = seen[_LOGITS], seen[LABEL]
        self._counter.add(logits, labels, torch.where(keys < 0, PADDING, keys & 1))  # a copy's key is odd
        # max, not argmax: the same class in half the time
        return {schema.MARGIN: logit_margin(logits, labels), schema.PREDICTED: logits.max(dim=1).indices.int()}

    def loss(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits float32 (B, C), and the loss: all that a step needs where nothing is recorded."""
        logits = _forward(model, batch).float()
        losses = nn.functional.cross_entropy(logits, batch.label, reduction="none")
        return logits, (losses * batch.weight).sum() / (batch.key >= 0).sum().clamp(min=1)

    def end_epoch(self, epoch: int, world: int) -> None:
        """Merge all ranks' class statistics: this epoch's joint, and the thresholds for the next one."""
        counter = self._counter
        if world > 1:
            for total in (counter.probability, counter.labelled, counter.counts, counter.confidence):
                dist.all_reduce(total)
        if self._thresholds is not None:
            self._joints[epoch] = counter.cells()
        self._confidence[epoch] = counter.confidence.cpu()
        self._thresholds = counter.thresholds()

    def table(self, keys: np.ndarray, recorded: dict[str, np.ndarray]) -> pa.Table:
        """`schema.signal_schema`."""
        return signal_table(keys, recorded)

    def state(self) -> dict[str, Any]:
        """Thresholds, joints, and counts by certainty."""
        return {"thresholds": self._thresholds, "joints": self._joints, "confidence": self._confidence}

    def restore(self, saved: dict[str, Any]) -> None:
        """Inverse of `state`."""
        thresholds = saved["thresholds"]
        self._joints, self._confidence = saved["joints"], saved["confidence"]
        self._thresholds = thresholds.to(self._device) if thresholds is not None else None


class PanelTask(Task):
    """The classifiers of the baselines side by side (§5.1, Table 1): one pass over the rows trains them all.

    They share nothing but the order of the rows: each has its own weights, labels, loss and rows to learn from.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._epochs = job, job.config.epochs
        self._members: list[Member] = make_members(
            job.config.panel, job.rows.num_classes, job.rows.class_counts, job.config.seed
        )

    def network(self) -> nn.Module:
        """One classifier per member, each with a start of its own that does not depend on who else is there."""
        classifiers = []
        for member in self._members:
            torch.manual_seed(rng.derive_seed(self._job.config.seed, 3, member.stream) % 2**63)
            classifiers.append(_classifier(self._job, member.extra_classes))
        return Panel(classifiers)

    def groups(self, network: nn.Module) -> list[list[nn.Parameter]]:
        """One group per member."""
        assert isinstance(network, Panel)
        return [list(classifier.parameters()) for classifier in network.classifiers]

    def rate_factors(self, epoch: int) -> Sequence[float]:
        """CORES lowers its learning rate as its loss grows."""
        return [member.rate_factor(epoch, self._epochs) for member in self._members]

    def step(self, model: nn.Module, batch: Batch, epoch: int) -> tuple[torch.Tensor, Recorded]:
        """Sum over the members of the mean loss over the rows that each learns from."""
        ids = batch.key.numpy() >> 1
        real, last = batch.key.numpy() >= 0, epoch + 1 == self._epochs
        learnt = [real & member.learns(ids) for member in self._members]
        everything = np.ones_like(real)
        pairs = zip(self._members, learnt, strict=True)
        shown = [everything if last or member.records else rows for member, rows in pairs]
        device = batch.feature.device
        index = [torch.from_numpy(np.flatnonzero(rows)).to(device) for rows in shown]
        outputs = _forward(model, batch, index)
        loss, recorded = torch.zeros((), device=device), Recorded()
        given = batch.label.cpu().numpy()
        for member, logits, at, rows, mine in zip(self._members, outputs, index, shown, learnt, strict=True):
            label = torch.from_numpy(member.label(ids, given)[rows]).to(device)
            counted = torch.from_numpy(mine[rows]).to(device)
            losses = member.loss(logits.float(), label, epoch, self._epochs)
            loss = loss + (losses * counted).sum() / counted.sum().clamp(min=1)
            with torch.no_grad():
                for name, value in member.record(logits.detach().float(), label, ids[rows], last).items():
                    blank = value.new_zeros((len(ids), *value.shape[1:]))
                    blank[at] = value
                    recorded[name] = recorded[name] + blank if name in recorded else blank
        return loss, recorded

    def table(self, keys: np.ndarray, recorded: dict[str, np.ndarray]) -> pa.Table:
        """Column `key` and one per recorded name; vectors as lists of fixed length."""
        columns = {schema.KEY: pa.array(keys)}
        for name, value in recorded.items():
            columns[name] = schema.fixed_size_list(value) if value.ndim == 2 else pa.array(value)
        return pa.table(columns)
