"""What the documentation shows is true of the code: commands, options, snippets, files, links."""

from __future__ import annotations

import ast
import functools
import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest

from dynacor_ray import cli
from dynacor_ray.config.compare import CompareConfig
from dynacor_ray.config.options import all_options
from dynacor_ray.detectors import registry as detectors
from dynacor_ray.detectors.evidence import Evidence
from dynacor_ray.sources import registry
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.workflows import analyze_signals as studies
from dynacor_ray.workflows import compare as comparisons
from dynacor_ray.workflows import detect as pipeline
from dynacor_ray.workflows import doctor as checks
from dynacor_ray.workflows import sweep as sweeps
from tests.documented import GUIDES, README, ROOT, commands, own_arguments, snippets

TEXT = README.read_text(encoding="utf-8")
COMMANDS = list(commands(README))
PAGES = [README, *GUIDES, ROOT / "CHANGELOG.md"]


def called(words: list[str]) -> str:
    return " ".join(words)


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command line understood, instead of doing it."""
    seen: list[Any] = []

    def take(config: Any, *_: Any) -> Any:
        seen.append(config)
        return SimpleNamespace(ok=True)

    for module, name in (
        (pipeline, "run_detect"),
        (sweeps, "run_sweep"),
        (comparisons, "run_compare"),
        (studies, "run_analyze_signals"),
        (checks, "run_doctor"),
    ):
        monkeypatch.setattr(module, name, take)
    for name in ("report", "export", "review", "apply"):
        monkeypatch.setitem(cli.COMMANDS, name, functools.wraps(cli.COMMANDS[name])(lambda config: seen.append(config)))
    return seen


@pytest.mark.parametrize(("place", "words"), COMMANDS, ids=[called(words) for _, words in COMMANDS])
def test_commands_are_understood(place: str, words: list[str], accepted: list[Any]) -> None:
    own = own_arguments(words)
    if own is not None:
        with pytest.raises(SystemExit) as left:
            cli.main(own)
        assert left.value.code == 0, f"{place}: {called(words)}"
        assert len(accepted) == 1
    if words[:3] == ["ray", "job", "submit"]:
        submit = pytest.importorskip("ray.dashboard.modules.job.cli").submit
        with click.Context(submit) as context:
            submit.parse_args(context, words[3:])
        assert (ROOT / words[words.index("--") + 2]).is_file()
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), place
    elif words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = re.search(r"\[(.+)\]", words[-1])
        assert named is None or set(named[1].split(",")) <= set(extras), place
    else:
        assert own is not None, f"{place}: no test knows what to do with {called(words)!r}"


def test_the_documentation_has_commands() -> None:
    used = {own[0] for _, words in COMMANDS if (own := own_arguments(words)) is not None}
    assert used == set(cli.COMMANDS), "each command is shown at least once"


def known_options() -> set[str]:
    """All options of our commands, Ray's that we name, and those of the scripts in jobs/."""
    kinds = [cli.config_class(command) for command in cli.COMMANDS]
    found = {one.flag for kind in kinds for one in all_options(kind).values()}
    found |= {"--no-thumbnails", "--help", "--version"}
    for script in (ROOT / "jobs").glob("bench_*.py"):
        fields = re.findall(r"^    ([a-z_]+): |\"--([a-z-]+)\"", script.read_text(), re.MULTILINE)
        found |= {f"--{(one or other).replace('_', '-')}" for one, other in fields}
    return found | {"--working-dir", "--temp-dir", "--seed", "--entrypoint-num-gpus"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_option_is_misspelt(page: Path) -> None:
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
    assert used <= known_options()


def test_the_readme_names_files_that_exist() -> None:
    inside = r"`((?:dynacor_ray|jobs|tests)/[\w./*-]*|[\w-]+\.(?:yaml|toml|txt))`"
    named = set(re.findall(inside, TEXT)) - {"summary.json"}
    assert named
    assert not [name for name in named if not list(ROOT.glob(name.rstrip("/")))]


def test_extras_that_are_named_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [README.read_text(), *(path.read_text() for path in (ROOT / "dynacor_ray").rglob("*.py"))]
    lists = [found for text in sources for found in re.findall(r"dynacor-ray\[([\w,]+)\]", text)]
    named = {name for found in lists for name in found.split(",")}
    assert {"encoders", "cleanlab", "optuna"} <= named <= set(extras)


@pytest.mark.parametrize("page", [README, *GUIDES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_snippets_are_python(page: Path) -> None:
    found = list(snippets(page, "python", "py"))  # py: needs what is not installed here
    assert found
    for snippet in found:
        ast.parse(snippet.text, snippet.place)


def run_guide(path: Path) -> None:
    """Execute a guide's snippet up to the run that it ends with."""
    (snippet,) = snippets(path, "python")
    exec(compile(snippet.text.partition("\nresult = ")[0], snippet.place, "exec"), {"__name__": "__main__"})


def test_the_guide_to_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "DETECTORS", dict(detectors.DETECTORS))
    run_guide(GUIDES[0])
    detector = detectors.DETECTORS["late_margin"]
    margins = np.array([[-9, -9, 2, 3], [9, 9, -1, -2]], np.float16)
    verdict = detector.judge(Evidence(given_label=np.array([0, 1], np.int32), num_classes=2, margins=margins))
    assert verdict.is_label_issue.tolist() == [False, True]
    assert verdict.score.tolist() == [2.5, -1.5]
    assert CompareConfig(detectors=("dynacor", "late_margin")).effective_detectors == ["dynacor", "late_margin"]


def test_the_guide_to_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "SOURCES", dict(registry.SOURCES))
    run_guide(GUIDES[1])
    features = np.arange(14, dtype=np.float64).reshape(7, 2)
    np.savez(tmp_path / "arrays.npz", features=features, labels=np.array(list("aabbaab")))
    monkeypatch.chdir(tmp_path)
    source = registry.open_source("numpy:arrays.npz", SourceOptions())
    shards = source.shards(3)
    monkeypatch.chdir("/")  # other processes work elsewhere
    assert sum(shard.num_rows for shard in shards) == source.num_rows == 7
    tables = [shard.read() for shard in shards]
    assert [label for table in tables for label in table["label"].to_pylist()] == list("aabbaab")
    assert [row for table in tables for row in table["feature"].to_pylist()] == features.tolist()


def test_the_notebook_is_one() -> None:
    notebook = json.loads((ROOT / "jobs" / "example.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    kinds = [cell["cell_type"] for cell in notebook["cells"]]
    assert {"markdown", "code"} == set(kinds)
    for cell in notebook["cells"]:
        assert {"id", "cell_type", "metadata", "source"} <= set(cell)
        if cell["cell_type"] == "code":
            assert {"outputs", "execution_count"} <= set(cell)
            ast.parse("".join(cell["source"]))
