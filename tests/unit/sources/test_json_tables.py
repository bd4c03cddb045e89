"""Tables in JSON, and projects of Label Studio as they are exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.sources.base import Source, SourceOptions
from dynacor_ray.sources.registry import open_source
from tests.opened_sources import png, whole, write

LINK = "/data/local-files/?d=photos/"


def answer(choices: list[str], when: str = "2026-01-01", question: str = "kind", **more: Any) -> dict[str, Any]:
    result = {"from_name": question, "to_name": "image", "type": "choices", "value": {"choices": choices}}
    return {"id": 7, "result": [result], "created_at": when} | more


def task(number: int, image: str, *answers: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, "data": {"image": image, "caption": "x"}, "annotations": list(answers), "predictions": []}


def opened(folder: Path, held: Any, **options: Any) -> Source:
    write(folder / "p.json", json.dumps(held))
    return open_source(str(folder / "p.json"), SourceOptions(**options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shade, name in enumerate(("a b.png", "c.png", "d.png")):
        write(tmp_path / "photos" / name, png(shade))
    return tmp_path


def test_a_project_of_label_studio(folder: Path) -> None:
    source = opened(
        folder,
        [
            task(1, f"{LINK}a%20b.png", answer(["cat"], "2026-01-02"), answer(["dog"], "2026-01-01")),
            task(2, f"{LINK}c.png", answer(["cat"], was_cancelled=True), answer(["dog"])),
            task(3, f"{LINK}d.png", answer(["cat"])),
            task(4, f"{LINK}e.png"),
            task(5, f"{LINK}f.png", answer(["cat"], was_cancelled=True)),
        ],
    )
    table = whole(source)
    assert source.name == "table"
    assert table["uri"].to_pylist() == ["photos/a b.png", "photos/c.png", "photos/d.png"]
    assert table["label"].to_pylist() == ["cat", "dog", "cat"]
    assert table["image"].to_pylist() == [png(shade) for shade in range(3)]
    assert source.notes == ("Column 'kind' taken for the labels.",)
    assert source.warnings == (
        "Left out: 2 of 5 tasks, which nobody annotated.",
        "1 tasks have annotations that differ; the latest counts.",
    )


def test_a_project_of_uploaded_images_is_found_beside_the_originals(folder: Path) -> None:
    items = [
        {"image": "/data/upload/3/0f2c9a1b-c.png", "id": 1, "choice": "cat", "annotator": 1, "annotation_id": 9},
        {"image": "/data/upload/3/0f2c9a1c-d.png", "id": 2, "choice": "dog", "annotator": 1, "annotation_id": 8},
        {"image": "/data/upload/3/0f2c9a1c-d.png", "id": 2, "choice": "cat", "annotator": 2, "annotation_id": 7},
    ]
    for number, item in enumerate(items):
        item |= {"created_at": f"2026-01-0{number + 1}", "lead_time": 3.5, "given_label": "owl", "instance_id": 3}
    source = opened(folder, items)
    table = whole(source)
    assert table["image"].to_pylist() == [png(1), png(2)]
    assert table["label"].to_pylist() == ["cat", "cat"]
    assert source.notes == ("Paths are looked for below 'photos/', used without their first 3 parts.",)
    assert source.warnings == ("1 tasks have annotations that differ; the latest counts.",)


def test_two_questions_need_the_name_of_one(folder: Path) -> None:
    both = answer(["cat"])["result"] + answer(["sharp"], question="quality")["result"]
    held = [task(1, f"{LINK}c.png", answer([]) | {"result": both}), task(2, f"{LINK}d.png", answer(["dog"]))]
    with pytest.raises(DataError, match=r"one label column .* but got the columns image, kind, quality; name it with"):
        opened(folder, held)
    assert whole(opened(folder, held, label_column="kind"))["label"].to_pylist() == ["cat", "dog"]


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (
            [task(1, "a.png", answer(["cat", "dog"]))],
            "one class per task in p.json, .* got 1 with several, such as cat,",
        ),
        ([task(1, "a.png")], "one class per task in p.json, an export of Label Studio, but got no annotation; search"),
        ({"columns": ["a"], "data": [[1, 2]]}, "a list of objects in p.json, but got a dict"),
        ({"a": 1}, "a list of objects in p.json, but got a dict; write one object"),
        ([], "a list of objects in p.json, but got an empty list"),
        ([{"path": "a", "label": 1}, {"path": "b", "label": "x"}], "values of one type per key in p.json"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path: Path, held: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(tmp_path, held)


def test_a_list_of_objects_as_pandas_writes_it(folder: Path) -> None:
    source = opened(folder, [{"path": "photos/c.png", "label": "x"}, {"path": "photos/d.png", "label": "y"}])
    assert whole(source)["label"].to_pylist() == ["x", "y"]
    with pytest.raises(DataError, match=r"JSON in q\.json, but got 'Expecting value"):
        open_source(str(write(folder / "q.json", "[oops]")), SourceOptions())


@pytest.mark.parametrize(
    "held",
    [
        {"data": [{"path": "photos/c.png", "label": "x"}, {"path": "photos/d.png", "label": "y"}]},
        {"path": ["photos/c.png", "photos/d.png"], "label": ["x", "y"]},
        {"path": {"0": "photos/c.png", "1": "photos/d.png"}, "label": {"0": "x", "1": "y"}},
        {"0": {"path": "photos/c.png", "label": "x"}, "1": {"path": "photos/d.png", "label": "y"}},
        {"columns": ["path", "label"], "index": [0, 1], "data": [["photos/c.png", "x"], ["photos/d.png", "y"]]},
        {"photos/c.png": "x", "photos/d.png": "y"},
    ],
)
def test_objects_as_pandas_and_others_write_them(folder: Path, held: Any) -> None:
    table = whole(opened(folder, held))
    assert table["uri"].to_pylist() == ["photos/c.png", "photos/d.png"]
    assert table["label"].to_pylist() == ["x", "y"]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_object_in_each_line_in_any_file(folder: Path, name: str, encoding: str) -> None:
    lines = [json.dumps({"path": f"photos/{stem}.png", "label": "ü"}, ensure_ascii=False) for stem in "cd"]
    data = write(folder / name, "\n".join(lines).encode(encoding))
    table = whole(open_source(str(data), SourceOptions()))
    assert table["uri"].to_pylist() == ["photos/c.png", "photos/d.png"]
    assert table["label"].to_pylist() == ["ü", "ü"]


def test_a_project_of_label_studio_as_csv(folder: Path) -> None:
    """As label_studio_sdk.converter 2.1.2 writes it; links to local files have their paths encoded."""
    (folder / "p.csv").write_text(
        '"annotation_id","annotator","created_at","given_label","id","image","kind","updated_at"\n'
        f'"1","1","t1","owl","11","{LINK}a%20b.png","cat","t1"\n'
        f'"2","1","t1","owl","12","{LINK}c.png","cat","t1"\n'
        f'"3","2","t2","owl","12","{LINK}c.png","dog","t2"\n'
    )
    source = open_source(str(folder / "p.csv"), SourceOptions())
    table = whole(source)
    assert table["uri"].to_pylist() == ["photos/a b.png", "photos/c.png"]
    assert table["label"].to_pylist() == ["cat", "dog"]
    assert table["image"].to_pylist() == [png(0), png(1)]
    assert source.warnings == ("1 tasks have annotations that differ; the latest counts.",)
