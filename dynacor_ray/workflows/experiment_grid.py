"""The ground of an experiment on known labels: a cell per kind of noise and seed, all on the same rows and features."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.schema import BYTES_PER_SIGNAL
from dynacor_ray.core.storage import Location, locate, require_space
from dynacor_ray.detectors.evidence import Verdict
from dynacor_ray.engine.data.feature_blocks import FeatureBlocks, load_blocks, map_features
from dynacor_ray.engine.data.labels import GivenLabels, LabelTable
from dynacor_ray.engine.data.training_rows import TrainingRows
from dynacor_ray.engine.training.job import TrainPlan
from dynacor_ray.ground_truth.metrics import detection_metrics, match_truth
from dynacor_ray.ground_truth.noise_spec import GIVEN, Noise, given_labels, known_truth, true_labels
from dynacor_ray.models.encoders import EncoderSpec
from dynacor_ray.runs import directory as rundir
from dynacor_ray.runs.directory import CELLS, CONFIG, QUARANTINE, SUMMARY
from dynacor_ray.runs.resumable import ResumableRun
from dynacor_ray.workflows.gather_evidence import DetectionInputs
from dynacor_ray.workflows.open_data import Opened, check_encoder, feature_store, open_data, training_rows
from dynacor_ray.workflows.prepare import Prepared, check_storage, default_out, identity, plan_for, prepare


@dataclass(frozen=True)
class ExperimentPlan:
    """A checked experiment with everything opened that can be opened without work.

    facts: what was asked for, as `summary.json` keeps it; tied: what ties the run directory.
    """

    run: Location
    seeds: dict[int, Prepared]
    kinds: Sequence[Noise]
    facts: dict[str, Any]
    tied: dict[str, Any]

    @classmethod
    def of(
        cls,
        name: str,
        detect: DetectConfig,
        kinds: Sequence[Noise],
        seeds: Sequence[int],
        facts: dict[str, Any],
        varied: Sequence[str] = (),
    ) -> ExperimentPlan:
        """Open the data. Raises a DynacorError for whatever could not run.

        name: of the kind of experiment. varied: options besides the seed in which runs of one directory may differ; an
        experiment may be extended.
        """
        run = locate(detect.out or f"{default_out(detect.data)}-{name}")
        cache = detect.cache or str(run / "cache")
        prepared: dict[int, Prepared] = {}
        for seed in seeds:
            one = dataclasses.replace(detect, seed=seed, cache=cache, out=str(run))
            first = next(iter(prepared.values()), None)
            made = prepare(one, first)
            # All seeds are judged on the rows of the first, also where a seed would choose others.
            prepared[seed] = dataclasses.replace(made, cache=first.cache, source=first.source) if first else made
        first = prepared[seeds[0]]
        if not first.source.has_truth:
            remedy = "name their column with --truth-column (Clothing1M: --include-double-labeled), or use detect"
            raise ConfigError(expected_got("true labels to judge by", f"none in {detect.data}", remedy))
        held = identity(first)
        options = {key: value for key, value in held["options"].items() if key not in ("seed", *varied)}
        plan = cls(run, prepared, kinds, rundir.as_json(facts), held | {"options": options | {name: True}})
        rundir.check(run, plan.tied)
        return plan

    @property
    def first(self) -> Prepared:
        """The run of the first seed: all share its data."""
        return next(iter(self.seeds.values()))

    def finished(self) -> dict[str, Any] | None:
        """The summary, when just this experiment was completed here without a failure."""
        place = self.run / SUMMARY
        if not place.exists():
            return None
        summary: dict[str, Any] = place.read_json()
        return summary if summary["config"] == self.facts and not summary["failures"] else None


Found = TypeVar("Found")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Experiment(ResumableRun[list[Found], Result], Generic[Found, Result]):
    """An undertaking whose findings come from cells."""

    plan: ExperimentPlan

    @property
    def run(self) -> Location:
        """The run directory of the plan."""
        return self.plan.run

    @abstractmethod
    def result(self, summary: dict[str, Any]) -> Result:
        """What is given to the user. summary: the content of `summary.json`."""

    def finished(self) -> Result | None:
        """The result, when just this experiment was completed here without a failure."""
        summary = self.plan.finished()
        return self.result(summary) if summary is not None else None

    def release_if_empty(self) -> None:
        """Free the directory unless a cell was begun."""
        if not (self.run / CELLS).names():
            for name in (CONFIG, QUARANTINE):
                (self.run / name).delete()


def made_from(kinds: Sequence[Noise]) -> dict[str, str]:
    """What the labels of each kind of noise are made from, for a result to name."""
    return {str(noise): noise.made_from for noise in kinds}


@dataclass
class SharedData:
    """What all cells share: the packed data, and features of the originals, loaded when first asked for."""

    opened: Opened
    use_gpu: bool
    progress: Progress
    _blocks: FeatureBlocks | None = None
    neighbors: dict[str, Any] = field(default_factory=dict)

    @property
    def blocks(self) -> FeatureBlocks:
        """Features of all originals."""
        if self._blocks is None:
            self._blocks = load_blocks(self.opened.features)
        return self._blocks

    def truth(self) -> pa.Table:
        """True labels."""
        assert self.opened.manifest.truth is not None
        return (self.opened.dataset / self.opened.manifest.truth).read_table()


@dataclass(frozen=True)
class GridCell:
    """One kind of noise and one seed."""

    prepared: Prepared
    noise: Noise
    shared: SharedData
    ground: DetectionInputs
    place: Location

    @property
    def seed(self) -> int:
        """Of noise, corruption and training."""
        return self.prepared.config.seed

    def rows(self, prepared: Prepared, with_copies: bool) -> TrainingRows:
        """What is trained on. prepared: the cell's own, or with another corruption rate that is not larger."""
        opened, shared = self.shared.opened, self.shared
        store = opened.store
        if with_copies and store is not None and isinstance(opened.spec, EncoderSpec):
            store = feature_store(prepared, opened.manifest, opened.spec, shared.use_gpu, shared.progress)
        return training_rows(prepared, opened.manifest, store, self.ground.labels, with_copies)

    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """Which rows have a known truth, bool (N,), and which of those are wrong, bool (n,)."""
        labels, truth = self.ground.labels.read(), self.shared.truth()
        known = np.isin(labels.ids, known_truth(truth))
        return known, match_truth(labels.ids[known], labels.labels[known], truth)

    def metrics(self, verdict: Verdict) -> dict[str, Any]:
        """Scores on the rows whose truth is known."""
        known, is_mislabeled = self.known()
        return detection_metrics(verdict.is_label_issue[known], verdict.score[known], is_mislabeled)

    def longest(self, seconds: dict[str, float]) -> dict[str, float]:
        """Seconds per part when it was gathered first: a resumed cell finds its trainings done."""
        place = self.place / "seconds.json"
        known: dict[str, float] = place.read_json() if place.exists() else {}
        longest = {part: max(seconds.get(part, 0.0), known.get(part, 0.0)) for part in {*seconds, *known}}
        place.write_json(longest)
        return longest


AnyCell = TypeVar("AnyCell", bound=GridCell)


def open_shared(plan: ExperimentPlan, trainings: int, progress: Progress) -> tuple[SharedData, TrainPlan]:
    """Claim the run directory, pack and embed the data, and see that there is a truth to judge by.

    trainings: how many each cell makes.
    """
    config = plan.first.config
    with progress.timed("start"):
        spread = plan_for(config)
        cells = len(plan.kinds) * len(plan.seeds)
        signals = plan.first.source.num_rows * config.epochs * BYTES_PER_SIGNAL
        require_space(plan.run, signals * trainings * cells)
        rundir.claim(plan.run, plan.tied, plan.facts)
        check_storage(plan.first, progress)
        check_encoder(plan.first)
    shared = SharedData(open_data(plan.first, spread.use_gpu, progress), spread.use_gpu, progress)
    _check_truth(plan.kinds, shared)
    return shared, spread


def each_cell(plan: ExperimentPlan, shared: SharedData, spread: TrainPlan, make: type[AnyCell]) -> Iterator[AnyCell]:
    """The cells, one after the other, each with its labels."""
    opened, progress = shared.opened, shared.progress
    for noise in plan.kinds:
        for seed, prepared in plan.seeds.items():
            place = plan.run / CELLS / f"{str(noise).replace(':', '-')}-seed{seed}"
            progress.say(f"{noise}, seed {seed}")
            labels = _labels(noise, seed, place, shared)
            ground = DetectionInputs(opened.dataset, opened.manifest, labels, spread, progress)
            yield make(prepared, noise, shared, ground, place)


def _check_truth(kinds: Sequence[Noise], shared: SharedData) -> None:
    """Find out before any training that there is nothing to judge by, or to make noise from."""
    truth, rows = shared.truth(), shared.opened.manifest.num_rows
    known = len(known_truth(truth))
    if known == 0:
        remedy = "check --truth-column and how its classes are spelled"
        raise DataError(expected_got("true labels among the classes that are given", "none", remedy))
    if any(noise.kind != GIVEN for noise in kinds):
        true_labels(truth, rows)
    if known < rows:
        shared.progress.say(f"Judged on {known:,} of {rows:,} rows: the others have no true label among the classes.")


def _labels(noise: Noise, seed: int, place: Location, shared: SharedData) -> LabelTable:
    """The data's own labels, or noisy ones made from the truth and kept as `labels.parquet`."""
    opened = shared.opened
    if noise.kind == GIVEN:
        return LabelTable.of_dataset(opened.dataset, opened.manifest)
    kept = place / "labels.parquet"
    if kept.exists():
        return LabelTable((kept,))
    ids, truth = true_labels(shared.truth(), opened.manifest.num_rows)
    classes = opened.manifest.num_classes
    if noise.needs_features:
        center = opened.rows.facts.mean

        def block(numbers: np.ndarray, features: np.ndarray, true: np.ndarray) -> np.ndarray:
            return given_labels(noise, true, numbers, classes, seed, features - center)

        labels = map_features(shared.blocks, block, GivenLabels(ids, truth.astype(np.int32)))
    else:
        labels = given_labels(noise, truth, ids, classes, seed)
    return LabelTable.write(kept, GivenLabels(ids, labels))
