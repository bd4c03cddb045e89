"""Records of runs survive their files."""

from __future__ import annotations

import json
from dataclasses import asdict

from dynacor_ray.runs.records import Judgment
from tests.judgments import failed, judged


def test_a_judgment_survives_json() -> None:
    for judgment in (judged(0.5), failed("disk")):
        assert Judgment(**json.loads(json.dumps(asdict(judgment)))) == judgment
