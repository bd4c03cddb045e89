"""Table 7: `python jobs/clothing1m_cleaning.py --data ROOT --out OUT`. Prints JSON; the same command resumes.

ROOT holds Clothing1M as its authors ship it. Per seed one run of `detect` as printed in the paper; then every loss on
the original labels and without what was flagged, tested on the clean test set. Said is the accuracy after the last
epoch, mean and deviation over the seeds, in %. The defaults are the paper's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import bench_cleaning
import tyro

import dynacor_ray


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the data are and the runs go, and what is trained: options of `dynacor train`, but for seeds and losses."""

    data: str
    out: Path
    balanced_sample: int = 120_000
    seeds: int = 3
    losses: tuple[str, ...] = ("gce", "sce", "elr", "ce")
    network: str = "resnet50"
    image_size: int | None = None
    epochs: int = 10
    batch_size: int = 64
    workers: int = 1
    gpu: str = "auto"
    cluster: str = "auto"


def measure(options: Options, seed: int) -> dict[str, float]:
    """Accuracy of every loss, before and after cleaning, and the share that was flagged."""
    shared = {name: value for name, value in vars(options).items() if name not in ("data", "out", "seeds", "losses")}
    shared |= {"recipe": "clothing1m_resnet50", "seed": seed, "cache": str(options.out / "cache"), "quiet": True}
    data, test = (kind + options.data.removeprefix("clothing1m:") for kind in ("clothing1m:", "clothing1m_test:"))
    run = str(options.out / f"detect-{seed}")
    found = {"flagged": dynacor_ray.detect(data, out=run, variant="paper", **shared).summary.flagged_share}
    for loss in options.losses:
        for name, without in (("original", None), ("cleansed", run)):
            out = str(options.out / f"{loss}-{name}-{seed}")
            made = dynacor_ray.train(data, loss=loss, without=without, test=test, out=out, **shared)
            found[f"{loss} {name}"] = made.summary["last"]["test_accuracy"]
    return found


def main(options: Options) -> None:
    """Measure all seeds and print what was found."""
    print(json.dumps(bench_cleaning.over_seeds([measure(options, seed) for seed in range(options.seeds)]), indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
