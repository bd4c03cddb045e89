"""A whole run: check, ingest, embed, corrupt, train, assemble, cluster, rank, write."""

from __future__ import annotations

import dataclasses
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import make_config
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.schema import BYTES_PER_SIGNAL
from dynacor_ray.core.storage import Location, locate, require_space
from dynacor_ray.core.table_files import read_rows
from dynacor_ray.decision.fitted_decision import FittedDecision
from dynacor_ray.decision.noise_rate import NoiseRate
from dynacor_ray.decision.thresholds import MOST_RECALL, DecisionThreshold
from dynacor_ray.engine.data.ray_table import is_ray_data, staged
from dynacor_ray.engine.data.training_rows import twin_labels
from dynacor_ray.engine.dynamics.assemble import write_dynamics
from dynacor_ray.engine.dynamics.clustering import assign, count_flags, find_threshold, write_issues
from dynacor_ray.engine.runtime.mlflow_client import check_tracking
from dynacor_ray.engine.runtime.session import resources
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.engine.training.signal_files import SIGNALS
from dynacor_ray.export.mlflow import track, tracked_run
from dynacor_ray.ground_truth.metrics import evaluate_issues
from dynacor_ray.method.clustering import FittedClustering
from dynacor_ray.report.summary import build_summary
from dynacor_ray.runs import directory as run_directory
from dynacor_ray.runs.directory import CONFIG, DYNAMICS, INDEX, ISSUES, QUARANTINE, REPORT, SUMMARY, packed_name
from dynacor_ray.runs.records import RunSummary
from dynacor_ray.runs.resumable import ResumableRun, run_once
from dynacor_ray.sources.base import Source, SourceOptions
from dynacor_ray.sources.class_names import names_in_order
from dynacor_ray.sources.in_memory import MEMORY
from dynacor_ray.sources.python_data import open_python
from dynacor_ray.workflows.cluster_session import check_storage, plan_for, ray_session
from dynacor_ray.workflows.dynamics_flow import DynamicsFlow
from dynacor_ray.workflows.open_data import check_encoder, open_data
from dynacor_ray.workflows.prepare import PreparedRun, default_out, prepare
from dynacor_ray.workflows.results import DetectResult
from dynacor_ray.workflows.show import show_run


def detect(
    data: Any = None,
    labels: Any = None,
    *,
    class_names: Sequence[str] | Mapping[Any, Any] | None = None,
    **options: Any,
) -> DetectResult:
    """Find the wrong labels of a data set, without any clean data.

    Works in this process where that is enough, else on a Ray cluster (`cluster`). Resumes a run directory that holds
    the same configuration; returns at once when it is complete. Without `out` the directory is below `runs/`.

        detect("photos/", out="runs/photos")          # what the command line takes as --data
        detect(features, labels, class_names=names)   # what this process holds
        detect("photos/*.jpg", labels, epochs=10)     # paths in order of their names

    Args:
        data: What to search: a path, pattern, URI or name that `--data` takes, or what Python holds: features (N, D)
            or images (N, H, W[, C]) as array or tensor, a list of paths or images, a data frame or Arrow table, a
            Hugging Face `Dataset` (of a `DatasetDict` the part `split=`), a data set of Ray Data, which is read on its
            cluster, or a data set of (image, label).
        labels: One label per row of such data, or the name of their column in a table.
        class_names: Names of the classes in order, or by their numbers ({0: "cat"} or {"cat": 0}); another word for
            `classes`.
        options: Those of the command line, with `_` for `-`: `epochs`, `encoder`, `out`, `seed`, ... `DetectConfig`
            holds them all, with their defaults; `dynacor detect --help` says what they mean.

    Returns:
        The finished run. `to_pandas()` has the rows in the order of the data, `issues` the most suspicious first;
        `summary` holds counts, rates and warnings, `report()` makes the page for a browser.

    Raises:
        DynacorError: Something could not run; before any work where possible.
    """
    if class_names is not None:
        options["classes"] = names_in_order(class_names)
    if data is None or isinstance(data, (str, os.PathLike)):
        if labels is None:
            if data is not None:
                options["data"] = os.fspath(data)
            if not options.get("data"):
                raise ConfigError(expected_got("data to search", "none", 'pass e.g. detect("demo")'))
            return run_detect(make_config(DetectConfig, **options))
        data = None if data is None else os.fspath(data)
    return _detect_held(data, labels, options)


def _detect_held(data: Any, labels: Any, options: dict[str, Any]) -> DetectResult:
    """`detect` for data in memory: the directory is named after data and options, so that every call has its own."""
    split = options.pop("split", None) if isinstance(data, Mapping) else None
    config = make_config(DetectConfig, data=f"{MEMORY}:", **options)
    with ExitStack() as stack:
        if is_ray_data(data):
            place = locate(config.cache or config.out or default_out("ray")).beside(f"-staged-{uuid.uuid4().hex[:8]}")
            data = stack.enter_context(staged(data, place))
        source = open_python(data, labels, SourceOptions.of(vars(config)), split)
        out = config.out or f"{default_out(source.uri)}-{digest(config.result_options())[:6]}"
        if config.out is None:
            Progress(config.quiet).say(f"Results are kept in {out}; out= names another place.")
        return run_detect(dataclasses.replace(config, data=source.uri, out=out), source)


def run_detect(config: DetectConfig, source: Source | None = None) -> DetectResult:
    """`detect` for a configuration that is already built. source: the opened data, where they are in memory."""
    result = run_once(lambda: _Detection.open(config, source), Progress(config.quiet))
    if not config.quiet:
        show_run(result.run)
    return result


def run_prepared(prepared: PreparedRun) -> DetectResult:
    """`detect` for data that are opened already; prints no summary."""
    return run_once(lambda: _Detection(prepared.run, prepared), Progress(prepared.config.quiet))


def finished(prepared: PreparedRun) -> DetectResult | None:
    """The result, when the run directory is complete. Raises RunDirectoryError when it holds something else."""
    run_directory.check(prepared.run, prepared.identity())
    return DetectResult.read(prepared.run) if (prepared.run / SUMMARY).exists() else None


@dataclass(frozen=True)
class _Detection(ResumableRun[RunSummary, DetectResult]):
    """One search of one data set."""

    run: Location
    prepared: PreparedRun

    @classmethod
    def open(cls, config: DetectConfig, source: Source | None = None) -> _Detection:
        """Open the data. Raises a DynacorError for whatever could not run."""
        prepared = prepare(config, source=source)
        return cls(prepared.run, prepared)

    def finished(self) -> DetectResult | None:
        return finished(self.prepared)

    def execute(self, progress: Progress) -> RunSummary:
        prepared, config = self.prepared, self.prepared.config
        with progress.timed("start"):
            check_tracking(config.mlflow_uri)
            require_space(self.run, prepared.source.num_rows * config.epochs * BYTES_PER_SIGNAL)
            run_directory.claim(self.run, prepared.identity(), dataclasses.asdict(config))
            if prepared.source.row_index is not None:
                (self.run / INDEX).write_table(prepared.source.row_index)
        with ray_session(config, prepared, progress):
            return _stages(prepared, progress)

    def release_if_empty(self) -> None:
        if not (self.run / SIGNALS).exists():
            for name in (CONFIG, QUARANTINE, INDEX):
                (self.run / name).delete()

    def write(self, made: RunSummary, seconds: dict[str, float]) -> DetectResult:
        dataclasses.replace(made, seconds=seconds).write(self.run)
        result = DetectResult.read(self.run)
        result.report()
        config = self.prepared.config
        track(config.mlflow_uri, [tracked_run(str(self.run), result.summary)], Progress(config.quiet))
        return result

    def on_already_complete(self, result: DetectResult) -> None:
        if not (self.run / REPORT).exists():
            result.report()


def _stages(prepared: PreparedRun, progress: Progress) -> RunSummary:
    """All work of a run; returns its summary, but for the seconds."""
    config, run = prepared.config, prepared.run
    with progress.timed("start"):
        plan, have = plan_for(config), resources()
        check_storage(prepared, progress)
        check_encoder(prepared)
    opened = open_data(prepared, plan.use_gpu, progress)
    dataset = opened.dataset
    flow = DynamicsFlow(config, prepared.training, run, dataset, opened.rows, plan)
    signals, dynamics = flow.record(progress)
    with progress.timed("assemble"):
        write_dynamics(dynamics, run / DYNAMICS, config.epochs)
    with progress.timed("cluster"):
        sample = flow.sample(dynamics)
        noise_rate, fitted, decision = flow.cluster_and_decide(signals, sample, progress)
        duplicates, cut = dataset.duplicates(), _threshold(flow, sample, fitted, decision)
        assigned = assign(flow.score(dynamics, decision), fitted, cut, duplicates)
        noise_rate = decision.decision.rate if decision else noise_rate
    with progress.timed("output"):
        with progress.stage("output", None, "rows"):
            counts = count_flags(assigned, dataset.num_classes)
            write_issues(assigned, run / ISSUES)
        evaluation = _evaluate(run, dataset.truth) if dataset.truth else None
    return build_summary(
        dataclasses.asdict(config),
        dataset.manifest,
        counts,
        versions=run_directory.versions(run),
        encoder=opened.spec.slug,
        encoder_reason=opened.encoder_reason,
        embedding=progress.processor_seconds or None,
        epochs=fitted.records,
        chosen_epoch=fitted.epoch,
        noise_rate=noise_rate,
        class_noise_rates=_class_noise_rates(flow, signals, noise_rate, decision),
        evaluation=evaluation,
        packed=packed_name(run, dataset.folder),
        training_waited_for_rows=signals.waiting_share(),
        cluster={name: getattr(have, name) for name in ("nodes", "cpus", "gpus")},
        twins=flow.twins or twin_labels(dataset, None),
        quality_log_odds=_quality_log_odds(decision, cut),
        decision=decision,
    )


def _threshold(
    flow: DynamicsFlow, sample: pa.Table, fitted: FittedClustering, decision: FittedDecision | None
) -> DecisionThreshold:
    """Where the ranking is cut; without class scores the default is the rule of the margins."""
    config = flow.config
    rule, score = config.effective_flag_rule, config.effective_ranking_score
    if decision is None and rule == "label_noise_model":
        rule, score = "noise_rate", config.margin_score
    # A network is unsure for longer than a head on features, and its estimate of the noise rate too high by far.
    most = MOST_RECALL if config.network is None else config.target_recall
    more = {"target_recall": config.target_recall, "most_recall": most}
    cut = decision.log_odds_cut if decision else None
    return find_threshold(flow.score_sample(sample, decision), fitted, rule, score, **more, log_odds_cut=cut)


def _quality_log_odds(decision: FittedDecision | None, cut: DecisionThreshold) -> tuple[float, float] | None:
    """`RunSummary.quality_log_odds`."""
    if decision is None or cut.score != "label_noise" or cut.value is None or not abs(cut.value) < 1e300:
        return None
    return decision.decision.shift - cut.value, cut.scale


def _class_noise_rates(
    flow: DynamicsFlow, signals: RecordedSignals, noise_rate: NoiseRate | None, decision: FittedDecision | None
) -> list[float | None] | None:
    """Estimated share of wrong labels per given class; None for a class of which nothing is known."""
    if decision is not None:
        rates = decision.class_rates
    elif noise_rate is None:
        return None
    else:
        rates = signals.class_noise_rates(flow.dataset.num_classes, noise_rate.value, flow.training.batch_size)
    return [None if math.isnan(rate) else rate for rate in rates.tolist()]


def _evaluate(run: Location, truth: Location) -> dict[str, Any]:
    columns = [schema.INSTANCE_ID, schema.GIVEN_LABEL, schema.IS_LABEL_ISSUE, schema.LABEL_QUALITY]
    return evaluate_issues(read_rows(run / ISSUES, columns), truth.read_table())
