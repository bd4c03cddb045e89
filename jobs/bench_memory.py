"""Peak memory of the driver at several sizes of data: `python jobs/bench_memory.py --rows 50000 200000`.

Prints JSON: MB per size, and what each further row costs beside what its D features take. `--store-mb 300` limits Ray's
object store, which then spills. Not a test of speed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

DIM, CLASSES, CHUNK = 512, 14, 20_000


def write_rows(path: Path, rows: int) -> None:
    """Uniform noise around a random centre per class; a tenth of the labels are drawn again."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    flat = pc.multiply(pc.random(CLASSES * DIM, initializer=0), 0.5).cast(pa.float32())
    centres = pa.FixedSizeListArray.from_arrays(flat, DIM)
    schema = pa.schema({"feature": centres.type, "label": pa.int32()})
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            true, other = (pc.floor(pc.multiply(pc.random(count), CLASSES)).cast(pa.int32()) for _ in range(2))
            noise = pc.random(count * DIM).cast(pa.float32())
            features = pa.FixedSizeListArray.from_arrays(pc.add(centres.take(true).flatten(), noise), DIM)
            given = pc.if_else(pc.less(pc.random(count), 0.1), other, true)
            writer.write_table(pa.table([features, given], schema=schema))


def run(data: str, out: str, epochs: int, store_mb: int) -> None:
    """A whole run in this process; prints this process's own peak in MB and the seconds."""
    from dynacor_ray.engine.session import quieten
    from dynacor_ray.pipeline import detect

    if store_mb:
        import ray

        quieten()
        ray.init(address="local", object_store_memory=store_mb << 20, include_dashboard=False, log_to_driver=False)
    result = detect(data, out=out, epochs=epochs, gpu="no", quiet=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"driver_mb": round(peak), "seconds": result.summary["seconds"]}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--store-mb", type=int, default=0)
    parser.add_argument("--run", nargs=2, metavar=("DATA", "OUT"), help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.run:
        run(*told.run, told.epochs, told.store_mb)
        sys.exit()
    sizes = {}
    for rows in told.rows:
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder, "rows.parquet"), rows)
            options = ["--epochs", str(told.epochs), "--store-mb", str(told.store_mb)]
            command = [sys.executable, __file__, *options, "--run", f"{folder}/rows.parquet", f"{folder}/run"]
            sizes[rows] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(json.dumps(sizes, indent=2))
