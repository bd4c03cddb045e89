"""Every job is a thin script that loads nothing heavy and says how it is started."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

from tests.job_runs import ROOT

SCRIPTS = sorted((ROOT / "jobs").glob("*.py"))
BENCHMARKS = [path for path in SCRIPTS if path.name.startswith("bench")]
JOBS = [path for path in SCRIPTS if path not in BENCHMARKS]


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
