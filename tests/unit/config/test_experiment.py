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
        ({"mlflow_uri": "x"}, "--mlflow-uri with detect, sweep or train, but got --mlflow-uri x"),
        ({"epochs": 1, "clustering_epochs": 0}, "two epochs or more"),
        ({"gammma": 0.1}, "perhaps 'gamma' is meant"),
    ],
)
def test_what_an_experiment_cannot_have(
    kind: type[CompareConfig | AnalyzeSignalsConfig], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(kind, "demo", **options)


def test_a_network_leaves_out_what_needs_features() -> None:
    config = make_config(CompareConfig, "demo", network="cifar_resnet8")
    assert not {"leave_one_out", "combined_margin"} & set(config.effective_detectors)
    assert {"dynacor", "dynacor_paper", "aum", "cores", "simifeat_v", "fm_srm"} <= set(config.effective_detectors)
    with pytest.raises(ConfigError, match=r"an encoder for leave_one_out, .* but got --network cifar_resnet8; leave"):
        make_config(CompareConfig, "demo", network="cifar_resnet8", detectors=["aum", "leave_one_out"])


def test_the_published_run_is_printed_where_nothing_was_chosen() -> None:
    published = make_config(CompareConfig, "demo", epochs=7, seed=3).published
    chosen = (published.variant, published.epochs, published.learning_rate, published.classifier, published.seed)
    assert chosen == ("paper", 7, 0.1, "mlp_2", 3)
    network = make_config(CompareConfig, "demo", network="cifar_resnet34").published
    assert (network.epochs, network.lr_schedule, network.alpha, network.augmentation) == (
        100,
        "multistep",
        0.05,
        "crop",
    )
