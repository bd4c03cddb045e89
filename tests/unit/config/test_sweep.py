from __future__ import annotations

import numpy as np
import pytest

from dynacor_ray.config.options import make_config
from dynacor_ray.config.sweep import SweepConfig, training_options, variable_options
from dynacor_ray.core.errors import ConfigError


def make(**options) -> SweepConfig:  # type: ignore[no-untyped-def]
    return make_config(SweepConfig, "demo", **options)


def test_a_grid_is_every_combination_and_a_training_serves_every_alpha() -> None:
    config = make(gammas=[0.1, 0.2, 0.3, 0.4], alphas=[0, 1, 2, 3, 4, 5])
    trials = config.trials()
    assert trials is not None
    assert len(trials) == 24
    assert len({(o["gamma"], o["alpha"]) for o in trials}) == 24
    trainings = config.trainings()
    assert [o["gamma"] for o in trainings] == [0.4, 0.3, 0.2, 0.1], (
        "the largest is embedded first and serves the others"
    )
    assert all(training_options(o) in trainings for o in trials)


def test_seeds_and_other_options_multiply_the_grid() -> None:
    config = make(
        gammas=[0.1], alphas=[0.5, 5], seeds=[0, 1], vary=["clustering-epochs=5,10", "variant=paper,released"]
    )
    trials = config.trials()
    assert trials is not None
    assert len(trials) == 16
    assert trials[0] == {"gamma": 0.1, "alpha": 0.5, "seed": 0, "clustering_epochs": 5, "variant": "paper"}
    assert len(config.trainings()) == 4, "epochs of the clustering and alpha cost no training"
    assert config.trial(trials[-1]).variant == "released"


def test_values_are_typed() -> None:
    config = make(gammas=np.array([0.5]), alphas=[np.int64(1)], vary=["epochs=5, 6,5"])
    assert config.trials() == [{"gamma": 0.5, "alpha": 1.0, "epochs": 5}, {"gamma": 0.5, "alpha": 1.0, "epochs": 6}]


def test_what_may_be_varied_is_read_off_the_options_of_a_run() -> None:
    assert set(variable_options()) >= {
        *("encoder", "network", "image_size", "augmentation", "corrupted_weight", "epochs", "learning_rate"),
        *("lr_schedule", "lr_decay", "weight_decay", "batch_size", "training_augmentation", "variant"),
        *("clustering_epochs", "clustering_learning_rate", "epoch_choice", "clustering_sample"),
    }
    others = {"gamma", "alpha", "seed", "lr_milestones", "sync_batchnorm", "recipe", "flag_rule", "data", "workers"}
    assert not others & set(variable_options())


def test_a_random_search_draws_alpha_within_its_bounds_and_gamma_from_the_list() -> None:
    config = make(search="random", num_samples=200, gammas=[0.1, 0.3], alphas=[0, 0.01, 100])
    trials = config.trials()
    assert trials is not None
    assert trials == config.trials(), "the same every time, so that it can be resumed"
    alphas = np.array([o["alpha"] for o in trials])
    assert ((alphas >= 0.01) & (alphas <= 100)).all()
    assert np.median(alphas) == pytest.approx(1.0, rel=0.5), "log-uniform"
    assert {o["gamma"] for o in trials} == {0.1, 0.3}
    assert trials != make(search="random", num_samples=200, gammas=[0.1, 0.3], alphas=[0.01, 100], seed=1).trials()
    assert len(config.trainings()) == 2


def test_a_searcher_needs_the_trainings_of_all_listed_values() -> None:
    config = make(search="optuna", gammas=[0.1, 0.3], seeds=[0, 1])
    assert config.trials() is None
    assert len(config.trainings()) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gammas": [0.1, 0.95], "variant": "released"}, r"--gamma in \(0, 0.9\], but got 0.95"),
        (
            {"vary": ["color=red"]},
            r"with an option to vary, but got 'color=red'; valid names: encoder",
        ),
        ({"vary": ["epochs"]}, r"NAME=VALUE,VALUE"),
        ({"vary": ["epochs=2,two"]}, r"--epochs to be a whole number, but got 'two'"),
        ({"vary": ["epochs=0"]}, r"--epochs of at least 1, but got 0"),
        ({"vary": ["variant=paper,relaesed"]}, r"--variant to be one of paper, released, but got 'relaesed'"),
        ({"vary": ["epochs=5", "epochs=6"]}, r"each option to be varied once, but got 'epochs' twice"),
        ({"flag_rule": "mixture"}, r"the cut of Eq. 4, on which alpha acts, but got --flag-rule mixture"),
        ({"search": "random", "alphas": [0.5]}, r"two positive --alphas as bounds of the search"),
        ({"gama": 0.1}, r"perhaps 'gamma' is meant"),
    ],
)
def test_wrong_options_are_refused_before_any_work(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options).trials()
