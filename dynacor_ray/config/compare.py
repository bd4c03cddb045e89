"""The options of a comparison of detectors, checked before any work starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import ModuleType

from dynacor_ray.config.detect import DetectConfig as DetectConfig  # an annotation of the inherited __init__
from dynacor_ray.config.experiment import ExperimentConfig
from dynacor_ray.config.options import option, own_options
from dynacor_ray.config.recipes import published_options
from dynacor_ray.core.errors import ConfigError, expected_got


def _registry() -> ModuleType:
    # Here, not above: the detectors bring torch and scikit-learn, which `dynacor --help` need not wait for.
    from dynacor_ray.detectors import registry

    return registry


@dataclass(frozen=True, kw_only=True)
class CompareConfig(ExperimentConfig):
    """Options of `dynacor compare` and `dynacor_ray.compare`: those of `detect`, and what is compared on what.

    The driver holds what detectors look at: per row the margins of all epochs, and for confident learning a probability
    per class.
    """

    detectors: tuple[str, ...] = option((), "experiment", choices=lambda: _registry().DETECTORS)
    """Detectors to compare, of `dynacor` (as `detect` does), `combined_margin` and, alone, its two margins
    `early_margin` and `leave_one_out`, `dynacor_paper` (as printed, with a training of its own) and its ablations
    `untrained` and `clustering_only`, `eq_4` (the paper's rule on the training of the others), `dynacor_at_noise_rate`,
    `corrupted_recall`, `mixture`, `mean_margin`, `avg_encoder`, `aum`, `cl_prune_by_noise_rate`, `cl_both`,
    `cl_confident_learning`, `cores`, `simifeat_v`, `simifeat_r`, `fm_srm`; and with their ranking cut at the estimated
    noise rate `aum_at_noise_rate`, `simifeat_r_at_noise_rate`, `fm_srm_at_noise_rate`, or by planted recall
    `aum_corrupted_recall`, `simifeat_corrupted_recall`. Default: all whose libraries are installed; with --network
    those that need no fixed features."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.detectors:
            if name not in self._fitting:
                expected = f"an encoder for {name}, which reads features that stay the same"
                remedy = f"leave out --network or {name}"
                raise ConfigError(expected_got(expected, f"--network {self.detect.network}", remedy))
            library = _registry().missing_library(name)
            if library is not None:
                remedy = f"pip install 'dynacor-ray[{library}]', or leave {name} out"
                raise ConfigError(expected_got(f"{library} installed for {name}", "none", remedy))

    @property
    def effective_detectors(self) -> list[str]:
        """Names of the detectors that are compared, in the order of the table."""
        return list(self.detectors) or [name for name in self._fitting if name not in self.unavailable_detectors]

    @property
    def unavailable_detectors(self) -> list[str]:
        """Detectors that are not compared because their library is not installed."""
        return [] if self.detectors else [name for name in self._fitting if _registry().missing_library(name)]

    @property
    def _fitting(self) -> list[str]:
        """Detectors that can work on what is trained."""
        known = _registry().DETECTORS.items()
        return [name for name, one in known if self.detect.network is None or not one.needs_features]

    @property
    def published(self) -> DetectConfig:
        """The run as printed in the paper: what is left at its default is that of Table 5."""
        own, printed = own_options(DetectConfig), published_options(self.detect.network)
        left = {name: value for name, value in printed.items() if getattr(self.detect, name) == own[name].default}
        return dataclasses.replace(self.detect, variant="paper", **left)
