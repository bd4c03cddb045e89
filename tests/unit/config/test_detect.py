"""Options of a run that must suit each other, what they stand for, and recipes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import make_config, own_options
from dynacor_ray.config.recipes import RECIPES
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.core.hashing import digest
from dynacor_ray.decision.thresholds import SCORES, THRESHOLDS
from dynacor_ray.method.selection import EPOCH_CHOICES


def make(**options: Any) -> DetectConfig:
    return make_config(DetectConfig, **({"data": "demo"} | options))


def test_the_score_goes_with_the_threshold() -> None:
    default = make()
    assert (default.effective_flag_rule, default.effective_ranking_score) == ("label_noise_model", "label_noise")
    assert make(flag_rule="noise_rate").effective_ranking_score == "combined_margin"
    assert make(ranking_score="early_margin").effective_flag_rule == "noise_rate"
    assert make(flag_rule="paper").effective_ranking_score == "soft_assignment"
    assert make(flag_rule="paper").margin_score == "combined_margin"
    published = make(variant="released")
    assert (published.effective_flag_rule, published.effective_ranking_score) == ("paper", "soft_assignment"), (
        "a named variant flags as published"
    )
    assert make(variant="released", flag_rule="noise_rate").effective_flag_rule == "noise_rate"
    assert make(flag_rule="corrupted_recall", ranking_score="mean_margin").effective_ranking_score == "mean_margin"
    with pytest.raises(ConfigError, match="with --flag-rule paper, but got --ranking-score mean_margin"):
        make(flag_rule="paper", ranking_score="mean_margin")


@pytest.mark.parametrize("options", [{}, {"flag_rule": "paper", "epoch_choice": "noise_rate"}])
def test_the_noise_rate_needs_two_epochs(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--epochs of at least 2 to estimate the noise rate, but got 1"):
        make(epochs=1, **options)
    assert make(epochs=1, flag_rule="paper").epochs == 1


def test_the_leave_one_out_margin_needs_two_epochs() -> None:
    with pytest.raises(ConfigError, match="at least 2 for --ranking-score leave_one_out, but got 1"):
        make(epochs=1, flag_rule="corrupted_recall", ranking_score="leave_one_out")


def test_the_released_variant_copies_from_nine_tenths() -> None:
    assert make().copy_pool == 1.0
    assert make(variant="released", gamma=0.9).copy_pool == 0.9
    with pytest.raises(ConfigError, match=r"--gamma in \(0, 0.9\], but got 0.95"):
        make(variant="released", gamma=0.95)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": ""}, "--data to name a data set, but got ''; pass e.g. --data demo"),
        ({"batch_size": 4, "workers": 5}, "--batch-size of at least one row per worker, but got 4"),
        ({"workers": 2, "min_workers": 3}, "--min-workers between 1 and --workers, but got 3"),
        (
            {"lr_schedule": "multistep", "lr_milestones": (0.7, 0.5)},
            r"--lr-milestones to increase, but got \(0.7, 0.5\)",
        ),
    ],
)
def test_numbers_that_do_not_suit_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_choices_are_those_that_decisions_know() -> None:
    options = own_options(DetectConfig)
    names = ("flag_rule", "ranking_score", "epoch_choice")
    assert [options[name].choices for name in names] == [THRESHOLDS, SCORES, EPOCH_CHOICES]


def test_result_options_are_all_but_place_machine_and_display() -> None:
    machine = {name for name, one in own_options(DetectConfig).items() if one.group in ("cluster", "output")}
    assert {"out", "cache", "workers", "gpu", "cluster", "checkpoint_seconds", "thumbnails", "quiet"} <= machine
    options = make().result_options()
    assert "data" not in options, "a fingerprint says which, wherever they lie"
    assert {"seed", "gamma", "epochs", "network", "flag_rule", "alpha", "sync_batchnorm"} <= set(options)
    assert set(options) == set(vars(make())) - machine - {"data", "max_invalid_share", "recipe", "compile"}
    elsewhere = make(out="o", workers=4, gpu="no", checkpoint_seconds=1, quiet=True, max_invalid_share=0.5)
    assert elsewhere.result_options() == options
    assert make(seed=1).result_options() != options


def test_digest_is_stable() -> None:
    assert digest({"b": 1, "a": [1, None]}) == digest({"a": [1, None], "b": 1}) == "22790e83d5eabe99"
    assert digest({"a": 1}) != digest({"a": 2})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "pixels"}, "a network or an encoder, but got --network cifar_resnet8 --encoder pixels; leave out"),
        (
            {"ranking_score": "combined_margin"},
            "own margins .* but got --ranking-score combined_margin with --network; leave out",
        ),
        ({"ranking_score": "leave_one_out"}, "but got --ranking-score leave_one_out with --network"),
        (
            {"lr_milestones": (0.5,)},
            "multistep for --lr-milestones, but got --lr-schedule cosine; add it",
        ),
    ],
)
def test_what_a_network_cannot_have(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(network="cifar_resnet8", **options)


@pytest.mark.parametrize("options", [{"training_augmentation": "crop"}, {"sync_batchnorm": True}, {"compile": True}])
def test_options_of_a_network_need_one(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"--network for --.*, but got none; add it, or leave out --"):
        make(**options)
    make(network="cifar_resnet8", **options)


def test_a_network_is_ranked_by_its_own_margin() -> None:
    assert make(network="cifar_resnet8").effective_ranking_score == "mean_margin"
    assert make(network="cifar_resnet8", flag_rule="paper").effective_ranking_score == "soft_assignment"
    assert make(network="cifar_resnet8", flag_rule="paper").margin_score == "mean_margin"


def test_another_schedule_needs_none_of_a_recipe_s_steps() -> None:
    config = make(recipe="cifar_resnet34_released", lr_schedule="cosine")
    assert config.effective_lr_milestones == ()
    for options in ({"lr_milestones": (0.3,)}, {"lr_decay": 0.5}):
        with pytest.raises(
            ConfigError, match=r"--lr-schedule multistep for --lr-(milestones|decay), but got --lr-schedule cos"
        ):
            make(recipe="cifar_resnet34_released", lr_schedule="cosine", **options)
    with pytest.raises(ConfigError, match="--lr-schedule multistep for --lr-decay"):
        make(lr_decay=0.5)


def test_milestones_belong_to_a_schedule_of_steps() -> None:
    assert make().effective_lr_milestones == ()
    assert make(lr_schedule="multistep").effective_lr_milestones == (0.5, 0.75)
    assert make(lr_schedule="multistep", lr_milestones=[0.2, 0.9]).effective_lr_milestones == (0.2, 0.9)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_of_training_options(name: str) -> None:
    config = make(recipe=name)
    assert {key: getattr(config, key) for key in RECIPES[name]} == RECIPES[name]
    own = make(recipe=name, epochs=7, learning_rate=0.02)
    assert (own.epochs, own.learning_rate, own.batch_size) == (7, 0.02, RECIPES[name]["batch_size"])
    default = make(recipe=name, epochs=20, lr_schedule="cosine")
    assert (default.epochs, default.lr_schedule) == (20, "cosine"), "given wins, also where it is what it would be"
    spelled_out = make(**RECIPES[name])
    assert spelled_out.result_options() == config.result_options(), "the same run, which may be resumed by either"


def test_the_paper_is_trained_as_printed() -> None:
    """Table 5's column for frozen CLIP, Eq. 2's weights, and the MLP of §5.1."""
    printed = {"learning_rate": 0.1, "epochs": 30, "batch_size": 128, "lr_schedule": "cosine", "weight_decay": 5e-4}
    printed |= {"classifier": "mlp_2", "corrupted_weight": "paper", "alpha": 0.5, "gamma": 0.1}
    config = make(variant="paper")
    assert {name: getattr(config, name) for name in printed} == printed
    assert make(variant="paper", recipe="frozen_clip") == dataclasses.replace(
        config, recipe="frozen_clip", encoder="open_clip:ViT-B-32/openai"
    )
    assert make(variant="paper", epochs=20, corrupted_weight="uniform").epochs == 20, "what is given wins"
    assert make(variant="released").result_options() == make().result_options() | {"variant": "released"}


@pytest.mark.parametrize(
    ("network", "rate", "weight_decay", "batch", "epochs", "alpha", "milestones"),
    [
        ("cifar_resnet34", 0.1, 5e-4, 128, 100, 0.05, (0.5, 0.75)),
        ("cifar_preact_resnet18", 0.02, 5e-4, 128, 300, 0.05, (0.5,)),
        ("resnet50@none", 0.002, 1e-3, 64, 10, 0.5, (0.5,)),
        ("cifar_resnet8", 0.1, 5e-4, 128, 100, 0.05, (0.5, 0.75)),
    ],
)
def test_the_paper_trains_networks_as_printed(
    network: str,
    rate: float,
    weight_decay: float,
    batch: int,
    epochs: int,
    alpha: float,
    milestones: tuple[float, ...],
) -> None:
    """Table 5; the steps, which it does not give, are ours."""
    config = make(variant="paper", network=network)
    printed = (config.learning_rate, config.weight_decay, config.batch_size, config.epochs, config.alpha, config.gamma)
    assert printed == (rate, weight_decay, batch, epochs, alpha, 0.1)
    assert (config.lr_schedule, config.lr_decay, config.effective_lr_milestones) == ("multistep", 0.1, milestones)
    assert (config.corrupted_weight, config.augmentation, config.network) == ("paper", "crop", network)
