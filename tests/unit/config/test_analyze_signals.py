from __future__ import annotations

import pytest

from dynacor_ray.config.analyze_signals import AnalyzeSignalsConfig
from dynacor_ray.config.options import make_config
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.method.signals import SIGNALS


def test_defaults_are_all_signals_at_one_corruption_rate() -> None:
    config = make_config(AnalyzeSignalsConfig, "demo", gamma=0.2)
    assert config.effective_signals == tuple(SIGNALS)
    assert (config.effective_gammas, config.effective_seeds) == ((0.2,), (0,))
    assert [str(noise) for noise in config.noises] == ["given"]
    assert config.largest_corruption == config.detect


def test_the_largest_corruption_rate_is_embedded() -> None:
    config = make_config(AnalyzeSignalsConfig, "demo", gammas=[0.1, 1, 0.4], signals=["loss"], seeds=[3])
    assert config.effective_gammas == (0.1, 1.0, 0.4)
    assert config.largest_corruption.gamma == 1.0
    assert config.detect.gamma == 0.1, "as given"
    assert (config.effective_signals, config.effective_seeds) == (("loss",), (3,))


def test_an_unknown_signal() -> None:
    with pytest.raises(ConfigError, match=r"each of --signals to be one of margin_sign, margin, .*, but got 'entropy'"):
        make_config(AnalyzeSignalsConfig, "demo", signals=["entropy"])
