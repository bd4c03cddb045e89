"""A sweep: trainings once per corruption rate and seed, many clusterings of each, one trial chosen without labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dynacor_ray.config.options import make_config
from dynacor_ray.config.sweep import CLUSTERING_OPTIONS, SweepConfig, training_options
from dynacor_ray.core.errors import ConfigError, RunDirectoryError, TrainingError, expected_got
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.redaction import redact_all
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
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.engine.training.signal_files import PROGRESS, SIGNALS
from dynacor_ray.export.mlflow import track, tracked_trials
from dynacor_ray.report.figures import heat_map
from dynacor_ray.report.sweep import print_sweep
from dynacor_ray.runs import directory as run_directory
from dynacor_ray.runs.directory import BEST, CONFIG, HEAT_MAP, REPORT, SUMMARY, TRAININGS, TRIALS
from dynacor_ray.runs.resumable import ResumableRun, run_once
from dynacor_ray.runs.sweep_records import Trial, build_sweep_summary, choose_trial, trials_table
from dynacor_ray.workflows.cluster_session import check_storage, plan_for, ray_session
from dynacor_ray.workflows.detect import finished, run_prepared
from dynacor_ray.workflows.dynamics_flow import DynamicsFlow
from dynacor_ray.workflows.open_data import check_encoder, open_data
from dynacor_ray.workflows.prepare import PreparedRun, default_out, prepare
from dynacor_ray.workflows.results import SweepResult
from dynacor_ray.workflows.sweep_trials import SAMPLE, record_name, run_clustering_trial, run_training_trial


def sweep(
    data: str | None = None,
    *,
    space: dict[str, Any] | None = None,
    searcher: Any = None,
    scheduler: Any = None,
    **options: Any,
) -> SweepResult:
    """Try corruption rates and alignment weights and keep the trial that an unsupervised rule likes best (Eq. 9).

    Resumes an interrupted sweep in the same directory. A failing trial is named in the result and ends nothing.

    Args:
        data: What to search, as of `detect`.
        space: Ray Tune domains for options of the clustering, e.g. {"alpha": tune.loguniform(0.01, 100)}.
        searcher: Any searcher of Ray Tune, asked for `num_samples` trials.
        scheduler: Any scheduler of Ray Tune, told `score` after every epoch of the clustering.
        options: Those of `SweepConfig` (gammas, alphas, seeds, vary, search, num_samples, selection_rule) and of
            `DetectConfig`.

    Raises:
        DynacorError: Something could not run; before any work where possible.
    """
    config = make_config(SweepConfig, data, **options)
    return run_sweep(config, _search(config, space, searcher, scheduler), scheduler)


def run_sweep(config: SweepConfig, search: Search | None = None, scheduler: Any = None) -> SweepResult:
    """`sweep` for a configuration that is already built; `search` replaces its list of trials."""
    search = search or _search(config, None, None, scheduler)
    result = run_once(lambda: _Sweep.open(config, search, scheduler), Progress(config.detect.quiet))
    if not config.detect.quiet:
        print_sweep(result.summary, result.trials().to_pylist(), str(result.run))
    return result


Failures = list[tuple[Any, str]]
"""Options of trials that failed, and why."""


@dataclass(frozen=True)
class _Sweep(ResumableRun[tuple[list[Trial], list[dict[str, Any]]], SweepResult]):
    """A checked sweep with everything opened that can be opened without work.

    What it makes are the finished trials and the failed ones.
    """

    config: SweepConfig
    run: Location
    cache: Location
    """Of all trainings."""
    search: Search | None
    """What replaces the list of trials."""
    scheduler: Any
    trainings: dict[str, PreparedRun]
    """By name of the training, largest gamma first."""

    @classmethod
    def open(cls, config: SweepConfig, search: Search | None, scheduler: Any) -> _Sweep:
        """Open the data and prepare every training. Raises a DynacorError for whatever could not run."""
        detect = config.detect
        run = locate(detect.out or default_out(detect.data) + "-sweep")
        cache = locate(detect.cache) if detect.cache else run / "cache"
        trainings: dict[str, PreparedRun] = {}
        for options in config.trainings():
            name = _training_name(config, options)
            place = run / TRAININGS / name
            one = dataclasses.replace(config.trial(options), cache=str(cache), out=str(place))
            trainings[name] = prepare(one, next(iter(trainings.values()), None), place, cache)
        opened = cls(config, run, cache, search, scheduler, trainings)
        run_directory.check(run, opened.identity())
        for prepared in trainings.values():
            run_directory.check(prepared.run, prepared.identity(CLUSTERING_OPTIONS))
        return opened

    @property
    def first(self) -> PreparedRun:
        """The training with the largest gamma."""
        return next(iter(self.trainings.values()))

    @property
    def records(self) -> Location:
        """Where the records of the trials are kept."""
        return self.run / "trials" / (self.config.search if self.search is None else self.search.kind)

    def identity(self) -> dict[str, Any]:
        """What ties the directory: all but what is varied, so that a sweep may be extended."""
        varied = {*self.config.choices, *CLUSTERING_OPTIONS}
        options = {n: v for n, v in self.config.detect.result_options().items() if n not in varied}
        return self.first.identity() | {"options": options | {"sweep": True}}

    def finished(self) -> SweepResult | None:
        """The result, when just this sweep was completed here without a failed trial."""
        place = self.run / SUMMARY
        if self.search is not None or not place.exists():
            return None
        summary = place.read_json()
        same = summary["config"] == redact_all(run_directory.as_json(dataclasses.asdict(self.config)))
        return SweepResult(self.run, summary) if same and not summary["failed"] else None

    def execute(self, progress: Progress) -> tuple[list[Trial], list[dict[str, Any]]]:
        needs = "a searcher or scheduler of Ray Tune" if self.search or self.scheduler else None
        with ray_session(self.config.detect, self.first, progress, needs):
            trials, failed = self._run_trials(progress)
            with progress.timed("output"):
                self._keep(choose_trial(trials, self.config.selection_rule))
        return trials, failed

    def release_if_empty(self) -> None:
        if not any((prepared.run / SIGNALS).exists() for prepared in self.trainings.values()):
            for name in (CONFIG, TRAININGS):
                (self.run / name).delete()

    def write(self, made: tuple[list[Trial], list[dict[str, Any]]], seconds: dict[str, float]) -> SweepResult:
        config, detect = self.config, self.config.detect
        summary = build_sweep_summary(
            *made,
            select=config.selection_rule,
            default={name: getattr(detect, name) for name in config.choices},
            trainings=len(self.trainings),
            config=dataclasses.asdict(config),
            versions=run_directory.versions(self.run),
            seconds=seconds,
        )
        table = trials_table(*made, summary)
        (self.run / TRIALS).write_table(table)
        (self.run / HEAT_MAP).write_bytes(heat_map(table.to_pylist(), config.selection_rule))
        # Last of all files: its presence says that the sweep is complete.
        (self.run / SUMMARY).write_json(summary)
        trials = tracked_trials(str(self.run), table.to_pylist(), list(config.choices))
        track(detect.mlflow_uri, list(trials), Progress(detect.quiet))
        return SweepResult(self.run, (self.run / SUMMARY).read_json())

    def on_already_complete(self, result: SweepResult) -> None:
        if not (self.run / BEST / REPORT).exists():
            result.best.report()

    def _run_trials(self, progress: Progress) -> tuple[list[Trial], list[dict[str, Any]]]:
        """Train, then cluster. Returns the finished trials and the failed ones with their messages."""
        with progress.timed("start"):
            have, detect = resources(), self.config.detect
            check_tracking(detect.mlflow_uri)
            at_once = trainings_at_once(detect.workers, detect.gpu, have)
            plan = plan_for(detect, min(at_once, len(self.trainings)))
            signals = self.first.source.num_rows * detect.epochs * BYTES_PER_SIGNAL
            require_space(self.run, signals * (len(self.trainings) + 1))
            run_directory.claim(self.run, self.identity(), dataclasses.asdict(self.config))
            self.records.remove_half_written()
            check_storage(self.first, progress)
            for prepared in self.trainings.values():
                check_encoder(prepared)
        flows = {}
        for name, prepared in self.trainings.items():
            identity, config = prepared.identity(CLUSTERING_OPTIONS), prepared.config
            run_directory.claim(prepared.run, identity, dataclasses.asdict(config))
            opened = open_data(prepared, plan.use_gpu, progress)
            flows[name] = DynamicsFlow(config, prepared.training, prepared.run, opened.dataset, opened.rows, plan)
        with progress.timed("train"):
            broken = self._train(flows, at_once, progress)
        if len(broken) == len(flows):
            raise TrainingError(next(iter(broken.values())))
        with progress.timed("cluster"):
            return self._cluster(flows, broken, progress)

    def _train(self, flows: dict[str, DynamicsFlow], at_once: int, progress: Progress) -> dict[str, str]:
        """Run the trainings that are not finished; returns name -> message of those that failed."""
        todo = {name: flow for name, flow in flows.items() if not (flow.run / SAMPLE).exists()}
        if not todo:
            return {}
        for flow in todo.values():
            (flow.run / SIGNALS / PROGRESS).delete()
        runs = [(flow.run, flow.rows.facts.total) for flow in todo.values()]
        progress.say(f"{len(todo)} of {len(flows)} trainings to do, {min(at_once, len(todo))} at a time")
        stage = progress.stage("train", self.config.detect.epochs * sum(rows for _, rows in runs), "rows")
        with stage as bar, poll_progress(lambda: rows_done(runs), bar):
            failed = run_listed(
                lambda options: run_training_trial(todo[options["training"]]),
                [{"training": name} for name in todo],
                TRAINING_BUNDLE,
                at_once,
                self.run / "tune",
                "train",
                self.config.detect.max_failures,
            )
        return {options["training"]: f"Its training failed: {message}" for options, message in failed}

    def _cluster(
        self, flows: dict[str, DynamicsFlow], broken: dict[str, str], progress: Progress
    ) -> tuple[list[Trial], list[dict[str, Any]]]:
        """Run the clusterings that have no record; returns the finished trials and the failed ones."""
        records, config, cache = self.records, self.config, str(self.cache)

        def trial(options: dict[str, Any]) -> None:
            typed = config.typed(options)
            name = _training_name(config, typed)
            if name in broken:
                raise TrainingError(broken[name])
            one = dataclasses.replace(config.trial(typed), cache=cache)
            flow = dataclasses.replace(flows[name], config=one)
            run_clustering_trial(flow, name, typed, config.selection_rule, records)

        names, failed = (self._listed if self.search is None else self._searched)(trial, progress)
        found = [Trial(**(records / name).read_json()) for name in names if (records / name).exists()]
        messages = [{"options": options, "message": message} for options, message in failed]
        if not found:
            raise TrainingError(messages[0]["message"] if messages else "No trial finished.")
        return found, messages

    def _searched(self, trial: Callable[[dict[str, Any]], None], progress: Progress) -> tuple[list[str], Failures]:
        """Names of all records of the search, and what failed."""
        assert self.search is not None

        def records() -> list[str]:
            return [name for name in self.records.names() if name.endswith(".json")]

        place, failures = self.run / "tune", self.config.detect.max_failures
        name = f"search-{self.search.kind}-{self.search.samples}"
        stage = progress.stage("cluster", self.search.samples, "trials")
        with stage as bar, poll_progress(lambda: len(records()), bar):
            failed = run_search(trial, self.search, CLUSTERING_BUNDLE, place, name, failures)
        return records(), failed

    def _listed(self, trial: Callable[[dict[str, Any]], None], progress: Progress) -> tuple[list[str], Failures]:
        """Names of the listed trials' records, and what failed or was stopped."""
        wanted = {record_name(self.config.trial(options)): options for options in self.config.trials() or []}

        def missing() -> list[str]:
            have = set(self.records.names())
            return [name for name in wanted if name not in have]

        pending, failed = missing(), Failures()
        place, failures = self.run / "tune", self.config.detect.max_failures
        stage = progress.stage("cluster", len(wanted), "trials")
        with stage as bar, poll_progress(lambda: len(wanted) - len(missing()), bar):
            if pending:
                listed = [wanted[name] for name in pending]
                failed = run_listed(trial, listed, CLUSTERING_BUNDLE, None, place, "cluster", failures, self.scheduler)
        told = {record_name(self.config.trial(options)) for options, _ in failed}
        stopped = [(wanted[name], "Stopped by the scheduler.") for name in missing() if name not in told]
        return list(wanted), failed + stopped

    def _keep(self, chosen: Trial) -> None:
        """Give the chosen trial a run directory of its own, as `detect` leaves it; its signals are there already."""
        config = self.config.trial(chosen.options)
        place = self.run / BEST
        config = dataclasses.replace(config, out=str(place), cache=str(self.cache), quiet=True)
        prepared = prepare(config, self.first, place, self.cache)
        try:
            done = finished(prepared)
        except RunDirectoryError:  # an earlier sweep here chose another trial
            prepared.run.delete()
            done = None
        if done is None:
            run_directory.claim(prepared.run, prepared.identity(), dataclasses.asdict(config))
            signals = RecordedSignals.read(self.trainings[chosen.training].run)
            assert signals is not None
            signals.copy_to(prepared.run)
            run_prepared(prepared)


def _training_name(config: SweepConfig, options: dict[str, Any]) -> str:
    """Readable, and different for trainings that differ."""
    one = config.trial(training_options(options))
    known = {n: v for n, v in one.result_options().items() if n not in CLUSTERING_OPTIONS}
    return f"gamma{one.gamma:g}-seed{one.seed}-{digest(known)[:8]}"


def _search(config: SweepConfig, space: dict[str, Any] | None, searcher: Any, scheduler: Any) -> Search | None:
    """What replaces the list of trials, if anything: a searcher, a space of Tune domains, or Optuna by name."""
    if config.search == "optuna" and searcher is None:
        searcher = optuna_searcher(config.detect.seed)
    if searcher is None and space is None:
        return None
    for name in space or {}:
        if name not in CLUSTERING_OPTIONS:
            remedy = "give lists of the others (gammas, seeds, vary): each value costs a training"
            raise ConfigError(expected_got(f"space over {', '.join(CLUSTERING_OPTIONS)}", repr(name), remedy))
    alphas = None if space and "alpha" in space else config.alpha_range()
    return make_search(config.choices, alphas, space or {}, config.num_samples, searcher, scheduler)
