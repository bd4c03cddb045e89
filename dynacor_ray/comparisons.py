"""A comparison: every detector on the same rows, labels and classifier, judged by the truth (Tables 1, 2 and 4)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dynacor_ray import rundir
from dynacor_ray.baselines.base import Evidence, Part, Verdict
from dynacor_ray.baselines.detectors import DETECTORS
from dynacor_ray.baselines.panel import CLASSIFIERS
from dynacor_ray.baselines.simifeat import MAX_CLASSES
from dynacor_ray.compare_config import CompareConfig, make_compare_config
from dynacor_ray.engine.evidence import ABLATION_SECONDS, Ground, gather_dynamics, gather_panel
from dynacor_ray.engine.features import FeatureBlocks, gather_neighbours, gather_prototypes, load_blocks, map_features
from dynacor_ray.engine.labels import GivenLabels, LabelTable
from dynacor_ray.engine.rows import TrainingRows
from dynacor_ray.engine.signals import SIGNALS
from dynacor_ray.errors import ConfigError, DataError, DynacorError, explain
from dynacor_ray.evaluation import detection_metrics, match_truth
from dynacor_ray.lease import held
from dynacor_ray.manifest import MANIFEST
from dynacor_ray.noise.spec import GIVEN, Noise, given_labels, known_truth, true_labels
from dynacor_ray.pipeline import BYTES_PER_SIGNAL
from dynacor_ray.prepare import (
    Opened,
    Prepared,
    check_encoder,
    check_storage,
    default_out,
    feature_store,
    identity,
    joined,
    open_data,
    plan_for,
    prepare,
    training_rows,
)
from dynacor_ray.progress import Progress
from dynacor_ray.report.compare import Judgement, build_comparison, comparison_table, markdown_table, print_comparison
from dynacor_ray.report.figures import comparison_figure
from dynacor_ray.rundir import CELLS, COMPARISON, COMPARISON_FIGURE, COMPARISON_TEXT, CONFIG, QUARANTINE, SUMMARY
from dynacor_ray.storage import Location, locate, require_space

if TYPE_CHECKING:
    import pandas as pd

SIMIFEAT_R = "simifeat_r"
NO_LABEL = -1
"""Label of a neighbour that there is not."""


@dataclass(frozen=True)
class CompareResult:
    """What a finished comparison left in its directory."""

    run: Location
    summary: dict[str, Any]

    def __repr__(self) -> str:
        return f"<CompareResult {self.run}: {len(self.summary['detectors'])} detectors>"

    def judgements(self) -> pa.Table:
        """`comparison.parquet` as an Arrow table: one row per detector, noise and seed."""
        return (self.run / COMPARISON).read_table()

    def to_pandas(self) -> pd.DataFrame:
        """`comparison.parquet` as a pandas data frame."""
        return self.judgements().to_pandas()


def compare(data: str | None = None, **options: Any) -> CompareResult:
    """Compare detectors on data whose true labels are known (§5.2, Tables 1 and 2).

    Options are those of `CompareConfig` (noises, seeds, detectors) and of `DetectConfig`. One training of DynaCor and
    one of all baselines' classifiers serve all detectors. Resumes in the same directory. Raises a DynacorError, before
    any work where possible; a detector that fails is named in the result and ends nothing.
    """
    return run_compare(make_compare_config(data, **options))


def run_compare(config: CompareConfig) -> CompareResult:
    """`compare` for a configuration that is already built."""
    progress = Progress(config.detect.quiet)
    with ExitStack() as holding:
        with progress.timed("total"):
            with progress.timed("start"):
                plan = _Plan.of(config)
                result = plan.finished()
                if result is None:
                    check_held = holding.enter_context(held(plan.run, progress))
                    result = plan.finished()  # another driver may have held it until now
            if result is None:
                for name in config.left_out:
                    progress.say(
                        f"{DETECTORS[name].title} is left out: pip install 'dynacor-ray[{DETECTORS[name].library}]'"
                    )
                with _forget_if_barren(plan), joined(config.detect, progress):
                    judgements = list(_judge_all(plan, progress))
        if result is None:
            check_held()
            result = _write(plan, judgements, dict(progress.seconds))
        else:
            progress.say(f"{plan.run} is complete: nothing to do. Choose another --out to run again.")
    if not config.detect.quiet:
        print_comparison(result.summary, str(result.run))
    return result


@dataclass(frozen=True)
class _Plan:
    """A checked comparison with everything opened that can be opened without work."""

    config: CompareConfig
    run: Location
    seeds: dict[int, Prepared]

    @classmethod
    def of(cls, config: CompareConfig) -> _Plan:
        """Open the data. Raises a DynacorError for whatever could not run."""
        detect = config.detect
        run = locate(detect.out or default_out(detect.data) + "-compare")
        cache = detect.cache or str(run / "cache")
        seeds: dict[int, Prepared] = {}
        for seed in config.all_seeds:
            one = dataclasses.replace(detect, seed=seed, cache=cache, out=str(run))
            first = next(iter(seeds.values()), None)
            made = prepare(one, first)
            # All seeds are judged on the rows of the first, also where a seed would choose others.
            seeds[seed] = dataclasses.replace(made, cache=first.cache, source=first.source) if first else made
        source = next(iter(seeds.values())).source
        if not source.has_truth:
            remedy = "name their column with --truth-column (Clothing1M: --include-double-labelled), or use detect"
            raise ConfigError(explain("true labels to judge by", f"none in {detect.data}", remedy))
        plan = cls(config, run, seeds)
        rundir.check(run, plan.identity())
        return plan

    @property
    def first(self) -> Prepared:
        """The run of the first seed: all share its data."""
        return next(iter(self.seeds.values()))

    def identity(self) -> dict[str, Any]:
        """What ties the directory: all but what is compared on what, so that a comparison may be extended."""
        held = identity(self.first)
        options = {name: value for name, value in held["options"].items() if name != "seed"}
        return held | {"options": options | {"compare": True}}

    def finished(self) -> CompareResult | None:
        """The result, when just this comparison was completed here without a failure."""
        place = self.run / SUMMARY
        if not place.exists():
            return None
        summary = place.read_json()
        same = summary["config"] == rundir.as_json(_facts(self.config))
        return CompareResult(self.run, summary) if same and not summary["failures"] else None


def _facts(config: CompareConfig) -> dict[str, Any]:
    made_from = {str(noise): noise.made_from for noise in config.kinds}
    return dataclasses.asdict(config) | {"detectors": config.chosen, "seeds": config.all_seeds, "made_from": made_from}


@contextmanager
def _forget_if_barren(plan: _Plan) -> Iterator[None]:
    """A comparison that failed before any training leaves its directory free: the corrected command may use it."""
    try:
        yield
    except BaseException:
        if not (plan.run / CELLS).names():
            for name in (CONFIG, QUARANTINE):
                (plan.run / name).delete()
        raise


def _judge_all(plan: _Plan, progress: Progress) -> Iterator[Judgement]:
    config = plan.config
    with progress.timed("start"):
        spread = plan_for(config.detect)
        cells = len(config.kinds) * len(plan.seeds)
        require_space(plan.run, plan.first.source.num_rows * config.detect.epochs * 2 * BYTES_PER_SIGNAL * cells)
        rundir.claim(plan.run, plan.identity(), rundir.as_json(_facts(config)))
        check_storage(plan.first, progress)
        check_encoder(plan.first)
    opened = open_data(plan.first, spread.use_gpu, progress)
    shared = _Shared(opened, spread.use_gpu, progress)
    _check_truth(config, shared)
    names = _possible(config, opened.manifest.num_classes, progress)
    for noise in config.kinds:
        for seed, prepared in plan.seeds.items():
            place = plan.run / CELLS / f"{str(noise).replace(':', '-')}-seed{seed}"
            progress.say(f"{noise}, seed {seed}")
            labels = _labels(noise, seed, place, shared)
            ground = Ground(opened.dataset, opened.manifest, labels, spread, progress)
            yield from _Cell(prepared, noise, shared, ground, place).judge(names)


def _check_truth(config: CompareConfig, shared: _Shared) -> None:
    """Find out before any training that there is nothing to judge by, or to make noise from."""
    truth, rows = shared.truth(), shared.opened.manifest.num_rows
    known = len(known_truth(truth))
    if known == 0:
        remedy = "check --truth-column and how its classes are spelled"
        raise DataError(explain("true labels among the classes that are given", "none", remedy))
    if any(noise.kind != GIVEN for noise in config.kinds):
        true_labels(truth, rows)
    if known < rows:
        shared.progress.say(f"Judged on {known:,} of {rows:,} rows: the others have no true label among the classes.")


def _possible(config: CompareConfig, num_classes: int, progress: Progress) -> list[str]:
    """The detectors that can be compared with so many classes; one that was asked for by name must be among them."""
    if num_classes <= MAX_CLASSES or SIMIFEAT_R not in config.chosen:
        return config.chosen
    if config.detectors:
        raise ConfigError(explain(f"at most {MAX_CLASSES} classes for {SIMIFEAT_R}", str(num_classes), "leave it out"))
    progress.say(f"{DETECTORS[SIMIFEAT_R].title} is left out: it takes at most {MAX_CLASSES} classes")
    return [name for name in config.chosen if name != SIMIFEAT_R]


@dataclass
class _Shared:
    """What all cells share: the packed data, and features of the originals, loaded when first asked for."""

    opened: Opened
    use_gpu: bool
    progress: Progress
    _blocks: FeatureBlocks | None = None
    neighbours: dict[str, Any] = field(default_factory=dict)

    @property
    def blocks(self) -> FeatureBlocks:
        """Features of all originals."""
        if self._blocks is None:
            self._blocks = load_blocks(self.opened.features)
        return self._blocks

    def truth(self) -> pa.Table:
        """True labels."""
        assert self.opened.manifest.truth is not None
        return (self.opened.dataset / self.opened.manifest.truth).read_table()


def _labels(noise: Noise, seed: int, place: Location, shared: _Shared) -> LabelTable:
    """The data's own labels, or noisy ones made from the truth and kept as `labels.parquet`."""
    opened = shared.opened
    if noise.kind == GIVEN:
        return LabelTable.of_dataset(opened.dataset, opened.manifest)
    kept = place / "labels.parquet"
    if kept.exists():
        return LabelTable((kept,))
    ids, truth = true_labels(shared.truth(), opened.manifest.num_rows)
    classes = opened.manifest.num_classes
    if noise.needs_features:
        centre = opened.rows.facts.mean

        def block(numbers: np.ndarray, features: np.ndarray, true: np.ndarray) -> np.ndarray:
            return given_labels(noise, true, numbers, classes, seed, features - centre)

        labels = map_features(shared.blocks, block, GivenLabels(ids, truth.astype(np.int32)))
    else:
        labels = given_labels(noise, truth, ids, classes, seed)
    return LabelTable.write(kept, GivenLabels(ids, labels))


@dataclass(frozen=True)
class _Cell:
    """One kind of noise and one seed."""

    prepared: Prepared
    noise: Noise
    shared: _Shared
    ground: Ground
    place: Location

    def judge(self, names: list[str]) -> Iterator[Judgement]:
        """Every detector's judgement, from its record where there is one."""
        records = self.place / "judgements"
        missing = [name for name in names if not (records / f"{name}.json").exists()]
        parts = sorted({part for name in missing for part in DETECTORS[name].reads})
        evidence, seconds, broken = self._gather(parts) if missing else (None, {}, {})
        for name in names:
            if name not in missing:
                yield Judgement(**(records / f"{name}.json").read_json())
                continue
            assert evidence is not None
            judgement = self._judged(name, evidence, seconds, broken)
            if judgement.message is None:
                (records / f"{name}.json").write_json(judgement.as_json())
            yield judgement

    def _gather(self, parts: list[Part]) -> tuple[Evidence, dict[str, float], dict[str, str]]:
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
        if "neighbours" in parts:
            steps.append(({"neighbours": 1.0}, lambda: self._neighbours(labels)))
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
        if "neighbours" in seconds:  # found once, for all cells
            seconds["neighbours"] = max(seconds["neighbours"], self.shared.neighbours.get("seconds", 0.0))
        classes = self.ground.manifest.num_classes
        return Evidence(given_label=labels.labels, num_classes=classes, **found), self._longest(seconds), broken

    def _longest(self, seconds: dict[str, float]) -> dict[str, float]:
        """Seconds per part when it was gathered first: a resumed cell finds its trainings done."""
        place = self.place / "seconds.json"
        known: dict[str, float] = place.read_json() if place.exists() else {}
        longest = {part: max(seconds.get(part, 0.0), known.get(part, 0.0)) for part in {*seconds, *known}}
        place.write_json(longest)
        return longest

    def _dynamics(self, ablation: bool) -> dict[str, Any]:
        one = self.prepared
        return gather_dynamics(
            self.ground,
            self._rows(with_copies=True),
            one.training,
            one.corruption,
            one.cluster,
            one.config.fit_rows,
            ablation,
            self.place / "dynacor",
        )

    def _panel(self, parts: tuple[str, ...]) -> dict[str, Any]:
        place = self.place / self._panel_name(parts)
        return gather_panel(self.ground, self._rows(with_copies=False), self.prepared.training, parts, place)

    def _panel_name(self, parts: tuple[str, ...]) -> str:
        """A finished panel that has these parts and maybe more, or a new one."""
        finished = (name for name in self.place.names() if (self.place / name / SIGNALS / MANIFEST).exists())
        enough = (name for name in finished if set(parts) <= set(name.split("-")[1:]))
        return next(enough, "-".join(("panel", *parts)))

    def _rows(self, with_copies: bool) -> TrainingRows:
        opened, shared = self.shared.opened, self.shared
        store = opened.store
        if with_copies and store is not None:
            store = feature_store(self.prepared, opened.manifest, opened.spec, shared.use_gpu, shared.progress)
        return training_rows(self.prepared, opened.manifest, store, self.ground.labels, with_copies)

    def _neighbours(self, labels: GivenLabels) -> dict[str, Any]:
        """Who is near whom does not depend on labels: found once, read with every cell's labels."""
        if not self.shared.neighbours:
            start = time.monotonic()
            found = gather_neighbours(self.shared.blocks, self.shared.progress)
            self.shared.neighbours = found | {"seconds": time.monotonic() - start}
        ids = self.shared.neighbours["ids"]
        near = np.full(ids.shape, NO_LABEL, np.int32)
        near[ids >= 0] = labels.of(ids[ids >= 0])
        return {"neighbour_labels": near, "similarity": self.shared.neighbours["similarity"]}

    def _judged(self, name: str, evidence: Evidence, seconds: dict[str, float], broken: dict[str, str]) -> Judgement:
        detector = DETECTORS[name]
        start = time.monotonic()
        verdict, message = None, next((broken[part] for part in detector.reads if part in broken), None)
        metrics: dict[str, Any] = {}
        if message is None:
            try:
                verdict = detector.judge(evidence)
                if not np.isfinite(verdict.score).all():
                    raise DataError(explain("finite scores", "NaN or infinity", "lower --learning-rate"))
                metrics = self._metrics(verdict)
            except (DynacorError, ValueError, ArithmeticError) as error:  # of libraries too: others go on
                verdict, message = None, str(error)
        spent = sum(seconds[part] for part in detector.reads) + time.monotonic() - start
        return Judgement(
            noise=str(self.noise),
            seed=self.prepared.config.seed,
            detector=name,
            title=detector.title,
            flagged_share=float(verdict.is_label_issue.mean()) if verdict else None,
            metrics=metrics,
            seconds=round(spent, 3),
            message=message,
        )

    def _metrics(self, verdict: Verdict) -> dict[str, Any]:
        """Scores on the rows whose truth is known."""
        labels, truth = self.ground.labels.read(), self.shared.truth()
        known = np.isin(labels.ids, known_truth(truth))
        is_mislabeled = match_truth(labels.ids[known], labels.labels[known], truth)
        return detection_metrics(verdict.is_label_issue[known], verdict.score[known], is_mislabeled)


def _write(plan: _Plan, judgements: list[Judgement], seconds: dict[str, float]) -> CompareResult:
    facts = rundir.as_json(_facts(plan.config))
    summary = build_comparison(judgements, config=facts, versions=rundir.versions(plan.run), seconds=seconds)
    (plan.run / COMPARISON).write_table(comparison_table(judgements))
    (plan.run / COMPARISON_FIGURE).write_bytes(comparison_figure(judgements))
    (plan.run / COMPARISON_TEXT).write_bytes(markdown_table(summary).encode())
    # Last of all files: its presence says that the comparison is complete.
    (plan.run / SUMMARY).write_json(summary)
    return CompareResult(plan.run, (plan.run / SUMMARY).read_json())
