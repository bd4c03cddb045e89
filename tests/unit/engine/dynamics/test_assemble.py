"""Ranges of ids that cover all rows, and blocks made of files that are opened once."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from dynacor_ray.core import schema
from dynacor_ray.core.manifest import DataFile, DatasetManifest
from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.engine.dynamics import assemble
from dynacor_ray.engine.dynamics.assemble import id_ranges
from dynacor_ray.engine.training import open_files
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.engine.training.signal_files import signal_table, write_signals
from dynacor_ray.method.corruption import CorruptionConfig, is_selected


def packed_ids(folder: Path, ids: dict[str, list[int]]) -> PackedDataset:
    """A packed data set of which only the ids are there."""
    place = locate(str(folder))
    for name, held in ids.items():
        (place / name).write_table(pa.table({"instance_id": pa.array(held, pa.int64())}))
    parts = tuple(DataFile(name, len(held), min(held), max(held)) for name, held in ids.items())
    rows = sum(part.rows for part in parts)
    manifest = DatasetManifest("s", "u", "feature", "f", "c", "p", rows, ("a", "b"), (1, 1), 2, parts, "q", None, True)
    return PackedDataset(place, manifest)


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
        dataset = packed_ids(Path(folder), parts)
        patch.setattr(assemble, "BLOCK_BYTES", data.draw(st.integers(1, 4000)))
        ranges = list(id_ranges(dataset, data.draw(st.integers(1, 20))))
    seen = [i for low, high, touched in ranges for part in touched for i in parts[part.name] if low <= i < high]
    assert sorted(seen) == ids
    assert all(low < high for low, high, _ in ranges)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))


def test_ranges_have_the_aimed_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges hold equally many rows also when one id is far from the others."""
    ids = [*range(999), 10**15]
    dataset = packed_ids(tmp_path, {f"p{i}": ids[100 * i : 100 * i + 100] for i in range(10)})
    assert [r[:2] for r in id_ranges(dataset, 20)] == [(0, 10**15 + 1)]
    monkeypatch.setattr(assemble, "BLOCK_BYTES", 1000 * 20 * 6 // 4)
    ranges = list(id_ranges(dataset, 20))
    assert [r[:2] for r in ranges] == [(0, 250), (250, 500), (500, 750), (750, 10**15 + 1)]
    assert [part.name for part in ranges[1][2]] == ["p2", "p3", "p4"]


class CountingFiles(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files of this machine, and how often each was opened."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.opened: Counter[str] = Counter()

    def open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self.opened["/".join(path.split("/")[-2:])] += 1
        return super().open(path, *args, **kwargs)


EPOCHS, RANKS, ROWS = 3, 2, 600
CORRUPTION = CorruptionConfig(gamma=0.2, seed=0)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signals of all rows and copies in every epoch, from ranks with every other row each, and the packed data."""
    place = locate(str(tmp_path_factory.mktemp("recorded")))
    ids = np.arange(ROWS)
    for part in range(4):
        held = ids[part * 150 : (part + 1) * 150]
        columns = {"instance_id": held, "uri": held.astype(str), "given_label": (held % 2).astype(np.int32)}
        (place / f"part{part}").write_table(pa.table(columns))
    keys = np.sort([*(ids << 1), *((ids[is_selected(ids, CORRUPTION)] << 1) | 1)])
    for epoch, rank in itertools.product(range(EPOCHS), range(RANKS)):
        mine = keys[rank::RANKS]
        values = {schema.MARGIN: (mine % 7 - epoch).astype(np.float32), schema.PREDICTED: mine % 2}
        if epoch == schema.LEAVE_ONE_OUT_EPOCH:
            values |= {schema.LEAVE_ONE_OUT: mine.astype(np.float32)}
        write_signals(place / f"signals/e{epoch}r{rank}", mine, values, signal_table)
    return Path(place.path)


def assembled(folder: Path, block_rows: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[pa.Table], Counter[str]]:
    files = CountingFiles()
    place = Location(pafs.PyFileSystem(pafs.FSSpecHandler(files)), str(folder), str(folder))
    parts = tuple(DataFile(f"part{i}", 150, 150 * i, 150 * i + 149) for i in range(4))
    manifest = DatasetManifest("s", "u", "feature", "f", "c", "p", ROWS, ("a", "b"), (1, 1), 2, parts, "q", None, True)
    listed = {str(epoch): [f"e{epoch}r{rank}" for rank in range(RANKS)] for epoch in range(EPOCHS)}
    monkeypatch.setattr(assemble, "BLOCK_BYTES", block_rows * EPOCHS * assemble.BYTES_PER_SIGNAL)
    blocks = assemble.assemble(
        PackedDataset(place, manifest), RecordedSignals(place / "signals", listed), CORRUPTION, Progress(True)
    )
    return list(blocks), files.opened


def test_files_are_opened_once_for_all_blocks(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not blocks x epochs x ranks times: 60 blocks would make 360. One file is also looked at for its columns."""
    (whole,), _ = assembled(recorded, ROWS, monkeypatch)
    many, opened = assembled(recorded, 10, monkeypatch)
    assert len(many) == 60
    assert pa.concat_tables(many).equals(whole)
    signals = {name: count for name, count in opened.items() if "/e" in name}
    assert len(signals) == EPOCHS * RANKS
    assert sum(signals.values()) == EPOCHS * RANKS + 1
    assert {count for name, count in opened.items() if "/part" in name} == {3}, "labels, ids for ranges, and rows"


def test_more_files_than_may_be_open(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,), _ = assembled(recorded, ROWS, monkeypatch)
    monkeypatch.setattr(open_files, "MOST_OPEN", 2)
    many, _ = assembled(recorded, 100, monkeypatch)
    assert pa.concat_tables(many).equals(whole)


@pytest.mark.parametrize(("ranges", "most", "sizes"), [(5, 1, [5]), (5, 2, [2, 3]), (2, 16, [1, 1])])
def test_consecutive_ranges_are_one_task(ranges: int, most: int, sizes: list[int]) -> None:
    groups = assemble._in_groups([(i, i + 1, ()) for i in range(ranges)], most)
    assert [len(group) for group in groups] == sizes
    assert [one[0] for group in groups for one in group] == list(range(ranges))
