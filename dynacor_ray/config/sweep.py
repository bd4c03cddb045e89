"""The options of a sweep, and the trials that they stand for; checked before any work starts."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from dynacor_ray.config.detect import DetectConfig, make_config
from dynacor_ray.config.options import check_lists, flag
from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.core.rng import derive_seed
from dynacor_ray.method.selection import RUN_RULES

SearchKind = Literal["grid", "random", "optuna"]
TrialRule = Literal["noise_rate", "validation_metric"]

CLUSTER_OPTIONS = ("alpha", "clustering_epochs", "clustering_learning_rate", "epoch_choice")
"""Options that leave the training alone: trials that differ only in these share one."""
ALSO = (
    *("encoder", "network", "image_size", "augmentation", "training_augmentation", "epochs", "learning_rate"),
    *("lr_schedule", "lr_decay", "weight_decay", "batch_size"),
    *(
        "corrupted_weight",
        "variant",
        "clustering_epochs",
        "clustering_learning_rate",
        "epoch_choice",
        "clustering_sample",
    ),
)
"""Options that may be varied besides gamma, alpha and seed."""
_RANDOM = 0x53574545


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Options of `dynacor sweep` and `dynacor_ray.sweep`: those of `detect`, and what is varied."""

    detect: DetectConfig = field(default_factory=lambda: DetectConfig(data="demo"))
    """What all trials share; its gamma, alpha and seed name the default trial, which the chosen one is compared to."""
    gammas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    """Corruption rates to try; each costs a training."""
    alphas: tuple[float, ...] = (0.0, 0.05, 0.5, 5.0, 50.0, 500.0)
    """Weights of the alignment loss to try; cheap, since a training serves them all."""
    seeds: tuple[int, ...] = ()
    """Seeds to try; each costs a training per gamma. Default: --seed."""
    vary: tuple[str, ...] = ()
    """Any other option to vary, as NAME=VALUE,VALUE: e.g. `clustering_epochs=5,10`."""
    search: SearchKind = "grid"
    """`grid`: every combination; `random` or `optuna`: --num-samples of them, alpha drawn log-uniformly between the
    smallest and the largest of --alphas."""
    num_samples: int = 24
    """Trials of a random or Optuna search."""
    selection_rule: TrialRule = "noise_rate"
    """Rule that chooses the trial and its epoch, without labels: `noise_rate` wants as many rows flagged as labels are
    wrong by the estimate of the training; `validation_metric` is the paper's Eq. 9."""

    def __post_init__(self) -> None:
        for name, least in (("gammas", "one corruption rate"), ("alphas", "one weight")):
            if not getattr(self, name):
                raise ConfigError(
                    expected_got(f"{flag(name)} with at least {least}", "none", "leave it out for the default")
                )
        for name, valid in (("search", get_args(SearchKind)), ("selection_rule", RUN_RULES)):
            if getattr(self, name) not in valid:
                got = repr(getattr(self, name))
                raise ConfigError(
                    expected_got(f"{flag(name)} to be one of {', '.join(valid)}", got, "choose one of these")
                )
        if self.num_samples < 1:
            raise ConfigError(expected_got("--num-samples of at least 1", repr(self.num_samples), "the default is 24"))
        detect = self.detect
        if detect.flag_rule not in (None, "paper") or detect.ranking_score not in (None, "soft_assignment"):
            got = f"--flag-rule {detect.flag_rule} --ranking-score {detect.ranking_score}"
            raise ConfigError(expected_got("the cut of Eq. 4, on which alpha acts", got, "leave both out in a sweep"))
        for options in self.corners():
            self.trial(options)

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The values that each varied option may take, in the order of the table's columns."""
        varied: dict[str, tuple[Any, ...]] = {"gamma": self.gammas, "alpha": self.alphas}
        if self.seeds:
            varied["seed"] = self.seeds
        for text in self.vary:
            name, values = _parse_also(text)
            if name in varied:
                raise ConfigError(expected_got("each option to be varied once", f"{name!r} twice", "join the values"))
            varied[name] = values
        return {name: tuple(dict.fromkeys(values)) for name, values in varied.items()}

    def corners(self) -> list[dict[str, Any]]:
        """Options that together contain every value once: enough to check each of them."""
        longest = max(len(values) for values in self.choices.values())
        return [{n: values[min(i, len(values) - 1)] for n, values in self.choices.items()} for i in range(longest)]

    def trial(self, options: dict[str, Any]) -> DetectConfig:
        """The run that a trial stands for. Raises ConfigError for an option that no run may have."""
        shared = {f.name: getattr(self.detect, f.name) for f in dataclasses.fields(self.detect)}
        if self.detect.epoch_choice is None:
            shared["epoch_choice"] = self.selection_rule
        # alpha acts through Eq. 3 and 4 alone: the other scores and cuts would make all trials of a training the same.
        shared |= {"flag_rule": "paper", "ranking_score": "soft_assignment"}
        shared["mlflow_uri"] = None  # the sweep tells of its trials itself
        return make_config(**shared | options)

    def listed(self) -> list[dict[str, Any]] | None:
        """The options of every trial, as typed by DetectConfig; None when a searcher proposes them one by one."""
        if self.search == "optuna":
            return None
        if self.search == "random":
            drawn = [self._draw(number) for number in range(self.num_samples)]
        else:
            names, lists = self.choices.keys(), self.choices.values()
            drawn = [dict(zip(names, values, strict=True)) for values in itertools.product(*lists)]
        return [self.typed(options) for options in drawn]

    def trainings(self) -> list[dict[str, Any]]:
        """The distinct options of trainings, largest gamma first: embedded for it, copies serve all smaller ones."""
        listed = self.listed()
        if listed is None:
            varied = {n: v for n, v in self.choices.items() if n not in CLUSTER_OPTIONS}
            listed = [self.typed(dict(zip(varied, v, strict=True))) for v in itertools.product(*varied.values())]
        kept = [{n: v for n, v in options.items() if n not in CLUSTER_OPTIONS} for options in listed]
        distinct = [options for i, options in enumerate(kept) if options not in kept[:i]]
        return sorted(distinct, key=lambda options: -options["gamma"])

    def typed(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options with the types that DetectConfig gives them: 1 and 1.0 are the same trial."""
        config = self.trial(options)
        return {name: getattr(config, name) for name in options}

    def alpha_range(self) -> tuple[float, float]:
        """Bounds between which a search draws alpha: the smallest positive and the largest of `alphas`."""
        positive = [alpha for alpha in self.alphas if alpha > 0]
        if not positive or min(positive) == max(positive):
            got = f"--alphas {' '.join(map(str, self.alphas))}"
            remedy = "pass e.g. --alphas 0.05 500"
            raise ConfigError(expected_got("two positive --alphas as bounds of the search", got, remedy))
        return min(positive), max(positive)

    def _draw(self, number: int) -> dict[str, Any]:
        random = np.random.Generator(np.random.PCG64(derive_seed(self.detect.seed, _RANDOM, number)))
        drawn = {name: values[int(random.integers(len(values)))] for name, values in self.choices.items()}
        low, high = self.alpha_range()
        return drawn | {"alpha": float(f"{math.exp(random.uniform(math.log(low), math.log(high))):.4g}")}


def training_options(options: dict[str, Any]) -> dict[str, Any]:
    """What of a trial's options the training depends on."""
    return {name: value for name, value in options.items() if name not in CLUSTER_OPTIONS}


def make_sweep_config(data: str | None = None, **options: Any) -> SweepConfig:
    """Build a SweepConfig from its own options and those of DetectConfig; raises ConfigError for an unknown one."""
    own = [f.name for f in dataclasses.fields(SweepConfig) if f.name != "detect"]
    mine = {name: options.pop(name) for name in own if name in options}
    lists: dict[str, Any] = {name: mine.pop(name) for name in ("gammas", "alphas", "seeds", "vary") if name in mine}
    mine |= check_lists(lists)
    return SweepConfig(detect=make_config(data=data, **options), **mine)


def _parse_also(text: str) -> tuple[str, tuple[Any, ...]]:
    """`NAME=V1,V2` -> the name and its values in the option's own type."""
    name, _, values = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    if name not in ALSO or not values:
        remedy = f"valid names: {', '.join(ALSO)}"
        raise ConfigError(expected_got("--vary NAME=VALUE,VALUE with an option to vary", repr(text), remedy))
    hint = get_type_hints(DetectConfig)[name]
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    return name, tuple(_value(text, value.strip(), kinds[0]) for value in values.split(","))


def _value(text: str, value: str, kind: Any) -> Any:
    try:
        return {int: int, float: float}.get(kind, str)(value)
    except ValueError as error:
        raise ConfigError(expected_got(f"numbers in --vary {text}", repr(value), "separate them by commas")) from error
