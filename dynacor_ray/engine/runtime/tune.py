"""The runner of a sweep's trials: Ray Tune, or where one process is enough a loop. Failures are collected.

Two kinds of trials share this code. A training is a whole run of Ray Train inside a trial that itself takes no CPU, so
that it can never wait for what it holds; how many run side by side is worked out from the cluster. A clustering takes a
fraction of a CPU, and many run at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dynacor_ray.core.errors import ConfigError, DynacorError, expected_got
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.redaction import redact
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.runtime.session import on_cluster, root_cause

if TYPE_CHECKING:
    from ray.tune import RunConfig, TuneConfig, Tuner

SCORE = "score"
"""What a searcher or scheduler is told to maximize."""
MESSAGE = "message"
"""Why a trial could not give a score."""
TRIAL = "trial"
"""Key of a trial's options in Tune's configuration, where the trials are listed beforehand."""
TRAINING_BUNDLE = {"CPU": 0.0, "memory": 1.0}
"""A byte of memory stands for nothing, since nothing at all is not allowed. A share of a CPU would be missed by Ray
Data, which lists files with a whole one, on a machine that has just one beside the training's."""
CLUSTERING_BUNDLE = {"CPU": 0.5}


@dataclass(frozen=True)
class Search:
    """How trials are found when they are not listed: a space of Tune domains, how many, and by what."""

    space: dict[str, Any]
    samples: int
    searcher: Any = None
    scheduler: Any = None

    @property
    def kind(self) -> str:
        """Names searcher and space: another space is another search, which must not be resumed as this one."""
        label = type(self.searcher).__name__ if self.searcher is not None else "random"
        space = {n: f"{type(d).__name__} {getattr(d, 'domain_str', d)}" for n, d in self.space.items()}
        return f"{label}-{digest(space)[:8]}"


def run_listed(
    trial: Callable[[dict[str, Any]], None],
    listed: list[Any],
    bundle: dict[str, float],
    at_once: int | None,
    place: Location,
    name: str,
    max_failures: int,
    scheduler: Any = None,
) -> list[tuple[Any, str]]:
    """Call `trial(options)` in a trial of its own for each of `listed`; returns (options, message) of the failed.

    place, name: where Tune keeps its state and its TensorBoard events.
    """
    if not on_cluster():
        return [(options, message) for options in listed if (message := _run_here(trial, options)) is not None]
    from ray import tune

    tuner = tune.Tuner(
        _sized(trial, bundle),
        param_space={TRIAL: tune.grid_search(listed)},
        tune_config=_tune_config(at_once, scheduler, 1, None),
        run_config=_run_config(place, name, max_failures),
    )
    return _failures(tuner, listed)


def run_search(
    trial: Callable[[dict[str, Any]], None],
    search: Search,
    bundle: dict[str, float],
    place: Location,
    name: str,
    max_failures: int,
) -> list[tuple[Any, str]]:
    """Let the searcher draw the options; a search that was interrupted goes on with what the searcher had learned."""
    from ray.tune import Tuner

    sized, path = _sized(trial, bundle), f"{place.path}/{name}"
    if Tuner.can_restore(path, storage_filesystem=place.filesystem):
        tuner = Tuner.restore(
            path,
            trainable=sized,
            restart_errored=True,
            param_space=search.space,
            storage_filesystem=place.filesystem,
        )
    else:
        tuner = Tuner(
            sized,
            param_space=search.space,
            tune_config=_tune_config(None, search.scheduler, search.samples, search.searcher),
            run_config=_run_config(place, name, max_failures),
        )
    return _failures(tuner)


def make_search(
    choices: dict[str, tuple[Any, ...]],
    alphas: tuple[float, float] | None,
    space: dict[str, Any],
    samples: int,
    searcher: Any,
    scheduler: Any,
) -> Search:
    """Listed values as categories, alpha log-uniform between its bounds, and whatever `space` says otherwise."""
    from ray import tune

    domains: dict[str, Any] = {name: tune.choice(list(values)) for name, values in choices.items()}
    if alphas is not None:
        domains["alpha"] = tune.loguniform(*alphas)
    return Search(domains | space, samples, searcher, scheduler)


def optuna_searcher(seed: int) -> Any:
    """Tune's Optuna searcher. Raises ConfigError when Optuna is not installed."""
    try:
        import optuna
    except ImportError as error:
        remedy = "pip install 'dynacor-ray[optuna]', or use --search random"
        raise ConfigError(expected_got("Optuna to be installed for --search optuna", f"'{error}'", remedy)) from error
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return OptunaSearch(metric=SCORE, mode="max", sampler=optuna.samplers.TPESampler(seed=seed % 2**32))


def report(metrics: dict[str, Any]) -> None:
    """Tell Tune, if there is one, and so TensorBoard, how a trial stands. Numbers only."""
    if not on_cluster():
        return
    from ray import tune

    tune.report({name: value for name, value in metrics.items() if isinstance(value, (int, float))})


def _run_here(trial: Callable[[dict[str, Any]], None], options: Any) -> str | None:
    """Run a trial in this process; returns why it failed, if it did."""
    try:
        trial(options)
    except DynacorError as error:
        return str(error)
    except Exception as error:  # one trial ends no other
        return _first_line(error)
    return None


def _sized(trial: Callable[[dict[str, Any]], None], bundle: dict[str, float]) -> Any:
    from ray import tune
    from ray.tune.execution.placement_groups import PlacementGroupFactory

    def run(config: dict[str, Any]) -> None:
        try:
            trial(config.get(TRIAL, config))
        except DynacorError as error:
            # Another attempt would fail as well: tell it as a result. What is raised, like a lost machine, is retried.
            tune.report({SCORE: float("nan"), MESSAGE: str(error)})

    return tune.with_resources(run, PlacementGroupFactory([bundle]))


def _tune_config(at_once: int | None, scheduler: Any, samples: int, searcher: Any) -> TuneConfig:
    # A trial is not to be judged by its metric unless somebody asked for it: trainings report none.
    from ray.tune import TuneConfig

    judged = {"metric": SCORE, "mode": "max"} if searcher is not None or scheduler is not None else {}
    return TuneConfig(
        max_concurrent_trials=at_once,
        num_samples=samples,
        search_alg=searcher,
        scheduler=scheduler,
        reuse_actors=True,  # starting a process takes longer than clustering a small data set
        **judged,
    )


def _run_config(place: Location, name: str, max_failures: int) -> RunConfig:
    from ray.tune import FailureConfig, RunConfig

    return RunConfig(
        name=name,
        storage_path=place.path,
        storage_filesystem=place.filesystem,
        verbose=0,
        failure_config=FailureConfig(max_failures=max_failures),
    )


def _failures(tuner: Tuner, listed: list[Any] | None = None) -> list[tuple[Any, str]]:
    """(options, message) of the trials without a score; Tune gives its results in the order of `listed`."""
    found = []
    for number, result in enumerate(tuner.fit()):
        options = listed[number] if listed is not None else (result.config or {})
        if result.error is not None:
            found.append((options, _first_line(root_cause(result.error))))
        elif result.metrics and MESSAGE in result.metrics:
            found.append((options, str(result.metrics[MESSAGE])))
    return found


def _first_line(error: BaseException) -> str:
    text = redact(str(error).strip())
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
