"""The options that experiments on known labels share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import Checked, option, own_options
from dynacor_ray.core.errors import ConfigError, expected_got

if TYPE_CHECKING:
    from dynacor_ray.ground_truth.noise_spec import Noise


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(Checked):
    """What `compare` and `analyze-signals` are told alike: a shared run, kinds of label noise, and seeds."""

    detect: DetectConfig = field(default_factory=lambda: DetectConfig(data="demo"))
    """What everything shares: data, encoder, classifier and its schedule."""
    label_noise: tuple[str, ...] = option(("given",), "experiment")
    """Labels to experiment on: `given`, or made from the true labels as KIND:RATE (symmetric, asymmetric,
    instance_dependent, ramp, hard_rows, weak_annotator), `by_class:0.4,0.1,0`, `one_sided:0.3:4:9` or
    `default_label:0.25:0`."""
    seeds: tuple[int, ...] = option((), "experiment", within="[0, inf)")
    """Seeds of noise, corruption and training; each costs trainings of its own for every kind of noise. Default:
    --seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # As they are spelled in results, where two spellings of one kind are the same.
        spelled = [str(noise) for noise in self.noises]
        object.__setattr__(self, "label_noise", own_options(type(self))["label_noise"].check(spelled))
        _check_shared(self.detect)

    @property
    def noises(self) -> list[Noise]:
        """The kinds of noise."""
        # Here, not above: it brings pyarrow and scipy, which `dynacor --help` need not wait for.
        from dynacor_ray.ground_truth.noise_spec import parse_noise

        return [parse_noise(text) for text in self.label_noise]

    @property
    def effective_seeds(self) -> tuple[int, ...]:
        """The seeds, at least one."""
        return self.seeds or (self.detect.seed,)


def _check_shared(detect: DetectConfig) -> None:
    """Options of a run that an experiment cannot have."""
    options = own_options(DetectConfig)
    rules = ("flag_rule", "ranking_score", "variant", "epoch_choice", "target_recall")
    given = [options[name].flag for name in rules if getattr(detect, name) != options[name].default]
    if given:
        expected = "a comparison in which each detector has its own rules"
        raise ConfigError(expected_got(expected, ", ".join(given), "leave it out"))
    if detect.mlflow_uri is not None:
        got = f"--mlflow-uri {detect.mlflow_uri}"
        raise ConfigError(expected_got("--mlflow-uri with detect, sweep or train", got, "leave it out"))
    if detect.epochs < 2:
        got = f"--epochs {detect.epochs}"
        raise ConfigError(expected_got("two epochs or more to compare dynamics", got, "the default is 20"))
