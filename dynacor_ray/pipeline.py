"""A whole run: check, ingest, embed, corrupt, train, assemble, cluster, rank, write."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dynacor_ray import rundir, schema
from dynacor_ray.config import DetectConfig, digest, make_config
from dynacor_ray.engine.assemble import Dataset, assemble, read_dynamics, write_dynamics
from dynacor_ray.engine.cluster import assign, fit_clusters, sample_for_fit, tally, write_issues
from dynacor_ray.engine.embed import embed
from dynacor_ray.engine.ingest import ingest
from dynacor_ray.engine.job import TrainConfig, TrainPlan, plan_training
from dynacor_ray.engine.rows import TrainingRows, rows_of_embeddings, rows_of_features
from dynacor_ray.engine.session import autoscales, connect, nodes_for, resources
from dynacor_ray.engine.signals import SIGNALS
from dynacor_ray.engine.train import train
from dynacor_ray.errors import ConfigError, explain
from dynacor_ray.evaluation import evaluate_issues
from dynacor_ray.manifest import DatasetManifest
from dynacor_ray.method.clustering import ClusterConfig, preset
from dynacor_ray.method.corruption import CorruptionConfig
from dynacor_ray.models.encoders import EncoderSpec, load_encoder, parse_encoder, resolve_auto
from dynacor_ray.progress import Progress
from dynacor_ray.report.summary import Facts, build_summary
from dynacor_ray.report.terminal import print_summary
from dynacor_ray.rundir import CONFIG, DYNAMICS, ISSUES, QUARANTINE, SUMMARY
from dynacor_ray.sources.base import Kind, Source, SourceOptions
from dynacor_ray.sources.registry import open_source
from dynacor_ray.storage import Location, locate, require_space

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

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

    def issues(self) -> pa.Table:
        """`issues.parquet` as an Arrow table, most suspicious first (schema.issues_schema)."""
        return (self.run / ISSUES).read_table()

    def worst(self, count: int = WORST) -> list[dict[str, Any]]:
        """The `count` most suspicious rows, read without the rest."""
        rows: list[dict[str, Any]] = (self.run / ISSUES).head(count).to_pylist()
        return rows

    def to_pandas(self) -> pd.DataFrame:
        """`issues.parquet` as a pandas data frame."""
        return self.issues().to_pandas()

    def dynamics(self) -> Dataset:
        """`dynamics.parquet` as a Ray data set (schema.dynamics_schema)."""
        connect()
        return read_dynamics(self.run / DYNAMICS)


@dataclass(frozen=True)
class Prepared:
    """A checked configuration with everything opened that can be opened without work."""

    config: DetectConfig
    run: Location
    cache: Location
    source: Source
    corruption: CorruptionConfig
    cluster: ClusterConfig
    training: TrainConfig


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
    progress = Progress(config.quiet)
    with progress.timed("total"):
        with progress.timed("start"):
            prepared = prepare(config)
            result = finished(prepared)
        if result is None:
            with _forget_if_barren(prepared):
                facts = _execute(prepared, progress)
    if result is None:
        # Last of all files: its presence says that the run is complete.
        (prepared.run / SUMMARY).write_json(build_summary(facts, dict(progress.seconds)))
        result = DetectResult(prepared.run, (prepared.run / SUMMARY).read_json())
    else:
        progress.say(f"{prepared.run} is complete: nothing to do. Choose another --out to run again.")
    if not config.quiet:
        print_summary(result.summary, result.worst(), str(result.run))
    return result


def prepare(config: DetectConfig) -> Prepared:
    """Check all that can be checked without Ray and without reading the data: options, source, name of the encoder."""
    cluster = _cluster_config(config)
    if config.encoder != "auto":
        parse_encoder(config.encoder, config.image_size)
    source = open_source(config.data, _source_options(config))
    run = locate(config.out or default_out(config.data))
    cache = locate(config.cache) if config.cache else run / "cache"
    return Prepared(
        config=config,
        run=run,
        cache=cache / f"{source.name}-{_data_digest(config)[:8]}",
        source=source,
        corruption=CorruptionConfig(gamma=config.gamma, seed=config.seed, copy_pool=config.copy_pool),
        cluster=cluster,
        training=TrainConfig(
            epochs=config.epochs,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            batch_size=config.batch_size,
            corrupted_weight=config.corrupted_weight,
            seed=config.seed,
        ),
    )


def default_out(data: str) -> str:
    """`runs/<name of the data>` below the working directory, or below the home directory inside a Ray job.

    A job's working directory is a throw-away copy on the head node, where nobody would look for results.
    """
    name = PurePosixPath(data.rstrip("/").split(":")[-1]).stem or "detect"
    base = Path.home() / "dynacor_runs" if "runtime_resources" in Path.cwd().parts else Path("runs")
    return str(base / name)


def plan_for(config: DetectConfig) -> TrainPlan:
    """Spread the training over the connected cluster. Raises ClusterError when it is too small."""
    return plan_training(
        workers=config.workers,
        gpu=config.gpu,
        checkpoint_seconds=config.checkpoint_seconds,
        max_failures=config.max_failures,
        cache_gigabytes=config.cache_gigabytes,
        have=resources(),
    )


def _source_options(config: DetectConfig) -> SourceOptions:
    names = [field.name for field in dataclasses.fields(SourceOptions)]
    return SourceOptions(**{name: getattr(config, name) for name in names})


def _data_digest(config: DetectConfig) -> str:
    """Names the packed data: the same for every seed, except where the seed decides which rows there are."""
    options = dataclasses.asdict(_source_options(config))
    if config.data != "demo" and config.balanced_sample is None:
        del options["seed"]
    return digest({"data": config.data, "options": options})


def _cluster_config(config: DetectConfig) -> ClusterConfig:
    chosen: dict[str, Any] = {"alpha": config.alpha, "epoch_choice": config.epoch_choice, "seed": config.seed}
    if config.cluster_epochs is not None:
        chosen["epochs"] = config.cluster_epochs
    return preset(config.variant, **chosen)


def identity(prepared: Prepared) -> dict[str, Any]:
    """What the outputs depend on: two runs with the same identity would give the same outputs."""
    return {"options": prepared.config.result_options(), "data": prepared.source.fingerprint()}


def finished(prepared: Prepared) -> DetectResult | None:
    """The result, when the run directory is complete. Raises RunDirectoryError when it holds something else."""
    rundir.check(prepared.run, identity(prepared))
    place = prepared.run / SUMMARY
    return DetectResult(prepared.run, place.read_json()) if place.exists() else None


def _execute(prepared: Prepared, progress: Progress) -> Facts:
    config, run = prepared.config, prepared.run
    with progress.timed("start"):
        require_space(run, prepared.source.num_rows * config.epochs * BYTES_PER_SIGNAL)
        rundir.claim(run, identity(prepared), dataclasses.asdict(config))
        cache = prepared.cache.make_dir()
        connect(config.address)
        minutes = config.wait_minutes if config.wait_minutes is not None else 15.0 * autoscales()
    with nodes_for(config.workers, config.gpu == "yes", 60 * minutes, progress):
        return _stages(prepared, cache, progress)


def _stages(prepared: Prepared, cache: Location, progress: Progress) -> Facts:
    config, run = prepared.config, prepared.run
    with progress.timed("start"):
        plan = plan_for(config)
        if resources().nodes > 1 and (run.is_local or cache.is_local):
            progress.say(f"Warning: {run} and {cache} must be on storage that all nodes see, such as NFS or s3://.")
        _check_encoder(prepared)
    dataset = cache / "dataset"
    with progress.timed("ingest"):
        manifest = ingest(prepared.source, dataset, config.max_quarantine, progress)
        _show_quarantine(manifest, dataset, run, progress)
    with progress.timed("embed"):
        spec = choose_encoder(config, prepared.source.kind, manifest.max_side or 0, manifest.grey)
        rundir.tie_encoder(run, f"{spec.slug} {spec.fingerprint()}")
        rows = training_rows(prepared, manifest, spec, cache, plan.use_gpu, progress)
    with progress.timed("train"):
        files = train(rows, prepared.training, plan, run, progress)
    with progress.timed("assemble"):
        dynamics = assemble(dataset, manifest, run / SIGNALS, files, prepared.corruption)
        write_dynamics(dynamics, run / DYNAMICS, config.epochs)
    with progress.timed("cluster"):
        sample = sample_for_fit(dynamics, rows.facts.total, config.fit_rows, config.seed)
        fitted = fit_clusters(sample, prepared.cluster, progress)
        assigned = assign(dynamics, fitted)
    with progress.timed("output"):
        counts = tally(assigned, manifest.num_classes)
        write_issues(assigned, run / ISSUES)
        evaluation = _evaluate(run, dataset / manifest.truth) if manifest.truth else None
    return Facts(
        config=dataclasses.asdict(config),
        versions=rundir.versions(run),
        manifest=manifest,
        encoder=spec.slug,
        counts=counts,
        records=[dataclasses.asdict(record) for record in fitted.records],
        chosen_epoch=fitted.epoch,
        evaluation=evaluation,
    )


def _evaluate(run: Location, truth: Location) -> dict[str, Any]:
    columns = [schema.INSTANCE_ID, schema.GIVEN_LABEL, schema.IS_LABEL_ISSUE, schema.LABEL_QUALITY]
    return evaluate_issues((run / ISSUES).read_table(columns), truth.read_table())


def _show_quarantine(manifest: DatasetManifest, dataset: Location, run: Location, progress: Progress) -> None:
    """Put the list of rows set aside where the user looks."""
    if manifest.quarantined:
        place = run / QUARANTINE
        place.write_table((dataset / manifest.quarantine).read_table())
        progress.say(f"{manifest.quarantined:,} unusable rows set aside; see {place}")


@contextmanager
def _forget_if_barren(prepared: Prepared) -> Iterator[None]:
    """A run that failed before training leaves its directory free: the corrected command may use it."""
    try:
        yield
    except BaseException:
        if not (prepared.run / SIGNALS).exists():
            for name in (CONFIG, QUARANTINE):
                (prepared.run / name).delete()
        raise


def _check_encoder(prepared: Prepared) -> None:
    """Find out now, not after ingest, that an encoder does not fit the data or that its weights cannot be had."""
    if prepared.config.encoder != "auto":
        spec = choose_encoder(prepared.config, prepared.source.kind, 0, False)
        if spec.kind != "features":
            load_encoder(spec, "cpu")


def choose_encoder(config: DetectConfig, kind: Kind, max_side: int, grey: bool) -> EncoderSpec:
    """The encoder that options and data ask for; `max_side`: longest side of the images in pixels, grey: all of them.

    Raises EncoderError for an unknown encoder, ConfigError when it does not fit the kind of data.
    """
    if config.encoder == "auto":
        spec = resolve_auto(kind, max_side, grey)
        return dataclasses.replace(spec, image_size=config.image_size) if config.image_size else spec
    spec = parse_encoder(config.encoder, config.image_size)
    if (spec.kind == "features") != (kind == "feature"):
        wanted = "--encoder features (or auto)" if kind == "feature" else "an image encoder"
        got = f"--encoder {config.encoder}"
        raise ConfigError(explain(f"{wanted} for data that hold {kind}s", got, "change it or the data"))
    return spec


def training_rows(
    prepared: Prepared,
    manifest: DatasetManifest,
    spec: EncoderSpec,
    cache: Location,
    use_gpu: bool,
    progress: Progress,
) -> TrainingRows:
    """Features as given, or embeddings made once per encoder."""
    if spec.kind == "features":
        return rows_of_features(cache / "dataset", manifest, prepared.corruption)
    augmentation = prepared.config.augmentation
    if augmentation == "auto":
        augmentation = "crop" if spec.kind == "pixels" else "flip"
    store = embed(
        cache / "dataset",
        manifest,
        spec,
        prepared.corruption,
        augmentation,
        cache / "features",
        use_gpu,
        progress,
    )
    return rows_of_embeddings(store, manifest)
