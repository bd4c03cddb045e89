"""The options of a run, checked before any work starts."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_type_hints

from dynacor_ray.config.options import _MEANING, _as_type, flag
from dynacor_ray.config.recipes import recipe_options
from dynacor_ray.core.errors import ConfigError, expected_got

Threshold = Literal["noise_rate", "corrupted_recall", "mixture", "paper"]
Score = Literal["combined_margin", "early_margin", "mean_margin", "leave_one_out", "soft_assignment"]
Variant = Literal["paper", "released"]
Weighting = Literal["uniform", "paper"]
Augmentation = Literal["auto", "flip", "crop", "none"]
TrainingKind = Literal["crop_flip", "crop", "none"]
Schedule = Literal["cosine", "multistep"]
EpochChoice = Literal["validation_metric", "noise_rate", "davies_bouldin", "last"]
GpuUse = Literal["auto", "yes", "no"]


@dataclass(frozen=True, kw_only=True)
class DetectConfig:
    """Options of `dynacor detect`, `dynacor doctor` and `dynacor_ray.detect`; equation numbers are the paper's."""

    data: str
    """What to search: `demo`, a parquet file or folder, an image folder, a CSV/parquet table of uri and label, the
    root of Clothing1M, `cifar10:ROOT` or `cifar100:ROOT`. Local path or any URI that fsspec knows."""
    out: str | None = None
    """Run directory for the outputs (local or URI). The same command on the same directory resumes. Default: runs/NAME,
    named after the data; inside a Ray job ~/dynacor_runs/NAME."""
    cache: str | None = None
    """Where packed data and embeddings are kept; share it between runs on the same data. Default: OUT/cache."""

    label_column: str | None = None
    """Column with the given labels (default: found by its usual names). For CIFAR the kind of human labels, such as
    `worse_label`."""
    image_column: str | None = None
    """Column with encoded images."""
    feature_column: str | None = None
    """Column with feature vectors."""
    uri_column: str | None = None
    """Column with image paths or URIs."""
    truth_column: str | None = None
    """Column with true labels, only used to score the result (default: `true_label` if present)."""
    classes: tuple[str, ...] | None = None
    """Class names in order; any other label is quarantined. Default: declared by the data, else the labels found."""
    balanced_sample: int | None = None
    """Clothing1M: audit a class-balanced sample of this many images (the paper's protocol: 120000)."""
    include_double_labeled: bool = False
    """Clothing1M: add the images with both labels, so that F1 can be measured."""
    max_invalid_share: float = 0.01
    """Largest share of unusable rows (unreadable images, missing labels) that is not an error."""

    encoder: str = "auto"
    """`features`, `pixels`, `pixels:SIZE`, a timm name such as `tf_efficientnet_lite0`, `timm:NAME@WEIGHTS`,
    `open_clip:MODEL/TAG` or `open_clip:MODEL@WEIGHTS`."""
    image_size: int | None = None
    """Side to which images are resized for the encoder or network, in pixels; smaller ones are enlarged. Default: the
    encoder's or network's own."""
    network: str | None = None
    """Train this network on the images themselves, in place of a head on an encoder's features: `cifar_resnet8`,
    `cifar_resnet20`, `cifar_resnet34`, `cifar_preact_resnet18`, `resnet50` or any timm name. `NAME@FILE` starts from a
    weight file, `NAME@none` from random numbers."""
    recipe: str | None = None
    """Take training options from a set of this name, Table 5's: `frozen_clip`, `cifar_resnet34`,
    `cifar_preact_resnet18`, `clothing1m_resnet50`; with `_released` the authors' code: `frozen_clip_released`,
    `cifar_resnet34_released`. What is given besides wins."""
    augmentation: Augmentation = "auto"
    """Weak augmentation of the corrupted copies (§4.2): horizontal flip, center crop (the paper's for networks, and
    that of the recipes) or none. `auto`: none for raw pixels and networks, to which a changed picture could tell the
    copies from the others, and which learn it by heart; else flip."""
    training_augmentation: TrainingKind = "crop_flip"
    """What a network sees of an image in each epoch: a random crop, mirrored or not (`crop_flip`), a random crop, or
    always the same (`none`). Crops are cut from the image padded by an eighth; above 64 px from 8/7 of the side."""

    gamma: float = 0.1
    """Corruption rate (§4.2): share of instances that get a deliberately mislabeled copy, in (0, 1]."""
    seed: int = 0
    """Seed of everything random."""
    epochs: int = 20
    """Training epochs of the classifier, which is also the length of the dynamics."""
    learning_rate: float = 0.02
    """Peak learning rate of SGD (momentum 0.9)."""
    lr_schedule: Schedule = "cosine"
    """How the learning rate falls: along a cosine, or in steps (`multistep`)."""
    lr_milestones: tuple[float, ...] | None = None
    """With --lr-schedule multistep: shares of the epochs after which the learning rate is multiplied by --lr-decay.
    Default: 0.5 0.75."""
    lr_decay: float = 0.1
    """With --lr-schedule multistep: factor of the learning rate at each milestone."""
    weight_decay: float = 5e-4
    """Weight decay of the classifier."""
    batch_size: int = 128
    """Rows per step, over all workers together: the learning rate needs no scaling by their number."""
    corrupted_weight: Weighting = "uniform"
    """`uniform`: plain mean over originals and copies; `paper`: Eq. 2, both sets weigh the same."""

    variant: Variant | None = None
    """The published method, clustering and flags: `paper`: Eq. 3-9 as printed; `released`: as in the authors' code.
    Default: the paper's clustering, and flags by --flag-rule noise_rate."""
    alpha: float = 0.5
    """Weight of the alignment loss (Eq. 8), at least 0."""
    clustering_epochs: int | None = None
    """Epochs of the dynamics encoder. Default: the variant's own (10 or 15)."""
    clustering_learning_rate: float | None = None
    """Adam's learning rate for the dynamics encoder. Default: 1e-5 (Table 5)."""
    epoch_choice: EpochChoice | None = None
    """How the epoch of the dynamics encoder is chosen (Table 3): by Eq. 9 (`validation_metric`), by agreement with the
    noise rate estimated while training, by the Davies-Bouldin index, or the last. Default: Eq. 9; in a sweep, the rule
    of --selection-rule."""
    flag_rule: Threshold | None = None
    """Which rows are flagged. `noise_rate`: as many of the most suspicious as labels are wrong by the training's own
    estimate, but no more than it takes to catch 98% of the planted errors (--target-recall of them with a network);
    `corrupted_recall`: as many as it takes to catch --target-recall of the planted errors; `mixture`: those below the
    point where two Gaussians fitted to the score are equally likely; `paper`: those with q_noisy > q_clean (Eq. 4).
    Default: `noise_rate`; `paper` when a --variant is named."""
    ranking_score: Score | None = None
    """What rows are ranked by: mean margin over the first half of the epochs (`early_margin`) or over all; the margin
    of a ridge regression that leaves the row out (`leave_one_out`; features up to 4,096 numbers); the sum of the first
    and the last, each in units of its spread (`combined_margin`); or Eq. 3's soft assignment. Default:
    `combined_margin`, with a network `mean_margin`; `soft_assignment` with --flag-rule paper."""
    target_recall: float = 0.92
    """Share of the planted errors that --flag-rule corrupted_recall catches."""
    clustering_sample: int = 200_000
    """Most rows the dynamics encoder is fitted on; all rows are assigned."""

    workers: int = 1
    """Data-parallel training workers."""
    min_workers: int | None = None
    """Start, and after a lost machine go on, with as few workers as this; machines that come later are used up to
    --workers. Default: --workers."""
    gpu: GpuUse = "auto"
    """Use GPUs for embedding and training: `auto` if the cluster has enough."""
    sync_batchnorm: bool = False
    """Batch norm of a network over the rows of all workers instead of each worker's own; on GPUs only."""
    compile: bool = False
    """Compile the network with torch.compile: slow to start, then faster."""
    max_failures: int = 3
    """How often training may be restarted after a lost worker."""
    checkpoint_seconds: float = 15.0
    """Least time between two checkpoints of the training; a restart repeats at most that much."""
    worker_cache_gb: float | None = None
    """Memory per worker for training rows; beyond it they are streamed again each epoch. Default: a quarter of the
    node's memory, shared by its workers."""
    cluster: str | None = None
    """Ray cluster to use (`auto` or an address). Default: RAY_ADDRESS if set, else a cluster on this machine."""
    node_timeout_minutes: float | None = None
    """How long to wait for an autoscaling cluster to bring enough nodes. Default: 15 on a cluster made by `ray up`,
    else 0."""
    thumbnails: bool | None = None
    """Whether report.html holds small copies of the images it shows: `--thumbnails` or `--no-thumbnails`. Default: yes,
    except for Clothing1M, whose terms forbid to pass images on."""
    mlflow_uri: str | None = None
    """MLflow server or database to tell of the finished run, or of a sweep's trials, e.g. `sqlite:///mlflow.db`."""
    quiet: bool = False
    """Print nothing but errors."""

    def __post_init__(self) -> None:
        _check_types(self)
        _check_ranges(self)
        _check_choices(self)
        _check_together(self)

    @property
    def copy_pool(self) -> float:
        """Share of the instances that may get a copy: 1, or 0.9 as the released code has it."""
        return 0.9 if self.variant == "released" else 1.0

    @property
    def policy(self) -> str:
        """The threshold that is used."""
        return self.flag_rule or ("paper" if self.variant else "noise_rate")

    @property
    def ranking(self) -> str:
        """The score that rows are ranked by."""
        if self.ranking_score or self.policy == "paper":
            return self.ranking_score or "soft_assignment"
        return self.margin_score

    @property
    def margin_score(self) -> str:
        """The score that is best for what is trained, which the noise rate is read from as well."""
        return "combined_margin" if self.network is None else "mean_margin"

    @property
    def steps_at(self) -> tuple[float, ...]:
        """The milestones that are used, none for a cosine."""
        return (self.lr_milestones or (0.5, 0.75)) if self.lr_schedule == "multistep" else ()

    def result_options(self) -> dict[str, Any]:
        """The options that determine the result: all but place, machine and display."""
        skip = {
            *("out", "cache", "workers", "min_workers", "gpu", "max_failures", "checkpoint_seconds"),
            *(
                "worker_cache_gb",
                "cluster",
                "node_timeout_minutes",
                "thumbnails",
                "mlflow_uri",
                "quiet",
                "max_invalid_share",
            ),
            *("recipe", "compile"),
        }
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in skip}


def make_config(**options: Any) -> DetectConfig:
    """Build a DetectConfig; options given win over those of a `recipe`.

    An unknown option raises ConfigError with the closest and the list of valid ones.
    """
    valid = [field.name for field in dataclasses.fields(DetectConfig)]
    for name in options:
        if name not in valid:
            close = difflib.get_close_matches(name, valid, n=1)
            hint = f"did you mean {close[0]!r}? Valid options: " if close else "valid options: "
            raise ConfigError(expected_got("a known option", repr(name), hint + ", ".join(valid)))
    if options.get("recipe") is not None:
        options = recipe_options(options["recipe"]) | options
    return DetectConfig(**{"data": None} | options)


def _check_types(config: DetectConfig) -> None:
    """Give every option the type that it is declared with: a path becomes text, NumPy's numbers become Python's."""
    defaults = {field.name: field.default for field in dataclasses.fields(DetectConfig)}
    for name, hint in get_type_hints(DetectConfig).items():
        value = getattr(config, name)
        optional = NoneType in get_args(hint)
        kind = get_args(hint)[0] if optional else hint
        if kind not in _MEANING or (value is None and optional):
            continue
        typed = _as_type(value, kind)
        if typed is None:
            remedy = "leave it out" if optional else f"the default is {defaults[name]!r}"
            remedy = "pass e.g. --data demo" if name == "data" else remedy
            raise ConfigError(expected_got(f"{flag(name)} to be {_MEANING[kind]}", repr(value), remedy))
        object.__setattr__(config, name, typed)


def _check_ranges(config: DetectConfig) -> None:
    def need(ok: bool, name: str, expected: str, remedy: str) -> None:
        if not ok:
            raise ConfigError(expected_got(f"{flag(name)} {expected}", repr(getattr(config, name)), remedy))

    need(bool(config.data), "data", "to name a data set", "pass e.g. --data demo")
    need(0 < config.gamma <= config.copy_pool, "gamma", f"in (0, {config.copy_pool:g}]", "the paper uses 0.1")
    need(config.epochs >= 1, "epochs", "of at least 1", "20 is a good start; 1 gives almost no dynamics")
    need(config.learning_rate > 0, "learning_rate", "above 0", "the default is 0.02")
    need(config.weight_decay >= 0, "weight_decay", "of at least 0", "the default is 5e-4")
    need(0 < config.lr_decay <= 1, "lr_decay", "in (0, 1]", "the default is 0.1")
    steps = config.lr_milestones
    ordered = steps is None or (all(0 < step < 1 for step in steps) and sorted(set(steps)) == list(steps) != [])
    need(
        ordered,
        "lr_milestones",
        "to be increasing shares of the epochs, each in (0, 1)",
        "e.g. --lr-milestones 0.5 0.75",
    )
    need(config.batch_size >= config.workers, "batch_size", "of at least one row per worker", "the default is 128")
    need(config.alpha >= 0, "alpha", "of at least 0", "the paper uses 0.5 or 0.05")
    need((config.clustering_epochs or 0) >= 0, "clustering_epochs", "of at least 0", "the paper uses 10")
    rate = config.clustering_learning_rate
    need(rate is None or rate > 0, "clustering_learning_rate", "above 0", "the paper uses 1e-5")
    need(0 < config.target_recall < 1, "target_recall", "in (0, 1)", "the default is 0.92")
    need(config.clustering_sample >= 100, "clustering_sample", "of at least 100", "the default is 200000")
    need(config.workers >= 1, "workers", "of at least 1", "start with one worker per GPU")
    least = config.min_workers
    need(least is None or 1 <= least <= config.workers, "min_workers", "between 1 and --workers", "leave it out")
    need(
        0 <= config.max_invalid_share <= 1,
        "max_invalid_share",
        "in [0, 1]",
        "the default is 0.01, one row in a hundred",
    )
    need(config.max_failures >= 0, "max_failures", "of at least 0", "the default is 3")
    need(config.seed >= 0, "seed", "of at least 0", "any non-negative integer will do")
    need(config.checkpoint_seconds >= 0, "checkpoint_seconds", "of at least 0", "the default is 15")
    need((config.worker_cache_gb or 0) >= 0, "worker_cache_gb", "of at least 0", "leave it out")
    need((config.node_timeout_minutes or 0) >= 0, "node_timeout_minutes", "of at least 0", "leave it out")
    need(config.image_size is None or config.image_size >= 2, "image_size", "of at least 2", "e.g. 128")
    need(
        config.balanced_sample is None or config.balanced_sample >= 1,
        *("balanced_sample", "of at least 1", "the paper uses 120000"),
    )


_FOR_NETWORKS = ("training_augmentation", "sync_batchnorm", "compile")
_OPTIONAL_CHOICES = ("epoch_choice", "ranking_score", "flag_rule", "variant")


def _check_choices(config: DetectConfig) -> None:
    choices = {
        "variant": Variant,
        "corrupted_weight": Weighting,
        "augmentation": Augmentation,
        "training_augmentation": TrainingKind,
        "lr_schedule": Schedule,
        "epoch_choice": EpochChoice,
        "gpu": GpuUse,
        "flag_rule": Threshold,
        "ranking_score": Score,
    }
    for name, literal in choices.items():
        valid, got = get_args(literal), getattr(config, name)
        if got not in valid and not (name in _OPTIONAL_CHOICES and got is None):
            raise ConfigError(
                expected_got(f"{flag(name)} to be one of {', '.join(valid)}", repr(got), "choose one of these")
            )


def _check_together(config: DetectConfig) -> None:
    """Options that contradict each other."""
    if config.policy == "paper" and config.ranking != "soft_assignment":
        got = f"--ranking-score {config.ranking_score}"
        raise ConfigError(
            expected_got("--ranking-score soft_assignment with the paper's threshold", got, "leave out one of the two")
        )
    _check_network(config)
    _check_schedule(config)
    if config.epochs < 2 and config.ranking_score == "leave_one_out":
        remedy = "train for two epochs or more, or choose another score"
        raise ConfigError(
            expected_got("--epochs of at least 2 for --ranking-score leave_one_out", repr(config.epochs), remedy)
        )
    if config.epochs < 2 and "noise_rate" in (config.policy, config.epoch_choice):
        remedy = "train for two epochs or more, or pass --flag-rule paper"
        raise ConfigError(
            expected_got("--epochs of at least 2 to estimate the noise rate", repr(config.epochs), remedy)
        )


def _check_schedule(config: DetectConfig) -> None:
    """Options that only a schedule of steps has; those of a recipe give way to another schedule."""
    if config.lr_schedule == "multistep":
        return
    given = {"lr_milestones": config.lr_milestones, "lr_decay": config.lr_decay}
    own = recipe_options(config.recipe) if config.recipe is not None else {}
    for name, default in (("lr_milestones", None), ("lr_decay", 0.1)):
        if given[name] not in (default, own.get(name)):
            expected, got = f"--lr-schedule multistep for {flag(name)}", f"--lr-schedule {config.lr_schedule}"
            raise ConfigError(expected_got(expected, got, f"add it, or leave out {flag(name)}"))


def _check_network(config: DetectConfig) -> None:
    """Options that only a network has, and those that it cannot have."""
    if config.recipe is not None:
        recipe_options(config.recipe)
    defaults = {field.name: field.default for field in dataclasses.fields(DetectConfig)}
    if config.network is None:
        for name in _FOR_NETWORKS:
            if getattr(config, name) != defaults[name]:
                got = f"{flag(name)} {getattr(config, name)} without it"
                raise ConfigError(
                    expected_got("--network for options of networks", got, "name a network, or leave it out")
                )
        return
    if config.encoder != "auto":
        got = f"--network {config.network} --encoder {config.encoder}"
        remedy = "leave out one: a network is trained on the images, an encoder is frozen and a head is trained"
        raise ConfigError(expected_got("a network or an encoder", got, remedy))
    if config.ranking_score in ("combined_margin", "leave_one_out"):
        expected = "a score of the network's own margins (early_margin, mean_margin, soft_assignment)"
        remedy = "leave out --ranking-score: the leave-one-out regression needs fixed features, which a network has not"
        raise ConfigError(expected_got(expected, f"--ranking-score {config.ranking_score} with --network", remedy))
