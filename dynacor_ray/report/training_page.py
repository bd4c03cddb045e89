"""`report.html` of a classifier's training: accuracy per epoch, what was learned from, options. No script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dynacor_ray.report import wording
from dynacor_ray.report.page import render_template, stages
from dynacor_ray.report.terminal import shown
from dynacor_ray.report.training_summary import detection_text, learned_text, method_text

_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 392.0, 10.0, 196.0
"""Where the drawing of a chart of 400 x 220 lies."""
_MOST_TICKS = 6


def training_page(summary: dict[str, Any]) -> str:
    """The page as HTML; text from data is escaped. summary: content of `summary.json`."""
    epochs = summary["epochs"]
    accuracy = [row["test_accuracy"] for row in epochs if row["test_accuracy"] is not None]
    lines = {"training labels": [row["train_agreement"] for row in epochs]}
    lines |= {"test rows": accuracy} if accuracy else {}
    return render_template(
        "training.html",
        None,
        {
            "title": headline(summary),
            "source": shown(summary["data"]["uri"]),
            "summary": summary,
            "learned": learned_text(summary),
            "percent": wording.percent,
            "chart": chart(lines),
            "trained_by": method_text(summary),
            "detection": detection_text(summary) if summary["detection"] is not None else None,
            "facts": _facts(summary),
            "stages": stages(summary["seconds"], None),
            "with_costs": False,
            "config": [(name, shown(wording.option(value))) for name, value in summary["config"].items()],
            "versions": summary["versions"].items(),
        },
    )


def headline(summary: dict[str, Any]) -> str:
    """The sentence at the top."""
    accuracy = summary["last"]["test_accuracy"]
    if accuracy is None:
        return f"A classifier of {len(summary['data']['class_names']):,} classes, not tested"
    return f"{wording.percent(accuracy)} of the test rows are classified right"


def _in_words(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:g}"


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    data, loss = summary["data"], summary["loss"]
    settings = {name: value for name, value in loss.items() if name.startswith(f"{loss['name']}_")}
    if summary["method"] is not None:
        settings = {name: value for name, value in summary["method"].items() if name not in ("name", "by_dynamics")}
    told = [f"{name.replace('_', ' ')} {_in_words(value)}" for name, value in settings.items() if value is not None]
    facts = {
        "trained by": ", ".join([method_text(summary), *told]),
        "encoder": summary["encoder"],
        "classes": f"{len(data['class_names']):,}",
        "rows": f"{data['num_rows']:,}",
        "learned from": learned_text(summary),
        "quarantined": f"{data['quarantined']:,}",
    }
    return [(name, shown(text)) for name, text in facts.items()]


def chart(lines: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Lines over the epochs as what an SVG of 400 x 220 shows.

    Args:
        lines: Name -> share in [0, 1] per epoch, all of the same length.
    """
    values = [value for line in lines.values() for value in line]
    low, high = min(values), max(values)
    low, high = max(0.0, low - 0.1 * (high - low) - 0.01), min(1.0, high + 0.1 * (high - low) + 0.01)
    count = max(len(line) for line in lines.values())

    def x(epoch: int) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (epoch / (count - 1) if count > 1 else 0.5)

    def y(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (value - low) / (high - low)

    step = max(1, -(-count // _MOST_TICKS))
    return {
        "lines": [
            {
                "name": name,
                "path": "M" + " L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in enumerate(line)),
                "end": (f"{x(len(line) - 1):.1f}", f"{y(line[-1]):.1f}"),
            }
            for name, line in lines.items()
        ],
        "rows": [(f"{y(low + part * (high - low)):.1f}", f"{low + part * (high - low):.0%}") for part in (0, 0.5, 1)],
        "columns": [(f"{x(at):.1f}", at + 1) for at in range(0, count, step)],
    }
