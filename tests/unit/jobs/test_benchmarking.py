"""The arithmetic of the benchmarks; what they measure is no matter for a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import benchmarking
import numpy as np
import pyarrow.parquet as pq
import pytest
from benchmarking import Lap, MemoryWatch, Sample, Turns, take_turns

from dynacor_ray.core import schema

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="shares of memory are known on Linux only")


def test_variants_take_turns_and_change_their_order() -> None:
    called: list[str] = []

    def variant(name: str, lap: Lap | None) -> Lap | None:
        called.append(name)
        return lap

    turns = take_turns({"a": lambda: variant("a", Lap(3.0)), "b": lambda: variant("b", None)}, 3)
    assert called == ["a", "b", "b", "a", "a", "b"]
    assert turns.seconds["a"] == [3.0] * 3
    assert turns.cpu_seconds["a"] == []
    assert len(turns.seconds["b"]) == len(turns.cpu_seconds["b"]) == 3
    assert "ratio_of_cpu_seconds" not in turns.ratio("a", "b")


def test_a_ratio_is_one_of_medians_beside_its_budget() -> None:
    turns = Turns({"on": [2.0, 9.0, 2.2], "off": [2.0, 1.0, 7.0]}, {"on": [2.0, 3.0, 9.0], "off": [1.0, 2.0, 3.0]})
    found = turns.ratio("on", "off", at_most=1.03)
    cpu = {"ratio_of_cpu_seconds": 1.5, "ratio_of_least_cpu_seconds": 2.0}
    assert found == {"ratio": 1.1, "budget": "<= 1.03", "kept": False} | cpu
    assert turns.ratio("on", "off", at_least=1.1)["kept"]
    assert turns.ratio("off", "on")["ratio"] == 0.9091


def test_a_report_is_json_with_everything_needed_to_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    benchmarking.print_report(
        "This over that.", {"a / b": {"ratio": 2.0}}, {"a": [1.0, 3.0, 2.0]}, {"rows": 3}, runs=[]
    )
    report = json.loads(capsys.readouterr().out)
    assert report["compared"] == "This over that."
    assert report["median_seconds"] == {"a": 2.0}
    assert report["cores"] == os.cpu_count()
    assert {"python", "torch", "ray"} <= set(report["versions"])


def test_a_process_is_called_by_its_script_or_by_ray() -> None:
    assert benchmarking.name_of(["python3", "-m", "dynacor_ray.cli", "detect"]) == "dynacor_ray.cli"
    assert benchmarking.name_of(["ray::train_fn(rank=1)"]) == "ray::train_fn"
    assert benchmarking.name_of([]) == "?"


def test_peaks_are_of_the_sum_and_of_single_processes() -> None:
    samples = [
        Sample(0.5, {(1, "driver"): 100 * 10**6}),
        Sample(1.5, {(1, "driver"): 100 * 10**6, (2, "worker"): 300 * 10**6, (3, "worker"): 200 * 10**6}),
        Sample(2.5, {(1, "driver"): 400 * 10**6, (3, "worker"): 50 * 10**6}),
        Sample(9.0, {(1, "driver"): 90 * 10**6}),
    ]
    assert benchmarking.peaks(samples, {"start": 1.0, "train": 2.0}) == {
        "all_processes": 600,
        "samples": 4,
        "by_stage": {"start": 100, "train": 600, "exit": 90},
        "largest_process_of_a_kind": {"driver": 400, "worker": 300},
        "at_the_peak": [["worker", 300], ["worker", 200], ["driver", 100]],
    }
    assert benchmarking.peaks([]) is None


@on_linux
def test_memory_of_a_child_is_seen() -> None:
    """The child keeps its memory until two more looks were taken, however long a busy machine needs for them."""
    hold = "import sys; kept = bytearray(80 << 20); print('held', flush=True); sys.stdin.read()"
    with (
        subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
        MemoryWatch(os.getpid(), interval=0.01) as watch,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        before = len(watch.samples)
        while len(watch.samples) < before + 2:
            time.sleep(0.01)
        child.communicate()
    sizes = {pid: size for (pid, _), size in watch.samples[before + 1].bytes_of.items()}
    assert {os.getpid(), child.pid} <= sizes.keys()
    assert 80 << 20 < sizes[child.pid] < 400 << 20


def test_a_failed_command_is_told() -> None:
    with pytest.raises(SystemExit, match="no such luck"):
        benchmarking.run([sys.executable, "-c", "raise SystemExit('no such luck')"])
    done = benchmarking.run([sys.executable, "-c", "print('well')"])
    assert done.output == "well\n"


def test_made_up_features_do_not_depend_on_the_size_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarking, "CHUNK_ROWS", 100)
    shape = {"dim": 5, "classes": 3, "noise": 0.3}
    few = pq.read_table(benchmarking.write_features(tmp_path, rows=200, **shape))
    many = pq.read_table(benchmarking.write_features(tmp_path, rows=1050, **shape))
    assert many.num_rows == 1050
    assert many.slice(0, 200).equals(few)
    given, true = many[schema.GIVEN_LABEL].to_numpy(), many[schema.TRUE_LABEL].to_numpy()
    assert np.mean(given != true) == pytest.approx(0.3, abs=0.05)
    assert len(np.unique(schema.matrix(many[schema.FEATURE])[:, 0])) > 1000
    without = pq.read_table(benchmarking.write_features(tmp_path, rows=200, truth=False, **shape))
    assert without.equals(few.drop_columns([schema.TRUE_LABEL]))
