from __future__ import annotations

from typing import Any

import pytest

from dynacor_ray.config.analyze_signals import make_analyze_signals_config
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.method.signals import SIGNALS


def test_defaults_are_all_signals_at_one_corruption_rate() -> None:
    config = make_analyze_signals_config("demo", gamma=0.2)
    assert config.chosen == tuple(SIGNALS)
    assert (config.all_gammas, config.all_seeds) == ((0.2,), (0,))
    assert [str(noise) for noise in config.kinds] == ["given"]
    assert config.widest == config.detect


def test_the_largest_corruption_rate_is_embedded() -> None:
    config = make_analyze_signals_config("demo", gammas=[0.1, 1, 0.4], signals=["loss"], seeds=[3])
    assert config.all_gammas == (0.1, 1.0, 0.4)
    assert config.widest.gamma == 1.0
    assert config.detect.gamma == 0.1, "as given"
    assert (config.chosen, config.all_seeds) == (("loss",), (3,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_noise": []}, "--label-noise with at least one kind"),
        ({"label_noise": ["symetric:0.2"]}, "a noise kind among given, symmetric"),
        ({"label_noise": [0.4]}, "--label-noise to be texts, but got 0.4"),
        ({"gammas": [0.0]}, r"--gammas in \(0, 1\], but got 0.0; the paper uses 0.1"),
        ({"gammas": [float("nan")]}, r"--gammas in \(0, 1\], but got nan"),
        ({"gammas": ["a"]}, "--gammas to be numbers, but got 'a'"),
        ({"gammas": [True]}, "--gammas to be numbers, but got True"),
        ({"gammas": [0.1, 0.10]}, "different values in --gammas"),
        ({"gammas": 0.1}, r"pass e\.g\. gammas=\[0\.1\]"),
        ({"signals": ["margin", "margin"]}, "different values in --signals"),
        ({"signals": ["entropy"]}, "a signal of Table 6, but got 'entropy'; choose among margin_sign, margin"),
        ({"seeds": [-1]}, "--seeds of at least 0, but got -1"),
        ({"flag_rule": "paper"}, "own rules, but got --flag-rule"),
        ({"epochs": 1}, "two epochs or more"),
        ({"signal": ["loss"]}, "a known option, but got 'signal'"),
    ],
)
def test_wrong_options_are_told_before_anything_runs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_analyze_signals_config("demo", **options)
