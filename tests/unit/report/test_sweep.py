"""A sweep's terminal report, and its heat map."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image
from rich.console import Console

from dynacor_ray.report.figures import heat_map
from dynacor_ray.report.sweep import print_sweep
from dynacor_ray.runs.sweep_records import trials_table
from tests.judgments import FAILED, TRIALS, sweep_summary_of, trial


def shown(summary: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    console = Console(file=io.StringIO(), width=100)
    print_sweep(summary, rows, "runs/x", console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_without_truth_nothing_is_said_of_an_oracle() -> None:
    trials = [trial(0.1, 0.5, 0.2, 0.1, None)]
    summary = sweep_summary_of(trials)
    assert "oracle" not in shown(summary, trials_table(trials, [], summary).to_pylist())


def test_the_terminal_names_the_choice_and_the_failures() -> None:
    text = shown(sweep_summary_of(TRIALS), trials_table(TRIALS, FAILED, sweep_summary_of(TRIALS)).to_pylist())
    assert "Chosen: gamma=0.1 alpha=5.0: 30.0% flagged, F1 60.0% by validation_metric" in text
    assert "Default gamma and alpha, cut by Eq. 4 as all trials: gamma=0.1 alpha=0.5" in text
    assert "Best (oracle): gamma=0.2 alpha=0.5: 40.0% flagged, F1 80.0%" in text
    assert "Failed: gamma=0.2 alpha=5.0: disk? full" in text


def test_the_heat_map_is_a_picture_with_a_panel_for_f1_where_it_is_known() -> None:
    rows = trials_table(TRIALS, FAILED, sweep_summary_of(TRIALS)).to_pylist()
    with_truth = Image.open(io.BytesIO(heat_map(rows, "validation_metric")))
    blind = [row | {"f1": None} for row in rows]
    without = Image.open(io.BytesIO(heat_map(blind, "validation_metric")))
    assert with_truth.format == "PNG"
    assert with_truth.width == 2 * without.width
