"""Delimited text as spreadsheets save it."""

from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynacor_ray.core.text_tables import decoded, raw_records, read_table_text, with_field

ROWS = "instance_id{d}mark{d}label\r\n7{d}wrong{d}Bär\r\n"
WANTED = [{"instance_id": "7", "mark": "wrong", "label": "Bär"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encodings_and_delimiters(encoding: str, delimiter: str) -> None:
    assert read_table_text(decoded(ROWS.format(d=delimiter).encode(encoding)))[1] == WANTED


def test_utf_16_of_the_other_order() -> None:
    assert read_table_text(decoded(("\ufeff" + ROWS.format(d=";")).encode("utf-16-be")))[1] == WANTED


def test_what_excel_adds() -> None:
    text = "sep=;\r\nInstance_ID ; MARK\r\n7; wrong,\r\n;\r\n\r\n"
    assert read_table_text(text) == (["instance_id", "mark"], [{"instance_id": "7", "mark": "wrong,"}])
    assert read_table_text("") == ([], [])


FIELDS = st.lists(st.text(st.sampled_from('ab,"\n\r é')), min_size=2, max_size=4)


@given(
    FIELDS, st.text(st.sampled_from('x,"\n')), st.integers(0, 1), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
)
def test_one_field_is_changed_and_nothing_else(fields: list[str], text: str, place: int, quoting: int) -> None:
    lines: list[str] = []
    sink = type("Sink", (), {"write": lambda _, line: lines.append(line)})()
    csv.writer(sink, quoting=quoting).writerow(fields)  # type: ignore[call-overload]
    ((found, raw),) = raw_records("".join(lines).splitlines(keepends=True), ",")
    assert (found, raw) == (fields, lines[0])
    changed = with_field(raw, place, text, ",")
    ((found, _),) = raw_records([changed], ",")
    assert found == [*fields[:place], text, *fields[place + 1 :]]
    assert with_field(changed, place, fields[place], ",").replace('"', "") == raw.replace('"', "")
