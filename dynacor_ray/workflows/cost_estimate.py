"""What a run will take, from quick measurements on this machine: seconds per stage, memory, disk and, priced, cost.

Every figure is a measured time of a small part multiplied by how many such parts there are and divided by what works on
them at once. Not in it: starting processes, clustering, and writing the results.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dynacor_ray.core import schema
from dynacor_ray.core.eager_optimizer import eager
from dynacor_ray.core.image_decoding import load_rgb
from dynacor_ray.core.schema import BYTES_PER_SIGNAL
from dynacor_ray.engine.runtime.tasks import torch_threads
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.job import Job
from dynacor_ray.engine.training.worker import make_module
from dynacor_ray.models.encoder import Encoder

TIMED_SECONDS = 0.3
"""How long each measurement goes on, at least."""
CPU_BATCH, GPU_BATCH = 64, 256
"""Images encoded at once, as in the run."""


@dataclass(frozen=True)
class Speeds:
    """Seconds, measured: per row read and verified, per image decoded and encoded, per training step of a worker."""

    read: float
    decode: float | None
    encode: float | None
    step: float


@dataclass(frozen=True)
class Estimate:
    """What a run takes; seconds of wall time, bytes."""

    read_seconds: float
    embed_seconds: float
    train_seconds: float
    rows_per_second: float
    """Training rows per second and worker."""
    disk_bytes: float
    memory_bytes: float
    """Of one training worker."""

    @property
    def seconds(self) -> float:
        """Of the stages together, which follow each other."""
        return self.read_seconds + self.embed_seconds + self.train_seconds

    def cost(self, price_per_hour: float) -> float:
        """In the currency of the price, which is that of the whole cluster."""
        return self.seconds / 3600 * price_per_hour


def estimate(job: Job, speeds: Speeds, *, packed_bytes: float, cpus: float, gpus: float, base_bytes: float) -> Estimate:
    """Put measured speeds together. packed_bytes: of a packed row. base_bytes: what a process has without any row."""
    rows, total, plan = job.rows.num_originals, job.rows.total, job.plan
    embed_seconds, stored = 0.0, 0
    if speeds.encode is not None and speeds.decode is not None:
        # On CPUs decoders and encoders share the cores; a GPU encodes while the CPUs decode for it.
        parts = (
            (speeds.decode / cpus, speeds.encode / gpus) if plan.use_gpu else ((speeds.decode + speeds.encode) / cpus,)
        )
        embed_seconds, stored = total * max(parts), total
    size = batch_rows(job)
    train_seconds = job.config.epochs * -(-job.rows_per_rank // size) * speeds.step
    if speeds.encode is None and speeds.decode is not None:
        # Images for a network: CPUs decode while a GPU trains; else they do one after the other.
        passes = job.config.epochs if job.streamed else 1
        decode_seconds = passes * total * speeds.decode / cpus
        train_seconds = max(train_seconds, decode_seconds) if plan.use_gpu else train_seconds + decode_seconds
    held = plan.cache_bytes // 2 if job.streamed else job.rows_per_rank * job.rows.row_bytes
    return Estimate(
        read_seconds=rows * speeds.read / cpus,
        embed_seconds=embed_seconds,
        train_seconds=train_seconds,
        rows_per_second=size / speeds.step,
        disk_bytes=rows * packed_bytes + stored * job.rows.row_bytes + total * job.config.epochs * BYTES_PER_SIGNAL,
        memory_bytes=base_bytes + held,
    )


def batch_rows(job: Job) -> int:
    """Rows of a step on one worker."""
    return max(1, job.config.batch_size // job.plan.workers)


def seconds_of(action: Callable[[], object], at_least: float = TIMED_SECONDS) -> float:
    """Median seconds of an action that is done once to warm up, and then again and again for a while."""
    action()
    spent: list[float] = []
    while sum(spent) < at_least:
        start = time.perf_counter()
        action()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def decode_seconds(images: Sequence[bytes], size: int) -> float:
    """Per image on one CPU, by a pass over a few of them."""
    start = time.perf_counter()
    for image in images:
        load_rgb(image, size)
    return (time.perf_counter() - start) / len(images)


def encode_seconds(encoder: Encoder, images: Sequence[bytes], device: str) -> float:
    """Per image on one device, a GPU or one core."""
    few = [load_rgb(image, encoder.image_size) for image in images[: GPU_BATCH if device == "cuda" else CPU_BATCH]]
    batch = np.stack(few)
    with torch_threads(1):
        return seconds_of(lambda: encoder.encode(batch)) / len(few)


def step_seconds(job: Job, device: str) -> float:
    """One step of the classifier on random rows, signals included; without what workers tell each other."""
    where, size = torch.device(device), batch_rows(job)
    module = make_module(job, where)
    network: nn.Module = module.network().to(where)
    optimizer = eager(torch.optim.SGD)(network.parameters(), lr=0.01, momentum=0.9)
    batch = Batch(
        key=torch.arange(size) << 1,
        label=torch.arange(size, device=where) % job.rows.num_classes,
        feature=torch.randn(size, job.rows.dim, device=where).to(getattr(torch, job.rows.value_type)),
        weight=torch.ones(size, device=where),
    )
    epoch = schema.LEAVE_ONE_OUT_EPOCH + 1  # one of the many alike
    module.begin_epoch(epoch)

    def step() -> None:
        loss, seen = module.step(network, batch, epoch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            module.record(batch.key, seen)
        loss.item()  # waits for a GPU

    with torch_threads(job.threads):
        return seconds_of(step)


def process_bytes() -> float:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
