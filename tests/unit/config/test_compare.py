from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dynacor_ray.config.analyze_signals import make_analyze_signals_config
from dynacor_ray.config.compare import make_compare_config
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.detectors.registry import DETECTORS, missing_library


def test_defaults_are_all_detectors_on_the_given_labels() -> None:
    config = make_compare_config("demo")
    assert [str(noise) for noise in config.kinds] == ["given"]
    assert config.all_seeds == (0,)
    assert config.chosen == [name for name in DETECTORS if missing_library(name) is None]
    assert sorted([*config.chosen, *config.left_out]) == sorted(DETECTORS)


def test_lists_of_any_kind() -> None:
    config = make_compare_config(
        "demo", label_noise=["given", "symmetric:0.2"], seeds=np.array([1, 2]), detectors=("aum",), epochs=3
    )
    assert config.all_seeds == (1, 2)
    assert config.chosen == ["aum"]
    assert config.detect.epochs == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_noise": []}, "--label-noise with at least one kind"),
        ({"label_noise": ["symetric:0.2"]}, "a noise kind among given, symmetric"),
        ({"label_noise": "given"}, r"pass e\.g\. label_noise=\['given'\]"),
        ({"label_noise": ["given", "given"]}, "different values in --label-noise"),
        ({"label_noise": ["symmetric:0.6", "symmetric:.60"]}, "different values in --label-noise"),
        ({"label_noise": [0.4]}, "--label-noise to be texts, but got 0.4"),
        ({"seeds": ["a"]}, "--seeds to be whole numbers, but got 'a'"),
        ({"seeds": np.int64(3)}, r"pass e\.g\. seeds=\[3\]"),
        ({"flag_rule": "paper", "variant": "released"}, "own rules, but got --flag-rule, --variant; leave it out"),
        ({"target_recall": 0.8}, "own rules, but got --target-recall"),
        ({"detectors": ["amu"]}, "did you mean 'aum'"),
        ({"detectors": ["xyz"]}, "choose among dynacor, "),
        ({"seeds": [-1]}, "--seeds of at least 0, but got -1"),
        ({"epochs": 1}, "two epochs or more"),
        ({"gammma": 0.1}, "did you mean 'gamma'"),
    ],
)
def test_wrong_options_are_told_before_anything_runs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_compare_config("demo", **options)


def test_a_missing_library_leaves_out_or_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "cleanlab" else real(name, *more)
    )
    config = make_compare_config("demo")
    assert config.left_out == ["cl_prune_by_noise_rate", "cl_both", "cl_confident_learning"]
    assert not set(config.left_out) & set(config.chosen)
    with pytest.raises(ConfigError, match=r"pip install 'dynacor-ray\[cleanlab\]', or leave cl_both out"):
        make_compare_config("demo", detectors=["dynacor", "cl_both"])


def test_a_network_is_not_compared() -> None:
    """Detectors of other kinds need features that all share."""
    for make in (make_compare_config, make_analyze_signals_config):
        with pytest.raises(ConfigError, match="features all detectors share, but got --network resnet50; leave it out"):
            make("demo", network="resnet50")
