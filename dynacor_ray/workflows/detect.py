"""A whole run: check, ingest, embed, corrupt, train, assemble, cluster, rank, write."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import make_config
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.schema import BYTES_PER_SIGNAL
from dynacor_ray.core.storage import Location, require_space
from dynacor_ray.decision.noise_rate import NoiseRate
from dynacor_ray.decision.thresholds import MOST_RECALL
from dynacor_ray.engine.dynamics.assemble import assemble, write_dynamics
from dynacor_ray.engine.dynamics.clustering import (
    assign,
    count_flags,
    find_threshold,
    fit_clusters,
    sample_for_fit,
    settle_noise_rate,
    write_issues,
)
from dynacor_ray.engine.runtime.mlflow_client import check_tracking
from dynacor_ray.engine.runtime.session import resources
from dynacor_ray.engine.training.driver import train
from dynacor_ray.engine.training.signal_files import (
    SIGNALS,
    read_class_noise_rates,
    read_noise_rate,
    read_waiting_share,
)
from dynacor_ray.export.mlflow import track_run
from dynacor_ray.ground_truth.metrics import evaluate_issues
from dynacor_ray.report.summary import build_summary
from dynacor_ray.report.terminal import print_summary
from dynacor_ray.runs import directory as rundir
from dynacor_ray.runs.directory import CONFIG, DYNAMICS, ISSUES, QUARANTINE, REPORT, SUMMARY, packed_name
from dynacor_ray.runs.records import RunSummary
from dynacor_ray.runs.resumable import ResumableRun, run_once
from dynacor_ray.workflows.open_data import check_encoder, open_data
from dynacor_ray.workflows.prepare import (
    Prepared,
    check_storage,
    identity,
    plan_for,
    prepare,
    ray_session,
    with_noise_rate,
)
from dynacor_ray.workflows.results import DetectResult


def detect(data: str | None = None, **options: Any) -> DetectResult:
    """Find the wrong labels of a data set. Options are those of `DetectConfig`.

    Starts a Ray cluster on this machine unless connected to one. Resumes a run directory that holds the same
    configuration; returns at once when it is complete. Raises a DynacorError, before any work where possible.
    """
    if data is not None:
        options["data"] = data
    if not options.get("data"):
        raise ConfigError(expected_got("data to search", "none", 'pass e.g. detect("demo")'))
    return run_detect(make_config(DetectConfig, **options))


def run_detect(config: DetectConfig) -> DetectResult:
    """`detect` for a configuration that is already built."""
    result = run_once(lambda: _Detection(prepare(config)), Progress(config.quiet))
    if not config.quiet:
        print_summary(result.summary, result.worst(), str(result.run))
    return result


def finished(prepared: Prepared) -> DetectResult | None:
    """The result, when the run directory is complete. Raises RunDirectoryError when it holds something else."""
    rundir.check(prepared.run, identity(prepared))
    return DetectResult.read(prepared.run) if (prepared.run / SUMMARY).exists() else None


@dataclass(frozen=True)
class _Detection(ResumableRun[RunSummary, DetectResult]):
    """One search of one data set."""

    prepared: Prepared

    @property
    def run(self) -> Location:
        return self.prepared.run

    def finished(self) -> DetectResult | None:
        return finished(self.prepared)

    def execute(self, progress: Progress) -> RunSummary:
        prepared, config = self.prepared, self.prepared.config
        with progress.timed("start"):
            check_tracking(config.mlflow_uri)
            require_space(self.run, prepared.source.num_rows * config.epochs * BYTES_PER_SIGNAL)
            rundir.claim(self.run, identity(prepared), dataclasses.asdict(config))
        with ray_session(config, progress):
            return _stages(prepared, progress)

    def release_if_empty(self) -> None:
        if not (self.run / SIGNALS).exists():
            for name in (CONFIG, QUARANTINE):
                (self.run / name).delete()

    def write(self, made: RunSummary, seconds: dict[str, float]) -> DetectResult:
        dataclasses.replace(made, seconds=seconds).write(self.run)
        result = DetectResult.read(self.run)
        result.report()
        config = self.prepared.config
        track_run(config.mlflow_uri, str(self.run), result.summary, Progress(config.quiet))
        return result

    def on_already_complete(self, result: DetectResult) -> None:
        if not (self.run / REPORT).exists():
            result.report()


def _stages(prepared: Prepared, progress: Progress) -> RunSummary:
    config, run = prepared.config, prepared.run
    with progress.timed("start"):
        plan, have = plan_for(config), resources()
        check_storage(prepared, progress)
        check_encoder(prepared)
    opened = open_data(prepared, plan.use_gpu, progress)
    dataset, manifest, rows = opened.dataset, opened.manifest, opened.rows
    with progress.timed("train"):
        files = train(rows, prepared.training, plan, run, progress)
    with progress.timed("assemble"):
        dynamics = assemble(dataset, manifest, run / SIGNALS, files, prepared.corruption, opened.labels, progress)
        write_dynamics(dynamics, run / DYNAMICS, config.epochs)
    first = read_noise_rate(run / SIGNALS, config.epochs, config.batch_size)
    with progress.timed("cluster"):
        sample = sample_for_fit(dynamics, rows.facts.total, config.clustering_sample, config.seed)
        noise_rate = settle_noise_rate(first, sample, config.margin_score, manifest.num_classes)
        clustering = with_noise_rate(prepared.cluster, noise_rate)
        fitted = fit_clusters(sample, clustering, progress)
        # A network is unsure for longer than a head on features, and its estimate of the noise rate too high by far.
        most = MOST_RECALL if config.network is None else config.target_recall
        recall = {"target_recall": config.target_recall, "most_recall": most}
        cut = find_threshold(sample, fitted, config.effective_flag_rule, config.effective_ranking_score, **recall)
        assigned = assign(dynamics, fitted, cut)
    with progress.timed("output"):
        with progress.stage("output", None, "rows"):
            counts = count_flags(assigned, manifest.num_classes)
            write_issues(assigned, run / ISSUES)
        evaluation = _evaluate(run, dataset / manifest.truth) if manifest.truth else None
    return build_summary(
        dataclasses.asdict(config),
        manifest,
        counts,
        versions=rundir.versions(run),
        encoder=opened.spec.slug,
        epochs=fitted.records,
        chosen_epoch=fitted.epoch,
        noise_rate=noise_rate,
        class_noise_rates=_class_noise_rates(prepared, manifest.num_classes, noise_rate),
        evaluation=evaluation,
        packed=packed_name(run, dataset),
        waiting_share=read_waiting_share(run / SIGNALS),
        cluster={name: getattr(have, name) for name in ("nodes", "cpus", "gpus")},
    )


def _class_noise_rates(prepared: Prepared, num_classes: int, noise_rate: NoiseRate | None) -> list[float | None] | None:
    """Estimated share of wrong labels per given class; None for a class of which nothing is known."""
    if noise_rate is None:
        return None
    signals, config = prepared.run / SIGNALS, prepared.config
    rates = read_class_noise_rates(signals, num_classes, noise_rate.value, config.epochs, config.batch_size)
    return [None if math.isnan(rate) else rate for rate in rates.tolist()]


def _evaluate(run: Location, truth: Location) -> dict[str, Any]:
    columns = [schema.INSTANCE_ID, schema.GIVEN_LABEL, schema.IS_LABEL_ISSUE, schema.LABEL_QUALITY]
    return evaluate_issues((run / ISSUES).read_table(columns), truth.read_table())
