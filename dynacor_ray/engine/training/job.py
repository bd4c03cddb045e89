"""What a training depends on, how it is spread over the cluster, and what a worker is told."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import ClusterError, expected_got
from dynacor_ray.core.storage import Location
from dynacor_ray.detectors.baseline_classifiers import BaselineTraining
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.data.training_rows import TrainingRows
from dynacor_ray.engine.runtime.machine import Resources
from dynacor_ray.engine.runtime.session import on_cluster
from dynacor_ray.method.clustering import ClusteringConfig
from dynacor_ray.models.augmentation import TrainingAugmentation
from dynacor_ray.models.image_classifiers import NetworkSpec
from dynacor_ray.robust.dividemix import DivideMix
from dynacor_ray.robust.losses import RobustLoss

NUMBERS_PER_THREAD = 2**15
"""Features of a step that keep a thread of torch busy: 64 rows of 512."""

LARGE_BATCH = 1024
"""Rows of a step from which one process gives it every CPU."""


@dataclass(frozen=True)
class RobustTraining:
    """The training of a classifier for its own sake (§5.5): its loss, and what it is tested on after every epoch."""

    loss: RobustLoss
    test: TrainingRows | None = None
    mix: DivideMix | None = None
    """DivideMix in place of the loss."""
    clustering: ClusteringConfig | None = None
    """Of the dynamics (§4.4), where they divide the rows."""
    clustering_sample: int = 200_000
    """Most rows that it is fitted to."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What the training depends on; Table 5 has the paper's values."""

    classifier: str = "mlp"
    epochs: int = 20
    learning_rate: float = 0.02
    weight_decay: float = 5e-4
    batch_size: int = 128
    corrupted_weight: str = "uniform"
    seed: int = 0
    baselines: tuple[BaselineTraining, ...] = ()
    """Trainings that detectors declare, to be done side by side; empty: DynaCor's own classifier."""
    network: NetworkSpec | None = None
    """Trained on images; None: `classifier` on features."""
    augmentation: TrainingAugmentation | None = None
    """Of the images in every epoch; with a network only."""
    lr_schedule: str = "cosine"
    lr_milestones: tuple[float, ...] = ()
    """Shares of the training after which the learning rate is multiplied by `lr_decay`."""
    lr_decay: float = 0.1
    sync_batchnorm: bool = False
    compile: bool = False
    signals: bool = False
    """Whether DynaCor's own classifier records all signals of Table 6 (`method.signals`)."""
    class_scores: bool = False
    """Whether the scores of every class that the label noise model reads are recorded (`schema.CLASS_SCORES`)."""
    robust: RobustTraining | None = None
    """In place of DynaCor's own classifier."""


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """How the training is spread over the cluster."""

    workers: int
    """The most workers, except in what `Job.among` returns: the workers there are."""
    min_workers: int
    use_gpu: bool
    cpus_per_worker: float
    threads: int
    cache_bytes: int
    checkpoint_seconds: float
    max_failures: int
    memory_per_worker: int = 0
    """Bytes that Ray sets aside for a worker, so that a node takes no more workers than planned."""


@dataclass(frozen=True)
class Job:
    """Everything that a worker is told."""

    config: TrainConfig
    plan: TrainPlan
    run: Location
    rows: RowFacts

    def among(self, workers: int) -> Job:
        """The job as one of so many workers sees it, which changes when machines come and go."""
        return replace(self, plan=replace(self.plan, workers=workers))

    @property
    def rows_per_rank(self) -> int:
        """Rows of one epoch on each rank, padding included."""
        return -(-self.rows.total // self.plan.workers)

    @property
    def threads(self) -> int:
        """Threads of torch on each rank: for a classifier no more than its small steps have work for.

        One CPU is left to Ray's processes, and in one process to others unless the steps are large: threads that wait
        for one of theirs wait for all, at every operation.
        """
        if self.config.network is not None:
            return self.plan.threads
        numbers = self.config.batch_size // self.plan.workers * self.rows.dim
        spare = on_cluster() or self.config.batch_size < LARGE_BATCH
        return max(1, min(self.plan.threads - spare, numbers // NUMBERS_PER_THREAD))

    @property
    def streamed(self) -> bool:
        """Whether a rank's rows are too many to be kept in memory."""
        return self.rows_per_rank * self.rows.row_bytes > self.plan.cache_bytes


def plan_training(config: DetectConfig, have: Resources, at_once: int = 1) -> TrainPlan:
    """Fit `at_once` equal trainings to the cluster.

    Raises:
        ClusterError: There are too few CPUs or GPUs for one.
    """
    workers, gpu = config.workers, config.gpu
    least = workers if config.min_workers is None else config.min_workers
    if least > have.cpus:
        got = f"{have.cpus:g} CPUs on {have.nodes} node(s)"
        raise ClusterError(expected_got(f"a CPU for each of {least} workers", got, "lower --workers or add nodes"))
    if gpu == "yes" and least > have.gpus:
        got = f"{have.gpus:g} GPUs"
        raise ClusterError(expected_got(f"a GPU for each of {least} workers", got, "lower --workers or use --gpu auto"))
    use_gpu, elastic = uses_gpu(least, gpu, have), least < workers
    if config.sync_batchnorm and not use_gpu:
        remedy = "leave it out: torch has it on GPUs only"
        raise ClusterError(expected_got("GPUs for --sync-batchnorm", "a training on CPUs", remedy))
    per_node = max(1, -(-workers * at_once // max(have.nodes, 1)))
    cores = max(1, int(have.cpus // max(have.nodes, 1)))
    # A whole CPU must stay free on each node: Ray Data lists files with one, and would wait for it for ever.
    cpus = max(0.0, min(1.0, (have.cpus / max(have.nodes, 1) - 1) / per_node))
    cache_gb = config.worker_cache_gb
    share = cache_gb * 2**30 if cache_gb is not None else have.memory_bytes / 4 / per_node
    return TrainPlan(
        workers=workers,
        min_workers=least,
        use_gpu=use_gpu,
        cpus_per_worker=cpus,
        threads=max(1, cores // per_node),
        cache_bytes=int(share),
        checkpoint_seconds=config.checkpoint_seconds,
        max_failures=config.max_failures,
        # Where CPUs alone would let a node that is left take over the workers of a lost one, and with them the CPU for
        # reading. A GPU is taken by one worker anyway.
        memory_per_worker=int(have.memory_bytes / (per_node + 0.5)) if elastic and not use_gpu else 0,
    )


def uses_gpu(workers: int, gpu: str, have: Resources) -> bool:
    """Whether a training runs on GPUs: `gpu` is "yes", or "auto" and there are enough."""
    return gpu != "no" and have.gpus >= workers


def trainings_at_once(workers: int, gpu: str, have: Resources) -> int:
    """How many trainings of `workers` workers the cluster can run side by side, with CPUs left for Ray Data."""
    if uses_gpu(workers, gpu, have):
        return max(1, int(have.gpus // workers))
    # Beside one CPU per node for reading, a quarter is left: trainings that start together all read at first.
    free = have.cpus - max(have.nodes, have.cpus / 4)
    return max(1, int(free // workers))
