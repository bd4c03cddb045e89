"""What a finished training recorded, read back: signals of rows, and the noise rates that its counts say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from dynacor_ray.core import schema
from dynacor_ray.core.errors import CoverageError, expected_got
from dynacor_ray.core.manifest import MANIFEST
from dynacor_ray.core.storage import Location, retry_transient
from dynacor_ray.decision.confident_joint import class_noise_rates
from dynacor_ray.decision.noise_rate import BINS, NoiseRate, counted_epochs, estimate_noise_rate
from dynacor_ray.engine.training.open_files import ReadBetween, open_files
from dynacor_ray.engine.training.signal_files import CONFIDENCE, JOINTS, PROGRESS, SIGNALS, SignalManifest


@dataclass(frozen=True)
class RecordedSignals:
    """What a finished training recorded: the folder, and which of its files count."""

    folder: Location
    files: SignalManifest

    @classmethod
    def read(cls, run: Location) -> RecordedSignals | None:
        """The signals of a run's training, or None when it is not finished."""
        place = run / SIGNALS / MANIFEST
        return cls(run / SIGNALS, place.read_json()) if place.exists() else None

    @property
    def epochs(self) -> list[int]:
        """All epochs, in order."""
        return sorted(map(int, self.files))

    def columns(
        self,
        epoch: int,
        keys: np.ndarray,
        names: Sequence[str],
        only_originals: bool = False,
        read: ReadBetween | None = None,
    ) -> dict[str, np.ndarray]:
        """What one epoch recorded of some rows.

        Args:
            epoch: Counted from 0.
            keys: int64 (n,), increasing: all rows between the first and the last.
            names: Columns to read.
            only_originals: Whether copies (odd keys) are left out of the rows.
            read: That of `open_files`, for one range after the other; None: files are opened for this call.

        Returns:
            Values by name, (n,) or (n, m) each, in the order of the keys.

        Raises:
            CoverageError: A row is not there exactly once.
        """
        low, high = (int(keys[0]), int(keys[-1])) if len(keys) else (0, -1)
        columns = list(dict.fromkeys([schema.KEY, *names]))
        with nullcontext(read) if read is not None else open_files() as read_between:
            parts = [read_between(self.folder / name, columns, low, high) for name in self.files[str(epoch)]]
        table = pa.concat_tables(parts)
        if only_originals:
            table = table.filter(pa.array(table[schema.KEY].to_numpy() & 1 == 0))
        found = table[schema.KEY].to_numpy()
        order = np.argsort(found)
        if not np.array_equal(found[order], keys):
            raise CoverageError(coverage_message(epoch, keys, found[order]))
        return {name: _values(table[name])[order] for name in names}

    @property
    @retry_transient
    def has_class_scores(self) -> bool:
        """Whether the scores that the label noise model reads were recorded."""
        epoch = str(schema.LEAVE_ONE_OUT_EPOCH)
        if epoch not in self.files:
            return False
        with (self.folder / self.files[epoch][0]).parquet() as file:
            return set(schema.CLASS_SCORES) <= set(file.schema_arrow.names)

    def class_scores(self, keys: np.ndarray, read: ReadBetween | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Likely classes, int32 (n, K), and their `schema.CLASS_SCORES`, float16 (n, 3 K), of logits the early mean.

        keys, read: As in `columns`.
        """
        regressions = [schema.RIDGE_SCORES, schema.WIDE_RIDGE_SCORES]
        scores = self.columns(schema.LEAVE_ONE_OUT_EPOCH, keys, [schema.LIKELY_CLASSES, *regressions], read=read)
        classes, logits = scores[schema.LIKELY_CLASSES], []
        for epoch in (epoch for epoch in schema.EARLY_EPOCHS if epoch in self.epochs):
            seen = self.columns(epoch, keys, [schema.LIKELY_CLASSES, schema.EARLY_LOGITS], read=read)
            logits.append(_lined_up(seen[schema.EARLY_LOGITS].astype(np.float32), seen[schema.LIKELY_CLASSES], classes))
        blocks = [*(scores[name] for name in regressions), np.mean(logits, axis=0)]
        return classes, np.concatenate(blocks, axis=1).astype(np.float16)

    def waiting_share(self) -> float | None:
        """Share of the training's time that went into waiting for rows, in [0, 1]; None when it is not known."""
        place = self.folder / PROGRESS
        seconds = place.read_json() if place.exists() else {}
        return seconds["waiting"] / seconds["training"] if seconds.get("training") else None

    def noise_rate(self, batch_size: int) -> NoiseRate | None:
        """The noise rate that the counts by certainty say; None when the training was too short for any."""
        counts = _confidence(self.folder)
        return estimate_noise_rate(counts, len(self.files), _steps(counts, batch_size))

    def class_noise_rates(self, num_classes: int, noise_rate: float, batch_size: int) -> np.ndarray:
        """Share of wrong labels per given class, float64 (C,), by the confident joint, scaled to the overall rate."""
        table = (self.folder / JOINTS).read_table()
        used = counted_epochs(len(self.files), _steps(_confidence(self.folder), batch_size))
        rows = np.isin(table["epoch"].to_numpy(), list(used))
        names = (schema.GIVEN_LABEL, schema.PREDICTED_LABEL, "count")
        given, predicted, count = (table[name].to_numpy()[rows] for name in names)
        return class_noise_rates(given, predicted, count, num_classes, noise_rate)

    def copy_to(self, run: Location) -> None:
        """Copy the files that count to another run, and last the manifest, which says that they are complete."""
        here = run / SIGNALS
        for name in (name for names in self.files.values() for name in names):
            place = here / name
            place.parent.make_dir()
            pafs.copy_files(
                (self.folder / name).path,
                place.path,
                source_filesystem=self.folder.filesystem,
                destination_filesystem=place.filesystem,
            )
        for name in (JOINTS, CONFIDENCE):
            (here / name).write_table((self.folder / name).read_table())
        (here / MANIFEST).write_json(self.files)


def _lined_up(values: np.ndarray, classes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Values (n, K) of some classes in the order of the wanted ones; the smallest for one that is not among them.

    Which class is just probable enough differs between epochs where rounding decides.
    """
    values = values.copy()
    for row in np.flatnonzero((classes != wanted).any(axis=1)):
        held = dict(zip(classes[row].tolist(), values[row].tolist(), strict=True))
        values[row] = [held.get(one, min(held.values())) for one in wanted[row].tolist()]
    return values


def _values(column: pa.ChunkedArray) -> np.ndarray:
    return schema.matrix(column) if pa.types.is_fixed_size_list(column.type) else column.to_numpy()


def coverage_message(epoch: int, expected: np.ndarray, found: np.ndarray) -> str:
    """Names the keys that are missing, doubled or unknown. expected, found: sorted int64."""
    values, counts = np.unique(found, return_counts=True)
    lists = {
        "missing": np.setdiff1d(expected, values),
        "doubled": values[counts > 1],
        "unknown": np.setdiff1d(values, expected),
    }
    got = "; ".join(
        f"{len(keys):,} {name} (instance_id {_shown(keys >> 1)})" for name, keys in lists.items() if len(keys)
    )
    return expected_got(f"exactly one signal per row in epoch {epoch}", got, "report this as a defect")


def _shown(ids: np.ndarray, most: int = 5) -> str:
    return ", ".join(map(str, ids[:most])) + (", ..." if len(ids) > most else "")


def _confidence(signals: Location) -> dict[int, np.ndarray]:
    """Epoch -> int64 (2, 2, BINS)."""
    table = (signals / CONFIDENCE).read_table()
    names = ("epoch", "is_corrupted", "disagrees", "bin", "count")
    epochs, *cell, count = (table[name].to_numpy().astype(np.int64) for name in names)
    counts = {epoch: np.zeros((2, 2, BINS), np.int64) for epoch in np.unique(epochs).tolist()}
    for epoch, one in counts.items():
        here = epochs == epoch
        one[tuple(index[here] for index in cell)] = count[here]
    return counts


def _steps(counts: Mapping[int, np.ndarray], batch_size: int) -> int:
    """Steps of SGD per epoch."""
    rows = max((int(one.sum()) for one in counts.values()), default=0)
    return -(-rows // batch_size)
