"""What each rank of the training runs: steps, the recording of signals, the commit of an epoch, resume (§4.3)."""

from __future__ import annotations

import json
import os
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train import Checkpoint
from torch import nn

from dynacor_ray import rng
from dynacor_ray.engine.batches import Batch, CachedRows, StreamedRows, open_rows
from dynacor_ray.engine.job import Job
from dynacor_ray.engine.signals import PROGRESS, SIGNALS, SignalManifest, file_name, write_signals
from dynacor_ray.errors import CoverageError, TrainingError, explain
from dynacor_ray.method.confident_joint import JointCounter
from dynacor_ray.method.dynamics import logit_margin
from dynacor_ray.models.heads import build_classifier

MIN_LEARNING_RATE = 3e-7


def train_worker(told: dict[str, Any]) -> str | None:
    """Train, record and commit. Returns a message when training itself went wrong: a restart would not help."""
    job: Job = told["job"]
    torch.set_num_threads(job.plan.threads)
    torch.manual_seed(rng.derive_seed(job.config.seed, 1) % 2**63)
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    known = job.rows
    network = build_classifier(
        job.config.classifier,
        num_features=known.dim,
        num_classes=known.num_classes,
        mean=known.mean,
        scale=known.scale,
    )
    model = ray.train.torch.prepare_model(network)
    state = _State(job, model, context.get_world_rank(), context.get_world_size())
    start = state.restore(ray.train.get_checkpoint(), device)
    if start == job.config.epochs:
        return None
    rows = open_rows(job, state.rank, device)
    for epoch in range(start, job.config.epochs):
        try:
            state.commit(epoch, *run_epoch(state, rows, epoch, device))
        except TrainingError as error:
            return str(error)
    return None


class _State:
    """Model, optimiser, schedule and the manifest of committed signals, as one rank has them."""

    def __init__(self, job: Job, model: nn.Module, rank: int, world: int) -> None:
        self.job, self.model, self.rank, self.world = job, model, rank, world
        config = job.config
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=config.learning_rate, momentum=0.9, weight_decay=config.weight_decay
        )
        self.batch = max(1, config.batch_size // world)
        steps = config.epochs * -(-job.rows_per_rank // self.batch)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, T_max=steps, eta_min=MIN_LEARNING_RATE
        )
        self.manifest: SignalManifest = {}
        self.thresholds: torch.Tensor | None = None
        self.joints: dict[int, torch.Tensor] = {}
        self.attempt = uuid.uuid4().hex[:8]
        self._saved = self._told = time.monotonic()

    @property
    def network(self) -> nn.Module:
        """The model without its data-parallel wrapper."""
        inner: nn.Module = getattr(self.model, "module", self.model)
        return inner

    def step(self, batch: Batch) -> torch.Tensor:
        """One step of SGD on the weighted mean loss over the real rows (Eq. 2); returns the logits float32 (B, C)."""
        device = batch.feature.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            logits = self.model(batch.feature)
        logits = logits.float()
        losses = nn.functional.cross_entropy(logits, batch.label, reduction="none")
        loss = (losses * batch.weight).sum() / (batch.key >= 0).sum().clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return logits.detach()

    def restore(self, checkpoint: Checkpoint | None, device: torch.device) -> int:
        """Load the last checkpoint, if any; returns the first epoch to run."""
        if checkpoint is None:
            return 0
        saved = read_checkpoint(checkpoint)
        self.network.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if saved["world"] == self.world:
            self.schedule.load_state_dict(saved["schedule"])
        else:
            self._jump(saved["epoch"])
        self.manifest, self.joints = saved["manifest"], saved["joints"]
        self.thresholds = saved["thresholds"].to(device) if saved["thresholds"] is not None else None
        return int(saved["epoch"])

    def _jump(self, epoch: int) -> None:
        """Put the schedule where it would be after `epoch` epochs with this number of workers."""
        share = epoch / self.job.config.epochs
        steps = round(share * self.schedule.T_max)
        peak = self.job.config.learning_rate
        rate = MIN_LEARNING_RATE + (peak - MIN_LEARNING_RATE) * (1 + np.cos(np.pi * share)) / 2
        self.schedule.last_epoch = steps
        for group in self.optimizer.param_groups:
            group["lr"] = float(rate)

    def count(self, epoch: int, counter: JointCounter) -> None:
        """Merge all ranks' class statistics of an epoch: its joint, and the thresholds for the next one."""
        counter.flush()
        if self.world > 1:
            for total in (counter.probability, counter.labelled, counter.counts):
                dist.all_reduce(total)
        if self.thresholds is not None:
            self.joints[epoch] = counter.cells()
        self.thresholds = counter.thresholds()

    def commit(self, epoch: int, keys: np.ndarray, margins: np.ndarray, predicted: np.ndarray) -> None:
        """Write this rank's signals, agree with all ranks that the epoch is whole, and checkpoint when it is time."""
        name = file_name(epoch, self.attempt, self.rank)
        error, count = "", 0
        try:
            count = write_signals(self.job.run / SIGNALS / name, keys, margins, predicted)
        except TrainingError as problem:
            error = str(problem)
        due = time.monotonic() - self._saved >= self.job.plan.checkpoint_seconds or epoch + 1 == self.job.config.epochs
        said = _gather((name, count, error, due), self.world)
        problems = [text for _, _, text, _ in said if text]
        if problems:
            raise TrainingError(problems[0])
        total, expected = sum(c for _, c, _, _ in said), self.job.rows.total
        if total != expected:
            raise CoverageError(explain(f"{expected:,} signals in epoch {epoch}", f"{total:,}", "report this defect"))
        self.manifest[str(epoch)] = [n for n, _, _, _ in said]
        if self.rank == 0 and (due or time.monotonic() - self._told > 1):
            (self.job.run / SIGNALS / PROGRESS).write_json({"epochs": epoch + 1})
            self._told = time.monotonic()
        if said[0][3]:  # rank 0's clock decides for all: reporting is a barrier
            self._checkpoint(epoch + 1)
            self._saved = time.monotonic()

    def _checkpoint(self, epoch: int) -> None:
        if self.rank != 0:
            ray.train.report({"epoch": epoch})
            return
        with tempfile.TemporaryDirectory() as folder:
            saved = {
                "model": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "epoch": epoch,
                "world": self.world,
                "thresholds": self.thresholds,
                "joints": self.joints,
            }
            torch.save(saved, os.path.join(folder, "state.pt"))
            Path(folder, "manifest.json").write_text(json.dumps(self.manifest))
            ray.train.report({"epoch": epoch}, checkpoint=Checkpoint.from_directory(folder))


def read_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """State dicts, next epoch, number of workers and the manifest of committed signals."""
    with checkpoint.as_directory() as folder:
        saved: dict[str, Any] = torch.load(os.path.join(folder, "state.pt"), weights_only=True, map_location="cpu")
        saved["manifest"] = json.loads(Path(folder, "manifest.json").read_text())
    return saved


def _gather(value: Any, world: int) -> list[Any]:
    """The value of every rank, on every rank."""
    if world == 1:
        return [value]
    values: list[Any] = [None] * world
    dist.all_gather_object(values, value)
    return values


def run_epoch(
    state: _State, rows: CachedRows | StreamedRows, epoch: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One pass over this rank's rows; returns key int64 (n,), margin float32 (n,), predicted class int32 (n,).

    The signal is read from the training-mode forward pass that the step needs anyway (§4.3).
    """
    size = state.job.rows_per_rank
    keys = torch.empty(size, dtype=torch.int64)
    margins = torch.empty(size, dtype=torch.float32, device=device)
    predicted = torch.empty(size, dtype=torch.int32, device=device)
    state.model.train()
    counter = JointCounter(state.job.rows.num_classes, state.thresholds, device)
    at = 0
    for batch in rows.batches(epoch, state.batch):
        stop = at + len(batch.key)
        logits = state.step(batch)
        with torch.no_grad():
            margins[at:stop] = logit_margin(logits, batch.label)
            predicted[at:stop] = logits.argmax(dim=1)
            counter.add(logits, batch.label, (batch.key >= 0) & (batch.key & 1 == 0))
        keys[at:stop] = batch.key
        at = stop
    if at != size:
        raise CoverageError(explain(f"{size:,} rows on rank {state.rank}", f"{at:,}", "report this as a defect"))
    state.count(epoch, counter)
    return keys.numpy(), margins.cpu().numpy(), predicted.cpu().numpy()
