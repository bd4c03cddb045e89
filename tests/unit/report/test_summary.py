"""summary.json by hand, and a terminal report that survives odd names and narrow windows."""

from __future__ import annotations

import dataclasses
import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dynacor_ray.core.manifest import DataFile, DatasetManifest, FeatureStats
from dynacor_ray.core.schema import MAX_INSTANCE_ID
from dynacor_ray.report.summary import (
    RunResults,
    build_summary,
    class_table,
    pair_table,
    rate_warnings,
    transition_matrix,
    trust_warnings,
)
from dynacor_ray.report.terminal import clean, print_summary

NAMES = ("cat", "dog", "owl")


@dataclass
class Counted:
    """10 cats of which 3 are flagged (2 as dogs, 1 as an owl), 4 dogs of which 1 as a dog, no owl."""

    originals: int = 14
    flagged: int = 4
    copies: int = 4
    copies_flagged: int = 3
    pairs: np.ndarray = field(default_factory=lambda: np.array([[0, 2, 1], [0, 1, 0], [0, 0, 0]], np.int64))
    given: np.ndarray = field(default_factory=lambda: np.array([10, 4, 0], np.int64))


def manifest(**changes: Any) -> DatasetManifest:
    values: dict[str, Any] = {
        "source": "parquet",
        "uri": "/data",
        "kind": "feature",
        "fingerprint": "f",
        "content_hash": "c",
        "payload_hash": "p",
        "num_rows": 14,
        "class_names": NAMES,
        "class_counts": (10, 4, 0),
        "feature_dim": 2,
        "parts": (DataFile("p", 14, 0, 13),),
        "quarantine": "a1/quarantine.parquet",
        "truth": None,
        "allows_thumbnails": True,
        "stats": FeatureStats(1, (0.0, 0.0), 1.0),
    }
    return DatasetManifest(**(values | changes))


def facts(counts: Counted, known: DatasetManifest, noise_rate: dict[str, float] | None = None) -> RunResults:
    records = [{"epoch": 0, "davies_bouldin": None}]
    config = {"seed": 7, "gamma": 0.1, "flag_rule": None, "variant": None}
    return RunResults(config, {"ray": "2"}, known, "pixels@8", counts, records, 0, None, noise_rate)


# -------------------------------------------------------------------------------------------------------------- summary


def test_class_table_by_hand() -> None:
    assert class_table(Counted(), NAMES) == [
        {"class": "cat", "rows": 10, "flagged": 3, "flagged_share": 0.3, "estimated_noise_rate": None},
        {"class": "dog", "rows": 4, "flagged": 1, "flagged_share": 0.25, "estimated_noise_rate": None},
        {"class": "owl", "rows": 0, "flagged": 0, "flagged_share": 0.0, "estimated_noise_rate": None},
    ]


def test_pair_table_by_hand() -> None:
    """Most frequent first; a flagged row whose given label is also predicted names no other class."""
    pairs = Counted().pairs
    assert pair_table(pairs, NAMES) == [
        {"given": "cat", "predicted": "dog", "flagged": 2},
        {"given": "cat", "predicted": "owl", "flagged": 1},
    ]
    assert pairs[1, 1] == 1, "the argument is left alone"
    many = pair_table(np.arange(100, dtype=np.int64).reshape(10, 10), tuple("abcdefghij"))
    assert len(many) == 50
    assert many[0] == {"given": "j", "predicted": "i", "flagged": 98}


def test_transition_matrix_by_hand() -> None:
    """Truly cats: the 7 unflagged. Dogs: 3 unflagged, the one flagged as a dog, 2 given as cats. Owls: 1 as a cat."""
    assert np.allclose(transition_matrix(Counted()), [[1, 0, 0], [2 / 6, 4 / 6, 0], [1, 0, 0]])


def test_transition_matrix_of_a_class_that_nobody_has() -> None:
    pairs = np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]], np.int64)
    counts = Counted(pairs=pairs, given=np.array([1, 2, 0], np.int64))
    assert np.allclose(transition_matrix(counts), [[1, 0, 0], [1 / 3, 2 / 3, 0], [0, 0, 1]])


def test_warnings_of_doubtful_answers() -> None:
    known = manifest()
    assert trust_warnings(Counted(), known) == []
    assert trust_warnings(Counted(copies_flagged=2), known) == [], "half is enough"
    (weak,) = trust_warnings(Counted(copies_flagged=1), known)
    assert weak.startswith("Only 25% of the errors that were planted on purpose were found")
    (half,) = trust_warnings(Counted(given=np.array([5, 2, 0], np.int64)), known)
    assert half == "More than half of the labels look wrong in 1 class(es): cat. Look at them by hand."
    many = Counted(pairs=np.eye(7, dtype=np.int64), given=np.ones(7, np.int64))
    (all_bad,) = trust_warnings(many, manifest(class_names=tuple("abcdefg")))
    assert "in 7 class(es): a, b, c, d, e and others. Look" in all_bad


def test_an_estimate_that_is_not_followed_is_named() -> None:
    """4 of 14 rows are flagged."""
    wild = {"value": 0.9, "low": 0.3, "high": 1.0}
    (told,) = rate_warnings(facts(Counted(), manifest(), wild))
    assert told.startswith("The estimated noise rate of 90% is not to be believed: flagging 29% of the rows finds 75%")
    assert rate_warnings(facts(Counted(), manifest(), wild | {"value": 0.29})) == []
    other = facts(Counted(), manifest(), wild)
    assert rate_warnings(dataclasses.replace(other, config=other.config | {"variant": "paper"})) == []
    assert rate_warnings(dataclasses.replace(other, config=other.config | {"flag_rule": "mixture"})) == []
    assert rate_warnings(facts(Counted(), manifest())) == []


def test_summary_is_json_and_complete() -> None:
    known = manifest(warnings=("told before",), quarantined=3, quarantine_examples=tuple({"row": i} for i in range(20)))
    summary = build_summary(facts(Counted(copies_flagged=1), known), {"total": 1.5})
    assert json.loads(json.dumps(summary, allow_nan=False)) == json.loads(json.dumps(summary))
    assert summary["num_rows"] == 14
    assert summary["num_flagged"] == 4
    assert summary["flagged_share"] == 4 / 14
    assert summary["estimated_noise_rate"] is summary["noise_rate_range"] is None, "too few epochs for an estimate"
    told = build_summary(facts(Counted(), known, {"value": 0.2, "low": 0.1, "high": 0.3}), {})
    assert (told["estimated_noise_rate"], told["noise_rate_range"]) == (0.2, [0.1, 0.3])
    assert summary["corrupted_recall"] == 0.25
    assert summary["seed"] == 7
    assert summary["seconds"] == {"total": 1.5}
    assert summary["warnings"][0] == "told before"
    assert len(summary["warnings"]) == 2
    assert len(summary["data"]["quarantine_examples"]) == 10
    assert summary["data"]["quarantined"] == 3
    assert not {"parts", "stats"} & summary["data"].keys()


@pytest.mark.parametrize("classes", [100, 101])
def test_a_large_transition_matrix_is_left_out(classes: int) -> None:
    counts = Counted(pairs=np.zeros((classes, classes), np.int64), given=np.ones(classes, np.int64))
    summary = build_summary(facts(counts, manifest(class_names=tuple(map(str, range(classes))))), {})
    assert (summary["transition_matrix"] is None) == (classes > 100)


# ------------------------------------------------------------------------------------------------------------- terminal


def summary_of(names: tuple[str, ...] = NAMES, **changes: Any) -> dict[str, Any]:
    classes = [{"class": n, "rows": 100, "flagged": i, "flagged_share": i / 100} for i, n in enumerate(names)]
    return {
        "num_rows": 1_000_000,
        "num_classes": len(names),
        "num_flagged": 123_456,
        "flagged_share": 0.123456,
        "estimated_noise_rate": 0.1,
        "noise_rate_range": [0.08, 0.12],
        "corrupted_recall": 0.9,
        "num_corrupted": 100_000,
        "data": {"quarantined": 0},
        "evaluation": None,
        "classes": classes,
        "warnings": [],
        "seconds": {"ingest": 2.0, "train": 30.25, "total": 32.5},
    } | changes


def suspect(instance_id: int = 5, uri: str | None = None, given: int = 0, predicted: int = 1) -> dict[str, Any]:
    return {
        "instance_id": instance_id,
        "uri": uri,
        "given_label": given,
        "predicted_label": predicted,
        "label_quality": 0.12345,
    }


def printed(summary: dict[str, Any], worst: list[dict[str, Any]], width: int = 80, run: str = "/runs/a") -> list[str]:
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


def test_scores_against_the_truth() -> None:
    scores = {"noise_rate": 0.2, "f1": None, "precision": 0.5, "recall": 0.25, "auroc": None}
    lines = printed(summary_of(evaluation=scores, data={"quarantined": 1234}), [])
    assert cells(lines, "true noise rate")[1] == "20.0%"
    assert cells(lines, "f1 against the truth")[1] == "undefined"
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


def test_a_long_warning_or_path_is_not_broken() -> None:
    lines = printed(summary_of(warnings=["w " * 100 + "end"]), [], run="/very/long" * 20)
    assert any(line.startswith("Warning: w ") and line.endswith("end") for line in lines)
    assert any(line.startswith("Results: " + "/very/long" * 20) for line in lines)
