"""What a person's answers are worth, with the truth as the person. `python jobs/bench_review.py`. Prints JSON.

Each label set is ranked by the default decision. Then a person answers an audit sample of 100 rows and a second one,
drawn after the first was read, over and over with other seeds. Said of each set: F1 without answers, with the cut moved
after each round, and with the best cut of the ranking; how often the intervals hold the truth. Built in are the digits
with the noise kinds of `bench_quality.py`; `--data` adds files as there, `--rankings` parquet files of rankings made
elsewhere: columns `probability` (P(wrong) by the run), `flagged`, `wrong`, and the name of the `family`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tyro
from bench_quality import KINDS, default_decision, label_sets, trained
from numpy.typing import NDArray

from dynacor_ray.decision.audit_sample import RankGroups, draw_audit, first_density
from dynacor_ray.decision.review_model import Measured, fit_answers


@dataclass(frozen=True)
class Ranking:
    """A ranking with its truth, likely errors first. probability: float64 (N,), by the run; wrong: bool (N,)."""

    name: str
    family: str
    probability: NDArray[np.float64]
    num_flagged: int
    wrong: NDArray[np.bool_]

    @property
    def f1(self) -> NDArray[np.float64]:
        """F1 of flagging the first k rows, k = 0 to N: float64 (N + 1,)."""
        found = np.concatenate([[0], np.cumsum(self.wrong)])
        return 2.0 * found / np.maximum(np.arange(len(found)) + found[-1], 1)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    data: tuple[Path, ...] = ()
    """Parquet files beside the digits."""
    kinds: tuple[str, ...] = tuple(kind for kind in KINDS if kind != "clean")
    """Kinds of noise to make."""
    rankings: tuple[Path, ...] = ()
    """Parquet files of rankings; with them nothing else is measured."""
    rounds: int = 2
    """Rounds of questions."""
    count: int = 100
    """Questions per round."""
    draws: int = 200
    """Seeds of the audit sample."""
    most_rows: int = 6000
    """Rows of a data set that noise is made on."""
    cache: Path = Path("bench_quality_cache")
    """Where trainings are kept."""


def rankings(options: Options) -> Iterator[Ranking]:
    """All rankings, made one after the other."""
    for path in options.rankings:
        table = pq.read_table(path)
        columns = (table[name].to_numpy(zero_copy_only=False) for name in ("probability", "flagged", "wrong"))
        yield ranked(path.stem, table["family"][0].as_py(), *columns)
    if options.rankings:
        return
    for path in (None, *options.data):
        name = "digits" if path is None else path.stem
        for labels in label_sets(name, path, options.kinds, 0, options.most_rows):
            training, _ = trained(labels, options.cache)
            rows, fitted = default_decision(labels, training)
            log_odds = fitted.log_odds(rows)[~rows.is_copy]
            chance, flagged = fitted.decision.probability(log_odds), log_odds >= fitted.log_odds_cut
            yield ranked(f"{labels.data} {labels.kind}", labels.family, chance, flagged, labels.wrong, log_odds)


def ranked(
    name: str,
    family: str,
    chance: NDArray[np.float64],
    flagged: NDArray[np.bool_],
    wrong: NDArray[np.bool_],
    score: NDArray[np.float64] | None = None,
) -> Ranking:
    """Sorted by a score, high for likely errors; by default the rows are in order."""
    order = np.arange(len(chance)) if score is None else np.argsort(-score, kind="stable")
    return Ranking(name, family, chance[order], int(flagged.sum()), wrong[order])


def answered(ranking: Ranking, options: Options, seed: int) -> list[dict[str, float]]:
    """What holds after each round."""
    groups, f1 = RankGroups.of(len(ranking.wrong)), ranking.f1
    expected, density = ranking.probability[groups.middles], first_density(groups, ranking.num_flagged)
    ranks, found = np.zeros(0, np.int64), list[dict[str, float]]()
    for _ in range(options.rounds):
        ranks = np.concatenate([ranks, draw_audit(groups, density, options.count, seed, ranks).ranks])
        posterior = fit_answers(groups, expected, ranking.num_flagged, ranks, ranking.wrong[ranks], seed)
        cut, density = posterior.moved_cut(ranking.num_flagged), posterior.next_density()
        flags = np.arange(len(f1) - 1) < cut
        flags[ranks] = ranking.wrong[ranks]
        true = {
            "rate": ranking.wrong.mean(),
            "precision": ranking.wrong[flags].mean() if flags.any() else 1.0,
            "recall": flags[ranking.wrong].mean(),
        }
        figures = posterior.figures(cut, seed)
        width = figures.rate.high - figures.rate.low
        with_answers = 2.0 * (flags & ranking.wrong).sum() / max(int(flags.sum() + ranking.wrong.sum()), 1)
        found.append(
            {"f1": f1[cut], "f1_with_answers": float(with_answers), "width": width}
            | {f"{name} covered": covers(getattr(figures, name), value) for name, value in true.items()}
        )
    return found


def covers(measured: Measured, value: float) -> float:
    """1 where the interval holds the truth, else 0."""
    return float(measured.low - 1e-9 <= value <= measured.high + 1e-9)


def measure(ranking: Ranking, options: Options) -> dict[str, Any]:
    """A label set: means over the draws after each round."""
    draws = [answered(ranking, options, seed) for seed in range(options.draws)]
    best, before = float(ranking.f1.max()), float(ranking.f1[ranking.num_flagged])
    after = [
        {name: round(float(np.mean([draw[place][name] for draw in draws])), 4) for name in draws[0][place]}
        for place in range(options.rounds)
    ]
    wrong = round(float(ranking.wrong.mean()), 4)
    return {
        **{"set": ranking.name, "family": ranking.family, "rows": len(ranking.wrong), "wrong": wrong},
        **{"before": round(before, 4), "best": round(best, 4), "after": after},
    }


def families(lines: list[dict[str, Any]], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Per family and round: mean and worst loss to the best cut, least gain, coverage of the rate."""
    said: dict[str, list[dict[str, float]]] = {}
    for family in sorted({line["family"] for line in lines}):
        held = [line for line in lines if line["family"] == family]
        for place in range(rounds):
            after = [line["after"][place] for line in held]
            loss = np.array([line["best"] - one["f1"] for line, one in zip(held, after, strict=True)])
            loss_all = np.array([line["best"] - one["f1_with_answers"] for line, one in zip(held, after, strict=True)])
            gain = np.array([one["f1"] - line["before"] for line, one in zip(held, after, strict=True)])
            parts = {"mean loss": loss.mean(), "worst loss": loss.max(), "least gain": gain.min()}
            parts["worst loss with answers"] = loss_all.max()
            for name in ("rate", "precision", "recall"):
                covered = np.array([one[f"{name} covered"] for one in after])
                parts |= {f"{name} covered": covered.mean(), f"{name} covered least": covered.min()}
            said.setdefault(family, []).append({name: round(float(value), 4) for name, value in parts.items()})
    return said


def main(options: Options) -> None:
    """Measure every label set and print what was found."""
    lines = [measure(ranking, options) for ranking in rankings(options)]
    result = {"answers": options.count, "draws": options.draws, "sets": lines}
    print(json.dumps(result | {"families": families(lines, options.rounds)}, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
