"""Signals and corruption rates as a table and a figure (Figs. 2, 5 and 6), with the words of a comparison.

What the rows of a comparison are to detectors, they are here to readers of a signal: supervised ones (App. B), which
bound what the signal is worth, and the detectors that see no truth, which stand below them.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dynacor_ray.method.signals import SIGNALS
from dynacor_ray.report.comparison_summary import build_comparison, comparison_table, noise_headings
from dynacor_ray.report.figures import COLORS, MARKERS, legend_mark, new_figure, png
from dynacor_ray.runs.records import Finding, Judgment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

UNSUPERVISED = {"eq_4": "no truth: Eq. 4", "dynacor": "no truth: default"}
"""Detectors that stand beside the bound, by name, and what they are called here."""
SUPERVISED = {"dynamics": "dynamics", "mean": "mean"}
"""Readers that know the truth, and what they are called after the signal."""
NOTE = (
    "dynamics, mean: learned from true labels, on the signal of every epoch (1-D CNN) and on its mean (MLP), each row "
    "judged by a model that had not seen it: what the signal is worth, not a detector (App. B)."
)
PANEL_INCHES = 4.0


def series_of(signal: str | None, reader: str) -> tuple[str, str]:
    """Name and title of a row of the table."""
    if signal is None:
        return reader, UNSUPERVISED[reader]
    return f"{signal}-{reader}", f"{SIGNALS[signal].title}, {SUPERVISED[reader]}"


def findings_table(findings: Sequence[Finding]) -> pa.Table:
    """`signal_analysis.parquet`: one row per finding, the columns of `comparison.parquet` and gamma, signal, reader."""
    table = comparison_table([finding.judgment for finding in findings])
    more = {
        "gamma": pa.array([finding.gamma for finding in findings], pa.float64()),
        "signal": pa.array([finding.signal for finding in findings], pa.string()),
        "reader": pa.array([finding.reader for finding in findings], pa.string()),
    }
    for name, values in more.items():
        table = table.append_column(name, values)
    return table


def build_signal_summary(findings: Sequence[Finding], **facts: Any) -> dict[str, Any]:
    """The content of the summary.json: that of a comparison, whose columns are noises, by gamma where several.

    facts: as of `build_comparison`.
    """
    several = len({finding.gamma for finding in findings}) > 1
    columns = [_column(finding) if several else finding.judgment for finding in findings]
    across = "labels and corruption rates (@)" if several else "kinds of noise"
    return build_comparison(columns, **facts) | {"across": across, "rows": "reader"}


def _column(finding: Finding) -> Judgment:
    return dataclasses.replace(finding.judgment, noise=f"{finding.judgment.noise} @ {finding.gamma:g}")


def signals_figure(findings: Sequence[Finding]) -> bytes:
    """F1 of every reader, mean and standard deviation over seeds, a panel per kind of noise.

    Over the corruption rate (Fig. 2) where there are several, else over the signals (Figs. 5 and 6), the detectors as
    lines across.
    """
    noises = list(dict.fromkeys(finding.judgment.noise for finding in findings))
    gammas = sorted({finding.gamma for finding in findings})
    figure = new_figure(PANEL_INCHES * max(len(noises), 1.2) + 2.2, 4.4)
    panels = figure.subplots(1, len(noises), sharey=True, squeeze=False)[0]
    handles: dict[str, Line2D] = {}
    for axes, noise, heading in zip(panels, noises, noise_headings(noises), strict=True):
        mine = [finding for finding in findings if finding.judgment.noise == noise]
        handles |= _over_gammas(axes, mine, gammas) if len(gammas) > 1 else _over_signals(axes, mine)
        axes.set_title(heading, fontsize="medium", parse_math=False)
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
    panels[0].set_ylabel("F1 of wrong labels (%)")
    figure.legend(list(handles.values()), list(handles), loc="outside right upper", fontsize=9)
    return png(figure)


def _over_gammas(axes: Axes, findings: Sequence[Finding], gammas: list[float]) -> dict[str, Line2D]:
    """A line per reader; those that know the truth are solid."""
    handles = {}
    for place, series in enumerate(dict.fromkeys(finding.series for finding in findings)):
        mine = [finding for finding in findings if finding.series == series]
        mean, spread = _spread([[f for f in mine if f.gamma == gamma] for gamma in gammas])
        style: dict[str, Any] = {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place % len(MARKERS)]}
        style |= {"linestyle": "-" if mine[0].signal else "--", "markersize": 5}
        axes.errorbar(gammas, mean, spread, **style)
        handles[mine[0].judgment.title] = legend_mark(**style)
    axes.set_xlabel("corruption rate gamma")
    return handles


def _over_signals(axes: Axes, findings: Sequence[Finding]) -> dict[str, Line2D]:
    """A mark per signal and supervised reader, and a line across for each detector."""
    handles = {}
    signals = list(dict.fromkeys(finding.signal for finding in findings if finding.signal is not None))
    for place, reader in enumerate(SUPERVISED):
        groups = [[f for f in findings if (f.signal, f.reader) == (signal, reader)] for signal in signals]
        mean, spread = _spread(groups)
        style: dict[str, Any] = {"color": COLORS[place], "marker": MARKERS[place], "linestyle": "none"}
        axes.errorbar(np.arange(len(signals)) + 0.2 * (place - 0.5), mean, spread, **style)
        handles[f"supervised, {SUPERVISED[reader]}"] = legend_mark(**style)
    for place, (reader, title) in enumerate(UNSUPERVISED.items()):
        mean, _ = _spread([[f for f in findings if f.reader == reader]])
        style = {"color": COLORS[len(SUPERVISED) + place], "linestyle": "--", "linewidth": 1.2}
        axes.axhline(mean[0], **style)
        handles[title] = legend_mark(**style)
    titles = [SIGNALS[signal].title for signal in signals]
    axes.set_xticks(range(len(signals)), titles, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, max(len(signals), 1) - 0.5)
    return handles


def _spread(groups: Sequence[Sequence[Finding]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each group's F1 in percent; NaN without one, 0 deviation with one."""
    means, deviations = [], []
    for group in groups:
        values = [100 * f1 for finding in group if (f1 := finding.judgment.value("f1")) is not None]
        means.append(statistics.fmean(values) if values else float("nan"))
        deviations.append(statistics.stdev(values) if len(values) > 1 else 0.0)
    return means, deviations
