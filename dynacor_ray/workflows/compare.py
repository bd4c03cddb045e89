"""A comparison: every detector on the same rows, labels and classifier, judged by the truth (Tables 1, 2 and 4)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynacor_ray.config.compare import CompareConfig
from dynacor_ray.config.options import make_config
from dynacor_ray.core.errors import ConfigError, DataError, DynacorError, expected_got
from dynacor_ray.core.manifest import MANIFEST
from dynacor_ray.core.progress import Progress
from dynacor_ray.detectors.baseline_classifiers import CLASSIFIERS
from dynacor_ray.detectors.evidence import Evidence, EvidencePart
from dynacor_ray.detectors.registry import DETECTORS
from dynacor_ray.detectors.simifeat import MAX_CLASSES
from dynacor_ray.engine.data.feature_blocks import gather_neighbors, gather_prototypes
from dynacor_ray.engine.data.labels import GivenLabels
from dynacor_ray.engine.training.signal_files import SIGNALS
from dynacor_ray.report.comparison_summary import build_comparison, comparison_table
from dynacor_ray.report.comparison_table import markdown_table, print_comparison
from dynacor_ray.report.figures import comparison_figure
from dynacor_ray.runs import directory as rundir
from dynacor_ray.runs.directory import COMPARISON, COMPARISON_FIGURE, COMPARISON_TEXT, SUMMARY
from dynacor_ray.runs.records import Judgment
from dynacor_ray.runs.resumable import run_once
from dynacor_ray.workflows.experiment_grid import (
    Experiment,
    ExperimentPlan,
    GridCell,
    each_cell,
    made_from,
    open_shared,
)
from dynacor_ray.workflows.gather_evidence import ABLATION_SECONDS, gather_dynamics, gather_panel
from dynacor_ray.workflows.prepare import ray_session
from dynacor_ray.workflows.results import CompareResult

TRAININGS = 2
"""Of each cell: one of DynaCor, one of the baselines' classifiers."""
SIMIFEAT_R = "simifeat_r"
NO_LABEL = -1
"""Label of a neighbor that there is not."""


def compare(data: str | None = None, **options: Any) -> CompareResult:
    """Compare detectors on data whose true labels are known (§5.2, Tables 1 and 2).

    Options are those of `CompareConfig` (label_noise, seeds, detectors) and of `DetectConfig`. One training of DynaCor
    and one of all baselines' classifiers serve all detectors. Resumes in the same directory. Raises a DynacorError,
    before any work where possible; a detector that fails is named in the result and ends nothing.
    """
    return run_compare(make_config(CompareConfig, data, **options))


def run_compare(config: CompareConfig) -> CompareResult:
    """`compare` for a configuration that is already built."""
    result = run_once(lambda: _Comparison.of(config), Progress(config.detect.quiet))
    if not config.detect.quiet:
        print_comparison(result.summary, str(result.run))
    return result


@dataclass(frozen=True)
class _Comparison(Experiment[Judgment, CompareResult]):
    """All detectors in all cells."""

    config: CompareConfig

    @classmethod
    def of(cls, config: CompareConfig) -> _Comparison:
        """Open the data. Raises a DynacorError for whatever could not run."""
        return cls(
            ExperimentPlan.of("compare", config.detect, config.noises, config.effective_seeds, _facts(config)), config
        )

    def result(self, summary: dict[str, Any]) -> CompareResult:
        return CompareResult(self.run, summary)

    def execute(self, progress: Progress) -> list[Judgment]:
        for name in self.config.unavailable_detectors:
            library = DETECTORS[name].library
            progress.say(f"{DETECTORS[name].title} is left out: pip install 'dynacor-ray[{library}]'")
        with ray_session(self.config.detect, progress):
            return list(_judge_all(self.config, self.plan, progress))

    def write(self, made: list[Judgment], seconds: dict[str, float]) -> CompareResult:
        return _write(self.plan, made, seconds)


def _facts(config: CompareConfig) -> dict[str, Any]:
    return dataclasses.asdict(config) | {
        "detectors": config.effective_detectors,
        "seeds": config.effective_seeds,
        "made_from": made_from(config.noises),
    }


def _judge_all(config: CompareConfig, plan: ExperimentPlan, progress: Progress) -> Iterator[Judgment]:
    shared, spread = open_shared(plan, TRAININGS, progress)
    names = _possible(config, shared.opened.manifest.num_classes, progress)
    for cell in each_cell(plan, shared, spread, CompareCell):
        yield from cell.judge(names)


def _possible(config: CompareConfig, num_classes: int, progress: Progress) -> list[str]:
    """The detectors that can be compared with so many classes; one that was asked for by name must be among them."""
    if num_classes <= MAX_CLASSES or SIMIFEAT_R not in config.effective_detectors:
        return config.effective_detectors
    if config.detectors:
        raise ConfigError(
            expected_got(f"at most {MAX_CLASSES} classes for {SIMIFEAT_R}", str(num_classes), "leave it out")
        )
    progress.say(f"{DETECTORS[SIMIFEAT_R].title} is left out: it takes at most {MAX_CLASSES} classes")
    return [name for name in config.effective_detectors if name != SIMIFEAT_R]


class CompareCell(GridCell):
    """One kind of noise and one seed, on which all detectors are judged."""

    def judge(self, names: list[str]) -> Iterator[Judgment]:
        """Every detector's judgment, from its record where there is one."""
        records = self.place / "judgments"
        missing = [name for name in names if not (records / f"{name}.json").exists()]
        parts = sorted({part for name in missing for part in DETECTORS[name].reads})
        evidence, seconds, broken = self._gather(parts) if missing else (None, {}, {})
        for name in names:
            if name not in missing:
                yield Judgment(**(records / f"{name}.json").read_json())
                continue
            assert evidence is not None
            judgment = self._judged(name, evidence, seconds, broken)
            if judgment.message is None:
                (records / f"{name}.json").write_json(judgment.as_json())
            yield judgment

    def _gather(self, parts: list[EvidencePart]) -> tuple[Evidence, dict[str, float], dict[str, str]]:
        """The evidence, seconds per part, and messages of the parts that could not be gathered."""
        labels = self.ground.labels.read()
        found: dict[str, Any] = {}
        seconds: dict[str, float] = {}
        broken: dict[str, str] = {}
        panel = tuple(part for part in CLASSIFIERS if part in parts)
        # What is gathered in one step, with each part's share of its time.
        steps: list[tuple[dict[str, float], Callable[[], dict[str, Any]]]] = []
        if {"dynamics", "ablation"} & set(parts):
            steps.append(({"dynamics": 1.0, "ablation": 0.0}, lambda: self._dynamics("ablation" in parts)))
        if panel:
            total = sum(CLASSIFIERS[part] for part in panel)
            steps.append(({part: CLASSIFIERS[part] / total for part in panel}, lambda: self._panel(panel)))
        if "neighbors" in parts:
            steps.append(({"neighbors": 1.0}, lambda: self._neighbors(labels)))
        if "prototypes" in parts:
            classes = self.ground.manifest.num_classes
            steps.append(({"prototypes": 1.0}, lambda: gather_prototypes(self.shared.blocks, labels, classes)))
        for shares, step in steps:
            start = time.monotonic()
            try:
                found |= step()
            except DynacorError as error:
                broken |= dict.fromkeys(shares, str(error))
            spent = time.monotonic() - start
            seconds |= {name: spent * share for name, share in shares.items()}
        extra = found.pop(ABLATION_SECONDS, 0.0)
        if extra:
            seconds |= {"dynamics": seconds["dynamics"] - extra, "ablation": extra}
        if "neighbors" in seconds:  # found once, for all cells
            seconds["neighbors"] = max(seconds["neighbors"], self.shared.neighbors.get("seconds", 0.0))
        classes = self.ground.manifest.num_classes
        return Evidence(given_label=labels.labels, num_classes=classes, **found), self.longest(seconds), broken

    def _dynamics(self, ablation: bool) -> dict[str, Any]:
        one = self.prepared
        return gather_dynamics(
            self.ground,
            self.rows(one, with_copies=True),
            one.training,
            one.corruption,
            one.cluster,
            one.config.clustering_sample,
            ablation,
            self.place / "dynacor",
        )

    def _panel(self, parts: tuple[str, ...]) -> dict[str, Any]:
        one, place = self.prepared, self.place / self._panel_name(parts)
        return gather_panel(self.ground, self.rows(one, with_copies=False), one.training, parts, place)

    def _panel_name(self, parts: tuple[str, ...]) -> str:
        """A finished panel that has these parts and maybe more, or a new one."""
        finished = (name for name in self.place.names() if (self.place / name / SIGNALS / MANIFEST).exists())
        enough = (name for name in finished if set(parts) <= set(name.split("-")[1:]))
        return next(enough, "-".join(("panel", *parts)))

    def _neighbors(self, labels: GivenLabels) -> dict[str, Any]:
        """Who is near whom does not depend on labels: found once, read with every cell's labels."""
        if not self.shared.neighbors:
            start = time.monotonic()
            found = gather_neighbors(self.shared.blocks, self.shared.progress)
            self.shared.neighbors = found | {"seconds": time.monotonic() - start}
        ids = self.shared.neighbors["ids"]
        near = np.full(ids.shape, NO_LABEL, np.int32)
        near[ids >= 0] = labels.of(ids[ids >= 0])
        return {"neighbor_labels": near, "similarity": self.shared.neighbors["similarity"]}

    def _judged(self, name: str, evidence: Evidence, seconds: dict[str, float], broken: dict[str, str]) -> Judgment:
        detector = DETECTORS[name]
        start = time.monotonic()
        verdict, message = None, next((broken[part] for part in detector.reads if part in broken), None)
        metrics: dict[str, Any] = {}
        if message is None:
            try:
                verdict = detector.judge(evidence)
                if not np.isfinite(verdict.score).all():
                    raise DataError(expected_got("finite scores", "NaN or infinity", "lower --learning-rate"))
                metrics = self.metrics(verdict)
            except (DynacorError, ValueError, ArithmeticError) as error:  # of libraries too: others go on
                verdict, message = None, str(error)
        spent = sum(seconds[part] for part in detector.reads) + time.monotonic() - start
        return Judgment(
            noise=str(self.noise),
            seed=self.seed,
            detector=name,
            title=detector.title,
            flagged_share=float(verdict.is_label_issue.mean()) if verdict else None,
            metrics=metrics,
            seconds=round(spent, 3),
            message=message,
        )


def _write(plan: ExperimentPlan, judgments: list[Judgment], seconds: dict[str, float]) -> CompareResult:
    summary = build_comparison(judgments, config=plan.facts, versions=rundir.versions(plan.run), seconds=seconds)
    (plan.run / COMPARISON).write_table(comparison_table(judgments))
    (plan.run / COMPARISON_FIGURE).write_bytes(comparison_figure(judgments))
    (plan.run / COMPARISON_TEXT).write_bytes(markdown_table(summary).encode())
    # Last of all files: its presence says that the comparison is complete.
    (plan.run / SUMMARY).write_json(summary)
    return CompareResult(plan.run, (plan.run / SUMMARY).read_json())
