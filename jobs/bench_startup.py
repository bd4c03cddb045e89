"""Small runs in one process and on Ray, by seconds and peak memory: `python jobs/bench_startup.py`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from benchmarking import against, folder_for, peaks, print_report, run_detect, take_turns, write_features

BUDGET_SECONDS, BUDGET_MB = 10.0, 1500.0
MODES = {"one process": "none", "Ray": "local"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is run."""

    rows: int = 2_000
    """Rows of features beside the demo."""
    dim: int = 512
    """Length of a feature vector."""
    repeats: int = 3
    """Runs of each; they take turns."""


def main(options: Options) -> None:
    """Run the demo and a set of features in both modes and print the report."""
    memory: dict[str, list[float]] = {}
    with folder_for(None) as folder:
        features = write_features(folder, rows=options.rows, dim=options.dim, classes=14, noise=0.2)
        data = {"demo": "demo", f"{options.rows:,} x {options.dim}": features}

        def detect(name: str, place: Path | str, cluster: str) -> None:
            done, _ = run_detect(place, folder / "run", "--cluster", cluster)
            memory.setdefault(name, []).append(float((peaks(done.samples) or {}).get("all_processes", 0)))
            shutil.rmtree(folder / "run")

        variants = {
            f"{name}, {mode}": (
                lambda name=f"{name}, {mode}", place=place, cluster=cluster: detect(name, place, cluster)
            )
            for name, place in data.items()
            for mode, cluster in MODES.items()
        }
        turns = take_turns(variants, options.repeats)
    ratios: dict[str, Any] = {}
    for name in data:
        here, there = f"{name}, one process", f"{name}, Ray"
        ratios[f"{name}: seconds, one process / Ray"] = turns.ratio(here, there)
        ratios[f"{name}: memory, one process / Ray"] = against(max(memory[here]) / max(max(memory[there]), 1.0))
        ratios[f"{name}: seconds / 10 s"] = against(min(turns.seconds[here]) / BUDGET_SECONDS, at_most=1)
        ratios[f"{name}: peak memory / 1.5 GB"] = against(max(memory[here]) / BUDGET_MB, at_most=1)
    print_report(
        "A whole `detect` in a process of its own, imports and exit included, without a cluster and on one that it "
        "starts; the least seconds and the most memory of all its processes (PSS) against what a small run may take.",
        ratios,
        turns.seconds,
        {"rows": options.rows, "dim": options.dim},
        memory_mb=memory,
    )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
