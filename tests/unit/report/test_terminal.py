"""A terminal report that survives odd names and narrow windows."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from dynacor_ray.core.schema import MAX_INSTANCE_ID
from dynacor_ray.report.terminal import clean, print_summary
from dynacor_ray.runs.records import RunSummary
from tests.made_runs import summary_of

NAMES = ("cat", "dog", "owl")


def suspect(instance_id: int = 5, uri: str | None = None, given: int = 0, predicted: int = 1) -> dict[str, Any]:
    return {
        "instance_id": instance_id,
        "uri": uri,
        "given_label": given,
        "predicted_label": predicted,
        "label_quality": 0.12345,
    }


def printed(summary: RunSummary, worst: list[dict[str, Any]], width: int = 80, run: str = "/runs/a") -> list[str]:
    stream = io.StringIO()
    print_summary(summary, worst, run, Console(file=stream, width=width, force_terminal=False))
    return stream.getvalue().splitlines()


def cells(lines: list[str], first: str) -> list[str]:
    """Cells of the line whose first cell is `first`."""
    rows = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in lines]
    (found,) = (row for row in rows if row[0] == first)
    return found


def test_numbers_are_shown() -> None:
    lines = printed(summary_of(), [suspect(uri="a/b.jpg")])
    assert cells(lines, "rows") == ["rows", "1,000,000"]
    assert cells(lines, "labels that look wrong")[1] == "123,456 (12.3%)"
    assert cells(lines, "estimated noise rate")[1] == "10.0% (8.0% - 12.0%)"
    assert cells(lines, "planted errors found")[1] == "90.0% of 100,000"
    assert cells(lines, "owl") == ["owl", "100", "2", "2.0%"]
    assert cells(lines, "5") == ["5", "a/b.jpg", "cat", "dog", "0.1235"]
    assert "Seconds: ingest 2.0, train 30.2; total 32.5" in lines
    assert lines[-2:] == [
        "Results: /runs/a (issues.parquet, summary.json, dynamics.parquet)",
        "Report: /runs/a/report.html",
    ]
    text = "\n".join(lines)
    assert "truth" not in text
    assert "unusable" not in text
    assert "Embedding" not in text
    lines = printed(summary_of(embedding={"decoding": 4.0, "encoding": 36.0}), [suspect()])
    assert "Embedding: decoding 4.0 s (10.0%), encoding 36.0 s, over all processors" in lines


def test_scores_against_the_truth() -> None:
    scores = {"noise_rate": 0.0, "f1": None, "precision": None, "recall": None, "auroc": None}
    lines = printed(summary_of(evaluation=scores), [])
    for name in ("f1", "recall", "auroc"):
        assert cells(lines, f"{name} against the truth")[1] == "none (no label is wrong)"
    scores |= {"noise_rate": 0.2, "f1": 0.0, "recall": 0.25, "auroc": 0.5}
    lines = printed(summary_of(evaluation=scores, data={"quarantined": 1234}), [])
    assert cells(lines, "true noise rate")[1] == "20.0%"
    assert cells(lines, "precision against the truth")[1] == "none (nothing is flagged)"
    assert cells(lines, "recall against the truth")[1] == "25.0%"
    assert cells(lines, "quarantined as unusable")[1] == "1,234"


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_every_id_and_quality_can_be_read(width: int) -> None:
    names = ("Windbreaker or anything else with a very long name", "T-shirt", "日本語の分類" * 5)
    ids = [7, 123_456_789_012, MAX_INSTANCE_ID]
    worst = [suspect(i, f"/data/clothing/{'sub/' * 20}{i}.jpg", k, (k + 1) % 3) for k, i in enumerate(ids)]
    lines = printed(summary_of(names), worst, width)
    start = next(i for i, line in enumerate(lines) if line.startswith("Most suspicious rows"))
    header = cells(lines[start:], "instance_id")
    assert header[-1] == "quality"
    for instance_id in ids:
        assert cells(lines[start:], str(instance_id))[-1] == "0.1235"
    end = next(i for i, line in enumerate(lines) if line.startswith("Seconds"))
    assert end - start == 3 + 1 + len(ids) + 1, "one line per row"
    if width >= 60:
        assert header[-3:-1] == ["given", "predicted"]
    if width >= 80:
        assert "uri" in header
        assert cells(lines[start:], "7")[1].endswith("sub/7.jpg"), "the end of a path says more than its beginning"
    if width == 120:
        assert cells(lines[start:], "7")[1].startswith("…")


@pytest.mark.parametrize("uri", ["sub/" * 9 + "a", "日" * 40, "日" * 39 + "x" * 30])
def test_a_long_uri_stays_in_its_column(uri: str) -> None:
    lines = printed(summary_of(), [suspect(uri=uri)], 70)
    shown = cells(lines, "5")[1]
    assert uri.endswith(shown.removeprefix("…"))
    assert cells(lines, "5")[2:] == ["cat", "dog", "0.1235"]
    assert cells(lines, "instance_id")[2:] == ["given", "predicted", "quality"]


def test_no_empty_column_when_rows_have_no_uri() -> None:
    assert cells(printed(summary_of(), [suspect()]), "instance_id") == ["instance_id", "given", "predicted", "quality"]


def test_no_suspects() -> None:
    assert cells(printed(summary_of(), []), "instance_id")[-1] == "quality"


def test_only_the_most_affected_of_many_classes() -> None:
    lines = printed(summary_of(tuple(f"class-{i}" for i in range(100))), [])
    assert [line.split("│")[1].strip() for line in lines if "class-" in line] == [
        f"class-{i}" for i in range(99, 94, -1)
    ]


EVIL = {
    "\x1b[31mred\x1b[0m": "?[31mred?[0m",
    "a\rb\x07\x08": "a?b??",
    "a\nb\tc": "a?b?c",
    "\x9b31m": "?31m",
    "evil\u202egnp.exe": "evil?gnp.exe",
    "\u2066x\u200b": "?x?",
    "[bold]x[/bold]": "[bold]x[/bold]",
    "[/]": "[/]",
    "ends in \\": "ends in \\",
    ":warning:": ":warning:",
    "\udcff": "?",
    "na\u00efve 日本": "na\u00efve 日本",
}


@pytest.mark.parametrize(("evil", "shown"), EVIL.items(), ids=map(ascii, EVIL))
def test_text_from_data_is_harmless(evil: str, shown: str) -> None:
    assert clean(evil).plain == shown
    warning = f"Class {evil} is odd."
    lines = printed(summary_of((evil, "dog"), warnings=[warning]), [suspect(uri=evil)], run=f"/runs/{evil}")
    assert cells(lines, "5") == ["5", shown, shown, "dog", "0.1235"]
    assert cells(lines, shown)[0] == shown
    assert f"Warning: Class {shown} is odd." in lines
    assert any(line.startswith(f"Results: /runs/{shown} (") for line in lines)
    assert all(char.isprintable() for line in lines for char in line)


def test_what_was_taken_for_what_is_a_note_and_no_warning() -> None:
    lines = printed(summary_of(notes=["Read text as utf-16."], warnings=["Left out: 3 images."]), [])
    assert "Note: Read text as utf-16." in lines
    assert "Warning: Left out: 3 images." in lines


def test_a_long_warning_or_path_is_not_broken() -> None:
    lines = printed(summary_of(warnings=["w " * 100 + "end"]), [], run="/very/long" * 20)
    assert any(line.startswith("Warning: w ") and line.endswith("end") for line in lines)
    assert any(line.startswith("Results: " + "/very/long" * 20) for line in lines)
