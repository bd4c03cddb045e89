"""Tasks for Label Studio, with the images or their paths."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from dynacor_ray.export.label_studio import image_url
from dynacor_ray.export.tables import export_run
from tests.made_runs import at, issues, make_run


def test_label_studio_tasks(tmp_path: Path) -> None:
    names = ("cat", 'a "quoted" <dog>', "owl")
    run, out = make_run(tmp_path / "run", names=names, images=True), tmp_path / "tasks.json"
    assert export_run(at(run), at(out)) == 30
    tasks, known = json.loads(out.read_text()), issues(run)
    for task, row in zip(tasks, known[:30], strict=True):
        assert task["data"]["instance_id"] == row["instance_id"]
        assert task["data"]["given_label"] == names[row["given_label"]]
        assert task["data"]["image"].startswith("data:image/jpeg;base64,"), "the data hold the images"
        (prediction,) = task["predictions"]
        (result,) = prediction["result"]
        assert result["value"] == {"choices": [names[row["predicted_label"]]]}
        assert 0.5 < prediction["score"] <= 1
    config = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    image, choices = config.find("Image"), config.find("Choices")
    assert image is not None
    assert choices is not None
    assert (result["to_name"], result["from_name"]) == (image.get("name"), choices.get("name"))
    assert image.get("value") == "$image"
    assert [choice.get("value") for choice in choices] == list(names)


def test_label_studio_reads_images_of_their_own_by_path(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "run", images=True), tmp_path / "tasks.json"
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"data": summary["data"] | {"source": "folder"}}))
    assert export_run(at(run), at(out), limit=2, prefix="/data/local-files/?d=") == 2
    first = json.loads(out.read_text())[0]["data"]
    assert first["image"] == f"/data/local-files/?d={first['uri']}"


AWKWARD = "a dir/50% off #1 + a&b=c?d;e'\"é.png"


def test_paths_are_encoded_as_their_prefix_needs(tmp_path: Path) -> None:
    query = urlsplit(image_url("/data/local-files/?d=root/", AWKWARD))
    assert parse_qs(query.query) == {"d": [f"root/{AWKWARD}"]}
    assert not query.fragment
    for prefix in ("https://host/images/", "http://host:8080/", "/data/upload/"):
        parts = urlsplit(image_url(prefix, AWKWARD))
        assert unquote(parts.path).endswith(f"/{AWKWARD}")
        assert not parts.query + parts.fragment
    assert image_url("s3://bucket/", AWKWARD) == f"s3://bucket/{AWKWARD}"
    assert image_url("", AWKWARD) == AWKWARD
    for uri in ("s3://bucket/a b.png", "https://host/a%20b.png"):
        assert image_url("/data/local-files/?d=", uri) == uri
