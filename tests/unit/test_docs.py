"""What the documentation shows is true of the code: commands, options, snippets, files, links."""

from __future__ import annotations

import ast
import functools
import json
import re
import runpy
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
from dynacor_ray.workflows import train as trainings
from tests.documented import (
    GUIDES,
    PAGES,
    README,
    ROOT,
    anchors,
    commands,
    links,
    name_of,
    own_arguments,
    snippets,
)

COMMANDS = {called: (place, words) for place, words in commands(*PAGES) if (called := " ".join(words))}
CHANGELOG = ROOT / "CHANGELOG.md"
every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


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
        (trainings, "run_train"),
    ):
        monkeypatch.setattr(module, name, take)
    for name in ("show", "report", "export", "review", "clean", "completion"):
        monkeypatch.setitem(cli.COMMANDS, name, functools.wraps(cli.COMMANDS[name])(lambda config: seen.append(config)))
    return seen


@pytest.mark.parametrize(("place", "words"), COMMANDS.values(), ids=COMMANDS)
def test_commands_are_understood(place: str, words: list[str], accepted: list[Any]) -> None:
    own = own_arguments(words)
    if own is not None:
        with pytest.raises(SystemExit) as left:
            cli.main(own)
        assert left.value.code == 0, f"{place}: {words}"
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
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), place
    else:
        assert own is not None or words == ["source", ".venv/bin/activate"], f"{place}: no test knows {words}"


def test_every_command_is_shown() -> None:
    used = {own[0] for _, words in COMMANDS.values() if (own := own_arguments(words)) is not None}
    assert used == set(cli.COMMANDS)
    listed = re.findall(r"^\| `dynacor ([a-z-]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(cli.COMMANDS), "the README has a line for each"


@functools.cache
def known_options() -> set[str]:
    """All options of our commands, Ray's that we name, and those of the scripts in jobs/."""
    kinds = [cli.config_class(command) for command in cli.COMMANDS]
    found = {one.flag for kind in kinds for one in all_options(kind).values()}
    found |= {"--no-thumbnails", "--no-remote", "--help", "--version", "--write"}
    for script in (ROOT / "jobs").glob("bench_*.py"):
        fields = re.findall(r"^    ([a-z_]+): |\"--([a-z-]+)\"", script.read_text(), re.MULTILINE)
        found |= {f"--{(one or other).replace('_', '-')}" for one, other in fields}
    return found | {"--working-dir", "--runtime-env", "--no-deps", "--wheel-dir", "--strict", "--disable-pip"}


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=name_of)
def test_no_option_is_misspelt(page: Path) -> None:
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
    assert used <= known_options()


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    inside = r"`((?:dynacor_ray|jobs|tests|\.ci)/[\w./*-]*|[\w-]+\.(?:yaml|toml|txt))`"
    named = set(re.findall(inside, page.read_text(encoding="utf-8")))
    assert not [name for name in named if not list(ROOT.glob(name.rstrip("/")))]


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        place, _, anchor = link.partition("#")
        if ":" not in place:
            target = (page.parent / place).resolve() if place else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=name_of)
def test_tables_are_whole(page: Path) -> None:
    """Below its first row each has a line of dashes, and all its rows have as many cells; else it is shown as text."""
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
        rows = table.splitlines()
        assert re.fullmatch(r"\|[\s:|-]+\|", rows[min(1, len(rows) - 1)]), rows[0]
        cells = {len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in rows}
        assert len(cells) == 1, rows[0]


def test_every_guide_is_linked_from_the_readme() -> None:
    assert {name_of(path) for path in GUIDES.values()} <= {link.partition("#")[0] for link in links(README)}


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_extras_that_are_named_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [path.read_text(encoding="utf-8") for path in (*PAGES, *(ROOT / "dynacor_ray").rglob("*.py"))]
    lists = [found for text in sources for found in re.findall(r"dynacor-ray\[([\w,]+)\]", text)]
    named = {name for found in lists for name in found.split(",")}
    assert {"encoders", "cleanlab", "optuna"} <= named <= set(extras)


@every_page
def test_snippets_are_python(page: Path) -> None:
    for snippet in snippets(page, "python", "py"):  # py: needs what is not installed here
        ast.parse(snippet.text, snippet.place)


def test_the_documentation_has_snippets() -> None:
    assert [page.stem for page in PAGES for _ in snippets(page, "python")] == [
        *("README", "data", "extend", "extend", "results", "sweeps", "train")
    ]


def register(index: int) -> None:
    """Execute a snippet of the guide `extend` up to the run that it ends with."""
    snippet = list(snippets(GUIDES["extend"], "python"))[index]
    exec(compile(snippet.text.partition("\nresult = ")[0], snippet.place, "exec"), {"__name__": "__main__"})


def test_a_detector_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "DETECTORS", dict(detectors.DETECTORS))
    register(0)
    detector = detectors.DETECTORS["late_margin"]
    margins = np.array([[-9, -9, 2, 3], [9, 9, -1, -2]], np.float16)
    verdict = detector.judge(Evidence(given_label=np.array([0, 1], np.int32), num_classes=2, margins=margins))
    assert verdict.is_label_issue.tolist() == [False, True]
    assert verdict.score.tolist() == [2.5, -1.5]
    assert CompareConfig(detectors=("dynacor", "late_margin")).effective_detectors == ["dynacor", "late_margin"]


def test_a_source_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "SOURCES", dict(registry.SOURCES))
    register(1)
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


# ------------------------------------------------------------------------------------------------- tables, and the site


@pytest.fixture(scope="module")
def docs() -> dict[str, Any]:
    """What `.ci/docs.py` defines."""
    return runpy.run_path(str(ROOT / ".ci" / "docs.py"), run_name="imported")


@pytest.mark.parametrize("guide", GUIDES.values(), ids=name_of)
def test_option_tables_are_up_to_date(guide: Path, docs: dict[str, Any]) -> None:
    text = guide.read_text(encoding="utf-8")
    assert docs["with_tables"](text) == text, "run: python .ci/docs.py --write"


def test_every_option_stands_in_a_table(docs: dict[str, Any]) -> None:
    texts = [path.read_text(encoding="utf-8") for path in GUIDES.values()]
    shown = [name for text in texts for name in re.findall(r"<!-- options: ([\w-]+) -->", text)]
    assert sorted(shown) == sorted(docs["tables"]())
    rows = {row for text in texts for row in re.findall(r"^\| `(--[a-z-]+)` \|", text, re.MULTILINE)}
    kinds = [cli.config_class(command) for command in cli.COMMANDS]
    assert {one.flag for kind in kinds for one in all_options(kind).values() if not one.positional} <= rows


def test_the_site_has_every_page(docs: dict[str, Any]) -> None:
    assert {*PAGES, CHANGELOG} == set(docs["PAGES"])


def test_dead_links_of_the_site_are_found(tmp_path: Path, docs: dict[str, Any]) -> None:
    (tmp_path / "a.html").write_text('<p id="here"><a href="#here"></a><a href="b.html#there"></a><img src="no.png">')
    (tmp_path / "b.html").write_text('<a href="a.html#here"></a><a href="https://example.org/no"></a>')
    assert docs["dead_links"](tmp_path) == ["a.html: b.html#there", "a.html: no.png"]


def test_links_of_a_page_are_moved(tmp_path: Path, docs: dict[str, Any]) -> None:
    page = docs["as_page"](README, tmp_path)
    assert "](guides/data.html#encoders)" in page.__doc__
    assert "](guides/report.png)" in page.__doc__
    assert (tmp_path / "guides" / "report.png").is_file()
    assert "](../index.html" not in page.__doc__
