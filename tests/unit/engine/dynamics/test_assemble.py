"""Ranges of ids that cover all rows."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynacor_ray.core import schema
from dynacor_ray.core.manifest import DataFile, DatasetManifest
from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.dynamics import assemble
from dynacor_ray.engine.dynamics.assemble import id_ranges


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
