"""Constants of the default, chosen without the family that judges them. `python jobs/bench_constants.py --data FOLDER`.

On the label sets and trainings of `bench_quality`. Each constant takes each of its candidates, the others as they are;
the choice for a family (a kind of noise, or a data set) is the one with the best score on all other families: their
mean F1 less the mean share of clean labels flagged. Then the family is judged with all its choices together. A family
that needs a constant of its own loses here, so the last column says what the choice of constants is worth elsewhere.

The constants of the range are chosen likewise: the narrowest that holds the truth in nine of ten sets of each other
family on average.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import bench_quality as quality
import numpy as np
import tyro
from numpy.typing import NDArray

from dynacor_ray.decision import label_noise_model, noise_decision, noise_rate
from dynacor_ray.decision.fitted_decision import fit_decision
from dynacor_ray.ground_truth.metrics import detection_metrics

CUT: dict[tuple[ModuleType, str], tuple[float, ...]] = {
    (noise_decision, "GROWTH"): (0.0, 0.25, 0.5, 0.75, 1.0),
    (noise_decision, "LEAST_CERTAINTY"): (0.05, 0.1, 0.2),
    (noise_decision, "LEAST_PROBABILITY"): (0.0, 0.1, 0.2, 0.3),
    (noise_decision, "SUREST"): (0.05, 0.1, 0.2),
    (noise_decision, "CREDIBLE"): (0.3, 0.5, 0.6),
    (noise_decision, "NOT_CREDIBLE"): (0.65, 0.8, 1.0),
    (noise_rate, "OUTER"): (0.5, 0.6, 0.7),
    (noise_rate, "INNER"): (0.2, 0.3, 0.4),
    (label_noise_model, "PAIR_WEIGHT"): (2.0, 4.0, 8.0),
    (label_noise_model, "PAIR_WIDTH"): (0.25, 0.5, 1.0),
}
RANGE: dict[tuple[ModuleType, str], tuple[float, ...]] = {
    (noise_decision, "DOUBT_SHARE"): (0.25, 0.5, 0.75, 1.0),
    (noise_decision, "TOO_MUCH"): (0.05, 0.15, 0.3),
    (noise_decision, "SURE_F1"): (0.6, 0.7, 0.8),
}
"""Candidates; the value in the code is one of them."""
COVERED = 0.9
Values = Mapping[tuple[ModuleType, str], float]


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
    kinds: tuple[str, ...] = quality.KINDS
    seeds: tuple[int, ...] = (0,)
    most_rows: int = 3000
    cache: Path = quality.Options.cache


@contextmanager
def constants(values: Values) -> Iterator[None]:
    """Constants with other values for a while."""
    before = {place: getattr(*place) for place in values}
    for (module, name), value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


@dataclass(frozen=True)
class Readings:
    """What the decision is made from: the model's log odds and doubts, and how often sure predictions disagree."""

    log_odds: NDArray[np.float64]
    doubts: NDArray[np.float64]
    surest: noise_rate.NoiseRate


def read(labels: quality.LabelSet, training: quality.Training, values: Values, known: Readings | None) -> Readings:
    """The readings with some constants; those that these do not touch are taken from `known`."""
    changed = {module for module, _ in values}
    with constants(values):
        if known is None or noise_rate in changed:
            surest = quality.surest(labels, training)
            surest = noise_rate.for_few_rows(surest, len(labels.given) / labels.num_classes)
        else:
            surest = known.surest
        if known is None or label_noise_model in changed:
            rows = quality.scored(labels, training)
            originals = rows.of(~rows.is_copy)
            fitted = fit_decision(rows, surest)
            log_odds, doubts = fitted.log_odds(originals), fitted.doubts(originals)
        else:
            log_odds, doubts = known.log_odds, known.doubts
    return Readings(log_odds, doubts, surest)


def judge(labels: quality.LabelSet, readings: Readings, values: Values) -> Result:
    """The default on one label set."""
    with constants(values):
        decision = noise_decision.decide(readings.log_odds, readings.doubts, readings.surest)
    flags, rate = decision.flag(readings.log_odds), decision.rate
    f1 = detection_metrics(flags, -readings.log_odds, labels.wrong)["f1"]
    score = float(flags.mean()) if f1 is None else f1
    return Result(score, rate.low <= labels.wrong.mean() <= rate.high, rate.high - rate.low)


def objective(groups: Mapping[str, list[Result]]) -> float:
    """Mean F1 of the families of noise, less the mean share of clean labels that is flagged."""
    means = {family: float(np.mean([one.score for one in held])) for family, held in groups.items()}
    clean = means.pop("clean", 0.0)
    return float(np.mean(list(means.values()))) - clean


def narrowness(groups: Mapping[str, list[Result]]) -> float:
    """Minus the mean width, or what is missing to COVERED, which counts for more than any width."""
    covered = float(np.mean([np.mean([one.covered for one in held]) for held in groups.values()]))
    width = float(np.mean([np.mean([one.width for one in held]) for held in groups.values()]))
    return -width if covered >= COVERED else covered - COVERED - 1.0


Table = dict[tuple[tuple[ModuleType, str], float], dict[tuple[str, str, str, int], Result]]


def chosen(table: Table, left_out: Mapping[str, str]) -> dict[tuple[ModuleType, str], float]:
    """The best candidate of each constant on the families that are not left out ({"family": ...} or {"data": ...})."""
    choice: dict[tuple[ModuleType, str], float] = {}
    for place, candidates in (CUT | RANGE).items():
        scores = []
        for value in candidates:
            groups: dict[str, list[Result]] = defaultdict(list)
            for (data, family, _, _), one in table[place, value].items():
                if left_out.get("data") != data and left_out.get("family") != family:
                    groups[family].append(one)
            scores.append((objective if place in CUT else narrowness)(groups))
        best = int(np.argmax(scores))
        now = candidates.index(getattr(*place))
        choice[place] = candidates[best if scores[best] > scores[now] else now]
    return choice


def main(options: Options) -> None:
    """Fill the table, choose for each family left out, judge it, print JSON."""
    asked = quality.Options(data=options.data, kinds=options.kinds, seeds=options.seeds, most_rows=options.most_rows)
    table: Table = defaultdict(dict)
    for labels in quality.all_label_sets(asked):
        training, _ = quality.trained(labels, options.cache)
        key = (labels.data, labels.family, labels.kind, labels.seed)
        known = read(labels, training, {}, None)
        as_is = judge(labels, known, {})
        for place, candidates in (CUT | RANGE).items():
            for value in candidates:
                values = {place: value}
                same = value == getattr(*place)
                table[place, value][key] = (
                    as_is if same else judge(labels, read(labels, training, values, known), values)
                )
    keys = list(next(iter(table.values())))
    lines = []
    for what, index in (("family", 1), ("data", 0)):
        for name in sorted({key[index] for key in keys}):
            choice = chosen(table, {what: name})
            held = [key for key in keys if key[index] == name]
            lines.append(line(what, name, choice, held, table, asked, options.cache))
    print(json.dumps({"label_sets": len(keys), "left_out": lines}, indent=2))


def line(
    what: str,
    name: str,
    choice: Values,
    held: list[tuple[str, str, str, int]],
    table: Table,
    asked: quality.Options,
    cache: Path,
) -> dict[str, Any]:
    """One family: what was chosen without it where that differs, and how both do on it."""
    other = {place: value for place, value in choice.items() if value != getattr(*place)}
    place = next(iter(CUT))
    before = {key: table[place, getattr(*place)][key] for key in held}
    after = before
    if other:
        sets = {(one.data, one.family, one.kind, one.seed): one for one in quality.all_label_sets(asked)}
        after = {
            key: judge(sets[key], read(sets[key], quality.trained(sets[key], cache)[0], other, None), other)
            for key in held
        }

    def mean(results: Mapping[tuple[str, str, str, int], Result], clean: bool) -> float | None:
        scores = [one.score for key, one in results.items() if (key[1] == "clean") == clean]
        return round(100 * float(np.mean(scores)), 2) if scores else None

    return {
        "left_out": f"{what}: {name}",
        "sets": len(held),
        "chosen_without_it": {name: value for (_, name), value in other.items()},
        "f1": [mean(before, False), mean(after, False)],
        "clean_flagged": [mean(before, True), mean(after, True)],
        "range_holds": [round(float(np.mean([one.covered for one in held.values()])), 3) for held in (before, after)],
    }


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
