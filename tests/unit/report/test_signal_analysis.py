"""An analysis of signals as table and figure: every finding in its place, whatever is missing."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dynacor_ray.ground_truth.metrics import detection_metrics
from dynacor_ray.report import signal_analysis as r
from dynacor_ray.report.comparison_table import markdown_table, print_comparison
from dynacor_ray.runs.records import Judgment


def found(
    signal: str | None, reader: str, f1: float, noise: str = "given", gamma: float = 0.1, seed: int = 0
) -> r.Finding:
    name, title = r.series_of(signal, reader)
    flags = np.random.default_rng(0).random(50) < 0.5
    metrics = detection_metrics(flags, np.arange(50.0), flags) | {"f1": f1}
    judgment = Judgment(
        noise=noise, seed=seed, detector=name, title=title, flagged_share=0.5, metrics=metrics, seconds=2.0
    )
    return r.Finding(gamma=gamma, signal=signal, reader=reader, judgment=judgment)


def lost(finding: r.Finding, message: str) -> r.Finding:
    judgment = replace(finding.judgment, metrics={}, flagged_share=None, message=message)
    return replace(finding, judgment=judgment)


def signals() -> list[r.Finding]:
    wanted = [("loss", "dynamics", 0.9), ("loss", "mean", 0.7), (None, "eq_4", 0.5), (None, "dynacor", 0.6)]
    return [found(*one, noise=noise) for noise in ("given", "symmetric:0.6") for one in wanted]


def rates() -> list[r.Finding]:
    wanted = [("margin_sign", "dynamics"), (None, "eq_4")]
    return [
        found(*one, f1=gamma + seed / 10, gamma=gamma, seed=seed)
        for gamma in (0.2, 0.4)
        for one in wanted
        for seed in (0, 1)
    ]


def test_a_finding_survives_its_record() -> None:
    for finding in signals():
        assert r.Finding.from_json(json.loads(json.dumps(asdict(finding)))) == finding


def test_the_table_has_a_row_per_finding() -> None:
    table = r.findings_table(rates())
    assert table.num_rows == 8
    assert table["noise"].unique().to_pylist() == ["given"]
    assert table["gamma"].to_pylist() == [0.2] * 4 + [0.4] * 4
    assert table["signal"].null_count == 4
    assert set(table["reader"].to_pylist()) == {"dynamics", "eq_4"}
    assert r.findings_table([]).num_rows == 0


def test_signals_are_rows_and_noises_columns() -> None:
    summary = r.build_signal_summary(signals())
    assert summary["noises"] == ["given", "symmetric:0.6"]
    text = markdown_table(summary)
    assert "| reader | given | sym .6 | Avg. |" in text
    assert "| loss, dynamics | **90.0** | **90.0** | **90.0** |" in text
    assert "| no truth: Eq. 4 | 50.0 | 50.0 | 50.0 |" in text


def test_corruption_rates_are_columns_where_there_are_several() -> None:
    summary = r.build_signal_summary(rates())
    assert summary["noises"] == ["given @ 0.2", "given @ 0.4"]
    text = markdown_table(summary)
    assert "| margin sign, dynamics | **25.0 ± 7.1** | **45.0 ± 7.1** | **35.0** |" in text
    console = Console(file=io.StringIO(), width=80)
    print_comparison(summary, "/run", console, stem="signal_analysis", note=r.NOTE)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "signal_analysis.parquet, .png and .md" in said
    assert "labels and corruption rates" in said
    assert r.NOTE in " ".join(said.split())
    assert max(map(len, said.splitlines()[:-1])) <= 80


@pytest.mark.parametrize("several", [False, True])
def test_the_figure_draws_whatever_is_missing(several: bool) -> None:
    findings = rates() if several else signals()
    for some in (findings, [lost(findings[0], "It diverged."), *findings[-1:]]):
        with Image.open(io.BytesIO(r.signals_figure(some))) as picture:
            assert picture.format == "PNG"
            assert picture.width > picture.height


def test_the_figure_has_a_panel_per_kind_of_noise() -> None:
    one, two = (Image.open(io.BytesIO(r.signals_figure(some))).width for some in (signals()[:4], signals()))
    assert two > one
