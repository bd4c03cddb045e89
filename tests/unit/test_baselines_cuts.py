"""A baseline's ranking with the cut of this package."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dynacor_ray.baselines.base import Evidence, Verdict
from dynacor_ray.baselines.cuts import at_noise_rate
from dynacor_ray.baselines.detectors import DETECTORS, RECUT
from dynacor_ray.baselines.registry import BASELINES
from dynacor_ray.errors import ConfigError

EVIDENCE = Evidence(given_label=np.zeros(8, np.int32), num_classes=2, noise_rate=0.25)


def ranked(*scores: float) -> Verdict:
    return Verdict(np.ones(len(scores), np.bool_), np.array(scores))


def test_as_many_as_are_estimated_to_be_wrong() -> None:
    verdict = at_noise_rate(lambda _: ranked(5, 1, 3, 2, 9, 8, 7, 6))(EVIDENCE)
    assert verdict.is_label_issue.tolist() == [False, True, False, True, False, False, False, False]
    assert verdict.score.tolist() == [5, 1, 3, 2, 9, 8, 7, 6], "the ranking is the detector's own"


def test_equal_scores_are_flagged_together_or_not() -> None:
    assert at_noise_rate(lambda _: ranked(1, 1, 1, 2, 2, 2, 2, 2))(EVIDENCE).is_label_issue.sum() in (0, 3)
    assert not at_noise_rate(lambda _: ranked(*[4.0] * 8))(EVIDENCE).is_label_issue.any()
    nothing = at_noise_rate(lambda _: ranked(1, 2, 3, 4, 5, 6, 7, 8))(replace(EVIDENCE, noise_rate=0.0))
    assert not nothing.is_label_issue.any()


def test_without_an_estimate() -> None:
    with pytest.raises(ConfigError, match="an estimate of the noise rate, but got none"):
        at_noise_rate(lambda _: ranked(1, 2))(replace(EVIDENCE, noise_rate=None))


@pytest.mark.parametrize("name", RECUT)
def test_they_read_what_their_baseline_reads_and_the_dynamics(name: str) -> None:
    own = BASELINES[name.removesuffix("_at_noise_rate")]
    assert DETECTORS[name].reads == ("dynamics", *own.reads)
    assert DETECTORS[name].name == name
