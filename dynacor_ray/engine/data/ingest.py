"""Pack a source once: instance ids, encoded labels, verified payload, bad rows quarantined with their reason."""

from __future__ import annotations

import hashlib
import posixpath
import re
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.leftovers import remove_leftovers
from dynacor_ray.core.manifest import DataFile, DatasetManifest, FeatureStats, LinedUpFeatures
from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.redaction import redact
from dynacor_ray.core.robust_scaling import RobustScaling, reach_of
from dynacor_ray.core.storage import PART, Location
from dynacor_ray.engine.data.find_duplicates import HASHES, bucket_count, row_hashes, write_duplicates, write_hashes
from dynacor_ray.engine.data.line_up import feature_warnings, line_up, sample_of
from dynacor_ray.engine.runtime.parallel_map import parallel_map
from dynacor_ray.engine.runtime.tasks import map_threads
from dynacor_ray.sources.base import Shard, Source
from dynacor_ray.sources.piece_memory import LargeRowsError, one_large_at_a_time
from dynacor_ray.sources.validate import (
    LabelVocabulary,
    build_vocabulary,
    check_quarantine,
    check_unique_ids,
    feature_dim_of,
    reason_kind,
    validate_rows,
    vocabulary_warnings,
)

PART_BYTES = 96 << 20
SAMPLE_ROWS, MAX_PART_ROWS, FEWER = 64, 65536, 8
"""Rows that are looked at first, most that are packed together, and how many times fewer where these fill memory."""
# Compression makes neither vectors nor encoded images smaller, and dictionaries hardly: they would take time in every
# pass over the rows, and memory a few times that of the rows.
_PLAIN: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": [schema.GIVEN_LABEL],
    "write_statistics": [schema.INSTANCE_ID],
}
_ENCODING: dict[str, dict[str, Any]] = {
    "image": _PLAIN | {"row_group_size": 512},
    "feature": _PLAIN | {"row_group_size": MAX_PART_ROWS},
}
"""How packed files are written, by kind of data."""
DRIVER_SHARDS = 64
"""Label columns of at most this many shards are counted in the driver: a Ray pass would cost more."""
EXAMPLES = 100
REPLACED_SECONDS = 30 * 24 * 3600.0
"""Age from which nobody reads packed data any more that were packed again, since the user's own had changed."""
_ATTEMPT = re.compile("(?:[0-9a-f]+-)?[0-9a-f]{8}")


@dataclass(frozen=True)
class _PartResult:
    part: DataFile
    digest: str
    payload_digest: str
    class_counts: list[int]
    reasons: dict[str, int]
    examples: list[dict[str, Any]]
    max_side: int | None
    gray: bool
    stats: FeatureStats | None
    reach: float
    sample: np.ndarray | None
    ids: np.ndarray | None


@dataclass(frozen=True)
class _Packer:
    """Reads one shard, validates it and writes its files; runs in a Ray task."""

    folder: Location
    attempt: str
    kind: str
    vocabulary: LabelVocabulary
    feature_dim: int | None
    own_ids: bool
    num_rows: int
    buckets: int
    feature_names: tuple[str, ...] = ()

    def __call__(self, item: tuple[int, Shard]) -> _PartResult:
        with one_large_at_a_time():
            try:
                return self._pack(*item)
            finally:
                pa.default_memory_pool().release_unused()  # else an idle process keeps what a part took

    def _pack(self, index: int, shard: Shard) -> _PartResult:
        checked = validate_rows(shard.read(), self.kind, self.vocabulary, self.feature_dim, self.feature_names)
        rows, name = checked.rows, f"part-{index:06d}.parquet"
        place = self.folder / self.attempt
        (place / name).write_table(rows, **_ENCODING[self.kind])
        (place / "quarantine" / name).write_table(checked.quarantine)
        if checked.truth is not None:
            (place / "truth" / name).write_table(checked.truth)
        ids, classes = rows[schema.INSTANCE_ID].to_numpy(), len(self.vocabulary.names)
        bounds = (int(ids.min()), int(ids.max())) if len(ids) else (0, -1)
        features = schema.matrix(rows[schema.FEATURE]) if self.kind == "feature" else None
        stats = None if features is None else FeatureStats.of(features)
        hashes = row_hashes(features if features is not None else (row.as_buffer() for row in rows[schema.IMAGE]))
        write_hashes(place / HASHES / name, ids, hashes, self.buckets)
        return _PartResult(
            part=DataFile(f"{self.attempt}/{name}", len(ids), *bounds),
            digest=_digest(ids, rows[schema.GIVEN_LABEL].to_numpy()),
            payload_digest=_digest(ids, hashes),
            class_counts=np.bincount(rows[schema.GIVEN_LABEL].to_numpy(), minlength=classes).tolist(),
            reasons=dict(Counter(reason_kind(r) for r in checked.quarantine[schema.REASON].to_pylist())),
            examples=checked.quarantine.slice(0, EXAMPLES).to_pylist(),
            max_side=checked.max_side,
            gray=checked.gray,
            stats=stats,
            reach=0.0 if features is None or stats is None else reach_of(features, stats.mean),
            sample=sample_of(ids, features, self.num_rows) if features is not None else None,
            ids=ids if self.own_ids else None,
        )


def ingest(
    source: Source, folder: Location, max_invalid_share: float, progress: Progress, owner: str = ""
) -> PackedDataset:
    """Pack `source` into `folder`, or return what is there when nothing changed.

    Args:
        source: The data as the user has them.
        folder: Where the packed data are kept.
        max_invalid_share: Most rows that may be unusable, as a share in [0, 1].
        progress: Where the rows done are shown.
        owner: Names who packs, which is one driver at a time: what it left half packed when it was killed is removed.

    Raises:
        DataError: The data cannot be used; nothing that looks complete is left.
    """
    fingerprint = source.fingerprint()
    packed = _packed_before(folder, fingerprint)
    _tidy(folder, owner)
    if packed is not None:
        known = packed.manifest
        total = known.num_rows + known.quarantined
        check_quarantine(known.quarantined, total, max_invalid_share, known.quarantine_reasons, source.hint)
        return packed
    # Another run may share the folder and pack the same data at this moment: each packs into a place of its own, and
    # the manifest, which is replaced at once, names the place that counts. Who is done first has packed them for all.
    attempt = f"{owner}-{uuid.uuid4().hex[:8]}".lstrip("-")
    try:
        manifest = _pack(source, fingerprint, folder, attempt, max_invalid_share, progress)
        packed = _packed_before(folder, fingerprint)
    except BaseException:
        (folder / attempt).delete()
        raise
    if packed is not None:
        (folder / attempt).delete()
        return packed
    manifest.write(folder)
    return PackedDataset(folder, manifest)


def _tidy(folder: Location, owner: str) -> None:
    """Remove attempts that died, and data that were packed again since, once no run can be at work with them."""
    packed, names = PackedDataset.read(folder), folder.names()
    used = packed.manifest.quarantine.partition("/")[0] if packed else ""
    attempts = {name for name in names if _ATTEMPT.fullmatch(name) and name != used}
    whole = {name for name in attempts if (folder / name / "quarantine.parquet").exists()}
    remove_leftovers(folder, whole, REPLACED_SECONDS)
    dead = [*(attempts - whole), *(name for name in names if name.endswith(PART))]
    remove_leftovers(folder, dead, mine=f"{owner}-" if owner else "")


def _packed_before(folder: Location, fingerprint: str) -> PackedDataset | None:
    """What is in the folder, where it is of the same data."""
    packed = PackedDataset.read(folder)
    return packed if packed is not None and packed.manifest.fingerprint == fingerprint else None


def _pack(
    source: Source, fingerprint: str, folder: Location, attempt: str, max_invalid_share: float, progress: Progress
) -> DatasetManifest:
    sample = first_rows(source)
    most = min(rows_per_part(sample), source.num_rows)
    dim = feature_dim_of(sample) if source.kind == "feature" else None
    del sample  # of huge rows
    shards = source.shards(most)
    vocabulary = build_vocabulary(count_labels(shards), source)
    rows, buckets = source.num_rows, bucket_count(source.num_rows)
    own, names = source.has_instance_ids, source.feature_names
    packer = _Packer(folder, attempt, source.kind, vocabulary, dim, own, rows, buckets, names)
    try:
        found = _packed(packer, shards, source.num_rows, progress)
    except LargeRowsError:
        if most <= 1:
            raise
        (folder / attempt).delete()  # later rows are larger than the first ones
        found = _packed(packer, source.shards(max(1, most // FEWER)), source.num_rows, progress)
    return _summarize(source, fingerprint, folder / attempt, vocabulary, dim, found, max_invalid_share)


def _packed(packer: _Packer, shards: list[Shard], rows: int, progress: Progress) -> list[_PartResult]:
    """What became of every shard, in their order."""
    found: list[_PartResult] = []
    with progress.stage("ingest", rows, "rows") as bar:
        for result in parallel_map(packer, list(enumerate(shards))):
            found.append(result)
            bar.advance(result.part.rows + sum(result.reasons.values()))
    return sorted(found, key=lambda result: result.part.name)


def first_rows(source: Source) -> pa.Table:
    """The first SAMPLE_ROWS rows, or fewer where these are so large that they would fill the memory."""
    count = SAMPLE_ROWS
    while True:
        try:
            return source.shards(count)[0].read()
        except LargeRowsError:
            if count == 1:
                raise
            count //= FEWER


def rows_per_part(sample: pa.Table) -> int:
    """Rows that make a file of about PART_BYTES, so that a packing task never holds much more than that."""
    return max(1, min(MAX_PART_ROWS, PART_BYTES * sample.num_rows // max(sample.nbytes, 1)))


def count_labels(shards: list[Shard]) -> dict[str, int]:
    """How often each label value occurs, read without the images."""
    total: Counter[str] = Counter()
    for counts in (map_threads if len(shards) <= DRIVER_SHARDS else parallel_map)(_label_counts, shards):
        total.update(counts)
    return dict(total)


def _label_counts(shard: Shard) -> dict[str, int]:
    with one_large_at_a_time():
        values = shard.read_labels().drop_null().value_counts()
    return {str(item["values"]): int(item["counts"]) for item in values.to_pylist()}


def _summarize(
    source: Source,
    fingerprint: str,
    place: Location,
    vocabulary: LabelVocabulary,
    dim: int | None,
    found: list[_PartResult],
    max_invalid_share: float,
) -> DatasetManifest:
    reasons: Counter[str] = Counter()
    for result in found:
        reasons.update(result.reasons)
    rows = sum(result.part.rows for result in found)
    check_quarantine(sum(reasons.values()), rows + sum(reasons.values()), max_invalid_share, reasons, source.hint)
    if source.has_instance_ids:
        check_unique_ids(np.concatenate([result.ids for result in found if result.ids is not None]))
    class_counts = np.sum([result.class_counts for result in found], axis=0).astype(int)
    if (class_counts > 0).sum() < 2:
        got = f"{int((class_counts > 0).sum())} after setting unusable rows aside"
        raise DataError(
            expected_got("at least two classes with usable rows", got, "check the label column and the images")
        )
    sides = [result.max_side for result in found if result.max_side is not None]
    stats = [result.stats for result in found if result.stats is not None]
    scaling, lined_up = _line_up(place, found)
    quarantine = _gather(place, "quarantine", schema.quarantine_schema(), found)
    truth = _gather(place, "truth", schema.truth_schema(), found) if source.has_truth else None
    return DatasetManifest(
        source=source.name,
        uri=redact(source.uri),
        kind=source.kind,
        fingerprint=fingerprint,
        content_hash=_joined([digest for result in found for digest in (result.digest, result.payload_digest)]),
        payload_hash=_joined([result.payload_digest for result in found]),
        num_rows=rows,
        class_names=vocabulary.names,
        class_counts=tuple(class_counts.tolist()),
        feature_dim=dim,
        parts=tuple(result.part for result in found if result.part.rows),
        quarantine=quarantine,
        truth=truth,
        duplicates=write_duplicates(place, [result.part.name for result in found], source.num_rows),
        allows_thumbnails=source.allows_thumbnails,
        max_side=max(sides, default=None),
        gray=all(result.gray for result in found),
        quarantined=sum(reasons.values()),
        quarantine_reasons=dict(reasons.most_common()),
        quarantine_examples=tuple([e for result in found for e in result.examples][:EXAMPLES]),
        stats=sum(stats[1:], stats[0]) if stats else None,
        lined_up=lined_up,
        notes=source.notes,
        warnings=(
            *source.warnings,
            *vocabulary_warnings(_named(class_counts, vocabulary), vocabulary),
            *feature_warnings(scaling, lined_up, rows, source.feature_names),
        ),
    )


def _line_up(place: Location, found: list[_PartResult]) -> tuple[RobustScaling | None, LinedUpFeatures | None]:
    """How features must be brought into line; of images nothing."""
    parts = [one for one in found if one.part.rows]
    files = [(place / posixpath.basename(one.part.name), one.stats, one.reach) for one in parts]
    known = [(file, stats, reach) for file, stats, reach in files if stats is not None]
    samples = [one.sample for one in parts if one.sample is not None]
    return line_up(known, np.concatenate(samples)) if samples else (None, None)


def _named(class_counts: np.ndarray, vocabulary: LabelVocabulary) -> Mapping[str, int]:
    return {name: int(count) for name, count in zip(vocabulary.names, class_counts, strict=True)}


def _gather(place: Location, name: str, wanted: pa.Schema, found: list[_PartResult]) -> str:
    """Join the small per-part tables into one file beside the data; returns its name below the data set's folder."""
    names = [posixpath.basename(result.part.name) for result in found]
    tables = map_threads(lambda part: (place / name / part).read_table().cast(wanted), names)
    (place / f"{name}.parquet").write_table(pa.concat_tables(tables))
    (place / name).delete()
    return f"{posixpath.basename(place.path)}/{name}.parquet"


def _digest(*values: np.ndarray) -> str:
    state = hashlib.blake2b(digest_size=16)
    for value in values:
        state.update(np.ascontiguousarray(value).view(np.uint8).data)
    return state.hexdigest()


def _joined(digests: list[str]) -> str:
    return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()
