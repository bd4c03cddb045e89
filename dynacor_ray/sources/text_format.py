"""How a table in a text file is written: encoding, compression, delimiter, quotes and header, found by looking."""

from __future__ import annotations

import codecs
import csv
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pacsv

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.storage import Location
from dynacor_ray.sources.columns import (
    FEATURE_COLUMNS,
    ID_COLUMNS,
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    URI_COLUMNS,
    plain_name,
)
from dynacor_ray.sources.image_files import LFS_HEAD, LFS_REMEDY, is_image_name

TEXT_TABLES = {".csv": ",", ".tsv": "\t", ".txt": " ", ".tab": "\t", ".data": ","}
"""Endings of tables in text files, and the delimiter that each hints at."""
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""Endings of compressed files, which storage unpacks while it reads."""

_HEAD = 1 << 18
_BLOCK = 1 << 20
_LINES = 60
_LONGEST = 100_000
_DELIMITERS = (",", ";", "\t", "|", " ")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_KNOWN = frozenset((*LABEL_COLUMNS, *URI_COLUMNS, *IMAGE_COLUMNS, *FEATURE_COLUMNS, *ID_COLUMNS, "instance_id"))
_DECIMAL = re.compile(r"[-+]?\d+([.,])\d+(?:[eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
_EXCEL_HINT = re.compile(r"\"?sep=.\"?")
"""A line above the header by which Excel knows the delimiter."""
_NO_TABLES = (
    (re.compile(rb"\s*<(!doctype )?html", re.IGNORECASE), "a page of the web", "download the file again, signed in"),
    (re.compile(rb"PK\x03\x04"), "a packed file, as .xlsx and .zip are", "save it as CSV, or unpack it"),
)
_SPARSE = re.compile(r"[^\s,;]+( \d+:[-+.\deE]+)+ *")
_NAMES = {"\t": "tab", " ": "blank"}


@dataclass(frozen=True)
class TextFormat:
    """How a table is written.

    Attributes:
        encoding: as Python names it.
        delimiter: between fields.
        quote: around fields that hold a delimiter.
        names: of the columns.
        has_header: whether the file has them.
        skip: lines before the header: comments and empty ones.
        line_end: what ends its lines.
        decimal: the mark before the decimals of its numbers.
        has_rows: whether anything stands below the header.
    """

    encoding: str
    delimiter: str
    quote: str
    names: tuple[str, ...]
    has_header: bool
    skip: int
    line_end: str
    decimal: str = "."
    has_rows: bool = True

    def parse_options(self, **more: object) -> pacsv.ParseOptions:
        """For pyarrow."""
        return pacsv.ParseOptions(delimiter=self.delimiter, quote_char=self.quote, newlines_in_values=True, **more)

    def read_options(self) -> pacsv.ReadOptions:
        """For pyarrow: the header is skipped, since its names are known; one thread, so that rows are counted."""
        skip = self.skip + self.has_header
        encoding = "utf8" if self.encoding.startswith("utf-8") else self.encoding
        return pacsv.ReadOptions(use_threads=False, column_names=self.names, skip_rows=skip, encoding=encoding)

    @property
    def note(self) -> str:
        """What is unusual, in a sentence; empty if nothing is."""
        said = []
        if self.encoding not in ("utf-8", "utf-8-sig"):
            said.append(f"text as {self.encoding}")
        if self.delimiter not in ",\t":
            said.append(f"fields as divided by {_NAMES.get(self.delimiter, self.delimiter)!r}")
        if self.decimal != ".":
            said.append("commas in numbers as decimal points")
        if not self.has_header:
            said.append(f"the first line as data, with the columns {', '.join(self.names)}")
        return f"Read {', '.join(said)}." if said else ""


def table_ending(name: str) -> str:
    """The ending that tells the kind of a table, without that of a compression.

    >>> table_ending("Train.CSV.gz")
    '.csv'
    """
    stem, ending = posixpath.splitext(name.lower())
    return posixpath.splitext(stem)[1] if ending in COMPRESSIONS else ending


def find_format(place: Location) -> TextFormat:
    """Look at a table.

    Raises:
        DataError: it is empty, no text, or a pointer of Git LFS.
    """
    name = posixpath.basename(place.path)
    with place.stream() as stream:
        head = stream.read(_HEAD)
        if head.startswith(LFS_HEAD):
            raise DataError(expected_got(f"a table in {name}", "a pointer of Git LFS", LFS_REMEDY))
        for pattern, got, remedy in _NO_TABLES:
            if pattern.match(head):
                raise DataError(expected_got(f"a table in {name}", got, remedy))
        encoding = _encoding(head) or _encoding_of_all(head, stream)
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(head)
    if "\0" in text:
        raise DataError(expected_got(f"{name} to be a table in text", "binary data", "give another path"))
    lines = [line[:_LONGEST] for line in re.split(r"\r\n|\r|\n", text)[: 4 * _LINES]]
    skip = next((number for number, line in enumerate(lines) if _is_row(line)), None)
    if skip is None:
        raise DataError(expected_got(f"{name} to be a table", "an empty file", "check how it was written"))
    if _SPARSE.fullmatch(lines[skip]):
        got, remedy = "pairs of column and number (LIBSVM)", "load it in Python, and pass features.toarray() and labels"
        raise DataError(expected_got(f"a number per column in {name}", got, remedy))
    lines = [line for line in lines[skip:] if line.strip()][:_LINES]
    if len(lines[0]) == _LONGEST:
        got, remedy = "one that is longer", "write so many columns as .parquet or .npz"
        raise DataError(expected_got(f"a first line of at most {_LONGEST:,} characters in {name}", got, remedy))
    quote = "'" if lines[0].startswith("'") and '"' not in text else '"'
    delimiter = _delimiter(lines, quote, TEXT_TABLES.get(table_ending(name), ","))
    rows = list(csv.reader(lines, delimiter=delimiter, quotechar=quote))
    names, has_header = _header(rows)
    decimal, has_rows = _decimal(rows, delimiter), len(rows) > has_header
    return TextFormat(encoding, delimiter, quote, names, has_header, skip, _line_end(text), decimal, has_rows)


def _is_row(line: str) -> bool:
    """Whether a line is the header or a row: not empty, a comment, or a hint for Excel."""
    return bool(line.strip()) and not line.startswith("#") and not _EXCEL_HINT.fullmatch(line.strip())


def _line_end(text: str) -> str:
    r"""What ends every line: \n where some end with \r\n and others do not, as in files that were joined."""
    if "\n" in text:
        return "\r\n" if text.count("\n") == text.count("\r\n") else "\n"
    return "\r" if "\r" in text else "\n"


def _encoding(head: bytes) -> str | None:
    """The encoding that a mark at the start tells, or zeros in every second byte; else None."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros = head[first:2000:2]
        if len(zeros) > 4 and zeros.count(0) > 0.8 * len(zeros):
            return encoding
    return None


def _encoding_of_all(head: bytes, stream: pa.NativeFile) -> str:
    """UTF-8 if the whole file is, else Windows' Western one; Latin-1 knows every byte."""
    block, decoders = head, {name: codecs.getincrementaldecoder(name)() for name in ("utf-8", "cp1252")}
    while True:
        for name in list(decoders):
            try:
                decoders[name].decode(block, final=not block)
            except UnicodeDecodeError:
                del decoders[name]
        if not block or not decoders:
            return next(iter(decoders), "latin-1")
        block = stream.read(_BLOCK)


def _delimiter(lines: Sequence[str], quote: str, hinted: str) -> str:
    """The delimiter by which most lines have equally many fields; a known name in the header decides first."""

    def merit(delimiter: str) -> tuple[bool, float, bool, int]:
        rows = list(csv.reader(lines, delimiter=delimiter, quotechar=quote))
        width, count = Counter(map(len, rows)).most_common(1)[0]
        known = any(plain_name(cell) in _KNOWN for cell in rows[0])
        is_table = width > 1 and len(rows[0]) > 1
        share = count / len(rows) if is_table else 0.0
        return (is_table and known, round(share, 1), delimiter == hinted, -_DELIMITERS.index(delimiter))

    candidates = [*_DELIMITERS[:-1], *([" "] if hinted == " " or "," not in lines[0] else [])]
    return max(candidates, key=merit)


def _header(rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], bool]:
    """Names of the columns, and whether the first line holds them."""
    first = [cell.strip() for cell in rows[0]]
    if not any(plain_name(cell) in _KNOWN for cell in first) and any(map(_is_value, first)):
        names = [f"column_{number}" for number in range(1, len(first) + 1)]
        paths = [place for place, cell in enumerate(first) if is_image_name(cell)]
        if len(paths) == 1:
            names[paths[0]] = "path"
            if len(names) == 2:
                names[1 - paths[0]] = "label"
        words = [place for place, cell in enumerate(first) if not _is_value(cell)]
        if not paths and len(words) == 1 and len(names) > 2:  # numbers and one word, as in the tables of UCI
            names = [f"column_{number}" for number in range(1, len(first))]
            names.insert(words[0], "label")
        return tuple(names), False
    names = [cell or f"column_{number}" for number, cell in enumerate(first, 1)]
    return tuple(names), True


def _decimal(rows: Sequence[Sequence[str]], delimiter: str) -> str:
    """The comma where numbers have one, as spreadsheets of many languages write them, and none has a point.

    Not where commas also divide the fields and all stand before three digits, as in "1,000".
    """
    found = [match for row in rows for cell in row if (match := _DECIMAL.fullmatch(cell.strip()))]
    are_thousands = delimiter == "," and all(_THOUSANDS.fullmatch(match[0]) for match in found)
    return "," if {match[1] for match in found} == {","} and not are_thousands else "."


def _is_value(cell: str) -> bool:
    """Whether a cell is a value rather than the name of a column: a file of an image, a number, or a missing one."""
    return is_image_name(cell) or cell == "?" or re.fullmatch(r"[-+]?\d*[.,]?\d+([eE][-+]?\d+)?", cell) is not None
