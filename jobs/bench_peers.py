"""A whole run of `detect` against cleanlab with the same classifier. `python jobs/bench_peers.py`.

`--data FILE` takes features with true labels instead of synthetic ones. Needs `pip install 'dynacor-ray[cleanlab]'`.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from benchmarking import (
    FeatureOptions,
    Finished,
    Lap,
    folder_for,
    peaks,
    plain_sgd_in_memory,
    print_report,
    run,
    run_detect,
    take_turns,
    write_features,
)
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import f1_score

from dynacor_ray.core import schema
from dynacor_ray.core.manifest import FeatureStats
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.training.job import TrainConfig
from dynacor_ray.models.heads import build_classifier

OURS, PEER = "detect", "cleanlab"


@dataclass(frozen=True, kw_only=True)
class Options(FeatureOptions):
    """What is searched."""

    data: str | None = None
    """A parquet file with `feature`, `given_label` and `true_label`, classes numbered from 0. Default: synthetic."""
    rows: int = 20_000
    """Rows of synthetic data."""
    repeats: int = 1
    """Runs of each; they take turns."""
    peer: bool = False
    """Run cleanlab on --data, in this process: what this script calls for the other half of the comparison."""


def main(options: Options) -> None:
    """Search in turns and print the report."""
    if options.peer:
        print(json.dumps({"f1": cleanlab_f1(str(options.data))}))
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # detect has it so; then cleanlab shall not do without
    runs: list[dict[str, Any]] = []
    with folder_for(None) as folder:
        data = options.data or str(write_features(folder, **options.shape))

        def ours() -> Lap:
            done, summary = run_detect(data, folder / f"run-{len(runs)}")
            return note(OURS, done, summary["evaluation"]["f1"])

        def peer() -> Lap:
            done = run([sys.executable, __file__, "--peer", "--data", data])
            return note(PEER, done, json.loads(done.output)["f1"])

        def note(name: str, done: Finished, f1: float) -> Lap:
            memory = peaks(done.samples)
            peak = memory and memory["all_processes"]
            runs.append({"name": name, "seconds": round(done.seconds, 2), "f1": round(f1, 4), "peak_memory_mb": peak})
            return Lap(done.seconds)

        turns = take_turns({OURS: ours, PEER: peer}, options.repeats)
    config = TrainConfig()
    print_report(
        "A whole `detect` as the command line runs it, over cleanlab's CleanLearning.find_label_issues (five folds, "
        "its defaults) with the same classifier, scaling, optimizer, schedule and epochs in a plain PyTorch loop; each "
        "in processes of its own, reading the same parquet file. Memory is the sum over all processes.",
        {"detect / cleanlab, seconds": turns.ratio(OURS, PEER)},
        turns.seconds,
        options.shape if options.data is None else {"data": options.data},
        epochs=config.epochs,
        runs=runs,
    )


class Classifier(ClassifierMixin, BaseEstimator):
    """The engine's classifier as scikit-learn has it."""

    def fit(self, features: np.ndarray, labels: np.ndarray) -> Classifier:
        """Train as the engine does, recording nothing. features: float32 (n, D); labels: int (n,)."""
        config, self.classes_ = TrainConfig(), np.unique(labels)
        mean, scale = FeatureStats.of(features).scaling()
        torch.manual_seed(config.seed)
        self.model_ = build_classifier(
            config.classifier,
            num_features=features.shape[1],
            num_classes=len(self.classes_),
            mean=mean,
            scale=scale,
        )
        given = torch.from_numpy(np.searchsorted(self.classes_, labels))
        plain_sgd_in_memory(self.model_, config, torch.from_numpy(features), given)
        return self

    @torch.no_grad()
    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Probability per class, float (n, C)."""
        return torch.softmax(self.model_(torch.from_numpy(features)), dim=1).numpy()

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Most probable class, (n,)."""
        return self.classes_[self.predict_proba(features).argmax(axis=1)]


def cleanlab_f1(data: str) -> float:
    """F1 of the rows that cleanlab flags."""
    from cleanlab.classification import CleanLearning

    table = locate(data).read_table([schema.FEATURE, schema.GIVEN_LABEL, schema.TRUE_LABEL])
    given = table[schema.GIVEN_LABEL].to_numpy()
    issues = CleanLearning(Classifier(), seed=0).find_label_issues(schema.matrix(table[schema.FEATURE]), given)
    return float(f1_score(given != table[schema.TRUE_LABEL].to_numpy(), issues["is_label_issue"].to_numpy()))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
