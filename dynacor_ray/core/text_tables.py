"""Delimited text as spreadsheets save it: its encoding, its delimiter, and records that stay as they were."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator

from dynacor_ray.core.errors import DataError, expected_got

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
BOM = "\ufeff"
"""Byte order mark of decoded text."""
MOST_CELLS = 20_000_000
"""Of a table whose rows are held one by one, some hundred bytes for a cell."""
csv.field_size_limit(1 << 30)  # the default of 128 KiB is less than an image in a column


def encoding_of(head: bytes) -> str:
    """Encoding by the byte order mark at the start of a file; UTF-8 without one.

    >>> encoding_of("a;b".encode("utf-16"))
    'utf-16-le'
    """
    return next((name for mark, name in _BOMS if head.startswith(mark)), "utf-8")


def decoded(content: bytes) -> str:
    """The text of a file without its byte order mark: UTF-8 or UTF-16; else Windows' Western European."""
    try:
        return content.decode(encoding_of(content)).removeprefix(BOM)
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def read_table_text(text: str) -> tuple[list[str], list[dict[str, str]]]:
    r"""Names of the columns, in lower case and trimmed, and the rows by these names; blank lines are left out.

    The delimiter is the comma, semicolon, tab or bar that the first line has most of; a line `sep=;` as Excel takes it
    says so itself. Raises DataError for more than `MOST_CELLS`, which would fill the memory.

    >>> read_table_text("Instance_ID ;Mark\r\n7;wrong\r\n")
    (['instance_id', 'mark'], [{'instance_id': '7', 'mark': 'wrong'}])
    """
    lines = io.StringIO(text, newline="")
    head = lines.readline()
    told = re.fullmatch(r"sep=(.)\s*", head)
    head = lines.readline() if told else head
    delimiter = told[1] if told else max(",;\t|", key=head.count)
    if text.count(delimiter) + text.count("\n") > MOST_CELLS:
        raise DataError(expected_got(f"a table of at most {MOST_CELLS:,} cells", "more", "leave rows or columns out"))
    names = [name.strip().lower() for name in next(csv.reader([head], delimiter=delimiter), [])]
    rows = ([cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter))
    return names, [dict(zip(names, row, strict=False)) for row in rows if any(row)]


def raw_records(lines: Iterable[str], delimiter: str, quote: str = '"') -> Iterator[tuple[list[str], str]]:
    """Fields of each record, and its text as it stands, with the end of its line."""
    kept: list[str] = []

    def read() -> Iterator[str]:
        for line in lines:
            kept.append(line)
            yield line

    for fields in csv.reader(read(), delimiter=delimiter, quotechar=quote):
        yield fields, "".join(kept)
        kept.clear()


def with_field(raw: str, place: int, text: str, delimiter: str) -> str:
    r"""A record of `raw_records` with another text in one field; all else stays, quotes and end of line included.

    >>> with_field('"a, b",dog,""\r\n', 1, "cat", ",")
    '"a, b",cat,""\r\n'
    """
    body = raw.rstrip("\r\n")
    one = re.compile(rf'"(?:[^"]|"")*"[^{delimiter}]*|[^{delimiter}]*', re.DOTALL)
    start, found = 0, one.match(body)
    for _ in range(place):
        assert found is not None
        start = found.end() + 1
        found = one.match(body, start)
    assert found is not None
    if found[0].startswith('"') or set(text) & {delimiter, '"', "\r", "\n"}:
        text = '"' + text.replace('"', '""') + '"'
    return body[:start] + text + body[found.end() :] + raw[len(body) :]
