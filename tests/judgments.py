"""Judgments of a comparison and trials of a sweep, without running one."""

from __future__ import annotations

from typing import Any

import numpy as np

from dynacor_ray.runs.records import SHARES, Judgment
from dynacor_ray.runs.sweep_records import Trial, build_sweep_summary

NOISES = ("given", "symmetric:0.6", "asymmetric:0.3", "instance:0.4", "worse_label")
DETECTORS = ("Avg.Encoder", "AUM", "Confident learning", "CORES", "SimiFeat-V", "SimiFeat-R", "DynaCor")
TWELVE = (*(f"symmetric:0.{tenth}" for tenth in range(1, 10)), "asymmetric:0.3", "given", "instance:0.4")


def judged(f1: float | None, *, noise: str = "given", seed: int = 0, title: str = "AUM", **changes: Any) -> Judgment:
    metrics: dict[str, Any] = {name: f1 for name in SHARES} | {"noise_rate": 0.4, "n": 100}
    known: dict[str, Any] = {"noise": noise, "seed": seed, "detector": title.lower(), "title": title}
    known |= {"flagged_share": 0.25, "metrics": metrics, "seconds": 2.0 + seed}
    return Judgment(**known | changes)


def failed(message: str, **changes: Any) -> Judgment:
    lost: dict[str, Any] = {"metrics": {}, "flagged_share": None, "message": message}
    return judged(None, **lost | changes)


def many(noises: tuple[str, ...], titles: tuple[str, ...], seeds: int) -> list[Judgment]:
    random = np.random.default_rng(7)
    places = [(noise, title, seed) for noise in noises for title in titles for seed in range(seeds)]
    values = random.uniform(0.5, 0.9, len(places))
    return [
        judged(float(value), noise=noise, seed=seed, title=title)
        for (noise, title, seed), value in zip(places, values, strict=True)
    ]


def row_of(summary: dict[str, Any], detector: str) -> dict[str, Any]:
    return next(row for row in summary["detectors"] if row["detector"] == detector)


def trial(gamma: float, alpha: float, metric: float, flagged: float, f1: float | None) -> Trial:
    """Two epochs: the first is the better one, the second has the larger Eq. 9 and was kept."""
    same = {"davies_bouldin": None, "flagged_corrupted": 0.9}
    epochs = [
        {"epoch": 0, "validation_metric": metric / 2, "flagged_originals": flagged, **same, "f1": f1 and f1 + 0.1},
        {"epoch": 1, "validation_metric": metric, "flagged_originals": flagged + 0.1, **same, "f1": f1},
    ]
    evaluation = {} if f1 is None else {"f1": f1, "precision": 0.5, "recall": 0.6, "noise_rate": 0.4}
    options = {"gamma": gamma, "alpha": alpha}
    return Trial(
        options=options, training="t", epoch=1, noise_rate=0.1, evaluation=evaluation, epochs=epochs, seconds=1.0
    )


TRIALS = [trial(0.1, 0.5, 0.2, 0.1, 0.7), trial(0.1, 5.0, 0.3, 0.2, 0.6), trial(0.2, 0.5, 0.1, 0.3, 0.8)]
FAILED = [{"options": {"gamma": 0.2, "alpha": 5.0}, "message": "disk\x1b full"}]


def sweep_summary_of(trials: list[Trial], **changes: Any) -> dict[str, Any]:
    """The summary of a sweep with these trials and one that failed."""
    known: dict[str, Any] = {
        "select": "validation_metric",
        "default": {"gamma": 0.1, "alpha": 0.5},
        "trainings": 2,
        "config": {},
        "versions": {},
        "seconds": {"total": 3.0},
    }
    return build_sweep_summary(trials, FAILED, **known | changes)
