"""A comparison's numbers against NumPy, and tables that stay readable for any width, number of noises and odd name."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from rich.console import Console

from dynacor_ray.core.errors import DataError
from dynacor_ray.ground_truth.metrics import detection_metrics
from dynacor_ray.report.comparison_summary import build_comparison, comparison_table, noise_headings
from dynacor_ray.report.comparison_table import markdown_table, print_comparison
from dynacor_ray.report.figures import comparison_figure
from dynacor_ray.runs.records import AVERAGED, SHARES, Judgment

NOISES = ("given", "symmetric:0.6", "asymmetric:0.3", "instance:0.4", "worse_label")
DETECTORS = ("Avg.Encoder", "AUM", "Confident learning", "CORES", "SimiFeat-V", "SimiFeat-R", "DynaCor")
TWELVE = (*(f"symmetric:0.{tenth}" for tenth in range(1, 10)), "asymmetric:0.3", "given", "instance:0.4")
CELL = r"\d+\.\d(?: ?± ?\d+\.\d)?(?: \(\d\))?\*?"


def judged(f1: float | None, *, noise: str = "given", seed: int = 0, title: str = "AUM", **changes: Any) -> Judgment:
    metrics: dict[str, Any] = {name: f1 for name in SHARES} | {"noise_rate": 0.4, "n": 100}
    known: dict[str, Any] = {"noise": noise, "seed": seed, "detector": title.lower(), "title": title}
    known |= {"flagged_share": 0.25, "metrics": metrics, "seconds": 2.0 + seed}
    return Judgment(**known | changes)


def failed(message: str, **changes: Any) -> Judgment:
    lost: dict[str, Any] = {"metrics": {}, "flagged_share": None, "message": message}
    return judged(None, **lost | changes)


def many(noises: tuple[str, ...], titles: tuple[str, ...], seeds: int) -> list[Judgment]:
    random = np.random.default_rng(7)
    places = [(noise, title, seed) for noise in noises for title in titles for seed in range(seeds)]
    values = random.uniform(0.5, 0.9, len(places))
    return [
        judged(float(value), noise=noise, seed=seed, title=title)
        for (noise, title, seed), value in zip(places, values, strict=True)
    ]


def shown(judgments: list[Judgment], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_comparison(build_comparison(judgments), "runs/x", console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def row_of(summary: dict[str, Any], detector: str) -> dict[str, Any]:
    return next(row for row in summary["detectors"] if row["detector"] == detector)


# ------------------------------------------------------------------------------------------------------------- numbers


def test_means_and_deviations_are_those_of_numpy() -> None:
    judgments = many(NOISES, DETECTORS, 3)
    summary = build_comparison(judgments)
    assert [row["title"] for row in summary["detectors"]] == list(DETECTORS), "in the order given"
    assert summary["noises"] == list(NOISES)
    for row in summary["detectors"]:
        means = []
        for noise in NOISES:
            mine = [j for j in judgments if j.detector == row["detector"] and j.noise == noise]
            f1 = [j.metrics["f1"] for j in mine]
            cell = row["noises"][noise]
            assert cell["f1"] == pytest.approx({"mean": np.mean(f1), "std": np.std(f1, ddof=1), "seeds": 3})
            assert cell["seconds"] == pytest.approx({"mean": 3.0, "std": 1.0, "seeds": 3})
            assert cell["flagged_share"]["mean"] == pytest.approx(0.25)
            assert (cell["seeds"], cell["failed"]) == (3, 0)
            means.append(np.mean(f1))
        assert row["average"]["f1"] == pytest.approx(np.mean(means))
        assert set(row["average"]) == set(AVERAGED)


def test_the_best_per_noise_has_the_highest_mean_and_ties_are_all_named() -> None:
    judgments = [judged(0.5, title="A"), judged(0.75, title="B"), judged(0.75, title="C")]
    judgments += [judged(0.9, title="A", noise="x"), judged(0.8, title="B", noise="x")]
    summary = build_comparison(judgments)
    assert summary["best"] == {"given": ["b", "c"], "x": ["a"]}
    assert summary["best_average"] == ["b"], "c has no value for x, and no average"


def test_one_seed_has_no_deviation() -> None:
    assert row_of(build_comparison([judged(0.5)]), "aum")["noises"]["given"]["f1"] == {
        "mean": 0.5,
        "std": None,
        "seeds": 1,
    }


def test_a_missing_cell_leaves_no_average_over_the_others() -> None:
    judgments = [judged(0.9), judged(0.5, title="CL"), judged(0.7, title="CL", noise="x")]
    summary = build_comparison(judgments)
    missing = row_of(summary, "aum")["noises"]["x"]
    assert missing["f1"] == {"mean": None, "std": None, "seeds": 0}
    assert (missing["seeds"], missing["failed"]) == (0, 0)
    assert set(row_of(summary, "aum")["average"].values()) == {None}
    assert row_of(summary, "cl")["average"]["f1"] == pytest.approx(0.6)


def test_undefined_metrics_are_left_out_one_by_one() -> None:
    whole = judged(0.5)
    partly = judged(0.7, seed=1, metrics=whole.metrics | {"precision": None, "auroc": float("nan")})
    cell = row_of(build_comparison([whole, partly]), "aum")["noises"]["given"]
    assert cell["precision"] == {"mean": 0.5, "std": None, "seeds": 1}
    assert cell["auroc"] == {"mean": 0.5, "std": None, "seeds": 1}
    assert cell["f1"]["seeds"] == cell["seeds"] == 2


def test_failures_are_listed_and_count_in_no_mean() -> None:
    lost = failed("no memory", seed=1, flagged_share=0.0, seconds=1000.0)
    summary = build_comparison([judged(0.5), lost])
    assert summary["failures"] == [
        {"detector": "aum", "title": "AUM", "noise": "given", "seed": 1, "message": "no memory"}
    ]
    cell = row_of(summary, "aum")["noises"]["given"]
    assert (cell["seeds"], cell["failed"]) == (1, 1)
    assert cell["seconds"]["mean"] == 2.0
    assert cell["flagged_share"]["mean"] == 0.25


def test_a_detector_that_only_failed_keeps_its_row() -> None:
    summary = build_comparison([failed("no memory"), judged(0.5, title="CL")])
    assert [row["detector"] for row in summary["detectors"]] == ["aum", "cl"]
    assert summary["best"] == {"given": ["cl"]}


def test_two_judgments_of_one_cell_are_refused() -> None:
    with pytest.raises(DataError, match="two of 'aum' for noise 'given' and seed 0; keep one"):
        build_comparison([judged(0.5), judged(0.6)])


def test_the_summary_is_valid_json_and_keeps_what_it_is_given() -> None:
    judgments = [*many(NOISES[:2], DETECTORS[:2], 2), failed("disk", title="CL")]
    summary = build_comparison(judgments, config={"a": 1}, versions={"b": "2"}, seconds={"total": 3.0})
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["config"], summary["versions"], summary["seconds"]) == ({"a": 1}, {"b": "2"}, {"total": 3.0})
    assert summary["seeds"] == {"given": [0, 1], "symmetric:0.6": [0, 1]}


def test_a_judgment_survives_json() -> None:
    for judgment in (judged(0.5), failed("disk")):
        assert Judgment(**json.loads(json.dumps(judgment.as_json()))) == judgment


def test_the_metrics_of_the_evaluation_are_read_under_their_names() -> None:
    flags, quality = np.array([True, False, False]), np.array([0.1, 0.2, 0.9])
    metrics = detection_metrics(flags, quality, np.array([True, True, False]))
    row = comparison_table([judged(None, metrics=metrics)]).to_pylist()[0]
    assert {name: row[name] for name in metrics} == metrics


# --------------------------------------------------------------------------------------------------------------- table


def test_the_table_has_a_row_per_judgment_and_the_same_types_when_nothing_is_known() -> None:
    judgments = [judged(0.5), failed("disk", seed=1, flagged_share=0.0)]
    table = comparison_table(judgments)
    assert table["f1"].to_pylist() == [0.5, None]
    assert table["flagged_share"].to_pylist() == [0.25, None]
    assert table["n"].to_pylist() == [100, None]
    assert table["seconds"].to_pylist() == [2.0, 3.0], "time that was lost is still told"
    assert table["message"].to_pylist() == [None, "disk"]
    for other in (judgments[:1], judgments[1:], []):
        assert comparison_table(other).schema == table.schema
    assert table.schema.field("f1").type == pa.float64()


# ------------------------------------------------------------------------------------------------------------- headings


def test_headings_are_short_harmless_and_never_alike() -> None:
    assert noise_headings(NOISES) == ["given", "sym .6", "asym .3", "inst .4", "worse_label"]
    assert noise_headings(["symmetric:1.0", "symmetric:0", "asymmetric:cat", "a\x1bb"]) == [
        "sym 1",
        "sym 0",
        "asym cat",
        "a?b",
    ]
    alike = ["instance:0.4", "instance_dependent:0.4", "symmetric:0.4"]
    assert noise_headings(alike) == [*alike[:2], "sym .4"]


# ------------------------------------------------------------------------------------------------------------- terminal


def cells_shown(text: str) -> list[str]:
    """Cells of the F1 tables, without what comes after them."""
    return re.findall(rf"(?<=\s){CELL}(?=\s)", text[: text.index("Other measures")])


@pytest.mark.parametrize("width", [80, 120])
def test_five_noises_fit_into_one_table(width: int) -> None:
    judgments = many(NOISES, DETECTORS, 3)
    text = shown(judgments, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert text.count("detector ") == 2, "one table of F1, one of the other measures"
    heading = next(line for line in text.splitlines() if line.startswith("detector"))
    assert re.split(r"\s+(?!\.)", heading.strip()) == ["detector", *noise_headings(NOISES), "Avg."]
    lines = [line for line in text.splitlines() if line.startswith("DynaCor")]
    assert len(re.findall(CELL, lines[0])) == len(NOISES) + 1
    row = row_of(build_comparison(judgments), "dynacor")
    f1 = row["noises"]["given"]["f1"]
    assert f"{100 * f1['mean']:.1f} ± {100 * f1['std']:.1f}" in lines[0].replace("±", " ± ").replace("  ", " ")
    assert lines[0].strip().strip("*").endswith(f" {100 * row['average']['f1']:.1f}")


def test_the_best_of_each_column_is_marked_without_color_too() -> None:
    judgments = [judged(f1, title=title, seed=s) for title, f1 in (("AUM", 0.5), ("CL", 0.7)) for s in (0, 1)]
    text = shown(judgments)
    assert "70.0 ± 0.0*" in text
    places = {line.index("0.0 ±") for line in text.splitlines() if "0.0 ±" in line}
    assert len(places) == 1, "digits below each other"
    assert "mean ± standard deviation over 2 seeds; * best" in text
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard", _environ={})
    print_comparison(build_comparison(judgments), "runs/x", console)
    assert "\x1b[1m70.0 ± 0.0*\x1b[0m" in console.file.getvalue()  # type: ignore[attr-defined]


def test_one_noise_and_one_seed_show_a_bare_number() -> None:
    text = shown([judged(0.823)])
    assert re.search(r"AUM +82\.3\*", text)
    for absent in ("±", "Avg.", "mean over", "(1 of"):
        assert absent not in text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_many_noises_take_several_tables_with_every_number_whole(width: int) -> None:
    judgments = many(TWELVE, DETECTORS, 3)
    text = shown(judgments, width)
    assert max(len(line) for line in text.splitlines() if "Results:" not in line) <= width
    assert "…" not in text
    assert re.search(r"\(1\s+of\s+\d+\)", text)
    assert len(cells_shown(text)) == (len(TWELVE) + 1) * len(DETECTORS)
    for heading in (*noise_headings(TWELVE), "Avg."):
        assert heading in text


def test_the_oracle_is_called_so_wherever_its_f1_is_shown() -> None:
    judgment = judged(0.5, metrics={"f1": 0.5, "oracle_f1": 0.61, "auroc": 0.72, "average_precision": 0.83})
    text = shown([judgment])
    heading, values = (next(line for line in text.splitlines() if word in line) for word in ("AUROC", "72.0"))
    assert heading.split("  ")[-2].strip() == "oracle F1"
    assert values.split() == ["AUM", "72.0", "83.0", "61.0", "2.0"]
    assert "oracle F1: of the best possible cut, which cannot be found without the truth." in text


def test_missing_and_failed_cells_are_visible_and_explained() -> None:
    judgments = [
        *(judged(0.5, seed=seed, noise=noise) for seed in (0, 1) for noise in ("given", "x")),
        *(failed("full\x1b disk", seed=seed, title="CL") for seed in (0, 1)),
        judged(0.6, seed=0, title="CORES"),
        failed("NaN", seed=1, title="CORES"),
    ]
    text = shown(judgments)
    rows = {line.split()[0]: line.split()[1:] for line in reversed(text.splitlines()) if "  " in line}
    assert rows["CL"] == ["failed", "-", "-"]
    assert rows["CORES"] == ["60.0", "(1)*", "-", "-"]
    assert "(n): mean of n seeds only" in text
    assert "No average for a detector without an F1 in some column." in text
    assert "Failed: CL on given (seeds 0, 1): full? disk" in text
    assert "Failed: CORES on given (seed 1): NaN" in text


def test_the_last_line_names_the_files() -> None:
    text = shown([judged(0.5)], width=40)
    assert text.splitlines()[-1] == "Results: runs/x (comparison.parquet, .png and .md, summary.json)"


def test_without_any_metric_the_tables_say_nothing_rather_than_zero() -> None:
    text = shown([judged(None), judged(None, noise="x")])
    assert re.search(r"AUM +- +- +-", text)
    assert "0.0" not in text.replace("2.0", "")


def test_names_from_outside_cannot_reach_the_terminal() -> None:
    odd = "[red]bold[/red] \x1b[31m:smile:\n" + "long " * 12
    text = shown([judged(0.5, title=odd, noise="a\x07[b]"), failed(odd, title=odd, noise="a\x07[b]", seed=1)])
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]bold[/red]" in text
    assert "a?[b]" in text
    tables = text[: text.index("Failed:")]
    assert max(len(line) for line in tables.splitlines()) <= 80
    assert tables.count("long") == 24, "a long name is folded, never cut"


# ------------------------------------------------------------------------------------------------------------- Markdown


def split(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_is_the_same_table() -> None:
    judgments = [*many(NOISES, DETECTORS, 3), failed("disk", title="kNN")]
    summary = build_comparison(judgments)
    lines = markdown_table(summary).splitlines()
    table = lines[: lines.index("")]
    assert split(table[0]) == ["detector", *noise_headings(NOISES)[:-1], r"worse\_label", "Avg."]
    assert split(table[1]) == ["---"] + ["--:"] * 6
    assert {len(split(line)) for line in table} == {7}
    assert [split(line)[0] for line in table[2:]] == [*DETECTORS, "kNN"]
    assert split(table[-1])[1:] == ["failed", *"-----"]
    bold = [{split(line)[0].lower() for line in table[2:] if split(line)[at].startswith("**")} for at in range(1, 7)]
    assert bold == [set(best) for best in (*summary["best"].values(), summary["best_average"])]
    terminal = [cell.strip("*") for cell in cells_shown(shown(judgments, 120))]
    cells = [cell.strip("*") for line in table[2:] for cell in split(line)[1:]]
    assert [cell for cell in cells if cell[0].isdigit()] == terminal
    assert "over 3 seeds" in lines[-1]


def test_markdown_escapes_names() -> None:
    text = markdown_table(build_comparison([judged(0.5, title="a|b_c*<d>\n$e$", noise="x|y")]))
    assert r"a\|b\_c\*\<d\>?\$e\$" in text
    assert {len(split(line)) for line in text.splitlines()[:3]} == {2}


# --------------------------------------------------------------------------------------------------------------- figure


@pytest.mark.parametrize(
    ("noises", "seeds"), [(NOISES[:1], 1), (NOISES[:4], 3), (TWELVE, 2)], ids=["one", "four", "twelve"]
)
def test_the_figure_is_a_picture_of_readable_size(noises: tuple[str, ...], seeds: int) -> None:
    titles = tuple(f"Detector {number}" for number in range(12))
    data = comparison_figure([*many(noises, titles, seeds), failed("disk", title="kNN")])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    picture = Image.open(io.BytesIO(data))
    picture.load()
    assert 600 <= picture.width <= 3000
    assert 600 <= picture.height <= 3000


def test_the_figure_takes_odd_names_and_nothing_at_all() -> None:
    odd = [judged(0.5, title="_a $\\frac{ \x1b", noise="$\\x{ _"), judged(None, title="CL"), failed("disk", title="X")]
    for judgments in ([], odd, [failed("disk")]):
        Image.open(io.BytesIO(comparison_figure(judgments))).load()


def test_the_figure_shows_the_values_and_the_oracle() -> None:
    low = judged(0.5)
    pictures = {
        comparison_figure([low]),
        comparison_figure([low, judged(0.6, seed=1)]),
        comparison_figure([dataclasses.replace(low, metrics=low.metrics | {"oracle_f1": 0.9})]),
        comparison_figure([low, failed("disk", title="CL")]),
    }
    assert len(pictures) == 4
