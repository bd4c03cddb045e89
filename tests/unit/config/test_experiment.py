"""What experiments on known labels are told alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dynacor_ray.config.analyze_signals import AnalyzeSignalsConfig
from dynacor_ray.config.compare import CompareConfig
from dynacor_ray.config.options import make_config
from dynacor_ray.core.errors import ConfigError


@pytest.mark.parametrize("kind", [CompareConfig, AnalyzeSignalsConfig])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_noise": ["symetric:0.2"]}, "a noise kind among given, symmetric"),
        ({"label_noise": ["symmetric:0.6", "symmetric:.60"]}, "different values in --label-noise"),
        ({"seeds": np.int64(3)}, r"pass e\.g\. seeds=\[3\]"),
        ({"flag_rule": "paper", "variant": "released"}, "own rules, but got --flag-rule, --variant; leave it out"),
        ({"target_recall": 0.8}, "own rules, but got --target-recall"),
        ({"network": "resnet50"}, "features all detectors share, but got --network resnet50; leave it out"),
        ({"mlflow_uri": "x"}, "--mlflow-uri with detect or sweep, but got --mlflow-uri x"),
        ({"epochs": 1, "clustering_epochs": 0}, "two epochs or more"),
        ({"gammma": 0.1}, "did you mean 'gamma'"),
    ],
)
def test_what_an_experiment_cannot_have(
    kind: type[CompareConfig | AnalyzeSignalsConfig], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(kind, "demo", **options)
