"""A comparison: evidence gathered once, equal to what is computed directly; resumed and extended."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.neighbors import NearestNeighbors as Reference

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError
from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import locate
from dynacor_ray.detectors import registry
from dynacor_ray.detectors.aum import AUM_TRAINING, threshold_samples
from dynacor_ray.detectors.confident_learning import FOLDS, OUT_OF_SAMPLE, fold_of
from dynacor_ray.detectors.cores import CORES_TRAINING
from dynacor_ray.detectors.evidence import Verdict
from dynacor_ray.detectors.fm_srm import PrototypeSums, prototype_margin
from dynacor_ray.detectors.nearest_neighbors import normalized
from dynacor_ray.engine.data.feature_blocks import gather_neighbors, gather_prototypes, load_blocks
from dynacor_ray.engine.data.ingest import ingest
from dynacor_ray.engine.data.training_rows import rows_of_features
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.registry import open_source
from dynacor_ray.workflows.cluster_session import plan_for
from dynacor_ray.workflows.compare import compare
from dynacor_ray.workflows.dynamics_flow import DynamicsFlow
from dynacor_ray.workflows.gather_evidence import gather_trained
from dynacor_ray.workflows.prepare import training_config

QUIET = Progress(quiet=True)
QUICK: dict[str, Any] = {"epochs": 3, "clustering_epochs": 1, "quiet": True, "cluster": "none"}


def packed(data: Path, tmp_path: Path) -> PackedDataset:
    return ingest(open_source(str(data), SourceOptions()), locate(str(tmp_path / "packed")), 0.01, QUIET)


def features_of(data: Path) -> tuple[np.ndarray, np.ndarray]:
    features = schema.matrix(pq.read_table(data)["feature"])
    return np.arange(len(features)), features


@pytest.mark.usefixtures("cluster")
def test_features_neighbors_and_prototypes(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block by block, and as a library does it with all rows at once."""
    monkeypatch.setattr("dynacor_ray.engine.data.feature_blocks.BLOCK_ROWS", 128)
    data = feature_set(401)
    dataset = packed(data, tmp_path)
    blocks = load_blocks(dataset.files)
    ids, features = features_of(data)
    found = gather_neighbors(blocks, QUIET)
    unit = normalized(torch.from_numpy(features)).numpy()
    distance, index = Reference(n_neighbors=21, metric="cosine", algorithm="brute").fit(unit).kneighbors(unit)
    assert found["similarity"] == pytest.approx(1 - distance[:, 1:], abs=1e-5)
    assert (found["ids"] == ids[index[:, 1:]]).mean() > 0.999, "but for the last bit of a tie"
    labels = dataset.labels()
    margins = gather_prototypes(blocks, labels, 4)["prototype_margin"]
    sums = PrototypeSums(4, features.shape[1])
    sums.add(torch.from_numpy(features), torch.from_numpy(labels.labels))
    whole = prototype_margin(torch.from_numpy(features), torch.from_numpy(labels.labels), sums.prototypes())
    assert margins == pytest.approx(whole.numpy(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_the_panel_records_every_row_and_predicts_what_it_did_not_learn(
    feature_set: Callable[..., Path], tmp_path: Path
) -> None:
    dataset = packed(feature_set(401), tmp_path)
    config = DetectConfig(data="x", workers=2, epochs=4, learning_rate=0.1, batch_size=32)
    rows, plan = rows_of_features(dataset, None), plan_for(config)
    flow = DynamicsFlow(config, training_config(config), locate(str(tmp_path / "run")), dataset, rows, plan)
    found = gather_trained(flow, (AUM_TRAINING, OUT_OF_SAMPLE, CORES_TRAINING), QUIET)
    ids, given = dataset.labels().ids, dataset.labels().labels
    assert found["probabilities"].shape == (401, 4)
    assert found["probabilities"].sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (found["probabilities"].argmax(axis=1) == given).mean() > 0.5, "the folds have learned"
    assert [sample.tolist() for sample in found["threshold_sample"]] == [
        threshold_samples(ids, 4, 0, run).tolist() for run in (0, 1)
    ]
    for area, sample in zip(found["aum"], found["threshold_sample"], strict=True):
        assert area[~sample].mean() > area[sample].mean()
    assert np.isfinite(found["cores"]).all()
    assert set(fold_of(ids, FOLDS, 0)) == set(range(FOLDS))


def test_all_detectors_on_several_kinds_of_noise(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = str(feature_set(601)), str(tmp_path / "run")
    noises = ["given"]
    result = compare(data, out=out, label_noise=noises, **QUICK)
    table = result.to_pandas()
    assert sorted(set(table["detector"])) == sorted(registry.DETECTORS)
    assert len(table) == len(registry.DETECTORS)
    assert result.summary["failures"] == []
    assert table["message"].isna().all()
    assert (table["auroc"] > 0.5).mean() > 0.9
    assert (tmp_path / "run" / "comparison.png").read_bytes()[:4] == b"\x89PNG"

    # A second call has nothing to do; one more kind of noise trains for it alone.
    monkeypatch.setattr("dynacor_ray.workflows.experiment_grid.ray_session", forbidden)
    assert compare(data, out=out, label_noise=noises, **QUICK).summary == result.summary
    monkeypatch.undo()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "cells").rglob("*") if path.is_file()}
    names, noises = ["dynacor", "simifeat_v"], [*noises, "instance_dependent:0.3"]
    more = compare(data, out=out, label_noise=noises, detectors=names, **QUICK)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "what was judged is not judged again"
    assert more.summary["noises"] == noises
    rates = more.to_pandas().groupby("noise")["noise_rate"].first()
    assert rates["instance_dependent:0.3"] == pytest.approx(0.3, abs=0.06)
    assert "encoder features" in more.summary["config"]["made_from"]["instance_dependent:0.3"]
    assert {row["detector"] for row in more.summary["detectors"]} == {"dynacor", "simifeat_v"}


def forbidden(*_: Any) -> None:
    raise AssertionError("nothing is to be done")


def test_a_failing_detector_is_named_and_ends_nothing(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise DataError("Expected sense, but got none; look again.")

    def nothing(evidence: Any) -> Verdict:
        return Verdict(np.zeros(len(evidence.given_label), bool), np.full(len(evidence.given_label), np.nan))

    for name, judge in (("mean_margin", fail), ("mixture", nothing)):
        broken = dataclasses.replace(registry.DETECTORS[name], judge=judge)
        monkeypatch.setitem(registry.DETECTORS, name, broken)
    names = ["mean_margin", "mixture", "dynacor"]
    data, options = str(feature_set(401)), {"out": str(tmp_path / "run"), "detectors": names}
    summary = compare(data, **options, **QUICK).summary
    assert [(f["detector"], f["message"]) for f in summary["failures"]] == [
        ("mean_margin", "Expected sense, but got none; look again."),
        ("mixture", "Expected finite scores, but got NaN or infinity; lower --learning-rate."),
    ]
    monkeypatch.undo()
    assert compare(data, **options, **QUICK).summary["failures"] == [], "the same command tries again"


def test_seeds_are_judged_on_the_same_rows(tmp_path: Path) -> None:
    """The demo's noise depends on the seed: all seeds of a comparison see the rows of the first."""
    options = {"detectors": ["dynacor", "simifeat_v"], "label_noise": ["symmetric:0.3"]}
    table = compare("demo", out=str(tmp_path / "run"), seeds=[0, 1], **options, **QUICK).to_pandas()
    assert table["message"].isna().all()
    assert table.groupby("detector")["f1"].nunique().tolist() == [2, 2], "another noise for every seed"
    assert (table["f1"] > 0.5).all()


@pytest.mark.parametrize("noise", ["default_label:0.2:99", "one_sided:0.2:1:1"])
def test_classes_that_noise_names_exist(feature_set: Callable[..., Path], tmp_path: Path, noise: str) -> None:
    with pytest.raises(ConfigError, match=r"Expected (a default label|two classes) in 0\.\."):
        compare(str(feature_set(201)), out=str(tmp_path / "run"), label_noise=["symmetric:0.2", noise], **QUICK)
    assert not (tmp_path / "run" / "cells").exists(), "before any training"


def test_truth_is_needed_and_does_not_reach_a_detector(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    """Permuted truth changes every score of the judgment, and no flag."""
    data = feature_set(401)
    table = pq.read_table(data)
    column = table.schema.get_field_index(schema.TRUE_LABEL)
    shuffled = table[schema.TRUE_LABEL].take(pa.array(np.random.default_rng(0).permutation(401)))
    other = tmp_path / "permuted.parquet"
    pq.write_table(table.set_column(column, schema.TRUE_LABEL, shuffled), other)
    flags = []
    for number, source in enumerate((data, other)):
        names = ["dynacor", "simifeat_r", "fm_srm"]
        result = compare(str(source), out=str(tmp_path / f"run{number}"), detectors=names, **QUICK)
        flags.append(result.to_pandas()[["detector", "flagged_share"]].values.tolist())
    assert flags[0] == flags[1]
    partly = tmp_path / "partly.parquet"
    known = pa.array([label if i else None for i, label in enumerate(table[schema.TRUE_LABEL].to_pylist())])
    pq.write_table(table.set_column(column, schema.TRUE_LABEL, known), partly)
    with pytest.raises(DataError, match="1 of 401 without"):
        compare(str(partly), out=str(tmp_path / "partly"), label_noise=["symmetric:0.2"], **QUICK)
    assert not (tmp_path / "partly" / "cells").exists(), "before any training"
    bare = tmp_path / "bare.parquet"
    pq.write_table(table.drop_columns([schema.TRUE_LABEL]), bare)
    with pytest.raises(ConfigError, match="true labels to judge by"):
        compare(str(bare), out=str(tmp_path / "none"), **QUICK)
    assert not (tmp_path / "none").exists()
