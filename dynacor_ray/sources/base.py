"""The interface of every source of labeled data: shards that can be read anywhere, labels first. No Ray here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import pyarrow as pa

from dynacor_ray.sources.image_files import cut

Kind = Literal["image", "feature"]


COLUMN_OPTIONS = ("label_column", "image_column", "feature_column", "uri_column", "truth_column")
"""The options of a source that name a column."""


@dataclass(frozen=True)
class Shard(ABC):
    """A picklable piece of a source: rows `first_row .. first_row + num_rows - 1` in the source's own order.

    Attributes:
        first_row: number of its first row in the source.
        num_rows: number of rows.
    """

    first_row: int
    num_rows: int

    @abstractmethod
    def read_labels(self) -> pa.StringArray:
        """Given labels as strings, null where missing; shape (num_rows,). Reads no image."""

    @abstractmethod
    def read(self) -> pa.Table:
        """The raw rows. A single invalid row raises nothing.

        Returns:
            Columns `row` int64 (position in the source), `uri` string, `label` string (null = missing), `error` string
            (null = readable, else the reason, e.g. "missing file"), and `image` binary or `feature` list<float>. Also
            `instance_id` int64 when the source carries its own ids, and `true_label` string when it carries the truth.
        """


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Options of a run that a source reads. A column of None is detected."""

    label_column: str | None = None
    image_column: str | None = None
    feature_column: str | None = None
    uri_column: str | None = None
    truth_column: str | None = None
    feature_columns: tuple[str, ...] | None = None
    image_root: str | None = None
    image_suffix: str | None = None
    split: str | None = None
    follow_links: bool = False
    classes: tuple[str, ...] | None = None
    balanced_sample: int | None = None
    include_double_labeled: bool = False
    remote: bool | None = None
    seed: int = 0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SourceOptions:
        """The options of a source among all options of a run, also after a round trip through JSON."""
        known: dict[str, Any] = {field.name: options.get(field.name, field.default) for field in fields(cls)}
        lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**known | lists)


class Source(ABC):
    """A labeled data set as the user has it. Opening an unusable one raises DataError, StorageError or ConfigError."""

    name: str
    """Kind of source, e.g. "parquet"."""
    uri: str
    """Where it is, as the user wrote it."""
    kind: Kind
    """Whether a row carries an image or a feature vector."""
    num_rows: int
    """Rows, including those that will be quarantined."""
    class_names: tuple[str, ...] | None
    """The declared classes in order, or None to take the distinct labels of the data."""
    label_codes: dict[str, int] | None = None
    """Label in the data -> class index, when classes are declared; other labels are out of vocabulary."""
    has_instance_ids: bool = False
    has_truth: bool = False
    row_index: pa.Table | None = None
    """instance_id of each row beside the index of the data frame that it came from, as pandas writes it."""
    feature_names: tuple[str, ...] = ()
    """Of the feature's columns, where it was put together from columns with names; else empty."""
    notes: tuple[str, ...] = ()
    """Sentences about what was taken for what, where nothing is lost; `doctor`, terminal and report show them."""
    warnings: tuple[str, ...] = ()
    """The same where rows, classes or labels are left out or changed."""
    hint: str = ""
    """What to do if too many rows turn out to be unusable, where opening the source gave an idea of it."""
    allows_thumbnails: bool = True
    """False when the terms of the data set forbid showing its images to others."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest that changes with a file of the source (path, size, time) or an option that matters."""

    def shards(self, max_rows: int) -> list[Shard]:
        """Cut the source into shards of at most about `max_rows` rows, in order, covering every row once."""
        return cut(self.num_rows, max_rows, self._shard)

    def _shard(self, first: int, count: int) -> Shard:
        """Some of the rows, where `shards` is not a source's own."""
        raise NotImplementedError
