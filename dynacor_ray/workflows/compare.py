"""A comparison: every detector on the same rows, labels and classifier, judged by the truth (Tables 1, 2 and 4)."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynacor_ray.config.compare import CompareConfig
from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import make_config
from dynacor_ray.core.errors import ConfigError, DataError, DynacorError, expected_got
from dynacor_ray.core.progress import Progress
from dynacor_ray.detectors.baseline_classifiers import BaselineTraining
from dynacor_ray.detectors.evidence import Evidence, EvidencePart
from dynacor_ray.detectors.registry import DETECTORS
from dynacor_ray.detectors.trained_features import TRAINED_FEATURES
from dynacor_ray.engine.data.feature_blocks import FeatureBlocks, gather_prototypes, load_blocks
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.report.comparison_summary import build_comparison, comparison_table
from dynacor_ray.report.comparison_table import print_comparison
from dynacor_ray.report.figures import comparison_figure
from dynacor_ray.runs.records import Judgment
from dynacor_ray.runs.resumable import run_once
from dynacor_ray.workflows.experiment_grid import Experiment, GridCell
from dynacor_ray.workflows.gather_evidence import ABLATION_SECONDS, gather_dynamics, gather_published, gather_trained
from dynacor_ray.workflows.results import CompareResult

TRAININGS = 3
"""Of each cell: DynaCor's, the same as printed, and that of the baselines' classifiers."""
NO_LABEL = -1
"""Label of a neighbor that there is not."""


def compare(data: str | None = None, **options: Any) -> CompareResult:
    """Compare detectors on data whose true labels are known (§5.2, Tables 1 and 2).

    One training of DynaCor, one of DynaCor as printed, and one of all baselines' classifiers serve all detectors.
    Resumes in the same directory. A detector that fails is named in the result and ends nothing.

    Args:
        data: What to search, as of `detect`.
        options: Those of `CompareConfig` (label_noise, seeds, detectors) and of `DetectConfig`.

    Raises:
        DynacorError: Something could not run; before any work where possible.
    """
    return run_compare(make_config(CompareConfig, data, **options))


def run_compare(config: CompareConfig) -> CompareResult:
    """`compare` for a configuration that is already built."""
    detectors = {"detectors": config.effective_detectors}
    plan = functools.partial(_Comparison.open, "compare", config, config.detect, detectors)
    result = run_once(plan, Progress(config.detect.quiet))
    if not config.detect.quiet:
        print_comparison(result.summary, str(result.run))
    return result


@dataclass(frozen=True)
class _Comparison(Experiment[Judgment, CompareResult]):
    """All detectors in all cells."""

    stem = "comparison"
    result = CompareResult
    summarize = staticmethod(build_comparison)
    table = staticmethod(comparison_table)
    figure = staticmethod(comparison_figure)

    def find_all(self, progress: Progress) -> Iterator[Judgment]:
        for name in self.config.unavailable_detectors:
            library = DETECTORS[name].library
            progress.say(f"{DETECTORS[name].title} is left out: pip install 'dynacor-ray[{library}]'")
        if self.config.detect.network is not None and not self.config.detectors:
            left = ", ".join(one.title for one in DETECTORS.values() if one.needs_features)
            progress.say(f"Left out, since they read features that stay the same, which a network has not: {left}.")
        shared = self.open_shared(TRAININGS, progress)
        names = _possible(self.config, shared.opened.dataset.num_classes, progress)
        for cell in self.cells(shared, CompareCell):
            yield from cell.judge(names, self.config.published)


def _possible(config: CompareConfig, num_classes: int, progress: Progress) -> list[str]:
    """The detectors that can be compared with so many classes; one that was asked for by name must be among them."""
    for name in config.effective_detectors:
        most = DETECTORS[name].max_classes
        if most is not None and num_classes > most:
            if config.detectors:
                raise ConfigError(expected_got(f"at most {most} classes for {name}", str(num_classes), "leave it out"))
            progress.say(f"{DETECTORS[name].title} is left out: it takes at most {most} classes")
    return [name for name in config.effective_detectors if num_classes <= (DETECTORS[name].max_classes or num_classes)]


_Gathered = tuple[Evidence, dict[str, float], dict[str, str]]


class CompareCell(GridCell):
    """One kind of noise and one seed, on which all detectors are judged."""

    def judge(self, names: list[str], published: DetectConfig) -> Iterator[Judgment]:
        """Every detector's judgment, from its record where there is one. published: the run as printed in the paper."""
        records = self.place / "judgments"
        missing = [name for name in names if not (records / f"{name}.json").exists()]
        reads = {part: None for name in missing for part in self._reads(name).values()}
        evidence, seconds, broken = self._gather(list(reads), published) if missing else (None, {}, {})
        for name in names:
            if name not in missing:
                yield Judgment(**(records / f"{name}.json").read_json())
                continue
            assert evidence is not None
            judgment = self._judged(name, evidence, seconds, broken)
            if judgment.message is None:
                (records / f"{name}.json").write_json(dataclasses.asdict(judgment))
            yield judgment

    def _reads(self, name: str) -> dict[str, EvidencePart | BaselineTraining]:
        """What a detector reads, by name."""
        return DETECTORS[name].all_reads(from_pixels=self.prepared.config.network is not None)

    def _gather(self, parts: list[EvidencePart | BaselineTraining], published: DetectConfig) -> _Gathered:
        """The evidence, seconds per part, and messages of the parts that could not be gathered."""
        found: dict[str, Any] = {}
        seconds: dict[str, float] = {}
        broken: dict[str, str] = {}
        for shares, step in self._steps(parts, published):
            start = time.monotonic()
            try:
                found |= step()
            except DynacorError as error:
                broken |= dict.fromkeys(shares, str(error))
            spent = time.monotonic() - start
            seconds |= {name: spent * share for name, share in shares.items()}
        extra = found.pop(ABLATION_SECONDS, 0.0)
        if extra:
            seconds |= {"published": seconds["published"] - extra, "ablation": extra}
        if "neighbors" in seconds and "neighbors" not in broken:  # maybe for another cell
            seconds["neighbors"] = max(seconds["neighbors"], self._found["seconds"])
        evidence = Evidence(given_label=self.labels.labels, num_classes=self.dataset.num_classes, **found)
        return evidence, self.longest(seconds), broken

    def _steps(
        self, parts: list[EvidencePart | BaselineTraining], published: DetectConfig
    ) -> Iterator[tuple[dict[str, float], Callable[[], dict[str, Any]]]]:
        """What is gathered in one step, with each part's share of its time."""
        classes, progress = self.dataset.num_classes, self.shared.progress
        trainings = [part for part in parts if isinstance(part, BaselineTraining)]
        if "dynamics" in parts:
            yield {"dynamics": 1.0}, lambda: gather_dynamics(self.flow("dynacor"), progress)
        if {"published", "ablation"} & set(parts):
            shares = {"published": 1.0, "ablation": 0.0}
            as_printed = dataclasses.replace(published, seed=self.seed)
            flow = functools.partial(self.flow, "published", config=as_printed)
            yield shares, lambda: gather_published(flow(), "ablation" in parts, progress)
        if trainings:
            counts = self.labels.counts(classes)
            sizes = {one.part: len(one.classifiers(classes, counts, self.seed)) for one in trainings}
            shares = {name: size / sum(sizes.values()) for name, size in sizes.items()}
            yield shares, lambda: {"trained": self._trained(trainings)}
        if "neighbors" in parts:
            yield {"neighbors": 1.0}, self._neighbors
        if "prototypes" in parts:
            yield {"prototypes": 1.0}, lambda: gather_prototypes(self._features, self.labels, classes)

    def _trained(self, trainings: list[BaselineTraining]) -> dict[str, Any]:
        """From a finished training that has these classifiers and maybe more, or from a new one."""
        parts = [training.part for training in trainings]
        flow = self.flow(self._finished(parts) or "-".join(("panel", *parts)), with_copies=False)
        return gather_trained(flow, trainings, self.shared.progress)

    def _finished(self, parts: list[str]) -> str | None:
        """Folder of a finished training that has these classifiers, and maybe more."""
        finished = (name for name in self.place.names() if RecordedSignals.read(self.place / name) is not None)
        return next((name for name in finished if set(parts) <= set(name.split("-")[1:])), None)

    @functools.cached_property
    def _features(self) -> FeatureBlocks:
        """Features of all originals: the encoder's, or what the network's last layer saw in the last epoch."""
        if self.prepared.config.network is None:
            return self.shared.blocks
        folder = self._finished([TRAINED_FEATURES.part])
        signals = RecordedSignals.read(self.place / folder) if folder else None
        if signals is None:
            raise DataError(expected_got("features of a trained network", "none", "look at how its training failed"))
        return load_blocks([signals.folder / name for name in signals.files[str(signals.epochs[-1])]])

    @functools.cached_property
    def _found(self) -> dict[str, Any]:
        """Who is near whom by these features."""
        from_pixels = self.prepared.config.network is not None
        return self.shared.find_neighbors(self._features) if from_pixels else self.shared.neighbors

    def _neighbors(self) -> dict[str, Any]:
        """The given labels of the nearest instances in this cell."""
        ids = self._found["ids"]
        near = np.full(ids.shape, NO_LABEL, np.int32)
        near[ids >= 0] = self.labels.of(ids[ids >= 0])
        return {"neighbor_labels": near, "similarity": self._found["similarity"]}

    def _judged(self, name: str, evidence: Evidence, seconds: dict[str, float], broken: dict[str, str]) -> Judgment:
        detector, parts = DETECTORS[name], self._reads(name)
        start = time.monotonic()
        verdict, message = None, next((broken[part] for part in parts if part in broken), None)
        metrics: dict[str, Any] = {}
        if message is None:
            try:
                verdict = detector.judge(evidence)
                if not np.isfinite(verdict.score).all():
                    raise DataError(expected_got("finite scores", "NaN or infinity", "lower --learning-rate"))
                metrics = self.metrics(verdict)
            except (DynacorError, ValueError, ArithmeticError) as error:  # of libraries too: others go on
                verdict, message = None, str(error)
        spent = sum(seconds[part] for part in parts) + time.monotonic() - start
        return self.judgment(name, detector.title, verdict, metrics, spent, message)
