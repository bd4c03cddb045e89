"""The short table that a run ends with."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_summary(
    summary: dict[str, Any], worst: list[dict[str, Any]], run: str, console: Console | None = None
) -> None:
    """Print what a run found, and how long it took. `worst`: first rows of issues.parquet."""
    console = console or Console()
    console.print()
    console.print(_headline(summary))
    console.print(_classes(summary))
    console.print(_suspects(summary, worst))
    console.print(_times(summary["seconds"]), highlight=False)
    for warning in summary["warnings"]:
        console.print(f"Warning: {warning}", style="yellow", markup=False, highlight=False)
    console.print(f"Results: {run} (issues.parquet, summary.json, dynamics.parquet)", markup=False, highlight=False)


def _headline(summary: dict[str, Any]) -> Table:
    table = Table(title="Wrong labels", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    table.add_row("rows", f"{summary['num_rows']:,}")
    if summary["data"]["quarantined"]:
        table.add_row("set aside as unusable", f"{summary['data']['quarantined']:,}")
    table.add_row("classes", f"{summary['num_classes']:,}")
    table.add_row("labels that look wrong", f"{summary['num_flagged']:,}")
    table.add_row("estimated noise rate", f"{summary['estimated_noise_rate']:.1%}")
    table.add_row("planted errors found", f"{summary['planted_recall']:.1%} of {summary['num_corrupted']:,}")
    scores = summary["evaluation"]
    if scores:
        table.add_row("true noise rate", _percent(scores["noise_rate"]))
        for name in ("f1", "precision", "recall", "auroc"):
            table.add_row(f"{name} against the truth", _percent(scores[name]))
    return table


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1%}"


def _classes(summary: dict[str, Any]) -> Table:
    table = Table(title="Most affected classes", title_justify="left")
    for name, justify in (("class", "left"), ("rows", "right"), ("flagged", "right"), ("share", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    rows = sorted(summary["classes"], key=lambda row: (-row["flagged_share"], row["class"]))
    for row in rows[:5]:
        table.add_row(clean(row["class"]), f"{row['rows']:,}", f"{row['flagged']:,}", f"{row['flagged_share']:.1%}")
    return table


def _suspects(summary: dict[str, Any], worst: list[dict[str, Any]]) -> Table:
    names = [row["class"] for row in summary["classes"]]
    table = Table(title="Most suspicious rows", title_justify="left")
    table.add_column("instance_id", justify="right")
    table.add_column("uri", overflow="ellipsis", no_wrap=True, max_width=40)
    for name in ("given", "predicted"):
        table.add_column(name)
    table.add_column("label quality", justify="right")
    for row in worst:
        given, predicted = names[row["given_label"]], names[row["predicted_label"]]
        quality = f"{row['label_quality']:.4f}"
        table.add_row(str(row["instance_id"]), clean(row["uri"] or ""), clean(given), clean(predicted), quality)
    return table


def _times(seconds: dict[str, float]) -> str:
    parts = [f"{name} {value:.1f}" for name, value in seconds.items() if name != "total"]
    return f"Seconds: {', '.join(parts)}; total {seconds.get('total', sum(seconds.values())):.1f}"


def clean(text: str) -> str:
    """Text from data, without control characters and without meaning for the terminal's markup."""
    return escape("".join(c if c.isprintable() else "?" for c in text))
