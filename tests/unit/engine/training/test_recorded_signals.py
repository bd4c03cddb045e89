"""Recorded signals and counts, read back."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynacor_ray.core import schema
from dynacor_ray.core.errors import CoverageError
from dynacor_ray.core.storage import locate
from dynacor_ray.core.table_files import columns_of, rows_at
from dynacor_ray.decision.noise_rate import BINS
from dynacor_ray.engine.training.recorded_signals import RecordedSignals, coverage_message
from dynacor_ray.engine.training.signal_files import write_confidence, write_joints


def test_counts_by_certainty_are_read_back_as_a_noise_rate(tmp_path: Path) -> None:
    """One epoch of two: of the originals one in five disagrees at every certainty, of the copies all."""
    place = locate(str(tmp_path))
    counts = np.zeros((2, 2, BINS), np.int64)
    counts[0, 0, 100:110], counts[0, 1, 100:110], counts[1, 1, 100:110] = 80, 20, 10
    write_confidence(place, {1: counts})
    signals = RecordedSignals(place, {"0": [], "1": []})
    rate = signals.noise_rate(128)
    assert rate is not None
    # Among the surest 120 of 1,000 originals and 60 of 100 copies disagree.
    error = 1.96 * 0.2 * math.sqrt(1 / 120 - 1 / 1000 + 1 / 60 - 1 / 100)
    assert (rate.value, rate.low, rate.high) == pytest.approx((0.2, 0.2 - error, 0.2 + error))
    write_joints(place, {1: np.array([[0, 0, 9], [0, 1, 1], [1, 1, 7], [1, -1, 3]]), 0: np.array([[0, 1, 99]])})
    assert signals.class_noise_rates(2, 0.2, 128) == pytest.approx([0.1, 0.3])
    write_confidence(place, {})
    assert signals.noise_rate(128) is None


def test_coverage_message_names_the_instances() -> None:
    expected = schema.encode_key(np.arange(10), False)
    found = np.sort(np.concatenate([expected[2:], expected[5:6], schema.encode_key(np.array([3, 77]), True)]))
    assert coverage_message(4, expected, found) == (
        "Expected exactly one signal per row in epoch 4, but got 2 missing (instance_id 0, 1); "
        "1 doubled (instance_id 5); 2 unknown (instance_id 3, 77); report this as a defect."
    )
    message = coverage_message(0, expected, expected[:0])
    assert "10 missing (instance_id 0, 1, 2, 3, 4, ...);" in message
    assert "doubled" not in message


def test_columns_of_an_epoch_come_in_the_order_of_the_keys_or_are_refused(tmp_path: Path) -> None:
    """From the files of two ranks, with and without copies; a row that is missing, doubled or unknown is named."""
    place = locate(str(tmp_path))
    for name, keys in (("a", [0, 6, 7]), ("b", [2, 3, 4])):
        vectors = schema.fixed_size_list(np.stack([keys, keys], axis=1).astype(np.float32))
        (place / name).write_table(pa.table({schema.KEY: keys, "once": [-key for key in keys], "twice": vectors}))
    signals, keys = RecordedSignals(place, {"0": ["a", "b"], "1": ["a"], "2": ["a", "b", "b"]}), np.array([0, 2, 4, 6])
    found = signals.columns(0, keys, ["once", "twice"], only_originals=True)
    assert found["once"].tolist() == [0, -2, -4, -6]
    assert found["twice"].tolist() == [[0, 0], [2, 2], [4, 4], [6, 6]]
    assert signals.columns(0, np.array([2, 3, 4, 6, 7]), ["once"])["once"].tolist() == [-2, -3, -4, -6, -7]
    for epoch, wrong in ((0, "unknown"), (1, "missing"), (2, "doubled")):
        with pytest.raises(CoverageError, match=f"in epoch {epoch}, but got .*{wrong}"):
            signals.columns(epoch, keys, ["once"])


def test_early_logits_are_lined_up_by_class(tmp_path: Path) -> None:
    """Of the second row another class was just likely enough in the next epoch: it counts as its least likely one."""
    place, keys = locate(str(tmp_path)), np.array([0, 2])
    ridge = schema.fixed_size_list(np.zeros((2, 3), np.float16))
    epochs: dict[int, tuple[list[list[int]], list[list[float]]]] = {
        1: ([[5, 1, 2], [7, 3, 4]], [[1, 0, -1], [2, 1, 0]]),
        2: ([[5, 1, 2], [7, 9, 3]], [[3, 0, -1], [4, 2, 1]]),
    }
    for epoch, (classes, logits) in epochs.items():
        table = {
            schema.KEY: keys,
            schema.LIKELY_CLASSES: schema.fixed_size_list(np.array(classes, np.int32)),
            schema.EARLY_LOGITS: schema.fixed_size_list(np.array(logits, np.float16)),
        }
        (place / str(epoch)).write_table(pa.table(table | dict.fromkeys(schema.CLASS_SCORES[:2], ridge)))
    classes, scores = RecordedSignals(place, {"0": [], "1": ["1"], "2": ["2"]}).class_scores(keys)
    assert classes.tolist() == epochs[1][0]
    assert scores[:, 6:].tolist() == [[2, 0, -1], [3, 1, 0.5]]


def test_storage_may_fail_for_a_moment_where_the_columns_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, whole, failures = locate(str(tmp_path)), pq.ParquetFile, [OSError(errno.EIO, "once")]
    (place / "a").write_table(pa.table({name: [1.0] for name in (*schema.CLASS_SCORES, "more")}))
    (place / "b").write_table(pa.table({"more": [1.0]}))

    def fails_once(*args: object, **options: object) -> pq.ParquetFile:
        if failures:
            raise failures.pop()
        return whole(*args, **options)

    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(pq, "ParquetFile", fails_once)
    epoch = str(schema.LEAVE_ONE_OUT_EPOCH)
    assert RecordedSignals(place, {epoch: ["a"]}).has_class_scores
    assert not failures
    assert not RecordedSignals(place, {epoch: ["b"]}).has_class_scores
    failures.append(OSError(errno.EIO, "once"))
    assert columns_of(place / "b").names == ["more"]
    failures.append(OSError(errno.EIO, "once"))
    assert rows_at(place / "b", np.array([0])).num_rows == 1
