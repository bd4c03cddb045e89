"""What doctor looks at and prints, with a cluster that is only said to be there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError
from dynacor_ray.engine.runtime import session
from dynacor_ray.workflows import cluster_session, doctor
from dynacor_ray.workflows.doctor import Check, DoctorReport
from tests.plans import machine


def test_a_finding_is_the_message_of_the_error() -> None:
    def fail() -> str:
        raise DataError("Expected rows, but got none; add some.")

    report = DoctorReport()
    assert report.look("data", lambda: "12 rows") is True
    assert report.ok
    assert report.look("labels", fail) is False
    assert report.look("cluster", lambda: "2 nodes") is True
    assert not report.ok, "one good check does not make up for a bad one"
    assert report.checks[1] == Check("labels", False, "Expected rows, but got none; add some.")


def test_a_defect_is_no_finding() -> None:
    with pytest.raises(ZeroDivisionError):
        DoctorReport().look("data", lambda: str(1 // 0))


def doctored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, price: float | None = None, data: str = "demo", **options: Any
) -> DoctorReport:
    """What doctor finds with a cluster of 4 CPUs that is only said to be there."""
    have = machine(cpus=4.0, memory_bytes=8e9, gpus=options.pop("gpus", 0.0))
    monkeypatch.setattr(cluster_session, "connect", lambda _: None)
    for module in (doctor, cluster_session, session):
        monkeypatch.setattr(module, "resources", lambda: have)
    return doctor.run_doctor(DetectConfig(data=data, out=str(tmp_path / "run"), epochs=10, **options), price)


def features(tmp_path: Path) -> str:
    """500 rows of 16 features: found and read at once."""
    values = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    columns = {"label": ["a", "b"] * 250, "feature": schema.fixed_size_list(values)}
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    return str(tmp_path / "f.parquet")


@pytest.mark.parametrize(("bad", "is_ok"), [(3, True), (9, False)])
def test_a_few_bad_rows_at_one_place_are_no_refusal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bad: int, is_ok: bool
) -> None:
    """Of 600 rows the limit of 1% lets 6 be unusable; the first sample sees them among 240."""
    values = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    values[:bad] = np.nan
    columns = {"label": ["a", "b"] * 300, "feature": schema.fixed_size_list(values)}
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    report = doctored(monkeypatch, tmp_path, data=str(tmp_path / "f.parquet"), quiet=True)
    assert report.ok is is_ok
    assert (f"got {bad} of 600" in repr(report)) is not is_ok


def test_doctor_prints_findings_whole_and_harmless(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"{tmp_path}/[bold]no\x1b[31mwhere/" + "and " * 40 + "end"
    report = doctored(monkeypatch, tmp_path, data=nowhere)
    assert [check.name for check in report.checks] == ["data", "cluster"]
    assert [check.ok for check in report.checks] == [False, True]
    said = capsys.readouterr().out
    assert "\x1b" not in said
    whole = re.sub(r"[\s│]", "", said)
    assert "/[bold]no" in whole
    assert "where/" + "and" * 40 + "end" in whole
    assert "Not ready: correct the lines marked 'no'." in said
    assert "What detect would do" not in said


def test_doctor_of_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = doctored(monkeypatch, tmp_path, gamma=0.5)
    assert report.ok, report.checks
    assert report.plan["run"]["rows"] == 1797
    assert report.plan["run"]["signals to record"] == (1797 + round(898.5)) * 10
    assert not (tmp_path / "run").exists()
    said = capsys.readouterr().out
    assert "1,797" in said
    assert "Ready." in said


def test_doctor_tells_time_memory_disk_and_cost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = doctored(monkeypatch, tmp_path, 7.2)
    found, told = report.plan["estimate"], report.plan["run"]
    assert found.read_seconds > 0
    assert found.embed_seconds > 0
    assert found.train_seconds == pytest.approx(10 * -(-1977 // 128) * 128 / found.rows_per_second)
    assert found.disk_bytes > 1977 * (192 * 4 + 10 * 12), "features and signals"
    assert found.memory_bytes > 1e8, "what Python and torch need is measured"
    assert told["cost"] == f"about {found.seconds * 0.002:,.2f} at 7.20 per hour"
    assert {"time for reading", "time for embedding", "time for training", "memory per worker"} <= told.keys()
    said = capsys.readouterr().out
    assert told["cost"] in said
    assert "not in it" in said


def test_doctor_of_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing to embed: images are decoded while it trains, once where they fit into memory."""
    network = {"network": "cifar_resnet8", "image_size": 8}
    report = doctored(monkeypatch, tmp_path, **network)
    assert report.ok, report.checks
    found, speeds = report.plan["estimate"], report.plan
    encoder = next(check.message for check in report.checks if check.name == "encoder")
    assert encoder == "cifar_resnet8 at 8 px, 75,290 parameters; nothing to embed"
    assert found.embed_seconds == 0
    steps = 10 * -(-1977 // 128) * 128 / found.rows_per_second
    assert found.train_seconds == pytest.approx(steps + 1977 * speeds["decode"] / 4)
    streamed = doctored(monkeypatch, tmp_path, worker_cache_gb=0.0, **network)
    found, speeds = streamed.plan["estimate"], streamed.plan
    steps = 10 * -(-1977 // 128) * 128 / found.rows_per_second
    assert found.train_seconds == pytest.approx(steps + 10 * 1977 * speeds["decode"] / 4)


def test_a_common_batch_norm_needs_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = doctored(monkeypatch, tmp_path, network="cifar_resnet8", sync_batchnorm=True)
    assert [check.message for check in report.checks if not check.ok] == [
        "Expected GPUs for --sync-batchnorm, but got a training on CPUs; leave it out: torch has it on GPUs only."
    ]


def test_doctor_of_given_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing to embed, and nothing but the packed rows and the signals on disk."""
    report = doctored(monkeypatch, tmp_path, data=features(tmp_path))
    assert report.ok, report.checks
    found = report.plan["estimate"]
    assert found.embed_seconds == 0
    assert found.disk_bytes == pytest.approx(500 * 16 * 4 + 550 * 10 * 12, rel=0.5)
    assert {"time for both", "time for reading", "time for training"} <= report.plan["run"].keys()


def test_without_a_price_nothing_is_said_of_cost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "cost" not in doctored(monkeypatch, tmp_path, data=features(tmp_path)).plan["run"]


def test_gpus_elsewhere_are_not_guessed_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    report = doctored(monkeypatch, tmp_path, 1.0, features(tmp_path), gpus=1)
    assert report.ok
    assert "estimate" not in report.plan
    assert "run doctor where one is" in report.plan["run"]["time"]


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_a_price_is_a_number(price: float) -> None:
    with pytest.raises(ConfigError, match="--price-per-hour of at least 0"):
        doctor.run_doctor(DetectConfig(data="demo"), price)


def finding(report: DoctorReport, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def test_doctor_applies_the_limits_of_detect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path,label\n" + "".join(f"img/{i}.png,{'ab'[i % 2]}\n" for i in range(40)))
    report = doctored(monkeypatch, tmp_path, data=str(table), encoder="pixels", quiet=True)
    check = finding(report, "labels and sample")
    assert not check.ok
    assert not report.ok
    assert (
        "40 of 40 (100.0%): 40 x missing file (img/0.png); say where the images are with --image-root" in check.message
    )
    assert f"(no file at {tmp_path}/img/0.png for 'img/0.png')" in check.message


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": ["nan", "b", "a", "b"] * 25}, "25 x label 'nan' taken for a missing one (f.parquet#0)"),
        ({"label": [None, *"ab" * 49, None]}, "2 of 100 (2.0%): 2 x missing"),
        (
            {"label": ["a", "b"] * 50, "instance_id": [3, 3, *range(10, 108)]},
            "distinct values of instance_id, but got 1",
        ),
        ({"label": ["-1", "1"] * 50}, "at least two classes, but got one, '1'; .*negative numbers"),
    ],
)
def test_doctor_is_not_ready_where_detect_refuses(
    columns: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = pa.array([[float(row), 1.0] for row in range(100)])
    pq.write_table(pa.table({"feature": values, **columns}), tmp_path / "f.parquet")
    report = doctored(monkeypatch, tmp_path, data=str(tmp_path / "f.parquet"), quiet=True)
    check = finding(report, "labels and sample")
    assert not check.ok
    assert message in check.message or re.search(message, check.message)


def test_doctor_says_what_was_taken_for_what(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    columns = {f"f{place}": np.arange(100.0) for place in range(4)} | {"kind": ["a", "b"] * 50}
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    report = doctored(monkeypatch, tmp_path, data=str(tmp_path / "f.parquet"), quiet=True)
    assert finding(report, "data").message == (
        "parquet: 100 rows, each with one feature. 4 columns, f0 to f3, are the features. "
        "Column 'kind' taken for the labels."
    )
