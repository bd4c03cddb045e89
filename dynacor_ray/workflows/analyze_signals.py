"""What signals and corruption rates are worth, by a supervised bound and by what needs no truth.

Table 6, Figs. 2, 5 and 6, App. B. One training per kind of noise, seed and corruption rate records all signals.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynacor_ray.config.analyze_signals import AnalyzeSignalsConfig
from dynacor_ray.config.options import make_config
from dynacor_ray.core.errors import DynacorError, TrainingError
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location
from dynacor_ray.detectors.evidence import Evidence
from dynacor_ray.detectors.registry import DETECTORS
from dynacor_ray.engine.runtime.tasks import map_shared
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.ground_truth.metrics import detection_metrics
from dynacor_ray.ground_truth.supervised_bound import FOLDS, READERS, BoundConfig, FoldScores, merge_folds, score_fold
from dynacor_ray.method.signals import SIGNALS
from dynacor_ray.report.comparison_table import print_comparison
from dynacor_ray.report.signal_analysis import (
    NOTE,
    UNSUPERVISED,
    build_signal_summary,
    findings_table,
    series_of,
    signals_figure,
)
from dynacor_ray.runs.records import Finding, Judgment
from dynacor_ray.runs.resumable import run_once
from dynacor_ray.workflows.experiment_grid import Experiment, GridCell
from dynacor_ray.workflows.gather_evidence import gather_dynamics, read_signals
from dynacor_ray.workflows.results import AnalyzeSignalsResult

_SIGNAL_FACTOR = 3
"""Room that all signals of a training take, in those of a training that records the margin and the class."""


def analyze_signals(data: str | None = None, **options: Any) -> AnalyzeSignalsResult:
    """What training signals and corruption rates are worth, on data whose true labels are known (Figs. 2, 5, 6).

    Resumes in the same directory, and extends what is there.

    Args:
        data: What to search, as of `detect`.
        options: Those of `AnalyzeSignalsConfig` (label_noise, seeds, gammas, signals) and of `DetectConfig`.

    Raises:
        DynacorError: Something could not run; before any work where possible.
    """
    return run_analyze_signals(make_config(AnalyzeSignalsConfig, data, **options))


def run_analyze_signals(config: AnalyzeSignalsConfig) -> AnalyzeSignalsResult:
    """`analyze_signals` for a configuration that is already built."""
    chosen = {"gammas": config.effective_gammas, "signals": config.effective_signals}
    plan = functools.partial(_SignalAnalysis.open, "signals", config, config.largest_corruption, chosen, ("gamma",))
    result = run_once(plan, Progress(config.detect.quiet))
    if not config.detect.quiet:
        print_comparison(result.summary, str(result.run), stem="signal_analysis", note=NOTE)
    return result


@dataclass(frozen=True)
class _SignalAnalysis(Experiment[Finding, AnalyzeSignalsResult]):
    """All readers of all signals in all cells."""

    stem = "signal_analysis"
    result = AnalyzeSignalsResult
    summarize = staticmethod(build_signal_summary)
    table = staticmethod(findings_table)
    figure = staticmethod(signals_figure)

    def find_all(self, progress: Progress) -> Iterator[Finding]:
        shared = self.open_shared(_SIGNAL_FACTOR * len(self.config.effective_gammas), progress)
        for cell in self.cells(shared, SignalCell):
            for gamma in self.config.effective_gammas:
                yield from cell.find(gamma, self.config.effective_signals)


@dataclass(frozen=True)
class _Known:
    """What the supervised readers learn from: rows whose truth is known.

    columns: recorded signal -> float16 (n, E); ids: int64 (n,); is_mislabeled: bool (n,).
    """

    columns: dict[str, np.ndarray]
    ids: np.ndarray
    is_mislabeled: np.ndarray
    seed: int


@dataclass(frozen=True)
class _Fold:
    """What one fold of one bound came to: what it says, or why it failed."""

    judged: FoldScores | None
    seconds: float
    message: str | None


_Row = tuple[str | None, str]
"""Signal, None for a detector, and reader."""


class SignalCell(GridCell):
    """One kind of noise and one seed, under any number of corruption rates."""

    def find(self, gamma: float, signals: Sequence[str]) -> Iterator[Finding]:
        """What every reader makes of every signal, from its record where there is one."""
        records, name = self.place / "findings", f"gamma{gamma:g}"
        wanted: list[_Row] = [(signal, reader) for signal in signals for reader in READERS]
        wanted += [(None, reader) for reader in UNSUPERVISED]
        places = {one: records / f"{name}-{series_of(*one)[0]}.json" for one in wanted}
        missing = [one for one in wanted if not places[one].exists()]
        found = {one: Finding.from_json(places[one].read_json()) for one in wanted if one not in missing}
        if missing:
            for one, judgment in self._judge(gamma, name, missing):
                found[one] = Finding(gamma=gamma, signal=one[0], reader=one[1], judgment=judgment)
                if judgment.message is None:
                    places[one].write_json(dataclasses.asdict(found[one]))
        yield from (found[one] for one in wanted)

    def _judge(self, gamma: float, name: str, missing: Sequence[_Row]) -> Iterator[tuple[_Row, Judgment]]:
        start = time.monotonic()
        flow = self.flow(name, gamma, all_signals=True)
        try:
            dynamics = gather_dynamics(flow, self.shared.progress)
        except TrainingError as error:  # a rate at which it diverges does not end the others
            for one in missing:
                yield one, self.judgment(*series_of(*one), None, {}, time.monotonic() - start, str(error))
            return
        spent = self.longest({name: time.monotonic() - start})[name]
        evidence = Evidence(given_label=self.labels.labels, num_classes=self.dataset.num_classes, **dynamics)
        for signal, reader in missing:
            if signal is None:
                verdict = DETECTORS[reader].judge(evidence)
                series, title = series_of(signal, reader)
                yield (signal, reader), self.judgment(series, title, verdict, self.metrics(verdict), spent)
        yield from self._supervised(flow.run, [(signal, reader) for signal, reader in missing if signal], spent)

    def _supervised(
        self, run: Location, wanted: Sequence[tuple[str, str]], spent: float
    ) -> Iterator[tuple[_Row, Judgment]]:
        """The bound of every signal and reader, all folds side by side on a cluster."""
        if not wanted:
            return
        signals = RecordedSignals.read(run)
        assert signals is not None
        ids, (known, is_mislabeled) = self.labels.ids, self.known
        columns = {name: values[known] for name, values in read_signals(signals, ids).items()}
        shared = _Known(columns, ids[known], is_mislabeled, self.seed)
        items = [(*one, fold) for one in wanted for fold in range(FOLDS)]
        folds: dict[tuple[str, str], dict[int, _Fold]] = {one: {} for one in wanted}
        progress = self.shared.progress
        with progress.timed("bound"), progress.stage("bound", len(items), "folds") as bar:
            for (signal, reader, number), fold in map_shared(_judge_fold, shared, items, bar):
                told = folds[signal, reader]
                told[number] = fold
                if len(told) == FOLDS:  # kept at once: what is known is not learned again after a kill
                    in_order = [told[fold_number] for fold_number in range(FOLDS)]
                    yield (signal, reader), self._bound(signal, reader, in_order, is_mislabeled, spent)

    def _bound(
        self, signal: str, reader: str, folds: Sequence[_Fold], is_mislabeled: np.ndarray, spent: float
    ) -> Judgment:
        """The judgment of all folds together."""
        (name, title), seconds = series_of(signal, reader), spent + sum(fold.seconds for fold in folds)
        message = next((fold.message for fold in folds if fold.message is not None), None)
        if message is not None:
            return self.judgment(name, title, None, {}, seconds, message)
        verdict = merge_folds([fold.judged for fold in folds if fold.judged is not None])
        metrics = detection_metrics(verdict.is_label_issue, verdict.score, is_mislabeled)
        return self.judgment(name, title, verdict, metrics, seconds)


def _judge_fold(known: _Known, item: tuple[str, str, int]) -> _Fold:
    name, reader, number = item
    signal, start = SIGNALS[name], time.monotonic()
    judged, message = None, None
    try:
        dynamics = signal.read(known.columns[signal.column])
        config = BoundConfig(seed=known.seed)
        judged = score_fold(dynamics, known.ids, known.is_mislabeled, reader, number, config)
    except (DynacorError, ValueError) as error:  # one that diverges does not end the others
        message = str(error)
    return _Fold(judged, time.monotonic() - start, message)
