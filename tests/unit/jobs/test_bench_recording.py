"""The benchmark of recording, as small as can be."""

from __future__ import annotations

import json

import bench_recording
import pytest


def test_recording_is_compared_with_the_same_loop(capsys: pytest.CaptureFixture[str]) -> None:
    bench_recording.main(bench_recording.Options(rows=300, dim=8, classes=3, repeats=2))
    report = json.loads(capsys.readouterr().out)
    assert report["ratios"]["recording on / off"]["budget"] == "<= 1.03"
    assert [len(values) for values in report["seconds"].values()] == [2, 2]
    assert 300 < report["sizes"]["rows"] < 400
