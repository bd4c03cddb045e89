"""A whole run on small data: outputs, coverage, agreement between workers, resume, refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import make_config
from dynacor_ray.core import schema
from dynacor_ray.core.errors import (
    ClusterError,
    ConfigError,
    CoverageError,
    DataError,
    EncoderError,
    RunDirectoryError,
    TrainingError,
)
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import locate
from dynacor_ray.decision.fitted_decision import FittedDecision, fit_decision
from dynacor_ray.engine.data.ingest import ingest
from dynacor_ray.engine.dynamics.assemble import HAS_COPY
from dynacor_ray.engine.dynamics.clustering import fit_clusters, settle_noise_rate
from dynacor_ray.engine.dynamics.label_noise import scored_rows, with_log_odds
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.method.corruption import CorruptionConfig, is_selected
from dynacor_ray.models.encoders import EncoderSpec
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.registry import open_source
from dynacor_ray.workflows import dynamics_flow
from dynacor_ray.workflows.detect import detect, run_detect
from dynacor_ray.workflows.results import DetectResult
from tests.engine.conftest import FAST, ON_RAY, Finished


def dynamics(run: Path) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(run / "dynamics.parquet")
    return table["key"].to_numpy(), schema.matrix(table["margin"])


def again(there: Finished, **options: Any) -> DetectResult:
    """The command that made a finished run, once more."""
    return detect(str(there.data), **{"out": str(there.run), "cache": str(there.cache)} | FAST | options)


def decided(out: Path, issues: pa.Table, config: dict[str, Any]) -> tuple[FittedDecision, pa.Table]:
    """The label noise model fitted by the pure functions on what a run recorded, and the log odds of all its rows."""
    signals, table = RecordedSignals.read(locate(str(out))), pq.read_table(out / "dynamics.parquet")
    assert signals is not None
    ids, _ = schema.decode_key(table["key"].to_numpy())
    given = issues.sort_by("instance_id")["given_label"].to_numpy()[ids]
    corruption = CorruptionConfig(gamma=config["gamma"], seed=config["seed"])
    table = table.append_column(schema.GIVEN_LABEL, pa.array(given))
    table = table.append_column(HAS_COPY, pa.array(is_selected(ids, corruption)))
    classes, scores = map(schema.fixed_size_list, signals.class_scores(table["key"].to_numpy()))
    table = table.append_column(schema.LIKELY_CLASSES, classes).append_column(schema.ALL_CLASS_SCORES, scores)
    surest = settle_noise_rate(signals.noise_rate(config["batch_size"]), table, "early_margin", 4)
    decision = fit_decision(scored_rows(table, 4, config["seed"]), surest)
    return decision, with_log_odds(table, decision, 4, config["seed"])


@pytest.mark.usefixtures("cluster")
def test_a_run_leaves_the_documented_files(pristine: Finished) -> None:
    out, result = pristine.run, again(pristine)
    issues = pq.read_table(out / "issues.parquet")
    assert issues.schema.equals(schema.issues_schema())
    assert sorted(issues["instance_id"].to_pylist()) == list(range(1001))
    quality = issues["label_quality"].to_numpy()
    assert (np.diff(quality) >= 0).all()
    assert ((quality >= 0) & (quality <= 1)).all()
    flags = issues["is_label_issue"].to_numpy(zero_copy_only=False)
    assert np.array_equal(flags, quality < 0.5)
    summary = json.loads((out / "summary.json").read_text())
    assert asdict(result.summary) == summary
    assert repr(result) == f"<DetectResult {out}: {summary['num_flagged']:,} of 1,001 labels look wrong>"
    assert summary["num_flagged"] == flags.sum() == sum(row["flagged"] for row in summary["classes"])
    assert summary["num_rows"] == 1001
    assert summary["estimated_noise_rate"] == pytest.approx(0.2, abs=0.04)
    decision, log_odds = decided(out, issues, summary["config"])
    rate = decision.decision.rate
    assert [summary["estimated_noise_rate"], *summary["noise_rate_range"]] == pytest.approx(
        [rate.value, rate.low, rate.high], abs=1e-3
    )
    assert rate.low < 0.2 < rate.high
    likely = dict(zip(*(log_odds[name].to_pylist() for name in ("key", "log_odds")), strict=True))
    sure = [key for key, odds in likely.items() if key % 2 == 0 and abs(odds - decision.log_odds_cut) > 0.01]
    flagged = dict(zip((issues["instance_id"].to_numpy() << 1).tolist(), flags.tolist(), strict=True))
    assert [flagged[key] for key in sure] == [likely[key] >= decision.log_odds_cut for key in sure]
    assert summary["evaluation"]["f1"] > 0.75, "well separated classes with 20% symmetric noise"
    assert summary["corrupted_recall"] > 0.8
    assert np.allclose(np.sum(summary["transition_matrix"], axis=1), 1)
    assert len(summary["validation"]["epochs"]) == 3
    keys, margins = dynamics(out)
    assert margins.shape == (1001 + summary["num_corrupted"], 4)
    assert np.isfinite(margins).all()
    assert len(np.unique(keys)) == len(keys)
    assert result.dynamics().count() == len(keys)
    assert result.to_ray().schema().names == schema.issues_schema().names
    page = (out / "report.html").read_text()
    assert f"{summary['num_flagged']:,} of 1,001 labels look wrong" in page


def test_the_same_command_says_that_it_is_complete(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    out, first = finished.run, json.loads((finished.run / "summary.json").read_text())
    stamp = (out / "issues.parquet").stat().st_mtime_ns
    (out / "report.html").unlink()
    assert asdict(again(finished, quiet=False).summary) == first
    assert (out / "issues.parquet").stat().st_mtime_ns == stamp
    said = capsys.readouterr()
    assert "is complete: nothing to do" in said.err
    assert said.out.endswith(f"Report: {out}/report.html\n")
    assert (out / "report.html").exists()
    assert "labels that look wrong" in said.out


def test_a_directory_never_mixes_two_configurations(
    finished: Finished, feature_set: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunDirectoryError, match=r"gamma=0.1 there, 0.2 here; choose another --out"):
        again(finished, gamma=0.2)
    with pytest.raises(RunDirectoryError, match=r"data='.*' there, '.*' here; choose another --out"):
        detect(str(feature_set(400)), out=str(finished.run), cache=str(finished.cache), **FAST)
    (finished.run / "summary.json").unlink()
    monkeypatch.setattr(EncoderSpec, "fingerprint", lambda _: "0" * 16)
    with pytest.raises(RunDirectoryError, match="its weights, an installed package or the use of a GPU changed"):
        again(finished)


def test_a_lost_signal_file_is_named(finished: Finished) -> None:
    """Assembly proves coverage: it names the instances without a signal instead of going on."""
    listed = json.loads((finished.run / "signals" / "manifest.json").read_text())
    victim = finished.run / "signals" / listed["1"][0]
    pq.write_table(pq.read_table(victim).slice(2), victim)
    (finished.run / "summary.json").unlink()
    with pytest.raises(CoverageError, match=r"epoch 1, but got 2 missing \(instance_id 0, 1\)"):
        again(finished)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    "way",
    [{"workers": 2, "worker_cache_gb": 0.0}, pytest.param({"workers": 4}, marks=pytest.mark.slow)],
    ids=["two, streamed", "four"],
)
def test_any_number_of_workers_and_streaming_agree(way: dict[str, Any], tmp_path: Path, pristine: Finished) -> None:
    """Same corrupted set and full coverage whatever the number of workers and wherever the rows are kept; F1 alike."""
    options = ON_RAY | {"cache": str(pristine.cache)}
    one, more = again(pristine), detect(str(pristine.data), out=str(tmp_path / "run"), **options, **way)
    chosen = np.flatnonzero(is_selected(np.arange(1001), CorruptionConfig(gamma=0.1, seed=0)))
    expected = np.sort(np.concatenate([np.arange(1001) << 1, (chosen << 1) | 1]))
    for result in (one, more):
        keys, margins = dynamics(Path(result.run.path))
        assert np.array_equal(keys, expected)
        assert margins.shape == (len(expected), 4)
    assert one.summary.num_corrupted == more.summary.num_corrupted
    assert one.summary.evaluation["auroc"] == pytest.approx(more.summary.evaluation["auroc"], abs=0.02)
    # So few rows and epochs leave the estimate of the noise rate, and with it the cut, some way to move.
    assert one.summary.evaluation["f1"] == pytest.approx(more.summary.evaluation["f1"], abs=0.1)


def test_a_directory_with_other_files_is_refused(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(RunDirectoryError, match=r"with thesis\.tex and no config\.json; choose another --out"):
        detect(str(feature_set(400)), out=str(tmp_path / "mine"), **FAST)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_truth_does_not_touch_the_result(pristine: Finished, tmp_path: Path) -> None:
    """Permuting the true labels leaves every detector output bit-identical."""
    table = pq.read_table(pristine.data)
    order = np.random.default_rng(1).permutation(1001)
    at = table.schema.get_field_index("true_label")
    other = tmp_path / "other" / "set.parquet"
    other.parent.mkdir()
    pq.write_table(table.set_column(at, "true_label", table["true_label"].take(order)), other, row_group_size=300)
    first, second = again(pristine), detect(str(other), out=str(tmp_path / "permuted"), **FAST)
    assert first.issues.equals(second.issues)
    assert first.summary.evaluation != second.summary.evaluation
    assert np.array_equal(dynamics(pristine.run)[1], dynamics(tmp_path / "permuted")[1])
    assert second.summary.data.packed.startswith("cache/parquet-"), "moves with the run directory"


def test_ids_are_kept_and_unusable_rows_set_aside(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    """Ids of the source, a missing label, and a directory named like partitions, which are no columns."""
    data, out = feature_set(400), tmp_path / "label=7" / "key=3" / "feature=1"
    table = pq.read_table(data)
    ids = np.random.default_rng(0).choice(10**12, 400, replace=False)
    labels = table["given_label"].to_pylist()
    labels[7] = None
    table = table.set_column(table.schema.get_field_index("given_label"), "given_label", [labels])
    pq.write_table(table.append_column("instance_id", [ids]), data, row_group_size=100)
    with pytest.raises(DataError, match="1 of 400"):
        detect(str(data), out=str(out), max_invalid_share=0.0, **FAST)
    result = detect(str(data), out=str(out), classes=["0", "1", "2", "3"], **FAST)
    assert result.summary.data.quarantined == 1
    assert result.summary.data.quarantine_reasons == {"missing label": 1}
    assert set(result.issues["instance_id"].to_pylist()) == set(ids.tolist()) - {ids[7]}
    assert result.dynamics().schema().names == schema.dynamics_schema(4).names
    assert detect(str(data), out=str(out), classes=("0", "1", "2", "3"), **FAST).summary == result.summary


def test_too_many_unusable_rows_stop_the_run(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    data, out = feature_set(500), tmp_path / "run"
    table = pq.read_table(data)
    labels = [None] * 10 + table["given_label"].to_pylist()[10:]
    pq.write_table(table.set_column(table.schema.get_field_index("given_label"), "given_label", [labels]), data)
    with pytest.raises(DataError, match=r"10 of 500 \(2.0%\): 10 x missing label.*--max-invalid-share"):
        detect(str(data), out=str(out), **FAST)
    assert not list(out.rglob("*.json")), "nothing that looks like a run or a data set is left"


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"workers": 64, "cluster": "auto"}, ClusterError, "a CPU for each of 64 workers, but got 4 CPUs"),
        ({"gpu": "yes", "cluster": "auto"}, ClusterError, "a GPU for each of 1 workers, but got 0 GPUs"),
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


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("options", [FAST, ON_RAY], ids=["one process", "Ray"])
def test_divergence_is_told_and_not_retried(pristine: Finished, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match=r"NaN"):
        detect(str(pristine.data), out=str(tmp_path / "run"), cache=str(pristine.cache), learning_rate=1e12, **options)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_storage_that_cannot_be_written(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Expected to (write|read) .*file/run"):
        detect(str(feature_set(400)), out=str(tmp_path / "file" / "run"), **FAST)


def test_fsspec_run_directory(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that only fsspec knows serves for every output."""
    monkeypatch.setattr("dynacor_ray.core.storage.pafs", _PyarrowWithoutProtocols())
    result = run_detect(make_config(DetectConfig, str(feature_set(400)), out=f"local://{tmp_path}/run", **FAST))
    assert isinstance(result.run.filesystem, pafs.PyFileSystem)
    assert {"config.json", "summary.json", "dynamics.parquet"} <= {p.name for p in (tmp_path / "run").iterdir()}
    assert result.issues.num_rows == 400


class _PyarrowWithoutProtocols:
    """pyarrow.fs as it is for a protocol that it does not know."""

    class FileSystem:
        @staticmethod
        def from_uri(uri: str) -> None:
            raise pa.ArrowInvalid(f"Unrecognized filesystem type in URI: {uri}")

    def __getattr__(self, name: str) -> Any:
        return getattr(pafs, name)


def test_the_released_variant(pristine: Finished, tmp_path: Path) -> None:
    """Copies from a fixed pool, and as every published variant flags by Eq. 4; the cache serves any run on the data."""
    packed = sorted(pristine.cache.rglob("part-*.parquet"))
    options = FAST | {"cache": str(pristine.cache), "variant": "released"}
    result = detect(str(pristine.data), out=str(tmp_path / "run"), **options)
    assert sorted(pristine.cache.rglob("part-*.parquet")) == packed, "packed once"
    keys, _ = dynamics(tmp_path / "run")
    config = CorruptionConfig(gamma=0.1, seed=0, copy_pool=0.9)
    assert set(keys[(keys & 1) == 1] >> 1) == set(np.flatnonzero(is_selected(np.arange(1001), config)))
    issues = result.issues
    flags = issues["is_label_issue"].to_numpy()
    assert np.array_equal(flags, issues["noise_score"].to_numpy() > 0.5)
    assert np.array_equal(flags, issues["label_quality"].to_numpy() < 0.5)


@pytest.mark.usefixtures("cluster")
def test_errors_of_remote_code_come_back_as_themselves(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    """A DataError raised in a Ray task is a DataError with its own one-line message, not a wrapper with a traceback."""
    data = feature_set(500)
    table = pq.read_table(data)
    ids = pa.array([None, *range(1, 500)], pa.int64())
    pq.write_table(table.append_column("instance_id", ids), data)
    with pytest.raises(DataError, match="instance_id") as caught:
        detect(str(data), out=str(tmp_path / "run"), **ON_RAY)
    assert type(caught.value) is DataError
    assert "Traceback" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_packing_again_beside_a_run_leaves_its_files_in_place(finished: Finished, tmp_path: Path) -> None:
    (folder,) = finished.cache.iterdir()
    before = {p.relative_to(folder) for p in folder.rglob("part-*.parquet")}
    place = locate(str(folder / "dataset"))
    (place / "manifest.json").delete()
    ingest(open_source(str(finished.data), SourceOptions()), place, 0.01, Progress(quiet=True))
    assert before < {p.relative_to(folder) for p in folder.rglob("part-*.parquet")}
    other = again(finished, out=str(tmp_path / "other"), seed=3)
    assert other.summary.num_rows == 1001


@pytest.mark.parametrize("content", ['{"model_type": "bert"}', "[1]", "{"])
def test_a_config_of_another_program_is_refused(feature_set: Callable[..., Path], tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=r"choose another --out"):
        detect(str(feature_set(400)), out=str(tmp_path), **FAST)
    assert (tmp_path / "config.json").read_text() == content


def test_duplicates_and_a_far_row_do_no_harm(tmp_path: Path) -> None:
    """200 rows four times each, a fifth of the labels wrong, and one row a thousand times as large."""
    random = np.random.default_rng(0)
    true = random.permutation(np.arange(200) % 4)
    features = (random.normal(size=(200, 16)) + 3.0 * np.eye(4, 16)[true]).astype(np.float32)
    rows = random.permutation(np.repeat(np.arange(200), 4))
    features[rows[5]] *= 1000
    wrong = random.random(800) < 0.2
    given = np.where(wrong, (true[rows] + random.integers(1, 4, 800)) % 4, true[rows])
    data = tmp_path / "data.parquet"
    columns = {"feature": schema.fixed_size_list(features[rows]), "label": given, "true_label": true[rows]}
    pq.write_table(pa.table(columns), data)
    result = detect(str(data), out=str(tmp_path / "run"), quiet=True, cluster="none")
    issues = result.issues.sort_by("instance_id")
    first = {row: int(np.flatnonzero(rows == row)[0]) for row in range(200)}
    assert issues["duplicate_of"].to_pylist() == [first[row] for row in rows.tolist()]
    summary = result.summary
    assert summary.evaluation is not None
    assert summary.evaluation["f1"] > 0.9, ".42 where a row's label is seen in its twins"
    different = [row for row in range(200) if len(set(given[rows == row].tolist())) > 1]
    assert summary.duplicates is not None
    assert summary.duplicates["groups"] == 200
    assert summary.duplicates["conflicting_groups"] == len(different)
    assert any(f"{4 * len(different):,} rows in {len(different)} groups are the same" in w for w in summary.warnings)
    assert any("4 of 800 feature vectors are far from all others" in warning for warning in summary.warnings)
    assert "Same row, different labels" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(("variant", "share"), [(None, 0.5), ("paper", 1.0)])
def test_the_clustering_sees_a_sample_where_a_model_decides(
    variant: str | None, share: float, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model sees all rows of --clustering-sample, the clustering beside it about 50,000; the paper's sees all."""
    seen: list[int] = []

    def fit(rows: pa.Table, *rest: Any) -> Any:
        seen.append(rows.num_rows)
        return fit_clusters(rows, *rest)

    monkeypatch.setattr(dynamics_flow, "BESIDE_THE_MODEL", 550)
    monkeypatch.setattr(dynamics_flow, "fit_clusters", fit)
    again(finished, out=str(finished.run.parent / "other"), variant=variant)
    assert seen == [pytest.approx(1101 * share, rel=0.2)]
