"""The options of a sweep, and the trials that they stand for; checked before any work starts."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import Checked, make_config, option, own_options
from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.core.rng import derive_seed
from dynacor_ray.method.selection import RunRule

CLUSTERING_OPTIONS = ("alpha", "clustering_epochs", "clustering_learning_rate", "epoch_choice")
"""Options that leave the training alone: trials that differ only in these share one."""
_RANDOM = 0x53574545


@dataclass(frozen=True, kw_only=True)
class SweepConfig(Checked):
    """Options of `dynacor sweep` and `dynacor_ray.sweep`: those of `detect`, and what is varied."""

    detect: DetectConfig = field(default_factory=lambda: DetectConfig(data="demo"))
    """What all trials share; its gamma, alpha and seed name the default trial, which the chosen one is compared to."""
    gammas: tuple[float, ...] = option((0.05, 0.1, 0.2, 0.4), "sweep", within="(0, 1]")
    """Corruption rates to try; each costs a training."""
    alphas: tuple[float, ...] = option((0.0, 0.05, 0.5, 5.0, 50.0, 500.0), "sweep", within="[0, inf)")
    """Weights of the alignment loss to try; cheap, since a training serves them all."""
    seeds: tuple[int, ...] = option((), "sweep", within="[0, inf)")
    """Seeds to try; each costs a training per gamma. Default: --seed."""
    vary: tuple[str, ...] = option((), "sweep")
    """Any other option to vary, as NAME=VALUE,VALUE: e.g. `clustering_epochs=5,10`."""
    search: Literal["grid", "random", "optuna"] = option("grid", "sweep")
    """`grid`: every combination; `random` or `optuna`: --num-samples of them, alpha drawn log-uniformly between the
    smallest and the largest of --alphas."""
    num_samples: int = option(24, "sweep", within="[1, inf)")
    """Trials of a random or Optuna search."""
    selection_rule: RunRule = option("noise_rate", "sweep")
    """Rule that chooses the trial and its epoch, without labels: `noise_rate` wants as many rows flagged as labels are
    wrong by the estimate of the training; `validation_metric` is the paper's Eq. 9."""

    def __post_init__(self) -> None:
        super().__post_init__()
        detect = self.detect
        if detect.flag_rule not in (None, "paper") or detect.ranking_score not in (None, "soft_assignment"):
            got = f"--flag-rule {detect.flag_rule} --ranking-score {detect.ranking_score}"
            raise ConfigError(expected_got("the cut of Eq. 4, on which alpha acts", got, "leave both out in a sweep"))
        longest = max(len(values) for values in self.choices.values())
        for i in range(longest):  # together these hold every value once: enough to check each of them
            self.trial({name: values[min(i, len(values) - 1)] for name, values in self.choices.items()})

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The values that each varied option may take, in the order of the table's columns."""
        varied: dict[str, tuple[Any, ...]] = {"gamma": self.gammas, "alpha": self.alphas}
        if self.seeds:
            varied["seed"] = self.seeds
        for text in self.vary:
            name, values = _parse_vary(text)
            if name in varied:
                raise ConfigError(expected_got("each option to be varied once", f"{name!r} twice", "join the values"))
            varied[name] = values
        return {name: tuple(dict.fromkeys(values)) for name, values in varied.items()}

    def trial(self, options: dict[str, Any]) -> DetectConfig:
        """The run that a trial stands for. Raises ConfigError for an option that no run may have."""
        shared = dict(vars(self.detect))
        if self.detect.epoch_choice is None:
            shared["epoch_choice"] = self.selection_rule
        # alpha acts through Eq. 3 and 4 alone: the other scores and cuts would make all trials of a training the same.
        shared |= {"flag_rule": "paper", "ranking_score": "soft_assignment"}
        shared["mlflow_uri"] = None  # the sweep tells of its trials itself
        return make_config(DetectConfig, **shared | options)

    def trials(self) -> list[dict[str, Any]] | None:
        """The options of every trial, as typed by DetectConfig; None when a searcher proposes them one by one."""
        if self.search == "optuna":
            return None
        if self.search == "random":
            return [self.typed(self._draw(number)) for number in range(self.num_samples)]
        return self._combinations(self.choices)

    def trainings(self) -> list[dict[str, Any]]:
        """The distinct options of trainings, largest gamma first: embedded for it, copies serve all smaller ones."""
        trials = self.trials()
        trainings = self._combinations(training_options(self.choices)) if trials is None else trials
        kept = [training_options(options) for options in trainings]
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

    def _combinations(self, choices: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
        return [self.typed(dict(zip(choices, values, strict=True))) for values in itertools.product(*choices.values())]

    def _draw(self, number: int) -> dict[str, Any]:
        random = np.random.Generator(np.random.PCG64(derive_seed(self.detect.seed, _RANDOM, number)))
        drawn = {name: values[int(random.integers(len(values)))] for name, values in self.choices.items()}
        low, high = self.alpha_range()
        return drawn | {"alpha": float(f"{math.exp(random.uniform(math.log(low), math.log(high))):.4g}")}


def training_options(options: dict[str, Any]) -> dict[str, Any]:
    """What of a trial's options the training depends on."""
    return {name: value for name, value in options.items() if name not in CLUSTERING_OPTIONS}


def variable_options() -> list[str]:
    """What `--vary` takes: options with one value that change results, and that no other option of a sweep varies."""
    taken = {name.removesuffix("s") for name in own_options(SweepConfig)}
    return [
        name
        for name, one in own_options(DetectConfig).items()
        if one.changes_results and name not in taken and one.group not in ("data", "decision")
        if not one.many and one.kind is not bool
    ]


def _parse_vary(text: str) -> tuple[str, tuple[Any, ...]]:
    """`NAME=V1,V2` -> the name and its values in the option's own type."""
    name, _, values = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    if name not in variable_options() or not values:
        remedy = f"valid names: {', '.join(variable_options())}"
        raise ConfigError(expected_got("--vary NAME=VALUE,VALUE with an option to vary", repr(text), remedy))
    one = own_options(DetectConfig)[name]
    return name, tuple(one.parse(value.strip()) for value in values.split(","))
