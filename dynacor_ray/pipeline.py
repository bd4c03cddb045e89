"""A whole run: check, ingest, embed, corrupt, train, assemble, cluster, rank, write."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynacor_ray import rundir, schema
from dynacor_ray.config import DetectConfig, make_config
from dynacor_ray.datalab import as_datalab
from dynacor_ray.engine.assemble import Dataset, assemble, read_table, write_dynamics
from dynacor_ray.engine.cluster import (
    assign,
    find_cut,
    fit_clusters,
    sample_for_fit,
    settle_noise_rate,
    tally,
    write_issues,
)
from dynacor_ray.engine.mlflow_runs import check_tracking
from dynacor_ray.engine.session import connect, resources
from dynacor_ray.engine.signals import SIGNALS, read_class_noise_rates, read_noise_rate, read_waiting_share
from dynacor_ray.engine.train import train
from dynacor_ray.errors import ConfigError, explain
from dynacor_ray.evaluation import evaluate_issues
from dynacor_ray.method.noise_rate import NoiseRate
from dynacor_ray.method.thresholds import MOST_RECALL
from dynacor_ray.prepare import (
    Prepared,
    check_encoder,
    check_storage,
    identity,
    joined,
    open_data,
    plan_for,
    prepare,
    with_noise_rate,
)
from dynacor_ray.progress import Progress
from dynacor_ray.report.summary import Facts, build_summary
from dynacor_ray.report.terminal import print_summary
from dynacor_ray.report.words import headline
from dynacor_ray.reports import finished_run, make_report, packed_name
from dynacor_ray.rundir import CONFIG, DYNAMICS, ISSUES, QUARANTINE, REPORT, SUMMARY
from dynacor_ray.storage import Location, locate, require_space
from dynacor_ray.tracking import track_run
from dynacor_ray.undertaking import Undertaking, carry_out

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from cleanlab import Datalab

WORST = 10
"""Most suspicious rows shown on the terminal."""
BYTES_PER_SIGNAL = 12
"""What one signal may take on disk in all its forms; 8 were measured with 27,519 rows and 20 epochs."""


@dataclass(frozen=True)
class DetectResult:
    """What a finished run left in its directory."""

    run: Location
    summary: dict[str, Any]

    def __repr__(self) -> str:
        flagged, rows = self.summary["num_flagged"], self.summary["num_rows"]
        return f"<DetectResult {self.run}: {flagged:,} of {rows:,} labels look wrong>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the headline, and where the page is."""
        place = self.run / REPORT
        link = Path(place.path).as_uri() if self.run.is_local else place.uri
        return f'<p><b>{headline(self.summary)}</b><br><a href="{escape(link)}">{escape(place.uri)}</a></p>'

    @property
    def issues(self) -> pa.Table:
        """`issues.parquet` as an Arrow table, most suspicious first (schema.issues_schema); read at each use."""
        return (self.run / ISSUES).read_table()

    def worst(self, count: int = WORST) -> list[dict[str, Any]]:
        """The `count` most suspicious rows, read without the rest."""
        rows: list[dict[str, Any]] = (self.run / ISSUES).head(count).to_pylist()
        return rows

    def to_pandas(self) -> pd.DataFrame:
        """`issues.parquet` as a pandas data frame."""
        frame: pd.DataFrame = self.issues.to_pandas()
        return frame

    def to_datalab(self) -> Datalab:
        """The rows as `label` issues of a cleanlab Datalab, by instance_id (`dynacor_ray.datalab`)."""
        return as_datalab(self.issues, [row["class"] for row in self.summary["classes"]])

    def report(self, thumbnails: bool | None = None) -> str:
        """Make `report.html` anew and say where it is. thumbnails: as in `make_report`."""
        return str(make_report(self.run, thumbnails))

    def to_ray(self) -> Dataset:
        """`issues.parquet` as a Ray data set."""
        connect()
        return read_table(self.run / ISSUES)

    def dynamics(self) -> Dataset:
        """`dynamics.parquet` as a Ray data set (schema.dynamics_schema)."""
        connect()
        return read_table(self.run / DYNAMICS)


def load(run: str) -> DetectResult:
    """The result of a finished run, or of a sweep's chosen one, by its directory. Starts nothing.

    Raises RunDirectoryError when there is none.
    """
    place = finished_run(locate(run))
    return DetectResult(place, (place / SUMMARY).read_json())


def detect(data: str | None = None, **options: Any) -> DetectResult:
    """Find the wrong labels of a data set. Options are those of `DetectConfig`.

    Starts a Ray cluster on this machine unless connected to one. Resumes a run directory that holds the same
    configuration; returns at once when it is complete. Raises a DynacorError, before any work where possible.
    """
    if data is not None:
        options["data"] = data
    if not options.get("data"):
        raise ConfigError(explain("data to search", "none", 'pass e.g. detect("demo")'))
    return run_detect(make_config(**options))


def run_detect(config: DetectConfig) -> DetectResult:
    """`detect` for a configuration that is already built."""
    result = carry_out(lambda: _Detection(prepare(config)), Progress(config.quiet))
    if not config.quiet:
        print_summary(result.summary, result.worst(), str(result.run))
    return result


def finished(prepared: Prepared) -> DetectResult | None:
    """The result, when the run directory is complete. Raises RunDirectoryError when it holds something else."""
    rundir.check(prepared.run, identity(prepared))
    place = prepared.run / SUMMARY
    return DetectResult(prepared.run, place.read_json()) if place.exists() else None


@dataclass(frozen=True)
class _Detection(Undertaking[Facts, DetectResult]):
    """One search of one data set."""

    prepared: Prepared

    @property
    def run(self) -> Location:
        return self.prepared.run

    def finished(self) -> DetectResult | None:
        return finished(self.prepared)

    def execute(self, progress: Progress) -> Facts:
        prepared, config = self.prepared, self.prepared.config
        with progress.timed("start"):
            check_tracking(config.mlflow)
            require_space(self.run, prepared.source.num_rows * config.epochs * BYTES_PER_SIGNAL)
            rundir.claim(self.run, identity(prepared), dataclasses.asdict(config))
        with joined(config, progress):
            return _stages(prepared, progress)

    def forget_if_barren(self) -> None:
        if not (self.run / SIGNALS).exists():
            for name in (CONFIG, QUARANTINE):
                (self.run / name).delete()

    def write(self, made: Facts, seconds: dict[str, float]) -> DetectResult:
        (self.run / SUMMARY).write_json(build_summary(made, seconds))
        result = DetectResult(self.run, (self.run / SUMMARY).read_json())
        result.report()
        config = self.prepared.config
        track_run(config.mlflow, str(self.run), result.summary, Progress(config.quiet))
        return result

    def revisit(self, result: DetectResult) -> None:
        if not (self.run / REPORT).exists():
            result.report()


def _stages(prepared: Prepared, progress: Progress) -> Facts:
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
        sample = sample_for_fit(dynamics, rows.facts.total, config.fit_rows, config.seed)
        noise_rate = settle_noise_rate(first, sample, config.margin_score, manifest.num_classes)
        clustering = with_noise_rate(prepared.cluster, noise_rate)
        fitted = fit_clusters(sample, clustering, progress)
        # A network is unsure for longer than a head on features, and its estimate of the noise rate too high by far.
        most = MOST_RECALL if config.network is None else config.target_recall
        recall = {"target_recall": config.target_recall, "most_recall": most}
        cut = find_cut(sample, fitted, config.policy, config.ranking, **recall)
        assigned = assign(dynamics, fitted, cut)
    with progress.timed("output"):
        with progress.stage("output", None, "rows"):
            counts = tally(assigned, manifest.num_classes)
            write_issues(assigned, run / ISSUES)
        evaluation = _evaluate(run, dataset / manifest.truth) if manifest.truth else None
    return Facts(
        config=dataclasses.asdict(config),
        versions=rundir.versions(run),
        manifest=manifest,
        encoder=opened.spec.slug,
        counts=counts,
        records=[dataclasses.asdict(record) for record in fitted.records],
        chosen_epoch=fitted.epoch,
        evaluation=evaluation,
        noise_rate=dataclasses.asdict(noise_rate) if noise_rate else None,
        class_noise_rates=_class_noise_rates(prepared, manifest.num_classes, noise_rate),
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
