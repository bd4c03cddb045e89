"""The engine's training epoch against a bare PyTorch loop on the same rows. `python jobs/bench_engine.py`."""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import tyro
from benchmarking import FeatureOptions, Lap, folder_for, plain_sgd_in_memory, print_report, take_turns, write_features

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.data.training_rows import TrainingRows
from dynacor_ray.engine.training.driver import train
from dynacor_ray.engine.training.job import Job, TrainConfig, TrainPlan
from dynacor_ray.method.corruption import LABEL
from dynacor_ray.models.heads import build_classifier
from dynacor_ray.runs.directory import claim
from dynacor_ray.workflows.cluster_session import plan_for, ray_session
from dynacor_ray.workflows.open_data import open_data
from dynacor_ray.workflows.prepare import PreparedRun, prepare

QUIET = Progress(quiet=True)


@dataclass(frozen=True, kw_only=True)
class Options(FeatureOptions):
    """What is trained on."""

    epochs: int = 8
    """Epochs of a training; the first is not counted."""
    workers: tuple[int, ...] = (1, 2)
    """Numbers of training workers; the budget is that of one."""
    repeats: int = 3
    """Trainings of each kind; they take turns."""
    folder: str | None = None
    """Where the data are kept. Default: a temporary folder."""


def main(options: Options) -> None:
    """Train in turns and print the report."""
    with folder_for(options.folder) as folder, folder_for(None) as runs:
        data = write_features(folder, **options.shape)
        config = DetectConfig(data=str(data), out=str(runs), epochs=options.epochs, quiet=True, gpu="no")
        with training_rows(config) as (prepared, rows):
            plans = {n: plan_for(DetectConfig(data=str(data), workers=n, gpu="no")) for n in options.workers}
            threads = {n: Job(prepared.training, plan, prepared.run, rows.facts).threads for n, plan in plans.items()}
            bare = BareLoop(rows, prepared.training, max(threads.values()))
            engine = {
                name_of(n): functools.partial(
                    engine_epoch, rows, prepared.training, plan, prepared.run / f"workers-{n}", itertools.count()
                )
                for n, plan in plans.items()
            }
            turns = take_turns({"bare loop": bare.epoch, **engine}, options.repeats)
    print_report(
        "Seconds per epoch of a training on Ray Train, from the times at which each epoch's signals were written, over "
        "those of a bare PyTorch loop (same rows in memory, classifier, batches, SGD, schedule and threads; nothing "
        "recorded); trainings take turns, and a training's figure is the median over its epochs without the first.",
        {
            f"{name_of(n)} / bare loop": turns.ratio(name_of(n), "bare loop", **({"at_most": 1.1} if n == 1 else {}))
            for n in plans
        },
        turns.seconds,
        {**options.shape, "rows": rows.facts.total, "epochs": options.epochs, "batch": prepared.training.batch_size},
        threads={"bare loop": max(threads.values()), **{name_of(n): count for n, count in threads.items()}},
    )


@contextmanager
def training_rows(config: DetectConfig, cluster: str = "local") -> Iterator[tuple[PreparedRun, TrainingRows]]:
    """A prepared run and its training rows, in a Ray session, or with "none" in this process."""
    prepared = prepare(config)
    claim(prepared.run, prepared.identity(), {})
    with ray_session(replace(config, cluster=cluster), prepared, QUIET):
        yield prepared, open_data(prepared, False, QUIET).rows


def name_of(workers: int) -> str:
    """Name of the engine's variant."""
    return f"engine, {workers} worker" + ("s" if workers > 1 else "")


def engine_epoch(
    rows: TrainingRows, config: TrainConfig, plan: TrainPlan, place: Location, numbers: itertools.count[int]
) -> Lap:
    """Seconds per epoch of one training by the engine."""
    run = place / str(next(numbers))
    signals = train(rows, config, plan, run, QUIET)
    written = [
        max((signals.folder / name).info().mtime_ns for name in signals.files[str(epoch)]) / 1e9
        for epoch in range(config.epochs)
    ]
    return Lap(statistics.median(np.diff(written).tolist()))


class BareLoop:
    """What one would write without this package: rows in memory, one process, SGD."""

    def __init__(self, rows: TrainingRows, config: TrainConfig, threads: int) -> None:
        self._config, self._facts = config, rows.facts
        blocks = list(rows.build(False).iter_batches(batch_size=None, batch_format="pyarrow"))
        # Not above: the engine must be imported first, so that its choice of how threads wait is this loop's too.
        import torch

        features = np.concatenate([schema.matrix(block[schema.FEATURE]) for block in blocks])
        self._features = torch.from_numpy(features)
        self._labels = torch.from_numpy(np.concatenate([block[LABEL].to_numpy() for block in blocks]).astype(np.int64))
        torch.set_num_threads(threads)

    def epoch(self) -> Lap:
        """Seconds per epoch of one training."""
        config, facts = self._config, self._facts
        model = build_classifier(
            config.classifier,
            num_features=facts.dim,
            num_classes=facts.num_classes,
            mean=facts.mean,
            scale=facts.scale,
        )
        return Lap(statistics.median(plain_sgd_in_memory(model, config, self._features, self._labels)[1:]))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
