"""Figures as PNG bytes, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

TITLES = {
    "validation_metric": "validation metric (Eq. 9)",
    "noise_rate": "agreement with the noise rate",
    "f1": "F1 against the truth",
}


def heat_map(rows: Sequence[dict[str, Any]], select: str) -> bytes:
    """The selection's score over alpha and gamma, beside it F1 where the truth is known; the chosen cell is framed.

    rows: of `trials.parquet`; trials that differ in other options are averaged.
    """
    finished = [row for row in rows if row["status"] == "finished"]
    known = any(row["f1"] is not None for row in finished)
    values = [select, *(["f1"] if known else [])]
    gammas, alphas = (sorted({row[name] for row in finished}) for name in ("gamma", "alpha"))
    width, height = 1.6 + 0.9 * len(gammas), 1.4 + 0.42 * len(alphas)
    figure = Figure(figsize=(max(4.0, width) * len(values), max(2.6, height)), layout="constrained")
    for place, value in enumerate(values):
        axes = figure.add_subplot(1, len(values), place + 1)
        grid = _grid(finished, gammas, alphas, value)
        _draw(axes, grid, gammas, alphas, TITLES[value])
        for row in finished:
            if row["is_chosen"]:
                corner = (gammas.index(row["gamma"]) - 0.5, alphas.index(row["alpha"]) - 0.5)
                axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="red", linewidth=2.5))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()


def _grid(rows: list[dict[str, Any]], gammas: list[float], alphas: list[float], value: str) -> NDArray[np.float64]:
    """Mean of a column per (alpha, gamma); NaN where no trial has it."""
    grid = np.full((len(alphas), len(gammas)), np.nan)
    for i, alpha in enumerate(alphas):
        for j, gamma in enumerate(gammas):
            found = [r[value] for r in rows if r["alpha"] == alpha and r["gamma"] == gamma and r[value] is not None]
            if found:
                grid[i, j] = sum(found) / len(found)
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
            dark = value < (low + high) / 2
            colour = "white" if dark else "black"
            axes.text(j, i, f"{value:.3f}", ha="center", va="center", color=colour, fontsize=8)
