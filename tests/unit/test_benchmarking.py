"""The arithmetic of the benchmarks; what they measure is no matter for a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import bench_clustering
import bench_recording
import benchmarking
import numpy as np
import pyarrow.parquet as pq
import pytest
from benchmarking import Lap, MemoryWatch, Sample, Turns, take_turns

from dynacor_ray.core import schema

needs_proc = pytest.mark.skipif(not benchmarking.PROC.is_dir(), reason="memory is read from /proc")


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


def test_processes_below_another() -> None:
    assert sorted(benchmarking.below(2, {2: 1, 3: 2, 4: 3, 5: 1, 6: 4})) == [2, 3, 4, 6]


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


@needs_proc
def test_memory_of_a_child_is_seen() -> None:
    with MemoryWatch(os.getpid(), interval=0.05) as watch:
        hold = "import time; kept = bytearray(80 << 20); time.sleep(0.6)"
        subprocess.run([sys.executable, "-c", hold], check=True)
    last_named = {name for sample in watch.samples for _, name in sample.bytes_of}
    assert last_named
    most = max(sum(size for (pid, _), size in s.bytes_of.items() if pid != os.getpid()) for s in watch.samples)
    assert 80 << 20 < most < 400 << 20


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


def test_recording_is_compared_with_the_same_loop(capsys: pytest.CaptureFixture[str]) -> None:
    bench_recording.main(bench_recording.Options(rows=300, dim=8, classes=3, repeats=2))
    report = json.loads(capsys.readouterr().out)
    assert report["ratios"]["recording on / off"]["budget"] == "<= 1.03"
    assert [len(values) for values in report["seconds"].values()] == [2, 2]
    assert 300 < report["sizes"]["rows"] < 400


def test_the_clustering_is_compared_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    bench_clustering.main(bench_clustering.Options(sizes=("600x4",), plain_rows=300, repeats=1))
    report = json.loads(capsys.readouterr().out)
    assert report["ratios"]["600x4"]["budget"] == ">= 5"
    assert report["sizes"]["600x4"] | {"patterns": 0} == {"rows": 600, "epochs": 4, "patterns": 0, "plain_rows": 300}
    assert 1 < report["sizes"]["600x4"]["patterns"] <= 16
