"""AUM: the margins of instances known to be mislabeled say where to cut (Pleiss et al., NeurIPS 2020; Table 1).

Some instances are relabeled to an extra class C that no input belongs to. Their area under the margin (AUM), the
margin averaged over epochs, is what a wrong label's looks like; 99% of them lie below the threshold. Threshold samples
cannot be judged, so there are two trainings whose samples have no instance in common.

Deviations from the paper: threshold samples are drawn by a key of each instance (rate 1 / (C + 1)), so their number is
N / (C + 1) in expectation only; the paper judges each instance in the one run where it was no threshold sample after
splitting, here those that are none in either run are judged in run 0.

Cost: two trainings; one percentile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.core.rng import Purpose, keyed_uniform
from dynacor_ray.detectors.baseline_classifiers import BaselineClassifier, BaselineTraining, RecordedColumns
from dynacor_ray.detectors.evidence import Evidence, Verdict
from dynacor_ray.method.dynamics import logit_margin

PERCENTILE = 99.0
"""Percentile of the threshold samples' AUM where instances are cut (Pleiss et al. 2020)."""
RUNS = 2


def threshold_samples(ids: NDArray[np.int64], num_classes: int, seed: int, run: int) -> NDArray[np.bool_]:
    """Instances relabeled to the extra class in a run (Table 1, AUM; Pleiss et al. 2020).

    ids: int64 (N,); C >= 2; run: 0 or 1. Returns bool (N,), True with probability 1 / (C + 1), never in both runs: the
    runs take neighboring intervals of one uniform number per instance. Raises ConfigError for C or another run.
    """
    if num_classes < 2:
        raise ConfigError(
            expected_got("at least 2 classes", str(num_classes), "use a data set with two classes or more")
        )
    if run not in (0, 1):
        raise ConfigError(expected_got("run 0 or 1", str(run), "train two times"))
    position = keyed_uniform(seed, Purpose.THRESHOLD_SAMPLE, ids) * (num_classes + 1)
    return (position >= run) & (position < run + 1)


class AumClassifier(BaselineClassifier):
    """A training with an extra class, to which threshold samples are relabeled (Pleiss et al. 2020)."""

    extra_classes, records = 1, True

    def __init__(self, run: int, num_classes: int, seed: int) -> None:
        self._run, self._num_classes, self._seed = run, num_classes, seed
        self.stream = run

    def label(self, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The given label, or C for a threshold sample."""
        return np.where(threshold_samples(ids, self._num_classes, self._seed, self._run), self._num_classes, labels)

    def record(self, logits: Tensor, labels: Tensor, ids: NDArray[np.int64], last: bool) -> dict[str, Tensor]:
        """The logit margin."""
        return {f"aum_{self._run}": logit_margin(logits, labels)}


def _classifiers(num_classes: int, class_counts: NDArray[np.int64], seed: int) -> list[AumClassifier]:
    return [AumClassifier(run, num_classes, seed) for run in range(RUNS)]


def _read(recorded: RecordedColumns) -> dict[str, NDArray[Any]]:
    samples = [threshold_samples(recorded.ids, recorded.num_classes, recorded.seed, run) for run in range(RUNS)]
    return {"aum": recorded.mean([f"aum_{run}" for run in range(RUNS)]), "threshold_sample": np.stack(samples)}


AUM_TRAINING = BaselineTraining("aum", _classifiers, _read)
"""aum: float (2, N), mean margin of both runs; threshold_sample: bool (2, N), which instances were relabeled."""


def aum(evidence: Evidence) -> Verdict:
    """AUM (Table 1; Pleiss et al. 2020): flags an AUM below the 99th percentile of the threshold samples'.

    Reads aum, float (2, N), and threshold_sample, bool (2, N). An instance is judged in run 0, or in run 1 when it was
    a threshold sample in run 0. Score: its AUM minus that run's threshold; flagged below 0. A run without threshold
    samples, as in very small data, is judged by the other's threshold. Raises DataError when there is no sample at all
    or one in both runs.
    """
    area, sample = evidence.part("aum").astype(np.float64), evidence.part("threshold_sample")
    if sample.all(axis=0).any(axis=0):
        got = f"{int(sample.all(axis=0).sum(axis=0))} in both"
        raise DataError(
            expected_got("each instance a threshold sample in one run at most", got, "use threshold_samples")
        )
    thresholds = _thresholds(area, sample)
    judged_in = sample[0].astype(np.int64)
    score: NDArray[np.float64] = np.where(judged_in == 0, area[0], area[1]) - thresholds[judged_in]
    return Verdict(score < 0, score)


def corrupted_aum(evidence: Evidence) -> NDArray[np.float64]:
    """Scores of the threshold samples of both runs as `aum` scores instances, float64 (M,). Raises as `aum` does."""
    area, sample = evidence.part("aum").astype(np.float64), evidence.part("threshold_sample")
    score: NDArray[np.float64] = (area - _thresholds(area, sample)[:, None])[sample]
    return score


def _thresholds(area: NDArray[np.float64], sample: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The cut of each run, float64 (2,), an empty run having the other's."""
    own: list[Any] = [
        np.percentile(a[s], PERCENTILE) if s.any(axis=0) else None for a, s in zip(area, sample, strict=True)
    ]
    known = [cut for cut in own if cut is not None]
    if not known:
        remedy = "add instances, or leave AUM out"
        raise DataError(
            expected_got("at least one threshold sample", f"none among {sample.shape[1]} instances", remedy)
        )
    return np.array([known[0] if cut is None else cut for cut in own], np.float64)
