"""A network's training from pixels: what recording, bfloat16 and compiling change. `python jobs/bench_network.py`."""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import tyro
from bench_recording import OneByOne, one_worker
from benchmarking import Lap, against, folder_for, plain_sgd, print_report, take_turns

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training.batches import CachedRows
from dynacor_ray.engine.training.job import Job, TrainConfig
from dynacor_ray.method.corruption import LABEL
from dynacor_ray.models.image_classifiers import build_network
from dynacor_ray.workflows.prepare import training_config

ON, OFF, COMPILED, PLAIN, PLAIN_FLOAT = "recording on", "recording off", "compiled", "plain loop", "plain loop, float32"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is trained."""

    network: str = "cifar_resnet8"
    """Network, from random numbers; `cifar_resnet34`, `resnet50@none`."""
    image_size: int = 32
    """Side of the images in pixels."""
    rows: int = 1024
    """Images in memory, corrupted copies included."""
    classes: int = 10
    """Classes."""
    batch_size: int = 128
    """Images of a step."""
    repeats: int = 3
    """Epochs of each kind; one before them is not counted."""
    gpu: bool = False
    """Train on the first GPU, in bfloat16, instead of the CPU."""
    compile: bool = False
    """Compare torch.compile as well."""


def main(options: Options) -> None:
    """Let the kinds of epochs take turns and print the report."""
    device = torch.device("cuda:0" if options.gpu else "cpu")
    numbers = np.random.default_rng(0)
    with folder_for(None) as folder, contextlib.ExitStack() as stack:
        job = make_job(locate(str(folder)), options)
        stack.enter_context(torch.random.fork_rng(devices=[0] if options.gpu else []))
        torch.manual_seed(0)
        torch.set_num_threads(job.threads)
        rows = CachedRows(Shard(job, numbers), job, 0, device)
        state = OneByOne(job, device)
        kinds: dict[str, Callable[[], Lap | None]] = {
            name: functools.partial(state.epoch, rows, name == ON) for name in (ON, OFF)
        }
        if options.compile:
            compiled = OneByOne(replace(job, config=replace(job.config, compile=True)), device)
            kinds[COMPILED] = functools.partial(compiled.epoch, rows, True)
        kinds[PLAIN] = functools.partial(plain_epoch, job.config, options.classes, rows, device, options.gpu)
        if options.gpu:
            kinds[PLAIN_FLOAT] = functools.partial(plain_epoch, job.config, options.classes, rows, device, False)
        take_turns(kinds, 1)
        turns = take_turns(kinds, options.repeats)
        kernels = in_kernels(kinds[ON]) if options.gpu else None
    rate = {name: round(options.rows / statistics.median(seconds)) for name, seconds in turns.seconds.items()}
    ratios = {
        "recording on / off": turns.ratio(ON, OFF, at_most=1.03),
        "recording on / plain loop": turns.ratio(ON, PLAIN, at_most=1.1),
    }
    if options.compile:
        ratios["compiled / not"] = turns.ratio(COMPILED, ON)
    if options.gpu:
        ratios["plain loop, float32 / bfloat16"] = turns.ratio(PLAIN_FLOAT, PLAIN)
        ratios["time in kernels"] = against(kernels or 0.0)
    print_report(
        "Seconds of a training epoch of a network on images in memory, augmented: with the margins recorded and "
        "counted, the same without, and a plain loop (same network, batches and SGD; nothing augmented or recorded). "
        "On a GPU in bfloat16 unless it says float32; the share of the wall time in which kernels ran is of one epoch "
        "more, as torch's profiler saw it.",
        ratios,
        turns.seconds,
        vars(options),
        images_per_second=rate,
        share_of_time_waiting_for_rows=round(state.seconds["waiting"] / state.seconds["training"], 4),
        device=torch.cuda.get_device_name() if options.gpu else "cpu",
        threads=torch.get_num_threads(),
    )


def make_job(run: Location, options: Options) -> Job:
    """A job of one worker that never saves a checkpoint."""
    config = DetectConfig(
        data="random pixels",
        network=options.network,
        image_size=options.image_size,
        batch_size=options.batch_size,
        epochs=4 * (options.repeats + 3),
    )
    training: TrainConfig = training_config(config)
    assert training.augmentation is not None
    dim = 3 * training.augmentation.stored**2
    copies = options.rows // 10
    per_class = np.full(options.classes, options.rows // options.classes)
    nothing = np.zeros(0, np.float32)
    facts = RowFacts(options.rows - copies, copies, options.classes, dim, nothing, 1.0, per_class, value_type="uint8")
    return Job(training, one_worker(options.gpu), run, facts)


class Shard:
    """Stands for a worker's part of the data: random pixels, made in small blocks."""

    def __init__(self, job: Job, random: np.random.Generator) -> None:
        self._job, self._random = job, random

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        """All rows, 256 at a time; the first `num_copies` of them have a copy."""
        facts = self._job.rows
        ids = np.arange(facts.num_originals)
        keys = np.concatenate([2 * ids, 2 * ids[: facts.num_copies] + 1])
        for some in np.split(keys, range(256, len(keys), 256)):
            pixels = self._random.integers(0, 256, (len(some), facts.dim), np.uint8)
            feature = schema.fixed_size_list(pixels)
            yield pa.table({schema.KEY: some, LABEL: some % facts.num_classes, schema.FEATURE: feature})


def plain_epoch(config: TrainConfig, classes: int, rows: CachedRows, device: torch.device, half: bool) -> Lap:
    """What one would write without this package, on the same images; the second epoch of two counts."""
    assert config.network is not None
    assert config.augmentation is not None
    side, stored = config.augmentation.side, config.augmentation.stored
    model = build_network(config.network, classes).to(device)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in rows.batches(0, config.batch_size):
            yield batch.feature.view(-1, stored, stored, 3)[:, :side, :side], batch.label

    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
        return Lap(plain_sgd(model, replace(config, epochs=2), batches)[1])


def in_kernels(run: Callable[[], Any]) -> float:
    """Share of the wall time of a call in which the GPU ran kernels; they run one after another here."""
    from torch.profiler import ProfilerActivity, profile

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
    kernels = sum(event.self_device_time_total for event in seen.key_averages()) / 1e3
    return kernels / start.elapsed_time(end)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
