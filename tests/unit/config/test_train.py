"""Options of `dynacor train`: those of detect that have a meaning, and its own."""

from __future__ import annotations

import pytest

from dynacor_ray.config.options import all_options, make_config
from dynacor_ray.config.recipes import RECIPES
from dynacor_ray.config.train import TrainRunConfig
from dynacor_ray.core.errors import ConfigError


def test_options_without_a_meaning_are_unknown() -> None:
    names = set(all_options(TrainRunConfig))
    assert {"data", "encoder", "network", "epochs", "workers", "out", "loss", "without"} <= names
    for name in ("clustering_epochs", "flag_rule", "variant", "corrupted_weight", "thumbnails"):
        assert name not in names
        with pytest.raises(ConfigError, match=f"a known option, but got '{name}'"):
            make_config(TrainRunConfig, "demo", **{name: None})


def test_one_epoch_is_enough() -> None:
    assert make_config(TrainRunConfig, "demo", epochs=1).detect.epochs == 1


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_what_has_a_meaning(name: str) -> None:
    config = make_config(TrainRunConfig, "demo", recipe=name)
    assert config.detect.learning_rate == RECIPES[name]["learning_rate"]
    assert config.alpha == 0.5, "not the recipe's, which no loss reads"
    assert make_config(TrainRunConfig, "demo", recipe=name, method="ddyna_l").alpha == RECIPES[name]["alpha"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "mae"}, "--loss to be one of ce, gce, sce, elr, but got 'mae'"),
        ({"relabel": True}, "--without for --relabel, but got none"),
        ({"test_label_column": "label"}, "--test for --test-label-column"),
        ({"without": "runs/a", "relabel": True, "weigh": True}, "--relabel or --weigh, but got both"),
        ({"gce_q": 0.5}, "--loss gce for --gce-q, but got --loss ce"),
        ({"loss": "gce", "gce_q": 0.0}, "--gce-q"),
        ({"loss": "elr", "elr_momentum": 1.0}, "--elr-momentum in"),
        ({"warm_up": 3}, "--method for --warm-up, but got none"),
        ({"method": "dividemix", "warm_up": 20}, "a --warm-up shorter than the training, but got 20 of 20"),
        ({"method": "dividemix", "loss": "gce"}, "a loss or a method, but got --loss gce with --method dividemix"),
        (
            {"method": "ddyna_s", "without": "runs/a", "weigh": True},
            "--without alone or with --relabel, for a method, but got --weigh with --method ddyna_s",
        ),
        ({"method": "dividemix", "gamma": 0.2}, "--method ddyna_l or ddyna_s for --gamma"),
    ],
)
def test_what_contradicts_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(TrainRunConfig, "demo", **given)


@pytest.mark.parametrize(
    ("given", "action"), [({}, "drop"), ({"relabel": True}, "relabel"), ({"weigh": True}, "weigh")]
)
def test_what_is_done_with_flagged_rows(given: dict[str, bool], action: str) -> None:
    assert make_config(TrainRunConfig, "demo", without="runs/a", **given).action == action
