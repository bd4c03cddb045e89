"""A run whose data, outputs and cache lie on an S3 server of another address, whose credentials stand in the URI."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.csv as pacsv
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from dynacor_ray.core import storage
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.export.cleaned_copy import clean_run
from dynacor_ray.export.tables import export_run
from dynacor_ray.report.build import make_report
from dynacor_ray.runs.directory import BEST, SUMMARY, TRAININGS
from dynacor_ray.workflows.detect import detect
from dynacor_ray.workflows.sweep import sweep
from tests.engine.conftest import write_features

SECRET = "SECRET1234"


@pytest.fixture
def store() -> Iterator[str]:
    """Where a bucket of an S3 server on loopback is: a format with `{}` for the path."""
    pytest.importorskip("moto", reason="pip install -e '.[dev]' brings the S3 server")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while server.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        query = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        uri = f"s3://KEY:{SECRET}@bucket/{{}}?{query}"
        pafs.FileSystem.from_uri(uri.format("x") + "&allow_bucket_creation=true")[0].create_dir("bucket")
        yield uri
    finally:
        server.kill()
        server.wait()


def everything(place: Location) -> dict[str, bytes]:
    """Path below `place` -> content."""
    infos = place.filesystem.get_file_info(pafs.FileSelector(place.path, recursive=True))
    files = [info.path for info in infos if info.is_file]
    return {path[len(place.path) + 1 :]: place.filesystem.open_input_file(path).read() for path in files}


def test_a_whole_run_and_a_sweep(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = locate(store.format("data.parquet"))
    data.write_bytes(write_features(tmp_path / "data.parquet", 300).read_bytes())
    options = {"cluster": "none", "epochs": 2, "clustering_epochs": 1, "cache": store.format("cache")}
    result = detect(data.uri, out=store.format("runs/a"), **options)
    assert sorted(result.to_pandas()["instance_id"]) == list(range(300))

    other = data.uri.replace(SECRET, SECRET + "56")  # the server looks at neither
    detect(other, out=store.format("runs/a"), **options)
    assert "is complete: nothing to do" in capfd.readouterr().err, "the same run with another password"

    monkeypatch.setattr(storage, "_CREDENTIALS", {})  # as in another process
    run = locate(store.format("runs/a"))
    assert make_report(run).path == "bucket/runs/a/report.html"
    out = locate(store.format("out/rows.csv"))
    assert export_run(run, out, False, None, "", None) == pacsv.read_csv(io.BytesIO(out.read_bytes())).num_rows == 300
    cleaned = locate(store.format("out/cleaned.parquet"))
    done = clean_run(run, cleaned, "drop", None, False)
    assert done.changed == result.summary.num_flagged > 0
    assert pq.read_table(io.BytesIO(cleaned.read_bytes())).num_rows == 300 - done.changed
    assert done.log.path == "bucket/out/cleaned.parquet.changes.csv"

    swept = sweep(data.uri, out=store.format("runs/s"), gammas=[0.1, 0.2], alphas=[0.5], **options)
    assert len(swept.run.names()) == len(set(swept.run.names()))
    assert {SUMMARY, TRAININGS, BEST} <= set(swept.run.names())
    assert len((swept.run / TRAININGS).names()) == 2, "a folder per training"
    assert (swept.run / BEST / SUMMARY).exists()

    written = everything(locate(store.format("")))
    assert len(written) > 20
    for name, content in written.items():
        assert SECRET.encode() not in content, name
        assert ".part" not in name
        assert "?" not in name
    shown = capfd.readouterr()
    assert "s3://***@bucket/runs/a" in shown.out + shown.err or "s3://***@bucket/runs/s" in shown.out + shown.err
    assert SECRET not in shown.out + shown.err
