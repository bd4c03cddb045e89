"""Tables of a comparison for the terminal and as Markdown."""

from __future__ import annotations

import itertools
import re
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dynacor_ray.report.comparison_summary import noise_headings
from dynacor_ray.report.terminal import clean

NOTHING = "-"
HEADING_CELLS = 14
NAME_CELLS, LEAST_NAME_CELLS = 28, 10
LAYOUTS = ((" ± ", 2), (" ± ", 1), ("±", 2), ("±", 1))
"""Text before the spread, and cells between columns. The first that fits is used."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~$&])")
_Column = tuple[str, list[tuple[str, bool]]]
"""Heading, and per detector its text and whether it is the best."""


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f}"


def _f1(cell: dict[str, Any], planned: int, sign: str) -> str:
    """Mean F1 in percent with its spread, and the number of seeds in brackets where some have no value."""
    f1 = cell["f1"]
    if f1["mean"] is None:
        return "failed" if cell["failed"] else NOTHING
    spread = "" if f1["std"] is None else f"{sign}{_percent(f1['std'])}"
    return _percent(f1["mean"]) + spread + (f" ({f1['seeds']})" if f1["seeds"] < planned else "")


def _f1_columns(summary: dict[str, Any], sign: str = " ± ") -> list[_Column]:
    """Tables 1 and 2: a column per noise, and their average where there are several."""
    rows = summary["detectors"]
    columns: list[_Column] = []
    for noise, heading in zip(summary["noises"], noise_headings(summary["noises"]), strict=True):
        planned, best = len(summary["seeds"][noise]), summary["best"][noise]
        cells = [(_f1(row["noises"][noise], planned, sign), row["detector"] in best) for row in rows]
        columns.append((heading, cells))
    if len(columns) > 1:
        best = summary["best_average"]
        columns.append(("Avg.", [(_percent(row["average"]["f1"]), row["detector"] in best) for row in rows]))
    return columns


def _notes(summary: dict[str, Any]) -> list[str]:
    """Notes that prevent misreading the F1 table."""
    cells = [(noise, cell) for row in summary["detectors"] for noise, cell in row["noises"].items()]
    some = any(0 < cell["f1"]["seeds"] < len(summary["seeds"][noise]) for noise, cell in cells)
    none = len(summary["noises"]) > 1 and any(cell["f1"]["seeds"] == 0 for _, cell in cells)
    return [
        *(["(n): mean of n seeds only, the others failed or have no F1."] if some else []),
        *(["No average for a detector without an F1 in some column."] if none else []),
    ]


def _f1_title(summary: dict[str, Any]) -> str:
    counts = sorted({len(seeds) for seeds in summary["seeds"].values()})
    if not counts or counts == [1]:
        return "F1 of wrong labels in %"
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"F1 of wrong labels in %, mean ± standard deviation over {seeds} seeds"


def print_comparison(
    summary: dict[str, Any], run: str, console: Console | None = None, stem: str = "comparison", note: str = ""
) -> None:
    """Print F1 per detector and noise as the paper does, the other metrics on average, and the failures.

    Args:
        summary: content of `summary.json`.
        run: the run directory, for the last line.
        console: where to print, None for stdout.
        stem: common part of the names of the result files.
        note: a further note on the table.
    """
    console = console or Console()
    blocks = _f1_tables(summary, console.width)
    for place, table in enumerate(blocks):
        part = f" ({place + 1} of {len(blocks)})" if len(blocks) > 1 else ""
        console.print()
        console.print(f"{_f1_title(summary)}; * best{part}", style="italic", highlight=False)
        console.print(table)
    for sentence in [*_notes(summary), *([note] if note else [])]:
        console.print(sentence, highlight=False)
    console.print()
    noises, across = len(summary["noises"]), summary.get("across", "kinds of noise")
    mean = f", mean over {noises} {across}" if noises > 1 else ""
    console.print(f"Other measures in %{mean}", style="italic", highlight=False)
    for table in _split(summary, _average_columns(summary), 2, console.width):
        console.print(table)
    console.print("oracle F1: of the best possible cut, which cannot be found without the truth.", highlight=False)
    for sentence in _failures(summary["failures"]):
        console.print(clean(sentence), style="yellow", soft_wrap=True)
    console.print(clean(f"Results: {run} ({stem}.parquet, .png and .md, summary.json)"), soft_wrap=True)


def _f1_tables(summary: dict[str, Any], width: int) -> list[Table]:
    """One table if any layout fits into `width`, otherwise several of the most readable one."""
    for sign, gap in LAYOUTS:
        table = _table(summary, _f1_columns(summary, sign), gap, width)
        if _cells_of(table, gap) <= width:
            return [table]
    sign, gap = LAYOUTS[0]
    return _split(summary, _f1_columns(summary, sign), gap, width)


def _split(summary: dict[str, Any], columns: list[_Column], gap: int, width: int) -> list[Table]:
    """As few tables as fit into `width`, each of about equally many columns."""
    tables = []
    for count in range(1, len(columns) + 1):
        ends = [round(len(columns) * part / count) for part in range(count + 1)]
        tables = [_table(summary, columns[i:j], gap, width) for i, j in itertools.pairwise(ends)]
        if all(_cells_of(table, gap) <= width for table in tables):
            break
    return tables


def _table(summary: dict[str, Any], columns: list[_Column], gap: int, width: int) -> Table:
    """Detectors as rows. Columns have fixed widths; long names are wrapped."""
    titles = [clean(row["title"]) for row in summary["detectors"]]
    most = max(LEAST_NAME_CELLS, min(NAME_CELLS, width // 3))
    longest = max([len("detector"), *(title.cell_len for title in titles)])
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    table.add_column(summary.get("rows", "detector"), width=min(longest, most), overflow="fold")
    marked: list[list[Text]] = [[] for _ in titles]
    for heading, cells in columns:
        widest = max([min(cell_len(heading), HEADING_CELLS), *(len(text) + 1 for text, _ in cells)])
        table.add_column(Text(heading, justify="right"), width=widest, overflow="fold")
        for row, (text, best) in zip(marked, cells, strict=True):
            # right-aligned by hand: rich drops the blank in place of the mark, which keeps the digits aligned
            row.append(Text(f"{text}*".rjust(widest), "bold") if best else Text(f"{text} ".rjust(widest)))
    for title, row in zip(titles, marked, strict=True):
        table.add_row(title, *row)
    return table


def _cells_of(table: Table, gap: int) -> int:
    return sum(column.width or 0 for column in table.columns) + gap * (len(table.columns) - 1)


def _average_columns(summary: dict[str, Any]) -> list[_Column]:
    shown = {"AUROC": "auroc", "avg. precision": "average_precision", "oracle F1": "oracle_f1"}
    means = [row["average"] for row in summary["detectors"]]
    columns = [(heading, [(_percent(mean[name]), False) for mean in means]) for heading, name in shown.items()]
    seconds = [mean["seconds"] for mean in means]
    return [*columns, ("seconds", [(NOTHING if value is None else f"{value:,.1f}", False) for value in seconds])]


def _failures(failures: list[dict[str, Any]]) -> list[str]:
    """One sentence per detector and message, naming every noise and seed."""
    places: dict[tuple[str, str], dict[str, list[int]]] = {}
    for failure in failures:
        place = places.setdefault((failure["title"], failure["message"]), {})
        place.setdefault(failure["noise"], []).append(failure["seed"])
    return [
        f"Failed: {title} on {'; '.join(_place(noise, seeds) for noise, seeds in where.items())}: {message}"
        for (title, message), where in places.items()
    ]


def _place(noise: str, seeds: list[int]) -> str:
    return f"{noise} (seed{'s' if len(seeds) > 1 else ''} {', '.join(str(seed) for seed in seeds)})"


def markdown_table(summary: dict[str, Any]) -> str:
    """The F1 table for a README: heading, rule, a line per detector; the best of each column is bold."""
    columns = _f1_columns(summary)
    lines = [
        _line([summary.get("rows", "detector"), *(_escaped(heading) for heading, _ in columns)]),
        _line(["---"] + ["--:"] * len(columns)),
    ]
    for place, row in enumerate(summary["detectors"]):
        marked = [cells[place] for _, cells in columns]
        lines.append(_line([_escaped(row["title"]), *(f"**{text}**" if best else text for text, best in marked)]))
    notes = " ".join([f"{_f1_title(summary)}; **best** of each column.", *_notes(summary)])
    return "\n".join([*lines, "", notes, ""])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", clean(text).plain)
