"""The options of an analysis of signals and corruption rates, checked before any work starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from dynacor_ray.config.compare import check_cells, check_distinct
from dynacor_ray.config.detect import DetectConfig, make_config
from dynacor_ray.config.options import check_lists
from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.ground_truth.noise_spec import Noise, parse_noise


@dataclass(frozen=True, kw_only=True)
class AnalyzeSignalsConfig:
    """Options of `dynacor analyze-signals` and `dynacor_ray.analyze_signals`: those of `detect`, and what is varied.

    The driver holds, per row, every signal of all epochs.
    """

    detect: DetectConfig = field(default_factory=lambda: DetectConfig(data="demo"))
    """What everything shares: data, encoder, classifier and its schedule."""
    label_noise: tuple[str, ...] = ("given",)
    """Labels to analyze: `given`, or KIND:RATE made from the true labels (symmetric, asymmetric, instance_dependent),
    e.g. `symmetric:0.6`."""
    seeds: tuple[int, ...] = ()
    """Seeds of noise, corruption and training; each costs a training per kind of noise and gamma. Default: --seed."""
    gammas: tuple[float, ...] = ()
    """Corruption rates (Fig. 2). Default: --gamma."""
    signals: tuple[str, ...] = ()
    """Signals of Table 6 to learn a supervised bound from: `margin_sign` (DynaCor's), `margin`, `probability`,
    `probability_difference`, `loss`, `alignment`. One training records them all. Default: all."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_noise", check_cells(self.label_noise, self.seeds, self.detect))
        check_distinct("gammas", self.gammas, float)
        for gamma in self.gammas:
            if not 0 < gamma <= 1:
                raise ConfigError(expected_got("--gammas in (0, 1]", repr(gamma), "the paper uses 0.1"))
        object.__setattr__(self, "gammas", tuple(float(gamma) for gamma in self.gammas))
        check_distinct("signals", self.signals, str)
        if self.signals:
            # Here, not above: the signals bring torch, which `dynacor --help` need not wait for.
            from dynacor_ray.method.signals import signal_of

            for name in self.signals:
                signal_of(name)

    @property
    def kinds(self) -> list[Noise]:
        """The kinds of noise."""
        return [parse_noise(text) for text in self.label_noise]

    @property
    def chosen(self) -> tuple[str, ...]:
        """Names of the signals, at least one."""
        from dynacor_ray.method.signals import SIGNALS

        return self.signals or tuple(SIGNALS)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds, at least one."""
        return self.seeds or (self.detect.seed,)

    @property
    def all_gammas(self) -> tuple[float, ...]:
        """The corruption rates, at least one."""
        return self.gammas or (self.detect.gamma,)

    @property
    def widest(self) -> DetectConfig:
        """The options of the run with the largest corruption rate, whose copies serve all others."""
        return dataclasses.replace(self.detect, gamma=max(self.all_gammas))


def make_analyze_signals_config(data: str | None = None, **options: Any) -> AnalyzeSignalsConfig:
    """Build the options from their own and those of DetectConfig; raises ConfigError for an unknown one."""
    own = ("label_noise", "seeds", "gammas", "signals")
    mine = {name: options.pop(name) for name in own if name in options}
    return AnalyzeSignalsConfig(detect=make_config(data=data, **options), **check_lists(mine))
