"""Peak memory of the driver by rows of data: `python jobs/bench_memory.py --rows 50000 200000` prints JSON.

`--store-mb 300` limits Ray's object store, which then spills.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from benchmarking import folder_for, run, write_features

DIM, CLASSES, NOISE = 512, 14, 0.1


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is run."""

    rows: tuple[int, ...] = (50_000, 200_000)
    """Rows of each run, one after the other."""
    epochs: int = 5
    """Training epochs."""
    store_mb: int = 0
    """Size of Ray's object store; 0: as much as Ray takes by itself."""
    data: str | None = None
    """Measure one run on this file, in this process: how this script calls itself."""


def main(options: Options) -> None:
    """Print a line of JSON per size."""
    if options.data is not None:
        measure(Path(options.data), options)
        return
    for rows in options.rows:
        with folder_for(None) as folder:
            data = write_features(folder, rows=rows, dim=DIM, classes=CLASSES, noise=NOISE, truth=False)
            numbers = ["--store-mb", str(options.store_mb), "--epochs", str(options.epochs)]
            done = run([sys.executable, __file__, "--data", str(data), *numbers])
        print(json.dumps({"rows": rows, "features_mb": rows * DIM * 4 >> 20} | json.loads(done.output)))


def measure(data: Path, options: Options) -> None:
    """A whole run in this process; prints this process's own peak and the seconds of each stage."""
    from dynacor_ray.engine.runtime.session import silence_ray
    from dynacor_ray.workflows.detect import detect

    import ray  # isort: skip  (after the engine, which sets what Ray reads)

    silence_ray()
    store = options.store_mb << 20 or None
    ray.init("local", include_dashboard=False, object_store_memory=store, logging_level="WARNING")
    result = detect(str(data), out=str(data.with_name("run")), epochs=options.epochs, gpu="no", quiet=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"driver_mb": round(peak), "seconds": result.summary.seconds}))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
