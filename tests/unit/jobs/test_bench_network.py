"""The benchmark of a network's training, as small as can be."""

from __future__ import annotations

import json

import bench_network
import pytest


def test_recording_is_compared_with_the_same_network(capsys: pytest.CaptureFixture[str]) -> None:
    options = bench_network.Options(network="cifar_resnet8", rows=40, image_size=8, classes=2, batch_size=16, repeats=1)
    bench_network.main(options)
    report = json.loads(capsys.readouterr().out)
    assert report["ratios"]["recording on / off"]["budget"] == "<= 1.03"
    assert set(report["images_per_second"]) == {"recording on", "recording off", "plain loop"}
    assert report["device"] == "cpu"
