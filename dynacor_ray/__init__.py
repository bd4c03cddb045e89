"""Find wrong labels in large labeled data sets: DynaCor (CVPR 2024) on Ray.

Importing this package starts nothing and loads neither Ray nor torch; the public names load what they need when used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import (
    ClusterError,
    ConfigError,
    DataError,
    DynacorError,
    EncoderError,
    RunDirectoryError,
    StorageError,
    TrainingError,
)
from dynacor_ray.core.openmp import let_threads_sleep
from dynacor_ray.core.version import __version__ as __version__

if TYPE_CHECKING:
    from dynacor_ray.config.analyze_signals import AnalyzeSignalsConfig
    from dynacor_ray.config.compare import CompareConfig
    from dynacor_ray.config.sweep import SweepConfig
    from dynacor_ray.config.train import TrainRunConfig
    from dynacor_ray.workflows.analyze_signals import analyze_signals
    from dynacor_ray.workflows.compare import compare
    from dynacor_ray.workflows.detect import detect
    from dynacor_ray.workflows.doctor import doctor
    from dynacor_ray.workflows.results import (
        AnalyzeSignalsResult,
        CompareResult,
        DetectResult,
        SweepResult,
        TrainResult,
        load,
    )
    from dynacor_ray.workflows.review import ReviewResult, review
    from dynacor_ray.workflows.sweep import sweep
    from dynacor_ray.workflows.train import train

__all__ = [
    "AnalyzeSignalsConfig",
    "AnalyzeSignalsResult",
    "ClusterError",
    "CompareConfig",
    "CompareResult",
    "ConfigError",
    "DataError",
    "DetectConfig",
    "DetectResult",
    "DynacorError",
    "EncoderError",
    "ReviewResult",
    "RunDirectoryError",
    "StorageError",
    "SweepConfig",
    "SweepResult",
    "TrainResult",
    "TrainRunConfig",
    "TrainingError",
    "analyze_signals",
    "compare",
    "detect",
    "doctor",
    "load",
    "review",
    "sweep",
    "train",
]

_LAZY = {
    **{name: "workflows.results" for name in __all__ if name.endswith("Result")},
    **{name: f"workflows.{name}" for name in __all__ if name.islower()},
    "CompareConfig": "config.compare",
    "AnalyzeSignalsConfig": "config.analyze_signals",
    "ReviewResult": "workflows.review",
    "SweepConfig": "config.sweep",
    "TrainRunConfig": "config.train",
    "load": "workflows.results",
}
"""Name -> the module that has it, where that takes a while to load."""

let_threads_sleep()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
