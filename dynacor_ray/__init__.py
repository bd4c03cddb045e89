"""Find wrong labels in large labelled data sets: DynaCor (CVPR 2024) on Ray.

Importing this package starts nothing and loads neither Ray nor torch; the public names load what they need when used.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from dynacor_ray.config import DetectConfig
from dynacor_ray.errors import (
    ClusterError,
    ConfigError,
    DataError,
    DynacorError,
    EncoderError,
    RunDirectoryError,
    StorageError,
    TrainingError,
)

if TYPE_CHECKING:
    from dynacor_ray.checks import doctor
    from dynacor_ray.compare_config import CompareConfig
    from dynacor_ray.comparisons import CompareResult, compare
    from dynacor_ray.pipeline import DetectResult, detect, load
    from dynacor_ray.studies import StudyResult, study
    from dynacor_ray.study_config import StudyConfig
    from dynacor_ray.sweep_config import SweepConfig
    from dynacor_ray.sweeps import SweepResult, sweep

try:
    __version__ = importlib.metadata.version("dynacor-ray")
except importlib.metadata.PackageNotFoundError:  # run from a working directory, e.g. `ray job submit --working-dir .`
    __version__ = "0+unknown"

__all__ = [
    "ClusterError",
    "CompareConfig",
    "CompareResult",
    "ConfigError",
    "DataError",
    "DetectConfig",
    "DetectResult",
    "DynacorError",
    "EncoderError",
    "RunDirectoryError",
    "StorageError",
    "StudyConfig",
    "StudyResult",
    "SweepConfig",
    "SweepResult",
    "TrainingError",
    "compare",
    "detect",
    "doctor",
    "load",
    "study",
    "sweep",
]

_LAZY = {
    "CompareConfig": "dynacor_ray.compare_config",
    "CompareResult": "dynacor_ray.comparisons",
    "compare": "dynacor_ray.comparisons",
    "DetectResult": "dynacor_ray.pipeline",
    "detect": "dynacor_ray.pipeline",
    "doctor": "dynacor_ray.checks",
    "load": "dynacor_ray.pipeline",
    "StudyConfig": "dynacor_ray.study_config",
    "StudyResult": "dynacor_ray.studies",
    "study": "dynacor_ray.studies",
    "SweepConfig": "dynacor_ray.sweep_config",
    "SweepResult": "dynacor_ray.sweeps",
    "sweep": "dynacor_ray.sweeps",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
