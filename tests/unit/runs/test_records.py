"""Records of runs survive their files."""

from __future__ import annotations

import json

from dynacor_ray.runs.records import Judgment, choose_trial
from tests.judgments import TRIALS, failed, judged


def test_a_judgment_survives_json() -> None:
    for judgment in (judged(0.5), failed("disk")):
        assert Judgment(**json.loads(json.dumps(judgment.as_json()))) == judgment


def test_each_rule_chooses_by_its_own_score_and_never_by_the_truth() -> None:
    assert choose_trial(TRIALS, "validation_metric") is TRIALS[1]
    assert choose_trial(TRIALS, "noise_rate") is TRIALS[0]
    assert choose_trial([TRIALS[0], TRIALS[0]], "noise_rate") is TRIALS[0]
