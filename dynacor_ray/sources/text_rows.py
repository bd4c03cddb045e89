"""Tables in text with numbers, read piece by piece; what cannot be cut anywhere is copied as plain text."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from dynacor_ray.core.errors import DataError, expected_got, first_line
from dynacor_ray.core.schema import INSTANCE_ID
from dynacor_ray.core.storage import Location, locate, storage_errors
from dynacor_ray.sources.column_hints import with_hints
from dynacor_ray.sources.image_files import file_stamp
from dynacor_ray.sources.row_files import RowFile, RowReader
from dynacor_ray.sources.text_format import COMPRESSIONS, TextFormat, find_format

_CHUNK_BYTES, _LONGEST_LINE, _VIEW_BYTES = 8 << 20, 64 << 20, 1 << 16
_DECIMAL_COMMA = r"^\s*([-+]?\d+),(\d+)\s*$"
_EXCEL_ERRORS = ("#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!")
_NO_NUMBERS = [*pacsv.ConvertOptions().null_values, *_EXCEL_ERRORS, "None", "<NA>", "?"]
"""What stands for a missing number: also what spreadsheets, pandas, and the tables of UCI write."""
_COPIES = 16
"""Plain copies that a process keeps: each takes disk and a file handle."""
_PLAIN: dict[tuple[Any, ...], _Copy] = {}
"""Plain copies that this process made, the last used at the end. They have no name, so no end of it leaves one."""
_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class TextRows(RowReader):
    """Pieces of a table in text.

    Attributes:
        form: how it is written.
        numbers: columns that hold numbers.
        stamp: name, size and time of change of the file.
        ranges: start and length in bytes of the groups that are read, in the plain text.
        has_ids: whether its column of ids holds integers.
    """

    form: TextFormat
    numbers: frozenset[str]
    stamp: tuple[Any, ...]
    ranges: tuple[tuple[int, int], ...] = ()
    has_ids: bool = False

    def only(self, groups: tuple[int, ...]) -> RowReader:
        """See `RowReader.only`; other ranges are left out, so that pickles stay small."""
        return replace(self, groups=groups, ranges=tuple(self.ranges[group] for group in groups))

    def batches(self, columns: list[str], max_rows: int) -> Generator[pa.RecordBatch, None, None]:
        """See `RowReader.batches`."""
        with storage_errors("read", self.place), open_plain(self.place, self.form, self.stamp) as file:
            for start, length in self.ranges:
                file.seek(start)
                yield from self.parse(file.read(length), columns).to_batches(max_rows)

    def parse(self, data: bytes, columns: list[str]) -> pa.Table:
        """Rows of a piece. Raises DataError for what is no number, or a line with too many or too few fields."""
        types = {name: pa.float64() if name in self.numbers else pa.string() for name in columns}
        types |= {name: pa.int64() for name in columns if name == INSTANCE_ID and self.has_ids}
        convert = pacsv.ConvertOptions(
            include_columns=columns, column_types=types, decimal_point=self.form.decimal, null_values=_NO_NUMBERS
        )
        read = plain_form(self.form).read_options()
        read.skip_rows, read.block_size = 0, max(len(data), 1)
        try:
            return with_points(pacsv.read_csv(io.BytesIO(data), read, self.form.parse_options(), convert), self.form)
        except pa.ArrowInvalid as error:
            remedy = "correct the file; numbers that are missing stay empty"
            raise DataError(expected_got(f"{self.name} to be a table", f"'{first_line(error)}'", remedy)) from error


def with_points(table: pa.Table, form: TextFormat) -> pa.Table:
    """The rows, with a point in numbers among its text, such as labels, where the file has decimal commas."""
    texts = [name for name in table.column_names if form.decimal == "," and pa.types.is_string(table[name].type)]
    for name in texts:
        changed = pc.replace_substring_regex(table[name], _DECIMAL_COMMA, r"\1.\2")
        table = table.set_column(table.column_names.index(name), name, changed)
    return table


def text_schema(place: Location, form: TextFormat) -> pa.Schema:
    """Columns of a table in text with types, as the first lines suggest them; text where in doubt."""
    skip = pacsv.ConvertOptions(strings_can_be_null=True, decimal_point=form.decimal, null_values=_NO_NUMBERS)
    parse = form.parse_options(invalid_row_handler=lambda row: "skip")
    with storage_errors("read", place), place.stream() as stream:
        try:
            reader = pacsv.open_csv(stream, form.read_options(), parse, skip)
            kinds, head = reader.schema, next(iter(reader), None)
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return pa.schema([(name, pa.string()) for name in form.names])
    numeric = [field for field in kinds if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)]
    kept = {field.name: field.type for field in numeric}
    typed = pa.schema([(name, kept.get(name, pa.string())) for name in form.names])
    return typed if head is None else with_hints(typed, pa.Table.from_batches([head]))


def open_text_rows(place: Location, numbers: Sequence[str]) -> RowFile:
    """Open a table in text that holds features. `numbers`: their columns. Raises DataError when a line is broken."""
    form, info = find_format(place), place.info()
    name, stamp = info.base_name, tuple(file_stamp(info.base_name, info))
    typed = {field.name: field.type for field in text_schema(place, form)}
    has_ids = INSTANCE_ID in typed and pa.types.is_integer(typed[INSTANCE_ID])
    reader = TextRows(place, name, form=form, numbers=frozenset(numbers), stamp=stamp, has_ids=has_ids)
    with storage_errors("read", place), open_plain(place, form, stamp) as file:
        ranges, rows = _ranges(file, name, plain_form(form), lambda data: reader.parse(data, [form.names[0]]).num_rows)
    typed |= {name: pa.string() for name in typed if name != INSTANCE_ID} | dict.fromkeys(numbers, pa.float64())
    notes = (form.note,) if form.note else ()
    return RowFile(replace(reader, ranges=ranges), pa.schema(list(typed.items())), rows, stamp, notes)


def _is_wide(form: TextFormat) -> bool:
    """Whether a line ends with other bytes than in UTF-8."""
    return form.encoding.startswith(("utf-16", "utf-32"))


def plain_form(form: TextFormat) -> TextFormat:
    """How the table is written in what `open_plain` opens."""
    return replace(form, encoding="utf-8") if _is_wide(form) else form


def open_plain(place: Location, form: TextFormat, stamp: tuple[Any, ...]) -> IO[bytes]:
    """The table, open in a form that can be read from any line on: itself, or a copy in UTF-8 that is not compressed.

    A compressed text has no lines to jump to, and one in UTF-16 no bytes that end a line. The copy is on this machine,
    as large as the text, and is made again where `_COPIES` others were used since.
    """
    if not _is_wide(form) and not place.path.lower().endswith(COMPRESSIONS):
        return place.filesystem.open_input_file(place.path)  # type: ignore[no-any-return]
    key = (place.uri, *stamp)
    with _LOCK:
        copy = _PLAIN.pop(key, None) or _plain_copy(place, form)
        _PLAIN[key] = copy
        if len(_PLAIN) > _COPIES:
            _PLAIN.pop(next(iter(_PLAIN)))
    return io.BufferedReader(_View(copy), _VIEW_BYTES)


def _plain_copy(place: Location, form: TextFormat) -> _Copy:
    copy = _Copy()
    with place.stream() as stream, storage_errors("write", locate(tempfile.gettempdir())):
        source = pa.transcoding_input_stream(stream, form.encoding, "utf-8") if _is_wide(form) else stream
        shutil.copyfileobj(source, copy.file, _CHUNK_BYTES)
        copy.file.flush()
    return copy


class _Copy:
    """A file without a name, closed once nobody reads it any more."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - as long as this object

    def __del__(self) -> None:
        self.file.close()


class _View(io.RawIOBase):
    """A copy, read from a place of one's own: several threads share its handle."""

    def __init__(self, copy: _Copy) -> None:
        self._copy, self._at = copy, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def readinto(self, into: Any, /) -> int:
        data = os.pread(self._copy.file.fileno(), len(into), self._at)
        into[: len(data)] = data
        self._at += len(data)
        return len(data)


def _whole_rows(data: bytes, end: bytes, quote: bytes) -> int:
    """Bytes up to the end of the last row in a block; a line that ends within quotes ends no row.

    A quote that nothing closes, such as that of 5" wide, is in the text: it holds up one more block, and no longer.
    """
    last = data.rfind(end) + len(end) if end in data else 0
    if data.count(quote, 0, last) % 2:
        before = data.rfind(end, 0, data.rfind(quote, 0, last))
        last = before + len(end) if before >= 0 else last if len(data) > 2 * _CHUNK_BYTES else 0
    return last


def _ranges(
    file: IO[bytes], name: str, form: TextFormat, count: Callable[[bytes], int]
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Cut the rows into pieces of some megabytes at ends of lines; counts the rows of each."""
    ranges, rows = [], []
    end, rest, start = form.line_end.encode(), b"", 0
    skip = form.skip + form.has_header
    while block := file.read(_CHUNK_BYTES):
        data = rest + block
        while skip and end in data:
            start, data, skip = start + data.index(end) + len(end), data[data.index(end) + len(end) :], skip - 1
        last = 0 if skip else _whole_rows(data, end, form.quote.encode())
        if last:
            ranges.append((start, last))
            rows.append(count(data[:last]))
        rest, start = data[last:], start + last
        if len(rest) > _LONGEST_LINE:
            got = f"one of more than {_LONGEST_LINE >> 20} MiB"
            raise DataError(expected_got(f"lines in {name}", got, "check that it is a table in text"))
    if rest.strip():
        ranges.append((start, len(rest)))
        rows.append(count(rest))
    return tuple(ranges), tuple(rows)
