"""The options of a run, checked before any work starts."""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, dataclass
from typing import Any, Literal

from dynacor_ray.config.options import Checked, option, own_options
from dynacor_ray.config.recipes import RECIPES
from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.decision.thresholds import TARGET_RECALL, FlagRule, RankingScore
from dynacor_ray.method.selection import EpochChoice

PAPER_BATCH = 128
"""Rows per step in Table 5."""


@dataclass(frozen=True, kw_only=True)
class DetectConfig(Checked):
    """Options of `dynacor detect`, `dynacor doctor` and `dynacor_ray.detect`; equation numbers are the paper's."""

    data: str = option(MISSING, "data", most_used=True, changes_results=False, hint="pass e.g. --data demo")
    """What to search: `demo`, an image folder, a table of paths and labels, a table or parquet file with images or
    features, `.npy` or `.npz`, a repository of a data set, webdataset shards, boxes of COCO, YOLO or Pascal VOC, the
    root of Clothing1M, `cifar10:ROOT` or `cifar100:ROOT`. Local path or any URI that fsspec knows."""
    label_column: str | None = option(None, "data", most_used=True)
    """Column with the given labels (default: found by its usual names). For CIFAR the kind of human labels, such as
    `worse_label`."""
    image_column: str | None = option(None, "data")
    """Column with encoded images."""
    feature_column: str | None = option(None, "data")
    """Column with feature vectors."""
    uri_column: str | None = option(None, "data")
    """Column with image paths or URIs."""
    truth_column: str | None = option(None, "data")
    """Column with true labels, only used to score the result (default: `true_label` if present)."""
    feature_columns: tuple[str, ...] | None = option(None, "data")
    """Columns of numbers that together are the feature vector: names or patterns such as `'f*'` (default: numbered
    columns such as f0, f1, ..., else all but the label)."""
    image_root: str | None = option(None, "data")
    """Where the relative paths of a table start (default: the table's folder, or the one folder beside it that has
    them)."""
    image_suffix: str | None = option(None, "data")
    """Ending to add to the names of a table, such as `.jpg` (default: found where names have none)."""
    split: str | None = option(None, "data")
    """Take one split only: the folder, or the files, of this name, such as `train`. Default: all."""
    follow_links: bool = option(False, "data")
    """Read what links in an image folder point to outside of it, as with DVC or git-annex."""
    classes: tuple[str, ...] | None = option(None, "data")
    """Class names in order; any other label is quarantined. Default: declared by the data, else the labels found."""
    balanced_sample: int | None = option(None, "data", within="[1, inf)", hint="the paper uses 120000")
    """Clothing1M: audit a class-balanced sample of this many images (the paper's protocol: 120000)."""
    include_double_labeled: bool = option(False, "data")
    """Clothing1M: add the images with both labels, so that F1 can be measured."""
    remote: bool | None = option(None, "data")
    """Whether URIs in a table may lead to any address (`--remote`) or to the table's own store only (`--no-remote`).
    Default: a table on this machine to any but those of the machine and its link; any other to its own store."""
    max_invalid_share: float = option(0.01, "data", within="[0, 1]", changes_results=False)
    """Largest share of unusable rows (unreadable images, missing labels) that is not an error."""

    encoder: str = option("auto", "encoder", most_used=True)
    """`auto`, `features`, `pixels`, `pixels:SIZE`, `gray`, a timm name such as `tf_efficientnet_lite0`,
    `timm:NAME@WEIGHTS`, `open_clip:MODEL/TAG` or `open_clip:MODEL@WEIGHTS`. `auto` says in one line what it took and
    why."""
    network: str | None = option(None, "encoder")
    """Train this network on the images themselves, in place of a head on an encoder's features: `cifar_resnet8`,
    `cifar_resnet20`, `cifar_resnet34`, `cifar_preact_resnet18`, `resnet50` or any timm name. `NAME@FILE` starts from a
    weight file, `NAME@none` from random numbers."""
    image_size: int | None = option(None, "encoder", within="[2, inf)", hint="e.g. 128")
    """Side to which images are resized for the encoder or network, in pixels; smaller ones are enlarged. Default: the
    encoder's or network's own."""

    gamma: float = option(0.1, "corruption", within="(0, 1]", most_used=True, hint="the paper uses 0.1")
    """Corruption rate (§4.2): share of instances that get a deliberately mislabeled copy."""
    augmentation: Literal["auto", "flip", "crop", "none"] = option("auto", "corruption")
    """Weak augmentation of the corrupted copies (§4.2): horizontal flip, center crop (the paper's for networks, and
    that of the recipes) or none. `auto`: none for raw pixels and networks, to which a changed picture could tell the
    copies from the others, and which memorize it; else flip."""
    corrupted_weight: Literal["uniform", "paper"] = option("uniform", "corruption")
    """`uniform`: plain mean over originals and copies; `paper`: Eq. 2, both sets weigh the same."""

    classifier: Literal["mlp", "mlp_2"] = option("mlp", "training")
    """Head on features: an MLP with one hidden layer of 512 units (`mlp`), or with two as in the paper (`mlp_2`)."""
    recipe: str | None = option(None, "training", choices=tuple(RECIPES), changes_results=False)
    """Take training options from a set of this name, Table 5's: `frozen_clip`, `cifar_resnet34`,
    `cifar_preact_resnet18`, `clothing1m_resnet50`; with `_released` the authors' code: `frozen_clip_released`,
    `cifar_resnet34_released`. What is given besides wins."""
    epochs: int = option(20, "training", within="[1, inf)", most_used=True)
    """Training epochs of the classifier, which is also the length of the dynamics."""
    learning_rate: float = option(0.02, "training", within="(0, inf)")
    """Peak learning rate of SGD (momentum 0.9); scaled with the batch where --batch-size is left out."""
    lr_schedule: Literal["cosine", "multistep"] = option("cosine", "training")
    """How the learning rate falls: along a cosine, or in steps (`multistep`)."""
    lr_milestones: tuple[float, ...] | None = option(
        None, "training", within="(0, 1)", only_with="--lr-schedule multistep"
    )
    """Shares of the epochs after which the learning rate is multiplied by --lr-decay. Default: 0.5 0.75."""
    lr_decay: float = option(0.1, "training", within="(0, 1]", only_with="--lr-schedule multistep")
    """Factor of the learning rate at each milestone."""
    weight_decay: float = option(5e-4, "training", within="[0, inf)")
    """Weight decay of the classifier."""
    batch_size: int | None = option(None, "training", within="[1, inf)", hint="the paper uses 128")
    """Rows per step, over all workers together: the learning rate needs no scaling by their number. Default: 128; for
    features of more than 4,096 rows 512, of more than 100,000 rows 1024, with the learning rate scaled alike, which
    ranks as well in half the time; always 128 with a --variant or --network."""
    training_augmentation: Literal["crop_flip", "crop", "none"] = option("crop_flip", "training", only_with="--network")
    """What a network sees of an image in each epoch: a random crop, mirrored or not (`crop_flip`), a random crop, or
    always the same (`none`). Crops are cut from the image padded by an eighth; above 64 px from 8/7 of the side."""
    sync_batchnorm: bool = option(False, "training", only_with="--network")
    """Batch norm over the rows of all workers instead of each worker's own; on GPUs only."""
    compile: bool = option(False, "training", only_with="--network", changes_results=False)
    """Compile the network with torch.compile: slow to start, then faster."""
    seed: int = option(0, "training", within="[0, inf)", most_used=True, hint="any other integer will do")
    """Seed of everything random."""

    flag_rule: FlagRule | None = option(None, "decision")
    """Which rows are flagged. `label_noise_model`: those that a model of the label noise expects to give the best
    F1; `noise_rate`: as many of the most suspicious as labels are wrong by the training's own estimate, but no more
    than it takes to catch 98% of the planted errors (--target-recall of them with a network); `corrupted_recall`:
    as many as it takes to catch --target-recall of the planted errors; `mixture`: those below the point where two
    Gaussians fitted to the score are equally likely; `paper`: those with q_noisy > q_clean (Eq. 4). Default:
    `label_noise_model`, with a network `noise_rate`; `paper` when a --variant is named."""
    ranking_score: RankingScore | None = option(None, "decision")
    """What rows are ranked by: P(wrong) by the label noise model (`label_noise`); mean margin over the first half
    of the epochs (`early_margin`) or over all; the margin of a ridge regression that leaves the row out
    (`leave_one_out`); the sum of the first and the last, each in units of its spread (`combined_margin`); or Eq.
    3's soft assignment. Default: that of the flag rule; of `noise_rate` `combined_margin`, with a network
    `mean_margin`."""
    target_recall: float = option(TARGET_RECALL, "decision", within="(0, 1)")
    """Share of the planted errors that --flag-rule corrupted_recall catches."""

    variant: Literal["paper", "released"] | None = option(None, "clustering")
    """The published method. `paper`: all as printed, Eq. 2-9 and the training of Table 5 for what is trained (what is
    given besides, a recipe too, wins); `released`: clustering and flags as in the authors' code. Default: the paper's
    clustering, and flags by the label noise model."""
    alpha: float = option(0.5, "clustering", within="[0, inf)", hint="the paper uses 0.5 or 0.05")
    """Weight of the alignment loss (Eq. 8)."""
    clustering_epochs: int | None = option(None, "clustering", within="[0, inf)", hint="the paper uses 10")
    """Epochs of the dynamics encoder. Default: the variant's own (10 or 15)."""
    clustering_learning_rate: float | None = option(None, "clustering", within="(0, inf)", hint="the paper uses 1e-5")
    """Adam's learning rate for the dynamics encoder. Default: 1e-5 (Table 5)."""
    epoch_choice: EpochChoice | None = option(None, "clustering")
    """How the epoch of the dynamics encoder is chosen (Table 3): by Eq. 9 (`validation_metric`), by agreement with the
    noise rate estimated while training, by the Davies-Bouldin index, or the last. Default: Eq. 9; in a sweep, the rule
    of --selection-rule."""
    clustering_sample: int = option(200_000, "clustering", within="[100, inf)")
    """Most rows the dynamics encoder is fitted on; all rows are assigned. Beside a label noise model at most 50,000."""

    workers: int = option(1, "cluster", within="[1, inf)", most_used=True, changes_results=False)
    """Data-parallel training workers."""
    min_workers: int | None = option(None, "cluster", within="[1, inf)", changes_results=False)
    """Start, and after a lost machine go on, with as few workers as this; machines that come later are used up to
    --workers. Default: --workers."""
    gpu: Literal["auto", "yes", "no"] = option("auto", "cluster", most_used=True, changes_results=False)
    """Use GPUs for embedding and training: `auto` if the cluster has enough."""
    max_failures: int = option(3, "cluster", within="[0, inf)", changes_results=False)
    """How often training may be restarted after a lost worker."""
    checkpoint_seconds: float = option(15.0, "cluster", within="[0, inf)", changes_results=False)
    """Least time between two checkpoints of the training; a restart repeats at most that much."""
    worker_cache_gb: float | None = option(None, "cluster", within="[0, inf)", changes_results=False)
    """Memory per worker for training rows; beyond it they are streamed again each epoch. Default: a quarter of the
    node's memory, shared by its workers."""
    cluster: str = option("auto", "cluster", most_used=True, changes_results=False)
    """Where the work is done. `auto`: the Ray cluster of RAY_ADDRESS if set; else in one process, where that is enough
    for the rows, the workers and the GPUs; else on a Ray cluster of this machine's own. `none`: in one process.
    `local`: on a cluster of this machine's own. Anything else: the address of a cluster."""
    node_timeout_minutes: float | None = option(None, "cluster", within="[0, inf)", changes_results=False)
    """How long to wait for an autoscaling cluster to bring enough nodes. Default: 15 on a cluster made by `ray up`,
    else 0."""

    out: str | None = option(None, "output", most_used=True, changes_results=False)
    """Run directory for the outputs (local or URI). The same command on the same directory resumes. Default: runs/NAME,
    named after the data; inside a Ray job ~/dynacor_runs/NAME."""
    cache: str | None = option(None, "output", changes_results=False)
    """Where packed data and embeddings are kept; share it between runs on the same data. Default: OUT/cache."""
    thumbnails: bool | None = option(None, "output", changes_results=False)
    """Whether report.html holds small copies of the images it shows. Default: yes, except for Clothing1M, whose terms
    forbid to pass images on."""
    mlflow_uri: str | None = option(None, "output", changes_results=False)
    """MLflow server or database to tell of the finished run, or of a sweep's trials, e.g. `sqlite:///mlflow.db`."""
    quiet: bool = option(False, "output", changes_results=False)
    """Print nothing but errors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_numbers(self)
        _check_decision(self)
        _check_network(self)

    @property
    def copy_pool(self) -> float:
        """Share of the instances that may get a copy: 1, or 0.9 as the released code has it."""
        return 0.9 if self.variant == "released" else 1.0

    @property
    def plain_features(self) -> bool:
        """Whether features and duplicates are used as they are, as the published method does."""
        return self.variant is not None

    @property
    def effective_flag_rule(self) -> str:
        """The rule by which rows are flagged."""
        if self.flag_rule or self.variant:
            return self.flag_rule or "paper"
        has_scores = self.network is None and self.ranking_score in (None, "label_noise") and self.epochs > 1
        return "label_noise_model" if has_scores else "noise_rate"

    @property
    def effective_ranking_score(self) -> str:
        """The score that rows are ranked by."""
        own = {"paper": "soft_assignment", "label_noise_model": "label_noise"}
        return self.ranking_score or own.get(self.effective_flag_rule, self.margin_score)

    @property
    def margin_score(self) -> str:
        """The score that is best for what is trained, which the noise rate is read from as well."""
        return "combined_margin" if self.network is None else "mean_margin"

    @property
    def effective_lr_milestones(self) -> tuple[float, ...]:
        """Shares of the epochs after which the learning rate falls, none for a cosine."""
        return (self.lr_milestones or (0.5, 0.75)) if self.lr_schedule == "multistep" else ()

    def result_options(self) -> dict[str, Any]:
        """The options that determine the result: all but place, machine and display."""
        options = own_options(DetectConfig)
        return {name: value for name, value in dataclasses.asdict(self).items() if options[name].changes_results}


def _check_numbers(config: DetectConfig) -> None:
    """Numbers that must suit each other."""

    def need(ok: bool, name: str, expected: str) -> None:
        if not ok:
            one = own_options(DetectConfig)[name]
            raise ConfigError(expected_got(f"{one.flag} {expected}", repr(getattr(config, name)), one.remedy))

    need(bool(config.data), "data", "to name a data set")
    need(config.gamma <= config.copy_pool, "gamma", f"in (0, {config.copy_pool:g}]")
    need((config.batch_size or PAPER_BATCH) >= config.workers, "batch_size", "of at least one row per worker")
    need((config.min_workers or 1) <= config.workers, "min_workers", "between 1 and --workers")
    steps = config.lr_milestones or ()
    need(sorted(set(steps)) == list(steps), "lr_milestones", "to increase")


def _check_decision(config: DetectConfig) -> None:
    """Rules and scores that contradict each other, or that one epoch cannot give."""
    own = {"paper": "soft_assignment", "label_noise_model": "label_noise"}
    rule, score = config.effective_flag_rule, config.effective_ranking_score
    if score != own.get(rule, score) or (score == "label_noise" and rule != "label_noise_model"):
        expected = f"--ranking-score {own[rule]} with --flag-rule {rule}" if rule in own else "another --ranking-score"
        got = f"--ranking-score {config.ranking_score}"
        raise ConfigError(expected_got(expected, got, "leave out one of the two"))
    if config.epochs >= 2:
        return
    if config.ranking_score in ("leave_one_out", "label_noise"):
        expected, remedy = f"for --ranking-score {config.ranking_score}", "choose another score"
    elif {"noise_rate", "label_noise_model"} & {config.effective_flag_rule, config.epoch_choice}:
        expected, remedy = "to estimate the noise rate", "pass --flag-rule paper"
    else:
        return
    remedy = f"train for two epochs or more, or {remedy}"
    raise ConfigError(expected_got(f"--epochs of at least 2 {expected}", repr(config.epochs), remedy))


def _check_network(config: DetectConfig) -> None:
    """Options that a network cannot have."""
    if config.network is None:
        return
    if config.encoder != "auto":
        got = f"--network {config.network} --encoder {config.encoder}"
        remedy = "leave out one: a network is trained on the images, an encoder is frozen and a head is trained"
        raise ConfigError(expected_got("a network or an encoder", got, remedy))
    if config.flag_rule == "label_noise_model":
        remedy = "leave out --flag-rule: the label noise model needs fixed features, which a network has not"
        raise ConfigError(expected_got("a rule for networks", "--flag-rule label_noise_model with --network", remedy))
    if config.ranking_score in ("combined_margin", "leave_one_out", "label_noise"):
        expected = "a score of the network's own margins (early_margin, mean_margin, soft_assignment)"
        remedy = "leave out --ranking-score: the leave-one-out regression needs fixed features, which a network has not"
        raise ConfigError(expected_got(expected, f"--ranking-score {config.ranking_score} with --network", remedy))
