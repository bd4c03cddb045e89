from __future__ import annotations

import numpy as np
import pytest

from dynacor_ray.config.compare import CompareConfig
from dynacor_ray.config.options import make_config
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.detectors.registry import DETECTORS, missing_library


def test_defaults_are_all_detectors_on_the_given_labels() -> None:
    config = make_config(CompareConfig, "demo")
    assert [str(noise) for noise in config.noises] == ["given"]
    assert config.effective_seeds == (0,)
    assert config.effective_detectors == [name for name in DETECTORS if missing_library(name) is None]
    assert sorted([*config.effective_detectors, *config.unavailable_detectors]) == sorted(DETECTORS)


def test_lists_of_any_kind() -> None:
    config = make_config(
        CompareConfig,
        "demo",
        label_noise=["given", "symmetric:0.2"],
        seeds=np.array([1, 2]),
        detectors=("aum",),
        epochs=3,
    )
    assert config.effective_seeds == (1, 2)
    assert config.effective_detectors == ["aum"]
    assert config.detect.epochs == 3


def test_an_unknown_detector() -> None:
    with pytest.raises(
        ConfigError, match=r"each of --detectors to be one of dynacor, .* got 'amu'; perhaps 'aum' is meant\."
    ):
        make_config(CompareConfig, "demo", detectors=["amu"])


def test_a_missing_library_leaves_out_or_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "cleanlab" else real(name, *more)
    )
    config = make_config(CompareConfig, "demo")
    assert config.unavailable_detectors == ["cl_prune_by_noise_rate", "cl_both", "cl_confident_learning"]
    assert not set(config.unavailable_detectors) & set(config.effective_detectors)
    with pytest.raises(ConfigError, match=r"pip install 'dynacor-ray\[cleanlab\]', or leave cl_both out"):
        make_config(CompareConfig, "demo", detectors=["dynacor", "cl_both"])
