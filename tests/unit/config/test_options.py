"""Options: every wrong value is refused before work starts, in one sentence that names the flag and says what to do."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from dynacor_ray.cli import COMMANDS, config_class
from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import (
    Checked,
    Option,
    all_options,
    make_config,
    option,
    option_texts,
    options_table,
    own_options,
)
from dynacor_ray.config.review import ReviewConfig
from dynacor_ray.config.train import TrainRunConfig
from dynacor_ray.core.errors import ConfigError

SHAPE = r"^Expected .+, but got .+; .+\.$"
CLASSES = [config_class(command) for command in COMMANDS]
OPTIONS = [(kind, one) for kind in CLASSES for one in own_options(kind).values()]
NAN, INF = float("nan"), float("inf")


def name_of(value: Any) -> str:
    return value.name if isinstance(value, Option) else getattr(value, "__name__", repr(value))


def outside(one: Option) -> Iterator[float]:
    """Numbers beside the interval of an option."""
    step = 1 if one.kind is int else 1e-6
    low, high = one.bounds
    if math.isfinite(low):
        yield one.kind(low - step if one.within[0] == "[" else low)
    if math.isfinite(high):
        yield one.kind(high + step if one.within[-1] == "]" else high)


def inside(one: Option) -> Iterator[float]:
    """The outermost numbers of the interval of an option."""
    step = 1 if one.kind is int else 1e-6
    low, high = one.bounds
    if math.isfinite(low):
        yield one.kind(low if one.within[0] == "[" else low + step)
    if math.isfinite(high):
        yield one.kind(high if one.within[-1] == "]" else high - step)


def wrong_items(one: Option) -> Iterator[Any]:
    if one.choices:
        yield from ("nonsense", 3, ["nonsense"])
    else:
        yield from {
            str: [3, ["a"], b"a"],
            bool: ["yes", 1, 0.0],
            int: ["ten", 2.5, NAN, True],
            float: ["fast", NAN, INF, True, b"1"],
        }[one.kind]
        yield from outside(one)


def wrong_values(one: Option) -> Iterator[Any]:
    """Values of another type, out of range, or not among the choices."""
    if not one.optional:
        yield None
    if not one.many:
        yield from wrong_items(one)
        return
    yield from (3, "cat", {"cat": 1})
    yield from ([item] for item in wrong_items(one))
    if one.default != ():
        yield ()


def build(kind: type[Any], **options: Any) -> Any:
    needed = {name: "demo" for name, one in all_options(kind).items() if one.default is MISSING}
    return make_config(kind, **needed | options)


@pytest.mark.parametrize(("kind", "one"), OPTIONS, ids=name_of)
def test_wrong_values(kind: type[Any], one: Option) -> None:
    wrong = list(wrong_values(one))
    assert wrong
    for value in wrong:
        if one.name == "data" and value is None:
            continue  # as if it were not given
        with pytest.raises(ConfigError, match=SHAPE) as caught:
            build(kind, **{one.name: value})
        message = str(caught.value)
        assert message.startswith((f"Expected {one.flag} ", f"Expected each of {one.flag} ")), message
        item = value[0] if one.many and isinstance(value, list) else value
        got = [repr(item), repr(one.kind(item)) if isinstance(item, int) and one.kind is float else repr(item), "none"]
        assert any(f"but got {shown}; " in message for shown in got), message


@pytest.mark.parametrize(("kind", "one"), OPTIONS, ids=name_of)
def test_right_values(kind: type[Any], one: Option) -> None:
    right = [*inside(one), *(one.choices if isinstance(one.choices, tuple) else ())]
    for value in right:
        assert one.check([value] if one.many else value) == ((value,) if one.many else value)
    if one.default is not MISSING:
        assert one.check(one.default) == one.default, "the default is right, and of its type"
        assert getattr(build(kind), one.name, one.default) == one.default
    assert option_texts(kind)[one.name], "say what it means"


def test_a_wrong_choice_lists_the_valid_ones_and_names_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"--gpu to be one of auto, yes, no, but got 'cuda'; choose one of these"):
        make_config(DetectConfig, "demo", gpu="cuda")
    with pytest.raises(ConfigError, match=r"got 'cifar_resnet43'; perhaps 'cifar_resnet34' is meant\."):
        make_config(DetectConfig, "demo", recipe="cifar_resnet43")


def test_an_unknown_option_names_the_closest_or_all() -> None:
    with pytest.raises(ConfigError, match=SHAPE) as caught:
        make_config(DetectConfig, "demo", gama=0.2)
    assert str(caught.value).endswith("but got 'gama'; perhaps 'gamma' is meant.")
    with pytest.raises(ConfigError, match="got 'zzzz'; valid options: data, label_column,") as caught:
        make_config(DetectConfig, "demo", zzzz=1)
    assert all(one.name in str(caught.value) for one in fields(DetectConfig))


def test_data_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"^Expected --data, but got none; pass e\.g\. --data demo\.$"):
        make_config(DetectConfig, gamma=0.2)


def test_what_python_holds_is_no_path() -> None:
    with pytest.raises(ConfigError, match=SHAPE) as caught:
        make_config(TrainRunConfig, np.zeros((20, 9)))
    assert "but got array([[0., 0., 0." in str(caught.value)
    assert str(caught.value).endswith("...; save what Python holds, e.g. as .npz or parquet: only detect takes it.")
    with pytest.raises(ConfigError, match=r"^Expected RUN to be text, but got 3; correct it\.$"):
        make_config(ReviewConfig, run=3)


def test_values_get_the_declared_type() -> None:
    config = make_config(
        DetectConfig,
        Path("a") / "b",  # type: ignore[arg-type]
        out=Path("c"),
        epochs=np.int64(3),
        gamma=np.float64(0.25),
        learning_rate=1,
        classes=np.array(["a", "b"]),
    )
    assert (config.data, config.out, config.classes) == ("a/b", "c", ("a", "b"))
    assert [type(v) for v in (config.epochs, config.gamma, config.learning_rate)] == [int, float, float]
    assert DetectConfig(data="demo", classes=["a", "b"]).classes == ("a", "b")  # type: ignore[arg-type]
    json.dumps(asdict(config), allow_nan=False)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_list_names_each_value_once(kind: type[Any]) -> None:
    for one in own_options(kind).values():
        if one.many and not callable(one.choices):
            item = next(inside(one)) if one.within else "demo"
            with pytest.raises(ConfigError, match=rf"different values in {one.flag}, but got {item} {item}; name each"):
                one.check([item, item])


# --------------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True, kw_only=True)
class Shared(Checked):
    """What runs share."""

    base: str = option(MISSING, "ground", hint="pass e.g. --base here")
    """Where it
    stands."""
    size: int = option(3, "ground", within="[1, inf)")
    """How large."""


@dataclass(frozen=True, kw_only=True)
class Sample(Checked):
    """A class of options as every command has one."""

    detect: Shared
    """Not an option."""
    share: float = option(0.5, "mixing", within="(0, 1]", only_with="--kind round")
    """How much."""
    kind: Literal["round", "flat"] | None = option(None, "mixing")
    """Of which kind."""
    steps: tuple[int, ...] = option((1, 2), "mixing", within="[1, inf)")
    """When."""
    run: str = option("here", "other", positional=True)
    """Which one."""


def test_a_table_of_options() -> None:
    assert options_table(Sample, "mixing").splitlines() == [
        "| option | default | meaning |",
        "|---|---|---|",
        "| `--share` | `0.5` | How much. Only with --kind round. Range: (0, 1]. |",
        "| `--kind` |  | Of which kind. |",
        "| `--steps` | `1 2` | When. |",
    ]
    assert options_table(Sample).splitlines()[-1] == "| `RUN` | `here` | Which one. |"
    assert "| `--base` |  | Where it stands. |" in options_table(Shared)


def test_own_options_and_those_that_runs_share() -> None:
    made = make_config(Sample, base="x", kind="round", share=1, steps=[3])
    assert made == Sample(detect=Shared(base="x"), kind="round", share=1.0, steps=(3,))
    assert list(all_options(Sample)) == ["share", "kind", "steps", "run", "base", "size"]
    with pytest.raises(ConfigError, match=r"^Expected --base, but got none; pass e\.g\. --base here\.$"):
        make_config(Sample, kind="round")


@pytest.mark.parametrize(("kind", "got"), [(None, "none"), ("flat", "--kind flat")])
def test_an_option_that_needs_another_one(kind: str | None, got: str) -> None:
    words = rf"^Expected --kind round for --share, but got {got}; add it, or leave out --share\.$"
    with pytest.raises(ConfigError, match=words):
        make_config(Sample, base="x", share=0.1, kind=kind)
    assert make_config(Sample, base="x", share=0.5, kind=kind).kind == kind, "the default does no harm"


RUNS = [kind for kind in CLASSES if {"data", "seed", "out"} <= all_options(kind).keys()]


@pytest.mark.parametrize("kind", RUNS, ids=name_of)
def test_what_python_shows_of_options_is_short_and_holds_no_password(kind: type[Any]) -> None:
    shown = repr(make_config(kind, data="s3://KEY:SECRET@bucket/a", out="s3://k:other@b/runs?token=abcdefgh", seed=7))
    assert "seed=7" in shown
    assert "s3://***@bucket/a" in shown
    assert not {"KEY", "SECRET", "other", "abcdefgh"} & set(re.split(r"\W", shown))
    assert "learning_rate" not in shown
