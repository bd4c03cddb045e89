"""The options of a comparison of detectors, checked before any work starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dynacor_ray.config.detect import DetectConfig as DetectConfig  # an annotation of the inherited __init__
from dynacor_ray.config.experiment import ExperimentConfig
from dynacor_ray.config.options import option
from dynacor_ray.core.errors import ConfigError, expected_got


def _names() -> Iterable[str]:
    # Here, not above: the detectors bring torch and scikit-learn, which `dynacor --help` need not wait for.
    from dynacor_ray.detectors.registry import DETECTORS

    return DETECTORS


@dataclass(frozen=True, kw_only=True)
class CompareConfig(ExperimentConfig):
    """Options of `dynacor compare` and `dynacor_ray.compare`: those of `detect`, and what is compared on what.

    The driver holds what detectors look at: per row the margins of all epochs, and for confident learning a probability
    per class.
    """

    detectors: tuple[str, ...] = option((), "experiment", choices=_names)
    """Detectors to compare, of `dynacor` (as `detect` does), `combined_margin` and, alone, its two margins
    `early_margin` and `leave_one_out`, `dynacor_paper` (Eq. 4), `dynacor_at_noise_rate`, `corrupted_recall`, `mixture`,
    `untrained`, `clustering_only`, `mean_margin`, `avg_encoder`, `aum`, `cl_prune_by_noise_rate`, `cl_both`,
    `cl_confident_learning`, `cores`, `simifeat_v`, `simifeat_r`, `fm_srm`; and with their ranking cut at the estimated
    noise rate `aum_at_noise_rate`, `simifeat_r_at_noise_rate`, `fm_srm_at_noise_rate`, or by planted recall
    `aum_corrupted_recall`, `simifeat_corrupted_recall`. Default: all whose libraries are installed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.detectors:
            library = _missing_library(name)
            if library is not None:
                remedy = f"pip install 'dynacor-ray[{library}]', or leave {name} out"
                raise ConfigError(expected_got(f"{library} installed for {name}", "none", remedy))

    @property
    def effective_detectors(self) -> list[str]:
        """Names of the detectors that are compared, in the order of the table."""
        return list(self.detectors) or [name for name in _names() if _missing_library(name) is None]

    @property
    def unavailable_detectors(self) -> list[str]:
        """Detectors that are not compared because their library is not installed."""
        return [] if self.detectors else [name for name in _names() if _missing_library(name) is not None]


def _missing_library(name: str) -> str | None:
    from dynacor_ray.detectors.registry import missing_library

    return missing_library(name)
