"""Train a classifier in spite of wrong labels (§5.5): open, choose the labels, train, test, write the model."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dynacor_ray.config.options import make_config
from dynacor_ray.config.train import TrainRunConfig
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, CoverageError, counted, expected_got
from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location, require_space
from dynacor_ray.engine.data.training_rows import TrainingRows, chosen_rows
from dynacor_ray.engine.runtime.mlflow_client import check_tracking
from dynacor_ray.engine.runtime.session import resources
from dynacor_ray.engine.training.driver import train as train_classifier
from dynacor_ray.engine.training.job import RobustTraining
from dynacor_ray.engine.training.robust_module import PREDICTIONS as PARTS
from dynacor_ray.engine.training.robust_module import predictions_name
from dynacor_ray.engine.training.signal_files import SIGNALS
from dynacor_ray.engine.training.trained_model import HISTORY
from dynacor_ray.engine.training.trained_model import MODEL as WEIGHTS
from dynacor_ray.export.mlflow import track, tracked_training
from dynacor_ray.export.model_files import write_model
from dynacor_ray.export.tensorboard import EventFile
from dynacor_ray.models.image_classifiers import NetworkSpec
from dynacor_ray.report.training_page import training_page
from dynacor_ray.report.training_summary import best_epoch, build_training_summary, print_training, shown_epochs
from dynacor_ray.robust.dividemix import DivideMix
from dynacor_ray.robust.losses import RobustLoss
from dynacor_ray.runs import directory as run_directory
from dynacor_ray.runs.directory import CONFIG, EVENTS, MODEL, PREDICTIONS, QUARANTINE, REPORT, SUMMARY
from dynacor_ray.runs.resumable import ResumableRun, run_once
from dynacor_ray.workflows.cluster_session import check_storage, plan_for, ray_session
from dynacor_ray.workflows.division import write_division
from dynacor_ray.workflows.open_data import OpenedData, check_encoder, open_data
from dynacor_ray.workflows.prepare import PreparedRun, clustering_config, default_out, prepare, training_config
from dynacor_ray.workflows.results import TrainResult
from dynacor_ray.workflows.training_labels import Judged, prepare_test, test_rows

_LABELS = "labels"
"""Folder of a run in progress: the labels to learn and to judge by."""


def train(data: str | None = None, **options: Any) -> TrainResult:
    """Train a classifier on data whose labels may be wrong, and test it after every epoch (§5.5, Table 7).

    Resumes in the same directory; returns at once when it is complete.

    Args:
        data: What to learn from: a path, URI or name that `--data` takes.
        options: Those of `TrainRunConfig` (loss, test, without) and of `DetectConfig` on data and training.

    Raises:
        DynacorError: Something could not run; before any work where possible.
    """
    return run_train(make_config(TrainRunConfig, data, **options))


def run_train(config: TrainRunConfig) -> TrainResult:
    """`train` for a configuration that is already built."""
    result = run_once(lambda: _Training.open(config), Progress(config.detect.quiet))
    if not config.detect.quiet:
        print_training(result.summary, str(result.run))
    return result


@dataclass(frozen=True)
class _Training(ResumableRun[dict[str, Any], TrainResult]):
    """One training of one classifier."""

    run: Location
    config: TrainRunConfig
    prepared: PreparedRun
    test: PreparedRun | None
    judged: Judged | None

    @classmethod
    def open(cls, config: TrainRunConfig) -> _Training:
        """Open the data. Raises a DynacorError for whatever could not run."""
        detect = config.detect
        out = detect.out or f"{default_out(detect.data)}-train"
        prepared = prepare(dataclasses.replace(detect, out=out, gamma=config.gamma, alpha=config.alpha))
        judged = Judged.open(config.without, config.action) if config.without is not None else None
        test = prepare_test(prepared, config.test, config.test_label_column) if config.test is not None else None
        if test is not None and test.source.fingerprint() == prepared.source.fingerprint():
            got = f"{config.test} for both"
            raise ConfigError(expected_got("test data that are not learned from", got, "name others with --test"))
        return cls(prepared.run, config, prepared, test, judged)

    def identity(self) -> dict[str, Any]:
        """What the result depends on."""
        tied = self.prepared.identity()
        tied["options"] |= self.config.result_options()
        tied["options"] |= {
            "test_data": self.test.source.fingerprint() if self.test is not None else None,
            "flagged_rows": self.judged.fingerprint() if self.judged is not None else None,
        }
        return tied

    def finished(self) -> TrainResult | None:
        run_directory.check(self.run, self.identity())
        place = self.run / SUMMARY
        return TrainResult(self.run, place.read_json()) if place.exists() else None

    def execute(self, progress: Progress) -> dict[str, Any]:
        with progress.timed("start"):
            check_tracking(self.config.detect.mlflow_uri)
            run_directory.claim(self.run, self.identity(), self.config.as_dict())
        with ray_session(self.prepared.config, self.prepared, progress):
            return self._stages(progress)

    def _stages(self, progress: Progress) -> dict[str, Any]:
        """All work; returns the summary but for the seconds."""
        prepared, config, run = self.prepared, self.prepared.config, self.run
        with progress.timed("start"):
            plan, have = plan_for(config), resources()
            check_storage(prepared, progress)
            check_encoder(prepared)
        opened = open_data(prepared, plan.use_gpu, progress, with_copies=self.config.has_copies)
        dataset, rows, flagged = opened.dataset, opened.rows, 0
        if self.judged is not None:
            labels, flagged = self.judged.labels(dataset, self.config.action)
            rows = chosen_rows(rows, dataset.with_labels(labels, run / _LABELS / "train.parquet"))
            _say_emptied(dataset, rows, progress)
        tested, by_truth = None, False
        if self.test is not None:
            place = run / _LABELS / "test.parquet"
            tested, by_truth = test_rows(self.test, opened, place, plan.use_gpu, progress)
        loss, mix = self._loss(dataset), self._mix(dataset)
        numbers = dataset.num_classes if loss.has_targets else 0  # of 4 bytes each, in every epoch
        numbers += 2 * mix.loss_epochs + 1 if mix else 0
        require_space(run, rows.facts.total * config.epochs * (schema.BYTES_PER_SIGNAL + 4 * numbers))
        clustering = clustering_config(config, None) if mix and mix.by_dynamics else None
        robust = RobustTraining(loss, tested, mix, clustering, config.clustering_sample)
        events = EventFile(run / EVENTS) if self.config.tensorboard else None
        with progress.timed("train"), events or nullcontext():
            training = training_config(config, robust=robust)
            follow = (lambda history: events.write(shown_epochs(history))) if events else None
            signals = train_classifier(rows, training, plan, run, progress, follow)
            history = (run / SIGNALS / HISTORY).read_json()
            if follow:  # the last epochs, or all of a training that was complete
                follow(history)
        with progress.timed("output"):
            if tested is not None:
                self._write_predictions(tested)
            found = None
            if self.config.method is not None:
                best = best_epoch(history)
                found = write_division(config, self.config.method, rows, signals, best, run, progress)
            made = build_training_summary(
                self.config.as_dict(),
                dataset.manifest,
                history,
                versions=run_directory.versions(run),
                encoder=opened.spec.slug,
                loss=dataclasses.asdict(loss),
                method=dataclasses.asdict(mix) | {"name": self.config.method} if mix else None,
                detection=found,
                action=self.config.action if self.judged is not None else None,
                flagged=flagged,
                learned=rows.facts.num_originals,
                tested=tested.facts.num_originals if tested is not None else None,
                by_truth=by_truth,
                cluster={name: getattr(have, name) for name in ("nodes", "cpus", "gpus")},
            )
            self._write_model(opened, rows, made)
        return made

    def _loss(self, dataset: PackedDataset) -> RobustLoss:
        own = self.config.result_options()
        names = ("gce_q", "gce_truncate_from", "sce_alpha", "sce_beta", "elr_momentum", "elr_weight")
        settings = {name: own[name] for name in names}
        return RobustLoss.published(self.config.loss, dataset.manifest.source, dataset.num_classes, **settings)

    def _mix(self, dataset: PackedDataset) -> DivideMix | None:
        own, on_features = self.config, self.config.detect.network is None
        if own.method is None:
            return None
        return DivideMix.published(
            dataset.manifest.source,
            dataset.num_classes,
            own.detect.epochs,
            on_features=on_features,
            warm_up=own.warm_up,
            unlabeled_weight=own.unlabeled_weight,
            loss_epochs=own.loss_epochs,
            penalize_confidence=own.penalize_confidence,
            by_dynamics=own.method == "ddyna_s",
        )

    def _write_model(self, opened: OpenedData, rows: TrainingRows, summary: dict[str, Any]) -> None:
        """The weights of the last epoch, and how to use them."""
        weights = (self.run / SIGNALS / WEIGHTS).read_bytes()
        spec, lined_up = opened.spec, None
        if isinstance(spec, NetworkSpec):
            built_by: dict[str, Any] = {"network": spec.name, "image_size": spec.image_size}
        else:
            built_by = {"classifier": self.config.detect.classifier, "feature_dim": rows.facts.dim}
            lined_up = opened.lined_up
        write_model(self.run / MODEL, weights, summary, built_by, lined_up)

    def _write_predictions(self, tested: TrainingRows) -> None:
        """The parts of the last epoch's ranks as one file, in the order of the ids, with the rows' URIs."""
        signals = self.run / SIGNALS
        world: int = (signals / HISTORY).read_json()[-1]["world"]
        places = [signals / PARTS / predictions_name(rank, world) for rank in range(world)]
        table = pa.concat_tables([place.read_table() for place in places if place.exists()])
        if table.num_rows != tested.facts.num_originals:
            expected = f"{tested.facts.num_originals:,} predictions"
            raise CoverageError(expected_got(expected, f"{table.num_rows:,}", "report this as a defect"))
        uris = [place.read_table([schema.INSTANCE_ID, schema.URI]) for place in tested.dataset.files]
        table = table.join(pa.concat_tables(uris), schema.INSTANCE_ID).sort_by(schema.INSTANCE_ID)
        names = [schema.INSTANCE_ID, schema.URI, schema.GIVEN_LABEL, schema.PREDICTED_LABEL, schema.PROBABILITY]
        (self.run / PREDICTIONS).write_table(table.select(names), compression="zstd")

    def release_if_empty(self) -> None:
        (self.run / _LABELS).delete()
        if not (self.run / SIGNALS).exists():
            for name in (CONFIG, QUARANTINE):
                (self.run / name).delete()

    def write(self, made: dict[str, Any], seconds: dict[str, float]) -> TrainResult:
        summary = made | {"seconds": seconds}
        self._write_page(summary)
        (self.run / SUMMARY).write_json(summary)
        for name in (SIGNALS, _LABELS, "train"):  # what only a resumed training needs
            (self.run / name).delete()
        detect = self.config.detect
        track(detect.mlflow_uri, [tracked_training(str(self.run), summary)], Progress(detect.quiet))
        return TrainResult(self.run, summary)

    def _write_page(self, summary: dict[str, Any]) -> None:
        (self.run / REPORT).write_bytes(training_page(summary).encode())

    def on_already_complete(self, result: TrainResult) -> None:
        if not (self.run / REPORT).exists():
            self._write_page(result.summary)


def _say_emptied(dataset: PackedDataset, rows: TrainingRows, progress: Progress) -> None:
    """Tell of classes that have no row any more."""
    before, left = dataset.manifest.class_counts, rows.facts.class_counts.tolist()
    names = [name for name, had, has in zip(dataset.manifest.class_names, before, left, strict=True) if had and not has]
    if names:
        listed = ", ".join(names[:5]) + (", ..." if names[5:] else "")
        progress.say(f"Warning: no row is left of {counted(len(names), 'class')}, which will not be learned: {listed}")
