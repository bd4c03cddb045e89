"""Tables that stay readable for any width, number of noises and odd name."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from dynacor_ray.report.comparison_summary import build_comparison, noise_headings
from dynacor_ray.report.comparison_table import markdown_table, print_comparison
from dynacor_ray.runs.records import Judgment
from tests.judgments import DETECTORS, NOISES, TWELVE, failed, judged, many, row_of

CELL = r"\d+\.\d(?: ?± ?\d+\.\d)?(?: \(\d\))?\*?"


def shown(judgments: list[Judgment], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_comparison(build_comparison(judgments), "runs/x", console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


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
