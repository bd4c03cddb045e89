"""A classifier trained in spite of wrong labels: recovery, resume, what a run of detect is good for, and on Ray."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, RunDirectoryError
from dynacor_ray.engine.training.robust_module import RobustModule
from dynacor_ray.ground_truth.synthetic_noise import symmetric
from dynacor_ray.workflows.train import train
from tests.engine.conftest import Finished, write_features

HERE: dict[str, Any] = {"quiet": True, "cluster": "none"}
FAST: dict[str, Any] = HERE | {"epochs": 4, "batch_size": 64}
METHODS: list[dict[str, Any]] = [{"method": name} for name in ("dividemix", "ddyna_l", "ddyna_s")]


def files_of(run: Path) -> dict[str, Any]:
    """What must be equal in two trainings that are the same."""
    summary = json.loads((run / "summary.json").read_text())
    weights = (run / "model" / "model.safetensors").read_bytes()
    tables = [pq.read_table(run / name) for name in ("predictions.parquet", "issues.parquet") if (run / name).exists()]
    return {"epochs": summary["epochs"], "weights": weights, "tables": tables}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """1,200 digits of which 40% have a random other label, and 597 that are right."""
    folder, data = tmp_path_factory.mktemp("digits"), load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    features, true = data.data[order].astype(np.float32), data.target[order]
    given = symmetric(true[:1200], np.arange(1200), 0.4, 10, 0)
    for name, rows, labels in (("train", slice(1200), given), ("test", slice(1200, None), true[1200:])):
        columns = {"feature": schema.fixed_size_list(features[rows]), "given_label": labels, "true_label": true[rows]}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return {"data": str(folder / "train.parquet"), "test": str(folder / "test.parquet")}


def test_robust_losses_recover_from_40_percent_random_labels(digits: dict[str, str], tmp_path: Path) -> None:
    """Trained until cross-entropy has memorized the labels."""
    how = HERE | digits | {"epochs": 60, "learning_rate": 0.05, "cache": str(tmp_path / "cache")}
    found = {loss: train(**how, loss=loss, out=str(tmp_path / loss)).summary for loss in ("ce", "gce", "elr")}
    accuracy = {loss: summary["last"]["test_accuracy"] for loss, summary in found.items()}
    assert found["ce"]["epochs"][-1]["train_agreement"] > 0.95
    assert accuracy["gce"] > accuracy["ce"] + 0.03
    assert accuracy["elr"] > accuracy["ce"] + 0.03


@pytest.mark.slow
def test_dividemix_recovers_from_40_percent_random_labels(digits: dict[str, str], tmp_path: Path) -> None:
    how = HERE | digits | {"epochs": 60, "learning_rate": 0.05, "cache": str(tmp_path / "cache")}
    plain = train(**how, out=str(tmp_path / "ce")).summary
    for method in ("dividemix", "ddyna_l"):
        found = train(**how, method=method, out=str(tmp_path / method)).summary
        assert found["last"]["test_accuracy"] > plain["last"]["test_accuracy"] + 0.03
        assert found["detection"]["evaluation"]["f1"] > 0.95


@pytest.mark.parametrize(
    "how_trained", [{"loss": "gce"}, {"loss": "elr"}, *METHODS], ids=lambda how: "-".join(how.values())
)
def test_a_stopped_training_ends_as_if_it_had_not_been(
    how_trained: dict[str, str], digits: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped twice: before and after a checkpoint was due."""
    how = FAST | digits | how_trained | {"checkpoint_seconds": 0.0, "cache": str(tmp_path / "cache")}
    train(**how, out=str(tmp_path / "calm"))
    begin = RobustModule.begin_epoch
    for last in (2, 3):

        def stop(module: RobustModule, epoch: int, last: int = last) -> None:
            begin(module, epoch)
            if epoch == last:
                raise KeyboardInterrupt

        monkeypatch.setattr(RobustModule, "begin_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            train(**how, out=str(tmp_path / "stopped"))
    monkeypatch.setattr(RobustModule, "begin_epoch", begin)
    result = train(**how, out=str(tmp_path / "stopped"))
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "calm")
    names = {"config.json", "model", "predictions.parquet", "report.html", "summary.json"}
    names |= {"issues.parquet"} if "method" in how_trained else set()
    assert {path.name for path in (tmp_path / "stopped").iterdir()} == names
    again = train(**how, out=str(tmp_path / "stopped"))
    assert again.summary == result.summary
    rows = again.predictions().to_pandas()
    assert len(rows) == 597
    right = (rows["given_label"] == rows["predicted_label"]).mean()
    assert right == pytest.approx(again.summary["last"]["test_accuracy"]), "of the last epoch"
    if "method" in how_trained:
        issues, found = again.issues.to_pandas(), again.summary["detection"]
        assert (len(issues), issues["is_label_issue"].sum()) == (1200, found["num_flagged"])
        assert issues["is_label_issue"].equals(issues["label_quality"] < 0.5)


def test_what_a_run_flagged_is_left_out_relabeled_or_weighed(pristine: Finished, tmp_path: Path) -> None:
    test = str(write_features(tmp_path / "test.parquet", 1001, noise=0.5))  # the same rows; their true labels count
    how = FAST | {"data": str(pristine.data), "test": test, "cache": str(tmp_path / "cache")}
    flagged = sum(pq.read_table(pristine.run / "issues.parquet")["is_label_issue"].to_pylist())
    given = train(**how, out=str(tmp_path / "given")).summary
    assert (given["num_learned"], given["num_flagged"], given["judged_by"]) == (1001, 0, "true labels")
    agreement = {"given": given["epochs"][-1]["train_agreement"]}
    for name in ("drop", "relabel", "weigh"):
        options = {"without": str(pristine.run)} | ({} if name == "drop" else {name: True})
        made = train(**how, **options, out=str(tmp_path / name)).summary
        assert made["action"] == name
        assert made["num_flagged"] == flagged > 0
        assert made["num_learned"] == 1001 - flagged * (name == "drop")
        agreement[name] = made["epochs"][-1]["train_agreement"]
        assert made["last"]["test_accuracy"] > 0.8
    assert agreement["drop"] > agreement["given"] + 0.1
    assert agreement["relabel"] > agreement["given"] + 0.1
    weights = {name: files_of(tmp_path / name)["weights"] for name in agreement}
    assert len(set(weights.values())) == 4


@pytest.mark.parametrize(("method", "relabel"), [("dividemix", False), ("ddyna_l", True), ("ddyna_s", False)])
def test_a_method_on_what_a_run_left(
    method: str, relabel: bool, pristine: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were left out are not judged; of a relabeled row the suggested label is. The third epoch divides."""
    monkeypatch.setattr("dynacor_ray.workflows.train.best_epoch", lambda history: 2)
    how = FAST | {"without": str(pristine.run), "relabel": relabel, "cache": str(tmp_path / "cache")}
    result = train(str(pristine.data), method=method, gamma=0.1, out=str(tmp_path / "run"), **how)
    before = pq.read_table(pristine.run / "issues.parquet").to_pandas().set_index("instance_id").sort_index()
    after = result.issues.to_pandas().set_index("instance_id").sort_index()
    flagged = before["is_label_issue"]
    learned = before.index if relabel else before.index[~flagged]
    assert after.index.tolist() == learned.tolist()
    assert result.summary["num_learned"] == len(learned) < 1001 + relabel
    labels = before["given_label"].where(~flagged, before["predicted_label"]) if relabel else before["given_label"]
    assert after["given_label"].tolist() == labels[learned].tolist()
    assert result.summary["detection"].get("epoch", 3) == 3
    found = result.summary["detection"]["evaluation"]
    assert found["n"] == len(learned)
    true = pq.read_table(pristine.data)["true_label"].to_pandas()
    assert found["noise_rate"] == pytest.approx((after["given_label"] != true[learned]).mean())
    assert found["auroc"] > 0.6


def test_a_run_on_other_data_is_refused(pristine: Finished, tmp_path: Path) -> None:
    """The directory is free for the corrected command, which finds the data packed."""
    other, run = write_features(tmp_path / "other.parquet", 1001, seed=1), tmp_path / "run"
    with pytest.raises(RunDirectoryError, match="Expected a run on the same rows and labels as"):
        train(str(other), without=str(pristine.run), out=str(run), **FAST)
    assert [place.name for place in run.iterdir()] == ["cache"]
    packed = {place: place.stat().st_mtime_ns for place in run.rglob("part-*.parquet")}
    train(str(other), out=str(run), **FAST)
    assert packed == {place: place.stat().st_mtime_ns for place in run.rglob("part-*.parquet")} != {}


def test_test_rows_of_other_classes_are_refused(tmp_path: Path) -> None:
    data = write_features(tmp_path / "set.parquet", 300)
    test = pq.read_table(data)
    names = pa.array([f"other {label}" for label in test["true_label"].to_pylist()])
    test = test.drop_columns(["given_label", "true_label"]).append_column("given_label", names)
    pq.write_table(test, tmp_path / "test.parquet")
    with pytest.raises(DataError, match=r"In the test data: Expected .* 300 x label is not among the 4 classes"):
        train(str(data), test=str(tmp_path / "test.parquet"), out=str(tmp_path / "run"), **FAST)


@pytest.mark.parametrize("how", [{"loss": "elr"}, {"method": "ddyna_l", "gamma": 0.5}], ids=["elr", "ddyna_l"])
def test_a_network_on_images(how: dict[str, Any], tmp_path: Path) -> None:
    """Pixels in, a network out, which its model card's code builds again with the same predictions."""
    random = np.random.default_rng(0)
    for number in range(80):
        pixels = random.integers(0, 80, (10, 10, 3)) + 60 * (number % 3)
        folder = tmp_path / ("test" if number >= 60 else "data") / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.png")
    network = {"network": "cifar_resnet8", "image_size": 8} | how
    data, test = str(tmp_path / "data"), str(tmp_path / "test")
    result = train(data, test=test, out=str(tmp_path / "run"), **FAST | network | {"epochs": 2})
    rows = result.predictions().to_pylist()
    assert [row["uri"] for row in rows] == sorted(row["uri"] for row in rows)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]

    images = np.stack(
        [np.asarray(Image.open(tmp_path / "test" / row["uri"]).convert("RGB").resize((8, 8))) for row in rows]
    )
    namespace: dict[str, Any] = {"images": torch.from_numpy(images)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "run" / "model")
        exec(code, namespace)
    predicted = namespace["logits"].argmax(dim=1).tolist()
    assert np.mean([row["predicted_label"] == one for row, one in zip(rows, predicted, strict=True)]) > 0.7


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="cached"),
        pytest.param({"worker_cache_gb": 0.0}, id="streamed", marks=pytest.mark.slow),
    ],
)
def test_two_workers_on_ray(more: dict[str, Any], pristine: Finished, tmp_path: Path) -> None:
    """Rows with weights, an odd number of them, and targets that follow rows to other ranks."""
    test = str(write_features(tmp_path / "test.parquet", 1001, noise=0.0, row_group=100))
    how = FAST | {"cluster": "auto", "workers": 2, "loss": "elr", "without": str(pristine.run), "weigh": True}
    result = train(str(pristine.data), test=test, out=str(tmp_path / "run"), **how | more)
    assert result.summary["last"]["test_accuracy"] > 0.85
    assert result.predictions()["instance_id"].to_pylist() == list(range(1001))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("method", "cache"), [("dividemix", None), ("ddyna_s", 0.0)])
def test_two_workers_on_ray_divide_the_rows(
    method: str, cache: float | None, digits: dict[str, str], tmp_path: Path
) -> None:
    """Losses of all workers in one mixture; dynamics of rows that, streamed, come to other workers."""
    more = {"cluster": "auto", "workers": 2, "worker_cache_gb": cache, "learning_rate": 0.1, "epochs": 8}
    found = train(**FAST | digits | more, method=method, warm_up=3, out=str(tmp_path / "run")).summary
    assert found["last"]["test_accuracy"] > 0.8
    assert 0.3 < found["epochs"][-1]["labeled_share"] < 0.85
    assert found["detection"]["evaluation"]["f1"] > 0.7


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_one_worker_on_ray_learns_the_same(digits: dict[str, str], tmp_path: Path) -> None:
    for name, cluster in (("ray", "auto"), ("here", "none")):
        train(**FAST | digits | {"loss": "elr", "cluster": cluster, "out": str(tmp_path / name)})
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "here")
    shutil.rmtree(tmp_path / "ray")


def test_without_test_rows_there_is_a_model_alone(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    data = str(feature_set(300))
    result = train(data, out=str(tmp_path / "run"), tensorboard=True, **FAST)
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert events.read_bytes().count(b"train_agreement") == FAST["epochs"]
    again = train(data, out=str(tmp_path / "run"), **FAST)
    assert again.summary == result.summary, "how it is told of is no part of the result"
    assert result.summary["best"] is None
    assert "not tested" in repr(result)
    assert not (tmp_path / "run" / "predictions.parquet").exists()
    assert "Not tested." in (tmp_path / "run" / "model" / "README.md").read_text()
    assert "not tested" in (tmp_path / "run" / "report.html").read_text()
