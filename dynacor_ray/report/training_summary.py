"""What is said of a classifier's training: its `summary.json`, and the lines at its end."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Column, Table

from dynacor_ray.core.manifest import DatasetManifest
from dynacor_ray.report.terminal import clean, seconds_text

_FIGURES = ("epoch", "loss", "train_agreement", "test_accuracy")
_METHODS = {"dividemix": "DivideMix", "ddyna_l": "DDyna-L", "ddyna_s": "DDyna-S"}


def shown_epochs(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of each epoch that users are told: `epoch`, counted from 1, and others by name, or None.

    history: figures per epoch, in order.
    """
    always: list[dict[str, Any]] = [{name: row.get(name) for name in _FIGURES} for row in history]
    some = ({name: row[name] for name in ("labeled_share",) if name in row} for row in history)
    return [known | more for known, more in zip(always, some, strict=True)]


def build_training_summary(
    config: dict[str, Any],
    manifest: DatasetManifest,
    history: list[dict[str, Any]],
    *,
    versions: dict[str, str],
    encoder: str,
    loss: dict[str, Any],
    method: dict[str, Any] | None,
    detection: dict[str, Any] | None,
    action: str | None,
    flagged: int,
    learned: int,
    tested: int | None,
    by_truth: bool,
    cluster: dict[str, float],
) -> dict[str, Any]:
    """The content of `summary.json`, without the seconds.

    Args:
        config: All options.
        manifest: Of the training data.
        history: Figures per epoch, as `robust_module` counts them.
        versions: Of the packages.
        encoder: Slug of encoder or network.
        loss: Fields of `RobustLoss`.
        method: Fields of `DivideMix`, and its name; None for a loss.
        detection: What `division` says of `issues.parquet`; None for a loss.
        action: What was done with flagged rows: "drop", "relabel", "weigh"; None without a run.
        flagged: Rows that the run of --without flagged.
        learned: Rows that were learned from.
        tested: Rows of the test data with a label to judge by; None without any.
        by_truth: Whether that label is the true one.
        cluster: What the cluster had.
    """
    epochs = shown_epochs(history)
    at = best_epoch(history)
    best = epochs[at] if at is not None else None
    names = ("source", "uri", "kind", "num_rows", "quarantined", "feature_dim", "content_hash")
    return {
        "versions": versions,
        "config": config,
        "encoder": encoder,
        "loss": loss,
        "method": method,
        "detection": detection,
        "data": {name: getattr(manifest, name) for name in names} | {"class_names": list(manifest.class_names)},
        "action": action,
        "num_flagged": flagged,
        "num_learned": learned,
        "num_tested": tested,
        "judged_by": None if tested is None else "true labels" if by_truth else "given labels",
        "epochs": epochs,
        "best": {name: best[name] for name in ("epoch", "test_accuracy")} if best is not None else None,
        "last": {name: epochs[-1][name] for name in ("epoch", "test_accuracy")},
        "cluster": cluster,
    }


def best_epoch(history: list[dict[str, Any]]) -> int | None:
    """The first epoch, from 0, with the best test accuracy; None without test rows."""
    accuracy: list[float] = [row["test_accuracy"] for row in history if "test_accuracy" in row]
    return accuracy.index(max(accuracy)) if accuracy else None


def method_text(summary: dict[str, Any]) -> str:
    """The method by name, or the loss."""
    method = summary["method"]
    return f"the loss {summary['loss']['name'].upper()}" if method is None else _METHODS[method["name"]]


def learned_text(summary: dict[str, Any]) -> str:
    """What was learned from, in words."""
    rows, flagged = f"{summary['num_learned']:,} rows", f"{summary['num_flagged']:,}"
    return {
        None: f"{rows}, with their given labels",
        "drop": f"{rows}; {flagged} flagged rows left out",
        "relabel": f"{rows}; {flagged} flagged rows with their suggested label",
        "weigh": f"{rows}, each weighed by the probability that its label is right",
    }[summary["action"]]


def detection_text(summary: dict[str, Any]) -> str:
    """What the method takes for wrong, and how that was chosen, in words."""
    found = summary["detection"]
    by = "by its dynamics (Eq. 9)"
    if found["by"] == "division":
        chosen = ", chosen by the test rows" if found["epoch_by"] == "test accuracy" else ""
        by = f"as divided in epoch {found['epoch']}{chosen}"
    score = (found["evaluation"] or {}).get("f1")
    return f"{found['num_flagged']:,} rows, {by}" + (f"; F1 {score:.1%}" if score is not None else "")


def print_training(summary: dict[str, Any], run: str, console: Console | None = None) -> None:
    """Print the result of a training.

    Args:
        summary: Content of `summary.json`.
        run: The run directory, for the last lines.
        console: Where to print, None for stdout.
    """
    console = console or Console()
    table = Table("", Column(justify="right"), title="Classifier", show_header=False, title_justify="left")
    table.add_row("trained by", method_text(summary))
    table.add_row("learned from", learned_text(summary))
    if summary["best"] is not None:
        last, best = summary["last"], summary["best"]
        table.add_row("test rows", f"{summary['num_tested']:,}, by their {summary['judged_by']}")
        table.add_row("test accuracy, last epoch", f"{last['test_accuracy']:.1%}")
        table.add_row("test accuracy, best epoch", f"{best['test_accuracy']:.1%} (epoch {best['epoch']})")
    if summary["detection"] is not None:
        table.add_row("taken for wrong", detection_text(summary))
    console.print()
    console.print(table)
    console.print(seconds_text(summary["seconds"]), highlight=False)
    files = "model/, summary.json" + (", predictions.parquet" if summary["best"] is not None else "")
    files += ", issues.parquet" if summary["detection"] is not None else ""
    console.print(clean(f"Results: {run} ({files})"), soft_wrap=True)
    console.print(clean(f"Report: {run}/report.html"), soft_wrap=True)
