"""Which labels a classifier learns, given what a run of `detect` says of them, and which it is tested on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.arrays import sorted_positions
from dynacor_ray.core.errors import ConfigError, DataError, RunDirectoryError, counted, expected_got
from dynacor_ray.core.packed_dataset import LEFT_OUT, GivenLabels, PackedDataset
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.core.table_files import columns_of, read_rows, table_files
from dynacor_ray.decision.review_model import expected_from_quality
from dynacor_ray.engine.data.ingest import ingest
from dynacor_ray.engine.data.training_rows import TrainingRows, chosen_rows, rows_of_images
from dynacor_ray.ground_truth.noise_spec import known_labels
from dynacor_ray.models.encoders import EncoderSpec
from dynacor_ray.models.image_classifiers import NetworkSpec
from dynacor_ray.runs.audit import issues_in_use
from dynacor_ray.runs.directory import finished_run
from dynacor_ray.runs.records import RunSummary
from dynacor_ray.workflows.open_data import OpenedData, feature_store, training_rows
from dynacor_ray.workflows.prepare import PreparedRun, prepare

Action = Literal["drop", "relabel", "weigh"]


@dataclass(frozen=True)
class Judged:
    """A finished run of `detect` whose word is taken.

    Attributes:
        run: Its directory.
        summary: Its summary.json.
        issues: The rows in use, reviewed or not.
    """

    run: Location
    summary: RunSummary
    issues: Location

    @classmethod
    def open(cls, place: str, action: Action) -> Judged:
        """Read what is small.

        Raises:
            RunDirectoryError: There is no finished run.
            ConfigError: `weigh`, and the run gives no probabilities.
        """
        run = finished_run(locate(place))
        found = cls(run, RunSummary.read(run), issues_in_use(run))
        if action == "weigh" and found.summary.quality_log_odds is None and not found.has_probabilities:
            expected = "a run whose rows have a probability to be wrong, for --weigh"
            remedy = "take one with the default --flag-rule, or review it, or leave out --weigh"
            raise ConfigError(expected_got(expected, f"{place} without", remedy))
        return found

    @property
    def has_probabilities(self) -> bool:
        """Whether a review gave each row a probability."""
        return schema.WRONG_PROBABILITY in columns_of(self.issues).names

    def fingerprint(self) -> str:
        """Changes with the rows in use."""
        infos = [file.info() for file in table_files(self.issues)]
        stamps = [f"{info.base_name} {info.size} {info.mtime_ns}" for info in infos]
        return " ".join([self.summary.data.content_hash, *stamps])

    def labels(self, dataset: PackedDataset, action: Action) -> tuple[GivenLabels, int]:
        """The labels to learn, and how many rows were flagged.

        Raises:
            RunDirectoryError: The run is of other rows or labels.
        """
        if self.summary.data.content_hash != dataset.manifest.content_hash:
            expected = f"a run on the same rows and labels as {dataset.manifest.uri}"
            remedy = "run dynacor detect on this data, with the same column options"
            raise RunDirectoryError(expected_got(expected, f"{self.run}, on {self.summary.data.uri}", remedy))
        reviewed = action == "weigh" and self.has_probabilities
        names = [schema.INSTANCE_ID, schema.IS_LABEL_ISSUE, schema.PREDICTED_LABEL, schema.LABEL_QUALITY]
        rows = read_rows(self.issues, [*names, *([schema.WRONG_PROBABILITY] if reviewed else [])])
        rows = rows.sort_by(schema.INSTANCE_ID)
        given, flagged = dataset.labels(), rows[schema.IS_LABEL_ISSUE].to_numpy()
        if not np.array_equal(rows[schema.INSTANCE_ID].to_numpy(), given.ids):
            raise RunDirectoryError(expected_got(f"every row of the data in {self.issues}", "others", "run it again"))
        if action == "weigh":
            return dataclasses.replace(given, weights=self._weights(rows, reviewed)), int(flagged.sum())
        instead = rows[schema.PREDICTED_LABEL].to_numpy() if action == "relabel" else LEFT_OUT
        labels = np.where(flagged, instead, given.labels).astype(np.int32)
        return dataclasses.replace(given, labels=labels), int(flagged.sum())

    def _weights(self, rows: pa.Table, reviewed: bool) -> np.ndarray:
        """P(right) of each row, with mean 1: the learning rate suits as many rows as there are."""
        if reviewed:
            wrong = rows[schema.WRONG_PROBABILITY].to_numpy()
        else:
            assert self.summary.quality_log_odds is not None
            wrong = expected_from_quality(rows[schema.LABEL_QUALITY].to_numpy(), *self.summary.quality_log_odds)
        right = 1.0 - wrong
        weights: np.ndarray = (right / max(float(right.mean()), 1e-12)).astype(np.float32)
        return weights


def prepare_test(prepared: PreparedRun, test: str, label_column: str | None) -> PreparedRun:
    """The test data opened, as far as that takes no work.

    Raises:
        DataError: They are of another kind than the training data.
    """
    config = dataclasses.replace(
        prepared.config,
        data=test,
        label_column=label_column or prepared.config.label_column,
        balanced_sample=None,
        include_double_labeled=False,
    )
    opened = prepare(config)
    if opened.source.kind != prepared.source.kind:
        got = f"{opened.source.kind}s in {test}"
        raise DataError(expected_got(f"test data that hold {prepared.source.kind}s", got, "check --test"))
    return opened


def test_rows(
    prepared: PreparedRun, opened: OpenedData, place: Location, use_gpu: bool, progress: Progress
) -> tuple[TrainingRows, bool]:
    """Pack and embed the test data as the training data were.

    Args:
        prepared: The test data, by `prepare_test`.
        opened: The training data.
        place: Where the labels to judge by are written.
        use_gpu: Whether to encode on GPUs.
        progress: Where the stages are shown.

    Returns:
        The rows that have a label to judge by, and whether those are true labels.

    Raises:
        DataError: The classes are others, or no row has a label.
    """
    names = opened.dataset.manifest.class_names
    if prepared.source.class_names != names:
        try:
            prepared = prepare(dataclasses.replace(prepared.config, classes=names))
        except ConfigError as error:  # a kind of data with classes of its own
            got = f"others in {prepared.config.data}"
            expected = f"test data with the {len(names)} classes of the training data"
            raise DataError(expected_got(expected, got, "check --test")) from error
    try:
        with progress.timed("ingest"):
            dataset = ingest(prepared.source, prepared.packed.make_dir(), prepared.config.max_invalid_share, progress)
    except DataError as error:
        raise DataError(f"In the test data: {error}") from error
    if dataset.manifest.quarantined:
        progress.say(f"{counted(dataset.manifest.quarantined, 'unusable test row')} left out")
    if dataset.manifest.feature_dim != opened.dataset.manifest.feature_dim:
        expected = f"test vectors of {opened.dataset.manifest.feature_dim} numbers"
        raise DataError(expected_got(expected, str(dataset.manifest.feature_dim), "take those of the same encoder"))
    labels = dataset.labels()
    if dataset.truth is not None:
        ids, true = known_labels(dataset.truth.read_table())
        labels = GivenLabels(labels.ids, np.append(true, LEFT_OUT)[sorted_positions(ids, labels.ids)].astype(np.int32))
    rows = _rows(prepared, dataset, opened, use_gpu, progress)
    return chosen_rows(rows, dataset.with_labels(labels, place)), dataset.truth is not None


def _rows(
    prepared: PreparedRun, dataset: PackedDataset, opened: OpenedData, use_gpu: bool, progress: Progress
) -> TrainingRows:
    """All test rows, encoded and brought into line as the training rows were."""
    plain, spec = prepared.config.plain_features, opened.spec
    if isinstance(spec, NetworkSpec):
        augmentation = prepared.training.augmentation
        assert augmentation is not None
        return rows_of_images(dataset, None, "none", augmentation.stored, plain)
    assert isinstance(spec, EncoderSpec)
    with progress.timed("embed"):
        store = feature_store(prepared, dataset, spec, None, use_gpu, progress)
    if store is not None:
        store = dataclasses.replace(store, lined_up=opened.lined_up)
    manifest = dataclasses.replace(dataset.manifest, lined_up=opened.lined_up)
    return training_rows(dataclasses.replace(dataset, manifest=manifest), store, None, plain)
