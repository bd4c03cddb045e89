"""The benchmark of Fig. 3: which rows and labels each training is given, and in which epoch each is judged."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bench_robust
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynacor_ray.core import schema


def test_each_method_is_judged_as_the_paper_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Features tell the row; of 400, a hundred are tested on."""
    true, features = np.arange(400) % 4, np.arange(800, dtype=np.float32).reshape(400, 2)
    names = pa.array([f"class {label}" for label in true]).dictionary_encode()
    pq.write_table(pa.table({"feature": schema.fixed_size_list(features), "label": names}), tmp_path / "data.parquet")
    trained: dict[str, Any] = {}

    def train(data: str, test: str, out: str, **told: Any) -> Any:
        trained[Path(out).name] = [pq.read_table(data), pq.read_table(test), told]
        figures = {"best": {"test_accuracy": 0.75}, "last": {"test_accuracy": 0.5}}
        return SimpleNamespace(summary=figures | {"detection": {"evaluation": {"f1": 0.25}}})

    monkeypatch.setattr(bench_robust.dynacor_ray, "train", train)
    noises = ("asymmetric:0.3", "instance_dependent:0.2")
    bench_robust.main(bench_robust.Options(data=str(tmp_path / "data.parquet"), truth="label", seeds=1, noises=noises))
    found = json.loads(capsys.readouterr().out)["asymmetric:0.3"]
    accuracy = {name: found[f"{name} accuracy"][0] for name in ("ce", "dividemix", "ddyna_s", "ddyna_l")}
    assert accuracy == {"ce": 50.0, "dividemix": 75.0, "ddyna_s": 75.0, "ddyna_l": 50.0}
    assert found["ddyna_l f1"] == [25.0, 0.0]
    assert "ce f1" not in found
    assert found["wrong"][0] == pytest.approx(30, abs=6)
    rows, test, told = trained["ddyna_l"]
    assert (rows.num_rows, test.num_rows, told["method"]) == (300, 100, "ddyna_l")
    for one, column in ((rows, "true_label"), (test, "given_label")):
        at = schema.matrix(one[schema.FEATURE])[:, 0].astype(int) // 2
        assert one[column].to_pylist() == true[at].tolist()
    assert "method" not in trained["ce"][2]


def test_the_next_class_is_that_of_the_next_number() -> None:
    numbers, names = (pa.chunked_array([one]) for one in (["10", "9", "2", "9"], ["cat", "bird", "dog", "bird"]))
    assert bench_robust.classes_of(numbers).tolist() == [2, 1, 0, 1]
    assert bench_robust.classes_of(numbers.cast(pa.int32())).tolist() == [2, 1, 0, 1]
    assert bench_robust.classes_of(names).tolist() == [1, 0, 2, 0]


def test_data_that_dynacor_opens() -> None:
    how: dict[str, Any] = {"rows": 50, "encoder": "pixels", "image_size": 8, "components": 5}
    with tempfile.TemporaryDirectory() as folder:
        options = bench_robust.Options(data="demo", cache=Path(folder), **how)
        features, table = bench_robust.bench_cleaning.read(options)
    assert (features.shape, table.num_rows) == ((50, 5), 50)
    assert set(bench_robust.classes_of(table["true_label"]).tolist()) == set(range(10))


def test_networks_are_trained_on_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    true = np.arange(40) % 4
    table = pa.table({"image": [bytes([row]) for row in range(40)], "true_label": true})
    pq.write_table(table, tmp_path / "data.parquet")
    seen: list[tuple[pa.Table, dict[str, Any]]] = []

    def train(data: str, **told: Any) -> Any:
        seen.append((pq.read_table(data), told))
        return SimpleNamespace(summary={"last": {"test_accuracy": 0.5}})

    features = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    monkeypatch.setattr(bench_robust.dynacor_ray, "train", train)
    monkeypatch.setattr(bench_robust.bench_cleaning, "read", lambda options: (features, table))
    for network, option, size in (("cifar_preact_resnet18", "recipe", None), ("cifar_resnet8", "network", 8)):
        how: dict[str, Any] = {"noises": ("instance_dependent:0.2",), "methods": ("ce",), "network": network}
        how |= {"network_size": size}
        bench_robust.main(bench_robust.Options(data=str(tmp_path / "data.parquet"), seeds=1, **how))
        rows, told = seen.pop()
        assert (told[option], told.get("image_size")) == (network, size)
        assert [true[image[0]] for image in rows["image"].to_pylist()] == rows["true_label"].to_pylist()
    capsys.readouterr()
