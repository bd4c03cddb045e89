"""A comparison of detectors as a table, as `summary.json`, on the terminal and as Markdown (§5.2, Tables 1 and 2).

Shares are in [0, 1] in all data and in percent wherever a person reads them. What a detector could not do is never
averaged away: a cell without a value makes its detector's averages None, and every failure is named.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.report.terminal import clean
from dynacor_ray.runs.records import AVERAGED, SHARES, Judgment

SHORT_NOISE = {"symmetric": "sym", "asymmetric": "asym", "instance": "inst", "instance_dependent": "inst"}

_SCHEMA = pa.schema(
    [
        ("noise", pa.string()),
        ("seed", pa.int64()),
        ("detector", pa.string()),
        ("title", pa.string()),
        ("flagged_share", pa.float64()),
        *((name, pa.float64()) for name in (*SHARES, "noise_rate")),
        ("n", pa.int64()),
        ("seconds", pa.float64()),
        ("message", pa.string()),
    ]
)


def comparison_table(judgments: Sequence[Judgment]) -> pa.Table:
    """`comparison.parquet`: one row per judgment, in the order given, of the same types whatever is undefined."""
    rows = []
    for judgment in judgments:
        whole = {name: getattr(judgment, name) for name in ("noise", "seed", "detector", "title", "message")}
        parts = {name: judgment.value(name) for name in (*SHARES, "noise_rate", "flagged_share")}
        rows.append(whole | parts | {"n": judgment.metrics.get("n"), "seconds": judgment.seconds})
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


# -------------------------------------------------------------------------------------------------------------- summary


def build_comparison(
    judgments: Sequence[Judgment],
    *,
    config: dict[str, Any] | None = None,
    versions: dict[str, str] | None = None,
    seconds: dict[str, float] | None = None,
) -> dict[str, Any]:
    """The content of a comparison's summary.json.

    `detectors`, in the order given: per noise `seeds`, `failed` and, for each of `AVERAGED`, mean, sample standard
    deviation (None with one seed) and number of seeds with a value; `average`: mean over all noises, None where one has
    no value. `best`: per noise the detectors with the highest mean F1, several only when equal. Raises DataError for
    two judgments of one detector, noise and seed.
    """
    cells = _cells(judgments)
    noises = list(dict.fromkeys(judgment.noise for judgment in judgments))
    titles = {judgment.detector: judgment.title for judgment in reversed(judgments)}
    detectors = [
        _detector(name, titles[name], {noise: _cell(cells.get((name, noise), [])) for noise in noises})
        for name in dict.fromkeys(judgment.detector for judgment in judgments)
    ]
    f1 = {noise: {row["detector"]: row["noises"][noise]["f1"]["mean"] for row in detectors} for noise in noises}
    seeds = {noise: sorted({j.seed for j in judgments if j.noise == noise}) for noise in noises}
    return {
        "versions": versions or {},
        "config": config or {},
        "noises": noises,
        "seeds": seeds,
        "detectors": detectors,
        "best": {noise: _best(values) for noise, values in f1.items()},
        "best_average": _best({row["detector"]: row["average"]["f1"] for row in detectors}),
        "failures": [
            {name: getattr(judgment, name) for name in ("detector", "title", "noise", "seed", "message")}
            for judgment in judgments
            if judgment.message is not None
        ],
        "seconds": seconds or {},
    }


def _cells(judgments: Sequence[Judgment]) -> dict[tuple[str, str], list[Judgment]]:
    """Judgments by detector and noise, one per seed."""
    cells: dict[tuple[str, str], list[Judgment]] = {}
    for judgment in judgments:
        cell = cells.setdefault((judgment.detector, judgment.noise), [])
        if any(other.seed == judgment.seed for other in cell):
            got = f"two of {judgment.detector!r} for noise {judgment.noise!r} and seed {judgment.seed}"
            raise DataError(expected_got("one judgment per detector, noise and seed", got, "keep one of them"))
        cell.append(judgment)
    return cells


def _cell(cell: list[Judgment]) -> dict[str, Any]:
    failed = sum(judgment.message is not None for judgment in cell)
    measures = {name: _spread([judgment.value(name) for judgment in cell]) for name in AVERAGED}
    return {"seeds": len(cell) - failed, "failed": failed, **measures}


def _spread(values: list[float | None]) -> dict[str, float | int | None]:
    """Mean and sample standard deviation of the values that are known."""
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "seeds": len(known),
    }


def _detector(name: str, title: str, cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    average = {measure: _average([cell[measure]["mean"] for cell in cells.values()]) for measure in AVERAGED}
    return {"detector": name, "title": title, "noises": cells, "average": average}


def _average(means: list[float | None]) -> float | None:
    """Mean over all columns or nothing: a mean over fewer would look comparable without being so."""
    known = [mean for mean in means if mean is not None]
    return statistics.fmean(known) if len(known) == len(means) > 0 else None


def _best(values: dict[str, float | None]) -> list[str]:
    most = max((value for value in values.values() if value is not None), default=None)
    return [name for name, value in values.items() if value is not None and value == most]


# ------------------------------------------------------------------------------------------------------------- headings


def noise_headings(noises: Sequence[str]) -> list[str]:
    """Short, harmless names of noises, "sym .6" for "symmetric:0.6"; those that would be alike keep their full names.

    >>> noise_headings(["given", "symmetric:0.6", "instance_dependent:0.4"])
    ['given', 'sym .6', 'inst .4']
    """
    short = [_short(noise) for noise in noises]
    return [name if short.count(name) == 1 else clean(noise).plain for name, noise in zip(short, noises, strict=True)]


def _short(noise: str) -> str:
    kind, _, rate = noise.partition(":")
    if rate.replace(".", "", 1).isdecimal():
        rate = f"{float(rate):g}".removeprefix("0") or "0"
    return clean(f"{SHORT_NOISE.get(kind, kind)} {rate}".strip()).plain
