"""The short table at the end of a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from dynacor_ray.core.redaction import redact
from dynacor_ray.runs.records import ASK_FOR_REVIEW, RunSummary

WORST_CLASSES = 5
NAME_CELLS = 16
"""Maximum width of a column of class names on a narrow terminal."""
LEAST_URI_CELLS = 12
QUALITY_CELLS = len("quality")


def print_summary(summary: RunSummary, worst: list[dict[str, Any]], run: str, console: Console | None = None) -> None:
    """Print the result of a run and its duration.

    Args:
        summary: content of `summary.json`.
        worst: first rows of `issues.parquet`.
        run: the run directory, for the last lines.
        console: where to print, None for stdout.
    """
    console = console or Console()
    console.print()
    console.print(_headline(summary))
    console.print(_classes(summary))
    console.print(_suspects(summary, worst, console.width))
    console.print(seconds_text(summary.seconds), highlight=False)
    if summary.embedding:
        console.print(f"Embedding: {format_embedding(summary.embedding)}", highlight=False)
    for note in summary.notes:
        console.print(clean(f"Note: {note}"), style="dim", soft_wrap=True)
    for warning in summary.warnings:
        told = warning.replace(ASK_FOR_REVIEW, f"dynacor review {shlex.quote(run)}")  # a line to copy
        console.print(clean(f"Warning: {told}"), style="yellow", soft_wrap=True)
    console.print(clean(f"Results: {run} (issues.parquet, summary.json, dynamics.parquet)"), soft_wrap=True)
    console.print(clean(f"Report: {run}/report.html"), soft_wrap=True)


def _headline(summary: RunSummary) -> Table:
    table = Table("", Column(justify="right"), title="Wrong labels", show_header=False, title_justify="left")
    table.add_row("rows", f"{summary.num_rows:,}")
    if summary.data.quarantined:
        table.add_row("quarantined as unusable", f"{summary.data.quarantined:,}")
    table.add_row("classes", f"{summary.num_classes:,}")
    table.add_row("labels that look wrong", f"{summary.num_flagged:,} ({summary.flagged_share:.1%})")
    if summary.noise_rate_range is not None:
        low, high = summary.noise_rate_range
        table.add_row("estimated noise rate", f"{summary.estimated_noise_rate:.1%} ({low:.1%} - {high:.1%})")
    table.add_row("planted errors found", f"{summary.corrupted_recall:.1%} of {summary.num_corrupted:,}")
    found = (summary.label_noise or {}).get("found_recall")
    if found is not None:
        table.add_row("weighted by class pair", f"{found:.1%}")
    scores = summary.evaluation
    if scores and scores["noise_rate"] is not None:  # else no row has a true label
        table.add_row("true noise rate", f"{scores['noise_rate']:.1%}")
        for name in ("f1", "precision", "recall", "auroc"):
            table.add_row(f"{name} against the truth", score_text(scores, name))
    return table


def score_text(scores: Mapping[str, float | None], name: str) -> str:
    """A score against the truth as text, or why there is none. scores: as of `ground_truth.metrics`.

    >>> score_text({"noise_rate": 0.0, "f1": None}, "f1")
    'none (no label is wrong)'
    """
    value, wrong = scores[name], scores["noise_rate"]
    if value is not None:
        return f"{value:.1%}"
    if name == "precision":
        return "none (nothing is flagged)"
    return f"none ({'no label is' if not wrong else 'all labels are'} wrong)"


def _classes(summary: RunSummary) -> Table:
    table = Table(title="Most affected classes", title_justify="left")
    table.add_column("class", max_width=40)
    for name in ("rows", "flagged", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = sorted(summary.classes, key=lambda row: (-row["flagged_share"], row["class"]))
    for row in rows[:WORST_CLASSES]:
        table.add_row(_cell(row["class"]), f"{row['rows']:,}", f"{row['flagged']:,}", f"{row['flagged_share']:.1%}")
    return table


def _suspects(summary: RunSummary, worst: list[dict[str, Any]], width: int) -> Table:
    """Ids and qualities are shown whole; names and uris share the remaining width."""
    names = [_cell(name) for name in summary.class_names]
    shown = [(names[row["given_label"]], names[row["predicted_label"]]) for row in worst]
    id_cells = max(len(text) for text in ("instance_id", *(str(row["instance_id"]) for row in worst)))
    room = width - id_cells - QUALITY_CELLS - 5 * len("│  ") - len("│")
    most = max(min(NAME_CELLS, (room - LEAST_URI_CELLS) // 2), len("predicted"))
    given, predicted = (
        max([len(title), *(min(pair[side].cell_len, most) for pair in shown)])
        for side, title in enumerate(("given", "predicted"))
    )
    room -= given + predicted
    table = Table(title="Most suspicious rows", title_justify="left")
    table.add_column("instance_id", justify="right", no_wrap=True)
    with_uri = room >= LEAST_URI_CELLS and any(row["uri"] for row in worst)
    if with_uri:
        table.add_column("uri", no_wrap=True)
    table.add_column("given", max_width=given)
    table.add_column("predicted", max_width=predicted)
    table.add_column("quality", justify="right", no_wrap=True)
    for row, pair in zip(worst, shown, strict=True):
        uri = [_end(row["uri"] or "", room)] if with_uri else []
        table.add_row(str(row["instance_id"]), *uri, *pair, f"{row['label_quality']:.4f}")
    return table


def _end(uri: str, cells: int) -> Text:
    """The end of a path, which is more specific than its beginning, in at most `cells` cells of the terminal."""
    text = clean(uri).plain
    if cell_len(text) <= cells:
        return Text(text)
    text = text[-cells:]
    while cell_len(text) > cells - 1:
        text = text[1:]
    return Text(f"…{text}")


def seconds_text(seconds: dict[str, float]) -> str:
    """Seconds per stage and in all, as the last table of a run is followed by them."""
    parts = [f"{name} {value:.1f}" for name, value in seconds.items() if name != "total"]
    return f"Seconds: {', '.join(parts)}; total {seconds.get('total', sum(seconds.values())):.1f}"


def format_embedding(seconds: dict[str, float]) -> str:
    """What the time of embedding images went into; from `RunSummary.embedding`.

    >>> format_embedding({"decoding": 4.0, "encoding": 36.0})
    'decoding 4.0 s (10.0%), encoding 36.0 s, over all processors'
    """
    decoding, encoding = seconds["decoding"], seconds["encoding"]
    share = f"{decoding / max(decoding + encoding, 1e-9):.1%}"
    return f"decoding {decoding:,.1f} s ({share}), encoding {encoding:,.1f} s, over all processors"


def clean(text: str) -> Text:
    """Text from data, safe for the terminal: no secrets or control characters, and neither markup nor emoji codes."""
    return Text(shown(text))


def shown(text: str) -> str:
    """Text from data without secrets, control characters, and signs that change the reading direction."""
    text = redact(text)
    if text.isprintable():
        return text
    odd = "".join(sign for sign in set(text) if not sign.isprintable())
    return re.sub(f"[{re.escape(odd)}]", "?", text)


def _cell(text: str) -> Text:
    """`clean`, for one line of a table, cut where the column is too narrow."""
    return Text(clean(text).plain, no_wrap=True, overflow="ellipsis")
