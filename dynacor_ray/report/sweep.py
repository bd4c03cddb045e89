"""A sweep's trials on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from dynacor_ray.method.selection import RUN_RULES
from dynacor_ray.report.terminal import clean, seconds_text

SHOWN = 24


def print_sweep(
    summary: dict[str, Any], rows: Sequence[dict[str, Any]], run: str, console: Console | None = None
) -> None:
    """Print the trials, the choice, and how good it was where the truth is known. `rows`: of `trials.parquet`."""
    console = console or Console()
    console.print()
    console.print(_trials(summary, rows))
    if len(rows) > SHOWN:
        console.print(f"... and {len(rows) - SHOWN} more in trials.parquet")
    console.print(_sentence("Chosen", summary["chosen"]) + f" by {summary['select']}", soft_wrap=True, highlight=False)
    if summary["best"] is not None:
        if summary["default"] is not None:
            title = "Default gamma and alpha, cut by Eq. 4 as all trials"
            console.print(_sentence(title, summary["default"]), soft_wrap=True, highlight=False)
        console.print(_sentence("Best (oracle)", summary["best"]), soft_wrap=True, highlight=False)
    for failure in summary["failed"]:
        text = f"Failed: {_options(failure['options'])}: {failure['message']}"
        console.print(clean(text), style="yellow", soft_wrap=True)
    console.print(f"Trainings: {summary['num_trainings']}. {seconds_text(summary['seconds'])}", highlight=False)
    console.print(clean(f"Results: {run} (trials.parquet, heatmap.png, summary.json, best/)"), soft_wrap=True)
    console.print(clean(f"Report of the chosen run: {run}/best/report.html"), soft_wrap=True)


def _trials(summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Trials, best first", title_justify="left")
    names = list(summary["chosen"]["options"])
    with_truth = summary["best"] is not None
    shown = {
        "validation_metric": "Eq. 9",
        "corrupted_recall": "planted found",
        "flagged_share": "flagged",
        **({"estimated_noise_rate": "estimate"} if summary["select"] == "noise_rate" else {}),
        **({"f1": "F1"} if with_truth else {}),
    }
    for name in [*names, *shown.values(), ""]:
        table.add_column(name, justify="right")
    for row in list(rows)[:SHOWN]:
        cells = [_cell(name, row[name]) for name in shown]
        mark = "chosen" if row["is_chosen"] else "default" if row["is_default"] else ""
        mark = "failed" if row["status"] == "failed" else mark
        table.add_row(*(clean(f"{row[name]}") for name in names), *cells, mark)
    return table


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if name in RUN_RULES else f"{value:.1%}"


def _sentence(title: str, trial: dict[str, Any]) -> str:
    f1 = "" if trial["f1"] is None else f", F1 {trial['f1']:.1%}"
    return f"{title}: {_options(trial['options'])}: {trial['flagged_share']:.1%} flagged{f1}"


def _options(options: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items())
