"""Peak memory of the driver by rows of data: `python jobs/bench_memory.py --rows 50000 200000` prints JSON.

`--store-mb 300` limits Ray's object store, which then spills.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile

DIM, CLASSES, CHUNK = 512, 14, 20_000


def write_rows(path: str, rows: int) -> None:
    """Uniform noise around a random center per class; a tenth of the labels are drawn again."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    flat = pc.multiply(pc.random(CLASSES * DIM, initializer=0), 0.5).cast(pa.float32())
    centers = pa.FixedSizeListArray.from_arrays(flat, DIM)
    schema = pa.schema({"feature": centers.type, "label": pa.int32()})
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for count in [CHUNK] * (rows // CHUNK) + [rows % CHUNK] * (rows % CHUNK > 0):
            true, other = (pc.floor(pc.multiply(pc.random(count), CLASSES)).cast(pa.int32()) for _ in range(2))
            noise = pc.random(count * DIM).cast(pa.float32())
            features = pa.FixedSizeListArray.from_arrays(pc.add(centers.take(true).flatten(), noise), DIM)
            given = pc.if_else(pc.less(pc.random(count), 0.1), other, true)
            writer.write_table(pa.table([features, given], schema=schema))


def measure(folder: str, store_mb: int, epochs: int) -> None:
    """A whole run in this process; prints this process's own peak and the seconds of each stage."""
    from dynacor_ray.engine.runtime.session import ray, silence_ray
    from dynacor_ray.workflows.detect import detect

    silence_ray()
    ray.init("local", include_dashboard=False, object_store_memory=store_mb << 20 or None, logging_level="WARNING")
    result = detect(f"{folder}/rows.parquet", out=f"{folder}/run", epochs=epochs, gpu="no", quiet=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"driver_mb": round(peak), "seconds": result.summary.seconds}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--store-mb", type=int, default=0, help="0: as much as Ray takes by itself")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.folder:
        sys.exit(measure(told.folder, told.store_mb, told.epochs))
    for rows in told.rows:
        with tempfile.TemporaryDirectory() as folder:
            write_rows(f"{folder}/rows.parquet", rows)
            options = ["--folder", folder, "--store-mb", str(told.store_mb), "--epochs", str(told.epochs)]
            done = subprocess.run([sys.executable, __file__, *options], check=True, stdout=subprocess.PIPE, text=True)
        print(json.dumps({"rows": rows, "features_mb": rows * DIM * 4 >> 20} | json.loads(done.stdout)))
