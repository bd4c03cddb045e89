"""What README, guides and results show is done once, on small data: commands, snippets, the notebook.

Runs are shared: what is done with a run uses the one that a command before it made. Commands that train for every
noise, seed or gamma, or a network, take minutes and are left to `make slow`. Commands for a store, an archive or a GPU
that is not at hand are parsed only, as all are in `tests/unit/test_docs.py`.
"""

from __future__ import annotations

import ast
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dynacor_ray import cli
from dynacor_ray.config.sweep import SweepConfig
from dynacor_ray.core import schema
from dynacor_ray.workflows import sweep as sweeps
from dynacor_ray.workflows.results import load
from tests.documented import GUIDES, PAGES, README, ROOT, Snippet, commands, own_arguments, snippets

MLFLOW = "sqlite:///mlflow.db"
PARSED_ONLY = ("detect --data s3:", "detect --data ROOT", "train --data ROOT")
PARSED_ONLY += tuple(f"{name} --data cifar10:" for name in ("detect", "train", "compare", "sweep", "analyze-signals"))
SLOW = ("sweep", "compare", "analyze-signals", "detect --data cifar10n.parquet", "detect --data my_images/ --network")


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the data that the documentation speaks of; everything is done there."""
    folder, random = tmp_path_factory.mktemp("docs"), np.random.default_rng(0)
    digits = load_digits(n_class=3)
    given = np.where(random.random(len(digits.target)) < 0.1, (digits.target + 1) % 3, digits.target)
    images = (digits.images * 15.9).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    for i in range(260):
        name, label = ("my_images", given[i]) if i < 200 else ("test_images", digits.target[i])
        path = folder / name / f"digit{label}" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(images[i]))
    features = digits.images.reshape(-1, 64)[:300].astype(np.float32)
    columns = {"feature": schema.fixed_size_list(features), "label": given[:300], "true_label": digits.target[:300]}
    pq.write_table(pa.table(columns), folder / "labeled.parquet")
    pictures = {"image": [png(image) for image in images[:90]], "label": given[:90], "true_label": digits.target[:90]}
    for name in ("cifar10n.parquet", "fashion.parquet"):
        pq.write_table(pa.table(pictures), folder / name)
    np.savez(folder / "arrays.npz", features=features, labels=given[:300])
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def called(*args: str) -> Any:
    with pytest.raises(SystemExit) as left:
        cli.main(args)
    return left.value.code


def done(text: str, namespace: dict[str, Any]) -> Any:
    """Execute Python as a notebook does: the value of the last expression is shown."""
    tree = ast.parse(text)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "snippet", "exec"), namespace)
    if not isinstance(last, ast.Expr):
        return None
    value = eval(compile(ast.Expression(last.value), "snippet", "eval"), namespace)
    return value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)


def test_the_notebook(place: Path) -> None:
    notebook = json.loads((ROOT / "jobs" / "example.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    shown = [done(cell, namespace) for cell in cells]
    assert "labels look wrong" in shown[0]
    assert (place / "runs" / "demo" / "report.html").exists()


COMMANDS = {" ".join(own): own for _, words in commands(*PAGES) if (own := own_arguments(words)) is not None}
RUN = sorted(
    (text for text in COMMANDS if not text.startswith(PARSED_ONLY + SLOW)),
    key=lambda text: not text.startswith("detect"),
)


@pytest.mark.parametrize("text", RUN)
def test_commands(text: str, place: Path) -> None:
    """Runs first: what is done with them stands further up; answers are of the run that they are given to."""
    if "reviewed.csv" in text:
        run = next(word for word in COMMANDS[text] if word.startswith("runs/"))
        marked = pq.read_table(place / run / "issues.parquet")["instance_id"][:3].to_pylist()
        (place / "reviewed.csv").write_text("instance_id,mark\n" + "".join(f"{i},wrong\n" for i in marked))
    tracked = ["--mlflow-uri", MLFLOW] if text.startswith("detect") else []
    assert called(*COMMANDS[text], *tracked) == 0


@pytest.mark.slow
@pytest.mark.parametrize("text", [text for text in COMMANDS if text.startswith(SLOW)])
def test_commands_that_train_often(text: str, place: Path) -> None:
    assert called(*COMMANDS[text]) == 0
    assert (place / COMMANDS[text][COMMANDS[text].index("--out") + 1] / "summary.json").exists()


@pytest.mark.parametrize("page", [README, GUIDES["results"], GUIDES["train"]], ids=lambda path: path.stem)
def test_snippets(page: Path, place: Path) -> None:
    (snippet,) = snippets(page, "python")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    done(snippet.text, namespace)
    assert (Path(namespace["result"].run.path) / "report.html").exists()
    if "lab" in namespace:
        flagged = namespace["result"].issues["is_label_issue"].to_pylist().count(True)
        assert namespace["lab"].get_issue_summary("label")["num_issues"].tolist() == [flagged]


def test_snippet_of_a_sweep(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the sweep itself, which `test_sweep.py` runs: what it is asked for is checked, and answered by a run."""
    asked: list[Any] = []

    def answer(config: SweepConfig, search: Any, _: Any) -> Any:
        asked.append((config.gammas, config.num_samples, list(search.space)))
        return SimpleNamespace(to_pandas=list, best=load("runs/demo"))

    monkeypatch.setattr(sweeps, "run_sweep", answer)
    (snippet,) = snippets(GUIDES["sweeps"], "python")
    done(snippet.text, {"__name__": "__main__"})
    assert asked == [((0.1, 0.2), 20, ["gamma", "alpha"])]


def test_mlflow_has_the_run(place: Path) -> None:
    client = pytest.importorskip("mlflow").MlflowClient(MLFLOW)
    experiment = client.get_experiment_by_name("dynacor")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert run.data.params["gamma"] == "0.1"
    summary = json.loads((place / "runs" / "mine" / "summary.json").read_text())
    assert run.data.metrics["num_flagged"] == summary["num_flagged"]
    steps = client.get_metric_history(run.info.run_id, "validation_metric")
    assert len(steps) == len(summary["validation"]["epochs"])


@pytest.mark.parametrize("snippet", list(snippets(GUIDES["extend"], "python")), ids=["detector", "source"])
def test_extensions(snippet: Snippet, place: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    done(snippet.text, namespace)
    assert namespace["result"].to_pandas().shape[0] > 0
