"""Figures as PNG bytes, drawn without a display. Matplotlib is imported when one is drawn: it takes a second."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.report.comparison_summary import build_comparison, noise_headings
from dynacor_ray.report.terminal import clean
from dynacor_ray.runs.records import Judgment

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

TITLES = {
    "validation_metric": "validation metric (Eq. 9)",
    "noise_rate": "agreement with the noise rate",
    "f1": "F1 against the truth",
}
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
"""Distinguishable with any color vision (Okabe and Ito); without their yellow, which is too pale on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
ROW_INCHES = 12.0
"""Maximum width of a row of noises in a comparison."""


def heat_map(rows: Sequence[dict[str, Any]], select: str) -> bytes:
    """The selection's score over alpha and gamma, beside it F1 where the truth is known; the chosen cell is framed.

    Args:
        rows: of `trials.parquet`. Trials that differ in other options are averaged.
        select: name of the selection rule.
    """
    from matplotlib.patches import Rectangle

    finished = [row for row in rows if row["status"] == "finished"]
    known = any(row["f1"] is not None for row in finished)
    values = [select, *(["f1"] if known else [])]
    gammas, alphas = (sorted({row[name] for row in finished}) for name in ("gamma", "alpha"))
    width, height = 1.6 + 0.9 * len(gammas), 1.4 + 0.42 * len(alphas)
    figure = new_figure(max(4.0, width) * len(values), max(2.6, height))
    for place, value in enumerate(values):
        axes = figure.add_subplot(1, len(values), place + 1)
        grid = _grid(finished, gammas, alphas, value)
        _draw(axes, grid, gammas, alphas, TITLES[value])
        for row in finished:
            if row["is_chosen"]:
                corner = (gammas.index(row["gamma"]) - 0.5, alphas.index(row["alpha"]) - 0.5)
                axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="red", linewidth=2.5))
    return png(figure)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def legend_mark(**style: Any) -> Line2D:
    """What stands for a line or a mark of this style in a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **style)


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()


def _grid(rows: list[dict[str, Any]], gammas: list[float], alphas: list[float], value: str) -> NDArray[np.float64]:
    """Mean of a column per (alpha, gamma); NaN where no trial has it."""
    grid = np.full((len(alphas), len(gammas)), np.nan)
    for i, alpha in enumerate(alphas):
        for j, gamma in enumerate(gammas):
            values = [r[value] for r in rows if r["alpha"] == alpha and r["gamma"] == gamma and r[value] is not None]
            if values:
                grid[i, j] = sum(values) / len(values)
    return grid


def _draw(axes: Axes, grid: NDArray[np.float64], gammas: list[float], alphas: list[float], title: str) -> None:
    axes.imshow(grid, aspect="auto", origin="lower", cmap="viridis")
    axes.set_xticks(range(len(gammas)), [f"{gamma:g}" for gamma in gammas])
    axes.set_yticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    axes.set_xlabel("gamma (corruption rate)")
    axes.set_ylabel("alpha (alignment weight)")
    axes.set_title(title)
    if grid.size > 400:  # too many cells for numbers to be read
        return
    low, high = np.nanmin(grid), np.nanmax(grid)
    for (i, j), value in np.ndenumerate(grid):
        if not np.isnan(value):
            color = "white" if value < (low + high) / 2 else "black"
            axes.text(j, i, f"{value:.3f}", ha="center", va="center", color=color, fontsize=8)


def comparison_figure(judgments: Sequence[Judgment]) -> bytes:
    """F1 of every detector per noise: mean and standard deviation over seeds, with a tick at the oracle cut.

    A detector without F1 for some noise is absent there, and the legend gives the number. Many noises take several
    rows.
    """
    summary = build_comparison(judgments)
    detectors = summary["detectors"]
    headings = [textwrap.fill(heading, 16) for heading in noise_headings(summary["noises"])]
    longest = max((len(line) for heading in headings for line in heading.splitlines()), default=0)
    group = max(0.9, 0.17 * len(detectors), 0.1 * longest)
    rows = max(1, math.ceil(len(headings) * group / ROW_INCHES))
    columns = max(1, math.ceil(len(headings) / rows))
    height = max(4.4 if rows == 1 else 2.8 * rows, 1.3 + 0.27 * len(detectors))
    figure = new_figure(3.2 + max(group * columns, 4.0), height)
    panels = figure.subplots(rows, 1, sharey=True, squeeze=False)[:, 0]
    for place, axes in enumerate(panels):
        shown = range(columns * place, min(columns * (place + 1), len(headings)))
        handles = [_dots(axes, row, i, len(detectors)) for i, row in enumerate(detectors)]
        _scale(axes, shown, [headings[i] for i in shown], columns)
    panels[-1].set_xlabel("noise")
    figure.supylabel("F1 of wrong labels (%)", fontsize="medium")
    seeds = max((len(seeds) for seeds in summary["seeds"].values()), default=0)
    spread = ": mean ± standard deviation" if seeds > 1 else ""
    panels[0].set_title(f"Detectors compared{spread}", fontsize="medium")
    _legend(figure, handles, [_entry(row) for row in detectors])
    return png(figure)


def _scale(axes: Axes, shown: range, headings: list[str], columns: int) -> None:
    """One row of noises; a last row with fewer keeps their width."""
    axes.set_xlim(shown.start - 0.5, shown.start + columns - 0.5)
    axes.set_xticks(shown, headings)
    for label in axes.get_xticklabels():
        label.set_parse_math(False)
    for border in shown[1:]:
        axes.axvline(border - 0.5, color="0.75", linewidth=0.8)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)


def _dots(axes: Axes, row: dict[str, Any], place: int, count: int) -> Artist:
    """One detector, beside the others within each noise."""
    color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
    cells = row["noises"].values()
    means, spreads, oracle = (
        np.array([np.nan if value is None else 100 * value for value in values])
        for values in (
            [cell["f1"]["mean"] for cell in cells],
            [cell["f1"]["std"] or 0.0 for cell in cells],
            [cell["oracle_f1"]["mean"] for cell in cells],
        )
    )
    at = np.arange(len(means)) + 0.84 * ((place + 0.5) / count - 0.5)
    axes.vlines(at, means, oracle, color=color, linewidth=0.7, linestyle=":")
    axes.plot(at, oracle, linestyle="none", marker="_", color=color, markersize=8, markeredgewidth=1.4)
    axes.errorbar(at, means, spreads, fmt="none", ecolor=color, elinewidth=1.6)
    return axes.plot(at, means, linestyle="none", marker=marker, color=color, markersize=5)[0]


def _entry(row: dict[str, Any]) -> str:
    missing = sum(cell["f1"]["mean"] is None for cell in row["noises"].values())
    return textwrap.fill(clean(row["title"]).plain + (f" ({missing} missing)" if missing else ""), 32)


def _legend(figure: Figure, handles: list[Artist], titles: list[str]) -> None:
    """Right of the axes. Titles are set afterwards, so that none is taken for a formula or a hidden label."""
    tick = legend_mark(linestyle="none", marker="_", color="0.3", markersize=8, markeredgewidth=1.4)
    legend = figure.legend([*handles, tick], ["x"] * (len(handles) + 1), loc="outside right upper", fontsize=9)
    for text, title in zip(legend.get_texts(), [*titles, "oracle (best possible cut)"], strict=True):
        text.set_parse_math(False)
        text.set_text(title)
