"""A recipe is what its command says."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import named_runs as recipes
import pytest

from dynacor_ray import cli
from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import ConfigError
from tests.job_runs import run_job

RECIPES = {
    name: function
    for name, function in inspect.getmembers(recipes, inspect.isfunction)
    if function.__module__ == recipes.__name__ and not name.startswith("_")
}
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "demo": (),
    "paper_frozen_encoder": ("DATA",),
    "clothing1m": ("ROOT",),
    "comparison": ("DATA",),
    "ablation": ("DATA",),
    "signals": ("DATA",),
    "corruption_rates": ("DATA",),
}


def test_every_recipe_is_tested() -> None:
    assert set(ARGUMENTS) == set(RECIPES)


def command_of(function: Callable[..., Any]) -> list[str]:
    found = re.search(r"Command: `([^`]+)`", inspect.getdoc(function) or "")
    assert found, f"{function.__name__} does not give its command"
    return found[1].split()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_its_command(name: str, configs: list[DetectConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    command = command_of(RECIPES[name])
    if "python" in command:
        script, *args = command[command.index("python") + 1 :]
        run_job(script, args, monkeypatch)
    else:
        assert command[0] == "dynacor"
        with pytest.raises(SystemExit):
            cli.main(command[1:])
    (config,) = configs
    recipe = RECIPES[name](*ARGUMENTS[name])
    if isinstance(config, DetectConfig):
        config = dataclasses.replace(config, out=None)
    assert config == recipe


def test_clothing1m_takes_options() -> None:
    config = recipes.clothing1m("/c", balanced_sample=120_000)
    assert (config.data, config.balanced_sample) == ("clothing1m:/c", 120_000)
    assert recipes.clothing1m("clothing1m:/c").data == "clothing1m:/c"
    with pytest.raises(ConfigError, match="perhaps 'balanced_sample' is meant"):
        recipes.clothing1m("/c", balanced_samples=1)
