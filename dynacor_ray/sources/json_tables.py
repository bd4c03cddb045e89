"""Tables in JSON: one object per line, a list of objects, or a project of Label Studio (JSON, JSON-MIN, CSV)."""

from __future__ import annotations

import codecs
import io
import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pajson

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, expected_got, first_line
from dynacor_ray.core.label_studio_links import original_name, path_in_link
from dynacor_ray.core.storage import MAX_JSON_BYTES, Location, parse_json, storage_errors
from dynacor_ray.core.text_tables import decoded, encoding_of, read_table_text
from dynacor_ray.sources.columns import IMAGE_COLUMNS, URI_COLUMNS
from dynacor_ray.sources.image_files import is_image_name
from dynacor_ray.sources.text_format import table_ending

JSON_LINES = (".jsonl", ".ndjson")
JSON_TABLES = (*JSON_LINES, ".json")
_OF_CSV = {"annotation_id", "annotator"}
"""Columns by which a table in text is an export of Label Studio."""
_OF_TASKS = frozenset(
    {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}
    | {schema.INSTANCE_ID, schema.URI, schema.GIVEN_LABEL, schema.LABEL_QUALITY}
)
"""Keys of JSON-MIN beside a task's image and answers: its own, and those of our export."""


_MOST_NESTED = 200
"""Of a line in JSON; Arrow's parser is gone from a few thousand on."""
_MOST_KEYS = 10_000
"""Of all lines: each becomes a column, which takes memory for every block of them."""
_HEAD_BYTES = 1 << 20
"""Where the first line of a table in JSON is looked for."""
_KEY = re.compile(rb'"([^"\\\n]{0,500})"\s{0,9}:')
_MOST_LINES = 1_000_000
"""Of an export as text, whose rows are held one by one."""


@dataclass(frozen=True)
class JsonTable:
    """What a file holds.

    Attributes:
        table: its rows.
        warnings: what was left out.
        is_project: whether it is an export of Label Studio.
    """

    table: pa.Table
    warnings: tuple[str, ...] = ()
    is_project: bool = False


def read_json_table(place: Location) -> JsonTable:
    """Read a table in JSON by its ending. Raises DataError when it is none."""
    name = posixpath.basename(place.path)
    if table_ending(name) == ".json" and not _holds_lines(place):
        return _read_list(place, name)
    with storage_errors("read", place):
        try:
            with place.stream() as stream:
                return JsonTable(pajson.read_json(pa.PythonFile(_ShallowLines(stream, name), "r")))
        except pa.ArrowInvalid as error:
            got = f"'{first_line(error)}'"
            expected = f"{name} to hold one JSON object per line"
            raise DataError(expected_got(expected, got, "correct the file")) from error


def _holds_lines(place: Location) -> bool:
    """Whether a .json holds an object in each line, as Spark and pandas write it."""
    with place.stream() as stream:
        lines = decoded(bytes(stream.read(_HEAD_BYTES))).lstrip().split("\n")
    try:
        return len(lines) > 1 and lines[1].startswith("{") and isinstance(parse_json(lines[0].encode()), dict)
    except (ValueError, RecursionError):
        return False


class _ShallowLines(io.RawIOBase):
    """The lines of a stream, as long as they have few keys and none is nested so deeply that Arrow would crash."""

    def __init__(self, source: Any, name: str) -> None:
        self._source, self._name, self._rest, self._keys = source, name, b"", set[bytes]()
        self._decoder: codecs.IncrementalDecoder | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        block = self._utf8(size)
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines if block else [self._rest]:
            if line.count(b"{") + line.count(b"[") > _MOST_NESTED and _depth(line) > _MOST_NESTED:
                got = f"values that are nested more than {_MOST_NESTED} deep"
                raise DataError(expected_got(f"{self._name} to hold one JSON object per line", got, "correct the file"))
        self._keys.update(_KEY.findall(b"\n".join(lines) if block else self._rest))
        if len(self._keys) > _MOST_KEYS:
            got = f"more than {_MOST_KEYS:,} different ones"
            raise DataError(expected_got(f"keys in {self._name}", got, "write features as one list per row"))
        if len(self._rest) > MAX_JSON_BYTES:
            got = f"one of more than {MAX_JSON_BYTES >> 20} MiB"
            raise DataError(expected_got(f"lines in {self._name}", got, "check that it is a table in JSON"))
        return block

    def _utf8(self, size: int) -> bytes:
        """The next bytes of the text in valid UTF-8 without a byte order mark; none at its end."""
        block = bytes(self._source.read(size) if size >= 0 else self._source.read())
        if is_first := self._decoder is None:
            self._decoder = codecs.getincrementaldecoder(encoding_of(block))("replace")
        text = self._decoder.decode(block, not block).encode()
        return text.removeprefix(codecs.BOM_UTF8) if is_first else text


def _depth(line: bytes) -> int:
    """How deeply lists and objects of a line in JSON are nested."""
    marks = np.frombuffer(re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line), np.uint8)
    opened = np.isin(marks, list(b"{[")).astype(np.int64) - np.isin(marks, list(b"}]"))
    return int(np.cumsum(opened).max(initial=0))


def is_project_table(names: Iterable[str]) -> bool:
    """Whether a table in text with these columns is Label Studio's export as CSV."""
    return {name.strip().lower() for name in names} >= _OF_CSV


def read_project_table(place: Location) -> JsonTable:
    """Read an export of Label Studio as CSV or TSV: the rows of JSON-MIN. Raises DataError when it has no answers."""
    content, name = place.read_bytes(MAX_JSON_BYTES), posixpath.basename(place.path)
    if content.count(b"\n") > _MOST_LINES:
        got = f"more than {_MOST_LINES:,} lines"
        raise DataError(expected_got(f"an export of Label Studio in {name}", got, "write it as parquet"))
    _, rows = read_table_text(decoded(content))
    return _project(list(_short_tasks([{key: _cell(value) for key, value in row.items()} for row in rows])), name)


def _cell(text: str) -> Any:
    """Several choices are JSON in a cell."""
    return json.loads(text) if text.startswith('{"choices"') else text


def original_names(paths: pa.StringArray) -> pa.StringArray:
    """Paths of files that were uploaded to Label Studio, by the names that they had before.

    >>> original_names(pa.array(["data/upload/1/0f2c9a1b-cat.jpg"])).to_pylist()
    ['data/upload/1/cat.jpg']
    """
    return pa.array([path and original_name(path) for path in paths.to_pylist()], pa.string())


def _read_list(place: Location, name: str) -> JsonTable:
    held = _listed(_parsed(place, name))
    if not isinstance(held, list) or not held or not all(isinstance(item, dict) for item in held):
        got = "an empty list, or other items" if isinstance(held, list) else f"a {type(held).__name__}"
        remedy = "write one object with a path and a label per row, or export the project of Label Studio as JSON"
        raise DataError(expected_got(f"a list of objects in {name}", got, remedy))
    if any(isinstance(item.get("annotations"), list) and isinstance(item.get("data"), dict) for item in held):
        return _project(list(_tasks(held)), name)
    if all("annotation_id" in item for item in held):
        return _project(list(_short_tasks(held)), name)
    try:
        return JsonTable(pa.Table.from_pylist(held))
    except pa.ArrowException as error:
        got = f"'{first_line(error)}'"
        raise DataError(expected_got(f"values of one type per key in {name}", got, "correct the file")) from error


def _listed(held: Any) -> Any:
    """The rows of an object in one of the forms that pandas and others write; else what it is."""
    if not isinstance(held, dict) or not held:
        return held
    values = list(held.values())
    lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len(lists) == 1:  # {"data": [{...}, ...]}
        return lists[0]
    if held.keys() == {"classes", "labels"} and isinstance(held["labels"], dict):  # FiftyOne's
        codes = {key: one.get("label") if isinstance(one, dict) else one for key, one in held["labels"].items()}
        names: dict[Any, Any] = dict(enumerate(held["classes"] or ()))
        return [{"path": path, "label": names.get(code, code)} for path, code in codes.items()]
    if {"columns", "data"} <= held.keys() <= {"columns", "data", "index"}:  # pandas' split
        columns = held["columns"]
        fits = all(isinstance(row, list) and len(row) == len(columns) for row in held["data"])
        return [dict(zip(columns, row, strict=True)) for row in held["data"]] if fits else held
    if all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        return [dict(zip(held, row, strict=True)) for row in zip(*values, strict=True)]
    if all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        if all(key.isdigit() for key in held):  # pandas' index
            return values
        return [{name: column[row] for name, column in held.items()} for row in values[0]]
    if all(isinstance(value, (str, int)) for value in values) and all(map(is_image_name, held)):
        return [{"path": path, "label": label} for path, label in held.items()]
    return held


def _parsed(place: Location, name: str) -> Any:
    size = place.info().size or 0
    if size > MAX_JSON_BYTES:
        remedy = "write it as .jsonl, one object per line"
        raise DataError(expected_got(f"at most {MAX_JSON_BYTES >> 20} MiB in {name}", f"{size >> 20:,} MiB", remedy))
    try:
        return parse_json(place.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(expected_got(f"JSON in {name}", f"'{first_line(error)}'", "correct the file")) from error


@dataclass(frozen=True)
class _Annotation:
    """Answers of one person on one task, by question; none where nobody has answered."""

    task: str
    image: str | None
    answers: dict[str, list[str]]
    when: str = ""


def _tasks(held: list[dict[str, Any]]) -> Iterator[_Annotation]:
    """The annotations of Label Studio's JSON that were not cancelled."""
    for item in held:
        image = _image_of(item.get("data") or {})
        task = str(item.get("id", image))
        yield _Annotation(task, image, {})
        for done in item.get("annotations") or ():
            answers: dict[str, list[str]] = {}
            for part in () if done.get("was_cancelled") else done.get("result") or ():
                if isinstance(part.get("value"), dict) and isinstance(part["value"].get("choices"), list):
                    answers[str(part.get("from_name", "choice"))] = list(map(str, part["value"]["choices"]))
            yield _Annotation(task, image, answers, _when(done))


def _short_tasks(held: list[dict[str, Any]]) -> Iterator[_Annotation]:
    """The annotations of JSON-MIN."""
    for item in held:
        other = {*_OF_TASKS, _image_key(item)}
        given = {key: value for key, value in item.items() if key not in other}
        chosen = {key: value.get("choices") if isinstance(value, dict) else value for key, value in given.items()}
        answers = {key: value if isinstance(value, list) else [str(value)] for key, value in chosen.items() if value}
        image = _image_of(item)
        yield _Annotation(str(item.get("id", image)), image, answers, _when(item))


def _when(done: dict[str, Any]) -> str:
    return str(done.get("updated_at") or done.get("created_at") or "")


def _image_key(data: dict[str, Any]) -> str:
    """The key of a task's image: by its usual names, else the first value that names an image."""
    texts = [key for key, value in data.items() if isinstance(value, str)]
    known = [key for name in (*IMAGE_COLUMNS, *URI_COLUMNS) for key in texts if key.lower() == name]
    return next(iter([*known, *(key for key in texts if is_image_name(data[key]))]), "")


def _image_of(data: dict[str, Any]) -> str | None:
    """Where the image of a task lies: a URI, or a path below one of Label Studio's folders."""
    text = data.get(_image_key(data))
    if not text or "://" in text:
        return text or None
    return path_in_link(text).lstrip("/")


def _project(found: list[_Annotation], name: str) -> JsonTable:
    """One row per task with an answer, the latest of several; a column per question."""
    latest, differ = dict[str, _Annotation](), set[str]()
    for one in sorted(found, key=lambda one: one.when):
        if one.answers:
            before = latest.get(one.task)
            differ |= {one.task} if before is not None and before.answers != one.answers else set()
            latest[one.task] = one
    several = [chosen for one in latest.values() for chosen in one.answers.values() if len(chosen) > 1]
    if several or not latest:
        got = f"{len(several):,} with several, such as {', '.join(several[0])}" if several else "no annotation"
        remedy = "search an image classification with one choice per image"
        raise DataError(expected_got(f"one class per task in {name}, an export of Label Studio", got, remedy))
    tasks = dict.fromkeys(one.task for one in found)
    rows = [latest[task] for task in tasks if task in latest]
    questions = dict.fromkeys(question for one in rows for question in one.answers)
    columns = {question: [one.answers.get(question, [None])[0] for one in rows] for question in questions}
    warnings = []
    if len(rows) < len(tasks):
        warnings.append(f"Left out: {len(tasks) - len(rows):,} of {len(tasks):,} tasks, which nobody annotated.")
    if differ:
        warnings.append(f"{len(differ):,} tasks have annotations that differ; the latest counts.")
    return JsonTable(pa.table({"image": [one.image for one in rows]} | columns), tuple(warnings), is_project=True)
