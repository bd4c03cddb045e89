"""The benchmark of the clustering, as small as can be."""

from __future__ import annotations

import json

import bench_clustering
import pytest


def test_the_clustering_is_compared_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    bench_clustering.main(bench_clustering.Options(sizes=("600x4",), plain_rows=300, repeats=1))
    report = json.loads(capsys.readouterr().out)
    assert report["ratios"]["600x4"]["budget"] == ">= 5"
    assert report["sizes"]["600x4"] | {"patterns": 0} == {"rows": 600, "epochs": 4, "patterns": 0, "plain_rows": 300}
    assert 1 < report["sizes"]["600x4"]["patterns"] <= 16
