"""Training of the classifier (§4.3), in this process or data-parallel with Ray Train: the driver's side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from dynacor_ray.core.errors import CoverageError, DynacorError, TrainingError, expected_got
from dynacor_ray.core.manifest import MANIFEST
from dynacor_ray.core.openmp import threads_spin
from dynacor_ray.core.progress import Progress, Stage
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.data.training_rows import TrainingRows
from dynacor_ray.engine.runtime.session import on_cluster, remote_errors, root_cause
from dynacor_ray.engine.runtime.tasks import torch_threads
from dynacor_ray.engine.training.job import Job, TrainConfig, TrainPlan
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.engine.training.signal_files import (
    CHECKPOINT,
    FAILED,
    PROGRESS,
    SIGNALS,
    complete,
    remove_unlisted,
    write_confidence,
    write_joints,
)
from dynacor_ray.engine.training.trained_model import HISTORY, write_model
from dynacor_ray.engine.training.worker import Rank, read_checkpoint, train_rank

SPINNING = (
    "torch was imported before dynacor_ray, so its threads spin while they wait: training is several times as slow "
    "while other programs run. Import dynacor_ray first, or set OMP_WAIT_POLICY=PASSIVE."
)


def train(
    rows: TrainingRows,
    config: TrainConfig,
    plan: TrainPlan,
    run: Location,
    progress: Progress,
    follow: Callable[[list[dict[str, Any]]], None] | None = None,
) -> RecordedSignals:
    """Train, or resume, or return at once when the signals of this run are complete.

    Args:
        rows: What is trained on.
        config: What the training depends on.
        plan: How it is spread over the cluster.
        run: Directory for the signals and for the state of Ray Train.
        progress: Where the rows done are shown.
        follow: Called now and then, from another thread, with the figures of the epochs so far. What fails there ends
            nothing.

    Returns:
        The signals: exactly one per row and epoch.

    Raises:
        TrainingError: The loss diverges, or workers were lost more often than `max_failures`.
    """
    known = RecordedSignals.read(run)
    if known is not None:
        return known
    (run / SIGNALS).make_dir().remove_half_written()
    (run / SIGNALS / FAILED).delete()
    job = Job(config, plan, run, rows.facts)
    _say_if_threads_spin(job, progress)
    runs = [(run, rows.facts.total)]
    with (
        progress.stage("train", config.epochs * rows.facts.total, "rows", before=rows_done(runs)) as bar,
        poll_progress(lambda: rows_done(runs), bar, lambda: _tell(follow, run)),
        clean_up_first_epoch_oom(run),
        _training_errors(plan),
    ):
        message = _train_on_cluster(job, rows) if on_cluster() else _train_here(job, rows)
        if message is not None:
            raise TrainingError(message)
        bar.update(config.epochs * rows.facts.total)
    saved = read_checkpoint(run)
    manifest = saved["manifest"] if saved else {}
    if saved is None or not complete(manifest, config.epochs):
        got = f"those of {len(manifest)}"
        raise CoverageError(expected_got(f"signals of {config.epochs} epochs", got, "report this as a defect"))
    if config.robust is not None:
        write_model(run / SIGNALS, saved["model"], saved["module"]["history"])
    elif not config.baselines:
        write_joints(run / SIGNALS, saved["module"]["joints"])
        write_confidence(run / SIGNALS, saved["module"]["confidence"])
    (run / SIGNALS / MANIFEST).write_json(manifest)
    (run / SIGNALS / CHECKPOINT).delete()
    remove_unlisted(run / SIGNALS, manifest)
    return RecordedSignals(run / SIGNALS, manifest)


def _tell(follow: Callable[[list[dict[str, Any]]], None] | None, run: Location) -> None:
    place = run / SIGNALS / HISTORY
    if follow is not None and place.exists():
        with suppress(DynacorError, OSError):
            follow(place.read_json())


def _say_if_threads_spin(job: Job, progress: Progress) -> None:
    if threads_spin() and job.threads > 1 and not job.plan.use_gpu and not on_cluster():
        progress.say(SPINNING)


def _train_here(job: Job, rows: TrainingRows) -> str | None:
    """The one rank there is, in this process, whose threads and random numbers are afterwards as they were."""
    device = torch.device("cuda:0" if job.plan.use_gpu else "cpu")
    here = Rank(0, 1, device, rows.local(job.streamed), lambda network: network.to(device))
    with torch_threads(job.threads), torch.random.fork_rng(devices=[0] if job.plan.use_gpu else []):
        return train_rank(job, here)


def _train_on_cluster(job: Job, rows: TrainingRows) -> str | None:
    from dynacor_ray.engine.training.cluster_training import train_on_cluster

    return train_on_cluster(job, rows)


@contextmanager
def _training_errors(plan: TrainPlan) -> Iterator[None]:
    try:
        with remote_errors():
            yield
    except DynacorError:
        raise
    except Exception as error:
        cause = root_cause(error)
        got = f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1] if str(cause).strip() else 'no message'}"
        expected, remedy = "the training to end", "the same command resumes; report what comes again"
        if on_cluster():
            expected = f"training to survive with at most {plan.max_failures} restarts"
            remedy = "rerun the same command to resume, or raise --max-failures if machines come and go"
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
def poll_progress(
    done_so_far: Callable[[], int], bar: Stage, also: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Show how far others are, while the driver waits for them. also: called as often, every second."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(1.0):
            bar.update(done_so_far())
            also()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
