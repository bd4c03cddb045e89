r"""DivideMix and DynaCor together, over noise rates: `python jobs/bench_robust.py --data FILE`. Prints JSON (Fig. 3).

The data are parquet with true labels in the column `--truth`, and `feature` or `image` (encoded once and kept in
`--cache`), or e.g. `cifar100:ROOT`. Heads on features are trained, or networks on the images. The paper's own figure is

    python jobs/bench_robust.py --data cifar100:ROOT --rows 50000 --network cifar_preact_resnet18 --epochs 300 \
      --learning-rate 0.02

Per noise and seed a quarter of the rows is held out; the others get wrong labels, asymmetric ones or by their
features. Said are test accuracy and F1 of what is taken for wrong, mean and deviation over the seeds, in %: of
DivideMix and DDyna-S in the epoch with the best test accuracy, for which they use clean test data, of DDyna-L after the
last epoch, by Eq. 9, which uses none. `ce` is cross-entropy after the last epoch, without F1.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_cleaning
import numpy as np
import pyarrow as pa
import tyro
from numpy.typing import NDArray

import dynacor_ray
from dynacor_ray.config.recipes import RECIPES
from dynacor_ray.core import schema
from dynacor_ray.ground_truth.noise_spec import given_labels, parse_noise

BY_TEST = ("dividemix", "ddyna_s")
"""Judged in the epoch with the best test accuracy."""


@dataclass(frozen=True, kw_only=True)
class Options(bench_cleaning.Rows):
    """What is measured."""

    truth: str = schema.TRUE_LABEL
    """Column with the true labels."""
    noises: tuple[str, ...] = (
        *(f"{kind}:{rate}" for kind in ("asymmetric", "instance_dependent") for rate in (0.1, 0.2, 0.3, 0.4)),
    )
    """Kinds and rates of noise, as `dynacor compare` takes them."""
    methods: tuple[str, ...] = ("ce", "dividemix", "ddyna_s", "ddyna_l")
    """`ce`, or a `--method` of `dynacor train`."""
    network: str | None = None
    """Trained on the images in place of heads on features; of a recipe its settings, but epochs and learning rate."""
    network_size: int | None = None
    """Side of the network's images, in pixels; default: the network's own."""

    @property
    def trained_network(self) -> dict[str, Any]:
        """Options of `dynacor train`."""
        name = {"recipe": self.network} if self.network in RECIPES else {"network": self.network}
        return {option: one for option, one in (name | {"image_size": self.network_size}).items() if one is not None}


def classes_of(labels: pa.ChunkedArray) -> NDArray[np.int64]:
    """Classes from 0, int64 (N,): by number where all labels are numbers, else by name. Asymmetric noise needs it."""
    names = labels.cast(pa.string()).to_numpy()
    numbers = all(name.isdigit() for name in names)
    return np.unique(names.astype(np.int64 if numbers else str), return_inverse=True)[1].astype(np.int64)


def measure(
    options: Options,
    features: NDArray[np.float32],
    rows: pa.ChunkedArray,
    true: NDArray[np.int64],
    noise: str,
    seed: int,
) -> dict[str, float]:
    """Accuracy and F1 of every method on one split with one noise. rows: what is trained on."""
    order = np.random.default_rng(1 + seed).permutation(len(true))
    test, kept = order[: len(order) // 4], np.sort(order[len(order) // 4 :])
    centered, classes = features[kept] - features[kept].mean(axis=0), int(true.max()) + 1
    given = given_labels(parse_noise(noise), true[kept], kept.astype(np.int64), classes, seed, centered)
    found: dict[str, float] = {"wrong": float((given != true[kept]).mean())}
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        labels = {schema.GIVEN_LABEL: given, schema.TRUE_LABEL: true[kept]}
        data = bench_cleaning.save(here / "train.parquet", rows.take(kept), **labels)
        shared: dict[str, Any] = {"cluster": "none", "quiet": True, "seed": seed, "cache": str(here / "cache")}
        shared |= {"epochs": options.epochs, "learning_rate": options.learning_rate, "batch_size": 128}
        shared |= {"test": bench_cleaning.save(here / "test.parquet", rows.take(test), given_label=true[test])}
        shared |= options.trained_network
        for name in options.methods:
            more: dict[str, Any] = {} if name == "ce" else {"method": name}
            if name != "ce" and noise.startswith("asymmetric"):
                more["penalize_confidence"] = True
            out = str(here / name)
            made = dynacor_ray.train(data, **shared, **more, out=out).summary
            found[f"{name} accuracy"] = made["best" if name in BY_TEST else "last"]["test_accuracy"]
            if name != "ce":
                found[f"{name} f1"] = made["detection"]["evaluation"]["f1"]
    print(f"{noise}, seed {seed}: {found}", file=sys.stderr, flush=True)
    return found


def main(options: Options) -> None:
    """Measure every noise and print what was found."""
    features, table = bench_cleaning.read(options)
    true = classes_of(table[options.truth])
    of_images = options.network is not None
    rows = table[schema.IMAGE] if of_images else pa.chunked_array([schema.fixed_size_list(features)])
    result: dict[str, Any] = {"rows": table.num_rows, "epochs": options.epochs, "learning_rate": options.learning_rate}
    for noise in options.noises:
        found = [measure(options, features, rows, true, noise, seed) for seed in range(options.seeds)]
        result[noise] = bench_cleaning.over_seeds(found)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
