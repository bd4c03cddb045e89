"""The options of a classifier's training, checked before any work starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import Checked, option, own_options
from dynacor_ray.core.errors import ConfigError, expected_got


@dataclass(frozen=True, kw_only=True)
class TrainRunConfig(Checked):
    """Options of `dynacor train` and `dynacor_ray.train`: those of `detect` on data and training, and more."""

    left_out: ClassVar[tuple[str, ...]] = ("corruption", "decision", "clustering", "thumbnails")
    settled: ClassVar[dict[str, Any]] = {"flag_rule": "paper"}  # the one that any training is long enough for

    detect: DetectConfig = field(default_factory=lambda: DetectConfig(data="demo", flag_rule="paper"))
    """Data, encoder or network, and schedule."""
    loss: Literal["ce", "gce", "sce", "elr"] = option("ce", "train", most_used=True)
    """Cross-entropy, generalized or symmetric cross-entropy, or early-learning regularization."""
    method: Literal["dividemix", "ddyna_l", "ddyna_s"] | None = option(None, "train", most_used=True)
    """In place of a loss: two networks by DivideMix; the same on corrupted copies too, with DynaCor on its dynamics
    (DDyna-L), or with DynaCor's flags to divide the rows by (DDyna-S). Also writes which rows it takes for wrong."""
    test: str | None = option(None, "train", most_used=True)
    """Labeled data to test on after every epoch, read with the same column options; where true labels are known, those
    count. No row of it is learned from."""
    test_label_column: str | None = option(None, "train", only_with="--test")
    """Column with the labels of the test data. Default: as --label-column."""
    without: str | None = option(None, "train", most_used=True)
    """A finished run of `dynacor detect` on the same data: leave out the rows that it flagged, after a review those
    that are flagged then."""
    relabel: bool = option(False, "train", only_with="--without")
    """Learn the suggested labels of flagged rows instead of leaving them out."""
    weigh: bool = option(False, "train", only_with="--without")
    """Leave no row out, but weigh each by the probability that its label is right."""
    gce_q: float = option(0.7, "train", within="(0, 1]", only_with="--loss gce")
    """Exponent of GCE: towards 0 cross-entropy, 1 mean absolute error."""
    gce_truncate_from: int | None = option(None, "train", within="[0, inf)", only_with="--loss gce")
    """Epoch, counted from 0, from which rows teach nothing whose label has a probability of at most 0.5 (the paper: 40
    of 120). Default: never."""
    sce_alpha: float | None = option(None, "train", within="[0, inf)", only_with="--loss sce")
    """Weight of cross-entropy in SCE. Default: as published, 0.1; for CIFAR-100, or from 100 classes on, 6."""
    sce_beta: float | None = option(None, "train", within="[0, inf)", only_with="--loss sce")
    """Weight of reverse cross-entropy in SCE. Default: as published, 1."""
    elr_momentum: float | None = option(None, "train", within="[0, 1)", only_with="--loss elr")
    """Momentum of ELR's targets. Default: as published, 0.7; for CIFAR-100, or from 100 classes on, 0.9."""
    elr_weight: float | None = option(None, "train", within="[0, inf)", only_with="--loss elr")
    """Weight of ELR's regularizer. Default: as published, 3; for CIFAR-100, or from 100 classes on, 7."""
    warm_up: int | None = option(None, "train", within="[0, inf)", only_with="--method")
    """Epochs of cross-entropy before rows are divided. Default: with a network as published, 10, for CIFAR-100, or from
    100 classes on, 30; on features 5; but at most half of the epochs."""
    unlabeled_weight: float = option(0.0, "train", within="[0, inf)", only_with="--method")
    """Weight of the squared error on rows that count as unlabeled. Published on CIFAR-10: 0 for 20% symmetric and for
    asymmetric noise, 25 for 50% symmetric noise."""
    loss_epochs: int = option(1, "train", within="[1, inf)", only_with="--method")
    """Divide rows by the mean of their losses in so many epochs: 5 was published for 90% noise."""
    penalize_confidence: bool = option(False, "train", only_with="--method")
    """Penalize confident predictions in the warm-up, as published for asymmetric noise."""
    gamma: float = option(0.1, "train", within="(0, 1]", only_with="--method")
    """Of `ddyna_l` and `ddyna_s`: share of instances that get a corrupted copy (§4.2)."""
    alpha: float = option(0.5, "train", within="[0, inf)", only_with="--method")
    """Of `ddyna_l` and `ddyna_s`: weight of the alignment loss (Eq. 8); a --recipe has its own."""
    tensorboard: bool = option(False, "output", changes_results=False)
    """Write the figures of each epoch as TensorBoard events, too, while the training goes on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method is not None:
            self._check_method(self.method)
        if self.relabel and self.weigh:
            raise ConfigError(expected_got("--relabel or --weigh", "both", "leave out one of the two"))

    def _check_method(self, method: str) -> None:
        if self.loss != "ce":
            got = f"--loss {self.loss} with --method {method}"
            raise ConfigError(expected_got("a loss or a method", got, "leave out one of the two"))
        if self.weigh:
            expected = "--without alone or with --relabel, for a method"
            remedy = "leave out --weigh: a method finds out by itself how far to believe each label"
            raise ConfigError(expected_got(expected, f"--weigh with --method {method}", remedy))
        if self.warm_up is not None and self.warm_up >= self.detect.epochs:
            got = f"{self.warm_up} of {self.detect.epochs}"
            raise ConfigError(expected_got("a --warm-up shorter than the training", got, "raise --epochs"))
        if method == "dividemix" and self.gamma != 0.1:
            remedy = "leave it out: DivideMix makes no copies"
            raise ConfigError(expected_got("--method ddyna_l or ddyna_s for --gamma", f"--method {method}", remedy))

    @property
    def has_copies(self) -> bool:
        """Whether corrupted copies are trained on, too."""
        return self.method in ("ddyna_l", "ddyna_s")

    @property
    def action(self) -> Literal["drop", "relabel", "weigh"]:
        """What is done with what the run of --without says."""
        return "relabel" if self.relabel else "weigh" if self.weigh else "drop"

    def result_options(self) -> dict[str, Any]:
        """The own options that determine the result."""
        return {name: getattr(self, name) for name, one in own_options(type(self)).items() if one.changes_results}

    def as_dict(self) -> dict[str, Any]:
        """All options by name, as the run directory keeps them."""
        shared = {name: value for name, value in dataclasses.asdict(self.detect).items() if name in _known()}
        return shared | {name: getattr(self, name) for name in own_options(type(self))}


def _known() -> set[str]:
    left_out = set(TrainRunConfig.left_out)
    return {name for name, one in own_options(DetectConfig).items() if not {name, one.group} & left_out}
