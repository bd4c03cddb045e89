"""`report.html` from a run made by hand: what is inside, and that nothing from data is markup."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dynacor_ray.core.storage import locate
from dynacor_ray.report import page as pages
from dynacor_ray.report.page import MATRIX_CLASSES, embedded, render
from dynacor_ray.report.page_reader import read_page
from dynacor_ray.runs.records import RunSummary
from tests.made_runs import make_run
from tests.pages import made, read

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "' onmouseover='alert(3)\" x=\"",
    "{{ 7 * 7 }}{% raw %}",
    "evil\u202egnp.exe\x1b[31m",
    "<!--<script>",
    "\udcff\u2028",
)
NAMES = ("cat", "dog", "owl")


def page_of(name: str, folder: Path) -> tuple[list[Any], dict[str, Any]]:
    """Elements with their attributes, and data, of a page in which everything that comes from data is `name`."""
    told = {"warnings": [f"Class {name} is odd."], "encoder": name}
    uri = name.encode("utf-8", "replace").decode()
    html, data = made(folder / "run", names=(name, "dog"), uris=[uri] * 60, rows=60, **told)
    return [(tag, sorted(attributes)) for tag, attributes in read(html).elements], data


@pytest.fixture(scope="module")
def tame(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Elements of a page of harmless names."""
    return page_of("cat", tmp_path_factory.mktemp("tame"))[0]


@pytest.mark.parametrize("evil", HOSTILE, ids=ascii)
def test_text_from_data_is_never_markup(evil: str, tame: list[Any], tmp_path: Path) -> None:
    """The same elements with the same attributes as for harmless names, whatever classes, uris and warnings are."""
    wild, data = page_of(evil, tmp_path)
    assert wild == tame
    assert data["classes"][0] == "".join(c if c.isprintable() else "?" for c in evil)


def test_time_and_cost_of_the_stages(tmp_path: Path) -> None:
    html, _ = made(tmp_path / "run", seconds={"embed": 36_000.0, "total": 45_000.0})
    assert "<h3>Seconds and cost per stage</h3>" in html
    assert re.search(r">embed</th>\s*<td[^>]*>36,000\.0</td>\s*<td[^>]*>40 CPU-h</td>", html)
    assert "45,000.0 s (50 CPU-h)" in html
    html, _ = made(tmp_path / "older", cluster=None)
    assert "<h3>Seconds per stage</h3>" in html
    assert "CPU-h" not in html


def test_the_page_says_that_its_limits_of_trust_are_rules_of_thumb(tmp_path: Path) -> None:
    html, _ = made(tmp_path / "run")
    assert re.search(r"“High” from 85%\s+and “fair” from 60% are rules of thumb\.", html)


def test_only_our_own_script_and_style_may_run(tmp_path: Path) -> None:
    html, _ = made(tmp_path / "run")
    reader = read(html)
    (policy,) = (
        attributes["content"] or ""
        for tag, attributes in reader.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (style,), (data, script) = reader.raw["style"], reader.raw["script"]
    for rule, text in (("style-src", style), ("script-src", script)):
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert json.loads(data)
    assert not [a for _, attributes in reader.elements for a in attributes if a.startswith("on") or a == "style"]
    links = [a.get("href") or a.get("src") for _, a in reader.elements if a.get("href") or a.get("src")]
    assert all((link or "").startswith(("#", "data:")) for link in links), "nothing is fetched"
    assert "innerHTML" not in script


def test_embedded_json_cannot_leave_its_element() -> None:
    value = {"a": "</script><!-- & \u2028 \u00e9"}
    assert not re.search(r"[<>&\u2028]", embedded(value))
    assert json.loads(embedded(value)) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded(float("nan"))


def test_the_page_tells_what_the_run_found(tmp_path: Path) -> None:
    scores = {"f1": 0.9, "precision": 0.8, "recall": None, "auroc": 0.95, "noise_rate": 0.1}
    html, data = made(tmp_path / "run", evaluation=scores, warnings=["Mind the gap."])
    text = " ".join(read(html).text.split())
    assert "30 of 300 labels look wrong" in text
    assert "Between 9.0% and 11.0%" in text
    assert "errors that were planted on purpose. Few errors of that kind are missed." in text
    assert "each with one signal in each of 6 epochs" in text
    assert "Precision 80.0%, recall unknown, AUROC 95.0%" in text
    assert "Mind the gap." in text
    assert "dynacor_ray" in text
    issues = pq.read_table(tmp_path / "run" / "issues.parquet").slice(0, 60).to_pylist()
    assert [row["id"] for row in data["rows"][:60]] == [str(row["instance_id"]) for row in issues], "flagged and near"
    assert [row["rank"] for row in data["rows"][:60]] == list(range(1, 61))
    first, known = data["rows"][0], issues[0]
    assert (first["given"], first["suggested"]) == (known["given_label"], known["predicted_label"])
    assert first["flagged"] is True
    assert data["rows"][59]["flagged"] is False
    assert sorted(row["audit"] for row in data["rows"] if row["audit"] is not None) == list(range(100))
    assert len(first["path"]) == 6
    assert np.mean(first["path"]) == pytest.approx(known["mean_margin"], abs=0.02)
    assert sum(data["histogram"][0]) == 30
    assert sum(data["histogram"][1]) == 270
    assert {name: band["rows"] for name, band in data["bands"].items()} == {
        "flagged": 30,
        "unflagged": 270,
        "planted": json.loads((tmp_path / "run" / "summary.json").read_text())["num_corrupted"],
    }
    assert data["bands"]["flagged"]["mean"][0] == pytest.approx(-2, abs=0.5)
    assert data["bands"]["unflagged"]["mean"][0] == pytest.approx(2, abs=0.5)


def test_the_matrix_counts_all_flagged_rows(tmp_path: Path) -> None:
    html, _ = made(tmp_path / "run", rows=2000)
    cells = re.findall(r'data-given="(\d)" data-suggested="(\d)"[^>]*?aria-label="([\d,]+) rows given as (\w+)', html)
    issues = pq.read_table(tmp_path / "run" / "issues.parquet").to_pandas().query("is_label_issue")
    counts = issues.groupby(["given_label", "predicted_label"]).size()
    assert {(int(g), int(s)): int(n) for g, s, n, _ in cells} == counts.to_dict()
    assert {(int(g), name) for g, _, _, name in cells} == set(enumerate(NAMES))


def test_of_many_classes_the_frequent_pairs_are_drawn(tmp_path: Path) -> None:
    html, data = made(tmp_path / "run", rows=3000, names=tuple(f"class {i}" for i in range(60)))
    assert html.count('scope="col"><button type="button" data-suggested') == MATRIX_CLASSES
    assert f"{60 - MATRIX_CLASSES} more classes" in html
    assert len(data["classes"]) == 60


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_no_row_or_every_row_flagged(noise: float, tmp_path: Path) -> None:
    html, data = made(tmp_path / "run", noise=noise)
    assert ("None of 300 labels looks wrong" in html) == (noise == 0)
    assert sum(row["flagged"] for row in data["rows"]) == (0 if noise == 0 else len(data["rows"]))
    assert data["bands"]["flagged" if noise == 0 else "unflagged"] == {"rows": 0, "mean": [], "low": [], "high": []}


def test_a_page_without_uris_or_dynamics(tmp_path: Path) -> None:
    """Whatever a source does not know is left out."""
    run = locate(str(make_run(tmp_path / "run", uris=[None] * 300)))
    summary = RunSummary.read(run)
    page = read_page(run / "issues.parquet", run / "dynamics.parquet", summary, [], None)
    bare = dataclasses.replace(page, suspects=tuple(dataclasses.replace(s, margins=()) for s in page.suspects))
    data = json.loads(read(render(bare)).raw["script"][0])
    assert {row["uri"] for row in data["rows"]} == {""}
    assert {tuple(row["path"]) for row in data["rows"]} == {()}


def test_every_label_reference_names_an_element() -> None:
    template = (Path(pages.__file__).parent / "templates" / "report.html").read_text(encoding="utf-8")
    references = set(re.findall(r'aria-labelledby="([^"]+)"', template))
    assert len(references) > 5
    assert references <= set(re.findall(r'\bid="([^"]+)"', template))


def test_equal_rows_with_different_labels_have_a_table(tmp_path: Path) -> None:
    html, _ = made(tmp_path / "plain", names=NAMES)
    assert 'id="duplicates"' not in html
    groups = [{"duplicate_of": 41, "labels": {"cat": 2, "<b>dog": 1}}]
    counts = {"rows": 9, "groups": 4, "conflicting_groups": 2, "conflicting_rows": 5, "surely_wrong": 2}
    html, _ = made(tmp_path / "run", names=NAMES, duplicates=counts | {"examples": groups})
    text = " ".join(html.split())
    assert "5 rows in 2 groups are the same but have different labels: at least 2 of these are wrong" in text
    assert '<td class="number">41</td><td><bdi>cat (2), &lt;b&gt;dog (1)</bdi></td>' in text
    assert "1 more groups are in" in text
