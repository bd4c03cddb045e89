"""The options of an analysis of signals and corruption rates, checked before any work starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.experiment import ExperimentConfig
from dynacor_ray.config.options import option


def _names() -> Iterable[str]:
    # Here, not above: the signals bring torch, which `dynacor --help` need not wait for.
    from dynacor_ray.method.signals import SIGNALS

    return SIGNALS


@dataclass(frozen=True, kw_only=True)
class AnalyzeSignalsConfig(ExperimentConfig):
    """Options of `dynacor analyze-signals` and `dynacor_ray.analyze_signals`: those of `detect`, and what is varied.

    The driver holds, per row, every signal of all epochs.
    """

    gammas: tuple[float, ...] = option((), "experiment", within="(0, 1]", hint="the paper uses 0.1")
    """Corruption rates (Fig. 2). Default: --gamma."""
    signals: tuple[str, ...] = option((), "experiment", choices=_names)
    """Signals of Table 6 to learn a supervised bound from: `margin_sign` (DynaCor's), `margin`, `probability`,
    `probability_difference`, `loss`, `alignment`. One training records them all. Default: all."""

    @property
    def effective_signals(self) -> tuple[str, ...]:
        """Names of the signals, at least one."""
        return self.signals or tuple(_names())

    @property
    def effective_gammas(self) -> tuple[float, ...]:
        """The corruption rates, at least one."""
        return self.gammas or (self.detect.gamma,)

    @property
    def largest_corruption(self) -> DetectConfig:
        """The options of the run with the largest corruption rate, whose copies serve all others."""
        return dataclasses.replace(self.detect, gamma=max(self.effective_gammas))
