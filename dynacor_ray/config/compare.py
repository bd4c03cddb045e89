"""The options of a comparison of detectors, checked before any work starts."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dynacor_ray.config.detect import DetectConfig, make_config
from dynacor_ray.config.options import check_lists, flag
from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.ground_truth.noise_spec import Noise, parse_noise

TARGET_RECALL = DetectConfig(data="demo").target_recall


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Options of `dynacor compare` and `dynacor_ray.compare`: those of `detect`, and what is compared on what.

    The driver holds what detectors look at: per row the margins of all epochs, and for confident learning a probability
    per class.
    """

    detect: DetectConfig = field(default_factory=lambda: DetectConfig(data="demo"))
    """What all detectors share: data, encoder, classifier and its schedule."""
    label_noise: tuple[str, ...] = ("given",)
    """Labels to compare on: `given`, or KIND:RATE made from the true labels (symmetric, asymmetric,
    instance_dependent), e.g. `symmetric:0.6`."""
    seeds: tuple[int, ...] = ()
    """Seeds of noise, corruption and training; each costs two trainings per kind of noise. Default: --seed."""
    detectors: tuple[str, ...] = ()
    """Detectors to compare, of `dynacor` (as `detect` does), `dynacor_paper` (Eq. 4), `dynacor_at_noise_rate`,
    `early_margin` and `leave_one_out` (the two margins of the default, alone), `corrupted_recall`, `mixture`,
    `untrained`, `clustering_only`, `mean_margin`, `avg_encoder`, `aum`, `cl_prune_by_noise_rate`, `cl_both`,
    `cl_confident_learning`, `cores`, `simifeat_v`, `simifeat_r`, `fm_srm`; and with their ranking cut at the estimated
    noise rate `aum_at_noise_rate`, `simifeat_r_at_noise_rate`, `fm_srm_at_noise_rate`, or by planted recall
    `aum_corrupted_recall`, `simifeat_corrupted_recall`. Default: all whose libraries are installed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_noise", check_cells(self.label_noise, self.seeds, self.detect))
        check_distinct("detectors", self.detectors, str)
        for name in self.detectors:
            _check_detector(name)

    @property
    def kinds(self) -> list[Noise]:
        """The kinds of noise."""
        return [parse_noise(text) for text in self.label_noise]

    @property
    def chosen(self) -> list[str]:
        """Names of the detectors that are compared, in the order of the table."""
        from dynacor_ray.detectors.registry import DETECTORS, missing_library

        return list(self.detectors) or [name for name in DETECTORS if missing_library(name) is None]

    @property
    def left_out(self) -> list[str]:
        """Detectors that are not compared because their library is not installed."""
        from dynacor_ray.detectors.registry import DETECTORS, missing_library

        return [] if self.detectors else [name for name in DETECTORS if missing_library(name) is not None]

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds, at least one."""
        return self.seeds or (self.detect.seed,)


def check_distinct(name: str, values: Sequence[Any], kind: type) -> None:
    """Raise ConfigError unless the values of a list are of one type, `str`, `int` or `float`, and different."""
    meaning = {str: "texts", int: "whole numbers", float: "numbers"}[kind]
    for value in values:
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
            raise ConfigError(expected_got(f"{flag(name)} to be {meaning}", repr(value), "correct it"))
    if len(set(values)) != len(values):
        got = " ".join(map(str, values))
        raise ConfigError(expected_got(f"different values in {flag(name)}", got, "name each once"))


def check_cells(noises: Sequence[str], seeds: Sequence[int], detect: DetectConfig) -> tuple[str, ...]:
    """What every experiment on known labels asks of its options; returns the noises as they are spelled in results."""
    if not noises:
        raise ConfigError(
            expected_got("--label-noise with at least one kind", "none", "leave it out for the given labels")
        )
    check_distinct("label_noise", noises, str)
    spelled = tuple(str(parse_noise(text)) for text in noises)
    check_distinct("label_noise", spelled, str)
    check_distinct("seeds", seeds, int)
    if any(seed < 0 for seed in seeds):
        raise ConfigError(expected_got("--seeds of at least 0", str(min(seeds)), "any other integer will do"))
    options = ("flag_rule", "ranking_score", "variant", "epoch_choice")
    chosen = [f"--{name.replace('_', '-')}" for name in options if getattr(detect, name) is not None]
    if chosen or detect.target_recall != TARGET_RECALL:
        got = ", ".join(chosen or ["--target-recall"])
        raise ConfigError(expected_got("a comparison in which each detector has its own rules", got, "leave it out"))
    if detect.network is not None:
        got = f"--network {detect.network}"
        raise ConfigError(
            expected_got("an encoder, whose features all detectors share", got, "leave it out, or use detect")
        )
    if detect.mlflow_uri is not None:
        raise ConfigError(
            expected_got("--mlflow-uri with detect or sweep", f"--mlflow-uri {detect.mlflow_uri}", "leave it out")
        )
    if detect.epochs < 2:
        got = f"--epochs {detect.epochs}"
        raise ConfigError(expected_got("two epochs or more to compare dynamics", got, "the default is 20"))
    return spelled


def _check_detector(name: str) -> None:
    # Here, not above: the detectors bring torch and scikit-learn, which `dynacor --help` need not wait for.
    from dynacor_ray.detectors.registry import DETECTORS, missing_library

    if name not in DETECTORS:
        close = difflib.get_close_matches(name, DETECTORS, n=1)
        hint = f"did you mean {close[0]!r}? All of them: " if close else "choose among "
        raise ConfigError(expected_got("a known detector", repr(name), hint + ", ".join(DETECTORS)))
    library = missing_library(name)
    if library is not None:
        remedy = f"pip install 'dynacor-ray[{library}]', or leave {name} out"
        raise ConfigError(expected_got(f"{library} installed for {name}", "none", remedy))


def make_compare_config(data: str | None = None, **options: Any) -> CompareConfig:
    """Build a CompareConfig from its own options and those of DetectConfig; raises ConfigError for an unknown one."""
    own = ("label_noise", "seeds", "detectors")
    mine = {name: options.pop(name) for name in own if name in options}
    return CompareConfig(detect=make_config(data=data, **options), **check_lists(mine))
