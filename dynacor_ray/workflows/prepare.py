"""Everything before training: options checked, source opened, data packed and embedded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import ClusterError, ConfigError, expected_got
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.decision.noise_rate import NoiseRate
from dynacor_ray.engine.runtime.session import (
    connect,
    is_autoscaling_head,
    require_spill_space,
    resources,
    wait_for_nodes,
)
from dynacor_ray.engine.training.job import TrainConfig, TrainPlan, plan_training
from dynacor_ray.method.clustering import ClusteringConfig, preset
from dynacor_ray.method.corruption import CorruptionConfig
from dynacor_ray.models.augmentation import TrainingAugmentation, stored_side
from dynacor_ray.models.encoders import parse_encoder
from dynacor_ray.models.image_classifiers import NetworkSpec, parse_network
from dynacor_ray.sources.base import Source, SourceOptions
from dynacor_ray.sources.registry import open_source


@dataclass(frozen=True)
class Prepared:
    """A checked configuration with everything opened that can be opened without work."""

    config: DetectConfig
    run: Location
    cache: Location
    """Where the packed data are."""
    features: Location
    """Where all embeddings are, named after encoder and images."""
    source: Source
    corruption: CorruptionConfig
    cluster: ClusteringConfig
    training: TrainConfig


def prepare(config: DetectConfig, like: Prepared | None = None) -> Prepared:
    """Check all that can be checked without Ray and without reading the data: options, source, name of the encoder.

    like: shares its source where both read the same rows.
    """
    clustering = clustering_config(config)
    if config.encoder != "auto":
        parse_encoder(config.encoder, config.image_size)
    network = parse_network(config.network, config.image_size) if config.network is not None else None
    shared = like is not None and _data_digest(like.config) == _data_digest(config)
    source = like.source if like is not None and shared else open_source(config.data, _source_options(config))
    if network is not None and source.kind != "image":
        got = f"{source.kind}s in {config.data}"
        raise ConfigError(expected_got(f"images for --network {config.network}", got, "leave out --network"))
    run = locate(config.out or default_out(config.data))
    cache = locate(config.cache) if config.cache else run / "cache"
    return Prepared(
        config=config,
        run=run,
        cache=cache / f"{source.name}-{_data_digest(config)[:8]}",
        features=cache / "features",
        source=source,
        corruption=CorruptionConfig(gamma=config.gamma, seed=config.seed, copy_pool=config.copy_pool),
        cluster=clustering,
        training=TrainConfig(
            epochs=config.epochs,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            batch_size=config.batch_size,
            corrupted_weight=config.corrupted_weight,
            seed=config.seed,
            network=network,
            augmentation=_training_augmentation(config, network),
            lr_schedule=config.lr_schedule,
            lr_milestones=config.effective_lr_milestones,
            lr_decay=config.lr_decay,
            sync_batchnorm=config.sync_batchnorm,
            compile=config.compile,
        ),
    )


def _training_augmentation(config: DetectConfig, network: NetworkSpec | None) -> TrainingAugmentation | None:
    if network is None:
        return None
    kind, side = config.training_augmentation, network.image_size
    return TrainingAugmentation(side, stored_side(side, kind), kind, config.seed)


def default_out(data: str) -> str:
    """`runs/<name of the data>` below the working directory, or below the home directory inside a Ray job.

    A job's working directory is a throw-away copy on the head node, where nobody would look for results.
    """
    name = PurePosixPath(data.rstrip("/").split(":")[-1]).stem.strip(".") or "detect"
    base = Path.home() / "dynacor_runs" if "runtime_resources" in Path.cwd().parts else Path("runs")
    return str(base / name)


def plan_for(config: DetectConfig, at_once: int = 1) -> TrainPlan:
    """Spread `at_once` trainings over the connected cluster. Raises ClusterError when it is too small for one."""
    plan = plan_training(
        workers=config.workers,
        min_workers=config.min_workers,
        gpu=config.gpu,
        checkpoint_seconds=config.checkpoint_seconds,
        max_failures=config.max_failures,
        worker_cache_gb=config.worker_cache_gb,
        have=resources(),
        at_once=at_once,
    )
    if config.sync_batchnorm and not plan.use_gpu:
        remedy = "leave it out: torch has it on GPUs only"
        raise ClusterError(expected_got("GPUs for --sync-batchnorm", "a training on CPUs", remedy))
    return plan


def _source_options(config: DetectConfig) -> SourceOptions:
    return SourceOptions.of(vars(config))


def _data_digest(config: DetectConfig) -> str:
    """Names the packed data: the same for every seed, except where the seed decides which rows there are."""
    options = dataclasses.asdict(_source_options(config))
    if config.data != "demo" and config.balanced_sample is None:
        del options["seed"]
    return digest({"data": config.data, "options": options})


def clustering_config(config: DetectConfig) -> ClusteringConfig:
    """Options of the clustering: those of the variant, and what was chosen otherwise."""
    chosen: dict[str, Any] = {"alpha": config.alpha, "seed": config.seed}
    if config.epoch_choice is not None:
        chosen["epoch_choice"] = config.epoch_choice
    if config.clustering_epochs is not None:
        chosen["epochs"] = config.clustering_epochs
    if config.clustering_learning_rate is not None:
        chosen["learning_rate"] = config.clustering_learning_rate
    return preset(config.variant or "paper", **chosen)


def identity(prepared: Prepared) -> dict[str, Any]:
    """What the outputs depend on: two runs with the same identity would give the same outputs."""
    return {"options": prepared.config.result_options(), "data": prepared.source.fingerprint()}


def with_noise_rate(clustering: ClusteringConfig, estimate: NoiseRate | None) -> ClusteringConfig:
    """The options of the clustering, completed by what the training said of the noise rate."""
    return dataclasses.replace(clustering, noise_rate=estimate.value if estimate else None)


@contextmanager
def ray_session(config: DetectConfig, progress: Progress) -> Iterator[None]:
    """Connected to the cluster, with the nodes that training needs where they come on demand."""
    with progress.timed("start"):
        connect(config.cluster)
        minutes = (
            config.node_timeout_minutes if config.node_timeout_minutes is not None else 15.0 * is_autoscaling_head()
        )
    with wait_for_nodes(config.workers, config.gpu == "yes", 60 * minutes, progress):
        yield


def store_bytes(prepared: Prepared) -> int:
    """Most that a run keeps in Ray's object stores at a time: rows that are read, dynamics, the ranking.

    0.84 GB were measured with a million rows of 512 features, 10 epochs and a store of 0.3 GB; here it is 1.5 GB.
    """
    config, rows = prepared.config, prepared.source.num_rows
    return min(1 << 30, rows << 16) + int(rows * (1 + config.gamma) * (2 * config.epochs + 400))


def check_storage(prepared: Prepared, progress: Progress) -> None:
    """Say so when several nodes could not see what one of them writes. Raises StorageError when Ray has no room."""
    require_spill_space(store_bytes(prepared))
    run, cache = prepared.run, prepared.cache
    if resources().nodes > 1 and (run.is_local or cache.is_local):
        progress.say(f"Warning: {run} and {cache} must be on storage that all nodes see, such as NFS or s3://.")
