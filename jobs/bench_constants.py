"""Constants of the default, chosen without the family that judges them. `python jobs/bench_constants.py --data FOLDER`.

On the label sets and trainings of `bench_quality`. For each family (a kind of noise, or a data set) the constants are
chosen anew on all other families, one after the other, from those in the code on: the candidate with the best mean F1
of the kinds of noise less the mean share of clean labels flagged. Then the family is judged with them. What it does
worse than with the constants in the code is what their choice owes to it. At most one of the constants that a model is
fitted with differs from the code, and at most one of those of the surest predictions.

The constants of the range are chosen likewise: the narrowest range that holds the truth in nine of ten sets, on average
over the kinds of noise that can be seen at all.
"""

from __future__ import annotations

import json
import multiprocessing
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from multiprocessing.pool import Pool
from pathlib import Path
from types import ModuleType
from typing import Any

import bench_quality as quality
import numpy as np
import tyro
from numpy.typing import NDArray

from dynacor_ray.decision import class_overlap, label_noise_fit, noise_decision, noise_rate
from dynacor_ray.decision.fitted_decision import fit_decision, likeness, model_scores, settle
from dynacor_ray.decision.label_noise_fit import fit_label_noise
from dynacor_ray.decision.label_noise_model import LabelNoiseModel
from dynacor_ray.decision.model_readings import ModelReadings, read_model
from dynacor_ray.engine.runtime.tasks import one_thread
from dynacor_ray.ground_truth.metrics import detection_metrics

Constant = tuple[ModuleType, str]
SUREST: dict[Constant, tuple[float, ...]] = {
    (noise_rate, "OUTER"): (0.5, 0.6, 0.7),
    (noise_rate, "INNER"): (0.2, 0.3, 0.4),
    (noise_rate, "FEW_ROWS_OF_MANY"): (30, 60, 90),
}
MODEL: dict[Constant, tuple[float, ...]] = {
    (label_noise_fit, "PAIR_WEIGHT"): (1.0, 1.5, 2.0),
    (label_noise_fit, "PAIR_WIDTH"): (0.25, 0.5, 1.0),
    (label_noise_fit, "SCALE_SPREAD"): (0.25, 0.5, 1.0),
    (label_noise_fit, "MIX_WIDTH"): (0.05, 0.07, 0.1),
}
OVERLAP: dict[Constant, tuple[float, ...]] = {
    (class_overlap, "STEPS"): (3, 5, 8),
    (class_overlap, "PAIR_STEPS"): (5, 10, 20),
    (class_overlap, "SHARP_STEPS"): (25, 50, 100),
    (class_overlap, "NEAR"): (0.98, 0.99, 0.995),
}
CUT: dict[Constant, tuple[float, ...]] = {
    (noise_decision, "GROWTH"): (0.25, 0.5, 1.0),
    (noise_decision, "TAILS"): (1.0, 1.1, 1.2),
    (noise_decision, "CLEAR"): (1.2, 1.4, 1.6),
    (noise_decision, "FAR"): (1.2, 1.3, 1.5),
    (noise_decision, "CURVED"): (1.0, 1.5, 2.0),
    (noise_decision, "SLOW"): (5.0, 6.0, 8.0),
    (noise_decision, "LASTING"): (3.0, 5.0, 8.0),
    (noise_decision, "TIMES_OF_FEW"): (2.0, 3.0, 5.0),
    (noise_decision, "TIMES"): (4.0, 6.0, 8.0),
    (noise_decision, "EXPLAINED_OF_FEW"): (0.01, 0.02, 0.04),
    (noise_decision, "REFIT_FROM"): (1.15, 1.3, 1.6),
    (noise_decision, "LEAST_PROBABILITY"): (0.0, 0.1, 0.2),
}
RANGE: dict[Constant, tuple[float, ...]] = {
    (noise_decision, "DOUBT_SHARE"): (0.5, 0.75, 1.0),
    (noise_decision, "TOO_MUCH"): (0.05, 0.15, 0.3),
    (noise_decision, "SURE_F1"): (0.6, 0.7, 0.8),
}
"""Candidates; the value in the code is one of them."""
READ = MODEL | OVERLAP
ALL = SUREST | READ | CUT | RANGE
UNSEEN = ("hard rows", "rules")
"""Errors that follow from what a row shows: no constant finds them."""
COVERED = 0.9
Values = Mapping[Constant, float]


@dataclass(frozen=True)
class Readings:
    """What a decision is made from, by the constants behind it; `wrong` is the truth."""

    data: str
    family: str
    wrong: NDArray[np.bool_]
    surest: Mapping[tuple[float, ...], noise_rate.NoiseRate]
    model: Mapping[tuple[float, ...], tuple[LabelNoiseModel, ModelReadings]]
    blocks: NDArray[np.float64]
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Result:
    """One label set with some constants. score: F1, or the share flagged of a clean set; width: of the range."""

    score: float
    covered: bool
    width: float


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is judged; see `bench_quality`."""

    data: tuple[Path, ...] = ()
    kinds: tuple[str, ...] = tuple(
        kind for kind in quality.KINDS if not kind.startswith(("junk", *quality.ODD_FEATURES))
    )
    seeds: tuple[int, ...] = (0,)
    most_rows: int = 3000
    cache: Path = quality.Options.cache


@contextmanager
def constants(values: Values) -> Iterator[None]:
    """Constants with other values for a while."""
    before = {place: getattr(*place) for place in values}
    for (module, name), value in values.items():
        setattr(module, name, type(before[module, name])(value))  # a count stays one
    try:
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


def one_changed(candidates: Mapping[Constant, tuple[float, ...]]) -> list[dict[Constant, float]]:
    """The constants in the code, and these with one of them changed."""
    code = {place: float(getattr(*place)) for place in candidates}
    others = [code | {place: one} for place, ones in candidates.items() for one in ones if one != code[place]]
    return [code, *others]


@one_thread()
def read(labels: quality.LabelSet, cache: Path) -> Readings:
    """The readings of one label set with all candidates."""
    training, _ = quality.trained(labels, cache)
    surest, model, fits = {}, {}, {}
    for values in one_changed(SUREST):
        with constants(values):
            one = quality.surest(labels, training)
            surest[(*values.values(),)] = noise_rate.for_few_rows(one, len(labels.given), labels.num_classes)
    rows = quality.scored(labels, training)
    originals = rows.of(~rows.is_copy)
    influence = fit_decision(rows, None).influence
    blocks = model_scores(originals, influence, likeness(originals))
    early = originals.scores[2] if influence is None else blocks[2]
    for values in one_changed(READ):
        key = (*(values[place] for place in MODEL),)
        with constants(values):
            if key not in fits:
                fits[key] = fit_label_noise(blocks, originals.classes, labels.num_classes)
            model[(*values.values(),)] = fits[key], read_model(fits[key], blocks, originals.classes, early)
    return Readings(labels.data, labels.family, labels.wrong, surest, model, blocks, originals.classes)


_readings: list[Readings] = []
"""Of this process and of those that are forked from it."""


@one_thread()
def judge(number: int, given: tuple[float, ...]) -> Result:
    """One label set with some constants, in the order of ALL."""
    values, one = dict(zip(ALL, given, strict=True)), _readings[number]
    surest = one.surest[(*(values[place] for place in SUREST),)]
    model, readings = one.model[(*(values[place] for place in READ),)]
    with constants(values):
        model, decision = settle(model, readings, one.blocks, one.classes, None, surest)
        log_odds = model.log_odds(one.blocks, one.classes)
    flags, rate = decision.flag(log_odds), decision.rate
    f1 = detection_metrics(flags, -log_odds, one.wrong)["f1"]
    score = float(flags.mean()) if f1 is None else f1
    return Result(score, rate.low <= one.wrong.mean() <= rate.high, rate.high - rate.low)


class Judge:
    """Decides label sets with any constants; what it did before it knows."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.known: dict[tuple[int, tuple[float, ...]], Result] = {}

    def results(self, values: Values, numbers: list[int]) -> dict[str, list[Result]]:
        """Of some label sets, by family."""
        given, groups = (*(values[place] for place in ALL),), defaultdict(list)
        new = [number for number in numbers if (number, given) not in self.known]
        found = self.pool.starmap(judge, [(number, given) for number in new], chunksize=4)
        self.known |= {(number, given): one for number, one in zip(new, found, strict=True)}
        for number in numbers:
            groups[_readings[number].family].append(self.known[number, given])
        return groups


def quality_of(groups: Mapping[str, list[Result]]) -> float:
    """Mean F1 of the families of noise, less the mean share of clean labels that is flagged."""
    means = {family: float(np.mean([one.score for one in held])) for family, held in groups.items()}
    clean = means.pop("clean", 0.0)
    return float(np.mean(list(means.values()))) - clean


def honesty_of(groups: Mapping[str, list[Result]]) -> float:
    """Minus the mean width, or what is missing to COVERED, which counts for more than any width."""
    seen = [held for family, held in groups.items() if family not in UNSEEN]
    covered = float(np.mean([np.mean([one.covered for one in held]) for held in seen]))
    width = float(np.mean([np.mean([one.width for one in held]) for held in seen]))
    return -width if covered >= COVERED else covered - COVERED - 1.0


def choose(decides: Judge, numbers: list[int]) -> dict[Constant, float]:
    """The constants by some label sets, each in turn with those chosen before it."""
    values = {place: float(getattr(*place)) for place in ALL}
    each = [[{place: one} for one in ones] for place, ones in (CUT | RANGE).items()]
    for candidates in (*each[: len(CUT)], one_changed(SUREST), one_changed(MODEL), *each[len(CUT) :]):
        objective = honesty_of if candidates[0].keys() <= RANGE.keys() else quality_of
        scores = [objective(decides.results(values | one, numbers)) for one in (values, *candidates)]
        best = int(np.argmax(scores))  # the first of equal ones
        values |= (values, *candidates)[best]
    return values


def line(decides: Judge, what: str, name: str) -> dict[str, Any]:
    """One family: what was chosen without it where that differs from the code, and how both do on it."""
    is_held = [getattr(one, what) == name for one in _readings]
    held, rest = ([number for number, held in enumerate(is_held) if held is which] for which in (True, False))
    now = {place: float(getattr(*place)) for place in ALL}
    chosen = choose(decides, rest)
    found = [decides.results(values, held) for values in (now, chosen)]

    def mean(groups: Mapping[str, list[Result]], clean: bool) -> float | None:
        scores = [one.score for family, held in groups.items() for one in held if (family == "clean") == clean]
        return round(100 * float(np.mean(scores)), 1) if scores else None

    return {
        "left_out": f"{what} {name}",
        "sets": len(held),
        "chosen_without_it": {place[1]: value for place, value in chosen.items() if value != now[place]},
        "f1": [mean(groups, False) for groups in found],
        "clean_flagged": [mean(groups, True) for groups in found],
        "range_holds": [
            round(float(np.mean([one.covered for held in groups.values() for one in held])), 2) for groups in found
        ],
    }


def main(options: Options) -> None:
    """Read every label set, choose without each family, judge it, print JSON."""
    asked = quality.Options(data=options.data, kinds=options.kinds, seeds=options.seeds, most_rows=options.most_rows)
    sets = quality.all_label_sets(asked)
    forked = multiprocessing.get_context("fork")
    with forked.Pool() as pool:
        _readings.extend(pool.starmap(read, zip(sets, repeat(options.cache))))
    lines = []
    with forked.Pool() as pool:
        decides = Judge(pool)
        for what in ("family", "data"):
            names = sorted({getattr(one, what) for one in _readings})
            lines += [line(decides, what, name) for name in names]
    print(json.dumps({"label_sets": len(_readings), "left_out": lines}, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
