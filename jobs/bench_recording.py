"""What it costs to record signals: the same training epochs with and without. `python jobs/bench_recording.py`."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import tyro
from benchmarking import FeatureOptions, against, features_table, folder_for, print_report, take_turns

from dynacor_ray.core import schema
from dynacor_ray.core.manifest import FeatureStats
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training.batches import Batch, CachedRows
from dynacor_ray.engine.training.dynamics_module import DynamicsModule
from dynacor_ray.engine.training.job import Job, TrainConfig, TrainPlan
from dynacor_ray.engine.training.module import Recorded
from dynacor_ray.engine.training.worker import TrainState, run_epoch
from dynacor_ray.method.corruption import CorruptionConfig, corrupt

ON, OFF = "recording on", "recording off"
FIRST_EPOCHS = schema.LEAVE_ONE_OUT_EPOCH + 1
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Options(FeatureOptions):
    """What is trained on."""

    repeats: int = 9
    """Epochs of each kind, after the first two, which are not counted."""
    threads: int | None = None
    """Threads of torch. Default: as many as the engine takes."""


class Switched(DynamicsModule):
    """The same training, in which recording can be switched off.

    One network for both: where its parameters happen to lie in memory makes as much difference as recording does.
    """

    recording = True

    def step(self, model: torch.nn.Module, batch: Batch, epoch: int) -> tuple[torch.Tensor, Recorded]:
        """`DynamicsModule.step`, or its loss alone."""
        return super().step(model, batch, epoch) if self.recording else (self.loss(model, batch, epoch)[1], {})

    def record(self, keys: torch.Tensor, seen: Recorded) -> Recorded:
        """What a training records, or nothing."""
        return super().record(keys, seen) if self.recording else {}

    def end_epoch(self, epoch: int, world: int) -> None:
        """Nothing was counted where nothing is recorded."""
        if self.recording:
            super().end_epoch(epoch, world)


class Shard:
    """Stands for a worker's part of Ray's data: rows that are in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        """All rows in one block."""
        yield self._table


def main(options: Options) -> None:
    """Let both kinds of epochs take turns and print the report."""
    with folder_for(None) as folder:
        table, facts = made_rows(options)
        # One epoch more than will be made: the last one ends with a checkpoint, which needs Ray.
        config = TrainConfig(epochs=FIRST_EPOCHS + 2 * options.repeats + 1)
        job = Job(config, one_worker(), locate(str(folder)), facts)
        torch.set_num_threads(options.threads or job.threads)
        torch.manual_seed(0)
        state, rows = OneByOne(job, CPU), CachedRows(Shard(table), job, 0, CPU)
        epochs = {name: functools.partial(state.epoch, rows, name == ON) for name in (ON, OFF)}
        first = take_turns({ON: epochs[ON]}, FIRST_EPOCHS)
        turns = take_turns(epochs, options.repeats)
    print_report(
        "Seconds per training epoch with the signals recorded, counted and written as parquet, over seconds of the "
        "same loop, rows and steps with nothing recorded; in one process, in turns. Apart: the first two epochs of a "
        "training, in which the leave-one-out regression is fitted and asked as well.",
        {
            "recording on / off": turns.ratio(ON, OFF, at_most=1.03),
            "the first two epochs": against(mean(first.seconds[ON]) / median(turns.seconds[OFF])),
        },
        turns.seconds,
        {"rows": facts.total, "dim": options.dim, "classes": options.classes, "batch": job.config.batch_size},
        threads=torch.get_num_threads(),
    )


def made_rows(options: Options) -> tuple[pa.Table, RowFacts]:
    """Training rows, copies included, and what a job must know of them."""
    table = features_table(0, **options.shape)
    features = schema.matrix(table[schema.FEATURE])
    mean, scale = FeatureStats.of(features).scaling()
    given = table[schema.GIVEN_LABEL]
    originals = table.select([schema.FEATURE, schema.GIVEN_LABEL])
    originals = originals.append_column(schema.INSTANCE_ID, pa.array(np.arange(options.rows)))
    rows = corrupt(originals, CorruptionConfig(), options.classes)
    counts = np.bincount(given.to_numpy(), minlength=options.classes)
    copies = len(rows) - options.rows
    return rows, RowFacts(options.rows, copies, options.classes, options.dim, mean, scale, counts)


def one_worker(use_gpu: bool = False) -> TrainPlan:
    """One worker that holds all rows and never saves a checkpoint."""
    return TrainPlan(
        workers=1,
        min_workers=1,
        use_gpu=use_gpu,
        cpus_per_worker=1,
        threads=os.cpu_count() or 1,
        cache_bytes=2**45,
        checkpoint_seconds=float("inf"),
        max_failures=0,
    )


class OneByOne(TrainState):
    """A training whose epochs are asked for one by one."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.switched, self.device, self.numbers = Switched(job, device), device, itertools.count()
        network = self.switched.network()
        if job.config.compile:
            network.compile()
        super().__init__(job, self.switched, network.to(device), 0, 1)

    def epoch(self, rows: CachedRows, recording: bool) -> None:
        """The next epoch, which a GPU has ended as well."""
        number, self.switched.recording = next(self.numbers), recording
        keys, recorded = run_epoch(self, rows, number, self.device)
        if recording:
            self.commit(number, keys, recorded)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
