"""`report.html` from a run made by hand: what is inside, that it stays small, and that nothing from data is markup."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, RunDirectoryError
from dynacor_ray.core.manifest import DatasetManifest
from dynacor_ray.core.storage import locate
from dynacor_ray.report import page_reader as page_data
from dynacor_ray.report import wording
from dynacor_ray.report.build import make_report
from dynacor_ray.report.page import MATRIX_CLASSES, embedded, render
from dynacor_ray.report.page_model import Suspect
from dynacor_ray.report.page_reader import read_page
from dynacor_ray.report.thumbnails import read_thumbnails, thumbnail
from dynacor_ray.report.trajectories import Trajectories
from dynacor_ray.workflows.results import DetectResult
from tests.made_runs import make_run

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


class Reader(HTMLParser):
    """Collects elements, attributes and the content of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.raw:
            self.raw[tag].append("")
            self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.raw[self.inside][-1] += data
        else:
            self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


def made(folder: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    """The page of a made run, and the data inside it."""
    place = make_report(locate(str(make_run(folder, **options))))
    html = Path(place.path).read_text(encoding="utf-8")
    return html, json.loads(read(html).raw["script"][0])


# ------------------------------------------------------------------------------------------------------------- escaping


@pytest.mark.parametrize("evil", HOSTILE, ids=ascii)
def test_text_from_data_is_never_markup(evil: str, tmp_path: Path) -> None:
    """The same elements with the same attributes as for harmless names, whatever classes, uris and warnings are."""

    def of(name: str, folder: str) -> tuple[list[Any], dict[str, Any]]:
        told = {"warnings": [f"Class {name} is odd."], "encoder": name}
        uri = name.encode("utf-8", "replace").decode()
        html, data = made(tmp_path / folder, names=(name, "dog"), uris=[uri] * 60, rows=60, **told)
        return [(tag, sorted(attributes)) for tag, attributes in read(html).elements], data

    tame, _ = of("cat", "tame")
    wild, data = of(evil, "wild")
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


# -------------------------------------------------------------------------------------------------------------- content


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
    assert [row["id"] for row in data["rows"]] == [str(row["instance_id"]) for row in issues], "30 flagged and 30 near"
    assert [row["rank"] for row in data["rows"]] == list(range(1, 61))
    first, known = data["rows"][0], issues[0]
    assert (first["given"], first["suggested"]) == (known["given_label"], known["predicted_label"])
    assert first["flagged"] is True
    assert data["rows"][59]["flagged"] is False
    assert sorted(row["sampled"] for row in data["rows"] if row["flagged"]) == list(range(30)), (
        "fewer than a whole sample: all flagged rows"
    )
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


def test_only_what_is_shown_is_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of 20 times as many rows holds as many rows, read in several batches and row groups."""
    monkeypatch.setattr(page_data, "BATCH", 7000)
    small, few = made(tmp_path / "small", rows=5_000)
    large, many = made(tmp_path / "large", rows=100_000)
    most = page_data.TOP + 6 * page_data.PER_PAIR + 2 * page_data.NEAR + page_data.SAMPLE
    assert len(few["rows"]) <= most
    assert len(many["rows"]) <= most
    assert len(large) < 1.2 * len(small)
    assert sum(row["sampled"] is not None for row in many["rows"]) == page_data.SAMPLE
    ranks = [row["rank"] for row in many["rows"]]
    assert set(range(1, page_data.TOP + 1)) <= set(ranks)
    assert {10_000, 10_001} <= set(ranks), "both sides of the threshold"
    assert all(len(row["path"]) == 6 for row in many["rows"])


def test_the_sample_is_spread_over_all_flagged_rows(tmp_path: Path) -> None:
    run = locate(str(make_run(tmp_path / "run", rows=50_000, names=("a", "b"))))
    summary = (run / "summary.json").read_json()
    page = read_page(run / "issues.parquet", run / "dynamics.parquet", summary, None)
    ranks = np.array([suspect.rank for suspect in page.suspects if suspect.sample_place is not None])
    assert len(ranks) == page_data.SAMPLE
    assert 0.3 < (ranks / 5000).mean() < 0.7
    assert page == read_page(run / "issues.parquet", run / "dynamics.parquet", summary, None), "the same each time"


def test_a_page_without_uris_or_dynamics(tmp_path: Path) -> None:
    """Whatever a source does not know is left out."""
    run = locate(str(make_run(tmp_path / "run", uris=[None] * 300)))
    summary = (run / "summary.json").read_json()
    page = read_page(run / "issues.parquet", run / "dynamics.parquet", summary, None)
    bare = dataclasses.replace(page, suspects=tuple(dataclasses.replace(s, margins=()) for s in page.suspects))
    data = json.loads(read(render(bare)).raw["script"][0])
    assert {row["uri"] for row in data["rows"]} == {""}
    assert {tuple(row["path"]) for row in data["rows"]} == {()}


def test_every_label_reference_names_an_element() -> None:
    template = (Path(page_data.__file__).parent / "templates" / "report.html").read_text(encoding="utf-8")
    references = set(re.findall(r'aria-labelledby="([^"]+)"', template))
    assert len(references) > 5
    assert references <= set(re.findall(r'\bid="([^"]+)"', template))


# ---------------------------------------------------------------------------------------------------------------- words


def suspect(**changes: Any) -> Suspect:
    values: dict[str, Any] = {
        **{"instance_id": 1, "uri": None, "rank": 1, "given_label": 0, "predicted_label": 1, "is_label_issue": True},
        **{
            "sample_place": None,
            "label_quality": 0.1,
            "noise_score": 0.9,
            "mean_margin": -1.0,
            "predicted_share": 0.75,
        },
    }
    return Suspect(**values | changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "Seen as dog in 3 of 4 epochs."),
        ({"margins": (-1.0,) * 4}, "Seen as dog in 3 of 4 epochs; cat never came first."),
        (
            {"margins": (-1.0, -1.0, -1.0, 1.0)},
            "Seen as dog in 3 of 4 epochs; cat came first only from epoch 4 on: memorized.",
        ),
        ({"margins": (1.0, -1.0, -1.0, -1.0)}, "Seen as dog in 3 of 4 epochs; cat came first in 1."),
        ({"predicted_label": 0}, "Seen as cat in 3 of 4 epochs, uncertain."),
        ({"predicted_label": 0, "is_label_issue": False}, "Seen as cat in 3 of 4 epochs, as its label says."),
    ],
)
def test_why(changes: dict[str, Any], text: str) -> None:
    assert wording.explain_row(suspect(**changes), ["cat", "dog"], 4) == text


def told(**changes: Any) -> dict[str, Any]:
    row = {"class": "cat", "rows": 100, "flagged": 10, "flagged_share": 0.1, "estimated_noise_rate": None}
    values: dict[str, Any] = {"warnings": [], "classes": [row], "estimated_noise_rate": None, "noise_rate_range": None}
    return values | {"num_flagged": 10, "num_rows": 100, "corrupted_recall": 0.9, "num_corrupted": 20} | changes


def test_notes_name_rare_classes_and_a_wide_range() -> None:
    assert wording.warnings(told()) == []
    rare = [{"class": name, "rows": 29, "flagged": 0} for name in "abcdef"]
    (note,) = wording.warnings(told(classes=rare))
    assert note.startswith("6 class(es) have fewer than 30 rows, too few to be reliable: a, b, c, d, e and others.")
    assert wording.warnings(told(estimated_noise_rate=0.1, noise_rate_range=[0.09, 0.12])) == []
    (note,) = wording.warnings(told(estimated_noise_rate=0.083, noise_rate_range=[0.034, 0.098]))
    assert "between 3.4% and 9.8%" in note


@pytest.mark.parametrize(("recall", "word"), [(0.95, "high"), (0.7, "fair"), (0.2, "low")])
def test_trust_in_a_word(recall: float, word: str) -> None:
    said = wording.trust(told(corrupted_recall=recall))
    assert said["word"] == word
    assert said["text"].startswith("of the 20 errors")


def test_remarks_on_classes() -> None:
    assert wording.class_remark({"rows": 0, "flagged": 0}) == "no rows"
    assert wording.class_remark({"rows": 29, "flagged": 29}) == "rare"
    assert wording.class_remark({"rows": 30, "flagged": 16}) == "more than half flagged"
    assert wording.class_remark({"rows": 30, "flagged": 15}) == ""


# --------------------------------------------------------------------------------------------------------- trajectories


def test_bands_are_means_and_quartiles_however_the_rows_are_cut() -> None:
    random = np.random.default_rng(0)
    margins = (random.standard_cauchy((5000, 3)) * 3).clip(-6e4, 6e4).astype(np.float16)
    group = random.integers(0, 2, 5000)
    cuts = [0, 1, 1700, 5000]
    total = Trajectories(3)
    for low, high in itertools.pairwise(cuts):
        total.add(margins[low:high], group[low:high])
    bands = total.bands()
    for place, name in enumerate(("flagged", "unflagged")):
        mine = margins[group == place].astype(np.float64)
        band = bands[name]
        assert band.rows == len(mine)
        assert np.allclose(band.mean, mine.mean(axis=0))
        for share, found in ((0.25, band.low), (0.75, band.high)):
            exact = np.quantile(mine, share, axis=0, method="inverted_cdf")
            assert np.allclose(found, exact, rtol=1 / 64, atol=1e-6)
    assert bands["planted"].rows == 0
    with pytest.raises(DataError, match="3 epochs in every row, but got 2"):
        total.add(margins[:, :2], group)


# ----------------------------------------------------------------------------------------------------------- thumbnails


def pixels(uri: str) -> Image.Image:
    head, content = uri.split(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_thumbnails_are_new_and_small() -> None:
    stream = io.BytesIO()
    source = Image.new("RGB", (400, 200), (200, 30, 30))
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    source.save(stream, "JPEG", exif=exif, comment=b"hidden")
    small = thumbnail(stream.getvalue())
    assert small is not None
    assert pixels(small).size == (112, 112)
    assert b"secret" not in base64.b64decode(small.split(",")[1])
    assert b"hidden" not in base64.b64decode(small.split(",")[1])
    assert thumbnail(b"GIF89a no image") is None


def test_thumbnails_are_those_of_the_rows(tmp_path: Path) -> None:
    _, data = made(tmp_path / "run", images=True)
    for row in data["rows"]:
        i = int(row["id"])
        picture = pixels(row["image"])
        assert picture.size == (24, 24), "not larger than the images"
        color = np.asarray(picture).reshape(-1, 3).mean(axis=0)
        assert np.allclose(color, (i * 37 % 256, i * 59 % 256, i * 83 % 256), atol=6)


def test_thumbnails_end_where_reading_takes_too_long(tmp_path: Path) -> None:
    """The first rows in demand have theirs; a broken image has none."""
    make_run(tmp_path / "run", images=True)
    dataset = locate(str(tmp_path / "run" / "cache" / "dataset"))
    manifest = DatasetManifest.read(dataset)
    assert manifest is not None
    assert set(read_thumbnails(dataset, manifest, [290, 5, 291])) == {290, 5, 291}
    place = tmp_path / "run" / "cache" / "dataset" / "a1" / "part-000000.parquet"
    table = pq.read_table(place)
    images = table["image"].to_pylist()
    images[5] = b"broken"
    pq.write_table(table.set_column(3, "image", pa.array(images, pa.binary())), place, row_group_size=64)
    assert set(read_thumbnails(dataset, manifest, [290, 5, 291])) == {290, 291}
    size = pq.read_metadata(place).row_group(4).column(3).total_compressed_size
    assert set(read_thumbnails(dataset, manifest, [290, 6, 291], most_bytes=size)) == {290, 291}
    assert read_thumbnails(dataset, manifest, [290], most_bytes=10) == {}


@pytest.mark.parametrize(
    ("data", "thumbnails", "shown", "text"),
    [
        ({}, None, True, ""),
        ({}, False, False, "Pictures are left out. To see them"),
        ({"allows_thumbnails": False}, None, False, "the terms of this data forbid"),
        ({"allows_thumbnails": False}, True, True, ""),
        ({"content_hash": "other"}, None, False, "are gone or have changed"),
        ({"packed": "nowhere"}, True, False, "are gone or have changed"),
    ],
)
def test_when_pictures_are_shown(
    data: dict[str, Any], thumbnails: bool | None, shown: bool, text: str, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", images=True)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"data": summary["data"] | data}))
    html = Path(make_report(locate(str(folder)), thumbnails).path).read_text()
    assert ("data:image/jpeg" in html) == shown
    assert text in html


# ------------------------------------------------------------------------------------------------------------ directory


def test_report_of_a_sweep_is_that_of_its_chosen_run(tmp_path: Path) -> None:
    make_run(tmp_path / "sweep" / "best")
    (tmp_path / "sweep" / "summary.json").write_text("{}")
    assert str(make_report(locate(str(tmp_path / "sweep")))) == f"{tmp_path}/sweep/best/report.html"


def test_a_result_makes_its_report(tmp_path: Path) -> None:
    run = locate(str(make_run(tmp_path / "run")))
    result = DetectResult(run, (run / "summary.json").read_json())
    assert result.report() == f"{tmp_path}/run/report.html"
    assert (tmp_path / "run" / "report.html").exists()
    assert "<b>30 of 300 labels look wrong</b>" in result._repr_html_()
    assert repr(result) == f"<DetectResult {run}: 30 of 300 labels look wrong>"


def test_an_unfinished_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="but got no directory"):
        make_report(locate(str(tmp_path / "none")))
    (tmp_path / "begun").mkdir()
    with pytest.raises(RunDirectoryError, match=r"without summary\.json and issues\.parquet; run dynacor detect"):
        make_report(locate(str(tmp_path / "begun")))


def test_dynamics_of_another_length_are_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", epochs=6)
    short = pq.read_table(folder / "dynamics.parquet")
    margins = schema.matrix(short["margin"])[:, :3]
    short = short.set_column(1, "margin", schema.fixed_size_list(margins))
    pq.write_table(short.cast(schema.dynamics_schema(3)), folder / "dynamics.parquet")
    with pytest.raises(DataError, match="6 epochs in every row, but got 3"):
        make_report(locate(str(folder)))
