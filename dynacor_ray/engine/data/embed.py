"""Frozen-encoder features of originals and of corrupted copies: decode on CPUs, encode in actors or threads, resumable.

The work is cut into units of consecutive rows of one packed file. A unit becomes one file with a fixed name, so a unit
that is done twice (a retried task, a killed actor) leaves the same file, and a unit whose file exists is done.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.image_decoding import center_crop_resize, flip, load_rgb
from dynacor_ray.core.leftovers import remove_leftovers
from dynacor_ray.core.manifest import (
    MANIFEST,
    DatasetManifest,
    FeatureStats,
    LinedUpFeatures,
    read_lined_up,
    read_stats,
)
from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.robust_scaling import reach_of
from dynacor_ray.core.storage import PART, Location, retry_transient
from dynacor_ray.engine.data.line_up import DRIVER_FILES, line_up, sample_of
from dynacor_ray.engine.runtime.machine import usable_cpus
from dynacor_ray.engine.runtime.parallel_map import items_dataset, items_of, one_column, parallel_map, results
from dynacor_ray.engine.runtime.session import on_cluster, resources
from dynacor_ray.engine.runtime.tasks import map_threads
from dynacor_ray.method.corruption import CorruptionConfig, is_selected
from dynacor_ray.models.encoder import GPU_BATCH
from dynacor_ray.models.encoders import Encoder, EncoderSpec, load_encoder

MAX_UNIT_ROWS = 512
UNIT_BYTES = 48 << 20
"""Most decoded bytes in one unit: small enough for several to be in flight in a small object store."""
SAID_FROM = 5.0
"""Seconds of decoding and encoding from which it is said how much of each."""
ORIGINALS, COPIES = "originals", "copies"


@dataclass(frozen=True)
class EmbeddingChunk:
    """Rows `first .. first + rows - 1` of a packed file; `needs` says which files are missing."""

    index: int
    part: str
    first: int
    rows: int
    needs: Sequence[str] = ()

    @property
    def file_name(self) -> str:
        """The unit's file below `originals/` or `copies*/`."""
        return f"unit-{self.index:06d}.parquet"


@dataclass(frozen=True)
class FeatureStore:
    """A complete set of embeddings: columns key and feature. `copies` may hold more than the corruption asks for."""

    originals: Location
    copies: Location | None
    files: tuple[str, ...]
    dim: int
    stats: FeatureStats
    lined_up: LinedUpFeatures | None = None


@dataclass(frozen=True)
class _Folders:
    originals: Location
    copies: Location | None

    @property
    def kinds(self) -> dict[str, Location]:
        """What is made, and where."""
        return {ORIGINALS: self.originals} | ({COPIES: self.copies} if self.copies is not None else {})


def decode_chunk(
    dataset: Location,
    chunk: EmbeddingChunk,
    corruption: CorruptionConfig | None,
    side: int,
    augmentation: str,
    kinds: Sequence[str] = (ORIGINALS, COPIES),
) -> tuple[np.ndarray, np.ndarray]:
    """Decode the images of a chunk, each once; a copy's is `augmented` (§4.2).

    Args:
        dataset: Folder of the packed images.
        chunk: Which rows.
        corruption: Which of them get a copy; None: none.
        side: Of the squares that images are made, in pixels.
        augmentation: Of the copies, as in `augmented`.
        kinds: Which are wanted: originals, copies or both.

    Returns:
        Keys int64 (n,) and images uint8 (n, side, side, 3): originals first, then copies.
    """
    rows = read_range(dataset / chunk.part, chunk.first, chunk.rows, [schema.INSTANCE_ID, schema.IMAGE])
    # Which rows get a copy is settled on their ids alone, before an image is decoded.
    ids = rows[schema.INSTANCE_ID].to_numpy()
    copied = np.flatnonzero(is_selected(ids, corruption)) if corruption is not None and COPIES in kinds else ids[:0]
    originals = np.arange(len(ids)) if ORIGINALS in kinds else ids[:0]
    keys = np.concatenate([schema.encode_key(ids[originals], False), schema.encode_key(ids[copied], True)])
    images = np.empty((len(keys), side, side, 3), np.uint8)
    places = {row: len(originals) + number for number, row in enumerate(copied.tolist())}
    for row in originals.tolist() if len(originals) else copied.tolist():
        image = load_rgb(rows[schema.IMAGE][row].as_py(), side)
        if len(originals):
            images[row] = image
        if row in places:
            images[places[row]] = augmented(image, augmentation)
    return keys, images


def augmented(image: np.ndarray, augmentation: str) -> np.ndarray:
    """The image of a copy (§4.2): "flip", "crop" or "none". uint8 (S, S, 3) -> uint8 (S, S, 3)."""
    if augmentation == "none":
        return image
    return flip(image) if augmentation == "flip" else center_crop_resize(image)


@dataclass(frozen=True)
class _Done:
    """What became of a unit: its rows, and the seconds of reading and decoding, and of encoding and writing."""

    rows: int
    decode_seconds: float
    encode_seconds: float


class _Embedder:
    """Encodes the images of a unit and writes its files. On a cluster an actor."""

    def __init__(self, spec: EncoderSpec, folders: _Folders, device: str, encoder: Encoder | None = None) -> None:
        self.arguments = spec, folders, device
        self._folders, self._batch, self._loaded = folders, 64 if device == "cpu" else GPU_BATCH, encoder

    def load(self, callers: int = 1) -> Encoder:
        """The encoder, for so many threads at the same time.

        Not in `__init__`: Ray reports what is raised there as the death of an actor.
        """
        if self._loaded is None:
            spec, _, device = self.arguments
            self._loaded = load_encoder(spec, device, callers)
        return self._loaded

    def __call__(self, block: pa.Table) -> pa.Table:
        return one_column([self._read(row) for row in block.to_pylist()])

    def _read(self, row: dict[str, Any]) -> _Done:
        unit, size = EmbeddingChunk(**json.loads(row["unit"])), self.load().image_size
        keys = np.frombuffer(row["keys"], np.int64)
        pixels = np.frombuffer(row["pixels"], np.uint8).reshape(len(keys), size, size, 3)
        return self.embed(unit, keys, pixels, row["seconds"])

    def embed(self, unit: EmbeddingChunk, keys: np.ndarray, pixels: np.ndarray, decode_seconds: float) -> _Done:
        """Encode and write a unit. keys, pixels: as `decode_chunk` gives them, in so many seconds."""
        start = time.monotonic()
        encoder = self.load()
        batches = [encoder.encode(pixels[i : i + self._batch]) for i in range(0, len(keys), self._batch)]
        features = np.concatenate(batches) if batches else np.empty((0, encoder.dim), np.float32)
        if not np.isfinite(features).all():
            got = f"NaN or infinity for {int((~np.isfinite(features)).any(axis=1).sum())} images"
            raise DataError(expected_got("finite encoder features", got, "check the encoder's weights"))
        is_copy = (keys & 1).astype(bool)
        for kind in unit.needs:
            mine = is_copy == (kind == COPIES)
            columns = {
                schema.KEY: pa.array(keys[mine]),
                schema.FEATURE: schema.feature_column(features[mine]),
            }
            (self._folders.kinds[kind] / unit.file_name).write_table(
                pa.table(columns), compression="none", use_dictionary=False
            )
        return _Done(unit.rows, decode_seconds, time.monotonic() - start)


def embed(
    dataset: PackedDataset,
    spec: EncoderSpec,
    corruption: CorruptionConfig | None,
    augmentation: str,
    root: Location,
    use_gpu: bool,
    progress: Progress,
    encoder: Encoder | None = None,
) -> FeatureStore:
    """Embed what is not embedded yet.

    Labels play no part: the same images with other labels, in another file, are embedded already. Originals are shared
    by every gamma and seed, copies by every smaller gamma, since corrupted sets are nested.

    Args:
        dataset: The packed images.
        spec: The encoder.
        corruption: Which images get a copy (§4.2); None for the originals alone.
        augmentation: Of the copies, as in `augmented`.
        root: Folder for all embeddings; each encoder and set of images has one of its own in it.
        use_gpu: Whether to encode on the GPUs of the cluster.
        progress: Where the images done are shown, and at the end whether decoding or encoding took the time.
        encoder: That of `spec` on the CPU, for as many threads as there are CPUs, where it is loaded already.

    Returns:
        The complete store.

    Raises:
        DataError: The encoder gives NaN or infinity, or the store does not hold every row.
    """
    known = stored(dataset, spec, corruption, augmentation, root)
    if known is not None:
        return known
    size = (encoder or load_encoder(dataclasses.replace(spec, back_end="torch"))).image_size
    plan = _Plan.of(dataset, spec, size, corruption, augmentation, root)
    if plan.todo:
        for folder in plan.folders.kinds.values():
            remove_leftovers(folder, [name for name in folder.names() if name.endswith(PART)])

        def decode(chunk: EmbeddingChunk) -> tuple[np.ndarray, np.ndarray, float]:
            start = time.monotonic()
            keys, images = decode_chunk(dataset.folder, chunk, corruption, size, augmentation, chunk.needs)
            return keys, images, time.monotonic() - start

        embedder = _Embedder(spec, plan.folders, "cuda" if use_gpu else "cpu", None if use_gpu else encoder)
        with progress.stage("embed", sum(unit.rows for unit in plan.todo), "images") as bar:
            decoding = encoding = 0.0
            for done in (_on_cluster if on_cluster() else _in_threads)(plan.todo, decode, embedder, use_gpu):
                bar.advance(done.rows)
                decoding, encoding = decoding + done.decode_seconds, encoding + done.encode_seconds
        if decoding + encoding >= SAID_FROM:
            progress.say(f"embed: {decoding:,.0f} s of decoding and {encoding:,.0f} s of encoding, over all processors")
        progress.worked("decoding", decoding)
        progress.worked("encoding", encoding)
    return plan.store()


def stored(
    dataset: PackedDataset, spec: EncoderSpec, corruption: CorruptionConfig | None, augmentation: str, root: Location
) -> FeatureStore | None:
    """What `embed` would return, where all of it is there already: for that no encoder is built."""
    start, end = _ends_of_name(dataset, spec)
    for name in root.names():
        if name.startswith(start) and name.endswith(end):
            plan = _Plan.of(dataset, spec, int(name[len(start) : -len(end)]), corruption, augmentation, root)
            if not plan.todo:
                return plan.store()
    return None


def _ends_of_name(dataset: PackedDataset, spec: EncoderSpec) -> tuple[str, str]:
    """Of the folder with all embeddings of an encoder and a set of images; the side in pixels is between them."""
    return f"{spec.slug}-{spec.fingerprint()}-", f"px-{dataset.manifest.payload_hash[:12]}"


@dataclass(frozen=True)
class _Plan:
    """Where embeddings are or shall be, the units that they are cut into, and those that are missing."""

    folders: _Folders
    units: list[EmbeddingChunk]
    todo: list[EmbeddingChunk]
    num_rows: int

    @classmethod
    def of(
        cls,
        dataset: PackedDataset,
        spec: EncoderSpec,
        size: int,
        corruption: CorruptionConfig | None,
        augmentation: str,
        root: Location,
    ) -> _Plan:
        """The plan for images of `size` pixels; the rest as of `embed`."""
        base = root / str(size).join(_ends_of_name(dataset, spec))
        copies = _copies(base, augmentation, corruption) if corruption is not None else None
        folders, units = _Folders(base / ORIGINALS, copies), plan_chunks(dataset.manifest, size)
        return cls(folders, units, _missing(units, folders), dataset.manifest.num_rows)

    def store(self) -> FeatureStore:
        """The store, when nothing is missing."""
        return _open(self.folders, self.units, self.num_rows)


def _copies(base: Location, augmentation: str, corruption: CorruptionConfig) -> Location:
    """Where the copies are or shall be: the smallest complete set that contains them, else one of their own."""
    kind = f"{COPIES}-{augmentation}-seed{corruption.seed}-pool{corruption.copy_pool!r}-gamma"
    found = [name for name in base.names() if name.startswith(kind) and (base / name / MANIFEST).exists()]
    gammas = {float(name.removeprefix(kind)): name for name in found}
    enough = [gamma for gamma in gammas if gamma >= corruption.gamma]
    return base / (gammas[min(enough)] if enough else f"{kind}{corruption.gamma!r}")


@retry_transient
def read_range(place: Location, first: int, rows: int, columns: list[str]) -> pa.Table:
    """Rows `first .. first + rows - 1` of a parquet file, from the row groups that hold them and no others."""
    with place.parquet() as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = np.cumsum([0, *sizes])
        groups = [i for i, size in enumerate(sizes) if starts[i] < first + rows and starts[i] + size > first]
        return file.read_row_groups(groups, columns).slice(first - int(starts[groups[0]]), rows)


def plan_chunks(manifest: DatasetManifest, size: int) -> list[EmbeddingChunk]:
    """Cut the packed files into units, the same for every run on the same data and image size."""
    most = max(1, min(MAX_UNIT_ROWS, UNIT_BYTES // (size * size * 3)))
    starts = [(part, first) for part in manifest.parts for first in range(0, part.rows, most)]
    return [EmbeddingChunk(i, part.name, first, min(most, part.rows - first)) for i, (part, first) in enumerate(starts)]


def _missing(units: list[EmbeddingChunk], folders: _Folders) -> list[EmbeddingChunk]:
    have = {kind: set(folder.names()) for kind, folder in folders.kinds.items()}
    todo = []
    for unit in units:
        needs = tuple(kind for kind in have if unit.file_name not in have[kind])
        if needs:
            todo.append(EmbeddingChunk(**{**asdict(unit), "needs": needs}))
    return todo


_Decode = Callable[[EmbeddingChunk], tuple[np.ndarray, np.ndarray, float]]


def _in_threads(todo: list[EmbeddingChunk], decode: _Decode, embedder: _Embedder, use_gpu: bool) -> Iterator[_Done]:
    """Decode as many units at a time as there are CPUs, and encode them with one encoder.

    On a CPU the threads encode as well. A GPU is asked by this thread alone: PyTorch keeps cuDNN's plans per thread.
    """
    embedder.load(usable_cpus())
    if not use_gpu:
        yield from map_threads(lambda unit: embedder.embed(unit, *decode(unit)), todo)
        return
    for unit, decoded in zip(todo, map_threads(decode, todo), strict=True):
        yield embedder.embed(unit, *decoded)


def _on_cluster(todo: list[EmbeddingChunk], decode: _Decode, embedder: _Embedder, use_gpu: bool) -> Iterator[_Done]:
    """Decode in tasks, encode in actors, each with an encoder of its own."""

    def decode_block(block: pa.Table) -> pa.Table:
        rows = [(unit, *decode(unit)) for unit in items_of(block)]
        return pa.table(
            {
                "unit": pa.array([json.dumps(asdict(unit)) for unit, _, _, _ in rows]),
                "keys": pa.array([keys.tobytes() for _, keys, _, _ in rows], pa.binary()),
                "pixels": pa.array([pixels.tobytes() for _, _, pixels, _ in rows], pa.large_binary()),
                "seconds": pa.array([seconds for _, _, _, seconds in rows], pa.float64()),
            }
        )

    from ray.data import ActorPoolStrategy

    have = resources()
    # On CPUs an actor and a decoder share a core: together they ask for no more than there is, so neither can starve.
    size = int(have.gpus) if use_gpu else max(1, int(have.cpus))
    actor: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0.25} if use_gpu else {"num_cpus": min(0.75, have.cpus / 2)}
    dataset = items_dataset(todo).map_batches(
        decode_block, batch_format="pyarrow", batch_size=1, num_cpus=min(1.0, have.cpus / 2) if use_gpu else 0.25
    )
    dataset = dataset.map_batches(
        _Embedder,
        fn_constructor_args=embedder.arguments,
        batch_format="pyarrow",
        batch_size=1,
        compute=ActorPoolStrategy(size=min(size, len(todo))),
        **actor,
    )
    yield from results(dataset)


def _open(folders: _Folders, units: list[EmbeddingChunk], num_rows: int) -> FeatureStore:
    """Count what is stored, once; the counts and the feature sums are kept in a manifest per folder."""
    files = tuple(unit.file_name for unit in units)
    originals = _counted(folders.originals, files, num_rows)
    if folders.copies is not None:
        _counted(folders.copies, files, num_rows)  # its manifest says that these copies are complete
    if originals["rows"] != num_rows:
        got = f"{originals['rows']:,} embeddings"
        raise DataError(expected_got(f"{num_rows:,} embedded rows", got, f"remove {folders.originals} and rerun"))
    stats = read_stats(originals["stats"])
    assert stats is not None
    return FeatureStore(
        folders.originals,
        folders.copies,
        files,
        dim=len(stats.total),
        stats=stats,
        lined_up=read_lined_up(originals["lined_up"]),
    )


def _counted(folder: Location, files: tuple[str, ...], num_rows: int) -> dict[str, Any]:
    place = folder / MANIFEST
    known: dict[str, Any] = place.read_json() if place.exists() else {}
    if "lined_up" in known:
        return known

    def count(name: str) -> tuple[str, int, FeatureStats, float, np.ndarray]:
        table = (folder / name).read_table([schema.KEY, schema.FEATURE])
        features, ids = schema.matrix(table[schema.FEATURE]), table[schema.KEY].to_numpy() >> 1
        stats = FeatureStats.of(features)
        return name, len(features), stats, reach_of(features, stats.mean), sample_of(ids, features, num_rows)

    # By name: sums of floats depend on the order in which they are added.
    found = sorted((map_threads if len(files) <= DRIVER_FILES else parallel_map)(count, files), key=lambda one: one[0])
    total = sum((stats for _, _, stats, _, _ in found[1:]), found[0][2])
    sample = np.concatenate([rows for *_, rows in found])
    _, lined_up = line_up([(folder / name, stats, reach) for name, _, stats, reach, _ in found], sample)
    raw = {"rows": sum(rows for _, rows, *_ in found), "stats": asdict(total)}
    raw["lined_up"] = asdict(lined_up) if lined_up else None
    place.write_json(raw)
    return raw
