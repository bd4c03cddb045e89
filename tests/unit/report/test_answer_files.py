"""A person's answers as spreadsheets, Label Studio, CVAT and FiftyOne write them, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dynacor_ray.core import text_tables
from dynacor_ray.core.errors import DataError, DynacorError
from dynacor_ray.report import answer_files
from dynacor_ray.report.answer_files import FileAnswer, read_answer_file
from tests.fuzzing import changed
from tests.made_runs import at


def found(path: Path, content: str | bytes) -> list[FileAnswer]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_answer_file(at(path))


SAVED = 'instance_id,mark,given_label\n1,Wrong ,cat\n2,,dog\n3,right,"a ""b"", c"\n'


@pytest.mark.parametrize(
    "content",
    [
        SAVED.encode(),
        SAVED.replace("\n", "\r\n").encode("utf-8-sig"),
        SAVED.encode("utf-16"),
        b"sep=;\r\n" + SAVED.replace(",", ";").replace("; c", ", c").encode(),
        SAVED.replace("instance_id,mark", " Instance_ID ,MARK").replace("\n1,", "\n1.0,").encode(),
        SAVED.replace("\n1,", '\n"1,00",').encode(),
    ],
    ids=["saved", "BOM and CRLF", "UTF-16", "semicolons", "header and decimals", "decimal comma"],
)
def test_marks_after_a_spreadsheet(content: bytes, tmp_path: Path) -> None:
    assert found(tmp_path / "marks.csv", content) == [
        FileAnswer(1, mark="wrong", given="cat"),
        FileAnswer(3, mark="right", given='a "b", c'),
    ]


def test_a_class_beside_the_mark_and_images_by_their_path(tmp_path: Path) -> None:
    text = "path\tmark\tlabel\na/1.png\twrong\towl\na/2.png\t\tdog\na/3.png\t\t\n"
    assert found(tmp_path / "marks.tsv", text) == [
        FileAnswer(None, "a/1.png", "wrong", "owl"),
        FileAnswer(None, "a/2.png", "", "dog"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,mark\n1,wrong\n", "columns instance_id and mark in .*, but got the columns id, mark"),
        ("instance_id,label\n1,cat\n", "columns instance_id and mark in .*, but got the columns instance_id, label"),
        ("instance_id,mark\nx,wrong\n", "whole numbers as instance_id in .*, but got 'x' beside 'wrong'"),
        ("instance_id,mark\n1.23E+08,wrong\n", "whole numbers as instance_id"),
        ("instance_id,mark\n1,bad\n", "one of wrong, right, unsure as mark of instance_id 1, but got 'bad'"),
        ("instance_id,mark\n,wrong\n", "whole numbers as instance_id"),
        ("", "columns instance_id and mark in .*, but got none"),
    ],
)
def test_bad_marks(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        found(tmp_path / "marks.csv", text)


def test_a_workbook_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"text in .*marks\.xlsx, but got a workbook or another binary file; save it as CSV"
    ):
        found(tmp_path / "marks.xlsx", b"PK\3\4rest")


def annotation(*choices: str, when: str = "", cancelled: bool = False) -> dict[str, Any]:
    result = [{"type": "choices", "from_name": "label", "value": {"choices": list(choices)}}] if choices else []
    return {"result": result, "was_cancelled": cancelled, "updated_at": when}


def test_label_studio_s_json(tmp_path: Path) -> None:
    tasks = [
        {"data": {"instance_id": 4, "given_label": "cat"}, "annotations": [annotation("dog", when="2026-11-20")]},
        {"data": {"instance_id": 5, "given_label": "cat"}, "annotations": [annotation()]},
        {"data": {"instance_id": 6, "given_label": "cat"}, "annotations": [annotation("dog", cancelled=True)]},
        {"data": {"uri": "a/1.png", "image": "x"}, "annotations": [annotation("owl")]},
        {"data": {"instance_id": 7}, "annotations": []},
    ]
    assert found(tmp_path / "export.json", json.dumps(tasks)) == [
        FileAnswer(4, label="dog", given="cat", when="2026-11-20"),
        FileAnswer(None, "a/1.png", label="owl"),
    ]
    tasks = [{"data": {"instance_id": 4}, "annotations": [annotation("dog", "cat")]}]
    with pytest.raises(DataError, match=r"one class per row in .*, but got dog, cat"):
        found(tmp_path / "export.json", json.dumps(tasks))


def test_label_studio_s_json_min_and_csv(tmp_path: Path) -> None:
    """As label_studio_sdk.converter 2.1.2 writes them."""
    row = {"image": "i", "instance_id": 52, "uri": "u", "given_label": "dog", "label_quality": 0.1, "id": 1}
    done = {"label": "cat", "annotator": 1, "annotation_id": 100, "created_at": "t0", "updated_at": "t1"}
    several = done | {"label": {"choices": ["owl"]}}
    answers = [FileAnswer(52, label=name, given="dog", when="t1") for name in ("cat", "owl")]
    assert found(tmp_path / "min.json", json.dumps([row | done, row | several, row])) == answers
    head = '"annotation_id","annotator","created_at","given_label","id","image","instance_id","label","updated_at"\n'
    lines = '100,"1","t0","dog",1,"i",52,"cat","t1"\n100,"1","t0","dog",1,"i",52,"{""choices"": [""owl""]}","t1"\n'
    empty = '"","","","dog",6,"/i",51,"",""\n'
    assert found(tmp_path / "export.csv", head + lines + empty) == answers


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>review</name></task></meta>
  <image id="0" name="cat/1.png" width="4" height="4"><tag label="dog" source="manual"></tag></image>
  <image id="1" name="cat/2.png" width="4" height="4"><tag label="owl" source="auto"></tag></image>
  <image id="2" name="cat/3.png" width="4" height="4"></image>
  <image id="3" name="cat/4.png" width="4" height="4"><tag label="cat" source="file"></tag></image>
</annotations>
"""


def test_cvat(tmp_path: Path) -> None:
    answers = [FileAnswer(None, "cat/1.png", label="dog"), FileAnswer(None, "cat/4.png", label="cat", by_person=False)]
    assert found(tmp_path / "annotations.xml", CVAT) == answers
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("images/1.png", "x")
        archive.writestr("annotations.xml", CVAT)
    assert read_answer_file(at(tmp_path / "export.zip")) == answers
    two = '<annotations><image name="a"><tag label="x"/><tag label="y"/></image></annotations>'
    for text in (two, "<!DOCTYPE x [<!ENTITY a 'b'>]><annotations/>", "<annotations>"):
        with pytest.raises(DataError, match=r"an export of .*, FiftyOne or Datumaro in .*annotations\.xml"):
            found(tmp_path / "annotations.xml", text)


def test_fiftyone(tmp_path: Path) -> None:
    label = {"label": "dog", "confidence": 0.1, "attributes": {"instance_id": 7}}
    held: dict[str, Any] = {"classes": ["cat", "dog"], "labels": {"0000007": label, "0000008": None}}
    assert found(tmp_path / "labels.json", json.dumps(held)) == [FileAnswer(7, label="dog", by_person=False)]
    held["labels"]["0000007"]["label"] = 1  # as fiftyone 1.22 writes it where the data set knows its classes
    assert found(tmp_path / "labels.json", json.dumps(held)) == [FileAnswer(7, label="dog", by_person=False)]
    for label in ("dog", {"label": "dog"}):
        with pytest.raises(DataError, match=r"pass include_attributes=True to export"):
            found(tmp_path / "labels.json", json.dumps({"classes": [], "labels": {"0000007": label}}))
    given = {"_cls": "Classification", "tags": [], "label": "cat", "instance_id": {"$numberLong": "7"}}
    samples = [
        {"filepath": "/a/7.png", "tags": ["Wrong"], "given": given},
        {"filepath": "/a/8.png", "tags": [], "given": given | {"tags": ["unsure"], "instance_id": 8}},
        {"filepath": "/a/9.png", "tags": ["train"], "given": given | {"instance_id": 9}},
    ]
    assert found(tmp_path / "samples.json", json.dumps({"samples": samples})) == [
        FileAnswer(7, "/a/7.png", "wrong", "cat", by_person=False),
        FileAnswer(8, "/a/8.png", "unsure", "cat", by_person=False),
        FileAnswer(9, "/a/9.png", "", "cat", by_person=False),
    ]


def test_datumaro(tmp_path: Path) -> None:
    label = {"type": "label", "label_id": 1, "attributes": {"instance_id": 7}}
    categories = {"label": {"labels": [{"name": "cat", "parent": ""}, {"name": "dog", "parent": ""}]}}
    items = [{"id": "a", "annotations": [label, {"type": "bbox"}]}, {"id": "8", "annotations": []}]
    held: dict[str, Any] = {"categories": categories, "items": items}
    assert found(tmp_path / "default.json", json.dumps(held)) == [FileAnswer(7, label="dog", by_person=False)]
    for wrong in ([label, label], [label | {"attributes": {}}]):
        items[0]["annotations"] = wrong
        with pytest.raises(DataError, match="FiftyOne or Datumaro in"):
            found(tmp_path / "default.json", json.dumps(held))


@pytest.mark.parametrize(
    "text", ["[", "{}x", "[1]", "{}", '[{"annotations": [{"result": [{"value": {"choices": ["a"]}}]}]}]']
)
def test_another_json_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"an export of .*, FiftyOne or Datumaro in .*export the annotated tasks"):
        found(tmp_path / "export.json", text)


def export_files() -> dict[str, bytes]:
    """One sound file of each kind."""
    task = {"data": {"instance_id": 4, "image": "i", "uri": "u"}, "annotations": [annotation("dog")]}
    label = {"label": "dog", "attributes": {"instance_id": 7}}
    given = {"_cls": "Classification", "tags": [], "label": "cat", "instance_id": {"$numberLong": "7"}}
    sample = {"filepath": "/a/7.png", "tags": ["Wrong"], "given": given}
    item = {"id": "a", "annotations": [{"type": "label", "label_id": 0, "attributes": {"instance_id": 7}}]}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", CVAT)
    held = [
        *([task], {"classes": ["cat"], "labels": {"7": label}}, {"samples": [sample]}),
        {"categories": {"label": {"labels": [{"name": "cat"}]}}, "items": [item]},
    ]
    files = {f"{number}.json": json.dumps(value).encode() for number, value in enumerate(held)}
    return files | {"marks.csv": SAVED.encode(), "a.xml": CVAT.encode(), "a.zip": packed.getvalue()}


def test_files_with_bytes_changed_at_random(tmp_path: Path) -> None:
    """They are read, or end with an error that says what to do."""
    files = list(export_files().items())
    for seed in range(400):
        name, content = files[seed % len(files)]
        with contextlib.suppress(DynacorError):
            found(tmp_path / name, changed(content, random.Random(seed)))


HOSTILE = {
    "deep.json": b"[" * 100_000,
    "row.csv": f"instance_id,mark\n{'9' * 30},wrong\n".encode(),
    "laughs.xml": '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'.encode("utf-16"),
    "code.xml": b'<?xml version="1.0" encoding="rot13"?><annotations/>',
    "name.json": json.dumps(
        {"classes": [["a"]], "labels": {"7": {"label": 0, "attributes": {"instance_id": 7}}}}
    ).encode(),
    "many.csv": b"instance_id,mark\n" + b"," * 200,
    "many.xml": b"<annotations>" + b"<a/>" * 200 + b"</annotations>",
    "quote.csv": b'instance_id,mark,x\n1,wrong,"\0',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_would_end_the_program(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_files, "_MOST_TAGS", 100)
    monkeypatch.setattr(text_tables, "MOST_CELLS", 100)
    if name == "quote.csv":
        assert found(tmp_path / name, HOSTILE[name]) == [FileAnswer(1, mark="wrong")]
        return
    with pytest.raises(DataError, match="Expected"):
        found(tmp_path / name, HOSTILE[name])


def test_a_packed_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_files, "MAX_JSON_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", bytes(100_000))
    with pytest.raises(DataError, match="MiB of annotations"):
        read_answer_file(at(tmp_path / "a.zip"))
