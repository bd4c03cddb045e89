"""The benchmark of encoders, as small as can be."""

from __future__ import annotations

import json

import pytest

from tests.small_networks import CONV


def test_back_ends_are_compared_on_the_same_images(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("dynacor_ray.models.quiet_openvino")
    import bench_encoders  # with openvino it takes seconds

    name = f"timm:{CONV}:32"
    bench_encoders.main(bench_encoders.Options(encoders=(name,), images=3, pixels=64, repeats=2))
    report = json.loads(capsys.readouterr().out)
    assert {len(values) for values in report["seconds"].values()} == {2}
    assert report["ratios"][f"{name}, torch / openvino"]["ratio"] > 0
    assert report["networks"][name]["relative_difference_of_features"] < 1e-3
