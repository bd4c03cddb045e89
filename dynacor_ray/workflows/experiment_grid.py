"""An experiment on known labels: a cell per kind of noise and seed, all on the same rows and features."""

from __future__ import annotations

import dataclasses
import functools
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import pyarrow as pa

from dynacor_ray.config.analyze_signals import AnalyzeSignalsConfig
from dynacor_ray.config.compare import CompareConfig
from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.core.packed_dataset import GivenLabels, PackedDataset
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.redaction import redact_all
from dynacor_ray.core.schema import BYTES_PER_SIGNAL
from dynacor_ray.core.storage import Location, locate, require_space
from dynacor_ray.detectors.evidence import Verdict
from dynacor_ray.engine.data.feature_blocks import FeatureBlocks, gather_neighbors, load_blocks
from dynacor_ray.engine.training.job import TrainPlan
from dynacor_ray.ground_truth.metrics import detection_metrics, match_truth
from dynacor_ray.ground_truth.noise_spec import GIVEN, Noise, given_labels, known_labels, true_labels
from dynacor_ray.models.encoders import EncoderSpec, parse_encoder
from dynacor_ray.report.comparison_table import markdown_table
from dynacor_ray.runs import directory as run_directory
from dynacor_ray.runs.directory import CELLS, CONFIG, QUARANTINE, SUMMARY
from dynacor_ray.runs.records import Judgment
from dynacor_ray.runs.resumable import ResumableRun
from dynacor_ray.workflows.cluster_session import check_storage, plan_for, ray_session
from dynacor_ray.workflows.dynamics_flow import DynamicsFlow
from dynacor_ray.workflows.noisy_labels import labels_from_features
from dynacor_ray.workflows.open_data import (
    OpenedData,
    check_encoder,
    feature_store,
    image_rows,
    open_data,
    training_rows,
)
from dynacor_ray.workflows.prepare import PreparedRun, corruption_config, default_out, prepare, training_config

NOISE_SIDE = 32
"""Side of the images, in pixels, that noise is made from with a network."""
Found = TypeVar("Found")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Experiment(ResumableRun[list[Found], Result], Generic[Found, Result]):
    """A checked experiment with everything opened that can be opened without work; its findings come from cells."""

    config: Any
    """CompareConfig or AnalyzeSignalsConfig."""
    run: Location
    seeds: dict[int, PreparedRun]
    """A run per seed, all on the data of the first."""
    facts: dict[str, Any]
    """What was asked for, as `summary.json` keeps it."""
    tied: dict[str, Any]
    """What ties the run directory."""

    stem: ClassVar[str]
    """Of the names of the result files."""
    result: ClassVar[type[Any]]
    """What is given to the user, from run directory and summary."""
    summarize: ClassVar[Callable[..., dict[str, Any]]]
    """Findings, config, versions and seconds -> the content of `summary.json`."""
    table: ClassVar[Callable[..., pa.Table]]
    figure: ClassVar[Callable[..., bytes]]

    @classmethod
    def open(
        cls,
        name: str,
        config: CompareConfig | AnalyzeSignalsConfig,
        detect: DetectConfig,
        chosen: dict[str, Any],
        varied: Sequence[str] = (),
    ) -> Self:
        """Open the data. Raises a DynacorError for whatever could not run.

        Args:
            name: Of the kind of experiment.
            config: What was asked for.
            detect: The options that all runs share.
            chosen: Options whose defaults are spelled out in the summary.
            varied: Options besides the seed in which runs of one directory may differ; an experiment may be extended.
        """
        run = locate(detect.out or f"{default_out(detect.data)}-{name}")
        cache = locate(detect.cache) if detect.cache else run / "cache"
        prepared: dict[int, PreparedRun] = {}
        for seed in config.effective_seeds:
            first = next(iter(prepared.values()), None)
            made = prepare(dataclasses.replace(detect, seed=seed, cache=str(cache), out=str(run)), first, run, cache)
            # All seeds are judged on the rows of the first, also where a seed would choose others.
            prepared[seed] = dataclasses.replace(made, packed=first.packed, source=first.source) if first else made
        first = prepared[config.effective_seeds[0]]
        if not first.source.has_truth:
            remedy = "name their column with --truth-column (Clothing1M: --include-double-labeled), or use detect"
            raise ConfigError(expected_got("true labels to judge by", f"none in {detect.data}", remedy))
        features = "encoder features" if detect.network is None else f"the images at {NOISE_SIDE} px"
        made_from = {str(noise): noise.made_from(features) for noise in config.noises}
        facts = dataclasses.asdict(config) | {"seeds": config.effective_seeds} | chosen | {"made_from": made_from}
        tied = first.identity(without=("seed", *varied))
        tied["options"] |= {name: True}
        run_directory.check(run, tied)
        return cls(config, run, prepared, redact_all(run_directory.as_json(facts)), tied)

    def finished(self) -> Result | None:
        """The result, when just this experiment was completed here without a failure."""
        place = self.run / SUMMARY
        summary = place.read_json() if place.exists() else None
        if summary is None or summary["config"] != self.facts or summary["failures"]:
            return None
        result: Result = type(self).result(self.run, summary)
        return result

    @abstractmethod
    def find_all(self, progress: Progress) -> Iterator[Found]:
        """The findings of all cells."""

    def execute(self, progress: Progress) -> list[Found]:
        """The findings of all cells."""
        with ray_session(self.config.detect, next(iter(self.seeds.values())), progress):
            return list(self.find_all(progress))

    def release_if_empty(self) -> None:
        """Free the directory unless a cell was begun."""
        if not (self.run / CELLS).names():
            for name in (CONFIG, QUARANTINE):
                (self.run / name).delete()

    def write(self, made: list[Found], seconds: dict[str, float]) -> Result:
        """Write table, figure, text, and last of all files the summary."""
        kind, versions = type(self), run_directory.versions(self.run)
        summary = kind.summarize(made, config=self.facts, versions=versions, seconds=seconds)
        (self.run / f"{self.stem}.parquet").write_table(kind.table(made))
        (self.run / f"{self.stem}.png").write_bytes(kind.figure(made))
        (self.run / f"{self.stem}.md").write_bytes(markdown_table(summary).encode())
        (self.run / SUMMARY).write_json(summary)
        result: Result = kind.result(self.run, (self.run / SUMMARY).read_json())
        return result

    def open_shared(self, trainings: int, progress: Progress) -> SharedData:
        """Claim the run directory, pack and embed the data, and see that there is a truth to judge by.

        trainings: how many each cell makes.
        """
        first, kinds = next(iter(self.seeds.values())), self.config.noises
        with progress.timed("start"):
            plan = plan_for(first.config)
            signals = first.source.num_rows * first.config.epochs * BYTES_PER_SIGNAL
            require_space(self.run, signals * trainings * len(kinds) * len(self.seeds))
            run_directory.claim(self.run, self.tied, self.facts)
            check_storage(first, progress)
            check_encoder(first)
        shared = SharedData(first, open_data(first, plan.use_gpu, progress), plan, progress)
        _check_truth(kinds, shared)
        return shared

    def cells(self, shared: SharedData, make: type[AnyCell]) -> Iterator[AnyCell]:
        """The cells, one after the other, each with its labels."""
        for noise in self.config.noises:
            for seed, prepared in self.seeds.items():
                place = self.run / CELLS / f"{str(noise).replace(':', '-')}-seed{seed}"
                shared.progress.say(f"{noise}, seed {seed}")
                yield make(prepared, noise, shared, _labeled(noise, seed, place, shared), place)


@dataclass
class SharedData:
    """What all cells share; what is asked for later is made once."""

    prepared: PreparedRun
    opened: OpenedData
    plan: TrainPlan
    progress: Progress

    @functools.cached_property
    def blocks(self) -> FeatureBlocks:
        """Features of all originals; there are none with a network."""
        return load_blocks(self.opened.features, self.opened.lined_up)

    @functools.cached_property
    def noise_features(self) -> tuple[FeatureBlocks, np.ndarray]:
        """What noise that depends on the input is made from, and its mean: features, or for a network small images."""
        if isinstance(self.opened.spec, EncoderSpec):
            return self.blocks, self.opened.rows.facts.mean
        pixels = parse_encoder(f"pixels:{NOISE_SIDE}")
        store = feature_store(self.prepared, self.opened.dataset, pixels, None, self.plan.use_gpu, self.progress)
        assert store is not None
        return load_blocks([store.originals / name for name in store.files]), store.stats.scaling()[0]

    @functools.cached_property
    def truth(self) -> pa.Table:
        """True labels."""
        assert self.opened.dataset.truth is not None
        return self.opened.dataset.truth.read_table()

    @functools.cached_property
    def neighbors(self) -> dict[str, Any]:
        """Who is near whom by an encoder's features, which do not depend on labels: found once, for all cells."""
        return self.find_neighbors(self.blocks)

    def find_neighbors(self, blocks: FeatureBlocks) -> dict[str, Any]:
        """Who is near whom by some features, and the seconds that it took to find out."""
        start = time.monotonic()
        duplicates = self.opened.dataset.duplicates()
        found: dict[str, Any] = dict(gather_neighbors(blocks, self.progress, duplicates))
        return found | {"seconds": time.monotonic() - start}


@dataclass(frozen=True)
class GridCell:
    """One kind of noise and one seed, whose labels are those of `dataset`."""

    prepared: PreparedRun
    noise: Noise
    shared: SharedData
    dataset: PackedDataset
    place: Location

    @property
    def seed(self) -> int:
        """Of noise, corruption and training."""
        return self.prepared.config.seed

    @functools.cached_property
    def labels(self) -> GivenLabels:
        """The labels that are judged."""
        return self.dataset.labels()

    def flow(
        self,
        name: str,
        gamma: float | None = None,
        all_signals: bool = False,
        with_copies: bool = True,
        config: DetectConfig | None = None,
    ) -> DynamicsFlow:
        """A training of this cell.

        Args:
            name: Of its folder.
            gamma: Another corruption rate than the widest, whose copies serve all.
            all_signals: Whether those of Table 6 are recorded.
            with_copies: Whether there are corrupted copies (§4.2).
            config: Its options, where they are not those that all trainings share.
        """
        opened, config = self.shared.opened, config or self.prepared.config
        config = dataclasses.replace(config, gamma=gamma or config.gamma)
        corruption = corruption_config(config) if with_copies else None
        training = training_config(config, signals=all_signals)
        if isinstance(opened.spec, EncoderSpec):
            store = opened.store
            if with_copies:
                prepared = dataclasses.replace(self.prepared, config=config)
                use_gpu, progress = self.shared.plan.use_gpu, self.shared.progress
                store = feature_store(prepared, opened.dataset, opened.spec, corruption, use_gpu, progress)
            rows = training_rows(self.dataset, store, corruption, config.plain_features)
        else:
            rows = image_rows(config, self.dataset, corruption)
        return DynamicsFlow(config, training, self.place / name, self.dataset, rows, self.shared.plan)

    @functools.cached_property
    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """Which rows have a known truth, bool (N,), and which of those are wrong, bool (n,)."""
        labels, truth = self.labels, self.shared.truth
        known = np.isin(labels.ids, known_labels(truth)[0])
        return known, match_truth(labels.ids[known], labels.labels[known], truth)

    def metrics(self, verdict: Verdict) -> dict[str, Any]:
        """Scores on the rows whose truth is known."""
        known, is_mislabeled = self.known
        return detection_metrics(verdict.is_label_issue[known], verdict.score[known], is_mislabeled)

    def judgment(
        self,
        detector: str,
        title: str,
        verdict: Verdict | None,
        metrics: dict[str, Any],
        seconds: float,
        message: str | None = None,
    ) -> Judgment:
        """The record of what a detector made of this cell; a message says why it failed."""
        return Judgment(
            noise=str(self.noise),
            seed=self.seed,
            detector=detector,
            title=title,
            flagged_share=float(verdict.is_label_issue.mean()) if verdict else None,
            metrics=metrics,
            seconds=round(seconds, 3),
            message=message,
        )

    def longest(self, seconds: dict[str, float]) -> dict[str, float]:
        """Seconds per part when it was gathered first: a resumed cell finds its trainings done."""
        place = self.place / "seconds.json"
        known: dict[str, float] = place.read_json() if place.exists() else {}
        longest = {part: max(seconds.get(part, 0.0), known.get(part, 0.0)) for part in {*seconds, *known}}
        place.write_json(longest)
        return longest


AnyCell = TypeVar("AnyCell", bound=GridCell)


def _check_truth(kinds: Sequence[Noise], shared: SharedData) -> None:
    """Find out before any training that there is nothing to judge by, or to make noise from."""
    rows, known = shared.opened.dataset.manifest.num_rows, len(known_labels(shared.truth)[0])
    if known == 0:
        remedy = "check --truth-column and how its classes are spelled"
        raise DataError(expected_got("true labels among the classes that are given", "none", remedy))
    if any(noise.kind != GIVEN for noise in kinds):
        true_labels(shared.truth, rows)
    for noise in kinds:
        if noise.classes:  # made of no rows, it says whether they exist
            none = np.zeros(0, np.int64)
            given_labels(noise, none, none, shared.opened.dataset.num_classes, seed=0)
    if known < rows:
        shared.progress.say(f"Measured on {known:,} of {rows:,} rows: the others have no true label among the classes.")


def _labeled(noise: Noise, seed: int, place: Location, shared: SharedData) -> PackedDataset:
    """The data with their own labels, or with noisy ones made from the truth and kept as `labels.parquet`."""
    dataset, kept = shared.opened.dataset, place / "labels.parquet"
    if noise.kind == GIVEN:
        return dataset
    if kept.exists():
        return dataclasses.replace(dataset, relabeled=kept)
    ids, truth = true_labels(shared.truth, dataset.manifest.num_rows)
    classes = dataset.num_classes
    if noise.needs_features:
        known = GivenLabels(ids, truth.astype(np.int32))
        labels = labels_from_features(noise, known, classes, seed, *shared.noise_features)
    else:
        labels = given_labels(noise, truth, ids, classes, seed)
    return dataset.with_labels(GivenLabels(ids, labels), kept)
