"""What a person answered, from the files of a spreadsheet, Label Studio, CVAT, FiftyOne or Datumaro."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, DynacorError, expected_got, first_line
from dynacor_ray.core.storage import MAX_JSON_BYTES, Location, parse_json
from dynacor_ray.core.text_tables import decoded, read_table_text

MARKS = ("wrong", "right", "unsure")
LABELS = ("label", "choice", "right_label")
"""Columns with the class that a person gave."""
_PLACES = (schema.URI, "path", "file_name", "filename", "name", "image")
_ANNOTATED = (schema.GIVEN_LABEL, "annotator", "annotation_id")
"""Without one of these or a mark, `label` may be the data's own column."""
_ROW_ID = re.compile(r"'?(\d{1,18})(?:[.,]0+)?")
_MOST_TAGS = 10_000_000
"""Of XML, which takes some hundred bytes each."""


@dataclass(frozen=True)
class FileAnswer:
    """One answer as a file has it; "" where it says nothing.

    Attributes:
        row: Its instance_id, None where the file names the image only.
        uri: Its image, or the end of its path.
        mark: One of MARKS.
        label: The class that was chosen.
        given: The given label, to check that the answer is on this row.
        when: Time of the answer as ISO text; the latest counts.
        by_person: Whether a person set this class; where that is not known, only a class other than the given one is
            an answer.
    """

    row: int | None
    uri: str = ""
    mark: str = ""
    label: str = ""
    given: str = ""
    when: str = ""
    by_person: bool = True

    def __post_init__(self) -> None:
        texts = (self.uri, self.mark, self.label, self.given, self.when)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("another value where a text stands")


def read_answer_file(place: Location) -> list[FileAnswer]:
    """The answers in a file: CSV or TSV, JSON or JSON-MIN of Label Studio, XML of CVAT, JSON of FiftyOne or Datumaro.

    Rows without an answer are left out.

    Raises:
        DataError: The file is none of these, or an answer is unknown.
    """
    content, ending = place.read_bytes(MAX_JSON_BYTES), place.path.lower().rpartition(".")[2]
    try:
        if ending == "zip":
            content, ending = _annotations_of(content), "xml"
        if ending == "xml":
            return list(_cvat(content))
        if ending == "json":
            return list(_json(parse_json(content), place))
        if content.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0", b"PAR1")):
            raise DataError(expected_got(f"text in {place}", "a workbook or another binary file", "save it as CSV"))
        return list(_flat(*read_table_text(decoded(content)), place))
    except MemoryError:
        raise
    except Exception as error:  # parsers of zip, XML and CSV raise any type on untrusted bytes
        if isinstance(error, DynacorError):
            raise
        remedy = "export the annotated tasks of `dynacor review RUN --sample`"
        got = f"'{type(error).__name__}: {first_line(error)}'"
        expected = f"answers in a table, or an export of Label Studio, CVAT, FiftyOne or Datumaro in {place}"
        raise DataError(expected_got(expected, got, remedy)) from error


def _flat(names: Iterable[str], rows: Iterable[Mapping[str, Any]], place: Location) -> Iterator[FileAnswer]:
    """Rows of a table, or of Label Studio's JSON-MIN."""
    names = list(names)
    label = next((name for name in LABELS if name in names), "")
    key = next((name for name in (schema.INSTANCE_ID, *_PLACES) if name in names), None)
    if key is None or not (schema.MARK in names or (label and any(name in names for name in _ANNOTATED))):
        expected = f"columns {schema.INSTANCE_ID} and {schema.MARK} in {place}"
        remedy = "save it with the report's button, write these two columns, or export it as CSV from Label Studio"
        raise DataError(expected_got(expected, f"the columns {', '.join(names[:20])}" if names else "none", remedy))
    for row in rows:
        mark, chosen = str(row.get(schema.MARK) or "").strip().lower(), _choice(row.get(label), place)
        if not mark and not chosen:
            continue
        instance_id = _row_id(row[key]) if key == schema.INSTANCE_ID else None
        if key == schema.INSTANCE_ID and instance_id is None:
            got = f"{row[key]!r} beside {mark or chosen!r}"
            raise DataError(expected_got(f"whole numbers as {key} in {place}", got, "correct it"))
        if mark not in (*MARKS, ""):
            expected = f"one of {', '.join(MARKS)} as mark of {key} {row[key]}"
            raise DataError(expected_got(expected, repr(row[schema.MARK]), f"correct {place}"))
        when = row.get("updated_at") or row.get("created_at") or ""
        uri = "" if key == schema.INSTANCE_ID else str(row[key])
        yield FileAnswer(instance_id, uri, mark, chosen, str(row.get(schema.GIVEN_LABEL) or ""), str(when))


def _json(held: Any, place: Location) -> Iterator[FileAnswer]:
    if isinstance(held, dict):
        yield from _datumaro(held) if "items" in held else _fiftyone(held)
    elif any("data" in task or "annotations" in task for task in held):
        yield from _tasks(held, place)
    else:
        names = dict.fromkeys(str(name).lower() for row in held for name in row)
        yield from _flat(names, ({str(name).lower(): value for name, value in row.items()} for row in held), place)


def _tasks(tasks: Iterable[dict[str, Any]], place: Location) -> Iterator[FileAnswer]:
    """Label Studio's JSON: annotations that were not cancelled."""
    for task in tasks:
        for done in task.get("annotations", ()):
            parts = () if done.get("was_cancelled") else done["result"]
            chosen = [part["value"]["choices"] for part in parts if "choices" in part["value"]]
            if chosen:
                data = task["data"]
                row = _row_id(data.get(schema.INSTANCE_ID))
                uri = "" if row is not None else str(data.get(schema.URI) or data["image"])
                when = str(done.get("updated_at") or done.get("created_at") or "")
                given = str(data.get(schema.GIVEN_LABEL) or "")
                yield FileAnswer(row, uri, label=_choice(chosen[-1], place), given=given, when=when)


def _cvat(content: bytes) -> Iterator[FileAnswer]:
    """CVAT for images 1.1: a tag per image. What a model set is no answer, what was imported may be one."""
    if any(mark in content for mark in (b"<!DOCTYPE", b"<!ENTITY", b"\0")):  # zeros: in UTF-16 neither would be seen
        raise ValueError("a document type or an encoding that CVAT does not write")
    if content.count(b"<") > _MOST_TAGS:
        raise ValueError(f"more than {_MOST_TAGS:,} tags")
    for image in ElementTree.fromstring(content).iter("image"):
        tags = [tag for tag in image.iter("tag") if tag.get("source", "manual") not in ("auto", "semi-auto")]
        if len(tags) > 1:
            raise ValueError(f"{len(tags)} tags of {image.attrib['name']!r}")
        for tag in tags:
            by_person = tag.get("source", "manual") == "manual"
            yield FileAnswer(None, image.attrib["name"], label=tag.attrib["label"], by_person=by_person)


def _annotations_of(content: bytes) -> bytes:
    """The annotations in CVAT's archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = [name for name in archive.namelist() if name.rpartition("/")[2] == "annotations.xml"]
        with archive.open(name) as file:
            found = file.read(MAX_JSON_BYTES + 1)
    if len(found) > MAX_JSON_BYTES:
        raise ValueError(f"more than {MAX_JSON_BYTES >> 20} MiB of annotations")
    return found


def _fiftyone(held: dict[str, Any]) -> Iterator[FileAnswer]:
    """FiftyOneImageClassificationDataset (labels.json) or FiftyOneDataset (samples.json): changed classes, and tags.

    A tag wrong, right or unsure of the sample or its label is a mark.
    """
    if "samples" not in held:
        for label in filter(None, held["labels"].values()):
            if not isinstance(label, dict) or schema.INSTANCE_ID not in label.get("attributes", {}):
                raise ValueError(
                    f"labels without attributes.{schema.INSTANCE_ID}: pass include_attributes=True to export"
                )
            name = held["classes"][label["label"]] if isinstance(label["label"], int) else label["label"]
            yield FileAnswer(_row_id(label["attributes"][schema.INSTANCE_ID]), label=name, by_person=False)
        return
    for sample in held["samples"]:
        for label in sample.values():
            if isinstance(label, dict) and label.get("_cls") == "Classification" and schema.INSTANCE_ID in label:
                tags = {str(tag).lower() for tag in (*sample.get("tags", ()), *label.get("tags", ()))}
                mark = next((mark for mark in MARKS if mark in tags), "")
                row = _row_id(label[schema.INSTANCE_ID])
                yield FileAnswer(row, sample["filepath"], mark, label["label"], by_person=False)


def _datumaro(held: dict[str, Any]) -> Iterator[FileAnswer]:
    """Datumaro's own format, as our export wrote it: a class that was changed is an answer."""
    names = [label["name"] for label in held["categories"]["label"]["labels"]]
    for item in held["items"]:
        labels = [one for one in item["annotations"] if one["type"] == "label"]
        if len(labels) > 1:
            raise ValueError(f"{len(labels)} labels of {item['id']!r}")
        for label in labels:
            row = _row_id(label["attributes"][schema.INSTANCE_ID])
            yield FileAnswer(row, label=names[label["label_id"]], by_person=False)


def _row_id(value: Any) -> int | None:
    """An instance_id as tools write it: 143, "143", "143.0", or MongoDB's long; else None."""
    if isinstance(value, dict):
        value = value.get("$numberLong")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    found = _ROW_ID.fullmatch(str(value).strip())
    return int(found[1]) if found else None


def _choice(value: Any, place: Location) -> str:
    """The class that was chosen. Raises DataError for several."""
    if isinstance(value, str) and value.startswith('{"choices"'):
        value = json.loads(value)
    several = value["choices"] if isinstance(value, dict) else value
    if not isinstance(several, list):
        return "" if several is None else str(several).strip()
    if len(several) != 1:
        raise DataError(expected_got(f"one class per row in {place}", ", ".join(map(str, several)), "keep one of them"))
    return str(several[0])
