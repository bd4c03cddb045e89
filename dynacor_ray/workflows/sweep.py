"""A sweep: trainings once per corruption rate and seed, many clusterings of each, one trial chosen without labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import make_config
from dynacor_ray.config.sweep import CLUSTERING_OPTIONS, SweepConfig, training_options
from dynacor_ray.core.errors import ConfigError, RunDirectoryError, TrainingError, expected_got
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.schema import BYTES_PER_SIGNAL
from dynacor_ray.core.storage import Location, locate, require_space
from dynacor_ray.engine.runtime.mlflow_client import check_tracking
from dynacor_ray.engine.runtime.session import resources
from dynacor_ray.engine.runtime.tune import (
    CLUSTERING_BUNDLE,
    TRAINING_BUNDLE,
    Search,
    make_search,
    optuna_searcher,
    run_listed,
    run_search,
)
from dynacor_ray.engine.training.driver import poll_progress, rows_done
from dynacor_ray.engine.training.job import trainings_at_once
from dynacor_ray.engine.training.signal_files import PROGRESS, SIGNALS, _copy_signals
from dynacor_ray.export.mlflow import track_sweep
from dynacor_ray.report.figures import heat_map
from dynacor_ray.report.sweep import build_sweep_summary, print_sweep, trials_table
from dynacor_ray.runs import directory as rundir
from dynacor_ray.runs.directory import BEST, CONFIG, HEAT_MAP, REPORT, SUMMARY, TRAININGS, TRIALS
from dynacor_ray.runs.records import Trial, choose_trial
from dynacor_ray.runs.resumable import ResumableRun, run_once
from dynacor_ray.workflows.detect import finished, run_detect
from dynacor_ray.workflows.open_data import check_encoder, open_data
from dynacor_ray.workflows.prepare import Prepared, check_storage, default_out, identity, plan_for, prepare, ray_session
from dynacor_ray.workflows.results import SweepResult
from dynacor_ray.workflows.sweep_trials import (
    SAMPLE,
    ClusteringTrial,
    TrainingTrial,
    record_name,
    run_clustering_trial,
    run_training_trial,
)


def sweep(
    data: str | None = None,
    *,
    space: dict[str, Any] | None = None,
    searcher: Any = None,
    scheduler: Any = None,
    **options: Any,
) -> SweepResult:
    """Try corruption rates and alignment weights and keep the trial that an unsupervised rule likes best (Eq. 9).

    Options are those of `SweepConfig` (gammas, alphas, seeds, also, search, samples, select) and of `DetectConfig`.
    space: Ray Tune domains for options of the clustering, e.g. {"alpha": tune.loguniform(0.01, 100)}; searcher: any
    searcher of Ray Tune, asked for `samples` trials; scheduler: any scheduler, told `score` after every epoch of the
    clustering. Resumes an interrupted sweep in the same directory. Raises a DynacorError, before any work where
    possible; a failing trial is named in the result and ends nothing.
    """
    config = make_config(SweepConfig, data, **options)
    return run_sweep(config, _search(config, space, searcher, scheduler), scheduler)


def run_sweep(config: SweepConfig, search: Search | None = None, scheduler: Any = None) -> SweepResult:
    """`sweep` for a configuration that is already built; `search` replaces its list of trials."""
    search = search or _search(config, None, None, scheduler)
    result = run_once(lambda: _Sweep(SweepPlan.of(config, search), scheduler), Progress(config.detect.quiet))
    if not config.detect.quiet:
        print_sweep(result.summary, result.trials().to_pylist(), str(result.run))
    return result


@dataclass(frozen=True)
class SweepPlan:
    """A checked sweep with everything opened that can be opened without work."""

    config: SweepConfig
    run: Location
    shared: DetectConfig
    """What all runs of the sweep share, cache included."""
    listed: list[dict[str, Any]] | None
    search: Search | None
    trainings: dict[str, Prepared]
    """By name of the training, largest gamma first."""

    @classmethod
    def of(cls, config: SweepConfig, search: Search | None) -> SweepPlan:
        """Open the data and prepare every training. Raises a DynacorError for whatever could not run."""
        detect = config.detect
        run = locate(detect.out or default_out(detect.data) + "-sweep")
        shared = dataclasses.replace(detect, cache=detect.cache or str(run / "cache"), quiet=True)
        trainings: dict[str, Prepared] = {}
        for options in config.trainings():
            name = _training_name(config, options)
            one = dataclasses.replace(config.trial(options), cache=shared.cache, out=str(run / TRAININGS / name))
            trainings[name] = prepare(one, next(iter(trainings.values()), None))
        plan = cls(config, run, shared, None if search else config.trials(), search, trainings)
        rundir.check(run, plan.identity())
        for prepared in trainings.values():
            rundir.check(prepared.run, _training_identity(prepared))
        return plan

    def identity(self) -> dict[str, Any]:
        """What ties the directory: all but what is varied, so that a sweep may be extended."""
        varied = {*self.config.choices, *CLUSTERING_OPTIONS}
        options = {n: v for n, v in self.config.detect.result_options().items() if n not in varied}
        return {"options": options | {"sweep": True}, "data": next(iter(self.trainings.values())).source.fingerprint()}

    @property
    def trials(self) -> Location:
        """Where the records of the trials are kept."""
        kind = self.config.search if self.search is None else self.search.kind
        return self.run / "trials" / kind

    def finished(self) -> SweepResult | None:
        """The result, when just this sweep was completed here without a failed trial."""
        place = self.run / SUMMARY
        if not place.exists():
            return None
        summary = place.read_json()
        same = summary["config"] == rundir.as_json(_varied(self.config)) and self.search is None
        return SweepResult(self.run, summary) if same and not summary["failed"] else None


@dataclass(frozen=True)
class _Sweep(ResumableRun[tuple[list[Trial], list[dict[str, Any]]], SweepResult]):
    """All trainings and trials of a plan; what it makes are the finished trials and the failed ones."""

    plan: SweepPlan
    scheduler: Any

    @property
    def run(self) -> Location:
        return self.plan.run

    def finished(self) -> SweepResult | None:
        return self.plan.finished()

    def execute(self, progress: Progress) -> tuple[list[Trial], list[dict[str, Any]]]:
        with ray_session(self.plan.config.detect, progress):
            trials, failed = _run_trials(self.plan, self.scheduler, progress)
            _keep_best(self.plan, choose_trial(trials, self.plan.config.selection_rule), progress)
        return trials, failed

    def release_if_empty(self) -> None:
        if not any((prepared.run / SIGNALS).exists() for prepared in self.plan.trainings.values()):
            for name in (CONFIG, TRAININGS):
                (self.run / name).delete()

    def write(self, made: tuple[list[Trial], list[dict[str, Any]]], seconds: dict[str, float]) -> SweepResult:
        result, detect = _write(self.plan, *made, seconds), self.plan.config.detect
        names, trials = list(self.plan.config.choices), result.trials().to_pylist()
        track_sweep(detect.mlflow_uri, str(self.run), trials, names, Progress(detect.quiet))
        return result

    def on_already_complete(self, result: SweepResult) -> None:
        if not (self.run / BEST / REPORT).exists():
            result.best.report()


def _run_trials(plan: SweepPlan, scheduler: Any, progress: Progress) -> tuple[list[Trial], list[dict[str, Any]]]:
    """Train, then cluster. Returns the finished trials and the failed ones with their messages."""
    with progress.timed("start"):
        have, detect = resources(), plan.config.detect
        check_tracking(detect.mlflow_uri)
        at_once = trainings_at_once(detect.workers, detect.gpu, have)
        spread = plan_for(detect, min(at_once, len(plan.trainings)))
        rows = next(iter(plan.trainings.values())).source.num_rows
        require_space(plan.run, rows * detect.epochs * BYTES_PER_SIGNAL * (len(plan.trainings) + 1))
        rundir.claim(plan.run, plan.identity(), _varied(plan.config))
        check_storage(next(iter(plan.trainings.values())), progress)
        for prepared in plan.trainings.values():
            check_encoder(prepared)
    tasks = {}
    for name, prepared in plan.trainings.items():
        rundir.claim(prepared.run, _training_identity(prepared), dataclasses.asdict(prepared.config))
        opened = open_data(prepared, spread.use_gpu, progress)
        tasks[name] = TrainingTrial.of(prepared, opened, spread)
    with progress.timed("train"):
        broken = _train(plan, tasks, at_once, progress)
    if len(broken) == len(tasks):
        raise TrainingError(next(iter(broken.values())))
    with progress.timed("cluster"):
        return _cluster(plan, tasks, broken, scheduler, progress)


def _train(plan: SweepPlan, tasks: dict[str, TrainingTrial], at_once: int, progress: Progress) -> dict[str, str]:
    """Run the trainings that are not finished; returns name -> message of those that failed."""
    todo = {name: task for name, task in tasks.items() if not (task.place / SAMPLE).exists()}
    if not todo:
        return {}
    for task in todo.values():
        (task.place / SIGNALS / PROGRESS).delete()
    runs = [(task.place, task.rows.facts.total) for task in todo.values()]
    progress.say(f"{len(todo)} of {len(tasks)} trainings to do, {min(at_once, len(todo))} at a time")
    stage = progress.stage("train", plan.config.detect.epochs * sum(rows for _, rows in runs), "rows")
    with stage as bar, poll_progress(lambda: rows_done(runs), bar):
        failed = run_listed(
            lambda options: run_training_trial(todo[options["training"]]),
            [{"training": name} for name in todo],
            TRAINING_BUNDLE,
            at_once,
            plan.run / "tune",
            "train",
            plan.config.detect.max_failures,
        )
    return {options["training"]: f"Its training failed: {message}" for options, message in failed}


def _cluster(
    plan: SweepPlan, tasks: dict[str, TrainingTrial], broken: dict[str, str], scheduler: Any, progress: Progress
) -> tuple[list[Trial], list[dict[str, Any]]]:
    trials, config, shared = plan.trials, plan.config, plan.shared

    def trial(options: dict[str, Any]) -> None:
        typed = config.typed(options)
        name = _training_name(config, typed)
        if name in broken:
            raise TrainingError(broken[name])
        one, task = dataclasses.replace(config.trial(typed), cache=shared.cache), tasks[name]
        classes = task.manifest.num_classes
        run_clustering_trial(
            ClusteringTrial(one, typed, name, task.place, task.truth, classes, config.selection_rule), trials
        )

    if plan.search is not None:
        names, failed = _searched(plan, plan.search, trial, progress)
    else:
        names, failed = _listed(plan, plan.listed or [], trial, scheduler, progress)
    found = [Trial(**(trials / name).read_json()) for name in names if (trials / name).exists()]
    messages = [{"options": options, "message": message} for options, message in failed]
    if not found:
        raise TrainingError(messages[0]["message"] if messages else "No trial finished.")
    return found, messages


def _searched(
    plan: SweepPlan, search: Search, trial: Callable[[dict[str, Any]], None], progress: Progress
) -> tuple[list[str], list[tuple[Any, str]]]:
    """Names of all records of the search, and (options, message) of what failed."""

    def records() -> list[str]:
        return [name for name in plan.trials.names() if name.endswith(".json")]

    name = f"search-{search.kind}-{search.samples}"
    stage = progress.stage("cluster", search.samples, "trials")
    with stage as bar, poll_progress(lambda: len(records()), bar):
        failed = run_search(trial, search, CLUSTERING_BUNDLE, plan.run / "tune", name, plan.config.detect.max_failures)
    return records(), failed


def _listed(
    plan: SweepPlan,
    listed: list[dict[str, Any]],
    trial: Callable[[dict[str, Any]], None],
    scheduler: Any,
    progress: Progress,
) -> tuple[list[str], list[tuple[Any, str]]]:
    """Names of the listed trials' records, and (options, message) of what failed or was stopped."""
    wanted = {record_name(plan.config.trial(options)): options for options in listed}

    def missing() -> list[str]:
        have = set(plan.trials.names())
        return [name for name in wanted if name not in have]

    pending = missing()
    stage, failed = progress.stage("cluster", len(wanted), "trials"), []
    with stage as bar, poll_progress(lambda: len(wanted) - len(missing()), bar):
        if pending:
            failed = run_listed(
                trial,
                [wanted[name] for name in pending],
                CLUSTERING_BUNDLE,
                None,
                plan.run / "tune",
                "cluster",
                plan.config.detect.max_failures,
                scheduler,
            )
    told = {record_name(plan.config.trial(options)) for options, _ in failed}
    stopped = [(wanted[name], "Stopped by the scheduler.") for name in missing() if name not in told]
    return list(wanted), failed + stopped


def _keep_best(plan: SweepPlan, chosen: Trial, progress: Progress) -> None:
    """Give the chosen trial a run directory of its own, as `detect` leaves it; its signals are there already."""
    with progress.timed("output"):
        config = plan.config.trial(chosen.options)
        config = dataclasses.replace(config, out=str(plan.run / BEST), cache=plan.shared.cache, quiet=True)
        prepared = prepare(config, next(iter(plan.trainings.values())))
        try:
            done = finished(prepared)
        except RunDirectoryError:  # an earlier sweep here chose another trial
            prepared.run.delete()
            done = None
        if done is None:
            rundir.claim(prepared.run, identity(prepared), dataclasses.asdict(config))
            _copy_signals(plan.trainings[chosen.training].run / SIGNALS, prepared.run / SIGNALS)
            run_detect(config)


def _write(
    plan: SweepPlan, trials: list[Trial], failed: list[dict[str, Any]], seconds: dict[str, float]
) -> SweepResult:
    config = plan.config
    summary = build_sweep_summary(
        trials,
        failed,
        select=config.selection_rule,
        default={name: getattr(config.detect, name) for name in config.choices},
        trainings=len(plan.trainings),
        config=_varied(config),
        versions=rundir.versions(plan.run),
        seconds=seconds,
    )
    table = trials_table(trials, failed, summary)
    (plan.run / TRIALS).write_table(table)
    (plan.run / HEAT_MAP).write_bytes(heat_map(table.to_pylist(), config.selection_rule))
    # Last of all files: its presence says that the sweep is complete.
    (plan.run / SUMMARY).write_json(summary)
    return SweepResult(plan.run, (plan.run / SUMMARY).read_json())


def _varied(config: SweepConfig) -> dict[str, Any]:
    return dataclasses.asdict(config)


def _training_name(config: SweepConfig, options: dict[str, Any]) -> str:
    """Readable, and different for trainings that differ."""
    one = config.trial(training_options(options))
    known = {n: v for n, v in one.result_options().items() if n not in CLUSTERING_OPTIONS}
    return f"gamma{one.gamma:g}-seed{one.seed}-{digest(known)[:8]}"


def _training_identity(prepared: Prepared) -> dict[str, Any]:
    held = identity(prepared)
    return held | {"options": {n: v for n, v in held["options"].items() if n not in CLUSTERING_OPTIONS}}


def _search(config: SweepConfig, space: dict[str, Any] | None, searcher: Any, scheduler: Any) -> Search | None:
    """What replaces the list of trials, if anything: a searcher, a space of Tune domains, or Optuna by name."""
    if config.search == "optuna" and searcher is None:
        searcher = optuna_searcher(config.detect.seed)
    if searcher is None and space is None:
        return None
    for name in space or {}:
        if name not in CLUSTERING_OPTIONS:
            remedy = "give lists of the others (gammas, seeds, also): each value costs a training"
            raise ConfigError(expected_got(f"space over {', '.join(CLUSTERING_OPTIONS)}", repr(name), remedy))
    alphas = None if space and "alpha" in space else config.alpha_range()
    return make_search(config.choices, alphas, space or {}, config.num_samples, searcher, scheduler)
