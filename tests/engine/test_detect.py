"""A whole run on small data: outputs, coverage, agreement between workers, resume, refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from dynacor_ray import schema
from dynacor_ray.config import make_config
from dynacor_ray.engine.ingest import ingest
from dynacor_ray.errors import ClusterError, ConfigError, DataError, EncoderError, RunDirectoryError, TrainingError
from dynacor_ray.method.corruption import CorruptionConfig, is_selected
from dynacor_ray.models.encoders import EncoderSpec
from dynacor_ray.pipeline import DetectResult, detect, run_detect
from dynacor_ray.progress import Progress
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.registry import open_source
from dynacor_ray.storage import locate

FAST: dict[str, Any] = {"epochs": 4, "cluster_epochs": 2, "quiet": True, "batch_size": 64}


def dynamics(result: DetectResult) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(Path(result.run.path) / "dynamics.parquet")
    return table["key"].to_numpy(), schema.matrix(table["margin"])


def test_a_run_leaves_the_documented_files(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    data, out = feature_set(1001), tmp_path / "run"
    result = detect(str(data), out=str(out), **FAST)
    issues = pq.read_table(out / "issues.parquet")
    assert issues.schema.equals(schema.issues_schema())
    assert sorted(issues["instance_id"].to_pylist()) == list(range(1001))
    quality = issues["label_quality"].to_numpy()
    assert (np.diff(quality) >= 0).all()
    assert ((quality >= 0) & (quality <= 1)).all()
    flags = issues["is_label_issue"].to_numpy(zero_copy_only=False)
    assert np.array_equal(flags, quality < 0.5)
    summary = json.loads((out / "summary.json").read_text())
    assert summary == result.summary
    assert repr(result) == f"<DetectResult {out}: {summary['num_flagged']:,} of 1,001 labels look wrong>"
    assert summary["num_flagged"] == flags.sum() == sum(row["flagged"] for row in summary["classes"])
    assert summary["num_rows"] == 1001
    assert summary["estimated_noise_rate"] == pytest.approx(0.2, abs=0.08)
    assert flags.mean() == pytest.approx(summary["estimated_noise_rate"], abs=0.001), "as many as are thought wrong"
    assert summary["evaluation"]["f1"] > 0.75, "well separated classes with 20% symmetric noise"
    assert summary["planted_recall"] > 0.8
    assert np.allclose(np.sum(summary["transition_matrix"], axis=1), 1)
    assert len(summary["validation"]["epochs"]) == 3
    keys, margins = dynamics(result)
    assert margins.shape == (1001 + summary["num_corrupted"], 4)
    assert np.isfinite(margins).all()
    assert len(np.unique(keys)) == len(keys)
    assert result.dynamics().count() == len(keys)
    assert result.to_ray().schema().names == schema.issues_schema().names
    page = (out / "report.html").read_text()
    assert f"{summary['num_flagged']:,} of 1,001 labels look wrong" in page
    assert summary["data"]["packed"].startswith("cache/parquet-"), "moves with the run directory"


def test_the_paper_s_threshold_is_equation_4(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    result = detect(str(feature_set(601)), out=str(tmp_path / "run"), threshold="paper", **FAST)
    issues = result.issues()
    flags = issues["is_label_issue"].to_numpy()
    assert np.array_equal(flags, issues["noise_score"].to_numpy() > 0.5)
    assert np.array_equal(flags, issues["label_quality"].to_numpy() < 0.5)


def test_one_two_and_four_workers_and_streaming_agree(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    """Same corrupted set and full coverage whatever the number of workers and wherever the rows are kept; F1 alike."""
    data = feature_set(1501)
    ways = {
        "one": {},
        "two": {"workers": 2},
        "four": {"workers": 4},
        "streamed": {"workers": 2, "cache_gigabytes": 0.0},
    }
    options = FAST | {"cache": str(tmp_path / "cache"), "epochs": 6}
    results = {n: detect(str(data), out=str(tmp_path / n), **options, **way) for n, way in ways.items()}
    chosen = np.flatnonzero(is_selected(np.arange(1501), CorruptionConfig(gamma=0.1, seed=0)))
    expected = np.sort(np.concatenate([np.arange(1501) << 1, (chosen << 1) | 1]))
    scores, ranks = [], []
    for result in results.values():
        keys, margins = dynamics(result)
        assert np.array_equal(keys, expected)
        assert margins.shape == (len(expected), 6)
        scores.append(result.summary["evaluation"]["f1"])
        ranks.append(result.summary["evaluation"]["auroc"])
    assert len({result.summary["num_corrupted"] for result in results.values()}) == 1
    assert max(ranks) - min(ranks) < 0.02, ranks
    # So few rows and epochs leave the estimate of the noise rate, and with it the cut, some way to move.
    assert max(scores) - min(scores) < 0.1, scores


def test_the_same_command_says_that_it_is_complete(
    feature_set: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = feature_set(400), tmp_path / "run"
    first = detect(str(data), out=str(out), **FAST)
    stamp = (out / "issues.parquet").stat().st_mtime_ns
    (out / "report.html").unlink()
    again = detect(str(data), out=str(out), **(FAST | {"quiet": False}))
    assert again.summary == first.summary
    assert (out / "issues.parquet").stat().st_mtime_ns == stamp
    said = capsys.readouterr()
    assert "is complete: nothing to do" in said.err
    assert said.out.endswith(f"Report: {out}/report.html\n")
    assert (out / "report.html").exists()
    assert "labels that look wrong" in said.out


def test_a_directory_never_mixes_two_configurations(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    data, out = feature_set(400), tmp_path / "run"
    detect(str(data), out=str(out), **FAST)
    with pytest.raises(RunDirectoryError, match=r"gamma=0.1 there, 0.2 here; choose another --out"):
        detect(str(data), out=str(out), gamma=0.2, **FAST)
    feature_set(401)
    with pytest.raises(RunDirectoryError, match="the data changed since that run began"):
        detect(str(data), out=str(out), **FAST)


def test_a_directory_with_other_files_is_refused(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(RunDirectoryError, match=r"with thesis\.tex and no config\.json; choose another --out"):
        detect(str(feature_set(400)), out=str(tmp_path / "mine"), **FAST)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_truth_does_not_touch_the_result(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    """Permuting the true labels leaves every detector output bit-identical."""
    data = feature_set(600)
    table = pq.read_table(data)
    order = np.random.default_rng(1).permutation(600)
    at = table.schema.get_field_index("true_label")
    other = tmp_path / "other" / "set.parquet"
    other.parent.mkdir()
    pq.write_table(table.set_column(at, "true_label", table["true_label"].take(order)), other, row_group_size=300)
    runs = [detect(str(path), out=str(tmp_path / f"run{i}"), **FAST) for i, path in enumerate((data, other))]
    assert runs[0].issues().equals(runs[1].issues())
    assert runs[0].summary["evaluation"] != runs[1].summary["evaluation"]
    assert np.array_equal(dynamics(runs[0])[1], dynamics(runs[1])[1])


def test_ids_of_the_source_are_kept(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    data = feature_set(500)
    table = pq.read_table(data)
    ids = np.random.default_rng(0).choice(10**12, 500, replace=False)
    pq.write_table(table.append_column("instance_id", [ids]), data, row_group_size=100)
    issues = detect(str(data), out=str(tmp_path / "run"), **FAST).issues()
    assert set(issues["instance_id"].to_pylist()) == set(ids.tolist())


def test_unusable_rows_are_set_aside_and_counted(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    data = feature_set(500)
    table = pq.read_table(data)
    labels = table["given_label"].to_pylist()
    labels[7] = None
    table = table.set_column(table.schema.get_field_index("given_label"), "given_label", [labels])
    pq.write_table(table, data)
    result = detect(str(data), out=str(tmp_path / "run"), **FAST)
    assert result.summary["data"]["quarantined"] == 1
    assert result.summary["data"]["quarantine_reasons"] == {"missing label": 1}
    assert 7 not in result.issues()["instance_id"].to_pylist()
    assert 499 in result.issues()["instance_id"].to_pylist(), "ids are positions in the source"


def test_too_many_unusable_rows_stop_the_run(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    data, out = feature_set(500), tmp_path / "run"
    table = pq.read_table(data)
    labels = [None] * 10 + table["given_label"].to_pylist()[10:]
    pq.write_table(table.set_column(table.schema.get_field_index("given_label"), "given_label", [labels]), data)
    with pytest.raises(DataError, match=r"10 of 500 \(2.0%\): 10 x missing label.*--max-quarantine"):
        detect(str(data), out=str(out), **FAST)
    assert not list(out.rglob("*.json")), "nothing that looks like a run or a data set is left"
    assert detect(str(data), out=str(out), max_quarantine=0.05, **FAST).summary["num_rows"] == 490


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"workers": 64}, ClusterError, "a CPU for each of 64 workers, but got 4 CPUs"),
        ({"gpu": "yes"}, ClusterError, "a GPU for each of 1 workers, but got 0 GPUs"),
        ({"encoder": "pixels"}, ConfigError, "--encoder features .* but got --encoder pixels"),
        ({"encoder": "resnet999"}, EncoderError, "resnet999"),
    ],
)
def test_wrong_options_leave_nothing(
    feature_set: Callable[..., Path], tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    out = tmp_path / "run"
    with pytest.raises(error, match=message):
        detect(str(feature_set(400)), out=str(out), **(FAST | {"batch_size": 128} | options))
    assert not (out / "config.json").exists()
    assert not (out / "summary.json").exists()


def test_divergence_is_told_and_not_retried(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"NaN"):
        detect(str(feature_set(400)), out=str(tmp_path / "run"), learning_rate=1e12, **FAST)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_storage_that_cannot_be_written(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Expected to (write|read) .*file/run"):
        detect(str(feature_set(400)), out=str(tmp_path / "file" / "run"), **FAST)


def test_fsspec_run_directory(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that only fsspec knows serves for every output."""
    monkeypatch.setattr("dynacor_ray.storage.pafs", _PyarrowWithoutProtocols())
    result = run_detect(make_config(data=str(feature_set(400)), out=f"local://{tmp_path}/run", **FAST))
    assert isinstance(result.run.filesystem, pafs.PyFileSystem)
    assert {"config.json", "summary.json", "dynamics.parquet"} <= {p.name for p in (tmp_path / "run").iterdir()}
    assert result.issues().num_rows == 400


class _PyarrowWithoutProtocols:
    """pyarrow.fs as it is for a protocol that it does not know."""

    class FileSystem:
        @staticmethod
        def from_uri(uri: str) -> None:
            raise pa.ArrowInvalid(f"Unrecognized filesystem type in URI: {uri}")

    def __getattr__(self, name: str) -> Any:
        return getattr(pafs, name)


def test_released_variant_draws_copies_from_a_fixed_pool(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    result = detect(str(feature_set(1000)), out=str(tmp_path / "run"), variant="released", **FAST)
    keys, _ = dynamics(result)
    config = CorruptionConfig(gamma=0.1, seed=0, copy_pool=0.9)
    assert set(keys[(keys & 1) == 1] >> 1) == set(np.flatnonzero(is_selected(np.arange(1000), config)))


def test_errors_of_remote_code_come_back_as_themselves(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    """A DataError raised in a Ray task is a DataError with its own one-line message, not a wrapper with a traceback."""
    data = feature_set(500)
    table = pq.read_table(data)
    ids = pa.array([None, *range(1, 500)], pa.int64())
    pq.write_table(table.append_column("instance_id", ids), data)
    with pytest.raises(DataError, match="instance_id") as caught:
        detect(str(data), out=str(tmp_path / "run"), **FAST)
    assert type(caught.value) is DataError
    assert "Traceback" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_directories_named_like_partitions_are_no_columns(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "label=7" / "key=3" / "feature=1"
    result = detect(str(feature_set(400)), out=str(out), classes=["0", "1", "2", "3"], **FAST)
    assert result.dynamics().schema().names == schema.dynamics_schema(4).names
    again = detect(str(tmp_path / "set.parquet"), out=str(out), classes=("0", "1", "2", "3"), **FAST)
    assert again.summary == result.summary


def test_a_cache_is_shared_by_seeds_and_by_runs_at_the_same_time(
    feature_set: Callable[..., Path], tmp_path: Path
) -> None:
    """Packing again beside a run that reads the same data leaves that run's files in place."""
    data, cache = feature_set(400), tmp_path / "cache"
    detect(str(data), out=str(tmp_path / "one"), cache=str(cache), **FAST)
    (folder,) = cache.iterdir()
    before = sorted(p.relative_to(folder) for p in folder.rglob("part-*.parquet"))
    detect(str(data), out=str(tmp_path / "two"), cache=str(cache), **(FAST | {"seed": 3}))
    assert sorted(p.relative_to(folder) for p in folder.rglob("part-*.parquet")) == before, "packed once"
    place = locate(str(folder / "dataset"))
    (place / "manifest.json").delete()
    ingest(open_source(str(data), SourceOptions()), place, 0.01, Progress(quiet=True))
    assert set(before) < {p.relative_to(folder) for p in folder.rglob("part-*.parquet")}
    detect(str(data), out=str(tmp_path / "three"), cache=str(cache), **(FAST | {"seed": 4}))


def test_another_encoder_behind_the_same_name_is_refused(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = str(feature_set(400)), tmp_path / "run"
    detect(data, out=str(out), **FAST)
    (out / "summary.json").unlink()
    monkeypatch.setattr(EncoderSpec, "fingerprint", lambda _: "0" * 16)
    with pytest.raises(RunDirectoryError, match="its weights or an installed package changed"):
        detect(data, out=str(out), **FAST)


@pytest.mark.parametrize("content", ['{"model_type": "bert"}', "[1]", "{"])
def test_a_config_of_another_program_is_refused(feature_set: Callable[..., Path], tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=r"choose another --out"):
        detect(str(feature_set(400)), out=str(tmp_path), **FAST)
    assert (tmp_path / "config.json").read_text() == content
