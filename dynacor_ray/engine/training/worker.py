"""What each rank of the training runs: steps, the recording of signals, the commit of an epoch, resume (§4.3)."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from dynacor_ray.core import rng
from dynacor_ray.core.eager_optimizer import eager
from dynacor_ray.core.errors import CoverageError, TrainingError, expected_got
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.training.baselines_module import BaselinesModule
from dynacor_ray.engine.training.batches import Batch, CachedRows, Shard, StreamedRows, open_rows, prefetch
from dynacor_ray.engine.training.dividemix_module import DivideMixModule
from dynacor_ray.engine.training.dynamics_module import AllSignalsModule, DynamicsModule
from dynacor_ray.engine.training.job import Job
from dynacor_ray.engine.training.lr_schedule import make_schedule, rate_after
from dynacor_ray.engine.training.module import Recorded, TrainingModule
from dynacor_ray.engine.training.robust_module import RobustModule
from dynacor_ray.engine.training.signal_files import (
    CHECKPOINT,
    FAILED,
    PROGRESS,
    SIGNALS,
    SignalManifest,
    file_name,
    write_signals,
)
from dynacor_ray.engine.training.trained_model import HISTORY

RECORD_ROWS = 8192
"""Rows that are recorded at once: a batch alone would cost as much as thousands of rows."""


@dataclass(frozen=True)
class Rank:
    """Where a rank works. wrap: makes a network data-parallel and puts it on the device."""

    rank: int
    world: int
    device: torch.device
    shard: Shard
    wrap: Callable[[nn.Module], nn.Module]


def train_rank(job: Job, here: Rank) -> str | None:
    """Train, record and commit. Returns a message when training itself went wrong: a restart would not help."""
    job, device = job.among(here.world), here.device
    torch.set_num_threads(job.threads)
    torch.manual_seed(rng.derive_seed(job.config.seed, 1) % 2**63)
    failed = job.run / SIGNALS / FAILED
    if failed.exists():  # of the attempt before: no restart would help
        return str(failed.read_json()["message"])
    state: TrainState | None = None
    try:
        state = prepare_state(job, here)
        start = state.restore(read_checkpoint(job.run))
        if start == job.config.epochs:
            return None
        rows = open_rows(here.shard, job, state.rank, device)
        for epoch in range(start, job.config.epochs):
            state.commit(epoch, *run_epoch(state, rows, epoch, device))
    except TrainingError as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fresh = state is None or not state.manifest
        message = memory_message(job, error, fresh)
        failed.write_json({"message": message, "fresh": fresh})
        # Raised, not returned: the other ranks wait for this one's gradient, and must be ended.
        raise TrainingError(message) from error
    return None


def prepare_state(job: Job, here: Rank) -> TrainState:
    """Network, optimizer and schedule at their start."""
    module = make_module(job, here.device)
    network = module.network()
    if job.config.sync_batchnorm and job.plan.workers > 1:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if job.config.compile:
        network.compile()  # in place: names in checkpoints stay as they are
    return TrainState(job, module, here.wrap(network), here.rank, here.world)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be had, of a GPU or of the machine."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def memory_message(job: Job, error: BaseException, fresh: bool) -> str:
    """What to try. fresh: nothing is recorded yet, so that the run directory can be used for another batch size."""
    config, workers = job.config, job.plan.workers
    size = max(1, config.batch_size // workers)
    expected = f"memory for {size} rows per step on each of {workers} worker(s) (--batch-size {config.batch_size})"
    remedy = f"pass e.g. --batch-size {max(workers, config.batch_size // 2)}, or more --workers"
    if config.network is not None:
        remedy += f", or an --image-size below {config.network.image_size}"
    if not isinstance(error, torch.OutOfMemoryError):  # of the machine, not of a GPU
        remedy += ", or a --worker-cache-gb that leaves more free"
    remedy += (
        "; the same --out may be used, and packed data are kept"
        if fresh
        else "; with another --out, and this one's --cache; or free memory and give the same command to resume"
    )
    got = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return expected_got(expected, f"'{got}'", remedy)


class TrainState:
    """Model, optimizer, schedule and the manifest of committed signals, as one rank has them."""

    def __init__(self, job: Job, module: TrainingModule, model: nn.Module, rank: int, world: int) -> None:
        self.job, self.module, self.model, self.rank, self.world = job, module, model, rank, world
        config = job.config
        groups = [{"params": parameters} for parameters in module.groups(self.network)]
        self.optimizer = eager(torch.optim.SGD)(
            groups, lr=config.learning_rate, momentum=0.9, weight_decay=config.weight_decay, fused=True
        )
        self.batch = max(1, config.batch_size // world)
        self._steps = config.epochs * -(-job.rows_per_rank // self.batch)
        self.schedule = make_schedule(self.optimizer, config, self._steps)
        self.manifest: SignalManifest = {}
        self.attempt = uuid.uuid4().hex[:8]
        self._saved = self._told = time.monotonic()
        self.seconds = {"training": 0.0, "waiting": 0.0}
        """Spent in epochs, and of these in waiting for rows."""

    @property
    def network(self) -> nn.Module:
        """The model without its data-parallel wrapper."""
        inner: nn.Module = getattr(self.model, "module", self.model)
        return inner

    def step(self, batch: Batch, epoch: int) -> Recorded:
        """One step of SGD; returns what must be known of the rows to record them."""
        loss, recorded = self.module.step(self.model, batch, epoch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # The schedule's rates are put back: it goes on from what it finds.
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group, rate, factor in zip(
            self.optimizer.param_groups, rates, self.module.rate_factors(epoch), strict=True
        ):
            group["lr"] = rate * factor
        self.optimizer.step()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.schedule.step()
        return recorded

    def restore(self, saved: dict[str, Any] | None) -> int:
        """Load what `read_checkpoint` found, if anything; returns the first epoch to run.

        Raises RuntimeError, so that another attempt is made, when the ranks found different ones.
        """
        epochs = _gather(saved["epoch"] if saved else 0, self.world)
        if len(set(epochs)) > 1:  # on storage that shows some machines what was there a moment ago
            raise RuntimeError(f"Expected one checkpoint on all ranks, but got those of epochs {epochs}.")
        if saved is None:
            return 0
        self.network.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if saved["world"] == self.world:
            self.schedule.load_state_dict(saved["schedule"])
        else:
            self._jump(saved["epoch"])
        self.manifest = saved["manifest"]
        self.module.restore(saved["module"])
        return int(saved["epoch"])

    def _jump(self, epoch: int) -> None:
        """Put the schedule where it would be after `epoch` epochs with this number of workers."""
        step = self.schedule.last_epoch = epoch * self._steps // self.job.config.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = rate_after(self.job.config, step, self._steps)

    def commit(self, epoch: int, keys: np.ndarray, recorded: dict[str, np.ndarray]) -> None:
        """Write this rank's signals, agree with all ranks that the epoch is whole, and checkpoint when it is time."""
        name = file_name(epoch, self.attempt, self.rank)
        error, count = "", 0
        try:
            count = write_signals(self.job.run / SIGNALS / name, keys, recorded, self.module.table)
        except TrainingError as problem:
            error = str(problem)
        due = time.monotonic() - self._saved >= self.job.plan.checkpoint_seconds or epoch + 1 == self.job.config.epochs
        said = _gather((name, count, error, due), self.world)
        problems = [text for _, _, text, _ in said if text]
        if problems:
            raise TrainingError(problems[0])
        total, expected = sum(c for _, c, _, _ in said), self.job.rows.total
        if total != expected:
            raise CoverageError(
                expected_got(f"{expected:,} signals in epoch {epoch}", f"{total:,}", "report this defect")
            )
        self.manifest[str(epoch)] = [n for n, _, _, _ in said]
        if self.rank == 0 and (due or time.monotonic() - self._told > 1):
            if figures := self.module.figures():
                (self.job.run / SIGNALS / HISTORY).write_json(figures)
            (self.job.run / SIGNALS / PROGRESS).write_json({"epochs": epoch + 1} | self.seconds)
            self._told = time.monotonic()
        if said[0][3]:  # rank 0's clock decides for all
            self._checkpoint(epoch + 1)
            self._saved = time.monotonic()

    def _checkpoint(self, epoch: int) -> None:
        """Save what the next attempt goes on from. Other ranks need not wait: an epoch in it was gathered from all."""
        if self.rank != 0:
            return
        saved = {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epoch": epoch,
            "world": self.world,
            "module": self.module.state(),
            "manifest": self.manifest,
        }
        content = io.BytesIO()
        torch.save(saved, content)
        (self.job.run / SIGNALS / CHECKPOINT).write_bytes(content.getvalue())


def read_checkpoint(run: Location) -> dict[str, Any] | None:
    """State dicts, next epoch, number of workers, what the module keeps, and the manifest of committed signals.

    None where there is none. No code in it is executed.
    """
    place = run / SIGNALS / CHECKPOINT
    if not place.exists():
        return None
    saved: dict[str, Any] = torch.load(io.BytesIO(place.read_bytes()), weights_only=True, map_location="cpu")
    return saved


def _gather(value: Any, world: int) -> list[Any]:
    """The value of every rank, on every rank."""
    if world == 1:
        return [value]
    values: list[Any] = [None] * world
    dist.all_gather_object(values, value)
    return values


def run_epoch(
    state: TrainState, rows: CachedRows | StreamedRows, epoch: int, device: torch.device
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One pass over this rank's rows; returns key int64 (n,), -1 for padding, and what the module records of each.

    The signal is read from the training-mode forward pass that the step needs anyway (§4.3).
    """
    size = state.job.rows_per_rank
    keys = torch.empty(size, dtype=torch.int64)
    kept: Recorded = {}
    waiting: Recorded = {}
    state.model.train()
    state.module.committed = state.manifest
    state.module.begin_epoch(epoch)
    started = time.monotonic()
    first = at = 0
    batches = rows.batches(epoch, state.batch)
    if state.job.config.network is not None:
        batches = prefetch(batches)  # images are large: a GPU would wait for their copying
    for batch in _watched(batches, state.seconds):
        stop = at + len(batch.key)
        keys[at:stop] = batch.key
        # Copied, not kept: the backward pass was slower among what earlier steps had left in memory.
        _put(waiting, state.step(batch, epoch), at - first, min(size, RECORD_ROWS + state.batch))
        at = stop
        if at - first >= RECORD_ROWS or at == size:
            seen = {name: values[: at - first] for name, values in waiting.items()}
            with torch.no_grad():
                _put(kept, state.module.record(keys[first:at], seen), first, size)
            first = at
    if at != size:
        raise CoverageError(expected_got(f"{size:,} rows on rank {state.rank}", f"{at:,}", "report this as a defect"))
    state.module.end_epoch(epoch, state.world)
    found = {name: values.cpu().numpy() for name, values in kept.items()}  # waits for a GPU
    state.seconds["training"] += time.monotonic() - started
    return keys.numpy(), found


def _put(into: Recorded, values: Recorded, at: int, size: int) -> None:
    """Copy values of rows to row `at` and after of tensors for `size` rows, which are made when they are missing."""
    for name, value in values.items():
        if name not in into:
            into[name] = value.new_empty((size, *value.shape[1:]))
        into[name][at : at + len(value)] = value


def _watched(batches: Iterator[Batch], seconds: dict[str, float]) -> Iterator[Batch]:
    """The same batches; the time until each is there is added to `seconds["waiting"]`."""
    while True:
        started = time.monotonic()
        batch = next(batches, None)
        seconds["waiting"] += time.monotonic() - started
        if batch is None:
            return
        yield batch


def make_module(job: Job, device: torch.device) -> TrainingModule:
    """The module that a job asks for."""
    if job.config.baselines:
        return BaselinesModule(job)
    if job.config.robust is not None:
        robust = job.config.robust
        return DivideMixModule(job, device, robust, robust.mix) if robust.mix else RobustModule(job, device, robust)
    return AllSignalsModule(job, device) if job.config.signals else DynamicsModule(job, device)
