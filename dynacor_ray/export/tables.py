"""Export of rows: tables with cleanlab's column names, and what annotation tools and `datasets` read."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.core.storage import Location
from dynacor_ray.core.table_files import batches, columns_of
from dynacor_ray.export import datumaro, fiftyone
from dynacor_ray.export.datasets_folder import write_datasets_folder
from dynacor_ray.export.label_studio import write_tasks
from dynacor_ray.export.run_data import with_data_at
from dynacor_ray.runs.audit import issues_in_use
from dynacor_ray.runs.directory import finished_run
from dynacor_ray.runs.records import RunSummary

_FOLDERS = {
    "fiftyone": fiftyone.write_dataset,
    "datumaro": datumaro.write_dataset,
    "datasets": write_datasets_folder,
}
FORMATS = {"csv": ".csv", "parquet": ".parquet", "json": "", "label-studio": ".json", **dict.fromkeys(_FOLDERS, "")}
"""Format -> the file name's ending that selects it."""
_BATCH, _IMAGE_BATCH = 65_536, 4096  # with images
_FORMULA, _NUMBER = r"^[=+\-@\t\r]", r"^[+-]?[0-9.,]+$"


def export_run(
    run: Location,
    out: Location,
    flagged: bool = False,
    limit: int | None = None,
    prefix: str = "",
    form: str | None = None,
    data: str | None = None,
) -> int:
    """Write rows of `issues.parquet`, most suspicious first.

    - `csv`, `parquet`, `json`: classes by name. In CSV a text that a spreadsheet would take for a formula gets an
      apostrophe. JSON is a list with one row per line.
    - `label-studio`: flagged rows as pre-annotated tasks, with the labeling configuration beside them (.xml).
    - `fiftyone`, `datumaro`: a folder that FiftyOne or Datumaro imports.
    - `datasets`: a folder that Hugging Face's `datasets` loads.

    Args:
        run: a finished run.
        out: what to write.
        flagged: whether to write flagged rows only.
        limit: maximum number of rows.
        prefix: text before each uri in tasks for Label Studio.
        form: one of FORMATS; None to go by the ending of `out`.
        data: where the data are now, if they were moved since the run.

    Returns:
        Number of rows written.

    Raises:
        ConfigError: another format.
        DataError: Label Studio, FiftyOne or Datumaro could not show the rows.
        StorageError: the folder to write exists.
    """
    run = finished_run(run)
    form = form or _form_of(out)
    summary = with_data_at(RunSummary.read(run), data)
    names = summary.class_names
    if form == "label-studio":
        return write_tasks(run, summary, _rows(run, names, True, limit, _IMAGE_BATCH), out, prefix)
    if form in _FOLDERS:
        return _FOLDERS[form](run, summary, _rows(run, names, flagged, limit, _IMAGE_BATCH), out)
    rows = _rows(run, names, flagged, limit, _BATCH)
    return _write_json(rows, out) if form == "json" else _write_table(rows, out, form)


def _form_of(out: Location) -> str:
    """The format that the ending of a file name selects."""
    ending = posixpath.splitext(out.path)[1].lower()
    forms = {end: form for form, end in FORMATS.items() if end}
    if ending not in forms:
        remedy = f"name it so, or say --format {' or '.join(FORMATS)}"
        raise ConfigError(expected_got(f"a file that ends with {', '.join(forms)}", str(out), remedy))
    return forms[ending]


def named_classes(table: pa.Table, names: list[str]) -> pa.Table:
    """Rows of `issues.parquet` or `reviewed_issues.parquet` with class names in place of indices."""
    known = pa.array(names, pa.string())
    for name in (schema.GIVEN_LABEL, schema.PREDICTED_LABEL):
        place = table.schema.get_field_index(name)
        table = table.set_column(
            place, name, pa.chunked_array([known.take(c) for c in table[name].chunks], pa.string())
        )
    return table


def _rows(run: Location, names: list[str], flagged: bool, limit: int | None, size: int) -> Iterator[pa.Table]:
    """Batches of rows with class names instead of indices; one without rows, where there is none."""
    left = limit
    issues = issues_in_use(run)
    yield named_classes(columns_of(issues).empty_table(), names)
    for _, table in batches(issues, size=size):
        if flagged:
            table = table.filter(table[schema.IS_LABEL_ISSUE])
        if left is not None:
            table = table.slice(0, left)
            left -= table.num_rows
        yield named_classes(table, names)
        if left == 0:
            return


def _write_table(rows: Iterator[pa.Table], out: Location, form: str) -> int:
    count = 0
    with out.atomic_replace() as part, part.filesystem.open_output_stream(part.path) as stream:
        make = pacsv.CSVWriter if form == "csv" else pq.ParquetWriter
        first = next(rows)
        with make(stream, first.schema) as writer:
            for table in rows:
                writer.write_table(without_formulas(table) if form == "csv" else table)
                count += table.num_rows
    return count


def _write_json(rows: Iterator[pa.Table], out: Location) -> int:
    count = 0
    with out.atomic_replace() as part, part.filesystem.open_output_stream(part.path) as stream:
        stream.write(b"[")
        for table in rows:
            for row in table.to_pylist():
                kept = {name: None if value != value else value for name, value in row.items()}  # NaN is no JSON
                stream.write(f"{',' if count else ''}\n{json.dumps(kept, ensure_ascii=False)}".encode())
                count += 1
        stream.write(b"\n]\n")
    return count


def without_formulas(table: pa.Table) -> pa.Table:
    """The table with an apostrophe before texts that a spreadsheet would compute."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            text = table.column(place)
            odd = pc.and_not(pc.match_substring_regex(text, _FORMULA), pc.match_substring_regex(text, _NUMBER))
            safe = pc.if_else(odd, pc.binary_join_element_wise("'", text, ""), text)
            table = table.set_column(place, field, safe)
    return table
