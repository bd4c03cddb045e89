from __future__ import annotations

import numpy as np
import pytest

from dynacor_ray.config.sweep import SweepConfig, make_sweep_config, training_options
from dynacor_ray.core.errors import ConfigError


def make(**options) -> SweepConfig:  # type: ignore[no-untyped-def]
    return make_sweep_config("demo", **options)


def test_a_grid_is_every_combination_and_a_training_serves_every_alpha() -> None:
    config = make(gammas=[0.1, 0.2, 0.3, 0.4], alphas=[0, 1, 2, 3, 4, 5])
    listed = config.listed()
    assert listed is not None
    assert len(listed) == 24
    assert len({(o["gamma"], o["alpha"]) for o in listed}) == 24
    trainings = config.trainings()
    assert [o["gamma"] for o in trainings] == [0.4, 0.3, 0.2, 0.1], (
        "the largest is embedded first and serves the others"
    )
    assert all(training_options(o) in trainings for o in listed)


def test_seeds_and_other_options_multiply_the_grid() -> None:
    config = make(
        gammas=[0.1], alphas=[0.5, 5], seeds=[0, 1], vary=["clustering-epochs=5,10", "variant=paper,released"]
    )
    listed = config.listed()
    assert listed is not None
    assert len(listed) == 16
    assert listed[0] == {"gamma": 0.1, "alpha": 0.5, "seed": 0, "clustering_epochs": 5, "variant": "paper"}
    assert len(config.trainings()) == 4, "epochs of the clustering and alpha cost no training"
    assert config.trial(listed[-1]).variant == "released"


def test_values_are_typed_and_repeated_ones_are_one() -> None:
    config = make(gammas=(np.float32(0.5), 0.5), alphas=[1, 1.0, np.int64(1)])
    assert config.listed() == [{"gamma": 0.5, "alpha": 1.0}]


def test_a_random_search_draws_alpha_within_its_bounds_and_gamma_from_the_list() -> None:
    config = make(search="random", num_samples=200, gammas=[0.1, 0.3], alphas=[0, 0.01, 100])
    listed = config.listed()
    assert listed is not None
    assert listed == config.listed(), "the same every time, so that it can be resumed"
    alphas = np.array([o["alpha"] for o in listed])
    assert ((alphas >= 0.01) & (alphas <= 100)).all()
    assert np.median(alphas) == pytest.approx(1.0, rel=0.5), "log-uniform"
    assert {o["gamma"] for o in listed} == {0.1, 0.3}
    assert listed != make(search="random", num_samples=200, gammas=[0.1, 0.3], alphas=[0.01, 100], seed=1).listed()
    assert len(config.trainings()) == 2


def test_a_searcher_needs_the_trainings_of_all_listed_values() -> None:
    config = make(search="optuna", gammas=[0.1, 0.3], seeds=[0, 1])
    assert config.listed() is None
    assert len(config.trainings()) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gammas": []}, r"--gammas with at least one corruption rate, but got none"),
        ({"alphas": ()}, r"--alphas with at least one weight, but got none"),
        ({"gammas": [0.1, 1.5]}, r"--gamma in \(0, 1\], but got 1.5"),
        ({"gammas": [0.1, 0.0]}, r"--gamma in \(0, 1\], but got 0.0"),
        ({"alphas": [0.5, -1]}, r"--alpha of at least 0, but got -1.0"),
        ({"alphas": ["x"]}, r"--alpha to be a finite number, but got 'x'"),
        ({"gammas": 0.1}, r"gammas to be a list, but got 0.1; pass e.g. gammas=\[0.1\]"),
        ({"seeds": [-1]}, r"--seed of at least 0"),
        ({"search": "bayes"}, r"--search to be one of grid, random, optuna, but got 'bayes'"),
        ({"selection_rule": "f1"}, r"--selection-rule to be one of validation_metric, noise_rate, but got 'f1'"),
        ({"num_samples": 0}, r"--num-samples of at least 1"),
        (
            {"vary": ["color=red"]},
            r"with an option to vary, but got 'color=red'; valid names: encoder",
        ),
        ({"vary": ["epochs"]}, r"NAME=VALUE,VALUE"),
        ({"vary": ["epochs=1,two"]}, r"numbers in --vary epochs=1,two, but got 'two'"),
        ({"vary": ["epochs=0"]}, r"--epochs of at least 1, but got 0"),
        ({"vary": ["variant=paper,relaesed"]}, r"--variant to be one of paper, released, but got 'relaesed'"),
        ({"vary": ["epochs=5", "epochs=6"]}, r"each option to be varied once, but got 'epochs' twice"),
        ({"search": "random", "alphas": [0.5]}, r"two positive --alphas as bounds of the search"),
        ({"gama": 0.1}, r"did you mean 'gamma'"),
    ],
)
def test_wrong_options_are_refused_before_any_work(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options).listed()
