"""Does cleaning help a classifier? `python jobs/bench_cleaning.py --data FILE --labels COLUMN`. Prints JSON (Table 7).

The file is parquet with `true_label`, columns of labels, and `feature` or `image` (encoded once and kept in `--cache`).
Per column and seed a quarter of the rows is held out with true labels; on the rest every loss is trained on the labels
as they are, and without the rows that the default detector, the paper's rule (Eq. 4), cleanlab or an oracle flags;
cross-entropy also with suggested labels and with weights. Said is the accuracy after the last epoch, mean and deviation
over the seeds, in %, and what the detectors flagged.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from numpy.typing import NDArray

import dynacor_ray
from dynacor_ray.core import schema
from dynacor_ray.core.image_decoding import load_rgb
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.registry import open_source

LOSSES = ("ce", "gce", "sce", "elr")
CLEANINGS = ("original", "default", "paper", "cleanlab", "oracle")
OF_CROSS_ENTROPY = ("relabel", "weigh")
BATCH = 64
SHARD = 4096


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is trained on, and how long."""

    data: str
    """Parquet file; or images with true labels as `dynacor --data` takes them, such as `cifar100:ROOT`."""
    rows: int = 8000
    """Most rows, drawn at random."""
    seeds: int = 3
    """Splits, each with trainings of its own."""
    epochs: int = 60
    """Of every classifier; `detect` keeps its own."""
    learning_rate: float = 0.05
    """Of every classifier."""
    encoder: str = "tf_efficientnet_lite0"
    """Of images."""
    image_size: int = 128
    """Side for the encoder, in pixels."""
    components: int = 256
    """Principal components that are kept of the features of images."""
    cache: Path = Path("bench_cleaning_cache")
    """Where features are kept."""


@dataclass(frozen=True, kw_only=True)
class Options(Rows):
    """What is measured."""

    labels: tuple[str, ...]
    """Columns of labels."""
    losses: tuple[str, ...] = LOSSES
    """Losses to train with."""


def read(options: Rows) -> tuple[NDArray[np.float32], pa.Table]:
    """Features float32 (N, D) of a random sample, and its other columns."""
    table = read_all(options.data)
    chosen = np.random.default_rng(0).permutation(table.num_rows)[: options.rows]
    table = table.take(pa.array(np.sort(chosen)))
    if schema.FEATURE in table.column_names:
        return schema.matrix(table[schema.FEATURE]).astype(np.float32), table
    name = Path(options.data).stem.replace(":", "-")
    place = options.cache / f"{name}-{options.encoder}-{options.image_size}-{table.num_rows}.npy"
    if not place.exists():
        options.cache.mkdir(parents=True, exist_ok=True)
        np.save(place, encode(table[schema.IMAGE].to_pylist(), options))
    from sklearn.decomposition import PCA  # takes seconds

    reduced = PCA(options.components, random_state=0).fit_transform(np.load(place))
    return reduced.astype(np.float32), table


def read_all(data: str) -> pa.Table:
    """All rows, with the columns `image` or `feature`, and `true_label`."""
    if data.endswith(".parquet"):
        return pq.read_table(data)
    return pa.concat_tables([shard.read() for shard in open_source(data, SourceOptions()).shards(SHARD)])


def encode(images: list[bytes], options: Rows) -> NDArray[np.float32]:
    """Features of encoded images, float32 (N, D)."""
    from dynacor_ray.models.encoders import load_encoder, parse_encoder

    encoder = load_encoder(parse_encoder(options.encoder, options.image_size), "cpu")
    parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    return np.concatenate(
        [encoder.encode(np.stack([load_rgb(one, encoder.image_size) for one in part])) for part in parts]
    )


def save(place: Path, rows: pa.Array | pa.ChunkedArray, **labels: NDArray[np.int64]) -> str:
    """A file for `dynacor train`. rows: images or feature vectors."""
    name = schema.IMAGE if pa.types.is_binary(rows.type) else schema.FEATURE
    pq.write_table(pa.table({name: rows} | labels), place)
    return str(place)


def cleanlab_flags(features: NDArray[np.float32], given: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """What cleanlab flags by out-of-sample probabilities of a logistic regression, five folds."""
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rows = (features - features.mean(axis=0)) / features.std()
    model, folds = LogisticRegression(C=0.1, max_iter=60, tol=1e-2), StratifiedKFold(5, shuffle=True, random_state=seed)
    probability = cross_val_predict(model, rows, given, cv=folds, method="predict_proba")
    flags: NDArray[np.bool_] = find_label_issues(given, probability, n_jobs=1)
    return flags


def split(options: Options, features: NDArray[np.float32], table: pa.Table, column: str, seed: int) -> dict[str, Any]:
    """All accuracies of one split, and what the detectors flagged."""
    given, true = (table[name].to_numpy().astype(np.int64) for name in (column, "true_label"))
    rows = schema.fixed_size_list(features)
    order = np.random.default_rng(1 + seed).permutation(len(true))
    test, kept = order[: len(order) // 4], np.sort(order[len(order) // 4 :])
    wrong = given[kept] != true[kept]
    found: dict[str, Any] = {"wrong": float(wrong.mean())}

    def note(name: str, flags: NDArray[np.bool_]) -> None:
        f1 = 2 * (flags & wrong).sum() / max(int(flags.sum() + wrong.sum()), 1)
        found[f"{name} flagged"], found[f"{name} f1"] = float(flags.mean()), float(f1)

    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        shared: dict[str, Any] = {"cluster": "none", "quiet": True, "seed": seed}
        data = save(here / "train.parquet", rows.take(kept), given_label=given[kept])
        right = save(here / "oracle.parquet", rows.take(kept[~wrong]), given_label=given[kept[~wrong]])
        for name, rule in (("default", "label_noise_model"), ("paper", "paper")):
            run = dynacor_ray.detect(data, out=str(here / name), flag_rule=rule, **shared)
            note(name, run.issues.sort_by(schema.INSTANCE_ID)[schema.IS_LABEL_ISSUE].to_numpy())
        others = ~cleanlab_flags(features[kept], given[kept], seed)
        note("cleanlab", ~others)
        left = save(here / "cleanlab.parquet", rows.take(kept[others]), given_label=given[kept[others]])
        shared |= {"test": save(here / "test.parquet", rows.take(test), given_label=true[test])}
        shared |= {"epochs": options.epochs, "learning_rate": options.learning_rate, "cache": str(here / "cache")}
        runs: dict[str, dict[str, Any]] = {
            "original": {"data": data},
            "default": {"data": data, "without": str(here / "default")},
            "paper": {"data": data, "without": str(here / "paper")},
            "cleanlab": {"data": left},
            "oracle": {"data": right},
            "relabel": {"data": data, "without": str(here / "default"), "relabel": True},
            "weigh": {"data": data, "without": str(here / "default"), "weigh": True},
        }
        for loss in options.losses:
            for cleaning in (*CLEANINGS, *(OF_CROSS_ENTROPY if loss == "ce" else ())):
                out = str(here / f"{loss}-{cleaning}")
                made = dynacor_ray.train(**runs[cleaning], **shared, loss=loss, out=out)
                found[f"{loss} {cleaning}"] = made.summary["last"]["test_accuracy"]
    print(f"{column}, seed {seed}: {found}", file=sys.stderr, flush=True)
    return found


def over_seeds(found: list[dict[str, float]]) -> dict[str, list[float]]:
    """Mean and standard deviation of each value, in %."""
    columns = {name: np.array([one[name] for one in found]) for name in found[0]}
    return {name: [round(100 * float(v.mean()), 2), round(100 * float(v.std()), 2)] for name, v in columns.items()}


def main(options: Options) -> None:
    """Measure every column of labels and print what was found."""
    features, table = read(options)
    result: dict[str, Any] = {"rows": table.num_rows, "epochs": options.epochs, "learning_rate": options.learning_rate}
    for column in options.labels:
        result[column] = over_seeds([split(options, features, table, column, seed) for seed in range(options.seeds)])
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
