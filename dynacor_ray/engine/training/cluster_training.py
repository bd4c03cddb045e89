"""The training's ranks as workers of Ray Train: started, tried again when they or their leader die, told their job."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray.train
import ray.train.torch
from ray.exceptions import ObjectLostError, RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from dynacor_ray.engine.data.padded_split import PaddedDataConfig
from dynacor_ray.engine.data.training_rows import TrainingRows
from dynacor_ray.engine.runtime.placement_groups import MEMORY, release_reservation, reservation_tag
from dynacor_ray.engine.runtime.session import kept_handler, root_cause
from dynacor_ray.engine.training.job import Job, TrainPlan
from dynacor_ray.engine.training.worker import Rank, train_rank


def train_on_cluster(job: Job, rows: TrainingRows) -> str | None:
    """What `train_rank` returns on rank 0. Raises what Ray raises when workers are lost too often."""
    memory = job.plan.memory_per_worker + reservation_tag(str(job.run))
    trainer = functools.partial(_trainer, job, rows, memory)
    message: str | None = _fit(trainer, job.plan.max_failures, lambda: release_reservation(memory)).return_value
    return message


def train_worker(told: dict[str, Any]) -> str | None:
    """`train_rank` in a worker of Ray Train."""
    context = ray.train.get_context()
    here = Rank(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=ray.train.torch.get_device(),
        shard=ray.train.get_dataset_shard("train"),
        wrap=ray.train.torch.prepare_model,
    )
    return train_rank(told["job"], here)


def _trainer(job: Job, rows: TrainingRows, memory: int) -> TorchTrainer:
    """One attempt at the training; another one with the same job goes on from the last checkpoint.

    memory: bytes that are reserved for each worker.
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
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
        datasets={"train": functools.partial(rows.build, fewest.streamed)},
        dataset_config=PaddedDataConfig(facts.total, facts.dim, facts.value_type, facts.weighted),
    )


def _fit(trainer: Callable[[], TorchTrainer], restarts: int, make_ready: Callable[[], None]) -> ray.train.Result:
    """Run a training to its end, also when the process that leads it dies, or a worker as it starts.

    Ray restarts workers that die later, and a new trainer goes on from the last checkpoint.
    """
    for _ in range(restarts):
        make_ready()
        try:
            with _interruptible():
                return trainer().fit()
        except (ray.train.ControllerError, RayActorError) as error:
            if not isinstance(root_cause(error), (RayActorError, ObjectLostError)):
                raise
    make_ready()
    with _interruptible():
        return trainer().fit()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C stays a KeyboardInterrupt: Ray's handler ends the process as if all were done, and is left installed."""
    with kept_handler(signal.SIGINT):
        try:
            yield
        except SystemExit:
            raise KeyboardInterrupt from None


def _resources(plan: TrainPlan, memory: int) -> dict[str, float]:
    """What Ray sets aside for a worker."""
    wanted = {"CPU": plan.cpus_per_worker, "GPU": float(plan.use_gpu), MEMORY: float(memory)}
    return {name: amount for name, amount in wanted.items() if amount}
