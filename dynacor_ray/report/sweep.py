"""A sweep's trials as a table, as `summary.json`, and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from dynacor_ray.method.selection import RUN_RULES
from dynacor_ray.report.terminal import clean
from dynacor_ray.runs.records import Trial, choose_trial

SHOWN = 24
METRICS = ("f1", "precision", "recall", "auroc", "average_precision", "oracle_f1")


def build_sweep_summary(
    trials: Sequence[Trial],
    failed: Sequence[dict[str, Any]],
    *,
    select: str,
    default: dict[str, Any],
    trainings: int,
    config: dict[str, Any],
    versions: dict[str, str],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The content of a sweep's summary.json.

    With known truth: F1 of the trial that each rule chooses, of the default trial, and of the best (oracle).
    """
    chosen = choose_trial(trials, select)
    known = next((trial for trial in trials if trial.options == default), None)
    return {
        "versions": versions,
        "config": config,
        "select": select,
        "num_trials": len(trials),
        "num_trainings": trainings,
        "failed": list(failed),
        "chosen": _named(chosen, chosen.epoch),
        # As `detect` alone would do it: the epoch by Eq. 9.
        "default": _named(known, known.epoch_by("validation_metric")) if known else None,
        "best": _named(best := max(trials, key=lambda t: t.f1 or 0.0), best.epoch) if chosen.f1 is not None else None,
        "rules": {rule: _by_rule(trials, rule) for rule in chosen.rules},
        "seconds": seconds,
    }


def _by_rule(trials: Sequence[Trial], rule: str) -> dict[str, Any]:
    """Trial and epoch that a rule would choose among all epochs of all trials."""
    epochs = [(trial, trial.epoch_by(rule)) for trial in trials]
    trial, epoch = max(epochs, key=lambda pair: pair[0].at(pair[1])[rule])
    return _named(trial, epoch)


def _named(trial: Trial, epoch: int) -> dict[str, Any]:
    facts = {"options": trial.options, "training": trial.training, **trial.at(epoch)}
    return facts | {"f1_by_epoch_choice": trial.f1_by_epoch_choice()}


def trials_table(trials: Sequence[Trial], failed: Sequence[dict[str, Any]], summary: dict[str, Any]) -> pa.Table:
    """`trials.parquet`: one row per trial, finished or failed, best score first and failed ones last."""
    rule, names = summary["select"], list(summary["chosen"]["options"])
    ordered = sorted(trials, key=lambda trial: -trial.score(rule))
    rows = []
    for trial in ordered:
        is_default = summary["default"] is not None and trial.options == summary["default"]["options"]
        rows.append(
            trial.options
            | {"status": "finished", "message": None, "training": trial.training}
            | trial.at(trial.epoch)
            | {name: trial.evaluation.get(name) for name in METRICS}
            | {"true_noise_rate": trial.evaluation.get("noise_rate")}  # `noise_rate` is what that rule says
            | {f"f1_by_{rule}": value for rule, value in trial.f1_by_epoch_choice().items()}
            | {"is_chosen": trial.options == summary["chosen"]["options"], "is_default": is_default}
            | {"seconds": trial.seconds}
        )
    blank = dict.fromkeys(rows[0])
    for failure in failed:
        mine = {name: failure["options"].get(name) for name in names}
        lost = {"status": "failed", "message": failure["message"], "is_chosen": False, "is_default": False}
        rows.append(blank | mine | lost)
    columns = {name: _column([row[name] for row in rows]) for name in blank}
    return pa.table(columns)


def _column(values: list[Any]) -> pa.Array[Any]:
    known = [value for value in values if value is not None]
    # A column without any value has no type of its own; all such columns are metrics.
    return pa.array(values) if known else pa.array(values, pa.float64())


def print_sweep(
    summary: dict[str, Any], rows: Sequence[dict[str, Any]], run: str, console: Console | None = None
) -> None:
    """Print the trials, the choice, and how good it was where the truth is known. `rows`: of `trials_table`."""
    console = console or Console()
    console.print()
    console.print(_trials(summary, rows))
    if len(rows) > SHOWN:
        console.print(f"... and {len(rows) - SHOWN} more in trials.parquet")
    console.print(_sentence("Chosen", summary["chosen"]) + f" by {summary['select']}", soft_wrap=True, highlight=False)
    if summary["best"] is not None:
        if summary["default"] is not None:
            console.print(_sentence("Default", summary["default"]), soft_wrap=True, highlight=False)
        console.print(_sentence("Best (oracle)", summary["best"]), soft_wrap=True, highlight=False)
    for failure in summary["failed"]:
        text = f"Failed: {_options(failure['options'])}: {failure['message']}"
        console.print(clean(text), style="yellow", soft_wrap=True)
    parts = [f"{name} {value:.1f}" for name, value in summary["seconds"].items() if name != "total"]
    total = f"total {summary['seconds'].get('total', 0.0):.1f}"
    console.print(f"Trainings: {summary['num_trainings']}. Seconds: {', '.join(parts)}; {total}", highlight=False)
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
