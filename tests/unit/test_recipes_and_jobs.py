"""A recipe is what its command says; a job is a thin script that loads nothing heavy."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import named_runs as recipes
import pytest

from dynacor_ray import cli
from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.workflows import analyze_signals as studies
from dynacor_ray.workflows import compare as comparisons
from dynacor_ray.workflows import detect as pipeline
from dynacor_ray.workflows import sweep as sweeps

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "jobs").glob("*.py"))
BENCHMARKS = [path for path in SCRIPTS if path.name.startswith("bench")]
JOBS = [path for path in SCRIPTS if path not in BENCHMARKS and path.name != "named_runs.py"]
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


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[DetectConfig]:
    seen: list[DetectConfig] = []
    monkeypatch.setattr(pipeline, "run_detect", seen.append)
    monkeypatch.setattr(sweeps, "run_sweep", seen.append)
    monkeypatch.setattr(comparisons, "run_compare", seen.append)
    monkeypatch.setattr(studies, "run_analyze_signals", seen.append)
    return seen


def run_job(script: str, args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [script, *args])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert left.value.code == 0


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
    with pytest.raises(ConfigError, match="did you mean 'balanced_sample'"):
        recipes.clothing1m("/c", balanced_samples=1)


@pytest.mark.parametrize("root", ["/c", "clothing1m:/c", "s3://bucket/c"])
def test_the_clothing1m_job_insists_on_its_layout(
    root: str, configs: list[DetectConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job("jobs/clothing1m.py", ["--data", root, "--gamma", "0.2"], monkeypatch)
    assert configs == [DetectConfig(data="clothing1m:" + root.removeprefix("clothing1m:"), gamma=0.2)]


# ----------------------------------------------------------------------------------------------------------------- jobs


def test_there_are_jobs() -> None:
    assert {path.name for path in JOBS} >= {"detect.py", "clothing1m.py"}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_a_job_is_short_and_light(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert len(text.splitlines()) <= 60
    assert not imported & {"torch", "torchvision", "numpy", "pandas"}
    assert f"jobs/{path.name}" in (ast.get_docstring(tree) or ""), "say how it is started"


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_a_benchmark_says_how_it_is_started(path: Path) -> None:
    started = "jobs/bench_*.py" if path.name == "benchmarking.py" else f"python jobs/{path.name}"
    assert started in (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_job_starts_nothing_when_imported(path: Path) -> None:
    runpy.run_path(str(path), run_name="imported")


def test_a_wrong_option_of_a_job() -> None:
    done = subprocess.run(
        [sys.executable, "jobs/detect.py", "--data", "demo", "--alpha", "-1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == ("dynacor: Expected --alpha of at least 0, but got -1.0; the paper uses 0.5 or 0.05.\n")
