"""The tables of finished runs, printed again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from dynacor_ray.core.errors import RunDirectoryError
from dynacor_ray.report.signal_analysis import NOTE
from dynacor_ray.workflows.review import review
from dynacor_ray.workflows.show import show_run
from tests.made_runs import at, issues, make_run


def shown(run: Path, width: int = 100) -> str:
    stream = io.StringIO()
    show_run(at(run), Console(file=stream, width=width))
    return stream.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("show") / "run")


def test_a_detect_run(run: Path) -> None:
    said = shown(run)
    assert "labels that look wrong │ 30 (10.0%)" in " ".join(said.replace("  ", " ").split()).replace("  ", " ")
    assert str(issues(run)[0]["instance_id"]) in said
    assert said.endswith(f"Report: {run}/report.html\n")


@pytest.mark.parametrize("width", [1, 20, 40, 200])
def test_any_width(run: Path, width: int) -> None:
    tables = [line for line in shown(run, width).splitlines() if "│" in line]
    assert max(map(len, tables), default=0) <= width


def test_a_reviewed_run_shows_what_the_answers_say(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    flagged = issues(run)[0]["instance_id"]
    (tmp_path / "marks.csv").write_text(f"instance_id,mark\n{flagged},right\n")
    review(str(run), str(tmp_path / "marks.csv"))
    said = shown(run)
    assert "1 row marked: 0 wrong, 1 right, 0 unsure" in said
    assert "29 (9.7%)" in said


def comparison(names: dict[str, Any]) -> dict[str, Any]:
    f1 = {"f1": {"mean": 0.5, "std": None, "seeds": 1}, "failed": 0}
    average = {"f1": 0.5, "auroc": 0.9, "average_precision": 0.8, "oracle_f1": 0.6, "seconds": 1.0}
    detector = {"detector": "aum", "title": "AUM", "noises": {"given": f1}, "average": average}
    found = {"detectors": [detector], "noises": ["given"], "seeds": {"given": [0]}, "best": {"given": ["aum"]}}
    return found | {"best_average": ["aum"], "failures": []} | names


@pytest.mark.parametrize(("stem", "note"), [("comparison", ""), ("signal_analysis", NOTE[:40])])
def test_experiments(stem: str, note: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(comparison({})))
    pq.write_table(pa.table({"a": [1]}), tmp_path / f"{stem}.parquet")
    assert "AUM" in shown(tmp_path, 10)
    said = shown(tmp_path)
    assert "AUM" in said
    assert note in said
    assert said.endswith(f"({stem}.parquet, .png and .md, summary.json)\n")


def test_a_sweep(tmp_path: Path) -> None:
    trial = {"options": {"alpha": 0.5}, "flagged_share": 0.1, "f1": None}
    facts = {"chosen": trial, "best": None, "default": None, "failed": [], "select": "validation_metric"}
    summary = facts | {"seconds": {"total": 1.0}, "num_trainings": 1}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    row = {"alpha": 0.5, "validation_metric": 0.3, "corrupted_recall": 0.9, "flagged_share": 0.1}
    row |= {"is_chosen": True, "is_default": False, "status": "finished"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "trials.parquet")
    assert shown(tmp_path, 10)
    said = shown(tmp_path)
    assert "Chosen: alpha=0.5: 10.0% flagged by validation_metric" in said


def test_an_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="the directory of a finished run"):
        show_run(at(tmp_path / "none"))


def test_a_training_without_a_test(tmp_path: Path) -> None:
    epochs = [{"epoch": 1, "loss": 1.5, "train_agreement": 0.7, "test_accuracy": None}]
    summary = {
        **{
            "loss": {"name": "gce"},
            "method": None,
            "detection": None,
            "encoder": "pixels",
            "epochs": epochs,
            "last": epochs[0],
            "best": None,
        },
        **{
            "data": {"uri": "x", "num_rows": 90, "class_names": ["a", "b"], "quarantined": 0},
            "seconds": {"total": 1.0},
        },
        **{"action": None, "num_flagged": 0, "num_learned": 90, "num_tested": 0, "judged_by": None},
    }
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    assert "90 rows" in shown(tmp_path / "run")
