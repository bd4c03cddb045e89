"""The index of the paper in `dynacor_ray.method`: every entry exists, and no equation is missing."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

from dynacor_ray import method

HERE = Path(__file__).parent
ENTRY = re.compile(r"^\| ([^|]+) \| [^|]+ \| `(\w+)\.(\w+)` \| `(\w+)` \|$", re.MULTILINE)
ENTRIES = ENTRY.findall(inspect.getdoc(method) or "")
MODULES = sorted(path.stem for path in Path(method.__path__[0]).glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize(("paper", "module", "function", "test"), ENTRIES, ids=[entry[2] for entry in ENTRIES])
def test_every_entry_exists(paper: str, module: str, function: str, test: str) -> None:
    found = getattr(importlib.import_module(f"dynacor_ray.method.{module}"), function)
    assert re.search(rf"{re.escape(paper.partition(',')[0])}\b", inspect.getdoc(found) or ""), "the docstring cites it"
    assert function in (HERE / f"{test}.py").read_text(encoding="utf-8")


def test_every_function_that_cites_an_equation_is_listed() -> None:
    cited = {
        (name, function)
        for name in MODULES
        for function, value in vars(importlib.import_module(f"dynacor_ray.method.{name}")).items()
        if inspect.isfunction(value) and value.__module__.endswith(f".{name}") and not function.startswith("_")
        if re.search(r"Eq\. \d", inspect.getdoc(value) or "")
    }
    assert len(cited) > 10
    assert cited <= {(module, function) for _, module, function, _ in ENTRIES}


def test_every_equation_is_listed() -> None:
    numbers = {int(number) for paper, *_ in ENTRIES if paper.startswith("Eq.") for number in re.findall(r"\d+", paper)}
    assert numbers == {*range(1, 10), 12, 13, 14}  # the method, and Proposition 1
