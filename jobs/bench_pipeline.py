"""Whole runs of `detect` on synthetic features: seconds by stage and peak memory. `python jobs/bench_pipeline.py`.

`--rows 1000000` is the size that the budgets speak of: 6 GB in all processes, 5 minutes on two cores, and 2.5 times the
matrix products of its training in the same run.
"""

from __future__ import annotations

import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from benchmarking import against, folder_for, peaks, print_report, run_detect, write_features

BUDGET_SECONDS, BUDGET_MB, BUDGET_ROWS = 300.0, 6000.0, 1_000_000
BUDGET_PRODUCTS = 2.5
HIDDEN = 512
"""Width of the classifier."""
TIMED_STEPS, TURNS = 50, 3


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is run."""

    rows: tuple[int, ...] = (2_000, 100_000)
    """Rows of each run, one after the other."""
    dim: int = 512
    """Length of a feature vector."""
    classes: int = 14
    """Classes."""
    epochs: int = 10
    """Training epochs."""
    workers: int = 1
    """Training workers."""
    noise: float = 0.2
    """Share of wrong labels."""
    repeats: int = 1
    """Runs of each size; they take turns."""
    folder: str | None = None
    """Where data and runs are; data that are there already are used. Default: a temporary folder."""


def main(options: Options) -> None:
    """Run every size `repeats` times and print the report."""
    seconds: dict[str, list[float]] = {str(rows): [] for rows in options.rows}
    runs: list[dict[str, Any]] = []
    with folder_for(options.folder) as folder:
        for _ in range(options.repeats):
            for rows in options.rows:
                runs.append(detect(folder, rows, options))
                seconds[str(rows)].append(runs[-1]["seconds"])
    most = max(options.rows)
    largest = [one for one in runs if one["rows"] == most]
    seconds_of_it = statistics.median(one["seconds"] for one in largest)
    products = statistics.median(one["seconds"] / one["seconds_of_products"] for one in largest)
    ratios = {
        "seconds of the largest run / 5 min per 1M rows": against(
            seconds_of_it / (BUDGET_SECONDS * most / BUDGET_ROWS), at_most=1
        ),
        "the largest run / the matrix products of its training": against(products, at_most=BUDGET_PRODUCTS),
    }
    if used := [one["memory_mb"]["all_processes"] for one in largest if one["memory_mb"]]:
        ratios["peak memory of the largest run / 6 GB"] = against(max(used) / BUDGET_MB, at_most=1)
    print_report(
        "A whole `detect` in a process of its own, start and exit included, medians with the budget for one million "
        "rows of 512 features and 10 epochs on two cores; memory is the sum over all processes of their proportional "
        "set sizes, sampled at most twice a second. The matrix products are those of the classifier's steps alone, "
        "timed after the run on every core.",
        ratios,
        seconds,
        {"rows": options.rows, "dim": options.dim, "classes": options.classes, "epochs": options.epochs},
        workers=options.workers,
        runs=runs,
    )


def detect(folder: Path, rows: int, options: Options) -> dict[str, Any]:
    """One run on fresh directories."""
    data = write_features(folder, rows=rows, dim=options.dim, classes=options.classes, noise=options.noise)
    out = folder / f"run-{data.stem}"
    shutil.rmtree(out, ignore_errors=True)
    done, summary = run_detect(data, out, "--epochs", str(options.epochs), "--workers", str(options.workers))
    # Written last of all: what comes before is the start of Python, what comes after the end of Ray.
    total, stages = summary["seconds"].pop("total"), summary["seconds"]
    ended = (out / "summary.json").stat().st_mtime - done.started
    stages = {"imports": round(ended - total, 3), **stages}
    shutil.rmtree(out)
    return {
        "rows": rows,
        "seconds": round(done.seconds, 2),
        "seconds_by_stage": stages | {"exit": round(done.seconds - ended, 3)},
        "memory_mb": peaks(done.samples, stages),
        "f1": summary["evaluation"]["f1"],
        "seconds_of_products": round(product_seconds(summary, options), 2),
    }


def product_seconds(summary: dict[str, Any], options: Options) -> float:
    """Seconds of the matrix products of a training, on all cores: forwards, and gradients of weights and inputs.

    Some steps are timed, in turns, and the median is multiplied by the number of steps.
    """
    import torch

    from dynacor_ray.engine.runtime.machine import usable_cpus  # sets how threads wait, before torch is loaded

    torch.set_num_threads(usable_cpus())
    batch = summary["config"]["batch_size"]
    rows, hidden = torch.randn(batch, options.dim), torch.randn(batch, HIDDEN)
    first, last = torch.randn(options.dim, HIDDEN), torch.randn(HIDDEN, options.classes)
    logits = torch.randn(batch, options.classes)
    turns = []
    for _ in range(TURNS + 1):
        start = time.perf_counter()
        for _ in range(TIMED_STEPS):
            rows @ first, hidden @ last
            hidden.T @ logits, logits @ last.T, rows.T @ hidden
        turns.append(time.perf_counter() - start)
    steps = options.epochs * (summary["num_rows"] + summary["num_corrupted"]) / batch
    return float(statistics.median(turns[1:]) / TIMED_STEPS * steps)  # the first is a warm-up


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
