"""The parts of the engine that need no cluster: plan, coverage, ranges of ids, ranking, counting, signal files."""

from __future__ import annotations

import itertools
import logging
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.exceptions import OutOfDiskError

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ClusterError, DataError, StorageError, TrainingError
from dynacor_ray.core.manifest import DataFile, DatasetManifest
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.decision.noise_rate import BINS, NoiseRate
from dynacor_ray.engine.data.labels import GivenLabels, LabelTable
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.dynamics import assemble
from dynacor_ray.engine.dynamics.assemble import coverage_message, id_ranges
from dynacor_ray.engine.dynamics.clustering import FlagCounts, settle_noise_rate
from dynacor_ray.engine.runtime import session
from dynacor_ray.engine.runtime.session import Resources
from dynacor_ray.engine.training.job import Job, TrainConfig, TrainPlan, plan_training, trainings_at_once
from dynacor_ray.engine.training.signal_files import (
    complete,
    file_name,
    read_class_noise_rates,
    read_noise_rate,
    remove_unlisted,
    signal_table,
    write_confidence,
    write_joints,
    write_signals,
)
from dynacor_ray.models.image_classifiers import NetworkSpec
from dynacor_ray.workflows import doctor as doctor_module
from dynacor_ray.workflows.doctor import Check, DoctorReport

# ---------------------------------------------------------------------------------------------------------------- spill


@pytest.mark.parametrize(("free", "fits"), [(8_000_000_000, True), (5_900_000_000, False), (0, False)])
def test_what_the_object_store_cannot_hold_must_fit_on_the_disk(
    free: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 GB on two nodes with 3 GB of store: 1 GB each, and Ray leaves 5 GB of a disk of 100 GB free."""
    monkeypatch.setattr(session, "resources", lambda: machine(nodes=2, object_store_bytes=3e9))
    monkeypatch.setattr("shutil.disk_usage", lambda _: (100_000_000_000, 0, free))
    if fits:
        assert "3.0 GB in the object store, 3.0 GB to spill to" in session.require_spill_space(5_000_000_000)
    else:
        with pytest.raises(StorageError, match=r"1\.00 GB of room in .*, but got 0\.\d0 GB \(Ray leaves 5%"):
            session.require_spill_space(5_000_000_000)
    assert session.require_spill_space(3_000_000_000), "all of it fits into the store"


def test_a_full_disk_in_the_middle_of_a_run_is_told() -> None:
    full = r"room in .* but got a disk that is 95% full; free some space"
    with pytest.raises(StorageError, match=full), session.remote_errors():
        raise OutOfDiskError


# ----------------------------------------------------------------------------------------------------------------- plan


def machine(**have: Any) -> Resources:
    known = {"cpus": 8.0, "gpus": 0.0, "memory_bytes": 64e9, "nodes": 1, "object_store_bytes": 1e9}
    return Resources(**known | have)


def plan(
    workers: int = 1,
    gpu: str = "auto",
    cache: float | None = None,
    at_once: int = 1,
    least: int | None = None,
    **have: Any,
) -> TrainPlan:
    return plan_training(
        workers=workers,
        min_workers=least,
        gpu=gpu,
        checkpoint_seconds=15,
        max_failures=3,
        worker_cache_gb=cache,
        have=machine(**have),
        at_once=at_once,
    )


def test_one_machine() -> None:
    assert plan() == TrainPlan(
        workers=1,
        min_workers=1,
        use_gpu=False,
        cpus_per_worker=1.0,
        threads=8,
        cache_bytes=16_000_000_000,
        checkpoint_seconds=15,
        max_failures=3,
    )


def test_trainings_of_a_sweep_run_side_by_side_where_there_is_room() -> None:
    assert trainings_at_once(1, "auto", machine(cpus=2)) == 1
    assert trainings_at_once(1, "auto", machine(cpus=16)) == 12, "a quarter is left for reading"
    assert trainings_at_once(4, "auto", machine(cpus=16)) == 3
    assert trainings_at_once(50, "auto", machine(cpus=16)) == 1, "too many workers are refused elsewhere"
    assert trainings_at_once(2, "auto", machine(cpus=64, gpus=8)) == 4
    assert trainings_at_once(2, "no", machine(cpus=64, gpus=8)) == 24
    shared = plan(1, at_once=4)
    assert (shared.threads, shared.cache_bytes) == (2, 4_000_000_000)


def test_workers_share_a_node() -> None:
    four = plan(4)
    assert (four.threads, four.cache_bytes) == (2, 4_000_000_000)
    three = plan(3, nodes=2, cpus=16)  # two on one of the nodes
    assert (three.threads, three.cache_bytes) == (4, 8_000_000_000)


def test_a_step_has_no_more_threads_than_it_keeps_busy() -> None:
    """A CPU is left to Ray's processes; a network's steps are large enough for all."""

    def threads(dim: int, workers: int = 1, cpus: float = 16, **config: Any) -> int:
        facts = RowFacts(1, 0, 2, dim, np.zeros(dim, np.float32), 1.0, np.ones(2, np.int64))
        return Job(TrainConfig(**config), plan(workers, cpus=cpus), locate("anywhere"), facts).threads

    assert [threads(dim) for dim in (64, 512, 1280, 4096)] == [1, 2, 5, 15]
    assert threads(1280, cpus=2) == threads(1280, cpus=1) == 1
    assert (threads(1280, workers=2), threads(512, batch_size=512)) == (2, 8)
    assert threads(3072, network=NetworkSpec("cifar_resnet8", 32)) == 16


def test_workers_may_come_and_go() -> None:
    """What must be there are the fewest; a node that is left has no room for the workers of a lost one."""
    spread = plan(3, least=1, nodes=3, cpus=6, memory_bytes=3e9)
    assert (spread.workers, spread.min_workers, spread.cpus_per_worker) == (3, 1, 1.0)
    assert spread.memory_per_worker <= 3e9 < 2 * spread.memory_per_worker
    assert plan(8, least=2, cpus=4).workers == 8
    with pytest.raises(ClusterError, match="a CPU for each of 5 workers, but got 4 CPUs"):
        plan(8, least=5, cpus=4)
    on_gpus = plan(8, least=2, cpus=64, gpus=4)
    assert (on_gpus.use_gpu, on_gpus.memory_per_worker) == (True, 0)
    with pytest.raises(ClusterError, match="a GPU for each of 6 workers, but got 4 GPUs"):
        plan(8, "yes", least=6, cpus=64, gpus=4)


@given(workers=st.integers(1, 64), spare=st.floats(0, 64), nodes=st.integers(1, 70))
def test_some_cpu_is_always_left_for_data(workers: int, spare: float, nodes: int) -> None:
    """Also beside as many trainings as a sweep runs side by side."""
    cpus = workers + spare
    at_once = trainings_at_once(workers, "no", machine(cpus=cpus, nodes=nodes))
    assert at_once >= 1
    spread = plan(workers, at_once=at_once, cpus=cpus, nodes=nodes)
    assert 0 <= spread.cpus_per_worker <= 1
    on_a_node = -(-workers * at_once // nodes) * spread.cpus_per_worker
    assert spread.cpus_per_worker == 0 or cpus / nodes - on_a_node >= 1 - 1e-9, "a whole CPU on every node"
    assert spread.threads >= 1
    assert spread.cache_bytes > 0


@pytest.mark.parametrize(
    ("gpu", "gpus", "used"), [("auto", 2, True), ("auto", 1, False), ("no", 2, False), ("yes", 2, True)]
)
def test_gpus_are_used_when_there_is_one_for_each(gpu: str, gpus: int, used: bool) -> None:
    assert plan(2, gpu, gpus=gpus).use_gpu is used


def test_too_small_a_cluster() -> None:
    assert plan(8).workers == 8
    with pytest.raises(
        ClusterError, match=r"a CPU for each of 9 workers, but got 8 CPUs on 1 node\(s\); lower --workers"
    ):
        plan(9)
    with pytest.raises(ClusterError, match=r"a GPU for each of 2 workers, but got 1 GPUs; .* use --gpu auto"):
        plan(2, "yes", gpus=1)


FACTS = RowFacts(10, 1, 3, 4, np.zeros(4), 1.0, np.array([4, 3, 3]))


@pytest.mark.parametrize(("cache", "streamed"), [(None, False), (0.0, True), (1.0, False)])
def test_rows_that_do_not_fit_are_streamed(cache: float | None, streamed: bool) -> None:
    job = Job(TrainConfig(), plan(2, cache=cache), locate("/r"), FACTS)
    assert (job.rows.total, job.rows_per_rank) == (11, 6)
    assert job.streamed is streamed
    assert plan(cache=1.0).cache_bytes == 2**30


def test_the_cache_just_fits() -> None:
    bytes_needed = 6 * 4 * 4
    for spare, streamed in ((0, False), (-1, True)):
        spread = plan(2, cache=(bytes_needed + spare) / 2**30)
        assert Job(TrainConfig(), spread, locate("/r"), FACTS).streamed is streamed


# ------------------------------------------------------------------------------------------------------------- coverage


def test_coverage_message_names_the_instances() -> None:
    expected = schema.encode_key(np.arange(10), False)
    found = np.sort(np.concatenate([expected[2:], expected[5:6], schema.encode_key(np.array([3, 77]), True)]))
    assert coverage_message("4", expected, found) == (
        "Expected exactly one signal per row in epoch 4, but got 2 missing (instance_id 0, 1); "
        "1 doubled (instance_id 5); 2 unknown (instance_id 3, 77); report this as a defect."
    )
    message = coverage_message("0", expected, expected[:0])
    assert "10 missing (instance_id 0, 1, 2, 3, 4, ...);" in message
    assert "doubled" not in message


def packed_ids(folder: Path, ids: dict[str, list[int]]) -> tuple[Location, DatasetManifest]:
    """A packed data set of which only the ids are there."""
    place = locate(str(folder))
    for name, held in ids.items():
        (place / name).write_table(pa.table({"instance_id": pa.array(held, pa.int64())}))
    parts = tuple(DataFile(name, len(held), min(held), max(held)) for name, held in ids.items())
    rows = sum(part.rows for part in parts)
    manifest = DatasetManifest("s", "u", "feature", "f", "c", "p", rows, ("a", "b"), (1, 1), 2, parts, "q", None, True)
    return place, manifest


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_ranges_cover_every_id_once(data: st.DataObject) -> None:
    """Whatever the ids: with gaps, far apart, unsorted and spread over all parts; however many ranges."""
    spread = data.draw(st.sampled_from([100, 10**6, schema.MAX_INSTANCE_ID]))
    ids = sorted(data.draw(st.sets(st.integers(0, spread), min_size=1, max_size=80)))
    shuffled = data.draw(st.permutations(ids)) if data.draw(st.booleans()) else ids
    size = data.draw(st.integers(1, len(ids)))
    parts = {f"p{i}": list(held) for i, held in enumerate(shuffled[at : at + size] for at in range(0, len(ids), size))}
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        place, manifest = packed_ids(Path(folder), parts)
        patch.setattr(assemble, "BLOCK_BYTES", data.draw(st.integers(1, 4000)))
        ranges = list(id_ranges(place, manifest, data.draw(st.integers(1, 20))))
    seen = [i for low, high, touched in ranges for part in touched for i in parts[part.name] if low <= i < high]
    assert sorted(seen) == ids
    assert all(low < high for low, high, _ in ranges)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))


def test_ranges_have_the_aimed_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges hold equally many rows also when one id is far from the others."""
    ids = [*range(999), 10**15]
    place, manifest = packed_ids(tmp_path, {f"p{i}": ids[100 * i : 100 * i + 100] for i in range(10)})
    assert [r[:2] for r in id_ranges(place, manifest, 20)] == [(0, 10**15 + 1)]
    monkeypatch.setattr(assemble, "BLOCK_BYTES", 1000 * 20 * 6 // 4)
    ranges = list(id_ranges(place, manifest, 20))
    assert [r[:2] for r in ranges] == [(0, 250), (250, 500), (500, 750), (750, 10**15 + 1)]
    assert [part.name for part in ranges[1][2]] == ["p2", "p3", "p4"]


# ------------------------------------------------------------------------------------------------------------- counting


def assigned(
    ids: np.ndarray, copy: np.ndarray, flags: np.ndarray, given: np.ndarray, predicted: np.ndarray
) -> pa.Table:
    return pa.table(
        {
            schema.KEY: schema.encode_key(ids, copy),
            schema.IS_LABEL_ISSUE: flags,
            schema.GIVEN_LABEL: given.astype(np.int32),
            schema.PREDICTED_LABEL: predicted.astype(np.int32),
        }
    )


def tallied(*blocks: pa.Table) -> FlagCounts:
    counts = FlagCounts(3)
    for block in blocks:
        counts.add(block)
    return counts


def test_tally_by_hand() -> None:
    table = assigned(
        np.array([0, 0, 1, 2, 3]),
        np.array([False, True, False, False, True]),
        np.array([True, True, False, True, False]),
        np.array([0, 1, 2, 2, 0]),
        np.array([1, 0, 2, 0, 0]),
    )
    counts = tallied(table)
    assert (counts.originals, counts.flagged, counts.copies, counts.copies_flagged) == (3, 2, 2, 1)
    assert counts.given.tolist() == [1, 0, 2]
    assert counts.pairs.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 60), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_tally_does_not_depend_on_blocks(seed: int, rows: int, cuts: list[int]) -> None:
    random = np.random.default_rng(seed)
    table = assigned(
        np.arange(rows),
        random.random(rows) < 0.3,
        random.random(rows) < 0.5,
        random.integers(0, 3, rows),
        random.integers(0, 3, rows),
    )
    edges = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    blocks = [table.slice(low, high - low) for low, high in itertools.pairwise(edges)]
    whole, split = tallied(table), tallied(*(blocks[i] for i in random.permutation(len(blocks))))
    assert (whole.originals + whole.copies) == rows
    assert whole.pairs.sum() == whole.flagged
    assert whole.given.sum() == whole.originals
    for name in ("originals", "flagged", "copies", "copies_flagged"):
        assert getattr(whole, name) == getattr(split, name)
    assert np.array_equal(whole.pairs, split.pairs)
    assert np.array_equal(whole.given, split.given)


# -------------------------------------------------------------------------------------------------------------- signals


def recorded(margins: Any, predicted: list[int]) -> dict[str, np.ndarray]:
    return {schema.MARGIN: np.asarray(margins, np.float32), schema.PREDICTED: np.array(predicted)}


def test_signals_are_sorted_and_without_padding(tmp_path: Path) -> None:
    place = locate(str(tmp_path)) / file_name(3, "ab", 12)
    assert place.path == f"{tmp_path}/epoch=00003/ab-r0012.parquet"
    keys, margins = np.array([8, -1, 3, 4, -1]), np.array([1.5, 9, -1e-9, 1e9, 9], np.float32)
    assert write_signals(place, keys, recorded(margins, [2, 9, 0, 1, 9]), signal_table) == 3
    table = place.read_table()
    assert table.schema.equals(schema.signal_schema())
    assert table[schema.KEY].to_pylist() == [3, 4, 8]
    assert table[schema.PREDICTED].to_pylist() == [0, 1, 2]
    margin = table[schema.MARGIN].to_numpy()
    assert margin[0] < 0, "a tiny negative margin stays negative"
    assert margin[1:].tolist() == [65504.0, 1.5]


def test_no_signals(tmp_path: Path) -> None:
    place = locate(str(tmp_path)) / "f.parquet"
    assert write_signals(place, np.array([-1]), recorded([0], [0]), signal_table) == 0
    assert place.read_table().schema.equals(schema.signal_schema())


def test_diverged_signals_leave_no_file(tmp_path: Path) -> None:
    place = locate(str(tmp_path)) / "f.parquet"
    with pytest.raises(TrainingError, match="finite margins"):
        write_signals(place, np.array([1]), recorded([np.nan], [0]), signal_table)
    assert not place.exists()
    assert write_signals(place, np.array([1, -1]), recorded([0, np.nan], [0, 0]), signal_table) == 1


def test_complete() -> None:
    assert complete({}, 0)
    assert complete({"0": ["a"], "1": ["b"]}, 2)
    assert complete({"0": ["a"], "1": ["b"], "2": ["c"]}, 2)
    assert not complete({"0": ["a"], "2": ["b"]}, 2)


# --------------------------------------------------------------------------------------------------------------- schema


@given(ids=st.lists(st.integers(0, schema.MAX_INSTANCE_ID), max_size=20), copy=st.booleans())
def test_keys_come_back(ids: list[int], copy: bool) -> None:
    numbers = np.array(ids, np.int64)
    keys = schema.encode_key(numbers, copy)
    assert keys.dtype == np.int64
    assert (keys >= 0).all()
    back, is_copy = schema.decode_key(keys)
    assert np.array_equal(back, numbers)
    assert is_copy.tolist() == [copy] * len(ids)
    assert is_copy.dtype == np.bool_


def test_an_instance_and_its_copy_are_neighbors() -> None:
    assert schema.encode_key(np.array([5, 5, 6]), np.array([False, True, False])).tolist() == [10, 11, 12]


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (4, 3)])
def test_matrices_come_back(shape: tuple[int, int]) -> None:
    values = np.arange(shape[0] * shape[1], dtype=np.float16).reshape(shape)
    column = schema.fixed_size_list(values)
    assert column.type == pa.list_(pa.float16(), shape[1])
    assert np.array_equal(schema.matrix(column), values)
    chunked = pa.chunked_array([column.slice(0, shape[0] // 2), column.slice(shape[0] // 2)])
    assert np.array_equal(schema.matrix(chunked), values)
    empty = schema.matrix(pa.chunked_array([], column.type))
    assert (empty.shape, empty.dtype) == ((0, shape[1]), np.float16)


def test_a_transposed_matrix_comes_back() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert np.array_equal(schema.matrix(schema.fixed_size_list(values)), values)


def test_images_or_features() -> None:
    assert dataset_names(None) == ["instance_id", "uri", "given_label", "image"]
    assert dataset_names(7) == ["instance_id", "uri", "given_label", "feature"]
    assert schema.dataset_schema(7).field("feature").type == pa.list_(pa.float32(), 7)
    assert schema.dynamics_schema(9).field("margin").type == pa.list_(pa.float16(), 9)
    assert schema.issues_schema().names[:6] == [
        *("instance_id", "uri", "given_label", "predicted_label", "is_label_issue", "label_quality")
    ]


def dataset_names(dim: int | None) -> list[str]:
    names: list[str] = schema.dataset_schema(dim).names
    return names


# --------------------------------------------------------------------------------------------------------------- doctor


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


def doctored(monkeypatch: pytest.MonkeyPatch, data: str, tmp_path: Path, **options: Any) -> DoctorReport:
    """What doctor finds with a cluster of 4 CPUs that is only said to be there."""
    have = Resources(cpus=4, gpus=0, memory_bytes=8e9, nodes=1, object_store_bytes=1e9)
    monkeypatch.setattr(doctor_module, "connect", lambda _: None)
    monkeypatch.setattr(doctor_module, "resources", lambda: have)
    monkeypatch.setattr("dynacor_ray.workflows.prepare.resources", lambda: have)
    monkeypatch.setattr(session, "resources", lambda: have)
    return doctor_module.run_doctor(DetectConfig(data=data, out=str(tmp_path / "run"), **options))


def test_doctor_prints_findings_whole_and_harmless(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"{tmp_path}/[bold]no\x1b[31mwhere/" + "and " * 40 + "end"
    report = doctored(monkeypatch, nowhere, tmp_path)
    assert [check.name for check in report.checks] == ["cluster", "data"]
    assert [check.ok for check in report.checks] == [True, False]
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
    report = doctored(monkeypatch, "demo", tmp_path, gamma=0.5, epochs=10)
    assert report.ok, report.checks
    assert report.plan["run"]["rows"] == 1797
    assert report.plan["run"]["signals to record"] == (1797 + round(898.5)) * 10
    assert not (tmp_path / "run").exists()
    said = capsys.readouterr().out
    assert "1,797" in said
    assert "Ready." in said


def test_what_dead_attempts_left_is_removed(tmp_path: Path) -> None:
    signals = locate(str(tmp_path))
    for name in ("epoch=00000/a-r0000.parquet", "epoch=00000/b-r0000.parquet", "epoch=00001/b-r0000.parquet"):
        (signals / name).write_bytes(b"x")
    (signals / "progress.json").write_json({"epochs": 2})
    remove_unlisted(signals, {"0": ["epoch=00000/b-r0000.parquet"], "1": ["epoch=00001/b-r0000.parquet"]})
    left = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert left == ["epoch=00000/b-r0000.parquet", "epoch=00001/b-r0000.parquet", "progress.json"]


def test_counts_by_certainty_are_read_back_as_a_noise_rate(tmp_path: Path) -> None:
    """One epoch of two: of the originals one in five disagrees at every certainty, of the copies all."""
    place = locate(str(tmp_path))
    counts = np.zeros((2, 2, BINS), np.int64)
    counts[0, 0, 100:110], counts[0, 1, 100:110], counts[1, 1, 100:110] = 80, 20, 10
    write_confidence(place, {1: counts})
    rate = read_noise_rate(place, 2, 128)
    assert rate is not None
    # Among the surest 120 of 1,000 originals and 60 of 100 copies disagree.
    error = 1.96 * 0.2 * math.sqrt(1 / 120 - 1 / 1000 + 1 / 60 - 1 / 100)
    assert (rate.value, rate.low, rate.high) == pytest.approx((0.2, 0.2 - error, 0.2 + error))
    write_joints(place, {1: np.array([[0, 0, 9], [0, 1, 1], [1, 1, 7], [1, -1, 3]]), 0: np.array([[0, 1, 99]])})
    assert read_class_noise_rates(place, 2, 0.2, 2, 128) == pytest.approx([0.1, 0.3])
    write_confidence(place, {})
    assert read_noise_rate(place, 2, 128) is None


@pytest.mark.parametrize("score", ["combined_margin", "mean_margin"])
def test_the_noise_rate_is_settled_by_the_ranking(score: str) -> None:
    """20% of the originals rank as the copies do, in the margins of the score only: early epochs tell nothing."""
    random = np.random.default_rng(0)
    ids, copies = np.arange(20_000), np.arange(2_000)
    keys = np.concatenate([schema.encode_key(ids, False), schema.encode_key(copies, True)])
    wrong = np.concatenate([ids % 5 == 0, np.ones(len(copies), bool)])
    level = np.where(wrong, -4.0, 4.0) + random.normal(size=len(keys))
    left_out = level if score == "combined_margin" else np.zeros(len(keys))
    margins = np.stack([random.normal(size=len(keys)), level if score == "mean_margin" else 0.0 * level], axis=1)
    sample = pa.table(
        {
            schema.KEY: keys,
            schema.MARGIN: schema.fixed_size_list(margins.astype(np.float16)),
            schema.LEAVE_ONE_OUT: left_out.astype(np.float32),
        }
    )
    shuffled = sample.take(random.permutation(len(keys)))
    found = settle_noise_rate(NoiseRate(0.3, 0.2, 0.4, 0.2), shuffled, score, 1000)
    assert found is not None
    assert found.value == pytest.approx(0.2, rel=0.05)
    assert settle_noise_rate(None, sample, score, 1000) is None


# --------------------------------------------------------------------------------------------------------------- labels


def test_labels_are_found_by_id_in_any_order_and_from_several_files(tmp_path: Path) -> None:
    places = []
    for name, ids in (("a", [7, 2]), ("b", [5, 0])):
        place = locate(str(tmp_path / f"{name}.parquet"))
        labels = pa.array([i * 10 for i in ids], pa.int32())
        place.write_table(pa.table({"instance_id": pa.array(ids), "given_label": labels, "uri": ["x", "y"]}))
        places.append(place)
    known = LabelTable(tuple(places)).read()
    assert known.of(np.array([5, 0, 7, 5])).tolist() == [50, 0, 70, 50]
    assert known.of(np.array([], np.int64)).tolist() == []
    for unknown in (3, 8, -1):
        with pytest.raises(DataError, match=f"none for instance_id {unknown}"):
            known.of(np.array([2, unknown]))


def test_replaced_labels_come_back(tmp_path: Path) -> None:
    labels = GivenLabels(np.array([1, 4, 6]), np.array([2, 0, 2], np.int32))
    known = LabelTable.write(locate(str(tmp_path / "labels.parquet")), labels).read()
    assert known.ids.tolist() == [1, 4, 6]
    assert known.labels.tolist() == [2, 0, 2]
    assert known.counts(4).tolist() == [1, 0, 2, 0]


def test_ray_asks_for_no_widgets_in_a_notebook() -> None:
    import ray.widgets.util as widgets

    assert not widgets.logger.isEnabledFor(logging.INFO)
    assert widgets.logger.isEnabledFor(logging.WARNING)
