"""Options: every wrong one is refused before work starts, in one sentence that says what to do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from dynacor_ray.config.detect import DetectConfig, Variant, make_config
from dynacor_ray.config.recipes import RECIPES
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.core.hashing import digest

NAN, INF = float("nan"), float("inf")
FIELDS = {field.name: field for field in dataclasses.fields(DetectConfig)}
SHAPE = r"^Expected .+, but got .+; .+\.$"
# Options that say where, on which machine and how noisily; all others determine the result.
MACHINE = {
    *("out", "cache", "workers", "min_workers", "gpu", "max_failures", "checkpoint_seconds"),
    *("worker_cache_gb", "cluster", "node_timeout_minutes", "quiet", "max_invalid_share", "thumbnails", "mlflow_uri"),
    *("compile", "recipe"),
}

OUT_OF_RANGE: dict[str, list[Any]] = {
    "data": ["", None, 123, b"demo", ["demo"]],
    "gamma": [0, 0.0, -0.1, 1.01, NAN, INF, "x", True, None],
    "epochs": [0, -1, "ten", 2.5, NAN, True, None],
    "alpha": [-0.5, NAN, INF, "a"],
    "learning_rate": [0, -1.0, NAN, INF, "fast"],
    "weight_decay": [-1e-9, NAN, INF, "x"],
    "batch_size": [0, -1, 1.5, "x"],
    "workers": [0, -2, 1.0, "two"],
    "min_workers": [0, -1, 2, 1.0, "one"],
    "seed": [-1, 0.5, "x", None],
    "clustering_epochs": [-1, 1.5, "x"],
    "clustering_learning_rate": [0, -1e-5, NAN, "x"],
    "flag_rule": ["eq4", 0.5],
    "ranking_score": ["q", 3],
    "target_recall": [0, 1, 1.0, -0.1, NAN, "x"],
    "clustering_sample": [99, 0, 200.0],
    "max_invalid_share": [-0.1, 1.1, NAN],
    "max_failures": [-1, 0.5],
    "checkpoint_seconds": [-1, NAN, INF],
    "worker_cache_gb": [-1, NAN, INF, "much"],
    "node_timeout_minutes": [-1, NAN, INF, "long"],
    "image_size": [1, 0, -5, 32.0, "big"],
    "balanced_sample": [0, -1, 1.5],
    "variant": ["published", "", 1, ["paper"]],
    "corrupted_weight": ["eq2"],
    "augmentation": ["blur"],
    "training_augmentation": ["blur"],
    "lr_schedule": ["linear"],
    "lr_milestones": [(), (0.5, 0.5), (0.7, 0.5), (0.0, 0.5), (1.0,), ("x",), 0.5],
    "lr_decay": [0, 1.5, NAN, "x"],
    "network": [3, ["a"]],
    "recipe": ["cifar_resnet43", "", 3],
    "sync_batchnorm": ["yes", None],
    "compile": ["yes", 1],
    "epoch_choice": ["best"],
    "gpu": ["cuda", True],
    "include_double_labeled": ["yes", 1, None],
    "quiet": ["no", 0],
    "thumbnails": ["yes", 1],
    "classes": ["cat", ("cat", 1), {"cat": 1}, 3],
    "encoder": [None, 3],
    **{
        name: [3, ["a"]]
        for name in ("out", "cache", "cluster", "label_column", "image_column", "feature_column", "uri_column")
    },
    "truth_column": [3],
    "mlflow_uri": [3],
}


def test_every_option_has_a_wrong_value_here() -> None:
    assert set(OUT_OF_RANGE) == set(FIELDS)


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in OUT_OF_RANGE.items() for v in values])
def test_wrong_value(name: str, value: Any) -> None:
    flag = "--" + name.replace("_", "-")
    with pytest.raises(ConfigError, match=SHAPE) as caught:
        make_config(**({"data": "demo"} | {name: value}))
    message = str(caught.value)
    assert message.startswith(f"Expected {flag} ")
    number = isinstance(value, int) and not isinstance(value, bool)
    assert any(f"but got {shown};" in message for shown in (repr(value), f"{value}.0" if number else repr(value)))


@pytest.mark.parametrize(
    "name", ["variant", "corrupted_weight", "augmentation", "lr_schedule", "epoch_choice", "gpu", "ranking_score"]
)
def test_a_wrong_choice_lists_the_valid_ones(name: str) -> None:
    valid = (
        get_args({"variant": Variant}.get(name))
        or {
            "corrupted_weight": ("uniform", "paper"),
            "augmentation": ("auto", "flip", "crop", "none"),
            "lr_schedule": ("cosine", "multistep"),
            "epoch_choice": ("validation_metric", "noise_rate", "davies_bouldin", "last"),
            "gpu": ("auto", "yes", "no"),
            "ranking_score": ("combined_margin", "early_margin", "mean_margin", "leave_one_out", "soft_assignment"),
        }[name]
    )
    for good in valid:
        assert getattr(make_config(data="demo", **{name: good}), name) == good
    with pytest.raises(ConfigError, match=f"one of {', '.join(valid)}, but got 'nonsense'"):
        make_config(data="demo", **{name: "nonsense"})


def test_the_score_goes_with_the_threshold() -> None:
    assert make_config(data="demo").ranking == "combined_margin"
    assert make_config(data="demo", flag_rule="paper").ranking == "soft_assignment"
    assert make_config(data="demo", flag_rule="paper").margin_score == "combined_margin"
    published = make_config(data="demo", variant="released")
    assert (published.policy, published.ranking) == ("paper", "soft_assignment"), "a named variant flags as published"
    assert make_config(data="demo", variant="released", flag_rule="noise_rate").policy == "noise_rate"
    assert make_config(data="demo", flag_rule="corrupted_recall", ranking_score="mean_margin").ranking == "mean_margin"
    with pytest.raises(ConfigError, match="with the paper's threshold, but got --ranking-score mean_margin"):
        make_config(data="demo", flag_rule="paper", ranking_score="mean_margin")


@pytest.mark.parametrize("options", [{}, {"flag_rule": "paper", "epoch_choice": "noise_rate"}])
def test_the_noise_rate_needs_two_epochs(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--epochs of at least 2 to estimate the noise rate, but got 1"):
        make_config(data="demo", epochs=1, **options)
    assert make_config(data="demo", epochs=1, flag_rule="paper").epochs == 1


def test_the_leave_one_out_margin_needs_two_epochs() -> None:
    with pytest.raises(ConfigError, match="at least 2 for --ranking-score leave_one_out, but got 1"):
        make_config(data="demo", epochs=1, flag_rule="corrupted_recall", ranking_score="leave_one_out")


def test_an_unknown_option_names_the_closest_and_all() -> None:
    with pytest.raises(ConfigError, match=SHAPE) as caught:
        make_config(data="demo", gama=0.2)
    assert "but got 'gama'; did you mean 'gamma'?" in str(caught.value)
    assert all(name in str(caught.value) for name in FIELDS)
    with pytest.raises(ConfigError, match="got 'zzzz'; valid options: data, out, cache,"):
        make_config(data="demo", zzzz=1)


def test_data_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"--data to be text, but got None; pass e\.g\. --data demo"):
        make_config(gamma=0.2)


def test_edges_are_allowed() -> None:
    make_config(
        data="demo",
        gamma=1,
        epochs=1,
        flag_rule="paper",
        alpha=0,
        weight_decay=0,
        batch_size=3,
        workers=3,
        seed=0,
        clustering_sample=100,
    )
    make_config(data="demo", max_invalid_share=1, max_failures=0, checkpoint_seconds=0, worker_cache_gb=0, image_size=2)
    make_config(data="demo", balanced_sample=1, clustering_epochs=0, max_invalid_share=0)


def test_the_released_variant_copies_from_nine_tenths() -> None:
    assert make_config(data="demo").copy_pool == 1.0
    assert make_config(data="demo", variant="released", gamma=0.9).copy_pool == 0.9
    with pytest.raises(ConfigError, match=r"--gamma in \(0, 0.9\], but got 0.95"):
        make_config(data="demo", variant="released", gamma=0.95)


def test_more_workers_than_rows_per_step() -> None:
    with pytest.raises(ConfigError, match="--batch-size of at least one row per worker, but got 4"):
        make_config(data="demo", batch_size=4, workers=5)


def test_values_get_the_declared_type() -> None:
    config = make_config(
        data=Path("a") / "b",
        out=Path("c"),
        epochs=np.int64(3),
        gamma=np.float64(0.25),
        learning_rate=1,
        classes=["a", "b"],
    )
    assert (config.data, config.out, config.classes) == ("a/b", "c", ("a", "b"))
    assert [type(v) for v in (config.epochs, config.gamma, config.learning_rate)] == [int, float, float]
    assert DetectConfig(data="demo", classes=["a", "b"]).classes == ("a", "b")  # type: ignore[arg-type]
    json.dumps(dataclasses.asdict(config), allow_nan=False)


def test_result_options_are_all_but_the_machine() -> None:
    options = make_config(data="demo").result_options()
    assert set(options) == set(FIELDS) - MACHINE
    elsewhere = make_config(
        data="demo",
        out="o",
        cache="c",
        workers=4,
        gpu="no",
        max_failures=9,
        checkpoint_seconds=1,
        worker_cache_gb=2,
        cluster="auto",
        node_timeout_minutes=3,
        quiet=True,
        max_invalid_share=0.5,
    )
    assert elsewhere.result_options() == options
    assert make_config(data="demo", seed=1).result_options() != options


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
        make_config(data="demo", network="cifar_resnet8", **options)


@pytest.mark.parametrize("options", [{"training_augmentation": "crop"}, {"sync_batchnorm": True}, {"compile": True}])
def test_options_of_a_network_need_one(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"for options of networks, but got --.* without it; name a network"):
        make_config(data="demo", **options)
    make_config(data="demo", network="cifar_resnet8", **options)


def test_a_network_is_ranked_by_its_own_margin() -> None:
    assert make_config(data="demo", network="cifar_resnet8").ranking == "mean_margin"
    assert make_config(data="demo", network="cifar_resnet8", flag_rule="paper").ranking == "soft_assignment"
    assert make_config(data="demo", network="cifar_resnet8", flag_rule="paper").margin_score == "mean_margin"


def test_another_schedule_needs_none_of_a_recipe_s_steps() -> None:
    config = make_config(data="demo", recipe="cifar_resnet34_released", lr_schedule="cosine")
    assert config.steps_at == ()
    for options in ({"lr_milestones": (0.3,)}, {"lr_decay": 0.5}):
        with pytest.raises(
            ConfigError, match=r"--lr-schedule multistep for --lr-(milestones|decay), but got --lr-schedule cos"
        ):
            make_config(data="demo", recipe="cifar_resnet34_released", lr_schedule="cosine", **options)
    with pytest.raises(ConfigError, match="--lr-schedule multistep for --lr-decay"):
        make_config(data="demo", lr_decay=0.5)


def test_milestones_belong_to_a_schedule_of_steps() -> None:
    assert make_config(data="demo").steps_at == ()
    assert make_config(data="demo", lr_schedule="multistep").steps_at == (0.5, 0.75)
    assert make_config(data="demo", lr_schedule="multistep", lr_milestones=[0.2, 0.9]).steps_at == (0.2, 0.9)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_of_training_options(name: str) -> None:
    config = make_config(data="demo", recipe=name)
    assert {key: getattr(config, key) for key in RECIPES[name]} == RECIPES[name]
    own = make_config(data="demo", recipe=name, epochs=7, learning_rate=0.02)
    assert (own.epochs, own.learning_rate, own.batch_size) == (7, 0.02, RECIPES[name]["batch_size"])
    spelled_out = make_config(data="demo", **RECIPES[name])
    assert spelled_out.result_options() == config.result_options(), "the same run, which may be resumed by either"


def test_an_unknown_recipe_names_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"got 'cifar_resnet43'; did you mean 'cifar_resnet34'\?"):
        make_config(data="demo", recipe="cifar_resnet43")
