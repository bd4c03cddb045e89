"""AUM: the margins of instances known to be mislabeled determine the threshold (Pleiss et al., NeurIPS 2020; Table 1).

Some instances are relabeled to an extra class C that no input belongs to. Their area under the margin (AUM), the
margin averaged over epochs, is what a wrong label's looks like; 99% of them lie below the threshold. Threshold samples
cannot be scored themselves, so there are two trainings whose samples have no instance in common.

Deviations from the paper:

- Threshold samples are drawn by a key of each instance (rate 1 / (C + 1)), so their number is N / (C + 1) only in
  expectation.
- The paper scores each instance in the one run where it was no threshold sample. Here those that are none in either
  run are scored in run 0.

Cost: two trainings; one percentile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.core.errors import DataError, expected_got, require_two_classes
from dynacor_ray.core.rng import Purpose, keyed_uniform
from dynacor_ray.detectors.baseline_classifiers import BaselineClassifier, BaselineTraining, RecordedColumns
from dynacor_ray.detectors.evidence import Evidence, Verdict
from dynacor_ray.method.dynamics import logit_margin

PERCENTILE = 99.0
"""Percentile of the threshold samples' AUM that is the threshold."""
RUNS = 2


def threshold_samples(ids: NDArray[np.int64], num_classes: int, seed: int, run: int) -> NDArray[np.bool_]:
    """Instances relabeled to the extra class in a run, never in both runs.

    The runs take neighboring intervals of one uniform number per instance.

    Args:
        ids: int64 (N,).
        num_classes: C >= 2.
        seed: any integer.
        run: 0 or 1.

    Returns:
        bool (N,), True with probability 1 / (C + 1).

    Raises:
        ConfigError: C < 2.
    """
    require_two_classes(num_classes)
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


def _read(recorded: RecordedColumns) -> dict[str, NDArray[Any]]:
    samples = [threshold_samples(recorded.ids, recorded.num_classes, recorded.seed, run) for run in range(RUNS)]
    return {"aum": recorded.mean([f"aum_{run}" for run in range(RUNS)]), "threshold_sample": np.stack(samples)}


AUM_TRAINING = BaselineTraining(
    "aum",
    lambda num_classes, class_counts, seed: [AumClassifier(run, num_classes, seed) for run in range(RUNS)],
    _read,
)
"""aum: float (2, N), mean margin of both runs; threshold_sample: bool (2, N), which instances were relabeled."""


def aum(evidence: Evidence) -> Verdict:
    """AUM (Table 1; Pleiss et al. 2020): flags an AUM below the 99th percentile of the threshold samples'.

    An instance is scored in run 0, or in run 1 when it was a threshold sample in run 0. A run without threshold
    samples, as in very small data, has the threshold of the other.

    Args:
        evidence: aum, float (2, N), and threshold_sample, bool (2, N).

    Returns:
        Score: AUM minus the threshold of its run; flagged below 0.

    Raises:
        DataError: no threshold sample at all.
    """
    area, sample = evidence.part("aum").astype(np.float64), evidence.part("threshold_sample")
    run = sample[0].astype(np.int64)
    score: NDArray[np.float64] = np.where(run == 0, area[0], area[1]) - _thresholds(area, sample)[run]
    return Verdict(score < 0, score)


def corrupted_aum(evidence: Evidence) -> NDArray[np.float64]:
    """Scores of the threshold samples of both runs, as `aum` scores instances, float64 (M,). Raises as `aum` does."""
    area, sample = evidence.part("aum").astype(np.float64), evidence.part("threshold_sample")
    score: NDArray[np.float64] = (area - _thresholds(area, sample)[:, None])[sample]
    return score


def _thresholds(area: NDArray[np.float64], sample: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The threshold of each run, float64 (2,); a run without samples has the other's."""
    sampled = [aums[samples] for aums, samples in zip(area, sample, strict=True)]
    if not any(map(len, sampled)):
        got = f"none among {sample.shape[1]} instances"
        raise DataError(expected_got("at least one threshold sample", got, "add instances, or leave AUM out"))
    chosen = (own if len(own) else other for own, other in zip(sampled, sampled[::-1], strict=True))
    return np.array([np.percentile(aums, PERCENTILE) for aums in chosen])
