"""Data-parallel training of the classifier with Ray Train (§4.3): the driver's side."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray.train
from ray.exceptions import ObjectLostError, RayActorError
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from dynacor_ray.core.errors import CoverageError, StorageError, TrainingError, expected_got
from dynacor_ray.core.manifest import MANIFEST
from dynacor_ray.core.progress import Progress, Stage
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.data.training_rows import PaddedDataConfig, TrainingRows
from dynacor_ray.engine.runtime.placement_groups import MEMORY, new_reservation_tag, release_reservation
from dynacor_ray.engine.runtime.session import remote_errors, root_cause
from dynacor_ray.engine.training.job import Job, TrainConfig, TrainPlan
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.engine.training.signal_files import (
    FAILED,
    PROGRESS,
    SIGNALS,
    complete,
    remove_unlisted,
    write_confidence,
    write_joints,
)
from dynacor_ray.engine.training.worker import read_checkpoint, train_worker


def train(
    rows: TrainingRows, config: TrainConfig, plan: TrainPlan, run: Location, progress: Progress
) -> RecordedSignals:
    """Train, or resume, or return at once when the signals of this run are complete.

    Args:
        rows: What is trained on.
        config: What the training depends on.
        plan: How it is spread over the cluster.
        run: Directory for the signals and for the state of Ray Train.
        progress: Where the rows done are shown.

    Returns:
        The signals: exactly one per row and epoch.

    Raises:
        TrainingError: The loss diverges, or workers were lost more often than `max_failures`.
    """
    known = RecordedSignals.read(run)
    if known is not None:
        return known
    (run / SIGNALS).make_dir()
    (run / SIGNALS / FAILED).delete()
    memory = plan.memory_per_worker + new_reservation_tag()
    trainer = functools.partial(_trainer, Job(config, plan, run, rows.facts), rows, memory)

    def make_ready() -> None:
        release_reservation(memory)
        drop_corrupt_snapshot(run / "train", progress)

    runs = [(run, rows.facts.total)]
    with (
        progress.stage("train", config.epochs * rows.facts.total, "rows", before=rows_done(runs)) as bar,
        poll_progress(lambda: rows_done(runs), bar),
        clean_up_first_epoch_oom(run),
        _training_errors(plan),
    ):
        result = _fit(trainer, plan.max_failures, make_ready)
        if result.return_value is not None:
            raise TrainingError(result.return_value)
        bar.update(config.epochs * rows.facts.total)
    if result.checkpoint is None:
        raise TrainingError(expected_got("a checkpoint after training", "none", f"look into {run / 'train'}"))
    saved = read_checkpoint(result.checkpoint)
    manifest = saved["manifest"]
    if not complete(manifest, config.epochs):
        got = f"those of {len(manifest)}"
        raise CoverageError(expected_got(f"signals of {config.epochs} epochs", got, "report this as a defect"))
    if not config.baselines:
        write_joints(run / SIGNALS, saved["module"]["joints"])
        write_confidence(run / SIGNALS, saved["module"]["confidence"])
    (run / SIGNALS / MANIFEST).write_json(manifest)
    remove_unlisted(run / SIGNALS, manifest)
    return RecordedSignals(run / SIGNALS, manifest)


def _trainer(job: Job, rows: TrainingRows, memory: int) -> TorchTrainer:
    """One attempt at the training; another one with the same job goes on from the last checkpoint.

    memory: bytes that are set aside for each worker.
    """
    plan, facts = job.plan, job.rows
    # With the fewest workers, each has the most rows.
    fewest = job.among(plan.min_workers)
    elastic = plan.min_workers < plan.workers
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=(plan.min_workers, plan.workers) if elastic else plan.workers,
            use_gpu=plan.use_gpu,
            resources_per_worker=_resources(plan, memory),
            placement_strategy="SPREAD",
        ),
        run_config=RunConfig(
            name="train",
            storage_path=job.run.path,
            storage_filesystem=job.run.filesystem,
            failure_config=FailureConfig(max_failures=plan.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
        datasets={"train": functools.partial(rows.build, fewest.streamed)},
        dataset_config=PaddedDataConfig(facts.total, facts.dim, facts.value_type),
    )


def drop_corrupt_snapshot(folder: Location, progress: Progress) -> None:
    """Ray writes its list of checkpoints in place: one that a kill has cut off would stop every later attempt."""
    place = folder / "checkpoint_manager_snapshot.json"
    try:
        if place.exists():
            place.read_json()
    except StorageError as error:
        if not isinstance(error.__cause__, ValueError):
            raise
        progress.say("The list of checkpoints was cut off when a process was killed: training starts again.")
        folder.delete()


def _fit(trainer: Callable[[], TorchTrainer], restarts: int, make_ready: Callable[[], None]) -> ray.train.Result:
    """Run a training to its end, also when the process that leads it dies, or a worker as it starts.

    Ray restarts workers that die later, and a new trainer goes on from the last checkpoint.
    """
    for _ in range(restarts):
        make_ready()
        try:
            return trainer().fit()
        except (ray.train.ControllerError, RayActorError) as error:
            if not isinstance(root_cause(error), (RayActorError, ObjectLostError)):
                raise
    make_ready()
    return trainer().fit()


def _resources(plan: TrainPlan, memory: int) -> dict[str, float]:
    """What Ray sets aside for a worker."""
    wanted = {"CPU": plan.cpus_per_worker, "GPU": float(plan.use_gpu), MEMORY: float(memory)}
    return {name: amount for name, amount in wanted.items() if amount}


@contextmanager
def _training_errors(plan: TrainPlan) -> Iterator[None]:
    try:
        with remote_errors():
            yield
    except (ray.train.TrainingFailedError, RayActorError) as error:
        cause = root_cause(error)
        got = f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1] if str(cause).strip() else 'no message'}"
        remedy = "rerun the same command to resume, or raise --max-failures if machines come and go"
        expected = f"training to survive with at most {plan.max_failures} restarts"
        raise TrainingError(expected_got(expected, got, remedy)) from error


@contextmanager
def clean_up_first_epoch_oom(run: Location) -> Iterator[None]:
    """What ran out of memory before its first epoch was whole leaves nothing that a smaller batch could not use."""
    try:
        yield
    except TrainingError:
        failed = run / SIGNALS / FAILED
        if failed.exists() and failed.read_json()["fresh"]:
            (run / SIGNALS).delete()
            (run / "train").delete()
        raise


def rows_done(runs: list[tuple[Location, int]]) -> int:
    """Rows that were trained on, over all epochs that the rank 0 of each run says are done. runs: with their rows."""
    places = [(run / SIGNALS / PROGRESS, rows) for run, rows in runs]
    return sum(int(place.read_json()["epochs"]) * rows for place, rows in places if place.exists())


@contextmanager
def poll_progress(done_so_far: Callable[[], int], bar: Stage) -> Iterator[None]:
    """Show how far others are, while the driver waits for them."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(1.0):
            bar.update(done_so_far())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
