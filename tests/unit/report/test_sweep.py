"""A sweep's summary, table and terminal report, and its heat map."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from dynacor_ray.report.figures import heat_map
from dynacor_ray.report.sweep import build_sweep_summary, print_sweep, trials_table
from dynacor_ray.runs.records import Trial
from tests.judgments import FAILED, TRIALS, trial


def summary_of(trials: list[Trial], **changes: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "select": "validation_metric",
        "default": {"gamma": 0.1, "alpha": 0.5},
        "trainings": 2,
        "config": {},
        "versions": {},
        "seconds": {"total": 3.0},
    }
    return build_sweep_summary(trials, FAILED, **known | changes)


def test_the_summary_compares_the_choice_with_the_default_and_the_oracle() -> None:
    summary = summary_of(TRIALS)
    assert summary["chosen"]["options"] == {"gamma": 0.1, "alpha": 5.0}
    assert summary["default"]["f1"] == 0.7
    assert summary["best"]["f1"] == 0.8
    found = {rule: (named["options"]["alpha"], named["epoch"]) for rule, named in summary["rules"].items()}
    assert found == {"validation_metric": (5.0, 1), "noise_rate": (0.5, 0)}, "each with its own epoch"
    assert summary["chosen"]["noise_rate"] == pytest.approx(-0.2)
    assert summary["chosen"]["f1_by_epoch_choice"]["oracle"] == pytest.approx(0.7)
    assert summary["failed"] == FAILED
    assert summary_of(TRIALS, default={"gamma": 0.3, "alpha": 0.5})["default"] is None


def test_without_truth_there_is_no_oracle() -> None:
    trials = [trial(0.1, 0.5, 0.2, 0.1, None)]
    summary = summary_of(trials)
    assert summary["best"] is None
    table = trials_table(trials, [], summary)
    assert table["f1"].to_pylist() == [None]
    assert "oracle" not in shown(summary, table.to_pylist())


def test_the_table_has_a_row_per_trial_best_first_and_failed_ones_last() -> None:
    table = trials_table(TRIALS, FAILED, summary_of(TRIALS))
    assert table["validation_metric"].to_pylist() == [0.3, 0.2, 0.1, None]
    assert table["status"].to_pylist() == ["finished"] * 3 + ["failed"]
    assert table["message"].to_pylist()[-1] == "disk\x1b full"
    assert table["is_chosen"].to_pylist() == [True, False, False, False]
    assert table["is_default"].to_pylist() == [False, True, False, False]
    assert table["f1_by_oracle"].to_pylist()[:3] == pytest.approx([0.7, 0.8, 0.9])


@pytest.mark.parametrize("f1", [None, 0.7])
def test_a_rule_s_score_is_not_taken_for_the_true_noise_rate(f1: float | None) -> None:
    trials = [trial(0.1, 0.5, 0.2, 0.1, f1)]
    table = trials_table(trials, [], summary_of(trials, select="noise_rate"))
    assert table["noise_rate"].to_pylist() == [pytest.approx(-0.1)], "|0.2 flagged - 0.1 estimated|"
    assert table["true_noise_rate"].to_pylist() == [None if f1 is None else 0.4]
    assert heat_map(table.to_pylist(), "noise_rate")


def shown(summary: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    console = Console(file=io.StringIO(), width=100)
    print_sweep(summary, rows, "runs/x", console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_terminal_names_the_choice_and_the_failures() -> None:
    text = shown(summary_of(TRIALS), trials_table(TRIALS, FAILED, summary_of(TRIALS)).to_pylist())
    assert "Chosen: gamma=0.1 alpha=5.0: 30.0% flagged, F1 60.0% by validation_metric" in text
    assert "Default: gamma=0.1 alpha=0.5" in text
    assert "Best (oracle): gamma=0.2 alpha=0.5: 40.0% flagged, F1 80.0%" in text
    assert "Failed: gamma=0.2 alpha=5.0: disk? full" in text


def test_the_heat_map_is_a_picture_with_a_panel_for_f1_where_it_is_known() -> None:
    rows = trials_table(TRIALS, FAILED, summary_of(TRIALS)).to_pylist()
    with_truth = Image.open(io.BytesIO(heat_map(rows, "validation_metric")))
    blind = [row | {"f1": None} for row in rows]
    without = Image.open(io.BytesIO(heat_map(blind, "validation_metric")))
    assert with_truth.format == "PNG"
    assert with_truth.width == 2 * without.width
