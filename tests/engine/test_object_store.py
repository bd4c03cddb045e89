"""A run whose data, outputs and cache lie on an S3 server of another address, whose credentials stand in the URI."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from dynacor_ray.core import storage, table_files
from dynacor_ray.core.errors import DynacorError
from dynacor_ray.core.leftovers import remove_leftovers
from dynacor_ray.core.storage import locate
from dynacor_ray.export.cleaned_copy import clean_run
from dynacor_ray.export.tables import export_run
from dynacor_ray.report.build import make_report
from dynacor_ray.runs.directory import BEST, SUMMARY, TRAININGS
from dynacor_ray.workflows.compare import compare
from dynacor_ray.workflows.detect import detect
from dynacor_ray.workflows.sweep import sweep
from tests.engine.conftest import write_features
from tests.engine.faults import everything, kill_machine
from tests.engine.s3_server import KINDS, SECRET, Faults, empty_bucket, faulty_proxy, s3_server, uri_of


@pytest.fixture(scope="module")
def running() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture
def server(running: int) -> int:
    empty_bucket(running)
    return running


@pytest.fixture
def store(server: int) -> str:
    return uri_of(server)


def compared(data: str, out: str, cache: str) -> list[dict[str, Any]]:
    """What a comparison on given and on made labels found, but for the seconds."""
    detectors = ("dynacor", "aum", "fm_srm")
    options = {"epochs": 2, "clustering_epochs": 1, "cluster": "none", "quiet": True}
    found = compare(data, out=out, cache=cache, detectors=detectors, label_noise=("given", "symmetric:0.2"), **options)
    return found.judgments().drop_columns("seconds").to_pylist()


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

    on_disk = compared(str(tmp_path / "data.parquet"), str(tmp_path / "c"), str(tmp_path / "cache"))
    assert compared(data.uri, store.format("runs/c"), store.format("cache")) == on_disk

    written = everything(locate(store.format("")))
    assert len(written) > 20
    for name, content in written.items():
        assert SECRET.encode() not in content, name
        assert ".part" not in name
        assert "?" not in name
    shown = capfd.readouterr()
    assert "s3://***@bucket/runs/a" in shown.out + shown.err or "s3://***@bucket/runs/s" in shown.out + shown.err
    assert SECRET not in shown.out + shown.err


def test_a_small_file_takes_three_requests(server: int) -> None:
    """Its size when it is opened, its content, and whether it was replaced meanwhile."""
    locate(uri_of(server).format("f")).write_bytes(b"[1]")
    counts = []
    for _ in range(3):  # a busy machine answers late, and a request is repeated then
        with faulty_proxy(server, faults := Faults(0.0)) as port:
            assert locate(uri_of(port).format("f")).read_bytes() == b"[1]"
        counts.append(sum(faults.done.values()))
    assert min(counts) == 3


def test_a_small_file_that_is_replaced_once_it_is_open(server: int) -> None:
    old, new = b"[1]", b"[1, 2, 3]"

    class Replaced(Faults):
        def next(self) -> str:
            if self.done.total() == 1:  # between the first two requests of a reader
                locate(uri_of(server).format("f")).write_bytes(new)
            return super().next()

    locate(uri_of(server).format("f")).write_bytes(old)
    with faulty_proxy(server, Replaced(0.0)) as port:
        assert locate(uri_of(port).format("f")).read_bytes() == new


def test_a_large_table_and_what_dead_runs_left(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms of a table replace one another; what is old goes by the time that the store gives its files."""
    place = locate(store.format("run/issues.parquet"))
    rows = pa.table({"number": range(1000)})
    for most in (2000, 1 << 30, 2000, 2000):
        monkeypatch.setattr(table_files, "MOST_BYTES", most)
        table_files.write_rows(place, rows.schema, [rows.slice(first, 100) for first in range(0, 1000, 100)])
        assert table_files.read_rows(place) == rows
        assert place.exists() == (most > 2000)
        assert (len(table_files.table_files(place)) > 1) == (most == 2000)
        assert len((place.parent / "issues").names()) == (len(table_files.table_files(place)) + 1) * (most == 2000)
    cache = locate(store.format("cache"))
    for name in ("dead/part.parquet", "alive/part.parquet", "half.part"):
        (cache / name).write_bytes(b"x")
    assert remove_leftovers(cache, cache.names()) == []
    assert remove_leftovers(cache, ["dead", "half.part", "missing"], seconds=-1) == ["dead", "half.part"]
    assert cache.names() == ["alive"]


OPTIONS = {"cluster": "none", "epochs": 3, "clustering_epochs": 1, "checkpoint_seconds": 0.0, "quiet": True}


def assert_readable(written: dict[str, bytes]) -> None:
    """Every file that has its final name is whole."""
    for name, content in written.items():
        if name.endswith(".parquet"):
            pq.read_table(io.BytesIO(content))
        elif name.endswith(".json"):
            json.loads(content)


DRIVER = f"""
import sys
from dynacor_ray.workflows.detect import detect
data, out, cache, cluster = sys.argv[1:]
detect(data, out=out, cache=cache, **{OPTIONS | {"epochs": 5, "batch_size": 8}} | {{"cluster": cluster}})
"""


@pytest.mark.slow  # starts two processes and a store
@pytest.mark.parametrize("cluster", ["none", "local"])
def test_a_killed_driver_is_resumed_by_the_same_command(server: int, tmp_path: Path, cluster: str) -> None:
    """On a store that answers late at times, at whatever the driver did then: nothing lost, nothing doubled."""
    options = OPTIONS | {"epochs": 5, "batch_size": 8}
    local = write_features(tmp_path / "data.parquet", 300)
    detect(str(local), out=str(tmp_path / "run"), cache=str(tmp_path / "cache"), **options)
    locate(uri_of(server).format("data.parquet")).write_bytes(local.read_bytes())
    run = locate(uri_of(server).format("runs/a"))
    with faulty_proxy(server, Faults(0.05, ("slow",))) as port:
        places = [uri_of(port).format(name) for name in ("data.parquet", "runs/a", "cache")]
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.getcwd()}
        driver = subprocess.Popen([sys.executable, "-c", DRIVER, *places, cluster], env=environment)
        deadline, progress = time.monotonic() + 300, run / "signals" / "progress.json"
        while not (progress.exists() and progress.read_json()["epochs"] >= 2):
            assert driver.poll() is None, "the driver ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.3)
        kill_machine(driver)
        stopped = everything(run)
        assert "summary.json" not in stopped
        assert_readable({name: content for name, content in stopped.items() if not name.endswith(".part")})
        detect(places[0], out=places[1], cache=places[2], **options)
    written = everything(run)
    assert_whole_on_store(written, tmp_path / "run", options["epochs"])
    first = {name for name in stopped if "epoch=00000" in name}
    assert first == {name for name in written if "epoch=00000" in name}, "the first epoch was not repeated"


def assert_whole_on_store(written: dict[str, bytes], calm: Path, epochs: int) -> None:
    """A run's files on a store: the tables of an undisturbed run on a disk, and of each epoch what counts."""
    assert_readable(written)
    assert not [name for name in written if name.endswith((".part", ".lock"))]
    for name in ("issues", "dynamics"):
        assert pq.read_table(io.BytesIO(written[f"{name}.parquet"])).equals(pq.read_table(calm / f"{name}.parquet"))
    listed = json.loads(written["signals/manifest.json"])
    assert len(listed) == epochs
    left = {name for name in written if name.startswith("signals/epoch=")}
    assert left == {f"signals/{name}" for names in listed.values() for name in names}, "nothing doubled"


@pytest.mark.parametrize(
    ("share", "kinds", "lagging"),
    [
        pytest.param(0.1, KINDS, False, id="a tenth of the requests"),
        *(pytest.param(0.3, (kind,), False, id=kind, marks=pytest.mark.slow) for kind in KINDS),
        pytest.param(0.5, KINDS, False, id="every other request", marks=pytest.mark.slow),
        pytest.param(0.05, KINDS, True, id="listings that lag", marks=pytest.mark.slow),
    ],
)
def test_a_store_that_fails(
    server: int, tmp_path: Path, share: float, kinds: tuple[str, ...], lagging: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run completes, or ends with an error of ours and goes on by the same command, with the tables of a disk."""
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.01)
    local = write_features(tmp_path / "data.parquet", 300)
    detect(str(local), out=str(tmp_path / "run"), cache=str(tmp_path / "cache"), **OPTIONS)
    locate(uri_of(server).format("data.parquet")).write_bytes(local.read_bytes())
    faults = Faults(share, kinds)
    faults.lagging = lagging
    ended = []
    with faulty_proxy(server, faults) as port:
        uri = uri_of(port)
        for _ in range(20):
            try:
                detect(uri.format("data.parquet"), out=uri.format("runs/a"), cache=uri.format("cache"), **OPTIONS)
                break
            except DynacorError as error:
                ended.append(str(error))
                assert_readable(everything(locate(uri_of(server).format(""))))
        else:
            raise AssertionError(ended)
    assert sum(faults.done.values()) - faults.done[""] > 3, "the store did fail"
    assert_readable(everything(locate(uri_of(server).format(""))))
    assert_whole_on_store(everything(locate(uri_of(server).format("runs/a"))), tmp_path / "run", OPTIONS["epochs"])
